/* SPDX-License-Identifier: MIT */
/*
 * What a dm-io client is made of. service.c checks calls and starts requests, io.c carries them
 * out, client.c owns the memory that they live in.
 */
#ifndef DMCORE_LIB_DMIO_DMIO_H
#define DMCORE_LIB_DMIO_DMIO_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bio.h>
#include <dmcore/dmio.h>
#include <dmcore/queue.h>

#include "dmio/memory.h"

/* Completions that one poll runs while a synchronous call or a destroy waits. */
#define DMIO__POLL_MAX 64

/* A bio, and the piece of a region that it carries. */
struct dmio__segment {
	struct dmcore_bio bio;
	struct dmio__segment *next;    /* in the client's pool */
	struct dmio__request *request; /* whose piece it is */
	unsigned int region;           /* index of the region */
	struct dmio__piece piece;      /* the bio's own copy doesn't survive the way down */
	struct dmio_bvec vecs[DMIO__PIECE_VECS];
};

/* A call as the six services put it. */
struct dmio__call {
	unsigned int num_regions;
	const struct dmio_region *where;
	int rw;
	struct dmio__memory memory;
	dmio_notify_fn fn;
	void *context;
};

/*
 * What a request does. Flushes come first, for all regions at once: no data are written before all
 * of them have ended, and none to a region whose flush failed.
 */
enum dmio__phase {
	DMIO__PHASE_FLUSH,
	DMIO__PHASE_DATA,
};

/*
 * One call under way. It owns a segment, so that it never depends on another request; what more it
 * can get from the pool works in parallel.
 */
struct dmio__request {
	struct dmio_client *client;
	struct dmio__request *next;  /* in the client's pool */
	dmio_notify_fn fn;
	void *context;
	unsigned long error_bits;
	enum dmcore_op op;
	uint16_t bio_flags;
	unsigned int num_regions;

	/* The cursor: what the next bio carries. */
	enum dmio__phase phase;
	unsigned int region;
	uint64_t done_sectors;       /* of the region: in bios already */
	struct dmio__memory rest;    /* for the rest of the region */

	unsigned int outstanding;    /* bios under way */
	bool own_busy;
	struct dmcore_work work;     /* ends a request that had no bio under way */
	struct dmio__memory memory;
	struct dmio_region where[DMIO_REGIONS_MAX];
	struct dmio__segment own;
};

/* The pools count what is in use as well: over the wanted number, it is freed on its return. */
struct dmio_client {
	struct dmcore_queue *queue;
	struct dmio__request *free_requests;
	struct dmio__segment *free_segments;
	unsigned int num_requests;
	unsigned int num_segments;
	unsigned int wanted_requests;
	unsigned int wanted_segments;
	unsigned int pages;          /* reserved */
	unsigned int inflight;       /* requests under way, the synchronous one too */
	bool closing;

	/*
	 * For synchronous calls. There is never a second one: it would be in a callback of the
	 * first one's poll, where it is refused. So they can't be starved by asynchronous ones.
	 */
	struct dmio__request sync;
};

/* The pools; client.c. NULL: all in use. A request from get is counted in flight until put. */
struct dmio__request *dmio__request_get(struct dmio_client *client);
struct dmio__request *dmio__request_get_sync(struct dmio_client *client);
void dmio__request_put(struct dmio__request *request);
struct dmio__segment *dmio__segment_get(struct dmio__request *request);
void dmio__segment_put(struct dmio__segment *segment);

/* Starts a call that has been checked. Its fn runs once, inside a later poll. io.c */
void dmio__request_start(struct dmio__request *request, const struct dmio__call *call);

#endif
