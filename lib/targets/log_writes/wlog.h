/* SPDX-License-Identifier: MIT */
/*
 * The log of a log-writes target, as the files here and targets/log_writes.c share it.
 *
 * map and end_io, on any thread, put events into one stack without locks: a flush is submitted, a
 * request has completed, a write waits for memory, a message marks. Where an event stands in that
 * stack is its place in time. All that follows from events is done by one at a time, whoever holds
 * `busy`: the service as a rule, and who suspends the device while it is suspended. It keeps these
 * lists, oldest entry first:
 *
 *   unflushed   writes and discards that have completed; no flush has been submitted since
 *   flushes     flushes under way, each with the list that it took when it was submitted
 *   ready       what goes to the log, in this order
 *
 * memory.c: copies of data; lists.c: from events to `ready`; write.c: from there to the log device;
 * run.c: who does it when.
 */
#ifndef DMCORE_TARGETS_LOG_WRITES_WLOG_H
#define DMCORE_TARGETS_LOG_WRITES_WLOG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bdev.h>
#include <dmcore/bio.h>
#include <dmcore/context.h>
#include <dmcore/logwrites.h>

#include "targets/log_writes/stack.h"

/* Copies are kept in pages. */
#define WLOG_PAGE_BYTES 4096u
/* As much as four times the target's length, within these bounds. The upper one is told by
 * docs/targets/log-writes.md. */
#define WLOG_MEMORY_BYTES_MIN (UINT64_C(1) << 20)
#define WLOG_MEMORY_BYTES_MAX (UINT64_C(32) << 20)
/* READ and WRITE are split at its multiples: a piece has a copy of its own, whole. 1 MiB. */
#define WLOG_IO_SECTORS_MAX 2048u
/* Below this part of the memory, completed writes are logged before a flush asks for it. */
#define WLOG_LOW_PART 8
/* Requests that have waited for memory and are under way. */
#define WLOG_STAND_INS 16
/* Of one write to the log. */
#define WLOG_BATCH_ENTRIES 64
#define WLOG_BATCH_VECS 512

#define WLOG_NO_PAGE UINT32_MAX

enum wlog_event_kind {
	WLOG_WRITTEN,      /* a write or discard has completed */
	WLOG_WRITTEN_FUA,  /* a write has, and is durable */
	WLOG_FLUSH_BEGUN,
	WLOG_FLUSH_ENDED,
	WLOG_FLUSH_FAILED,
	WLOG_MARKED,
	WLOG_WAITS,        /* a request has found no memory */
};

struct wlog_event {
	struct wlog_event *next;
	enum wlog_event_kind kind;
};

struct wlog_entry {
	struct wlog_event begun;      /* of a flush; the other kinds have only: */
	struct wlog_event ended;
	struct wlog_entry *next;      /* in one of the lists */
	struct wlog_entry *covered;   /* of a flush: the list that it took */
	struct wlog_entry **covered_tail;
	const char *text;             /* of a mark */
	uint64_t sector;              /* 512 bytes each, from the start of the target */
	uint64_t count;
	uint64_t flags;               /* DMCORE_LOGWRITES_* */
	uint32_t first_page;          /* or WLOG_NO_PAGE; the others by wlog_memory::next_page */
	uint32_t text_bytes;
};

struct wlog_list {
	struct wlog_entry *head;
	struct wlog_entry **tail;
};

struct wlog_memory {
	struct stack pages;
	struct stack entries;
	unsigned char *page_bytes;
	uint32_t *next_page;          /* of the same entry, or WLOG_NO_PAGE */
	struct wlog_entry *entry_array;
	void *whole;                  /* what all of it was taken from */
};

/* What a target keeps with each request. */
struct wlog_request {
	struct wlog_event event;      /* WLOG_WAITS */
	struct wlog_entry *entry;     /* NULL: it isn't logged */
	struct dmcore_bio *bio;
	struct wlog *log;
};

/* Sends a request on that has waited, for its own bio was kept. */
struct wlog_stand_in {
	struct dmcore_bio bio;
	struct dmcore_work work;
	struct wlog_request *request;
	struct wlog *log;
};

struct wlog {
	struct dmcore *core;
	struct dmcore_bdev *bdev;       /* the log device */
	struct dmcore_bdev *data_bdev;
	struct dmcore_queue *service;
	bool data_discards;             /* data_bdev has DISCARD */
	uint32_t block_bytes;
	uint64_t end_sector;            /* of the log device */
	struct wlog_memory memory;
	struct stack stand_ins;
	struct wlog_stand_in *stand_in_array;

	_Atomic(struct wlog_event *) events; /* youngest first */
	atomic_bool disabled;           /* the log device has failed, or is full */
	_Atomic uint32_t num_waiting;
	_Atomic uint64_t shown_entries; /* for status */
	_Atomic uint64_t shown_next_sector;

	/* Of whoever holds it; set by exchange. */
	atomic_bool busy;
	struct dmcore_work work;
	pthread_mutex_t idle_lock;      /* `busy` is given up under it, and with it: */
	pthread_cond_t idle;
	pthread_mutex_t control;        /* suspends, resumes and messages, one at a time */
	bool suspended;                 /* under `control`: who has suspended it holds `busy` */

	/* Under `busy`. */
	struct wlog_list unflushed;
	struct wlog_list flushes;
	struct wlog_list ready;
	struct wlog_event *waiters;     /* oldest first */
	struct wlog_event **waiters_tail;
	uint64_t next_sector;           /* where the next entry goes */
	uint64_t num_entries;           /* in front of it */
	bool super_due;                 /* the super block is to be written before all else */

	/* The write under way, under `busy` too. */
	struct dmcore_bio bio;
	bool is_super;
	bool is_tail;                   /* what it writes stays in its list */
	bool nowait;                    /* it ends with -EAGAIN where it would wait */
	bool ended;                     /* of one that is waited for */
	unsigned int num_batch;
	struct wlog_entry *batch;       /* its first entry */
	uint64_t next_before;           /* next_sector and num_entries without it */
	uint64_t num_before;
	struct dmio_bvec *vecs;
	unsigned char *headers;         /* WLOG_BATCH_ENTRIES blocks; or the super block */
};

static inline void dmcore__wlog_list_init(struct wlog_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static inline void dmcore__wlog_list_append(struct wlog_list *list, struct wlog_entry *entry)
{
	entry->next = NULL;
	*list->tail = entry;
	list->tail = &entry->next;
}

static inline struct wlog_entry *dmcore__wlog_list_pop(struct wlog_list *list)
{
	struct wlog_entry *entry = list->head;

	if (entry)
		list->head = entry->next;
	if (!list->head)
		list->tail = &list->head;
	return entry;
}

/* ---- memory.c ---- */

/* Memory for a target of so many sectors; false: there is none. */
bool dmcore__wlog_memory_create(struct wlog_memory *memory, struct dmcore *core,
				uint64_t sectors);
void dmcore__wlog_memory_destroy(struct wlog_memory *memory, struct dmcore *core);
/* An entry with room for so many bytes, NULL if there isn't so much. Any thread. */
struct wlog_entry *dmcore__wlog_take(struct wlog_memory *memory, uint64_t bytes);
void dmcore__wlog_give(struct wlog_memory *memory, struct wlog_entry *entry);
/* Copies the memory of a write. */
void dmcore__wlog_copy(struct wlog_memory *memory, struct wlog_entry *entry,
		       const struct dmcore_bio *bio);
static inline unsigned char *dmcore__wlog_page(const struct wlog_memory *memory, uint32_t page)
{
	return memory->page_bytes + (uint64_t)page * WLOG_PAGE_BYTES;
}
/* Whether completed writes are to be logged early. */
bool dmcore__wlog_memory_is_low(const struct wlog_memory *memory);

/* ---- lists.c: `busy` is held ---- */

/* Puts into the lists what has happened. */
void dmcore__wlog_take_events(struct wlog *log);
/* Readies completed writes for want of memory; false: there are none that may be logged yet. */
bool dmcore__wlog_ready_early(struct wlog *log);
/* Gives back the memory of all that would have been logged: the log is disabled. */
void dmcore__wlog_drop(struct wlog *log);

/* ---- write.c: `busy` is held ---- */

/* Prepares the next write to the log device in log->bio, on that queue; false: there is none. */
bool dmcore__wlog_prepare(struct wlog *log, struct dmcore_queue *queue);
/* Prepares that of entries which stay where they are, from `first` on. */
bool dmcore__wlog_prepare_tail(struct wlog *log, struct dmcore_queue *queue,
			       struct wlog_entry *first);
void dmcore__wlog_prepare_super(struct wlog *log, struct dmcore_queue *queue);
/* It has ended. False: with nothing done; it is to be tried again later. */
bool dmcore__wlog_finish(struct wlog *log, int status);

/* ---- run.c ---- */

/* Any thread. `wake`: the service is to look at it now. */
void dmcore__wlog_push(struct wlog *log, struct wlog_event *event, bool wake);
void dmcore__wlog_wake(struct wlog *log);
/* Finishes the log, and keeps others off it. No request is under way. */
void dmcore__wlog_suspend(struct wlog *log);
/* Of one that is suspended, or new. */
void dmcore__wlog_resume(struct wlog *log);
/* Logs a mark. -EBUSY: there is no memory for it. */
int dmcore__wlog_mark(struct wlog *log, const char *text);

/* ---- targets/log_writes.c ---- */

/* Sends a request on that has waited, on its own queue. */
void dmcore__wlog_send(struct dmcore_work *work);

#endif
