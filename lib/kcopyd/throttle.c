/* SPDX-License-Identifier: MIT */
/*
 * Throttles. A client asks before it starts a slice; one that is refused waits in line and is run
 * when the next slice may start. Called by applications, and by job.c and client.c.
 */
#include <errno.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "kcopyd/kcopyd.h"
#include "queue/queue.h"

#define SECOND_NS UINT64_C(1000000000)
/* The share of the time is forgotten by halves when so much has passed: about the kernel's. */
#define MEMORY_NS SECOND_NS
/* Longest that a slice waits for its share, as in the kernel. */
#define WAIT_NS_MAX SECOND_NS
/* What a rate may catch up with when its timer was late. */
#define SLACK_NS (20 * UINT64_C(1000000))
/* A slice should last no longer than this at the rate: one part of a second. */
#define SLICES_PER_SECOND 20u
/* So that times fit: nobody asks for more. */
#define RATE_MAX (UINT64_C(1) << 50)

static struct kcopyd_client *client_of(struct dmcore__list *link)
{
	return dmcore__container_of(link, struct kcopyd_client, throttle_link);
}

/* Forgets half of the time. What was too much of it stays, or half of each wait would be let off;
 * what was too little isn't saved up. */
static void forget(struct kcopyd_throttle *throttle)
{
	uint64_t half_ns = throttle->total_ns / 2;
	uint64_t percent = dmcore__min_u64(throttle->percent, 100);
	uint64_t share_ns = throttle->total_ns * percent / 100;

	if (throttle->busy_ns > share_ns)
		throttle->busy_ns = dmcore__min_u64(throttle->busy_ns - share_ns +
							    half_ns * percent / 100, half_ns);
	else
		throttle->busy_ns /= 2;
	throttle->total_ns = half_ns;
}

/* Brings the share of the time up to now. */
static void account(struct kcopyd_throttle *throttle, uint64_t now_ns)
{
	uint64_t passed_ns = now_ns - throttle->accounted_ns;

	throttle->accounted_ns = now_ns;
	if (throttle->inflight > 0)
		throttle->busy_ns += passed_ns;
	throttle->total_ns += passed_ns;
	while (throttle->total_ns >= MEMORY_NS)
		forget(throttle);
}

/* When a slice may start as far as the share of the time goes; UINT64_MAX: when one ends. */
static uint64_t share_due_ns(const struct kcopyd_throttle *throttle, uint64_t now_ns)
{
	uint64_t wanted_ns = WAIT_NS_MAX;

	if (throttle->percent >= 100 ||
	    throttle->busy_ns * 100 <= throttle->total_ns * throttle->percent)
		return now_ns;
	if (throttle->inflight > 0)
		return UINT64_MAX;
	if (throttle->percent > 0)
		wanted_ns = throttle->busy_ns * 100 / throttle->percent - throttle->total_ns;
	return now_ns + dmcore__max_u64(wanted_ns, 1);
}

/* A product of 64 bits each, divided. */
static uint64_t cost_ns(uint64_t bytes, uint64_t bytes_per_second)
{
	return (uint64_t)((unsigned __int128)bytes * SECOND_NS / bytes_per_second);
}

/* When a slice of `bytes` will have been paid for. */
static uint64_t rate_due_ns(struct kcopyd_throttle *throttle, uint64_t bytes, uint64_t now_ns)
{
	uint64_t from_ns;

	if (!throttle->bytes_per_second || !bytes)
		return 0;
	/* Not from now on each time it asks, or it would never have paid. */
	if (!throttle->asked_ns)
		throttle->asked_ns = dmcore__max_u64(now_ns, 1);
	from_ns = throttle->asked_ns > SLACK_NS ? throttle->asked_ns - SLACK_NS : 0;
	return dmcore__max_u64(throttle->paid_ns, from_ns) +
	       cost_ns(bytes, throttle->bytes_per_second);
}

/* Tells when a slice may start: now_ns or before: now. */
static uint64_t due_ns(struct kcopyd_client *kc, uint64_t bytes, uint64_t now_ns)
{
	struct kcopyd_throttle *throttle = kc->throttle;
	uint64_t share_ns = share_due_ns(throttle, now_ns);

	if (share_ns > now_ns) {
		if (!kc->refused_ns)
			kc->refused_ns = dmcore__max_u64(now_ns, 1);
		share_ns = dmcore__min_u64(share_ns, kc->refused_ns + WAIT_NS_MAX);
	}
	return dmcore__max_u64(share_ns, rate_due_ns(throttle, bytes, now_ns));
}

/* Behind those who wait. What they wait for, it waits for too. */
static void join_line(struct kcopyd_client *kc, uint64_t now_ns)
{
	struct kcopyd_throttle *throttle = kc->throttle;

	if (!dmcore__list_empty(&kc->throttle_link))
		return;
	kc->refused_ns = client_of(throttle->waiting.next)->refused_ns ? now_ns : 0;
	dmcore__list_append(&throttle->waiting, &kc->throttle_link);
}

/* It is the first: the line goes on at its time. */
static void wait_first(struct kcopyd_client *kc, uint64_t start_ns)
{
	struct kcopyd_throttle *throttle = kc->throttle;

	/* Before the one that is the first now. */
	dmcore__list_append(throttle->waiting.next, &kc->throttle_link);
	throttle->serving = false;
	dmcore_timer_start(throttle->queue, &throttle->timer, start_ns);
}

bool kcopyd__throttle_start(struct kcopyd_client *kc, uint64_t bytes)
{
	struct kcopyd_throttle *throttle = kc->throttle;
	uint64_t now_ns;
	uint64_t start_ns;

	if (!throttle)
		return true;
	now_ns = dmcore__now_ns(throttle->queue->core);
	if (!throttle->serving) {
		if (!dmcore__list_empty(&throttle->waiting)) {
			join_line(kc, now_ns);
			return false;
		}
		/* Nobody has been asking before. */
		throttle->asked_ns = 0;
		kc->refused_ns = 0;
	}
	account(throttle, now_ns);
	start_ns = due_ns(kc, bytes, now_ns);
	if (start_ns > now_ns) {
		/* Others first, if it has had its turn. */
		if (throttle->serving && throttle->started)
			dmcore__list_append(&throttle->waiting, &kc->throttle_link);
		else
			wait_first(kc, start_ns);
		return false;
	}
	kc->refused_ns = 0;
	throttle->started = true;
	throttle->inflight++;
	if (throttle->bytes_per_second && bytes)
		throttle->paid_ns = rate_due_ns(throttle, bytes, now_ns);
	if (bytes)
		throttle->asked_ns = 0;
	return true;
}

/* Those that wait have their turns, until one is refused again. */
static void serve(struct kcopyd_throttle *throttle)
{
	if (throttle->serving)
		return;
	throttle->serving = true;
	while (throttle->serving && !dmcore__list_empty(&throttle->waiting)) {
		struct kcopyd_client *kc = client_of(throttle->waiting.next);

		dmcore__list_remove(&kc->throttle_link);
		throttle->started = false;
		kcopyd__client_run(kc);
	}
	throttle->serving = false;
}

static void on_timer(struct dmcore_timer *timer)
{
	serve(dmcore__container_of(timer, struct kcopyd_throttle, timer));
}

void kcopyd__throttle_ask_again(struct kcopyd_client *kc)
{
	struct kcopyd_throttle *throttle = kc->throttle;

	if (throttle && !dmcore__list_empty(&kc->throttle_link))
		dmcore_timer_start(throttle->queue, &throttle->timer, 0);
}

void kcopyd__throttle_end(struct kcopyd_client *kc)
{
	struct kcopyd_throttle *throttle = kc->throttle;

	if (!throttle)
		return;
	account(throttle, dmcore__now_ns(throttle->queue->core));
	DMCORE__ASSERT(throttle->inflight > 0);
	throttle->inflight--;
	/* The timer may have been set for the longest wait: now there is a better answer. */
	if (throttle->inflight == 0 && !dmcore__list_empty(&throttle->waiting))
		dmcore_timer_start(throttle->queue, &throttle->timer, 0);
}

uint64_t kcopyd__throttle_slice(const struct kcopyd_client *kc, uint64_t sectors)
{
	const struct kcopyd_throttle *throttle = kc->throttle;
	uint64_t most;

	if (!throttle || !throttle->bytes_per_second)
		return sectors;
	most = dmcore__bytes_to_sectors(throttle->bytes_per_second / SLICES_PER_SECOND);
	/* None at all would be no bound where zero means that. */
	return dmcore__min_u64(sectors, dmcore__max_u64(most, 1));
}

void kcopyd__throttle_join(struct kcopyd_client *kc, struct kcopyd_throttle *throttle)
{
	dmcore__list_init(&kc->throttle_link);
	kc->throttle = throttle;
	if (throttle)
		throttle->num_clients++;
}

void kcopyd__throttle_leave(struct kcopyd_client *kc)
{
	struct kcopyd_throttle *throttle = kc->throttle;

	if (!throttle)
		return;
	dmcore__list_remove(&kc->throttle_link);
	throttle->num_clients--;
	/* Nobody waits for it, and it would keep the queue from being destroyed. */
	if (dmcore__list_empty(&throttle->waiting))
		dmcore_timer_cancel(throttle->queue, &throttle->timer);
}

int kcopyd_throttle_create(struct dmcore_queue *queue, struct kcopyd_throttle **result)
{
	struct kcopyd_throttle *throttle;

	if (!result)
		return -EINVAL;
	*result = NULL;
	if (!queue)
		return dmcore__error(-EINVAL, "kcopyd: a throttle needs a queue");
	throttle = dmcore__zalloc(queue->core, sizeof(*throttle));
	if (!throttle)
		return dmcore__error(-ENOMEM, "kcopyd: no memory for a throttle");
	throttle->queue = queue;
	throttle->percent = 100;
	throttle->timer.fn = on_timer;
	throttle->accounted_ns = dmcore__now_ns(queue->core);
	dmcore__list_init(&throttle->waiting);
	*result = throttle;
	return 0;
}

int kcopyd_throttle_destroy(struct kcopyd_throttle *throttle)
{
	if (!throttle)
		return 0;
	if (throttle->num_clients > 0)
		return dmcore__error(-EBUSY, "kcopyd: %u clients use the throttle",
				     throttle->num_clients);
	dmcore_timer_cancel(throttle->queue, &throttle->timer);
	dmcore__free(throttle->queue->core, throttle);
	return 0;
}

int kcopyd_throttle_set(struct kcopyd_throttle *throttle, unsigned int percent,
			uint64_t bytes_per_second)
{
	if (!throttle)
		return dmcore__error(-EINVAL, "kcopyd: no throttle");
	account(throttle, dmcore__now_ns(throttle->queue->core));
	throttle->percent = percent;
	throttle->bytes_per_second = dmcore__min_u64(bytes_per_second, RATE_MAX);
	/* What has been paid is in the past, and who has been asking has been: both stay. */
	if (!dmcore__list_empty(&throttle->waiting))
		dmcore_timer_start(throttle->queue, &throttle->timer, 0);
	return 0;
}
