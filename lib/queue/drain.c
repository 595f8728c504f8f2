/* SPDX-License-Identifier: MIT */
/* Waiting for bios to leave a device; see drain.h. */
#include "queue/drain.h"

#include <errno.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/wait.h"
#include "queue/inbox.h"
#include "queue/service.h"
#include "queue/timer.h"

/* Longest sleep: a clock of the application's own, or a manual service, may move meanwhile. */
#define SLEEP_MAX_NS 20000000
/* Longest wait for a completion on one queue while others may be told of. */
#define POLL_MAX_NS 1000000
/* As a time that is left: a sleep hook isn't told to look again, it knows what happens. */
#define FOR_EVER_NS ((uint64_t)INT64_MAX)

struct dmcore__drain {
	pthread_mutex_t lock;
	pthread_cond_t woken;
	uint64_t wakes;        /* under `lock` */
	uint64_t round;        /* of polling own queues; control lock */
	unsigned int num_waits; /* drains under way; control lock */
	bool membarrier;
};

static int membarrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

int dmcore__drain_create(struct dmcore *core)
{
	struct dmcore__drain *drain = dmcore__zalloc(core, sizeof(*drain));

	if (!drain)
		return -ENOMEM;
	pthread_mutex_init(&drain->lock, NULL);
	dmcore__cond_init(&drain->woken);
	drain->membarrier = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
	core->queues->drain = drain;
	return 0;
}

void dmcore__drain_destroy(struct dmcore *core)
{
	struct dmcore__drain *drain = core->queues->drain;

	if (!drain)
		return;
	pthread_cond_destroy(&drain->woken);
	pthread_mutex_destroy(&drain->lock);
	dmcore__free(core, drain);
	core->queues->drain = NULL;
}

void dmcore__drain_add_queue(struct dmcore_queue *queue)
{
	atomic_store(&queue->draining, queue->core->queues->drain->num_waits > 0);
}

bool dmcore__drain_needs_fences(const struct dmcore *core)
{
	return !core->queues->drain->membarrier;
}

/* The queue behind `queue`, or the first one; NULL: there is none. */
static struct dmcore_queue *next_queue(struct dmcore *core, struct dmcore_queue *queue)
{
	struct dmcore__list *node = queue ? queue->link.next : core->queues->list.next;

	if (node == &core->queues->list)
		return NULL;
	return dmcore__container_of(node, struct dmcore_queue, link);
}

uint64_t dmcore__slot_inflight(struct dmcore *core, uint32_t slot)
{
	struct dmcore_queue *queue = NULL;
	uint64_t sum = 0;

	while ((queue = next_queue(core, queue)))
		sum += atomic_load_explicit(&queue->slots[slot].inflight, memory_order_acquire);
	return sum;
}

bool dmcore__drain_in_callback(struct dmcore *core)
{
	struct dmcore_queue *queue = NULL;

	while ((queue = next_queue(core, queue))) {
		if (dmcore__queue_is_inside(queue))
			return true;
	}
	return false;
}

void dmcore__drain_wake(struct dmcore *core)
{
	struct dmcore__drain *drain = core->queues->drain;

	pthread_mutex_lock(&drain->lock);
	drain->wakes++;
	pthread_cond_broadcast(&drain->woken);
	pthread_mutex_unlock(&drain->lock);
}

static uint64_t wakes_now(struct dmcore__drain *drain)
{
	uint64_t wakes;

	pthread_mutex_lock(&drain->lock);
	wakes = drain->wakes;
	pthread_mutex_unlock(&drain->lock);
	return wakes;
}

static int sleep_until_woken(struct dmcore *core, uint64_t seen, uint64_t left_ns)
{
	struct dmcore__drain *drain = core->queues->drain;
	const struct dmcore_options *options = &core->options;
	struct timespec until;

	if (options->sleep)
		return options->sleep(core, left_ns == FOR_EVER_NS ? UINT64_MAX :
				      dmcore__now_ns(core) + left_ns, options->sleep_context);
	until = dmcore__deadline_in(left_ns);
	pthread_mutex_lock(&drain->lock);
	while (drain->wakes == seen) {
		if (pthread_cond_timedwait(&drain->woken, &drain->lock, &until))
			break;
	}
	pthread_mutex_unlock(&drain->lock);
	return 0;
}

/* Nanoseconds to sleep before one looks again, for a completion or a wake-up; 0 at the deadline. */
static uint64_t time_left(const struct dmcore *core, uint64_t deadline_ns, bool polls)
{
	uint64_t now = deadline_ns == DMCORE__NO_DEADLINE ? 0 : dmcore__now_ns(core);
	uint64_t most_ns = polls ? POLL_MAX_NS : SLEEP_MAX_NS;

	if (core->options.sleep)
		most_ns = FOR_EVER_NS;
	if (now >= deadline_ns)
		return 0;
	return deadline_ns - now < most_ns ? deadline_ns - now : most_ns;
}

/* ---- own queues ---- */

/* Whether this thread may poll the queue. A manual service is polled by one who waits at a time. */
static bool may_poll(struct dmcore_queue *queue)
{
	struct dmcore *core = queue->core;

	if (queue->internal)
		return queue == dmcore__service_to_pump(core) &&
		       !atomic_load(&core->service->pumped);
	return dmcore__queue_is_own(queue);
}

/* A queue that this thread runs and that hasn't had its turn in this round, or NULL. */
static struct dmcore_queue *next_own(struct dmcore *core, uint64_t round)
{
	struct dmcore_queue *queue = NULL;

	while ((queue = next_queue(core, queue))) {
		if (queue->drain_round < round && may_poll(queue)) {
			queue->drain_round = round;
			return queue;
		}
	}
	return NULL;
}

static int poll_own(struct dmcore *core, struct dmcore_queue *queue, unsigned int min,
		    int64_t timeout_ns)
{
	bool pumps = queue->internal;
	int ret = 0;

	/* Somebody may have begun since may_poll(). */
	if (pumps && !dmcore__service_pump_begin(core->service))
		return -EBUSY;
	dmcore__unlock(core);
	if (pumps)
		ret = dmcore_queue_claim(queue);
	if (ret == 0)
		ret = dmcore_queue_poll(queue, min, UINT_MAX, timeout_ns);
	if (pumps)
		dmcore__service_pump_end(core->service);
	dmcore__lock(core);
	return ret;
}

/*
 * Gives each queue of this thread a turn; `*waited` is the last that has requests inside the
 * device. Returns whether something has run.
 */
static bool poll_round(struct dmcore *core, uint32_t slot, struct dmcore_queue **waited)
{
	uint64_t round = ++core->queues->drain->round;
	struct dmcore_queue *queue;
	bool ran = false;

	*waited = NULL;
	while ((queue = next_own(core, round)))
		ran = poll_own(core, queue, 0, 0) > 0 || ran;
	/* From the start: a callback may have destroyed one of them. */
	while ((queue = next_queue(core, queue))) {
		if (queue->drain_round == round && may_poll(queue) &&
		    (atomic_load(&queue->slots[slot].inflight) || queue->backend->inflight))
			*waited = queue;
	}
	return ran;
}

/* Nanoseconds until a timer of these queues is due; FOR_EVER_NS: none is running. */
static uint64_t time_to_timers(struct dmcore *core)
{
	struct dmcore_queue *queue = NULL;
	uint64_t next_ns = UINT64_MAX;
	uint64_t now_ns;

	while ((queue = next_queue(core, queue))) {
		if (may_poll(queue))
			next_ns = dmcore__min_u64(next_ns, dmcore__timer_next_ns(queue));
	}
	if (next_ns == UINT64_MAX)
		return FOR_EVER_NS;
	now_ns = dmcore__now_ns(core);
	return next_ns > now_ns ? next_ns - now_ns : 0;
}

/* ---- waiting ---- */

/*
 * Waits for a completion on `waited`, or else for a wake-up behind `seen`. 0, or what the sleep
 * hook returned.
 */
static int pass_time(struct dmcore *core, struct dmcore_queue *waited, uint64_t seen,
		      uint64_t left_ns)
{
	int64_t timeout_ns;
	int ret = -ENOENT;

	/* A sleep hook knows of no timers. */
	if (core->options.sleep)
		left_ns = dmcore__min_u64(left_ns, time_to_timers(core));
	timeout_ns = left_ns == FOR_EVER_NS ? -1 : (int64_t)left_ns;
	/* A poll would wait for a completion. What has left the device without one, such as a write
	 * whose flush alone has ended, must be seen before the sleep hook is asked once more. */
	if (waited && (!core->options.sleep || waited->backend->inflight))
		ret = poll_own(core, waited, 1, timeout_ns);
	else if (waited && (waited->ready.head || dmcore__inbox_full(waited)))
		return 0;
	/* A queue that is broken must not have the thread spin. */
	if (ret >= 0 || ret == -EINTR)
		return 0;
	dmcore__unlock(core);
	ret = sleep_until_woken(core, seen, left_ns);
	dmcore__lock(core);
	return ret;
}

int dmcore__drain_sleep(struct dmcore *core, uint32_t slot, uint64_t deadline_ns)
{
	struct dmcore__drain *drain = core->queues->drain;
	struct dmcore_queue *waited;
	uint64_t seen = wakes_now(drain);
	uint64_t left_ns;
	bool ran;

	DMCORE__ASSERT(core->control_depth == 1);
	ran = poll_round(core, slot, &waited);
	left_ns = time_left(core, deadline_ns, waited != NULL);
	if (left_ns == 0)
		return -ETIMEDOUT;
	return ran ? 0 : pass_time(core, waited, seen, left_ns);
}

static void flag_queues(struct dmcore *core, bool draining)
{
	struct dmcore_queue *queue = NULL;

	while ((queue = next_queue(core, queue)))
		atomic_store(&queue->draining, draining);
}

/*
 * Behind it: whoever enters a slot from now on sees that the device is closed, and whoever didn't
 * see that is seen in the slot. Also for `draining`.
 */
static int fence(const struct dmcore *core)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (dmcore__drain_needs_fences(core))
		return 0;
	if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) < 0)
		return dmcore__error(-errno, "membarrier() worked when the core was made, and "
					     "fails now");
	return 0;
}

static int wait_for_slot(struct dmcore *core, uint32_t slot, uint64_t deadline_ns)
{
	struct dmcore__drain *drain = core->queues->drain;

	for (;;) {
		struct dmcore_queue *waited;
		uint64_t seen = wakes_now(drain);
		uint64_t left_ns;
		int ret = 0;
		bool ran;

		if (dmcore__slot_inflight(core, slot) == 0)
			return 0;
		ran = poll_round(core, slot, &waited);
		if (dmcore__slot_inflight(core, slot) == 0)
			return 0;
		left_ns = time_left(core, deadline_ns, waited != NULL);
		if (left_ns == 0)
			return -ETIMEDOUT;
		if (!ran)
			ret = pass_time(core, waited, seen, left_ns);
		if (ret && dmcore__slot_inflight(core, slot) > 0)
			return dmcore__error(ret, "nothing will end the requests in flight");
	}
}

int dmcore__drain_wait(struct dmcore *core, uint32_t slot, uint64_t deadline_ns)
{
	struct dmcore__drain *drain = core->queues->drain;
	int ret;

	DMCORE__ASSERT(core->control_depth == 1);
	if (drain->num_waits++ == 0)
		flag_queues(core, true);
	ret = fence(core);
	if (ret == 0)
		ret = wait_for_slot(core, slot, deadline_ns);
	if (--drain->num_waits == 0)
		flag_queues(core, false);
	return ret;
}

void dmcore__drain_replay(struct dmcore *core)
{
	struct dmcore_queue *queue = NULL;

	/* Pairs with the fence of who has deferred a bio and looks at the device again. */
	atomic_thread_fence(memory_order_seq_cst);
	while ((queue = next_queue(core, queue))) {
		if (atomic_load_explicit(&queue->num_deferred, memory_order_relaxed))
			dmcore__inbox_ask_replay(queue);
	}
	/* Whoever is awake has seen it by now; a woken thread may well take this one's place. */
	while ((queue = next_queue(core, queue))) {
		if (atomic_load_explicit(&queue->asked, memory_order_relaxed))
			dmcore__inbox_wake(queue);
	}
}
