# SPDX-License-Identifier: MIT
# Reference pages from the public headers. Written pages are shipped as they are.

EXTRA_DIST += \
	docs/Doxyfile.in \
	docs/README.md \
	docs/adding-a-driver.md \
	docs/adding-a-target.md \
	docs/adr \
	docs/architecture.md \
	docs/conformance.md \
	docs/copying.md \
	docs/errors.md \
	docs/live-changes.md \
	docs/mainpage.md \
	docs/simulation.md \
	docs/statistics.md \
	docs/targets \
	docs/testing.md \
	docs/threads.md

dist_man_MANS = \
	docs/man/dmcat.1 \
	docs/man/dmcore-devices.7 \
	docs/man/dmcore-targets.7 \
	docs/man/dmio.7 \
	docs/man/kcopyd.7 \
	docs/man/libdmcore.7
if WITH_NBDKIT
dist_man_MANS += docs/man/dmcore-dmsetup.1 docs/man/nbdkit-dmcore-plugin.1
else
EXTRA_DIST += docs/man/dmcore-dmsetup.1 docs/man/nbdkit-dmcore-plugin.1
endif

.PHONY: docs

# Doxygen ends with an error when a public name or parameter is not documented.
docs: docs/Doxyfile include/dmcore/version.h
	$(AM_V_at)test -n '$(DOXYGEN)' || { echo 'make docs needs doxygen' >&2; exit 1; }
	$(AM_V_GEN)$(DOXYGEN) docs/Doxyfile

