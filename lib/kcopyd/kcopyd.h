/* SPDX-License-Identifier: MIT */
/*
 * What a kcopyd client is made of.
 *
 *	client.c    clients: made, run, destroyed; and the end of jobs
 *	service.c   the calls that start, stop and look at jobs: all checks
 *	job.c       what a job does next, and when it is over
 *	slice.c     a slice under way: read, write, compare
 *	sparse.c    where the source holds zeroes
 *	pages.c     the reserve of pages
 *	throttle.c  how much, and how fast
 *
 * All of it runs on the thread of the client's queue; only kcopyd_do_callback() comes from others.
 */
#ifndef DMCORE_LIB_KCOPYD_KCOPYD_H
#define DMCORE_LIB_KCOPYD_KCOPYD_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bio.h>
#include <dmcore/kcopyd.h>
#include <dmcore/queue.h>

#include "base/assert.h"
#include "base/list.h"
#include "dmio/memory.h"

/* Sectors in a page. */
#define KCOPYD__PAGE_SECTORS (DMIO_PAGE_BYTES / DMCORE_SECTOR_BYTES)
/* A slice that is zeroed by WRITE_ZEROES: 64 MiB. */
#define KCOPYD__ZERO_SECTORS (UINT64_C(64) << (20 - DMCORE_SECTOR_SHIFT))
/* A slice of zeroes that is written, and not to be split: what dm-io makes one request. */
#define KCOPYD__ZERO_LIST_SECTORS (DMIO__PIECE_PAGES * KCOPYD__PAGE_SECTORS)
/* A slice that the kernel copies: 16 MiB, for which a queue may be held up. */
#define KCOPYD__SHARE_SECTORS (UINT64_C(16) << (20 - DMCORE_SECTOR_SHIFT))

/* ---- pages.c ---- */

/* Pages in one piece of memory, given out in runs. */
struct kcopyd__pages {
	char *memory;
	uint64_t *used;      /* a bit for each page */
	unsigned int total;
	unsigned int free;
};

int kcopyd__pages_create(struct dmcore *core, unsigned int total, struct kcopyd__pages *pages);
void kcopyd__pages_destroy(struct dmcore *core, struct kcopyd__pages *pages);
/*
 * Takes a run of *count pages; if there is none, the longest, if it has `least`; *count tells.
 * NULL: wait until some are given back.
 */
char *kcopyd__pages_take(struct kcopyd__pages *pages, unsigned int least, unsigned int *count);
void kcopyd__pages_give(struct kcopyd__pages *pages, char *run, unsigned int count);

/* ---- throttle.c ---- */

struct kcopyd_throttle {
	struct dmcore_queue *queue;
	unsigned int num_clients;
	unsigned int percent;
	uint64_t bytes_per_second;
	struct dmcore__list waiting; /* clients, in order of their coming */
	bool serving;                /* the first of them has its turn now */
	bool started;                /* and has started a slice */
	struct dmcore_timer timer;   /* for when the first may go on */
	/* The share of the time: of the last second, what had a slice under way. */
	unsigned int inflight;
	uint64_t busy_ns;
	uint64_t total_ns;
	uint64_t accounted_ns;       /* time up to which both are right */
	/* The rate: up to when what has been copied so far lasts. */
	uint64_t paid_ns;
	uint64_t asked_ns;           /* since when the next slice has been asking; 0: none has */
};

/* Whether a slice that counts `bytes` may start now, as which it is accounted. If not, the client
 * is run when it may. */
bool kcopyd__throttle_start(struct kcopyd_client *kc, uint64_t bytes);
/* What the client waits for may not be wanted any more. */
void kcopyd__throttle_ask_again(struct kcopyd_client *kc);
/* A slice of the client has ended. */
void kcopyd__throttle_end(struct kcopyd_client *kc);
/* How many of `sectors` one slice should have, to keep the rate even. */
uint64_t kcopyd__throttle_slice(const struct kcopyd_client *kc, uint64_t sectors);
void kcopyd__throttle_join(struct kcopyd_client *kc, struct kcopyd_throttle *throttle);
void kcopyd__throttle_leave(struct kcopyd_client *kc);

/* ---- jobs ---- */

enum kcopyd__job_state {
	KCOPYD__IDLE,     /* the caller's */
	KCOPYD__PREPARED, /* waits for kcopyd_do_callback() */
	KCOPYD__READY,    /* in its client's line: has its turn next */
	KCOPYD__BUSY,     /* all that it may have under way is */
	KCOPYD__ENDED,    /* its callback is to run */
	KCOPYD__JOB_STATES,
};

/* In this order. */
enum kcopyd__phase {
	KCOPYD__COPY,
	KCOPYD__FLUSH,
	KCOPYD__VERIFY,
	KCOPYD__OVER,
};

/* Bits of a job. */
#define KCOPYD__CANCELLED (1u << 0)
#define KCOPYD__FAILED (1u << 1)      /* nothing more is started */
#define KCOPYD__SERIAL (1u << 2)      /* one slice at a time: it moves data over itself */
#define KCOPYD__DESCENDS (1u << 3)    /* from the end to the start */
#define KCOPYD__HAS_ZEROES (1u << 4)  /* every destination has WRITE_ZEROES */
#define KCOPYD__HOLE (1u << 5)        /* what the source holds up to extent_end */
#define KCOPYD__NO_SHARE (1u << 6)    /* the kernel doesn't copy between these */
#define KCOPYD__CAN_FREE (1u << 7)    /* every destination reads as zeroes what is discarded */

/* Places in kcopyd_job_internal::counts. */
enum kcopyd__count {
	KCOPYD__COPIED,
	KCOPYD__ZEROED,
	KCOPYD__SKIPPED,
	KCOPYD__SHARED,
	KCOPYD__LOST,
	KCOPYD__VERIFIED,
	KCOPYD__COUNTS,
};

/* The list of a client that a job is in, and the slices that it has under way, oldest first. */
static inline struct dmcore__list *kcopyd__job_link(struct kcopyd_job *job)
{
	return (struct dmcore__list *)(void *)&job->internal.links[0];
}

static inline struct dmcore__list *kcopyd__job_slices(const struct kcopyd_job *job)
{
	return (struct dmcore__list *)(uintptr_t)&job->internal.links[2];
}

static inline struct kcopyd_job *kcopyd__job_of(struct dmcore__list *link)
{
	return dmcore__container_of(link, struct kcopyd_job, internal.links[0]);
}

/* The one way to change a job's state. */
static inline void kcopyd__job_set_state(struct kcopyd_job *job, enum kcopyd__job_state state)
{
	/* From which states one may come to each: a bit for each. */
	static const uint32_t legal_from[KCOPYD__JOB_STATES] = {
		[KCOPYD__IDLE] = 1u << KCOPYD__ENDED,
		[KCOPYD__PREPARED] = 1u << KCOPYD__IDLE,
		[KCOPYD__READY] = 1u << KCOPYD__BUSY,
		[KCOPYD__BUSY] = 1u << KCOPYD__IDLE | 1u << KCOPYD__READY,
		[KCOPYD__ENDED] = 1u << KCOPYD__PREPARED | 1u << KCOPYD__READY |
				  1u << KCOPYD__BUSY,
	};

	DMCORE__ASSERT(legal_from[state] >> job->internal.state & 1);
	job->internal.state = (uint8_t)state;
}

static inline bool kcopyd__job_has(const struct kcopyd_job *job, unsigned int bit)
{
	return job->internal.bits & bit;
}

static inline void kcopyd__job_note(struct kcopyd_job *job, unsigned int bit)
{
	job->internal.bits = (uint16_t)(job->internal.bits | bit);
}

static inline void kcopyd__job_forget(struct kcopyd_job *job, unsigned int bit)
{
	job->internal.bits = (uint16_t)(job->internal.bits & ~bit);
}

/* No more of it is to be written. */
static inline bool kcopyd__job_stops(const struct kcopyd_job *job)
{
	return kcopyd__job_has(job, KCOPYD__CANCELLED | KCOPYD__FAILED);
}

static inline bool kcopyd__job_is_zero(const struct kcopyd_job *job)
{
	return !job->from.bdev;
}

/* Whether destinations are zeroed without data being moved. */
static inline bool kcopyd__job_zeroes_cheaply(const struct kcopyd_job *job)
{
	return kcopyd__job_has(job, KCOPYD__HAS_ZEROES | KCOPYD__CAN_FREE);
}

/* Errors stop a job, unless it was told to ignore them; one in sequence can't. */
static inline void kcopyd__job_fail(struct kcopyd_job *job)
{
	if ((job->flags & (KCOPYD_IGNORE_ERROR | KCOPYD_WRITE_SEQ)) != KCOPYD_IGNORE_ERROR)
		kcopyd__job_note(job, KCOPYD__FAILED);
}

/* Checks a job and finds out what can be known of it: 0, or -EINVAL and a message. service.c */
int kcopyd__job_check(const struct kcopyd_client *kc, struct kcopyd_job *job);
/* Makes a job the client's: one that has been checked, or is to be prepared. job.c, as the rest. */
void kcopyd__job_begin(struct kcopyd_client *kc, struct kcopyd_job *job);
/* Puts a job that is BUSY into the line, or ends it, if it may have no slice under way now. */
void kcopyd__job_go_on(struct kcopyd_job *job);
/* Has a job that was cancelled end as soon as it can. */
void kcopyd__job_stop(struct kcopyd_job *job);

/* What a job's turn has come to. */
enum kcopyd__turn {
	KCOPYD__TURN_MORE,    /* it goes to the end of the line */
	KCOPYD__TURN_BUSY,    /* it has left the line */
	KCOPYD__TURN_STARVES, /* it waits for pages, as all do that need some */
	KCOPYD__TURN_WAITS,   /* all wait: for a slice to end, or their throttle */
};

/* Has a job that is READY take its next step. */
enum kcopyd__turn kcopyd__job_turn(struct kcopyd_job *job);
/* What the job has done so far, from the start of its order. */
uint64_t kcopyd__job_position(const struct kcopyd_job *job);

/* ---- slices ---- */

enum kcopyd__slice_kind {
	KCOPYD__SLICE_COPY,
	KCOPYD__SLICE_ZERO,
	KCOPYD__SLICE_SHARE,
	KCOPYD__SLICE_FLUSH,
	KCOPYD__SLICE_VERIFY,
};

enum kcopyd__slice_state {
	KCOPYD__SLICE_FREE,
	KCOPYD__SLICE_READING,
	KCOPYD__SLICE_READ,    /* waits until it is its turn to write */
	KCOPYD__SLICE_WRITING, /* or whatever else changes destinations */
	KCOPYD__SLICE_COMPARING,
	KCOPYD__SLICE_STATES,
};

/* A part of a job that is under way. */
struct kcopyd__slice {
	struct dmcore__list link; /* free slices, or those of the job */
	struct kcopyd_client *client;
	struct kcopyd_job *job;
	enum kcopyd__slice_kind kind;
	enum kcopyd__slice_state state;
	uint64_t offset;          /* sectors of the job before it, in the job's order */
	uint64_t count;           /* sectors */
	uint64_t done;            /* of them, written */
	uint64_t counted;         /* of them, in the job's numbers */
	uint64_t piece;           /* under way behind these */
	bool piece_is_zero;
	bool piece_is_freed;      /* it is zeroed by a discard */
	bool lost;                /* some of it failed */
	bool left_out;            /* it stopped before its end */
	unsigned int dest;        /* that is compared, or shared with */
	char *buffer;
	unsigned int num_pages;
};

struct kcopyd__piece {
	enum kcopyd__slice_kind kind;
	uint64_t count;           /* sectors */
	char *buffer;
	unsigned int num_pages;
};

/* Starts the next slice of a job. */
void kcopyd__slice_start(struct kcopyd_client *kc, struct kcopyd_job *job,
			 const struct kcopyd__piece *piece);
/* A slice has ended, and is gone. The client isn't run: the caller has more to do. job.c */
void kcopyd__job_slice_ended(struct kcopyd_job *job);

/* ---- sparse.c ---- */

/* Whether `bytes` (a multiple of 512) are all zero. */
bool kcopyd__is_zero(const char *data, uint64_t bytes);
/* How many of `count` sectors at `data` are of one kind, zero or not. Zeroes count in blocks of 4
 * KiB, or of `block_sectors` if that is more. */
uint64_t kcopyd__zero_run(const char *data, uint64_t count, uint32_t block_sectors, bool *is_zero);
/* Asks the source what it holds at the job's cursor, if that isn't known; sets extent_end and
 * KCOPYD__HOLE. */
void kcopyd__find_extent(struct kcopyd_job *job);

/* ---- clients ---- */

/* A job that a client has for kcopyd_copy() and its like. */
struct kcopyd__pool_job {
	struct kcopyd_job job;
	struct kcopyd_client *client;
	kcopyd_notify_fn notify;
};

struct kcopyd_client {
	struct dmcore_queue *queue;
	struct dmio_client *io;
	struct kcopyd_throttle *throttle; /* or NULL */
	struct dmcore__list throttle_link;
	uint64_t refused_ns;              /* since when it waits for its share; 0: it doesn't */
	struct kcopyd__pages pages;
	uint32_t subjob_sectors;
	struct dmcore__list ready;        /* jobs, the next one first */
	struct dmcore__list starving;     /* jobs that wait for pages, likewise */
	struct dmcore__list ended;        /* jobs whose callbacks are to run */
	struct dmcore__list free_slices;
	struct dmcore__list free_jobs;
	unsigned int outstanding;         /* jobs, prepared ones too */
	bool running;
	bool closing;
	bool posted;                      /* work is on its way */
	struct dmcore_work work;
	struct dmio_page_list zeroes;     /* a page of zeroes, over and over */
	struct dmcore_bio share;          /* the copy within the kernel, one at a time */
	struct kcopyd__slice *sharing;    /* whose that is */
	struct kcopyd__slice *slices;
	struct kcopyd__pool_job *jobs;
};

/* Gives jobs their turns, for as long as there is something to give them. client.c, as the rest. */
void kcopyd__client_run(struct kcopyd_client *kc);
/* Puts a job into the line. */
void kcopyd__client_queue(struct kcopyd_client *kc, struct kcopyd_job *job);
/* Has the callback of a job run. */
void kcopyd__client_end(struct kcopyd_client *kc, struct kcopyd_job *job);

#endif
