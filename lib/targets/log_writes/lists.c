/* SPDX-License-Identifier: MIT */
/*
 * From what happens on a log-writes target to the order of its log. The heart of it, and without
 * any I/O; called by run.c, by one at a time.
 *
 * The order is the kernel's. A plain write is ready when a flush has completed that was submitted
 * after the write's completion, in front of that flush; a write with FUA, and a mark, at once.
 */
#include "targets/log_writes/wlog.h"

/* Entries that are readied at a time for want of memory. */
#define EARLY_ENTRIES WLOG_BATCH_ENTRIES

static void move_all(struct wlog_list *to, struct wlog_entry *head, struct wlog_entry **tail)
{
	if (!head)
		return;
	*to->tail = head;
	to->tail = tail;
}

/* The flush takes along what has completed by now. */
static void begin_flush(struct wlog *log, struct wlog_entry *flush)
{
	flush->covered = log->unflushed.head;
	flush->covered_tail = flush->covered ? log->unflushed.tail : &flush->covered;
	dmcore__wlog_list_init(&log->unflushed);
	dmcore__wlog_list_append(&log->flushes, flush);
}

static void remove_flush(struct wlog *log, struct wlog_entry *flush)
{
	struct wlog_entry **link = &log->flushes.head;

	while (*link != flush)
		link = &(*link)->next;
	*link = flush->next;
	if (!flush->next)
		log->flushes.tail = link;
}

static void end_flush(struct wlog *log, struct wlog_entry *flush)
{
	remove_flush(log, flush);
	move_all(&log->ready, flush->covered, flush->covered_tail);
	dmcore__wlog_list_append(&log->ready, flush);
}

/* It has promised nothing: what it took is as it was before. */
static void fail_flush(struct wlog *log, struct wlog_entry *flush)
{
	remove_flush(log, flush);
	if (flush->covered) {
		*flush->covered_tail = log->unflushed.head;
		if (!log->unflushed.head)
			log->unflushed.tail = flush->covered_tail;
		log->unflushed.head = flush->covered;
	}
	dmcore__wlog_give(&log->memory, flush);
}

static struct wlog_entry *entry_of(struct wlog_event *event)
{
	size_t offset = event->kind == WLOG_FLUSH_BEGUN ? offsetof(struct wlog_entry, begun) :
							  offsetof(struct wlog_entry, ended);

	return (struct wlog_entry *)(void *)((char *)event - offset);
}

static void take_event(struct wlog *log, struct wlog_event *event)
{
	switch (event->kind) {
	case WLOG_WRITTEN:
		dmcore__wlog_list_append(&log->unflushed, entry_of(event));
		break;
	case WLOG_WRITTEN_FUA:
	case WLOG_MARKED:
		dmcore__wlog_list_append(&log->ready, entry_of(event));
		break;
	case WLOG_FLUSH_BEGUN:
		begin_flush(log, entry_of(event));
		break;
	case WLOG_FLUSH_ENDED:
		end_flush(log, entry_of(event));
		break;
	case WLOG_FLUSH_FAILED:
		fail_flush(log, entry_of(event));
		break;
	case WLOG_WAITS:
		event->next = NULL;
		*log->waiters_tail = event;
		log->waiters_tail = &event->next;
		break;
	}
}

void dmcore__wlog_take_events(struct wlog *log)
{
	struct wlog_event *youngest = atomic_exchange(&log->events, NULL);
	struct wlog_event *oldest = NULL;

	while (youngest) {
		struct wlog_event *next = youngest->next;

		youngest->next = oldest;
		oldest = youngest;
		youngest = next;
	}
	while (oldest) {
		struct wlog_event *next = oldest->next;

		take_event(log, oldest);
		oldest = next;
	}
}

/* The oldest flush under way that took something along. */
static struct wlog_entry *covering_flush(const struct wlog *log)
{
	struct wlog_entry *flush = log->flushes.head;

	while (flush && !flush->covered)
		flush = flush->next;
	return flush;
}

/*
 * What a flush under way took may stand anywhere before that flush. What completed after it was
 * submitted must not: it would seem to be covered, and a program that relies on that be right. So
 * it stays until no flush is under way.
 */
bool dmcore__wlog_ready_early(struct wlog *log)
{
	struct wlog_entry *flush = covering_flush(log);
	unsigned int num = 0;

	if (!flush && log->flushes.head)
		return false;
	while (num < EARLY_ENTRIES) {
		struct wlog_list covered = { NULL, NULL };
		struct wlog_entry *entry;

		if (flush) {
			covered = (struct wlog_list){ flush->covered, flush->covered_tail };
			entry = dmcore__wlog_list_pop(&covered);
			flush->covered = covered.head;
		} else {
			entry = dmcore__wlog_list_pop(&log->unflushed);
		}
		if (!entry)
			break;
		dmcore__wlog_list_append(&log->ready, entry);
		num++;
	}
	return num > 0;
}

static void drop_list(struct wlog *log, struct wlog_list *list)
{
	struct wlog_entry *entry;

	while ((entry = dmcore__wlog_list_pop(list)))
		dmcore__wlog_give(&log->memory, entry);
}

void dmcore__wlog_drop(struct wlog *log)
{
	drop_list(log, &log->ready);
	drop_list(log, &log->unflushed);
	for (struct wlog_entry *flush = log->flushes.head; flush; flush = flush->next) {
		struct wlog_list covered = { flush->covered, flush->covered_tail };

		drop_list(log, &covered);
		flush->covered = NULL;
	}
}
