/* SPDX-License-Identifier: MIT */
/* What every case stands on: a core, a queue, memory, and mapped devices made from text. */
#ifndef DMCORE_BENCH_RIG_H
#define DMCORE_BENCH_RIG_H

#include <dmcore.h>

#include "bench.h"
#include "load.h"
#include "straw.h"

/* Size of the devices under load. What lies below has room for every layer's offset. */
#define RIG_TOP_SECTORS (UINT64_C(1) << 21)
#define RIG_ZERO_SECTORS (UINT64_C(1) << 22)

struct rig {
	struct bench *bench;
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmcore_bdev *zero; /* a mapped device with one zero target */
	char *buffers;            /* for BENCH_BATCH_MAX requests */
};

/*
 * Opens a core, a queue with that backend and DMCORE_QUEUE_* flags, and memory for requests of so
 * many sectors. Says why it can't, except for a backend that doesn't work here: -EOPNOTSUPP. Closed
 * by rig_close() in any case.
 */
int rig_open(struct rig *rig, struct bench *bench, enum dmcore_backend backend,
	     unsigned int flags, uint64_t sectors);
void rig_close(struct rig *rig);

/* For rows without data: no backend has any work, so it is the one that always works. */
int rig_open_null(struct rig *rig, struct bench *bench, uint64_t sectors);

/* Makes a mapped device from a table's text, or says why it can't: NULL. */
struct dmcore_bdev *rig_map(struct rig *rig, const char *name, const char *table);
/* The same with DMCORE_TABLE_* flags. */
struct dmcore_bdev *rig_map_with(struct rig *rig, const char *name, const char *table,
				 unsigned int flags);

/* A load of 4 KiB writes at random places of a rig's device; the caller may change it. */
struct load rig_load(const struct rig *rig, struct dmcore_bdev *bdev, unsigned int batch);

/*
 * Opens `num` loads, and has rows[0 .. 2 * num) measured: load i is row 2i, straw man i row 2i + 1,
 * its floor, which must do the same work. The rows have their names and bars. Closes the loads.
 */
int rig_measure_pairs(struct rig *rig, struct bench_row *rows, struct load *loads,
		      struct straw_load *straws, unsigned int num);

#endif
