# SPDX-License-Identifier: MIT
# Modules: drivers that need libraries which the core doesn't link. Each is built when configure has
# found its library, and loaded when a table first names the driver.

pkglib_LTLIBRARIES =
EXTRA_DIST += $(nbd_module_sources)
nbd_module_sources = \
	lib/modules/nbd/connection.c \
	lib/modules/nbd/driver.c \
	lib/modules/nbd/nbd.h \
	lib/modules/nbd/options.c \
	lib/modules/nbd/thread.c

if WITH_LIBNBD
pkglib_LTLIBRARIES += lib/modules/driver-nbd.la
lib_modules_driver_nbd_la_SOURCES = $(nbd_module_sources)
lib_modules_driver_nbd_la_CFLAGS = $(AM_CFLAGS) $(WARN_LIB_CFLAGS) $(LIBNBD_CFLAGS) \
	-fvisibility=hidden
lib_modules_driver_nbd_la_LIBADD = lib/libdmcore.la $(LIBNBD_LIBS) -lpthread
lib_modules_driver_nbd_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared
$(lib_modules_driver_nbd_la_OBJECTS): | $(BUILT_SOURCES)
endif
