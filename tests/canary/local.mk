# SPDX-License-Identifier: MIT
# Planted defects that the tests must notice. make check-canaries CANARIES=striped

EXTRA_DIST += tests/canary/list tests/canary/run

.PHONY: check-canaries

canary_environment = \
	CANARY_COMPILE='$(CC) $(DEFS) $(DEFAULT_INCLUDES) $(INCLUDES) $(AM_CPPFLAGS) $(CPPFLAGS) \
		$(lib_libdmcore_core_la_CFLAGS) $(CFLAGS)' \
	CANARY_LINK='$(LINK)' \
	CANARY_FLAGS_UNIT= \
	CANARY_LIBS_UNIT='$(LDADD) $(LIBS)' \
	CANARY_FLAGS_FUZZ='$(fuzz_wrap_flags)' \
	CANARY_LIBS_FUZZ='tests/fuzz/libfuzz.a lib/libdmcore_core.la -lpthread $(LIBS)' \
	CANARY_OBJECTS_cow='examples/dmcat/cow_check.$(OBJEXT) examples/dmcat/cow_read.$(OBJEXT)' \
	CANARY_OBJECTS_dmcat='$(filter-out %/main.$(OBJEXT),$(examples_dmcat_dmcat_OBJECTS))'

check-canaries: check-programs check-needs
	$(AM_V_at)$(canary_environment) $(PYTHON) $(srcdir)/tests/canary/run --filter '$(CANARIES)'
