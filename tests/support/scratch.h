/* SPDX-License-Identifier: MIT */
/*
 * Files that leave nothing behind, however a test ends: without a name in any directory, reached
 * through /proc/self/fd.
 */
#ifndef DMCORE_TESTS_SUPPORT_SCRATCH_H
#define DMCORE_TESTS_SUPPORT_SCRATCH_H

#include <stdint.h>

struct scratch {
	int fd;
	char path[32]; /* for dmcore_bdev_open() */
};

/* $TMPDIR, or /tmp. */
const char *scratch_dir(void);

/* Makes a file of so many bytes, all holes, in `dir`; NULL: scratch_dir(). Ends the test if it
 * can't. */
void scratch_create(struct scratch *scratch, const char *dir, uint64_t size_bytes);
void scratch_close(struct scratch *scratch);

#endif
