# SPDX-License-Identifier: MIT
# The tests. tests/unit/ mirrors lib/: a new program tests/unit/map/test_table.c is one line in
# unit_tests. It links the whole library, internal symbols included, and tests/support/.

unit_tests = \
	tests/crash/test_kcopyd \
	tests/crash/test_mirror \
	tests/crash/test_mirror_random \
	tests/crash/test_promises \
	tests/crash/test_snapshot \
	tests/crash/test_snapshot_edges \
	tests/crash/test_snapshot_merge \
	tests/crash/test_snapshot_orders \
	tests/crash/test_snapshot_random \
	tests/crash/test_stacks \
	tests/fault/test_alloc \
	tests/fault/test_constructor_memory \
	tests/fault/test_descriptors \
	tests/fault/test_kcopyd \
	tests/fault/test_map_memory \
	tests/fault/test_mirror_behind \
	tests/fault/test_mirror_cleaning \
	tests/fault/test_mirror_flushes \
	tests/fault/test_mirror_log \
	tests/fault/test_mirror_random \
	tests/fault/test_mirror_reads \
	tests/fault/test_mirror_recovery \
	tests/fault/test_mirror_writes \
	tests/fault/test_reload_memory \
	tests/fault/test_snapshot_handover \
	tests/fault/test_snapshot_room \
	tests/fault/test_target_files \
	tests/fault/test_target_io \
	tests/fault/test_target_memory \
	tests/golden/test_cow \
	tests/golden/test_constructors \
	tests/golden/test_images \
	tests/golden/test_log_writes \
	tests/golden/test_snapshot_images \
	tests/golden/test_snapshot_merges \
	tests/golden/test_snapshot_programs \
	tests/golden/test_tables \
	tests/prop/test_backends \
	tests/prop/test_exceptions \
	tests/prop/test_extremes \
	tests/prop/test_flakey \
	tests/prop/test_kcopyd \
	tests/prop/test_linear_striped \
	tests/prop/test_lookup \
	tests/prop/test_sim_states \
	tests/prop/test_swaps \
	tests/sim/test_kcopyd_cancel \
	tests/sim/test_kcopyd_faults \
	tests/sim/test_kcopyd_held_up \
	tests/sim/test_kcopyd_programs \
	tests/sim/test_kcopyd_throttle \
	tests/sim/test_kcopyd_turns \
	tests/sim/test_mirror_pace \
	tests/sim/test_mirror_programs \
	tests/sim/test_reserve \
	tests/sim/test_seeds \
	tests/sim/test_snapshot_crowd \
	tests/sim/test_snapshot_programs \
	tests/sim/test_snapshot_races \
	tests/unit/base/test_alloc \
	tests/unit/base/test_args \
	tests/unit/base/test_text \
	tests/unit/bdev/test_bio \
	tests/unit/bdev/test_copy \
	tests/unit/bdev/test_driver \
	tests/unit/bdev/test_extent \
	tests/unit/bdev/test_fan \
	tests/unit/bdev/test_file \
	tests/unit/bdev/test_file_block \
	tests/unit/bdev/test_file_faults \
	tests/unit/bdev/test_file_kernel \
	tests/unit/bdev/test_file_openings \
	tests/unit/bdev/test_file_syncs \
	tests/unit/bdev/test_huge \
	tests/unit/bdev/test_leaf \
	tests/unit/bdev/test_mem \
	tests/unit/bdev/test_misuse \
	tests/unit/bdev/test_modules \
	tests/unit/bdev/test_sync \
	tests/unit/dmcat/test_background \
	tests/unit/dmio/test_client \
	tests/unit/dmio/test_dmio \
	tests/unit/dmio/test_failures \
	tests/unit/dmio/test_mapped \
	tests/unit/dmio/test_memory \
	tests/unit/dmio/test_refusals \
	tests/unit/dmio/test_reserve \
	tests/unit/kcopyd/test_callbacks \
	tests/unit/kcopyd/test_cancel \
	tests/unit/kcopyd/test_client \
	tests/unit/kcopyd/test_copy \
	tests/unit/kcopyd/test_data \
	tests/unit/kcopyd/test_devices \
	tests/unit/kcopyd/test_errors \
	tests/unit/kcopyd/test_overlap \
	tests/unit/kcopyd/test_sequence \
	tests/unit/kcopyd/test_share \
	tests/unit/kcopyd/test_slices \
	tests/unit/kcopyd/test_sparse \
	tests/unit/kcopyd/test_verify \
	tests/unit/kcopyd/test_zero \
	tests/unit/map/test_again \
	tests/unit/map/test_concise \
	tests/unit/map/test_device \
	tests/unit/map/test_device_io \
	tests/unit/map/test_events \
	tests/unit/map/test_extent \
	tests/unit/map/test_features \
	tests/unit/map/test_fenced \
	tests/unit/map/test_flush \
	tests/unit/map/test_copies \
	tests/unit/map/test_forward \
	tests/unit/map/test_hooks \
	tests/unit/map/test_limits \
	tests/unit/map/test_manage \
	tests/unit/map/test_message \
	tests/unit/map/test_parse \
	tests/unit/map/test_preresume \
	tests/unit/map/test_registry \
	tests/unit/map/test_share \
	tests/unit/map/test_stack \
	tests/unit/map/test_stats \
	tests/unit/map/test_stats_life \
	tests/unit/map/test_stats_memory \
	tests/unit/map/test_stats_messages \
	tests/unit/map/test_reload \
	tests/unit/map/test_requeue \
	tests/unit/map/test_submit \
	tests/unit/map/test_suspend \
	tests/unit/map/test_suspend_races \
	tests/unit/map/test_suspend_wait \
	tests/unit/map/test_table \
	tests/unit/map/test_types \
	tests/unit/queue/test_call \
	tests/unit/queue/test_create \
	tests/unit/queue/test_drain \
	tests/unit/queue/test_fd \
	tests/unit/queue/test_inbox \
	tests/unit/queue/test_kernel \
	tests/unit/queue/test_owner \
	tests/unit/queue/test_queue \
	tests/unit/queue/test_service \
	tests/unit/queue/test_signals \
	tests/unit/queue/test_timers \
	tests/unit/queue/test_turns \
	tests/unit/sim/test_extent \
	tests/unit/sim/test_refusals \
	tests/unit/sim/test_rules \
	tests/unit/sim/test_states \
	tests/unit/sim/test_suspend \
	tests/unit/sim/test_world \
	tests/unit/targets/test_delay \
	tests/unit/targets/test_delay_lanes \
	tests/unit/targets/test_delay_threads \
	tests/unit/targets/test_dust \
	tests/unit/targets/test_dust_list \
	tests/unit/targets/test_error \
	tests/unit/targets/test_exceptions \
	tests/unit/targets/test_exceptions_threads \
	tests/unit/targets/test_flakey \
	tests/unit/targets/test_flakey_corrupt \
	tests/unit/targets/test_linear \
	tests/unit/targets/test_log_writes \
	tests/unit/targets/test_log_writes_memory \
	tests/unit/targets/test_log_writes_random \
	tests/unit/targets/test_mirror_scrub \
	tests/unit/targets/test_mirror_threads \
	tests/unit/targets/test_snapshot \
	tests/unit/targets/test_snapshot_first \
	tests/unit/targets/test_snapshot_handover \
	tests/unit/targets/test_snapshot_merge \
	tests/unit/targets/test_snapshot_metadata \
	tests/unit/targets/test_snapshot_origin \
	tests/unit/targets/test_snapshot_overflow \
	tests/unit/targets/test_mirror \
	tests/unit/targets/test_snapshot_table \
	tests/unit/targets/test_snapshot_threads \
	tests/unit/targets/test_striped \
	tests/unit/targets/test_switch \
	tests/unit/targets/test_unstriped \
	tests/unit/targets/test_zero \
	tests/unit/test_context \
	tests/unit/test_cow \
	tests/unit/test_data_path \
	tests/unit/test_fork \
	tests/unit/test_refusals

if HAVE_LIBURING
unit_tests += tests/unit/backend/test_inline_writes tests/unit/backend/test_io_uring \
	tests/unit/backend/test_waits
endif

# What several programs share.
support_sources = \
	tests/support/actor.c \
	tests/support/actor.h \
	tests/support/child.h \
	tests/support/copies.c \
	tests/support/copies.h \
	tests/support/dmio_world.c \
	tests/support/dmio_world.h \
	tests/support/fault_driver.c \
	tests/support/fault_driver.h \
	tests/support/fixture.c \
	tests/support/fixture.h \
	tests/support/heap.c \
	tests/support/heap.h \
	tests/support/images.c \
	tests/support/images.h \
	tests/support/logread.c \
	tests/support/logread.h \
	tests/support/hurry.c \
	tests/support/hurry.h \
	tests/support/mirrors.c \
	tests/support/mirrors.h \
	tests/support/model.c \
	tests/support/model.h \
	tests/support/nth.c \
	tests/support/nth.h \
	tests/support/rig.c \
	tests/support/rig.h \
	tests/support/rng.c \
	tests/support/rng.h \
	tests/support/samples.c \
	tests/support/samples.h \
	tests/support/scratch.c \
	tests/support/scratch.h \
	tests/support/simchoice.h \
	tests/support/simcopy.c \
	tests/support/simcopy.h \
	tests/support/simmodel.c \
	tests/support/simmodel.h \
	tests/support/simprogram.c \
	tests/support/simprogram.h \
	tests/support/simprogram_control.c \
	tests/support/simprogram_copy.c \
	tests/support/simprogram_inner.h \
	tests/support/simprogram_io.c \
	tests/support/simmir.c \
	tests/support/simmir.h \
	tests/support/simsnap.c \
	tests/support/simsnap.h \
	tests/support/simsnap_judge.c \
	tests/support/simtable.c \
	tests/support/simtable.h \
	tests/support/simworld.c \
	tests/support/simworld.h \
	tests/support/snapshots.c \
	tests/support/snapshots.h \
	tests/support/stage.c \
	tests/support/stage.h \
	tests/support/stamp.c \
	tests/support/stamp.h \
	tests/support/steps.c \
	tests/support/steps.h \
	tests/support/syscalls.c \
	tests/support/syscalls.h \
	tests/support/trace.c \
	tests/support/trace.h \
	tests/support/trial.c \
	tests/support/trial.h \
	tests/support/workload.c \
	tests/support/workload.h

# Run once, as they are: exit status 0 passes, 77 skips, anything else fails.
api_checks = \
	tests/api/tidy \
	tests/api/tidy-selftest \
	tests/api/symbols \
	tests/api/globals \
	tests/api/headers \
	tests/api/docs \
	tests/api/faults

# The same, for dmcat and the other examples.
example_checks = \
	tests/dmcat/backends.sh \
	tests/dmcat/copy.sh \
	tests/dmcat/cow.sh \
	tests/dmcat/io.sh \
	tests/dmcat/json.sh \
	tests/dmcat/live.sh \
	tests/dmcat/manual.sh \
	tests/dmcat/replay.sh \
	tests/dmcat/script.sh \
	tests/dmcat/scrub.sh \
	tests/dmcat/tables.sh \
	tests/dmcat/usage.sh \
	tests/dmcat/watch.sh \
	tests/examples/demo.sh \
	tests/examples/dmsetup.sh \
	tests/examples/nbdkit.sh \
	tests/examples/programs.sh \
	tests/modules/nbd.sh

# The same, for what make install leaves.
installed_checks = \
	tests/api/installed \
	tests/examples/target-reverse.sh

EXTRA_DIST += $(api_checks) $(example_checks) $(installed_checks) \
	tests/api/hello.c \
	tests/api/hello.cc \
	tests/examples/hostile-control.py \
	tests/examples/status-parsers.c \
	tests/dmcat/lib.sh \
	tests/golden/chance.py \
	tests/golden/constructors.txt.gz \
	tests/golden/cow.txt \
	tests/golden/images.tar.gz \
	tests/golden/log-writes.tar.gz \
	tests/golden/make-constructors \
	tests/golden/make-programs \
	tests/golden/mirror-images.tar.gz \
	tests/golden/pack-images \
	tests/golden/programs.h \
	tests/golden/record-merges \
	tests/golden/record-control.h \
	tests/golden/record-programs.c \
	tests/golden/snapshot-behaviour.txt.gz \
	tests/golden/snapshot-crafted.txt.gz \
	tests/golden/snapshot-fill.txt.gz \
	tests/golden/snapshot-images.tar.gz \
	tests/golden/snapshot-merges.tar.gz \
	tests/golden/snapshot-random.txt.gz \
	tests/golden/snapshot-two.txt.gz \
	tests/golden/split-merges \
	tests/golden/tables.txt \
	tests/run-suite \
	tests/valgrind.supp

# ---- how they are built -------------------------------------------------------------------------

# Launches a program with io_uring or locked memory forbidden.
check_PROGRAMS += tests/support/forbid
tests_support_forbid_LDADD =

LDADD = $(support_library) lib/libdmcore_core.la $(runner_library)

if WITH_UNIT_TESTS
check_PROGRAMS += $(unit_tests)
check_LIBRARIES += tests/support/libsupport.a
support_library = tests/support/libsupport.a
tests_support_libsupport_a_SOURCES = $(support_sources)
if WITH_PLAIN_RUNNER
check_LIBRARIES += tests/support/libplain_runner.a
tests_support_libplain_runner_a_SOURCES = tests/support/plain_runner.c
runner_library = tests/support/libplain_runner.a
else
runner_library = $(CRITERION_LIBS)
endif
endif
EXTRA_DIST += tests/support/plain_runner.c

# Parts of dmcat.
tests_unit_dmcat_test_background_LDADD = $(LDADD) \
	examples/dmcat/background.$(OBJEXT) examples/dmcat/words.$(OBJEXT)

tests_golden_test_cow_LDADD = $(LDADD) \
	examples/dmcat/cow_check.$(OBJEXT) examples/dmcat/cow_read.$(OBJEXT)

# Calls of the library that a program has pass through functions of its own, __wrap_NAME().
wrap_flag = -Wl,--wrap=
tests_unit_bdev_test_file_kernel_LDFLAGS = $(AM_LDFLAGS) $(addprefix $(wrap_flag), \
	open stat fstat fstatfs statx mmap lseek read access ioctl)
# The modules find the library in the program.
tests_unit_bdev_test_modules_LDFLAGS = $(AM_LDFLAGS) -export-dynamic
tests_unit_bdev_test_modules_CPPFLAGS = $(AM_CPPFLAGS) \
	-DTEST_MODULE_FOLDER='"$(abs_top_builddir)/tests/modules/.libs"'
tests_unit_bdev_test_extent_LDFLAGS = $(AM_LDFLAGS) $(addprefix $(wrap_flag), lseek fstat)
tests_unit_backend_test_inline_writes_LDFLAGS = $(AM_LDFLAGS) $(wrap_flag)pwrite
tests_unit_map_test_fenced_LDFLAGS = $(AM_LDFLAGS) $(addprefix $(wrap_flag), syscall)
tests_unit_sim_test_refusals_LDFLAGS = $(AM_LDFLAGS) $(addprefix $(wrap_flag), mmap munmap)
tests_unit_queue_test_kernel_LDFLAGS = $(AM_LDFLAGS) $(addprefix $(wrap_flag), \
	pthread_create eventfd epoll_create1 epoll_ctl timerfd_create mmap madvise)
tests_unit_backend_test_waits_LDFLAGS = $(AM_LDFLAGS) $(wrap_flag)io_uring_submit_and_wait_timeout
tests_unit_backend_test_waits_CFLAGS = $(AM_CFLAGS) $(LIBURING_CFLAGS)
tests_unit_backend_test_waits_LDADD = $(LDADD) $(LIBURING_LIBS)
tests_unit_backend_test_io_uring_CFLAGS = $(AM_CFLAGS) $(LIBURING_CFLAGS)
tests_unit_backend_test_io_uring_LDADD = $(LDADD) $(LIBURING_LIBS)
tests_unit_backend_test_io_uring_LDFLAGS = $(AM_LDFLAGS) $(addprefix $(wrap_flag), eventfd \
	$(addprefix io_uring_, queue_init_params get_probe_ring register register_files_sparse \
		register_files_update register_eventfd register_buffers submit \
		submit_and_wait_timeout))

# ---- how they are run ---------------------------------------------------------------------------

# make check CHECK_MODES=pread TESTS_FILTER=map/test_table:table_parse/* V=1
FORBIDDEN_MODES = enosys eperm memlock0
CHECK_MODES = io_uring pread $(FORBIDDEN_MODES)
# Worlds that touch no backend: once is enough. They have one thread, in which no threads race.
simulated_programs = $(filter tests/sim/% tests/crash/%,$(unit_programs))
programs_to_run = --programs $(filter-out $(simulated_programs),$(unit_programs)) \
	--simulated $(if $(findstring thread,$(SANITIZER_FLAGS)),,$(simulated_programs))
# Sanitizers take several times as long.
limits_to_run = $(if $(SANITIZER_FLAGS),--test-timeout 180 --timeout 600)
scripts_to_run = $(addprefix $(srcdir)/,$(api_checks) $(example_checks))

run_suite = \
	CC='$(CC)' CXX='$(CXX)' CFLAGS='$(CFLAGS)' LDFLAGS='$(LDFLAGS)' MAKE='$(MAKE)' \
	PYTHON='$(PYTHON)' PKG_CONFIG='$(PKG_CONFIG)' SANITIZER_FLAGS='$(SANITIZER_FLAGS)' \
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
	$(PYTHON) $(srcdir)/tests/run-suite --filter '$(TESTS_FILTER)' --logs tests \
		$(limits_to_run) $(if $(filter 1,$(V)),--verbose) \
		--forbid tests/support/forbid$(EXEEXT)
if !HAVE_LIBURING
run_suite += --without-liburing
endif

.PHONY: check-suite check-unit check-forbidden check-api check-installed check-needs \
	check-programs check-valgrind coverage say-no-unit-tests

check-local: check-suite

check-suite: check-needs $(fuzz_programs)
	+$(AM_V_at)$(run_suite) --modes '$(CHECK_MODES)' $(programs_to_run) \
		--scripts $(scripts_to_run) --smoke $(bench_programs) $(fuzz_replay)

check-programs: all-am $(check_LIBRARIES) $(check_LTLIBRARIES) $(check_PROGRAMS) $(fuzz_programs)

# The parts of it.
check-unit: check-programs check-needs
	+$(AM_V_at)$(run_suite) --modes 'io_uring pread' $(programs_to_run)

check-forbidden: check-programs check-needs
	+$(AM_V_at)$(run_suite) --modes '$(FORBIDDEN_MODES)' $(programs_to_run)

# Finds what the sanitizers don't: decisions on memory that nobody wrote. valgrind does not know all
# of io_uring, nor does it see the verdict of Criterion's sandbox.
# Leaks are the address sanitizer's to find: here the tests of fork() would seem to leak.
valgrind_command = $(VALGRIND) -q --error-exitcode=99 --leak-check=no \
	--suppressions=$(srcdir)/tests/valgrind.supp

check-valgrind: check-programs check-needs
	$(AM_V_at)test '$(TEST_RUNNER)' = plain || \
		{ echo 'check-valgrind needs configure --with-test-runner=plain' >&2; exit 1; }
	+$(AM_V_at)$(run_suite) --modes pread $(programs_to_run) \
		--timeout 1800 --test-timeout 600 --wrap '$(valgrind_command)'

check-api: all-am check-needs
	+$(AM_V_at)$(run_suite) --scripts $(scripts_to_run)

# Installs into a temporary folder and builds programs against that.
check-installed: all-am check-needs
	+$(AM_V_at)$(run_suite) --scripts $(addprefix $(srcdir)/,$(installed_checks))

# Both backends, counted from nothing; what follows the suite reports and judges.
coverage_programs = tests/support/forbid$(EXEEXT) $(check_LTLIBRARIES) $(unit_programs)

if WITH_COVERAGE
coverage: $(BUILT_SOURCES) check-needs
	$(AM_V_at)test -n '$(GCOVR)' || { echo 'make coverage needs gcovr' >&2; exit 1; }
	+$(AM_V_at)$(MAKE) $(AM_MAKEFLAGS) $(coverage_programs)
	$(AM_V_at)find lib -name '*.gcda' -exec rm -f {} +
	+$(AM_V_at)$(run_suite) --modes 'io_uring pread' $(programs_to_run)
	$(AM_V_at)$(PYTHON) $(srcdir)/build-aux/coverage --root $(srcdir) --gcovr '$(GCOVR)'
else
coverage:
	@echo 'make coverage needs configure --enable-coverage' >&2; exit 1
endif

check-needs:
	$(AM_V_at)test -n '$(PYTHON)' || { echo 'make check needs python3' >&2; exit 1; }

if WITH_UNIT_TESTS
unit_programs = $(unit_tests)
else
check-suite check-unit check-forbidden coverage: say-no-unit-tests
say-no-unit-tests:
	@echo 'The unit tests were NOT built: Criterion 2.4 or newer was not found by configure.'
	@echo 'On Debian: apt-get install libcriterion-dev, then run configure again.'
endif
