# SPDX-License-Identifier: MIT
# The benchmark. It takes --smoke, which ends within three seconds; make check runs that. It uses
# the public interface through the shared library, as an application does.

bench_programs = bench/dmcore-bench

check_PROGRAMS += $(bench_programs)

bench_dmcore_bench_SOURCES = \
	bench/bench.h \
	bench/copy.c \
	bench/copy.h \
	bench/copy_engine.c \
	bench/copy_files.c \
	bench/copy_peers.c \
	bench/file.c \
	bench/harness.c \
	bench/load.c \
	bench/load.h \
	bench/main.c \
	bench/mapped.c \
	bench/mirror.c \
	bench/mirror.h \
	bench/mirror_files.c \
	bench/mirror_layer.c \
	bench/mirror_recovery.c \
	bench/null.c \
	bench/peers.c \
	bench/report.c \
	bench/rig.c \
	bench/rig.h \
	bench/sim.c \
	bench/snapshot.c \
	bench/snapshot.h \
	bench/snapshot_engine.c \
	bench/snapshot_files.c \
	bench/snapshot_load.c \
	bench/snapshot_peer.c \
	bench/spawn.c \
	bench/spawn.h \
	bench/straw.c \
	bench/straw.h \
	bench/striped.c \
	bench/swap.c \
	bench/table.c \
	bench/threads.c \
	bench/uring_floor.c \
	bench/uring_floor.h
bench_dmcore_bench_CFLAGS = $(AM_CFLAGS) $(LIBURING_CFLAGS)
# -no-install: a program that valgrind can run, in place of a script that runs it.
bench_dmcore_bench_LDFLAGS = $(AM_LDFLAGS) -no-install
bench_dmcore_bench_LDADD = lib/libdmcore.la $(LIBURING_LIBS) -lpthread

EXTRA_DIST += bench/README.md bench/instructions bench/instructions.txt

.PHONY: bench bench-instructions check-instructions

# In full, judged. make bench BENCH_FLAGS='--only file --json'
bench: all-am $(bench_programs)
	$(AM_V_at)bench/dmcore-bench$(EXEEXT) --gate $(BENCH_FLAGS)

# Needs valgrind.
bench-instructions: all-am $(bench_programs)
	$(AM_V_at)$(srcdir)/bench/instructions bench/dmcore-bench$(EXEEXT)

# Whether a row takes more of them than it did. Skipping isn't failing.
check-instructions: all-am $(bench_programs)
	$(AM_V_at)$(srcdir)/bench/instructions --check $(srcdir)/bench/instructions.txt \
		bench/dmcore-bench$(EXEEXT) || [ $$? = 77 ]
