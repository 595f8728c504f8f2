# SPDX-License-Identifier: MIT
# Fuzzers. A new one is tests/fuzz/NAME.c and a line in fuzzers; tests/fuzz/NAME.dict and
# tests/fuzz/corpus/NAME/ are its dictionary and its corpus, which make check carries out.

fuzzers = \
	tests/fuzz/cow.c \
	tests/fuzz/crash.c \
	tests/fuzz/dmcat.c \
	tests/fuzz/message.c \
	tests/fuzz/program.c \
	tests/fuzz/table.c

fuzz_support = \
	tests/fuzz/fuzz.c \
	tests/fuzz/fuzz.h \
	tests/fuzz/program.h \
	tests/fuzz/program_requests.c \
	tests/fuzz/sandbox.c \
	tests/support/fault_driver.c \
	tests/support/fault_driver.h \
	tests/support/model.c \
	tests/support/model.h
if !WITH_FUZZING
fuzz_support += tests/fuzz/replay_main.c
endif
EXTRA_DIST += tests/fuzz/replay_main.c

# Compiled as a library, so that a fuzzer is one line; linked by the rule below.
check_LIBRARIES += tests/fuzz/libfuzz.a
tests_fuzz_libfuzz_a_SOURCES = $(fuzz_support) $(fuzzers)

fuzz_programs = $(fuzzers:.c=)
CLEANFILES += $(fuzz_programs)

if WITH_FUZZING
fuzz_engine = -fsanitize=fuzzer
endif
# What the library and dmcat would do to the machine's files; see tests/fuzz/sandbox.c.
fuzz_wrapped = open fopen stat access write rename unlink pthread_create dmcore_create kcopyd_submit
fuzz_wrap_flags = $(foreach name,$(fuzz_wrapped),-Wl,--wrap=$(name))

$(fuzz_programs): %: %.$(OBJEXT) tests/fuzz/libfuzz.a lib/libdmcore_core.la
	$(AM_V_CCLD)$(LINK) $(fuzz_wrap_flags) $(fuzz_engine) $(filter-out %.a %.la,$^) \
		tests/fuzz/libfuzz.a lib/libdmcore_core.la -lpthread $(LIBS)

tests/fuzz/cow: examples/dmcat/cow_check.$(OBJEXT) examples/dmcat/cow_read.$(OBJEXT)
tests/fuzz/dmcat: $(filter-out %/main.$(OBJEXT),$(examples_dmcat_dmcat_OBJECTS))

EXTRA_DIST += \
	tests/fuzz/corpus \
	tests/fuzz/run \
	$(wildcard $(srcdir)/tests/fuzz/*.dict)

# ---- how they are run ---------------------------------------------------------------------------

# make check carries out the corpora; libFuzzer's programs would add to them.
if !WITH_FUZZING
fuzz_replay = --replay $(fuzz_programs)
endif

# make fuzz FUZZ_SECONDS=600 FUZZERS=table
FUZZ_SECONDS = 30
FUZZERS = $(notdir $(fuzz_programs))
fuzz_build = fuzz.build

.PHONY: fuzz fuzz-programs fuzz-minimise fuzz-ready

fuzz-programs: $(BUILT_SOURCES) $(fuzz_programs)

# In a build of their own, with clang and its sanitizers.
fuzz-ready:
	$(AM_V_at)$(MKDIR_P) $(fuzz_build)
	$(AM_V_at)cd $(fuzz_build) && { test -f config.status || \
		$(abs_top_srcdir)/configure -q CC=clang CFLAGS='-O1 -g' --enable-fuzzing \
			--enable-debug --enable-sanitizers=address,undefined; }
	+$(AM_V_at)$(MAKE) -C $(fuzz_build) fuzz-programs

fuzz: fuzz-ready
	$(AM_V_at)cd $(fuzz_build) && $(abs_top_srcdir)/tests/fuzz/run $(FUZZ_SECONDS) $(FUZZERS)

# Takes what has been found into the corpora.
fuzz-minimise: fuzz-ready
	$(AM_V_at)cd $(fuzz_build) && $(abs_top_srcdir)/tests/fuzz/run minimise $(FUZZERS)
