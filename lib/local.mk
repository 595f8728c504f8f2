# SPDX-License-Identifier: MIT
# The library. A new file is one line here, in targets/local.mk or in bdev/drivers/local.mk.

include lib/targets/local.mk
include lib/bdev/drivers/local.mk

include_HEADERS = include/dmcore.h

dmcoreincludedir = $(includedir)/dmcore
dmcoreinclude_HEADERS = \
	include/dmcore/attr.h \
	include/dmcore/bdev.h \
	include/dmcore/bio.h \
	include/dmcore/context.h \
	include/dmcore/cow.h \
	include/dmcore/device.h \
	include/dmcore/dmio.h \
	include/dmcore/driver.h \
	include/dmcore/error.h \
	include/dmcore/event.h \
	include/dmcore/kcopyd.h \
	include/dmcore/limits.h \
	include/dmcore/logwrites.h \
	include/dmcore/queue.h \
	include/dmcore/sim.h \
	include/dmcore/stats.h \
	include/dmcore/table.h \
	include/dmcore/target.h
nodist_dmcoreinclude_HEADERS = include/dmcore/version.h

context_sources = lib/context.c

base_sources = \
	lib/base/alloc.c \
	lib/base/alloc.h \
	lib/base/args.c \
	lib/base/args.h \
	lib/base/assert.c \
	lib/base/assert.h \
	lib/base/checked.h \
	lib/base/compiler.h \
	lib/base/core.c \
	lib/base/core.h \
	lib/base/error.c \
	lib/base/error.h \
	lib/base/heap.h \
	lib/base/le.h \
	lib/base/list.h \
	lib/base/log.c \
	lib/base/log.h \
	lib/base/options.h \
	lib/base/random.h \
	lib/base/text.c \
	lib/base/text.h \
	lib/base/vecs.h \
	lib/base/wait.h

backend_sources = \
	lib/backend/backend.c \
	lib/backend/backend.h \
	lib/backend/pread.c \
	lib/backend/workers.c \
	lib/backend/workers.h
if HAVE_LIBURING
backend_sources += lib/backend/io_uring.c
endif

queue_sources = \
	lib/queue/call.c \
	lib/queue/create.c \
	lib/queue/drain.c \
	lib/queue/drain.h \
	lib/queue/inbox.c \
	lib/queue/inbox.h \
	lib/queue/queue.c \
	lib/queue/queue.h \
	lib/queue/service.c \
	lib/queue/service.h \
	lib/queue/timer.c \
	lib/queue/timer.h

bdev_sources = \
	lib/bdev/bdev.c \
	lib/bdev/bdev.h \
	lib/bdev/bio.c \
	lib/bdev/bio.h \
	lib/bdev/copy.c \
	lib/bdev/extent.c \
	lib/bdev/fan.c \
	lib/bdev/leaf.c \
	lib/bdev/limits.c \
	lib/bdev/modules.c \
	lib/bdev/registry.c \
	lib/bdev/sync.c

dmio_sources = \
	lib/dmio/client.c \
	lib/dmio/dmio.h \
	lib/dmio/io.c \
	lib/dmio/memory.c \
	lib/dmio/memory.h \
	lib/dmio/service.c

kcopyd_sources = \
	lib/kcopyd/client.c \
	lib/kcopyd/job.c \
	lib/kcopyd/kcopyd.h \
	lib/kcopyd/pages.c \
	lib/kcopyd/service.c \
	lib/kcopyd/slice.c \
	lib/kcopyd/sparse.c \
	lib/kcopyd/throttle.c

map_sources = \
	lib/map/concise.c \
	lib/map/depth.c \
	lib/map/device.c \
	lib/map/event.c \
	lib/map/extent.c \
	lib/map/flush.c \
	lib/map/info.c \
	lib/map/limits.c \
	lib/map/map.h \
	lib/map/message.c \
	lib/map/parse.c \
	lib/map/registry.c \
	lib/map/resources.c \
	lib/map/shared.c \
	lib/map/stats.c \
	lib/map/stats.h \
	lib/map/stats_account.c \
	lib/map/stats_lane.c \
	lib/map/stats_message.c \
	lib/map/stats_read.c \
	lib/map/stats_region.c \
	lib/map/status.c \
	lib/map/submit.c \
	lib/map/copies.c \
	lib/map/suspend.c \
	lib/map/table.c

sim_sources = \
	lib/sim/cache.c \
	lib/sim/disk.c \
	lib/sim/extent.c \
	lib/sim/rules.c \
	lib/sim/shrink.c \
	lib/sim/sim.h \
	lib/sim/states.c \
	lib/sim/world.c

# ---- libdmcore_core: every object, with nothing hidden from the unit tests ----------------------

noinst_LTLIBRARIES = lib/libdmcore_core.la
lib_libdmcore_core_la_SHORTNAME = core
lib_libdmcore_core_la_CFLAGS = $(AM_CFLAGS) $(WARN_LIB_CFLAGS) -fvisibility=hidden \
	$(LIBURING_CFLAGS) $(COVERAGE_CFLAGS)
# Where the modules of drivers are.
lib_libdmcore_core_la_CPPFLAGS = $(AM_CPPFLAGS) -DDMCORE_MODULE_FOLDER='"$(pkglibdir)"'
lib_libdmcore_core_la_LIBADD = $(LIBURING_LIBS) -lpthread
lib_libdmcore_core_la_SOURCES = \
	$(context_sources) \
	$(base_sources) \
	$(backend_sources) \
	$(queue_sources) \
	$(bdev_sources) \
	$(drivers_sources) \
	$(dmio_sources) \
	$(kcopyd_sources) \
	$(map_sources) \
	$(targets_sources) \
	$(sim_sources)

# The lists of targets and drivers are the registries: one line per file directly in the folder.
# Files in a folder of their own, lib/targets/NAME/, help lib/targets/NAME.c and register nothing.
BUILT_SOURCES += lib/map/builtin_targets.inc lib/bdev/builtin_drivers.inc
CLEANFILES += lib/map/builtin_targets.inc lib/bdev/builtin_drivers.inc

lib/map/builtin_targets.inc: $(srcdir)/lib/targets/local.mk Makefile
	$(AM_V_GEN)$(MKDIR_P) lib/map && printf '%s\n' $(targets_sources) | \
		$(SED) -n 's|^lib/targets/\([a-z0-9_]*\)\.c$$|BUILTIN_TARGET(\1)|p' > $@

lib/bdev/builtin_drivers.inc: $(srcdir)/lib/bdev/drivers/local.mk Makefile
	$(AM_V_GEN)$(MKDIR_P) lib/bdev && printf '%s\n' $(drivers_sources) | \
		$(SED) -n 's|^lib/bdev/drivers/\([a-z0-9_]*\)\.c$$|BUILTIN_DRIVER(\1)|p' > $@

# Dependencies of objects are known only after the first compilation; these two files must exist
# before it, whatever is made first.
$(lib_libdmcore_core_la_OBJECTS): | $(BUILT_SOURCES)

# ---- libdmcore ----------------------------------------------------------------------------------
#
# -version-info C:R:A, changed at each release by the first rule that fits:
#   an interface was removed or changed:  C+1:0:0
#   an interface was added:               C+1:0:A+1
#   only the code changed:                C:R+1:A
# Before 1.0 a minor release may change interfaces; the changelog says so.

lib_LTLIBRARIES = lib/libdmcore.la
lib_libdmcore_la_SOURCES =
lib_libdmcore_la_LIBADD = lib/libdmcore_core.la
# -Bsymbolic-functions: calls of the library to its own functions need no jump table.
lib_libdmcore_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 -Wl,-Bsymbolic-functions \
	-Wl,--version-script=$(srcdir)/lib/libdmcore.map
EXTRA_lib_libdmcore_la_DEPENDENCIES = lib/libdmcore.map

EXTRA_DIST += lib/LAYERS lib/libdmcore.map
