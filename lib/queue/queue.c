/* SPDX-License-Identifier: MIT */
/*
 * Queues: made, polled, waited for, destroyed. The poll loop is the only place from which
 * callbacks run. Called by applications, by the service thread, and by plain I/O.
 */
#include "queue/queue.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/log.h"
#include "queue/drain.h"
#include "queue/inbox.h"
#include "queue/timer.h"

static inline bool wants_signal(struct dmcore_queue *queue)
{
	return atomic_load_explicit(&queue->wants_signal, memory_order_relaxed);
}

/* Nanoseconds until `deadline_ns`, 0 when it is over. */
static int64_t time_left_ns(const struct dmcore_queue *queue, uint64_t deadline_ns)
{
	uint64_t now = dmcore__now_ns(queue->core);

	return now >= deadline_ns ? 0 : (int64_t)(deadline_ns - now);
}

/* Lets time pass, by the core's hook if there is one and nothing that only the kernel tells of. */
static int pass_time(struct dmcore_queue *queue, unsigned int want, uint64_t until_ns)
{
	const struct dmcore_options *options = &queue->core->options;
	struct dmcore__backend *backend = queue->backend;

	if (dmcore__unlikely(options->sleep != NULL) && !backend->inflight)
		return options->sleep(queue->core, until_ns, options->sleep_context);
	if (until_ns == UINT64_MAX)
		return backend->ops->wait(backend, want, -1);
	return backend->ops->wait(backend, want, time_left_ns(queue, until_ns));
}

/*
 * Sleeps until something, of `want` if it can, may be there to run; 0, -EINTR, -ETIME, or what the
 * backend says.
 */
static int wait_for_more(struct dmcore_queue *queue, unsigned int want, uint64_t until_ns)
{
	struct dmcore__backend *backend = queue->backend;
	int ret = 0;

	dmcore__drain_tell(queue);
	/* Whoever posts after this store wakes us; whoever did before is seen by the check. */
	atomic_store(&queue->sleeping, true);
	if (!dmcore__inbox_full(queue))
		ret = pass_time(queue, want, until_ns);
	if (!wants_signal(queue))
		atomic_store_explicit(&queue->sleeping, false, memory_order_relaxed);
	/* What has woken us may be the wake-up itself, which has to be taken away. */
	backend->ops->reap(backend);
	return ret;
}

/* Work that posts itself again must not keep bios from ending, nor the reverse: they take turns. */
static unsigned int run_work_and_bios(struct dmcore_queue *queue, unsigned int max)
{
	unsigned int ended;

	dmcore__inbox_take(queue);
	queue->work_first = !queue->work_first;
	if (queue->work_first) {
		ended = dmcore__inbox_run(queue, max);
		return ended + queue->hooks->run_ready(queue, max - ended);
	}
	ended = queue->hooks->run_ready(queue, max);
	return ended + dmcore__inbox_run(queue, max - ended);
}

/* The timers first: they are few, and what they do is late already. */
static unsigned int run_with_timers(struct dmcore_queue *queue, unsigned int max)
{
	unsigned int ended = dmcore__timers_run(queue, max);

	return ended + run_work_and_bios(queue, max - ended);
}

/* One round: hand over, collect, run. Returns how many completions ran. */
static unsigned int run_round(struct dmcore_queue *queue, unsigned int max)
{
	struct dmcore__backend *backend = queue->backend;

	/* With a descriptor to be made unreadable again even if it was the wake-up's doing. */
	if (backend->inflight || dmcore__unlikely(wants_signal(queue))) {
		backend->ops->kick(backend);
		backend->ops->reap(backend);
	}
	if (dmcore__unlikely(queue->timers != NULL))
		return run_with_timers(queue, max);
	if (dmcore__unlikely(dmcore__inbox_full(queue)))
		return run_work_and_bios(queue, max);
	return queue->ready.head ? queue->hooks->run_ready(queue, max) : 0;
}

static bool idle(struct dmcore_queue *queue)
{
	return !queue->ready.head && !dmcore__inbox_full(queue);
}

/* Waits once. 0, or why the poll ends: -ETIME when its time is over. */
static int wait_in_poll(struct dmcore_queue *queue, unsigned int want, uint64_t deadline_ns)
{
	uint64_t timer_ns = dmcore__timer_next_ns(queue);
	uint64_t now_ns;
	int ret;

	if (deadline_ns == UINT64_MAX && timer_ns == UINT64_MAX)
		return wait_for_more(queue, want, UINT64_MAX);
	now_ns = dmcore__now_ns(queue->core);
	if (now_ns >= deadline_ns)
		return -ETIME;
	if (now_ns >= timer_ns)
		return 0;
	ret = wait_for_more(queue, want, timer_ns < deadline_ns ? timer_ns : deadline_ns);
	if (ret != -ETIME || timer_ns >= deadline_ns)
		return ret;
	/* A clock of the application's own may stand still: this time has passed for real. */
	return dmcore__now_ns(queue->core) < timer_ns && queue->core->own_clock ? -ETIME : 0;
}

static int poll_loop(struct dmcore_queue *queue, unsigned int min, unsigned int max,
		     int64_t timeout_ns)
{
	unsigned int ended = run_round(queue, max);
	uint64_t deadline_ns = UINT64_MAX;

	if (ended < min && timeout_ns > 0)
		deadline_ns = dmcore__now_ns(queue->core) + (uint64_t)timeout_ns;
	while (ended < min && timeout_ns) {
		if (idle(queue)) {
			int ret = wait_in_poll(queue, min - ended, deadline_ns);

			if (ret == -ETIME)
				break;
			if (ret) {
				if (ended == 0)
					return ret;
				break;
			}
		}
		ended += run_round(queue, max - ended);
	}
	/* What the callbacks have submitted shouldn't wait for the next poll. */
	if (queue->backend->inflight)
		queue->backend->ops->kick(queue->backend);
	dmcore__drain_tell(queue);
	return ended > INT_MAX ? INT_MAX : (int)ended;
}

int dmcore_queue_poll(struct dmcore_queue *queue, unsigned int min, unsigned int max,
		      int64_t timeout_ns)
{
	int ret;

	if (!queue || max == 0 || max < min)
		return -EINVAL;
	if (dmcore__unlikely(dmcore__queue_polling(queue)))
		return -EDEADLK;
	ret = dmcore__queue_set_owner(queue);
	if (dmcore__unlikely(ret))
		return ret;
	dmcore__queue_set_polling(queue, true);
	if (dmcore__unlikely(wants_signal(queue))) {
		/* A poster that came before the descriptor was asked for may have reset it. */
		atomic_store(&queue->sleeping, true);
		dmcore__wake_fd_drain(queue->wake_fd);
	}
	ret = poll_loop(queue, min, max, timeout_ns);
	if (dmcore__unlikely(wants_signal(queue)))
		dmcore__timer_fd_set(queue);
	dmcore__queue_set_polling(queue, false);
	return ret;
}

int dmcore_queue_kick(struct dmcore_queue *queue)
{
	int ret;

	if (!queue)
		return -EINVAL;
	ret = dmcore__queue_set_owner(queue);
	if (ret)
		return ret;
	if (queue->backend->inflight)
		queue->backend->ops->kick(queue->backend);
	if (wants_signal(queue)) {
		dmcore__timer_fd_set(queue);
		if (!idle(queue))
			dmcore__inbox_signal(queue);
	}
	return 0;
}

static int add_to_epoll(int epoll_fd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int add_timers(struct dmcore_queue *queue, int epoll_fd)
{
	int ret = queue->timer_fd < 0 ? dmcore__timer_fd_open(queue) : 0;

	return ret ? ret : add_to_epoll(epoll_fd, queue->timer_fd);
}

int dmcore_queue_fd(struct dmcore_queue *queue)
{
	int backend_fd = -1;
	int epoll_fd;
	int ret;

	if (!queue)
		return -EINVAL;
	ret = dmcore__queue_set_owner(queue);
	if (ret)
		return ret;
	if (queue->epoll_fd >= 0)
		return queue->epoll_fd;
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		return -errno;
	ret = queue->backend->ops->poll_fd(queue->backend, &backend_fd);
	if (ret == 0)
		ret = add_to_epoll(epoll_fd, queue->wake_fd);
	if (ret == 0 && backend_fd >= 0)
		ret = add_to_epoll(epoll_fd, backend_fd);
	if (ret == 0)
		ret = add_timers(queue, epoll_fd);
	if (ret) {
		close(epoll_fd);
		return ret;
	}
	queue->epoll_fd = epoll_fd;
	dmcore__timer_fd_set(queue);
	atomic_store(&queue->wants_signal, true);
	/* From now on the owner counts as asleep between polls. */
	atomic_store(&queue->sleeping, true);
	if (!idle(queue) || queue->backend->inflight)
		dmcore__inbox_signal(queue);
	return epoll_fd;
}

int dmcore_queue_claim(struct dmcore_queue *queue)
{
	if (!queue)
		return -EINVAL;
	if (!dmcore__alive(queue->core))
		return -EOWNERDEAD;
	if (atomic_load(&queue->owned) && !queue->migrates && !dmcore__queue_is_own(queue))
		return dmcore__error(-EPERM, "the queue has an owner and wasn't made with "
					     "DMCORE_QUEUE_MIGRATES");
	dmcore__queue_own(queue);
	return 0;
}

int dmcore_queue_register_buffers(struct dmcore_queue *queue, const struct dmio_bvec *buffers,
				  unsigned int count)
{
	int ret;

	if (!queue || count > DMCORE_QUEUE_BUFFERS_MAX || (count && !buffers))
		return dmcore__error(-EINVAL, "register_buffers: 0 to %d buffers",
				     DMCORE_QUEUE_BUFFERS_MAX);
	for (unsigned int i = 0; i < count; i++) {
		if (!buffers[i].base || buffers[i].len_bytes == 0 ||
		    buffers[i].len_bytes > DMCORE_QUEUE_BUFFER_BYTES_MAX)
			return dmcore__error(-EINVAL, "register_buffers: buffer %u is empty or "
						      "longer than 1 GiB", i);
	}
	ret = dmcore__queue_set_owner(queue);
	if (ret)
		return dmcore__error(ret, "register_buffers: not by the owner of the queue");
	if (queue->inflight)
		return dmcore__error(-EBUSY, "register_buffers: %u bios are in flight",
				     queue->inflight);
	return queue->backend->ops->register_buffers(queue->backend, buffers, count);
}

int dmcore_queue_info(struct dmcore_queue *queue, struct dmcore_queue_info *info)
{
	struct dmcore_queue_info now;
	size_t size;

	if (!queue || !info || info->struct_size < sizeof(info->struct_size))
		return -EINVAL;
	if (!dmcore__alive(queue->core))
		return -EOWNERDEAD;
	size = info->struct_size;
	memset(&now, 0, sizeof(now));
	now.struct_size = size;
	now.backend = queue->backend->ops->kind;
	now.workers = now.backend == DMCORE_BACKEND_PREAD ? queue->backend->config.workers : 0;
	now.depth = queue->backend->config.depth;
	now.inflight = queue->inflight;
	memcpy(now.reason, queue->reason, sizeof(now.reason));
	memcpy(info, &now, size < sizeof(now) ? size : sizeof(now));
	return 0;
}

struct dmcore *dmcore_queue_core(struct dmcore_queue *queue)
{
	return queue->core;
}

unsigned int dmcore_queue_index(const struct dmcore_queue *queue)
{
	return queue->index;
}

int dmcore_fileio_start(struct dmcore_queue *queue, struct dmcore_fileio *io)
{
	struct dmcore *core = queue->core;

	dmcore__queue_set_owner(queue);
	if (dmcore__unlikely(core->fault_fileio != NULL) &&
	    core->fault_fileio(core->fault_context, io, &io->result))
		return 1;
	/* Before this I/O's file is registered, which may have the slot of one that is gone. */
	if (dmcore__unlikely(atomic_load_explicit(&queue->asked, memory_order_relaxed) &
			     DMCORE__ASKED_FORGET))
		dmcore__inbox_forget_stale(queue);
	return queue->backend->ops->start(queue->backend, io);
}

void *dmcore_bounce_get(struct dmcore_queue *queue, struct dmcore_bounce_waiter *waiter)
{
	void *buffer = queue->bounce_free;

	if (buffer) {
		queue->bounce_free = *(void **)buffer;
		return buffer;
	}
	waiter->next = NULL;
	if (queue->bounce_head)
		queue->bounce_tail->next = waiter;
	else
		queue->bounce_head = waiter;
	queue->bounce_tail = waiter;
	return NULL;
}

void dmcore_bounce_put(struct dmcore_queue *queue, void *buffer)
{
	struct dmcore_bounce_waiter *waiter = queue->bounce_head;

	if (waiter) {
		queue->bounce_head = waiter->next;
		waiter->granted(waiter, buffer);
		return;
	}
	*(void **)buffer = queue->bounce_free;
	queue->bounce_free = buffer;
}
