# SPDX-License-Identifier: MIT
# A plugin of nbdkit that serves mapped devices. Built when configure has found nbdkit's header.

EXTRA_DIST += $(nbdkit_plugin_sources)
nbdkit_plugin_sources = \
	examples/dmsetup/protocol.h \
	examples/nbdkit/commands.c \
	examples/nbdkit/commands.h \
	examples/nbdkit/control.c \
	examples/nbdkit/control.h \
	examples/nbdkit/devices.c \
	examples/nbdkit/devices.h \
	examples/nbdkit/nbdkit.h \
	examples/nbdkit/numbers.c \
	examples/nbdkit/numbers.h \
	examples/nbdkit/plugin.c \
	examples/nbdkit/requests.c \
	examples/nbdkit/requests.h \
	examples/nbdkit/settings.c \
	examples/nbdkit/settings.h \
	examples/nbdkit/status.c \
	examples/nbdkit/tables.c

if WITH_NBDKIT
nbdkitplugindir = $(NBDKIT_PLUGINDIR)
nbdkitplugin_LTLIBRARIES = examples/nbdkit/nbdkit-dmcore-plugin.la
examples_nbdkit_nbdkit_dmcore_plugin_la_SOURCES = $(nbdkit_plugin_sources)
examples_nbdkit_nbdkit_dmcore_plugin_la_CFLAGS = $(AM_CFLAGS) $(NBDKIT_CFLAGS)
examples_nbdkit_nbdkit_dmcore_plugin_la_LIBADD = lib/libdmcore.la -lpthread
# nbdkit brings the functions that the plugin calls, and looks for one of the plugin's.
examples_nbdkit_nbdkit_dmcore_plugin_la_LDFLAGS = $(AM_LDFLAGS) \
	-module -avoid-version -shared -export-symbols-regex '^plugin_init$$'
$(examples_nbdkit_nbdkit_dmcore_plugin_la_OBJECTS): | $(BUILT_SOURCES)
endif
