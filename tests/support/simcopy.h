/* SPDX-License-Identifier: MIT */
/*
 * Copies in a simulated world (simworld.h), and what is watched of them: that a callback comes
 * inside a poll, alone, and once; that nothing is written outside the destinations of jobs under
 * way; for how long disks are at work. One world at a time.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMCOPY_H
#define DMCORE_TESTS_SUPPORT_SIMCOPY_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "simworld.h"

/* Of a disk, writes to the first so many sectors are watched. */
#define SIMCOPY_SECTORS_MAX 4096u
/* As its disk: no source, that is, zeroes. */
#define SIMCOPY_ZEROES UINT32_MAX

struct simcopy {
	struct kcopyd_job job; /* first */
	bool busy;
	bool cancelled;                      /* a cancellation was accepted */
	unsigned int num_ends;
	uint64_t begin_ns;
	uint64_t end_ns;
	void (*ended)(struct simcopy *copy); /* or NULL; inside the callback */
};

/* What has been seen in the world. */
struct simcopy_watch {
	struct simworld *world;
	uint64_t seed;
	unsigned int num_inflight; /* requests that the disks have */
	uint64_t busy_since_ns;
	uint64_t busy_ns;          /* with some in flight */
	uint64_t read_sectors_inflight;
	uint64_t read_sectors_most;
	uint64_t num_reads;
	uint64_t num_writes;       /* WRITE and WRITE_ZEROES */
	uint64_t num_flushes;
	uint64_t written_sectors;  /* that have ended well */
	unsigned int num_strays;   /* writes to sectors that are no job's */
	char stray[128];           /* the first of them */
	bool splits;               /* set by the test: a write under way may begin in part later */
	bool in_call;
	bool in_poll;
	bool in_callback;
	unsigned int num_callbacks;
	/* Jobs that may write a sector; and those that still may begin to. */
	uint8_t owners[SIMWORLD_DISKS_MAX][SIMCOPY_SECTORS_MAX];
	uint8_t starters[SIMWORLD_DISKS_MAX][SIMCOPY_SECTORS_MAX];
};

extern struct simcopy_watch simcopy_watch;

/* Makes a world that is watched. */
void simcopy_open(struct simworld *world, uint64_t seed);
/* Takes it down: nothing has strayed, and no wait was without an end. */
void simcopy_close(struct simworld *world);
/* Until now, the time in which disks were at work. */
uint64_t simcopy_busy_ns(void);
/* Fills a disk with sectors of their own, durable. */
void simcopy_load(struct simworld *world, unsigned int disk, uint64_t stream);
/* A sector of a disk as reads see it. */
const unsigned char *simcopy_sector(const struct simworld *world, unsigned int disk,
				    uint64_t sector);
/* Whether two ranges hold the same. */
bool simcopy_same(const struct simworld *world, unsigned int disk, uint64_t sector,
		  unsigned int other_disk, uint64_t other_sector, uint64_t count);

/* Every job of these tests passes through these; `what` may be SIMCOPY_ZEROES. */
void simcopy_from(struct simcopy *copy, const struct simworld *world, unsigned int what,
		  uint64_t sector, uint64_t count, unsigned int flags);
void simcopy_to(struct simcopy *copy, const struct simworld *world, unsigned int disk,
		uint64_t sector);
/* Returns what kcopyd_submit() does. */
int simcopy_submit(struct kcopyd_client *kc, struct simcopy *copy);
/* Asserts that it is accepted. */
void simcopy_start(struct kcopyd_client *kc, struct simcopy *copy);
/* Returns what kcopyd_cancel() does. */
int simcopy_cancel(struct simcopy *copy);
/* What kcopyd_progress() says. */
struct kcopyd_progress simcopy_progress(const struct simcopy *copy);
/* Length of a job. */
uint64_t simcopy_count(const struct simcopy *copy);
/* Says whose the sectors of a job's destinations are, for jobs that don't pass through here; and
 * that no write of them may begin any more, while those under way may end. */
void simcopy_own(const struct dmio_region *dests, unsigned int num_dests, uint64_t count);
void simcopy_disown(const struct dmio_region *dests, unsigned int num_dests, uint64_t count,
		    bool may_start);
/* At the beginning and the end of each callback. */
void simcopy_enter(void);
void simcopy_leave(void);

/* Polls once; returns how many completions ran. A time-out of -1: as long as it takes. */
unsigned int simcopy_poll(struct simworld *world, unsigned int min, int64_t timeout_ns);
/* Destroys a client: waits for its jobs. Returns what kcopyd_client_destroy() does. */
int simcopy_destroy(struct kcopyd_client *kc);
/* Polls until it has ended; returns its status. */
int simcopy_wait(struct simworld *world, struct simcopy *copy);
/* Submits it, and waits. */
int simcopy_run(struct simworld *world, struct kcopyd_client *kc, struct simcopy *copy);

#endif
