/* SPDX-License-Identifier: MIT */
/*
 * What the tests of kcopyd stand on: a stage, disks of the driver "fault" whose sectors tell where
 * they are from, a client, and jobs whose ends are watched: each comes once, on the thread of the
 * queue, and never inside a call that starts a job. Asserts that all works, unless it says
 * otherwise.
 *
 *	copies_open(3, 4096, "");
 *	copies_client(64, 64, 0);
 *	copies_set(&copy, 0, 100, 1000, 2, 0);      disk 0 to the disks 1 and 2
 *	copies_start(&copy);
 *	copies_wait(&copy.end);
 *	copies_expect_copied(&copy, copy.job.from.count);
 *	copies_close();
 */
#ifndef DMCORE_TESTS_SUPPORT_COPIES_H
#define DMCORE_TESTS_SUPPORT_COPIES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>

#include "fault_driver.h"
#include "rng.h"
#include "stage.h"

#define COPIES_DISKS_MAX 10

struct copies {
	struct stage stage;
	struct kcopyd_client *kc;
	unsigned int num_disks;
	uint64_t sectors; /* of each */
	struct dmcore_bdev *bdev[COPIES_DISKS_MAX];
	struct fault_disk *disk[COPIES_DISKS_MAX];

	pthread_t thread;        /* that callbacks run on */
	unsigned int calling;    /* calls under way in which no callback may run */
	unsigned int num_ends;
};

/* The one of this process. */
extern struct copies copies;

/* What a callback has told. */
struct copies_end {
	unsigned int calls;
	unsigned int nr; /* which end it was of all, from 1 on */
	int read_err;
	unsigned int write_err;
};

/* A job of the caller's own. */
struct copy {
	struct kcopyd_job job;
	struct copies_end end;
};

/* ---- around a test ---- */

/* Disks "fault:SECTORS,id=N<args>"; sector s of disk N holds pattern_fill(s, N + 1). */
void copies_open(unsigned int num_disks, uint64_t sectors, const char *args);
/* The same, on a core with these options. */
void copies_open_on(unsigned int num_disks, uint64_t sectors, const char *args,
		    const struct dmcore_options *options);
/* One more disk, with arguments of its own; returns its number. */
unsigned int copies_add_disk(const char *args);
/* Makes copies.kc; 0: the defaults. */
void copies_client(unsigned int num_pages, unsigned int subjob_sectors, unsigned int jobs);
/* Destroys the client, if there is one, and the rest. */
void copies_close(void);
/* Fills a disk as copies_open() does. */
void copies_refill(unsigned int disk);
/* Bytes of a disk. */
unsigned char *copies_bytes(unsigned int disk, uint64_t sector);
struct dmio_region copies_region(unsigned int disk, uint64_t sector, uint64_t count);

/* ---- jobs ---- */

/* A job from a disk to the same sectors of the `num_dests` disks that follow it, not started. */
void copies_set(struct copy *copy, unsigned int disk, uint64_t sector, uint64_t count,
		unsigned int num_dests, unsigned int flags);
/* Submits it, which must be accepted; or tries to. */
void copies_start(struct copy *copy);
int copies_try(struct copy *copy);
/* The same for the client's own jobs, whose end is told to `end`. */
int copies_copy(const struct dmio_region *from, unsigned int num_dests,
		const struct dmio_region *dests, unsigned int flags, struct copies_end *end);
int copies_zero(unsigned int num_dests, const struct dmio_region *dests, unsigned int flags,
		struct copies_end *end);
/* Callbacks: what they do first, for those of a test's own. */
void copies_note(struct copies_end *end, int read_err, unsigned int write_err);
/* A kcopyd_done_fn for the job in a struct copy, and a kcopyd_notify_fn for a struct copies_end. */
void copies_done(struct kcopyd_job *job);
void copies_notify(int read_err, unsigned int write_err, void *context);

/* Polls until it has ended, and a bit longer: it ends once. */
void copies_wait(const struct copies_end *end);
/* The same for a job that must have succeeded. */
void copies_succeed(struct copy *copy);
/* Submits it, and waits until it has succeeded. */
void copies_run(struct copy *copy);
/* As copies_wait() for several, while requests that disks hold are let go in a random order. */
void copies_scramble(struct rng *rng, struct copy *copy, unsigned int num_copies);
/* Polls without waiting, until nothing happens any more. */
void copies_settle(void);
struct kcopyd_progress copies_progress(const struct copy *copy);

/* ---- disks ---- */

/* Has a disk hold, or fail, all requests of some kinds. */
void copies_hold(unsigned int disk, unsigned int ops);
void copies_fail(unsigned int disk, unsigned int ops, uint64_t sector, uint64_t count);
/* Takes rules back, and lets go what is held. */
void copies_let_go(unsigned int disk);
unsigned int copies_held(unsigned int disk);
unsigned int copies_count(unsigned int disk, unsigned int ops);
/* That each sector of a range, and no other, was in so many requests of one kind. */
void copies_expect_touched(unsigned int disk, enum dmcore_op op, uint64_t sector, uint64_t count,
			   unsigned int times);

/* That this much of the range, from its start, is in every destination, as the source was filled;
 * and that what lies around the range is as it was, on disks other than the source. */
void copies_expect_copied(const struct copy *copy, uint64_t sectors);
/* That sectors are as their disk was filled, or zero. */
void copies_expect_own(unsigned int disk, uint64_t sector, uint64_t count);
void copies_expect_zero(unsigned int disk, uint64_t sector, uint64_t count);

#endif
