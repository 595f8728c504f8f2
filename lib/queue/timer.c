/* SPDX-License-Identifier: MIT */
/* Timers of a queue; see timer.h. Called by the queue's owner. */
#include "queue/timer.h"

#include <errno.h>
#include <sys/timerfd.h>

#include "base/checked.h"
#include "base/heap.h"

int dmcore_timer_start(struct dmcore_queue *queue, struct dmcore_timer *timer, uint64_t at_ns)
{
	int ret;

	if (!queue || !timer || !timer->fn)
		return -EINVAL;
	ret = dmcore__queue_set_owner(queue);
	if (ret)
		return ret;
	if (timer->previous)
		dmcore__heap_remove(&queue->timers, timer);
	/* Not before those that were due already: they would never have their turn. */
	timer->at_ns = dmcore__max_u64(at_ns, queue->timers_ns);
	timer->order = ++queue->timer_order;
	dmcore__heap_add(&queue->timers, timer);
	return 0;
}

bool dmcore_timer_cancel(struct dmcore_queue *queue, struct dmcore_timer *timer)
{
	if (!queue || !timer || !timer->previous)
		return false;
	dmcore__heap_remove(&queue->timers, timer);
	return true;
}

uint64_t dmcore_timer_next_ns(const struct dmcore_queue *queue)
{
	return queue ? dmcore__timer_next_ns(queue) : UINT64_MAX;
}

unsigned int dmcore__timers_run(struct dmcore_queue *queue, unsigned int max)
{
	uint64_t now_ns = dmcore__now_ns(queue->core);
	/* One that starts itself again for a time that has passed has its next turn later. */
	uint64_t last_order = queue->timer_order;
	unsigned int ran = 0;

	queue->timers_ns = now_ns;
	while (ran < max && queue->timers && queue->timers->at_ns <= now_ns &&
	       queue->timers->order <= last_order) {
		struct dmcore_timer *timer = queue->timers;

		dmcore__heap_remove(&queue->timers, timer);
		ran++;
		timer->fn(timer);
	}
	return ran;
}

int dmcore__timer_fd_open(struct dmcore_queue *queue)
{
	queue->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return queue->timer_fd < 0 ? -errno : 0;
}

void dmcore__timer_fd_set(struct dmcore_queue *queue)
{
	uint64_t next_ns = dmcore__timer_next_ns(queue);
	uint64_t now_ns = dmcore__now_ns(queue->core);
	/* Zero would stop it. */
	uint64_t left_ns = next_ns > now_ns ? next_ns - now_ns : 1;
	struct itimerspec spec = { .it_interval = { 0, 0 }, .it_value = { 0, 0 } };

	if (!queue->timers && !queue->timer_armed)
		return;
	queue->timer_armed = queue->timers != NULL;
	if (queue->timers) {
		spec.it_value.tv_sec = (time_t)(left_ns / 1000000000);
		spec.it_value.tv_nsec = (long)(left_ns % 1000000000);
	}
	/* It also makes the descriptor unreadable. With these arguments it doesn't fail. */
	timerfd_settime(queue->timer_fd, 0, &spec, NULL);
}
