# SPDX-License-Identifier: MIT
# Examples use the installed interface only, so they link the shared library. dmcat is the largest
# of them, and is installed. tests/examples/programs runs the others.

bin_PROGRAMS = examples/dmcat/dmcat
examples_dmcat_dmcat_LDADD = lib/libdmcore.la -lpthread
examples_dmcat_dmcat_SOURCES = \
	examples/dmcat/background.c \
	examples/dmcat/background.h \
	examples/dmcat/commands.c \
	examples/dmcat/commands.h \
	examples/dmcat/copy.c \
	examples/dmcat/copy.h \
	examples/dmcat/copy_open.c \
	examples/dmcat/copy_options.c \
	examples/dmcat/copy_options.h \
	examples/dmcat/copy_report.c \
	examples/dmcat/copy_report.h \
	examples/dmcat/copy_state.c \
	examples/dmcat/copy_state.h \
	examples/dmcat/cow.c \
	examples/dmcat/cow.h \
	examples/dmcat/cow_check.c \
	examples/dmcat/cow_check.h \
	examples/dmcat/cow_read.c \
	examples/dmcat/cow_read.h \
	examples/dmcat/devices.c \
	examples/dmcat/devices.h \
	examples/dmcat/files.c \
	examples/dmcat/files.h \
	examples/dmcat/info.c \
	examples/dmcat/io.c \
	examples/dmcat/io.h \
	examples/dmcat/json.c \
	examples/dmcat/json.h \
	examples/dmcat/live.c \
	examples/dmcat/live.h \
	examples/dmcat/main.c \
	examples/dmcat/options.c \
	examples/dmcat/options.h \
	examples/dmcat/progress.c \
	examples/dmcat/progress.h \
	examples/dmcat/replay.c \
	examples/dmcat/replay.h \
	examples/dmcat/report.c \
	examples/dmcat/report.h \
	examples/dmcat/script.c \
	examples/dmcat/script.h \
	examples/dmcat/scrub.c \
	examples/dmcat/scrub.h \
	examples/dmcat/session.c \
	examples/dmcat/session.h \
	examples/dmcat/show.c \
	examples/dmcat/show.h \
	examples/dmcat/tasks.c \
	examples/dmcat/tasks.h \
	examples/dmcat/verbs.c \
	examples/dmcat/watch.c \
	examples/dmcat/watch.h \
	examples/dmcat/words.c \
	examples/dmcat/words.h
$(examples_dmcat_dmcat_OBJECTS): | $(BUILT_SOURCES)

# bash-completion looks for a file of the command's name.
bashcompletiondir = $(datadir)/bash-completion/completions
bashcompletion_DATA = examples/completions/dmcat
EXTRA_DIST += examples/dmcat/completion.bash
CLEANFILES += examples/completions/dmcat
examples/completions/dmcat: $(srcdir)/examples/dmcat/completion.bash
	$(AM_V_GEN)$(MKDIR_P) examples/completions && cp $< $@

example_programs = \
	examples/backup-while-writing \
	examples/copy-with-kcopyd \
	examples/custom-driver \
	examples/epoll-loop \
	examples/hello-linear \
	examples/live-migrate \
	examples/mirror-replace-leg \
	examples/poll-loop \
	examples/sparse-device \
	examples/test-your-own-storage \
	examples/threads
noinst_PROGRAMS += $(example_programs)
examples_backup_while_writing_LDADD = lib/libdmcore.la -lpthread
examples_copy_with_kcopyd_LDADD = lib/libdmcore.la
examples_custom_driver_LDADD = lib/libdmcore.la
examples_epoll_loop_LDADD = lib/libdmcore.la
examples_hello_linear_LDADD = lib/libdmcore.la
examples_live_migrate_LDADD = lib/libdmcore.la -lpthread
examples_mirror_replace_leg_LDADD = lib/libdmcore.la -lpthread
examples_poll_loop_LDADD = lib/libdmcore.la
examples_sparse_device_LDADD = lib/libdmcore.la
examples_test_your_own_storage_LDADD = lib/libdmcore.la
examples_threads_LDADD = lib/libdmcore.la -lpthread

# Built outside the tree, against what is installed.
EXTRA_DIST += \
	examples/demo.sh \
	examples/target-reverse/Makefile \
	examples/target-reverse/reverse.c \
	examples/target-reverse/reverse.h \
	examples/target-reverse/try.c
