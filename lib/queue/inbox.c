/* SPDX-License-Identifier: MIT */
/* The inbox of a queue. Filled by any thread, emptied by the owner's poll. */
#include "queue/inbox.h"

#include <unistd.h>

void dmcore__inbox_signal(struct dmcore_queue *queue)
{
	uint64_t one = 1;

	/* It fails only when the counter is full, and then it is readable anyway. */
	if (write(queue->wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* Once for a batch: the first to find the owner asleep wakes it. */
void dmcore__inbox_wake(struct dmcore_queue *queue)
{
	if (!atomic_load(&queue->sleeping))
		return;
	if (atomic_load(&queue->wants_signal) || atomic_exchange(&queue->sleeping, false))
		dmcore__inbox_signal(queue);
}

void dmcore_queue_post(struct dmcore_queue *queue, struct dmcore_work *work)
{
	struct dmcore_work *head;

	/* The parent's descriptors are not to be written from a child. */
	if (!queue || !work || !dmcore__alive(queue->core))
		return;
	atomic_fetch_add(&queue->posting, 1);
	head = atomic_load_explicit(&queue->inbox_work, memory_order_relaxed);
	do {
		work->next = head;
	} while (!atomic_compare_exchange_weak(&queue->inbox_work, &head, work));
	dmcore__inbox_wake(queue);
	atomic_fetch_sub(&queue->posting, 1);
}

void dmcore__queue_post_bio(struct dmcore_queue *queue, struct dmcore_bio *bio)
{
	struct dmcore_bio *head = atomic_load_explicit(&queue->inbox_bios, memory_order_relaxed);

	/* With its last bio back the owner may destroy the queue, but not before we are through. */
	atomic_fetch_add(&queue->posting, 1);
	do {
		bio->next = head;
	} while (!atomic_compare_exchange_weak(&queue->inbox_bios, &head, bio));
	dmcore__inbox_wake(queue);
	atomic_fetch_sub(&queue->posting, 1);
}

/* The stack turned over: oldest first. */
static struct dmcore_work *take_work(struct dmcore_queue *queue)
{
	struct dmcore_work *stack = atomic_exchange(&queue->inbox_work, NULL);
	struct dmcore_work *oldest = NULL;

	while (stack) {
		struct dmcore_work *next = stack->next;

		stack->next = oldest;
		oldest = stack;
		stack = next;
	}
	return oldest;
}

static void take_bios(struct dmcore_queue *queue)
{
	struct dmcore_bio *stack = atomic_exchange(&queue->inbox_bios, NULL);
	struct dmcore_bio *oldest = NULL;

	while (stack) {
		struct dmcore_bio *next = stack->next;

		stack->next = oldest;
		oldest = stack;
		stack = next;
	}
	while (oldest) {
		struct dmcore_bio *next = oldest->next;

		dmcore__chain_append(&queue->ready, oldest);
		oldest = next;
	}
}

void dmcore__inbox_forget_stale(struct dmcore_queue *queue)
{
	atomic_fetch_and(&queue->asked, ~DMCORE__ASKED_FORGET);
	for (uint32_t word = 0; word < DMCORE__FILE_SLOTS / 64; word++) {
		uint64_t bits = atomic_exchange(&queue->stale_files[word], 0);

		for (; bits; bits &= bits - 1) {
			uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);

			queue->backend->ops->forget(queue->backend, slot);
		}
	}
}

void dmcore__inbox_forget(struct dmcore_queue *queue, uint32_t slot)
{
	atomic_fetch_or(&queue->stale_files[slot / 64], UINT64_C(1) << slot % 64);
	atomic_fetch_or(&queue->asked, DMCORE__ASKED_FORGET);
	if (dmcore__queue_is_own(queue) && !dmcore__queue_polling(queue))
		dmcore__inbox_forget_stale(queue);
	else
		dmcore__inbox_wake(queue);
}

void dmcore__inbox_take(struct dmcore_queue *queue)
{
	uint32_t asked = atomic_load_explicit(&queue->asked, memory_order_acquire);

	if (dmcore__unlikely(asked & DMCORE__ASKED_FORGET))
		dmcore__inbox_forget_stale(queue);
	if (dmcore__unlikely(asked & DMCORE__ASKED_REPLAY)) {
		atomic_fetch_and(&queue->asked, ~DMCORE__ASKED_REPLAY);
		queue->hooks->replay(queue);
	}
	take_bios(queue);
	if (!queue->work_head)
		queue->work_head = take_work(queue);
}

unsigned int dmcore__inbox_run(struct dmcore_queue *queue, unsigned int max)
{
	unsigned int ran = 0;

	while (queue->work_head && ran < max) {
		struct dmcore_work *work = queue->work_head;

		queue->work_head = work->next;
		ran++;
		work->fn(work);
	}
	return ran;
}
