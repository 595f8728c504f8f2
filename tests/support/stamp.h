/* SPDX-License-Identifier: MIT */
/*
 * The driver "stamp": endless leaves without data, whose reads and writes leave a mark in each
 * sector of the request's memory that says which leaf served it, and where. So a request can prove
 * through which table it went.
 *
 *	stamp:ID          it ends at once
 *	stamp:ID,late     another thread ends it, after stamp_late_start()
 *
 * Memory of a request is one piece, aligned to 8 bytes.
 */
#ifndef DMCORE_TESTS_SUPPORT_STAMP_H
#define DMCORE_TESTS_SUPPORT_STAMP_H

#include <stdint.h>

#include <dmcore.h>

#define STAMP_SECTORS (UINT64_C(1) << 50)

/* At the beginning of a sector. */
struct stamp_mark {
	uint64_t sector; /* of the leaf */
	uint32_t leaf;
	uint32_t times;  /* how often it was served since the submitter set it to 0 */
};

/* As dmcore_driver_register(). */
int stamp_register(struct dmcore *core);
/* The ID of a leaf of this driver. */
uint32_t stamp_leaf(const struct dmcore_bdev *bdev);
/* Begins and ends the thread that ends the requests of late leaves; one for the process. */
void stamp_late_start(void);
void stamp_late_end(void);

#endif
