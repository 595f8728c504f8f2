/* SPDX-License-Identifier: MIT */
/* Random requests to a device over a file, compared with a model of what it should hold. */
#ifndef DMCORE_TESTS_SUPPORT_TRACE_H
#define DMCORE_TESTS_SUPPORT_TRACE_H

#include "rig.h"

/* The largest file. */
#define TRACE_BYTES_MAX (256u << 10)

/*
 * A thousand requests of all kinds to rig->bdev, from vectors of all shapes whose lengths, and
 * addresses from a page on, are multiples of `unit`. The file, of `bytes` zeroes, is reached
 * otherwise through `fd`.
 */
void trace_run(struct rig *rig, int fd, size_t bytes, size_t unit);

#endif
