/* SPDX-License-Identifier: MIT */
/* nbdkit's header, with the version of its interface that the plugin is written for. */
#ifndef DMCORE_EXAMPLE_NBDKIT_NBDKIT_H
#define DMCORE_EXAMPLE_NBDKIT_NBDKIT_H

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#endif
