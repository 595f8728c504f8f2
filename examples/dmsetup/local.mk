# SPDX-License-Identifier: MIT
# Stock dmsetup on the devices that nbdkit's plugin serves: a library that is preloaded, and a
# script that does so. Built where the plugin is.

EXTRA_DIST += \
	examples/dmsetup/dmcore-dmsetup.in \
	examples/dmsetup/preload.c
CLEANFILES += examples/dmsetup/dmcore-dmsetup

if WITH_NBDKIT
pkglib_LTLIBRARIES += examples/dmsetup/libdmcore-dmsetup.la
examples_dmsetup_libdmcore_dmsetup_la_SOURCES = \
	examples/dmsetup/preload.c \
	examples/dmsetup/protocol.h
# Of its own, so that its objects aren't taken for the plugin's.
examples_dmsetup_libdmcore_dmsetup_la_CFLAGS = $(AM_CFLAGS) -fvisibility=hidden
examples_dmsetup_libdmcore_dmsetup_la_LIBADD = -ldl
examples_dmsetup_libdmcore_dmsetup_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared

bin_SCRIPTS = examples/dmsetup/dmcore-dmsetup
examples/dmsetup/dmcore-dmsetup: $(srcdir)/examples/dmsetup/dmcore-dmsetup.in Makefile
	$(AM_V_GEN)$(MKDIR_P) examples/dmsetup && \
		sed 's|@pkglibdir[@]|$(pkglibdir)|' \
			$(srcdir)/examples/dmsetup/dmcore-dmsetup.in > $@.tmp && \
		chmod +x $@.tmp && mv $@.tmp $@
endif
