/* SPDX-License-Identifier: MIT */
/*
 * The thread of a device: it takes what has been submitted, keeps as many requests in flight as the
 * options say, ends them, and connects again when the connection is lost. Called by driver.c.
 *
 * A loss has a history: requests wait until the deadline, from then on they fail with -ETIMEDOUT at
 * once, and all goes on as soon as there is a connection again, whenever that is.
 *
 * What a server has answered and not flushed may be lost with it, and nobody knows whose it was. So
 * after such a loss each flush fails with -EIO until the device is closed, as with a file.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nbd.h"

#define FIRST_PAUSE_NS UINT64_C(100000000)
#define LAST_PAUSE_NS UINT64_C(2000000000)

/* ---- what waits ---- */

/* All that has been submitted, in order. */
static void take_submitted(struct nbd_leaf *leaf)
{
	struct dmcore_bio *bio = atomic_exchange(&leaf->submitted, NULL);
	struct dmcore_bio *ordered = NULL;

	while (bio) {
		struct dmcore_bio *next = bio->next;

		bio->next = ordered;
		ordered = bio;
		bio = next;
	}
	if (!ordered)
		return;
	*leaf->waiting_end = ordered;
	for (bio = ordered; bio; bio = bio->next)
		leaf->waiting_end = &bio->next;
}

static struct dmcore_bio *pop_waiting(struct nbd_leaf *leaf)
{
	struct dmcore_bio *bio = leaf->waiting;

	leaf->waiting = bio->next;
	if (!leaf->waiting)
		leaf->waiting_end = &leaf->waiting;
	bio->next = NULL;
	return bio;
}

static void push_back(struct nbd_leaf *leaf, struct dmcore_bio *bio)
{
	bio->next = leaf->waiting;
	if (!leaf->waiting)
		leaf->waiting_end = &bio->next;
	leaf->waiting = bio;
}

static void fail_waiting(struct nbd_leaf *leaf, int status)
{
	while (leaf->waiting)
		dmcore_bio_complete_remote(pop_waiting(leaf), status);
}

/* ---- data ---- */

static size_t bytes_of(const struct dmcore_bio *bio)
{
	return (size_t)bio->count * DMCORE_SECTOR_BYTES;
}

/* Between the pieces of a bio's memory and that of a slot. */
static void copy_pieces(const struct dmcore_bio *bio, char *memory, bool to_bio)
{
	size_t left = bytes_of(bio);
	size_t skip = bio->vec_offset_bytes;

	for (uint32_t i = 0; i < bio->num_vecs && left > 0; i++) {
		char *piece = (char *)bio->vecs[i].base + skip;
		size_t bytes = bio->vecs[i].len_bytes - skip;

		if (bytes > left)
			bytes = left;
		if (to_bio)
			memcpy(piece, memory, bytes);
		else
			memcpy(memory, piece, bytes);
		memory += bytes;
		left -= bytes;
		skip = 0;
	}
}

/* The memory of a read or write in one piece: the bio's own if it is one. */
static char *memory_of(struct nbd_slot *slot)
{
	const struct dmcore_bio *bio = slot->bio;

	slot->uses_memory = bio->vecs->len_bytes - bio->vec_offset_bytes < bytes_of(bio);
	if (!slot->uses_memory)
		return (char *)bio->vecs->base + bio->vec_offset_bytes;
	if (bio->op == DMCORE_OP_WRITE)
		copy_pieces(bio, slot->memory, false);
	return slot->memory;
}

/* ---- requests ---- */

/* Called by libnbd while it is served; the handle may not be used here. */
static int note_end(void *user_data, int *error)
{
	struct nbd_slot *slot = user_data;

	slot->error = *error;
	slot->next = slot->leaf->ended;
	slot->leaf->ended = slot;
	return 1; /* libnbd forgets the request */
}

static int64_t issue(struct nbd_leaf *leaf, struct nbd_slot *slot)
{
	const struct dmcore_bio *bio = slot->bio;
	nbd_completion_callback callback = { .callback = note_end, .user_data = slot };
	uint32_t flags = bio->flags & DMCORE_BIO_FUA ? LIBNBD_CMD_FLAG_FUA : 0;
	uint64_t offset = bio->sector * DMCORE_SECTOR_BYTES;
	size_t bytes = bytes_of(bio);

	switch ((enum dmcore_op)bio->op) {
	case DMCORE_OP_READ:
		return nbd_aio_pread(leaf->handle, memory_of(slot), bytes, offset, callback, 0);
	case DMCORE_OP_WRITE:
		return nbd_aio_pwrite(leaf->handle, memory_of(slot), bytes, offset, callback,
				      flags);
	case DMCORE_OP_FLUSH:
		slot->covers = leaf->num_answered;
		return nbd_aio_flush(leaf->handle, callback, 0);
	case DMCORE_OP_DISCARD:
		return nbd_aio_trim(leaf->handle, bytes, offset, callback, 0);
	case DMCORE_OP_WRITE_ZEROES:
		return nbd_aio_zero(leaf->handle, bytes, offset, callback, flags);
	case DMCORE_OP_COUNT:
		break;
	}
	return -1;
}

static void free_slot(struct nbd_leaf *leaf, struct nbd_slot *slot)
{
	slot->bio = NULL;
	slot->next = leaf->free_slots;
	leaf->free_slots = slot;
}

static bool has_ended_with_handle(const struct nbd_leaf *leaf)
{
	return nbd_aio_is_dead(leaf->handle) || nbd_aio_is_closed(leaf->handle);
}

static void start_waiting(struct nbd_leaf *leaf)
{
	while (leaf->waiting && leaf->free_slots && !leaf->must_drop) {
		struct nbd_slot *slot = leaf->free_slots;
		struct dmcore_bio *bio = pop_waiting(leaf);
		int error;

		if (bio->op == DMCORE_OP_FLUSH && leaf->has_lost_writes) {
			dmcore_bio_complete_remote(bio, -EIO);
			continue;
		}
		leaf->free_slots = slot->next;
		slot->bio = bio;
		slot->error = 0;
		if (issue(leaf, slot) >= 0)
			continue;
		error = nbd_get_errno();
		free_slot(leaf, slot);
		if (has_ended_with_handle(leaf)) {
			push_back(leaf, bio);
			return;
		}
		dmcore_bio_complete_remote(bio, error ? -error : -EIO);
	}
}

/* Errors of a connection, not of a request. */
static bool is_loss(int error)
{
	return error == ENOTCONN || error == ESHUTDOWN;
}

/* Whether it may be lost although it has been answered. */
static bool is_unsafe(const struct dmcore_bio *bio)
{
	return bio->op != DMCORE_OP_READ && bio->op != DMCORE_OP_FLUSH &&
	       !(bio->flags & DMCORE_BIO_FUA);
}

static void end_one(struct nbd_leaf *leaf, struct nbd_slot *slot)
{
	struct dmcore_bio *bio = slot->bio;
	int status = -slot->error;

	if (is_loss(slot->error)) {
		leaf->must_drop = true;
		free_slot(leaf, slot);
		push_back(leaf, bio);
		return;
	}
	if (bio->op == DMCORE_OP_FLUSH && status == 0 && slot->covers > leaf->num_flushed)
		leaf->num_flushed = slot->covers;
	else if (bio->op == DMCORE_OP_READ && status == 0 && slot->uses_memory)
		copy_pieces(bio, slot->memory, true);
	else if (is_unsafe(bio))
		leaf->num_answered++;
	free_slot(leaf, slot);
	dmcore_bio_complete_remote(bio, status);
}

static void end_all(struct nbd_leaf *leaf)
{
	while (leaf->ended) {
		struct nbd_slot *slot = leaf->ended;

		leaf->ended = slot->next;
		end_one(leaf, slot);
	}
}

/* ---- the connection ---- */

static void close_handle(struct nbd_leaf *leaf)
{
	/* Closing ends what is in flight, by note_end(). */
	nbd_close(leaf->handle);
	leaf->handle = NULL;
	leaf->is_ready = false;
	end_all(leaf);
	leaf->must_drop = false;
}

/*
 * Everything in flight waits again, and the old connection is closed before anything is sent once
 * more, so that our side of it writes nothing any more.
 */
static void lose(struct nbd_leaf *leaf)
{
	leaf->lost_ns = dmcore_clock_ns(leaf->core);
	if (leaf->facts.can_flush && leaf->num_answered > leaf->num_flushed)
		leaf->has_lost_writes = true;
	for (unsigned int i = 0; i < leaf->options.in_flight; i++) {
		if (leaf->slots[i].bio)
			leaf->slots[i].error = ENOTCONN;
	}
	close_handle(leaf);
	/* What libnbd has not told us of. */
	for (unsigned int i = 0; i < leaf->options.in_flight; i++) {
		struct nbd_slot *slot = &leaf->slots[i];

		if (slot->bio)
			end_one(leaf, slot);
	}
	leaf->must_drop = false;
	leaf->pause_ns = FIRST_PAUSE_NS;
	leaf->attempt_ns = leaf->lost_ns;
}

static void attempt_failed(struct nbd_leaf *leaf)
{
	if (leaf->handle)
		close_handle(leaf);
	leaf->attempt_ns = dmcore_clock_ns(leaf->core) + leaf->pause_ns;
	leaf->pause_ns *= 2;
	if (leaf->pause_ns > LAST_PAUSE_NS)
		leaf->pause_ns = LAST_PAUSE_NS;
}

/* Is there a connection again, or none to be had this time? */
static void check_attempt(struct nbd_leaf *leaf)
{
	struct nbd_facts facts;

	if (nbd_aio_is_ready(leaf->handle)) {
		if (nbd_connection_facts(leaf->handle, &facts) == 0 &&
		    nbd_facts_suit(&facts, &leaf->facts)) {
			leaf->is_ready = true;
			leaf->is_late = false;
		} else {
			attempt_failed(leaf);
		}
	} else if (has_ended_with_handle(leaf) ||
		   dmcore_clock_ns(leaf->core) > leaf->attempt_ns + NBD_CONNECT_NS) {
		attempt_failed(leaf);
	}
}

static void connect_again(struct nbd_leaf *leaf)
{
	uint64_t now_ns = dmcore_clock_ns(leaf->core);
	int error;

	if (!leaf->is_late && now_ns >= leaf->lost_ns + leaf->options.deadline_ns)
		leaf->is_late = true;
	if (leaf->is_late)
		fail_waiting(leaf, -ETIMEDOUT);
	if (!leaf->handle && now_ns >= leaf->attempt_ns) {
		leaf->attempt_ns = now_ns;
		leaf->handle = nbd_connection_begin(leaf->options.uri, &error);
		if (!leaf->handle)
			attempt_failed(leaf);
	}
	if (leaf->handle)
		check_attempt(leaf);
}

/* Until when the thread may sleep if nothing happens; -1: for ever. */
static int64_t idle_ns(const struct nbd_leaf *leaf)
{
	uint64_t now_ns;
	uint64_t until_ns;

	/* What was sent last may have ended with the connection, which tells of nothing more. */
	if (leaf->is_ready)
		return leaf->must_drop || has_ended_with_handle(leaf) ? 0 : -1;
	now_ns = dmcore_clock_ns(leaf->core);
	until_ns = leaf->handle ? leaf->attempt_ns + NBD_CONNECT_NS : leaf->attempt_ns;
	if (!leaf->is_late && until_ns > leaf->lost_ns + leaf->options.deadline_ns)
		until_ns = leaf->lost_ns + leaf->options.deadline_ns;
	return until_ns > now_ns ? (int64_t)(until_ns - now_ns) : 0;
}

/* ---- the thread ---- */

static void step(struct nbd_leaf *leaf)
{
	uint64_t count;

	nbd_connection_serve(leaf->handle, leaf->wake_fd, idle_ns(leaf));
	/* It fails when nobody has woken us: no harm. */
	if (read(leaf->wake_fd, &count, sizeof(count)) < 0)
		count = 0;
	end_all(leaf);
	take_submitted(leaf);
	if (leaf->is_ready && (leaf->must_drop || has_ended_with_handle(leaf)))
		lose(leaf);
	if (!leaf->is_ready)
		connect_again(leaf);
	if (leaf->is_ready)
		start_waiting(leaf);
	end_all(leaf);
}

static void say_goodbye(struct nbd_leaf *leaf)
{
	uint64_t until_ns = dmcore_clock_ns(leaf->core) + NBD_GOODBYE_NS;

	if (leaf->is_ready && nbd_aio_disconnect(leaf->handle, 0) == 0) {
		while (!has_ended_with_handle(leaf) && dmcore_clock_ns(leaf->core) < until_ns)
			nbd_connection_serve(leaf->handle, -1, (int64_t)NBD_GOODBYE_NS / 10);
	}
	if (leaf->handle)
		nbd_close(leaf->handle);
	leaf->handle = NULL;
}

static void *run(void *context)
{
	struct nbd_leaf *leaf = context;

	while (!atomic_load(&leaf->stopping))
		step(leaf);
	say_goodbye(leaf);
	return NULL;
}

static void wake(struct nbd_leaf *leaf)
{
	uint64_t one = 1;

	/* It can't be full. */
	if (write(leaf->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void nbd_thread_submit(struct nbd_leaf *leaf, struct dmcore_bio *bio)
{
	struct dmcore_bio *youngest = atomic_load(&leaf->submitted);

	do {
		bio->next = youngest;
	} while (!atomic_compare_exchange_weak(&leaf->submitted, &youngest, bio));
	/* Who comes to others finds the thread woken. */
	if (!youngest)
		wake(leaf);
}

int nbd_thread_start(struct nbd_leaf *leaf)
{
	sigset_t all;
	sigset_t before;
	int ret;

	leaf->waiting_end = &leaf->waiting;
	leaf->is_ready = true;
	leaf->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (leaf->wake_fd < 0)
		return -errno;
	/* Signals are for the application's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = -pthread_create(&leaf->thread, NULL, run, leaf);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret)
		close(leaf->wake_fd);
	return ret;
}

void nbd_thread_stop(struct nbd_leaf *leaf)
{
	atomic_store(&leaf->stopping, true);
	wake(leaf);
	pthread_join(leaf->thread, NULL);
	close(leaf->wake_fd);
}
