/* SPDX-License-Identifier: MIT */
/*
 * Who works on the log of a log-writes target, and when. `busy` goes from false to true by whoever
 * wants work to be done: map and end_io then post it to the service. It goes back when there is
 * nothing left to do, or stays with who suspends the device, until that is resumed. So nothing of
 * the target is in the service's hands when it is destroyed. Called by targets/log_writes.c.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <dmcore/queue.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/log_writes/wlog.h"

/* Longest wait for the log device before the service has its turn. */
#define POLL_MAX_NS 1000000

/* What the kernel marks the end of a log with. */
static const char end_text[] = "dm-log-writes-end";

void dmcore__wlog_wake(struct wlog *log)
{
	if (!atomic_exchange(&log->busy, true))
		dmcore_queue_post(log->service, &log->work);
}

void dmcore__wlog_push(struct wlog *log, struct wlog_event *event, bool wake)
{
	struct wlog_event *head = atomic_load(&log->events);

	do
		event->next = head;
	while (!atomic_compare_exchange_weak(&log->events, &head, event));
	if (wake)
		dmcore__wlog_wake(log);
}

/* ---- the service ---- */

/* Has requests that wait go on, in their order, as far as there is memory. */
static void serve_waiters(struct wlog *log)
{
	bool disabled = atomic_load(&log->disabled);

	while (log->waiters) {
		struct wlog_request *request =
			dmcore__container_of(log->waiters, struct wlog_request, event);
		const struct dmcore_bio *bio = request->bio;
		struct wlog_stand_in *stand_in;

		if (!dmcore__stack_permit(&log->stand_ins, 1))
			return;
		if (!disabled)
			request->entry = dmcore__wlog_take(
				&log->memory, bio->op == DMCORE_OP_WRITE ?
						      dmcore__sectors_to_bytes(bio->count) : 0);
		if (!disabled && !request->entry) {
			dmcore__stack_return(&log->stand_ins, 1);
			return;
		}
		log->waiters = request->event.next;
		if (!log->waiters)
			log->waiters_tail = &log->waiters;
		atomic_fetch_sub(&log->num_waiting, 1);
		stand_in = &log->stand_in_array[dmcore__stack_pop(&log->stand_ins)];
		stand_in->request = request;
		stand_in->work.fn = dmcore__wlog_send;
		dmcore_queue_post(bio->queue, &stand_in->work);
	}
}

/* Whether there is something to be written, with it prepared. */
static bool find_work(struct wlog *log, struct dmcore_queue *queue)
{
	dmcore__wlog_take_events(log);
	if (!atomic_load(&log->disabled)) {
		if (dmcore__wlog_prepare(log, queue))
			return true;
		if ((log->waiters || dmcore__wlog_memory_is_low(&log->memory)) &&
		    dmcore__wlog_ready_early(log) && dmcore__wlog_prepare(log, queue))
			return true;
	}
	if (atomic_load(&log->disabled))
		dmcore__wlog_drop(log);
	return false;
}

/* False: it was given up; the target may be gone. */
static bool keep_busy(struct wlog *log)
{
	bool more;

	pthread_mutex_lock(&log->idle_lock);
	atomic_store(&log->busy, false);
	more = atomic_load(&log->events) && !atomic_exchange(&log->busy, true);
	if (!more)
		pthread_cond_broadcast(&log->idle);
	pthread_mutex_unlock(&log->idle_lock);
	return more;
}

static void written(struct dmcore_bio *bio);

static void go_on(struct wlog *log)
{
	do {
		while (find_work(log, log->service)) {
			int ret;

			serve_waiters(log);
			log->nowait = false;
			log->bio.done = written;
			ret = dmcore_bio_submit(&log->bio);
			if (ret == 0)
				return;
			dmcore__wlog_finish(log, ret);
		}
		serve_waiters(log);
	} while (keep_busy(log));
}

static void written(struct dmcore_bio *bio)
{
	struct wlog *log = bio->context;

	dmcore__wlog_finish(log, bio->status);
	go_on(log);
}

static void work(struct dmcore_work *posted)
{
	go_on(dmcore__container_of(posted, struct wlog, work));
}

/* ---- suspended ---- */

/* Takes `busy`, if need be by waiting until the service has nothing left to do. */
static void take_over(struct wlog *log)
{
	while (atomic_exchange(&log->busy, true)) {
		/* Nobody else may be there to poll a service that is manual. */
		if (dmcore_service_poll(log->core, 1, 1, -1) != -EINVAL)
			continue;
		pthread_mutex_lock(&log->idle_lock);
		while (atomic_load(&log->busy))
			pthread_cond_wait(&log->idle, &log->idle_lock);
		pthread_mutex_unlock(&log->idle_lock);
	}
	/* Whoever has given it up may still be about to leave. */
	pthread_mutex_lock(&log->idle_lock);
	pthread_mutex_unlock(&log->idle_lock);
}

static void set_ended(struct dmcore_bio *bio)
{
	struct wlog *log = bio->context;

	log->ended = true;
}

/* What the log device stands on may need the service, which may be manual. */
static void poll_once(struct wlog *log, struct dmcore_queue *queue)
{
	if (dmcore_queue_poll(queue, 0, UINT_MAX, 0) <= 0 &&
	    dmcore_service_poll(log->core, 0, UINT_MAX, 0) <= 0)
		dmcore_queue_poll(queue, 1, UINT_MAX, POLL_MAX_NS);
}

/* Carries out what is prepared. False: no more can be written now. */
static bool write_now(struct wlog *log)
{
	struct dmcore_queue *queue = log->bio.queue;
	int ret;

	/* The log device may be suspended too: its resume mustn't be needed for this to end. */
	log->bio.flags = DMCORE_BIO_NOWAIT;
	log->nowait = true;
	log->ended = false;
	log->bio.done = set_ended;
	ret = dmcore_bio_submit(&log->bio);
	while (ret == 0 && !log->ended)
		poll_once(log, queue);
	return dmcore__wlog_finish(log, ret ? ret : log->bio.status) &&
	       !atomic_load(&log->disabled);
}

static bool write_list(struct wlog *log, struct dmcore_queue *queue, struct wlog_entry *first)
{
	while (first) {
		if (!dmcore__wlog_prepare_tail(log, queue, first) || !write_now(log))
			return false;
		for (unsigned int i = 0; i < log->num_batch; i++)
			first = first->next;
	}
	return true;
}

static bool write_super(struct wlog *log, struct dmcore_queue *queue)
{
	dmcore__wlog_prepare_super(log, queue);
	return write_now(log);
}

static void flush(struct wlog *log, struct dmcore_queue *queue)
{
	dmcore__wlog_prepare_super(log, queue);
	log->bio.op = DMCORE_OP_FLUSH;
	write_now(log);
}

/*
 * Ends the log as if the device were removed now. What that takes isn't counted, and stands where
 * the log goes on if the device is resumed.
 */
static void write_tail(struct wlog *log, struct dmcore_queue *queue)
{
	struct wlog_entry end = { .flags = DMCORE_LOGWRITES_MARK,
				  .text = end_text,
				  .text_bytes = sizeof(end_text) - 1,
				  .first_page = WLOG_NO_PAGE };
	uint64_t next_sector = log->next_sector;
	uint64_t num_entries = log->num_entries;

	if (write_list(log, queue, log->unflushed.head) && write_list(log, queue, &end) &&
	    write_super(log, queue))
		flush(log, queue);
	log->next_sector = next_sector;
	log->num_entries = num_entries;
	log->super_due = true;
}

/* A queue for the occasion: the service's is in other hands, or gone already. NULL: none. */
static struct dmcore_queue *make_queue(struct wlog *log)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue *queue;

	options.backend = DMCORE_BACKEND_PREAD;
	options.bios = 1;
	return dmcore_queue_create(log->core, &options, &queue) ? NULL : queue;
}

/* Writes all that there is, and an end behind it. */
static void settle(struct wlog *log, struct dmcore_queue *queue)
{
	bool goes_on = queue != NULL;

	while (goes_on && find_work(log, queue))
		goes_on = write_now(log);
	if (goes_on && !atomic_load(&log->disabled))
		write_tail(log, queue);
	if (atomic_load(&log->disabled))
		dmcore__wlog_drop(log);
}

/* The core's control lock comes before `control`, and queues are made and destroyed under it. */
void dmcore__wlog_suspend(struct wlog *log)
{
	struct dmcore_queue *queue;

	take_over(log);
	queue = make_queue(log);
	pthread_mutex_lock(&log->control);
	log->suspended = true;
	settle(log, queue);
	pthread_mutex_unlock(&log->control);
	dmcore_queue_destroy(queue);
}

void dmcore__wlog_resume(struct wlog *log)
{
	bool was_suspended;

	pthread_mutex_lock(&log->control);
	was_suspended = log->suspended;
	log->suspended = false;
	pthread_mutex_unlock(&log->control);
	if (!was_suspended)
		return;
	/* Of what follows nothing stands there yet. */
	log->super_due = true;
	log->work.fn = work;
	if (dmcore_service_post(log->core, &log->work)) {
		atomic_store(&log->disabled, true);
		atomic_store(&log->busy, false);
	}
}

/* With the core's control lock held. */
static void log_mark(struct wlog *log, struct wlog_entry *entry)
{
	struct dmcore_queue *queue = NULL;

	pthread_mutex_lock(&log->control);
	dmcore__wlog_push(log, &entry->ended, !log->suspended);
	if (log->suspended) {
		queue = make_queue(log);
		settle(log, queue);
	}
	pthread_mutex_unlock(&log->control);
	dmcore_queue_destroy(queue);
}

int dmcore__wlog_mark(struct wlog *log, const char *text)
{
	uint64_t max_bytes = dmcore__min_u64(log->block_bytes, WLOG_PAGE_BYTES) -
			     DMCORE_LOGWRITES_ENTRY_BYTES - 1;
	uint64_t bytes = dmcore__min_u64(strlen(text), max_bytes);
	struct wlog_entry *entry;
	char *copy;

	if (atomic_load(&log->disabled))
		return 0;
	entry = dmcore__wlog_take(&log->memory, bytes);
	if (!entry)
		return -EBUSY;
	copy = (char *)dmcore__wlog_page(&log->memory, entry->first_page);
	memcpy(copy, text, bytes);
	entry->text = copy;
	entry->text_bytes = (uint32_t)bytes;
	entry->flags = DMCORE_LOGWRITES_MARK;
	entry->ended.kind = WLOG_MARKED;
	log_mark(log, entry);
	return 0;
}
