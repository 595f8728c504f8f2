/* SPDX-License-Identifier: MIT */
/*
 * struct dmcore_queue as the layers above see it: pools, ready list, submit list, slots, and the
 * backend. queue.c runs it; bdev/ puts bios through it.
 */
#ifndef DMCORE_LIB_QUEUE_QUEUE_H
#define DMCORE_LIB_QUEUE_QUEUE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bio.h>
#include <dmcore/driver.h>
#include <dmcore/queue.h>

#include "backend/backend.h"
#include "base/compiler.h"
#include "base/core.h"
#include "base/list.h"

/* No device's slot: what is counted there means nothing, and spares the data path a question. */
#define DMCORE__NO_SLOT 0u

/*
 * What a queue keeps for each open device. Written by the queue's owner only, so it costs no
 * locked instruction; read by control calls that wait for a device to drain.
 */
struct dmcore__slot {
	_Atomic uint32_t inflight; /* bios of this queue inside the device */
	uint32_t hint;             /* mapped device: index of the target that was hit last */
};

/* A chain of bios through bio->next. */
struct dmcore__bio_chain {
	struct dmcore_bio *head;
	struct dmcore_bio *tail;
};

/* How bdev/bio.c hooks into the queue's poll without being included by it. */
struct dmcore__queue_hooks {
	/* Runs what queue->ready holds now, at most `max` that count; returns how many did. */
	unsigned int (*run_ready)(struct dmcore_queue *queue, unsigned int max);
	/* Submits again what queue->deferred holds now. */
	void (*replay)(struct dmcore_queue *queue);
};

/* What other threads have asked the owner for. */
#define DMCORE__ASKED_FORGET (1u << 0) /* files: some bit of stale_files is set */
#define DMCORE__ASKED_REPLAY (1u << 1) /* deferred bios: a device has been resumed */

/* Defined by bdev/bio.c. */
extern const struct dmcore__queue_hooks dmcore__bio_hooks;

/* Who keeps something for each queue, as the layers above do. Control lock held. */
struct dmcore__queue_watch {
	/* A queue has been made; not 0: it isn't, then, and this is why. */
	int (*added)(struct dmcore_queue *queue);
	/* Nothing is in flight, and it goes. */
	void (*removed)(struct dmcore_queue *queue);
};

/* Indices of queues: for all of the users', and those of the core's own. */
#define DMCORE__QUEUE_INDICES ((uint32_t)DMCORE_QUEUE_INDICES_MAX)

struct dmcore__drain;

struct dmcore_queue {
	/* Hot: touched by every request. */
	struct dmcore *core;
	struct dmcore__slot *slots;       /* one for each possible bdev */
	struct dmcore__bio_chain ready;   /* completed, callbacks not yet run */
	struct dmcore__bio_chain pending; /* submitted from within a submission */
	struct dmcore_bio *free_splits;
	struct dmcore_bio *free_bios;
	struct dmcore_timer *timers;      /* the next one, on top of a heap: timer.h */
	uint64_t rounds;                  /* in which completions were dealt with */
	uint32_t inflight;                /* submitted by users, not yet ended */
	uint32_t index;                   /* no other queue of the core has it */
	/* The owner's, by the functions below: others ask whether it is they who are inside. */
	_Atomic bool submitting;          /* bio.c's loop is running; or there is no owner yet */
	_Atomic bool polling;             /* inside poll: callbacks may be running */
	bool work_first;                  /* whose turn it is: posted work's, or bios' */
	_Atomic bool wants_signal;        /* dmcore_queue_fd() was asked for */
	bool migrates;
	const struct dmcore__queue_hooks *hooks;
	struct dmcore__backend *backend;
	struct dmcore__bio_chain reapable; /* ended, without a done function */
	struct dmcore__bio_chain deferred; /* wait for their device to be resumed */

	/* Written by other threads. */
	_Atomic(struct dmcore_work *) inbox_work __attribute__((aligned(64)));
	_Atomic(struct dmcore_bio *) inbox_bios;
	_Atomic uint64_t stale_files[DMCORE__FILE_SLOTS / 64]; /* slots to be forgotten */
	_Atomic uint32_t asked;           /* DMCORE__ASKED_* */
	_Atomic bool sleeping;            /* the owner waits: posting must wake it */
	_Atomic uint32_t posting;         /* threads that are handing something over */
	_Atomic bool draining;            /* drain.c wants to know of each poll */
	int wake_fd;                      /* eventfd */

	/* Cold. */
	struct dmcore_work *work_head     /* taken from the inbox, not yet run */
		__attribute__((aligned(64)));
	uint64_t timer_order;             /* of the timer that was started last */
	uint64_t timers_ns;               /* time at which they were run last */
	int epoll_fd; /* dmcore_queue_fd(); -1 until asked for */
	int timer_fd; /* beside it: readable when a timer is due */
	bool timer_armed;
	bool internal;                    /* the core's own */
	_Atomic pthread_t owner;          /* valid once `owned` */
	_Atomic uint32_t num_deferred;    /* length of `deferred`; written by the owner */
	uint64_t drain_round;             /* drain.c's */
	uint32_t replay_slot;             /* device to which a bio that waited is sent now */
	_Atomic bool owned;
	struct dmcore_bio *bios;          /* both pools */
	struct dmcore_bio *split_bios;
	unsigned int num_bios;
	unsigned int bios_out;            /* taken by dmcore_bio_get() */
	unsigned int num_splits;
	char *bounce;                     /* DMCORE_BOUNCE_BUFFERS of them, mapped */
	void *bounce_free;
	struct dmcore_bounce_waiter *bounce_head;
	struct dmcore_bounce_waiter *bounce_tail;
	struct dmcore__list link;         /* core->queues->list */
	struct dmcore__list idle_link;    /* core->queues->idle, of plain I/O's */
	char reason[160];
};

/* The queues of a core: for control calls that look at or speak to all of them. */
struct dmcore__queues {
	struct dmcore__list list;
	unsigned int user_count;
	uint32_t num_slots;
	/* Queues for plain I/O, see bdev/sync.c. */
	pthread_mutex_t sync_lock;
	pthread_cond_t sync_returned;
	struct dmcore__list idle; /* those that nobody uses now */
	unsigned int num_sync;
	unsigned int num_sync_mapped; /* in use by calls on mapped devices */
	uint64_t last_file_id;
	uint32_t *free_file_slots;
	uint32_t num_free_file_slots;
	uint64_t indices[DMCORE__QUEUE_INDICES / 64]; /* bits of those in use */
	const struct dmcore__queue_watch *watch;      /* or NULL */
	struct dmcore__drain *drain; /* drain.c */
};

/* num_slots: how many bdevs there can be, and one for none. */
int dmcore__queues_create(struct dmcore *core, uint32_t num_slots);
/* Destroys the core's own queues; the user's are gone. */
void dmcore__queues_destroy(struct dmcore *core);

/* As dmcore_queue_create(); `internal` marks the core's own. */
int dmcore__queue_create(struct dmcore *core, const struct dmcore_queue_options *options,
			 bool internal, struct dmcore_queue **result);

/* Polls until nothing is in flight and no work is left; an error of dmcore_queue_poll(). */
int dmcore__queue_drain(struct dmcore_queue *queue);

/* Sums a device's in-flight bios over all queues. Control lock held. */
uint64_t dmcore__slot_inflight(struct dmcore *core, uint32_t slot);

/* Hands a completed bio to its queue from another thread. */
void dmcore__queue_post_bio(struct dmcore_queue *queue, struct dmcore_bio *bio);

/* Whether the calling thread is the owner. */
static inline bool dmcore__queue_is_own(struct dmcore_queue *queue)
{
	return atomic_load_explicit(&queue->owned, memory_order_acquire) &&
	       pthread_equal(atomic_load_explicit(&queue->owner, memory_order_relaxed),
			     pthread_self());
}

static inline bool dmcore__queue_submitting(const struct dmcore_queue *queue)
{
	return atomic_load_explicit(&queue->submitting, memory_order_relaxed);
}

static inline void dmcore__queue_set_submitting(struct dmcore_queue *queue, bool submitting)
{
	atomic_store_explicit(&queue->submitting, submitting, memory_order_release);
}

static inline bool dmcore__queue_polling(const struct dmcore_queue *queue)
{
	return atomic_load_explicit(&queue->polling, memory_order_relaxed);
}

static inline void dmcore__queue_set_polling(struct dmcore_queue *queue, bool polling)
{
	atomic_store_explicit(&queue->polling, polling, memory_order_release);
}

/*
 * Whether the calling thread is inside the queue's poll or submission. Whether anybody is comes
 * first: a thread that has claimed the queue since is seen to have done so.
 */
static inline bool dmcore__queue_is_inside(struct dmcore_queue *queue)
{
	return (atomic_load_explicit(&queue->polling, memory_order_acquire) ||
		atomic_load_explicit(&queue->submitting, memory_order_acquire)) &&
	       dmcore__queue_is_own(queue);
}

/* Makes the calling thread the owner. */
static inline void dmcore__queue_own(struct dmcore_queue *queue)
{
	atomic_store_explicit(&queue->owner, pthread_self(), memory_order_relaxed);
	atomic_store_explicit(&queue->owned, true, memory_order_release);
	dmcore__queue_set_submitting(queue, false);
}

/* Makes the calling thread the owner if there is none. 0, -EOWNERDEAD in a child of fork(), or
 * -EPERM for a thread that isn't the owner. */
static inline int dmcore__queue_set_owner(struct dmcore_queue *queue)
{
	if (dmcore__unlikely(!dmcore__alive(queue->core)))
		return -EOWNERDEAD;
	if (dmcore__unlikely(!atomic_load_explicit(&queue->owned, memory_order_relaxed)))
		dmcore__queue_own(queue);
	if (dmcore__unlikely(!pthread_equal(atomic_load_explicit(&queue->owner,
								 memory_order_relaxed),
					    pthread_self()) &&
			     !queue->migrates))
		return -EPERM;
	return 0;
}

static inline void dmcore__chain_append(struct dmcore__bio_chain *chain, struct dmcore_bio *bio)
{
	bio->next = NULL;
	if (chain->head)
		chain->tail->next = bio;
	else
		chain->head = bio;
	chain->tail = bio;
}

static inline struct dmcore_bio *dmcore__chain_pop(struct dmcore__bio_chain *chain)
{
	struct dmcore_bio *bio = chain->head;

	if (bio)
		chain->head = bio->next;
	return bio;
}

static inline void dmcore__slot_enter(struct dmcore_queue *queue, uint32_t slot)
{
	_Atomic uint32_t *inflight = &queue->slots[slot].inflight;
	uint32_t now = atomic_load_explicit(inflight, memory_order_relaxed);

	atomic_store_explicit(inflight, now + 1, memory_order_relaxed);
}

/* Release: whoever sees 0 sees all that the bio did. */
static inline void dmcore__slot_leave(struct dmcore_queue *queue, uint32_t slot)
{
	_Atomic uint32_t *inflight = &queue->slots[slot].inflight;
	uint32_t now = atomic_load_explicit(inflight, memory_order_relaxed);

	atomic_store_explicit(inflight, now - 1, memory_order_release);
}

#endif
