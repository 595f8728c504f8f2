/* SPDX-License-Identifier: MIT */
/* What stands behind one origin device; see snapshot.h. Called by origin.c and share.c. */
#ifndef DMCORE_TARGETS_SNAPSHOT_ORIGIN_H
#define DMCORE_TARGETS_SNAPSHOT_ORIGIN_H

#include "targets/snapshot/snapshot.h"

/* The snapshots as other threads see them. */
struct origin_watched {
	unsigned int count;
	struct snapshot *snapshots[];
};

/* Of one queue, on a cache line of its own. */
struct origin_lane {
	atomic_bool inside;
	char unused[63];
};

struct origin {
	struct dmcore *core;
	struct dmcore_queue *service;
	_Atomic unsigned int num_snapshots;
	_Atomic(struct origin_watched *) watched; /* NULL: none, or they change just now */
	_Atomic(struct snapshot *) merging;       /* at most one */
	struct snapshot *snapshots;               /* the service's; largest chunks first */
	struct origin_lane lanes[DMCORE_QUEUE_INDICES_MAX];
};

#endif
