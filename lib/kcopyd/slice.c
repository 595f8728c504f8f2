/* SPDX-License-Identifier: MIT */
/*
 * A slice under way: what was read is written, or compared. Each step is one dm-io request, or one
 * copy within the kernel, and its completion takes the next. Called by job.c.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "bdev/bio.h"
#include "kcopyd/kcopyd.h"

static void set_state(struct kcopyd__slice *slice, enum kcopyd__slice_state state)
{
	/* From which states one may come to each: a bit for each. */
	static const uint32_t legal_from[KCOPYD__SLICE_STATES] = {
		[KCOPYD__SLICE_FREE] = 1u << KCOPYD__SLICE_READING | 1u << KCOPYD__SLICE_READ |
				       1u << KCOPYD__SLICE_WRITING | 1u << KCOPYD__SLICE_COMPARING,
		[KCOPYD__SLICE_READING] = 1u << KCOPYD__SLICE_FREE,
		[KCOPYD__SLICE_READ] = 1u << KCOPYD__SLICE_FREE | 1u << KCOPYD__SLICE_READING,
		[KCOPYD__SLICE_WRITING] = 1u << KCOPYD__SLICE_FREE | 1u << KCOPYD__SLICE_READ,
		[KCOPYD__SLICE_COMPARING] = 1u << KCOPYD__SLICE_READING,
	};

	DMCORE__ASSERT(legal_from[state] >> slice->state & 1);
	slice->state = state;
}

/* Where in the job's range `count` sectors stand that come `offset` sectors after the slice's
 * first. */
static uint64_t place_of(const struct kcopyd__slice *slice, uint64_t offset)
{
	const struct kcopyd_job *job = slice->job;

	if (kcopyd__job_has(job, KCOPYD__DESCENDS))
		return job->internal.count - slice->offset - slice->count + offset;
	return slice->offset + offset;
}

static struct dmio_region from_of(const struct kcopyd__slice *slice)
{
	const struct dmio_region *from = &slice->job->from;

	return (struct dmio_region){ from->bdev, from->sector + place_of(slice, 0), slice->count };
}

/* The place of a part of the slice on each destination. */
static void dests_of(const struct kcopyd__slice *slice, uint64_t offset, uint64_t count,
		     struct dmio_region *where)
{
	const struct kcopyd_job *job = slice->job;

	for (unsigned int i = 0; i < job->num_dests; i++) {
		where[i] = job->dests[i];
		where[i].sector += place_of(slice, offset);
		where[i].count = count;
	}
}

/* dm-io has a request for each slice, and the job has been checked: only a child of fork() is
 * refused, where nothing ends any more. */
static void expect_started(int ret)
{
	DMCORE__ASSERT(ret == 0 || ret == -EOWNERDEAD);
}

/* What becomes of the job's numbers. */
static void account(const struct kcopyd__slice *slice)
{
	struct kcopyd_job_internal *internal = &slice->job->internal;
	bool copies = slice->kind != KCOPYD__SLICE_FLUSH && slice->kind != KCOPYD__SLICE_VERIFY;
	bool failed = slice->lost && kcopyd__job_has(slice->job, KCOPYD__FAILED);

	if (slice->kind == KCOPYD__SLICE_VERIFY && !slice->lost && !slice->left_out)
		internal->counts[KCOPYD__VERIFIED] += slice->count;
	if (!copies)
		return;
	if (slice->lost)
		internal->counts[KCOPYD__LOST] += slice->count - slice->counted;
	if (slice->left_out || failed)
		internal->stopped_at = dmcore__min_u64(internal->stopped_at, slice->offset);
}

static void finish(struct kcopyd__slice *slice)
{
	struct kcopyd_client *kc = slice->client;
	struct kcopyd_job *job = slice->job;

	account(slice);
	if (slice->buffer)
		kcopyd__pages_give(&kc->pages, slice->buffer, slice->num_pages);
	dmcore__list_remove(&slice->link);
	dmcore__list_append(&kc->free_slices, &slice->link);
	set_state(slice, KCOPYD__SLICE_FREE);
	slice->job = NULL;
	kcopyd__throttle_end(kc);
	kcopyd__job_slice_ended(job);
}

static void tally(struct kcopyd__slice *slice, enum kcopyd__count what, uint64_t sectors)
{
	if (slice->lost)
		return;
	slice->job->internal.counts[what] += sectors;
	slice->counted += sectors;
}

/* ---- writing ---- */

static void write_done(unsigned long error, void *context);

static void start_write(struct kcopyd__slice *slice)
{
	struct kcopyd_client *kc = slice->client;
	const struct kcopyd_job *job = slice->job;
	struct dmio_region where[KCOPYD_DESTS_MAX];
	char *data = slice->buffer;
	int ret;

	dests_of(slice, slice->done, slice->piece, where);
	slice->piece_is_freed = slice->piece_is_zero && kcopyd__job_has(job, KCOPYD__CAN_FREE);
	if (!slice->piece_is_zero)
		ret = dmio_async_vm(kc->io, job->num_dests, where, DMIO_WRITE,
				    data + dmcore__sectors_to_bytes(slice->done), write_done,
				    slice);
	else if (kcopyd__job_zeroes_cheaply(job))
		ret = dmio_async_vm(kc->io, job->num_dests, where,
				    slice->piece_is_freed ? DMIO_DISCARD : DMIO_WRITE_ZEROES, NULL,
				    write_done, slice);
	else
		ret = dmio_async(kc->io, job->num_dests, where, DMIO_WRITE, &kc->zeroes, 0,
				 write_done, slice);
	expect_started(ret);
}

/* Finds out how much can be written at once, and whether it is zero; skips what is left alone. */
static void find_piece(struct kcopyd__slice *slice)
{
	const struct kcopyd_job *job = slice->job;
	bool leaves_zeroes = job->flags & KCOPYD_DESTS_ZEROED;

	slice->piece_is_zero = slice->kind == KCOPYD__SLICE_ZERO;
	slice->piece = slice->count - slice->done;
	if (slice->piece_is_zero || !(job->flags & KCOPYD_SPARSE) ||
	    !(leaves_zeroes || kcopyd__job_zeroes_cheaply(job)))
		return;
	while (slice->done < slice->count) {
		uint64_t rest = slice->count - slice->done;

		slice->piece = kcopyd__zero_run(
			slice->buffer + dmcore__sectors_to_bytes(slice->done), rest,
			job->internal.block_sectors, &slice->piece_is_zero);
		if (slice->piece < rest && kcopyd__job_has(job, KCOPYD__SERIAL)) {
			/* A part of what is moved over itself couldn't be read again. */
			slice->piece = rest;
			slice->piece_is_zero = false;
		}
		if (!slice->piece_is_zero || !leaves_zeroes)
			return;
		tally(slice, KCOPYD__SKIPPED, slice->piece);
		slice->done += slice->piece;
	}
}

/* Writes the next piece. False: there is none, or the job has stopped. */
static bool write_on(struct kcopyd__slice *slice)
{
	if (slice->done < slice->count && kcopyd__job_stops(slice->job)) {
		slice->left_out = true;
		return false;
	}
	find_piece(slice);
	if (slice->done == slice->count)
		return false;
	start_write(slice);
	return true;
}

/* Lets a slice write that has been read, if it is its turn, and in sequence those behind it. */
static void write_in_turn(struct kcopyd__slice *slice)
{
	struct kcopyd_job *job = slice->job;
	struct dmcore__list *slices = kcopyd__job_slices(job);
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (!(job->flags & KCOPYD_WRITE_SEQ)) {
		set_state(slice, KCOPYD__SLICE_WRITING);
		if (!write_on(slice))
			finish(slice);
		return;
	}
	dmcore__list_for_each(node, spare, slices) {
		slice = dmcore__container_of(node, struct kcopyd__slice, link);
		if (slice->state != KCOPYD__SLICE_READ)
			return;
		set_state(slice, KCOPYD__SLICE_WRITING);
		if (write_on(slice))
			return;
		finish(slice);
	}
}

/* In sequence, the next slice may be waiting for this one. */
static void finish_written(struct kcopyd__slice *slice)
{
	struct kcopyd_job *job = slice->job;
	struct dmcore__list *next = slice->link.next;
	bool has_next = job->flags & KCOPYD_WRITE_SEQ && next != kcopyd__job_slices(job);

	finish(slice);
	if (has_next)
		write_in_turn(dmcore__container_of(next, struct kcopyd__slice, link));
}

/* A piece has been written, or not. */
static void note_written(struct kcopyd__slice *slice, unsigned long error)
{
	if (error) {
		slice->job->write_err |= (unsigned int)error;
		slice->lost = true;
		kcopyd__job_fail(slice->job);
	}
	tally(slice, slice->piece_is_zero ? KCOPYD__ZEROED : KCOPYD__COPIED, slice->piece);
	slice->done += slice->piece;
}

static void write_done(unsigned long error, void *context)
{
	struct kcopyd__slice *slice = context;
	struct kcopyd_client *kc = slice->client;

	/* Some devices learn only now that they can't: the same once more, by other means. */
	if (error && slice->piece_is_freed)
		kcopyd__job_forget(slice->job, KCOPYD__CAN_FREE);
	else
		note_written(slice, error);
	if (!write_on(slice))
		finish_written(slice);
	kcopyd__client_run(kc);
}

/* ---- comparing ---- */

static void compare_done(unsigned long error, void *context);

static char *second_buffer(const struct kcopyd__slice *slice)
{
	return slice->buffer + dmcore__sectors_to_bytes(slice->count);
}

/* Reads the next destination. */
static void compare_on(struct kcopyd__slice *slice)
{
	struct dmio_region where[KCOPYD_DESTS_MAX];

	if (kcopyd__job_has(slice->job, KCOPYD__CANCELLED))
		slice->left_out = true;
	if (slice->left_out || slice->dest == slice->job->num_dests) {
		finish(slice);
		return;
	}
	dests_of(slice, 0, slice->count, where);
	expect_started(dmio_async_vm(slice->client->io, 1, &where[slice->dest], DMIO_READ,
				     second_buffer(slice), compare_done, slice));
}

static void note_difference(struct kcopyd__slice *slice)
{
	const char *copy = second_buffer(slice);
	uint64_t sector = 0;

	while (memcmp(slice->buffer + dmcore__sectors_to_bytes(sector),
		      copy + dmcore__sectors_to_bytes(sector), DMCORE_SECTOR_BYTES) == 0)
		sector++;
	slice->job->internal.mismatch =
		dmcore__min_u64(slice->job->internal.mismatch, place_of(slice, sector));
}

static void compare_done(unsigned long error, void *context)
{
	struct kcopyd__slice *slice = context;
	struct kcopyd_client *kc = slice->client;
	uint64_t bytes = dmcore__sectors_to_bytes(slice->count);
	bool differs = !error && memcmp(slice->buffer, second_buffer(slice), bytes) != 0;

	if (differs)
		note_difference(slice);
	if (error || differs) {
		slice->job->verify_err |= 1u << slice->dest;
		slice->lost = true;
		kcopyd__job_fail(slice->job);
	}
	slice->dest++;
	compare_on(slice);
	kcopyd__client_run(kc);
}

/* ---- reading ---- */

static void show_data(struct kcopyd__slice *slice)
{
	struct kcopyd_job *job = slice->job;

	if (job->data && !kcopyd__job_stops(job))
		job->data(job, place_of(slice, 0), slice->buffer, slice->count);
}

static void read_done(unsigned long error, void *context)
{
	struct kcopyd__slice *slice = context;
	struct kcopyd_client *kc = slice->client;

	if (error) {
		slice->job->read_err = 1;
		slice->lost = true;
		kcopyd__job_fail(slice->job);
	}
	if (slice->kind == KCOPYD__SLICE_COPY) {
		show_data(slice);
		set_state(slice, KCOPYD__SLICE_READ);
		write_in_turn(slice);
	} else {
		set_state(slice, KCOPYD__SLICE_COMPARING);
		slice->left_out = error; /* there is nothing to compare with */
		compare_on(slice);
	}
	kcopyd__client_run(kc);
}

/* dm-io leaves zeroes of what it couldn't read. */
static void start_read(struct kcopyd__slice *slice)
{
	struct dmio_region from = from_of(slice);

	set_state(slice, KCOPYD__SLICE_READING);
	expect_started(dmio_async_vm(slice->client->io, 1, &from, DMIO_READ, slice->buffer,
				     read_done, slice));
}

static void start_verify(struct kcopyd__slice *slice)
{
	if (!kcopyd__job_is_zero(slice->job)) {
		start_read(slice);
		return;
	}
	memset(slice->buffer, 0, dmcore__sectors_to_bytes(slice->count));
	set_state(slice, KCOPYD__SLICE_READING);
	set_state(slice, KCOPYD__SLICE_COMPARING);
	compare_on(slice);
}

/* ---- flushing, and copying within the kernel ---- */

static void flush_done(unsigned long error, void *context)
{
	struct kcopyd__slice *slice = context;
	struct kcopyd_client *kc = slice->client;

	if (error) {
		slice->job->write_err |= (unsigned int)error;
		kcopyd__job_fail(slice->job);
	}
	finish(slice);
	kcopyd__client_run(kc);
}

static void start_flush(struct kcopyd__slice *slice)
{
	set_state(slice, KCOPYD__SLICE_WRITING);
	expect_started(dmio_async_vm(slice->client->io, slice->job->num_dests, slice->job->dests,
				     DMIO_FLUSH, NULL, flush_done, slice));
}

static void share_done(struct dmcore_bio *bio);

/* Has the kernel copy to the next destination. False: it can't. */
static bool share_on(struct kcopyd__slice *slice)
{
	struct dmcore_bio *bio = &slice->client->share;
	struct dmio_region where[KCOPYD_DESTS_MAX];

	dests_of(slice, 0, slice->count, where);
	bio->bdev = where[slice->dest].bdev;
	bio->sector = where[slice->dest].sector;
	bio->count = slice->count;
	bio->done = share_done;
	return dmcore__bio_submit_copy(bio, slice->job->from.bdev, from_of(slice).sector) == 0;
}

static void end_share(struct kcopyd__slice *slice)
{
	slice->client->sharing = NULL;
	finish(slice);
}

/* All of the slice is copied in the ordinary way, and what comes after it. */
static void give_up_share(struct kcopyd__slice *slice)
{
	kcopyd__job_note(slice->job, KCOPYD__NO_SHARE);
	slice->job->internal.cursor = slice->offset;
	end_share(slice);
}

/* Goes on after a destination is done. */
static void share_next(struct kcopyd__slice *slice)
{
	slice->dest++;
	if (slice->dest == slice->job->num_dests) {
		tally(slice, KCOPYD__SHARED, slice->count);
		end_share(slice);
	} else if (kcopyd__job_stops(slice->job)) {
		slice->left_out = true;
		end_share(slice);
	} else if (!share_on(slice)) {
		give_up_share(slice);
	}
}

static void share_done(struct dmcore_bio *bio)
{
	struct kcopyd_client *kc = dmcore__container_of(bio, struct kcopyd_client, share);

	if (bio->status)
		give_up_share(kc->sharing);
	else
		share_next(kc->sharing);
	kcopyd__client_run(kc);
}

static void start_share(struct kcopyd__slice *slice)
{
	set_state(slice, KCOPYD__SLICE_WRITING);
	slice->client->sharing = slice;
	if (!share_on(slice))
		give_up_share(slice);
}

void kcopyd__slice_start(struct kcopyd_client *kc, struct kcopyd_job *job,
			 const struct kcopyd__piece *piece)
{
	struct kcopyd__slice *slice =
		dmcore__container_of(kc->free_slices.next, struct kcopyd__slice, link);

	dmcore__list_remove(&slice->link);
	dmcore__list_append(kcopyd__job_slices(job), &slice->link);
	slice->job = job;
	slice->kind = piece->kind;
	slice->offset = job->internal.cursor;
	slice->count = piece->count;
	slice->done = 0;
	slice->counted = 0;
	slice->lost = false;
	slice->left_out = false;
	slice->dest = 0;
	slice->buffer = piece->buffer;
	slice->num_pages = piece->num_pages;
	job->internal.inflight++;
	job->internal.cursor += piece->count;
	switch (piece->kind) {
	case KCOPYD__SLICE_COPY:
		start_read(slice);
		break;
	case KCOPYD__SLICE_ZERO:
		set_state(slice, KCOPYD__SLICE_READ);
		write_in_turn(slice);
		break;
	case KCOPYD__SLICE_SHARE:
		start_share(slice);
		break;
	case KCOPYD__SLICE_FLUSH:
		start_flush(slice);
		break;
	case KCOPYD__SLICE_VERIFY:
		start_verify(slice);
		break;
	}
}
