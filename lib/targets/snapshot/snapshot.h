/* SPDX-License-Identifier: MIT */
/*
 * What the files of the snapshot targets share.
 *
 * A struct snapshot is what stands behind one COW device. All tables of a core that name it
 * share it, so that one that replaces another finds everything in place. A struct origin is
 * what stands behind one origin device: the snapshots that want to know of writes to it.
 *
 * Both are worked on by the service of the core alone. Other threads look chunks up, and read what
 * is _Atomic; all else they post to the service. What has to wait there is a waiter in one list;
 * once woken it looks at everything anew.
 *
 *   arguments.c  the words of a table line
 *   share.c      who owns a snapshot: activation, handover, end
 *   load.c       reads the exceptions of a COW device, or makes a new one
 *   store.c      places exceptions on the COW device, commits them, invalidates it
 *   pending.c    chunks that are being copied to the COW device
 *   requests.c   requests to a snapshot that can't go straight to one of its devices
 *   carriers.c   their writes, where others wait for the end
 *   discard.c    discards
 *   origin.c     writes to an origin
 *   merge.c      exceptions on their way back to the origin
 */
#ifndef DMCORE_TARGETS_SNAPSHOT_SNAPSHOT_H
#define DMCORE_TARGETS_SNAPSHOT_SNAPSHOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bdev.h>
#include <dmcore/bio.h>
#include <dmcore/context.h>
#include <dmcore/cow.h>
#include <dmcore/kcopyd.h>
#include <dmcore/queue.h>
#include <dmcore/target.h>

#include "targets/snapshot/exceptions.h"

/* Chunks of a snapshot that are being copied at the same time; more wait. */
#define SNAPSHOT_PENDING_MAX 256u
#define SNAPSHOT_PENDING_BUCKETS 256u
/* Writes of requests that the service carries out at the same time. */
#define SNAPSHOT_CARRIERS 32u
/* Pages of its copies: 1 MiB. */
#define SNAPSHOT_PAGES 256u
/* Entries are written a page of the area at a time. */
#define SNAPSHOT_PAGE_BYTES_MAX 65536u
/* Longest time for which an exception of a snapshot's own write is only in memory. */
#define SNAPSHOT_COMMIT_NS UINT64_C(1000000000)

struct carrier;
struct origin;
struct pending;
struct snapshot;

/* ---- waiting ---- */

struct snapshot_waiter {
	struct snapshot_waiter *next;
	void (*wake)(struct snapshot_waiter *waiter);
	uint64_t ticket; /* what it waits for, where things are counted */
};

struct snapshot_waiters {
	struct snapshot_waiter *head; /* has waited longest */
	struct snapshot_waiter **tail;
};

static inline void dmcore__waiters_init(struct snapshot_waiters *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static inline void dmcore__waiters_add(struct snapshot_waiters *list,
				       struct snapshot_waiter *waiter)
{
	waiter->next = NULL;
	*list->tail = waiter;
	list->tail = &waiter->next;
}

static inline struct snapshot_waiter *dmcore__waiters_take(struct snapshot_waiters *list)
{
	struct snapshot_waiter *waiter = list->head;

	if (waiter) {
		list->head = waiter->next;
		if (!list->head)
			list->tail = &list->head;
	}
	return waiter;
}

/* Wakes those that wait now; some may wait again at once. */
static inline void dmcore__waiters_wake_all(struct snapshot_waiters *list)
{
	struct snapshot_waiter *waiter = list->head;

	dmcore__waiters_init(list);
	while (waiter) {
		struct snapshot_waiter *next = waiter->next;

		waiter->wake(waiter);
		waiter = next;
	}
}

/* ---- requests ---- */

/* What end_io has to do. */
enum snapshot_stage {
	SNAPSHOT_PASS,        /* nothing */
	SNAPSHOT_READ_ORIGIN, /* see whether the chunk has got an exception meanwhile */
};

/* What a target keeps with each request. */
struct snapshot_request {
	struct dmcore_work work;        /* to the service, and back to the request's queue */
	struct snapshot_waiter waiter;  /* on the service */
	struct dmcore_bio *bio;
	union {
		struct snapshot *snapshot;
		struct origin *origin;
	};
	uint64_t version;               /* READ_ORIGIN: of the table that had no exception */
	uint64_t sector;                /* of the bio, as map got it */
	uint64_t count;
	const struct dmio_bvec *vecs;
	uint32_t num_vecs;
	uint32_t vec_offset_bytes;
	struct pending *pending;        /* that the write fills */
	struct snapshot_request *next;  /* in a list of writes under way */
	uint16_t flags;                 /* DMCORE_BIO_* */
	uint8_t stage;                  /* enum snapshot_stage */
};

/* ---- the store ---- */

enum store_state {
	STORE_IDLE,
	STORE_ZEROING, /* the next area */
	STORE_WRITING, /* entries */
};

struct store {
	bool persistent;
	uint32_t chunk_sectors;
	uint32_t chunk_shift;            /* log2 of chunk_sectors */
	uint32_t area_entries;
	uint32_t page_entries;           /* of an area; divides area_entries */
	uint32_t block_bytes;            /* of the COW device */
	_Atomic uint64_t next_free;      /* chunk to be given out next */
	_Atomic uint64_t current_area;
	_Atomic uint64_t num_areas;      /* that status counts: with the one behind a full one */
	/* Entries of the current area: what is placed is in `page`, what is durable on the disk. */
	uint32_t placed;
	uint32_t durable;
	uint32_t batch_end;              /* of the commit under way */
	uint64_t placed_total;           /* since it was loaded */
	uint64_t durable_total;
	unsigned char *page;             /* the one that holds entry placed - 1, or will hold 0 */
	unsigned char *io_page;          /* what is being written */
	unsigned char *header;           /* one block */
	enum store_state state;
	bool wanted;                     /* what is placed is to become durable */
	uint64_t wanted_order;           /* with all chunks that had been begun by then */
	bool header_busy;                /* the invalid header isn't durable yet */
	struct dmcore_bio bio;
	struct dmcore_bio header_bio;
	struct dmcore_timer timer;
	struct snapshot_waiters durability;
	struct snapshot_waiters header_waiters;
};

/* ---- a chunk that is being copied ---- */

enum pending_state {
	PENDING_FREE,
	PENDING_COPYING, /* by kcopyd, or by a write that covers it */
	PENDING_COPIED,  /* or it has failed; those that were begun before come first */
};

struct pending {
	struct kcopyd_job job;
	struct snapshot *snapshot;
	struct pending *next_in_bucket;
	struct pending *next;               /* begun after this one; or free */
	uint64_t order;                     /* in which they were begun, from 1 */
	uint64_t old_chunk;
	uint64_t new_chunk;
	enum pending_state state;
	bool failed;
	struct snapshot_request *whole;     /* the write that began it, if it ends with it */
	struct snapshot_waiters of_snapshot;
	struct snapshot_waiters of_origin;
};

/* ---- merging ---- */

enum merge_state {
	MERGE_OFF,
	MERGE_IDLE,     /* nothing is left to be merged, or it has failed */
	MERGE_READING,  /* entries from the COW device */
	MERGE_OTHERS,   /* other snapshots get their copies */
	MERGE_WRITES,   /* waits for writes to the range */
	MERGE_COPYING,
	MERGE_FLUSHING, /* the origin */
	MERGE_COMMITTING,
};

struct merge {
	enum merge_state state;
	bool stop;                       /* after this step */
	bool doubtful;                   /* whether the range's entries are gone isn't known */
	_Atomic bool failed;
	uint64_t first_old;              /* the range being merged: count chunks */
	uint64_t first_new;
	uint32_t count;
	uint64_t area;                   /* of the range, which may be the one before the current */
	uint32_t entries;                /* of that area */
	uint32_t left;                   /* of them, with this step */
	uint32_t page_first;             /* of the page that store.page holds */
	struct dmcore_bio bio;
	struct kcopyd_job job;
	struct snapshot_waiter waiter;
	struct snapshot_waiters held;    /* writes to the range */
	struct snapshot_request *writes; /* to chunks of the COW device, under way */
	struct snapshot_waiters stopped;
};

/* ---- a snapshot ---- */

enum snapshot_overflow {
	OVERFLOW_TABLE,      /* as the table says: invalidate, or with PO fail all writes */
	OVERFLOW_INVALIDATE,
	OVERFLOW_FAIL,       /* fail the write that finds no room */
	OVERFLOW_HOLD,       /* until there is room */
};

/* The private data of a target of type snapshot or snapshot-merge. */
struct snapshot_target {
	struct dmcore_target *target;
	struct snapshot *snapshot;
	struct origin *origin;
	struct dmcore_bdev *origin_bdev;
	struct dmcore_bdev *cow_bdev;
	uint32_t chunk_sectors;          /* of the table; 0: the default */
	_Atomic uint32_t shown_chunk_sectors; /* of the store, once it has been read; or 0 */
	bool persistent;
	bool overflow_option;            /* PO */
	bool discard_zeroes;
	bool discard_passdown;
	bool merges;                     /* snapshot-merge */
	/* Under snapshot->lock. */
	bool running;                    /* resumed, and not suspended since */
	atomic_bool lost;                /* another table has taken the snapshot over */
};

struct snapshot {
	struct dmcore *core;
	struct dmcore_queue *service;
	/* Set before the first request. */
	struct exceptions *exceptions;
	uint32_t chunk_shift;
	uint32_t chunk_sectors;

	atomic_bool valid;
	atomic_bool overflowed;
	atomic_bool dirty;               /* some exceptions aren't durable */
	atomic_bool unconcerned;         /* writes to the origin need nothing of it */

	pthread_mutex_t lock;
	struct snapshot_target *owner;   /* its devices are used */
	struct snapshot_target *heir;    /* has been constructed to take over */
	bool changing;                   /* somebody becomes the owner just now */
	pthread_cond_t changed;
	bool active;                     /* has been resumed once */
	bool suspending;                 /* nothing is held any more: the service's */

	/* The service's. */
	struct snapshot_target *used;    /* whose devices and options these are: */
	struct dmcore_bdev *origin_bdev;
	struct dmcore_bdev *cow_bdev;
	_Atomic uint64_t length_sectors; /* of the table */
	struct origin *origin;
	struct snapshot *next;           /* of the same origin, with no larger chunks */
	struct kcopyd_client *kc;
	struct store store;
	struct merge merge;
	bool merging;
	atomic_bool paused;              /* for a handover */
	atomic_int overflow;             /* enum snapshot_overflow */
	_Atomic uint64_t low_water_sectors; /* 0: none */
	atomic_bool low_water_told;
	struct pending *pending_array;
	struct pending *free_pending;
	unsigned int num_pending;
	struct pending *buckets[SNAPSHOT_PENDING_BUCKETS];
	struct pending *first_pending;   /* in the order in which they were begun */
	struct pending **last_pending;
	uint64_t num_begun;
	struct carrier *carrier_array;
	struct carrier *free_carrier;
	struct snapshot_waiters carrier_waiters;
	struct snapshot_waiters slot_waiters;
	struct snapshot_waiters space_waiters;
	struct snapshot_waiters pause_waiters;
	struct snapshot_waiters idle_waiters; /* for nothing to be under way */
	struct snapshot_waiters discards;
	struct kcopyd_job zero_job;
	struct snapshot_request *discard;     /* under way */
	struct dmcore_work advance_work;
	bool advance_posted;
};

static inline uint64_t dmcore__snapshot_chunk(const struct snapshot *snapshot, uint64_t sector)
{
	return sector >> snapshot->chunk_shift;
}

/* Where a sector is in the COW device, if its chunk is kept in `new_chunk`. */
static inline uint64_t dmcore__snapshot_cow_sector(const struct snapshot *snapshot,
						   uint64_t new_chunk, uint64_t sector)
{
	return (new_chunk << snapshot->chunk_shift) + (sector & (snapshot->chunk_sectors - 1));
}

static inline bool dmcore__snapshot_is_valid(const struct snapshot *snapshot)
{
	return atomic_load_explicit(&snapshot->valid, memory_order_acquire);
}

/* ---- arguments.c ---- */

/* Reads a table line into a new private_data, opens the devices, and shares what is shared. */
int dmcore__snapshot_construct(struct dmcore_target *target, struct dmcore_args *args,
			       bool merges);
/* The words of a TABLE line. */
void dmcore__snapshot_table_text(const struct snapshot_target *own, struct dmcore_text *text);

/* ---- share.c: control calls ---- */

/* Becomes the snapshot's owner, or its heir. */
int dmcore__snapshot_join(struct snapshot_target *own, struct dmcore_args *args);
void dmcore__snapshot_leave(struct dmcore_target *target);
int dmcore__snapshot_preresume(struct dmcore_target *target);
void dmcore__snapshot_resume(struct dmcore_target *target);
/* Everything that was promised becomes durable, and nothing is merged any more. */
void dmcore__snapshot_postsuspend(struct dmcore_target *target);
/* Lets go of requests that wait for room. */
void dmcore__snapshot_presuspend(struct dmcore_target *target);
/* Also for those that wait for room. */
void dmcore__snapshot_set_overflow(struct snapshot *snapshot, enum snapshot_overflow overflow);
/* There may be room now. */
void dmcore__snapshot_grown(struct snapshot *snapshot);

extern const struct dmcore_shared_type dmcore__snapshot_shared;

/* ---- targets/snapshot.c: what both types share ---- */

void dmcore__snapshot_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			     struct dmcore_text *text);
int dmcore__snapshot_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				     void *context);
void dmcore__snapshot_extent(struct dmcore_target *target, uint64_t sector,
			     struct dmcore_place *place);

/* ---- load.c: on the thread of a control call, before the snapshot is active ---- */

int dmcore__snapshot_load(struct snapshot *snapshot, struct snapshot_target *own);
void dmcore__snapshot_unload(struct snapshot *snapshot);

/* ---- store.c: the service, as all below ---- */

void dmcore__store_start(struct snapshot *snapshot);
/* A chunk of the COW device. -ENOSPC. */
int dmcore__store_allocate(struct snapshot *snapshot, uint64_t *new_chunk);
/* Whether an exception can be placed now. */
bool dmcore__store_has_room(const struct store *store);
void dmcore__store_place(struct snapshot *snapshot, uint64_t old_chunk, uint64_t new_chunk);
/* Whether the exception of a chunk is durable. */
bool dmcore__store_is_durable(const struct store *store, uint64_t old_chunk);
/* Whether the area is full, and there is no room for the next one: it can't be committed. */
bool dmcore__store_is_over(const struct snapshot *snapshot);
/* The area that exceptions are placed in. */
void dmcore__store_set_area(struct store *store, uint64_t area);
/* Wakes the waiter when all that is placed by now is durable, or the snapshot invalid. */
void dmcore__store_wait(struct snapshot *snapshot, struct snapshot_waiter *waiter);
/* Whoever waits wants what is placed to be durable. */
void dmcore__store_want(struct snapshot *snapshot);
/* Finds out anew which chunks are given out. */
void dmcore__store_recount(struct snapshot *snapshot);
/* Commits if somebody wants it, and the copies of that time have ended. */
void dmcore__store_commit(struct snapshot *snapshot);
bool dmcore__store_is_idle(const struct store *store);
/* Never valid again. `why` for the log. */
void dmcore__snapshot_invalidate(struct snapshot *snapshot, const char *why);

/* ---- pending.c ---- */

enum pending_result {
	PENDING_THERE,
	PENDING_NEW,      /* nothing has been started */
	PENDING_NO_SLOT,
	PENDING_NO_SPACE, /* on the COW device */
};

int dmcore__pending_create(struct snapshot *snapshot);
struct pending *dmcore__pending_find(struct snapshot *snapshot, uint64_t old_chunk);
enum pending_result dmcore__pending_get(struct snapshot *snapshot, uint64_t old_chunk,
					struct pending **result);
void dmcore__pending_copy(struct pending *pending);
/* What was to fill the chunk has ended. */
void dmcore__pending_ended(struct pending *pending, bool failed);
/* Goes on with what has been copied, soon. */
void dmcore__pending_advance_soon(struct snapshot *snapshot);
/* Whether nothing is under way; wakes who waits for it. */
bool dmcore__snapshot_check_idle(struct snapshot *snapshot);

/* ---- requests.c ---- */

/* Notes what a bio is when map gets it; any thread. */
void dmcore__request_keep(struct snapshot_request *request, struct dmcore_bio *bio);
/* Posts a kept request to the service; any thread. */
void dmcore__request_post(struct snapshot_request *request, struct dmcore_queue *service,
			  void (*fn)(struct dmcore_work *work));
/* Sends a kept request on, on its own queue. */
void dmcore__request_forward(struct snapshot_request *request, struct dmcore_bdev *bdev,
			     uint64_t sector);
/* What the service does with a request that was posted to it. */
void dmcore__request_write(struct dmcore_work *work);
void dmcore__request_flush(struct dmcore_work *work);
/* Of a write that has filled its chunk: its exception is placed, or has failed. */
void dmcore__request_whole_placed(struct snapshot_request *request);
/* Copies from a write's data what is for `count` sectors, from `sector` of its own on. */
void dmcore__request_data(const struct snapshot_request *request, uint64_t sector, void *buffer,
			  uint64_t count);

/* ---- carriers.c ---- */

int dmcore__carriers_create(struct snapshot *snapshot);
void dmcore__carriers_destroy(struct snapshot *snapshot);
/* Writes what a request holds to the COW device. `done` may be called before this returns. False:
 * all carriers are out; their return wakes one of carrier_waiters. */
bool dmcore__carry(struct snapshot_request *request, uint64_t cow_sector,
		   void (*done)(struct snapshot_request *request, int status));

/* ---- discard.c ---- */

void dmcore__request_discard(struct dmcore_work *work);

/* ---- origin.c ---- */

extern const struct dmcore_shared_type dmcore__origin_shared;

/* False: no memory. */
bool dmcore__origin_add(struct origin *origin, struct snapshot *snapshot);
void dmcore__origin_remove(struct origin *origin, struct snapshot *snapshot);
/* Any thread: whether a write needs nothing of the service. */
bool dmcore__origin_is_clear(struct origin *origin, const struct dmcore_bio *bio);
/*
 * Sees to it that all snapshots but one have what is about to be overwritten. False: the waiter
 * will be woken, and asks again.
 */
bool dmcore__origin_prepare(struct origin *origin, const struct snapshot *except, uint64_t sector,
			    uint64_t count, struct snapshot_waiter *waiter);
void dmcore__request_origin_write(struct dmcore_work *work);

/* ---- merge.c ---- */

void dmcore__merge_create(struct snapshot *snapshot);
void dmcore__merge_start(struct snapshot *snapshot);
/* Wakes the waiter when the step under way has ended. False: none is. */
bool dmcore__merge_stop(struct snapshot *snapshot, struct snapshot_waiter *waiter);
/* What is left is to be a snapshot again. Wakes the waiter when it can be, or can't because
 * merge.doubtful. False: it can be at once. */
bool dmcore__merge_leave(struct snapshot *snapshot, struct snapshot_waiter *waiter);
/* Of a read that map had no rest to look for. */
void dmcore__request_merge_read(struct dmcore_work *work);
void dmcore__request_merge_write(struct dmcore_work *work);

#endif
