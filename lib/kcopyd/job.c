/* SPDX-License-Identifier: MIT */
/*
 * What a job does when it has its turn: it starts its next slice, goes on to its next phase, or
 * ends. Called by client.c, which gives the turns, and by slice.c when a slice has ended.
 */
#include <dmcore/bdev.h>

#include "base/checked.h"
#include "bdev/bio.h"
#include "kcopyd/kcopyd.h"

void kcopyd__job_begin(struct kcopyd_client *kc, struct kcopyd_job *job)
{
	struct kcopyd_job_internal *internal = &job->internal;

	internal->client = kc;
	internal->stopped_at = UINT64_MAX;
	internal->mismatch = UINT64_MAX;
	internal->phase = KCOPYD__COPY;
	dmcore__list_init(kcopyd__job_link(job));
	dmcore__list_init(kcopyd__job_slices(job));
	job->status = 0;
	job->read_err = 0;
	job->write_err = 0;
	job->verify_err = 0;
}

uint64_t kcopyd__job_position(const struct kcopyd_job *job)
{
	const struct kcopyd_job_internal *internal = &job->internal;
	const struct dmcore__list *slices = kcopyd__job_slices(job);
	uint64_t position = internal->cursor;

	if (internal->phase != KCOPYD__COPY)
		return internal->stopped_at;
	if (internal->state != KCOPYD__IDLE && !dmcore__list_empty(slices))
		position = dmcore__container_of(slices->next, struct kcopyd__slice, link)->offset;
	return dmcore__min_u64(position, internal->stopped_at);
}

static enum kcopyd__turn leave_line(struct kcopyd_job *job)
{
	dmcore__list_remove(kcopyd__job_link(job));
	kcopyd__job_set_state(job, KCOPYD__BUSY);
	return KCOPYD__TURN_BUSY;
}

/* Nothing of the phase is left to be started: BUSY means that it has left the line. */
static enum kcopyd__turn next_phase(struct kcopyd_job *job)
{
	struct kcopyd_job_internal *internal = &job->internal;

	if (internal->inflight > 0)
		return leave_line(job);
	if (internal->phase == KCOPYD__COPY)
		internal->stopped_at = kcopyd__job_position(job);
	do {
		internal->phase++;
	} while ((internal->phase == KCOPYD__FLUSH && !(job->flags & KCOPYD_FLUSH)) ||
		 (internal->phase == KCOPYD__VERIFY && !(job->flags & KCOPYD_VERIFY)));
	if (kcopyd__job_stops(job) || internal->count == 0)
		internal->phase = KCOPYD__OVER;
	if (internal->phase == KCOPYD__OVER) {
		dmcore__list_remove(kcopyd__job_link(job));
		kcopyd__client_end(internal->client, job);
		return KCOPYD__TURN_BUSY;
	}
	internal->cursor = 0;
	return KCOPYD__TURN_MORE;
}

static bool phase_is_done(const struct kcopyd_job *job)
{
	const struct kcopyd_job_internal *internal = &job->internal;

	/* A flush is one slice, however long the job. */
	if (internal->phase == KCOPYD__FLUSH)
		return internal->cursor > 0;
	return internal->cursor == internal->count;
}

/* What one write to a destination may have, so as not to be split below: in sequence there is only
 * one under way. */
static uint64_t unsplit(const struct kcopyd_job *job, const struct dmio_region *dest,
			uint64_t count, enum kcopyd__slice_kind kind)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	uint64_t offset = job->internal.cursor;

	dmcore_bdev_limits(dest->bdev, &limits);
	/* What is copied may turn out to be zeroes. */
	if (kcopyd__job_zeroes_cheaply(job) &&
	    (kind == KCOPYD__SLICE_ZERO || job->flags & KCOPYD_SPARSE))
		count = dmcore__min_not_zero_u64(count, limits.max_write_zeroes_sectors);
	if (kind == KCOPYD__SLICE_ZERO && kcopyd__job_zeroes_cheaply(job))
		return count;
	return dmcore__limits_whole(&limits, dest->sector + offset, count);
}

/* A slice of whole blocks, but for the last one of the job. */
static uint64_t whole_blocks(const struct kcopyd_job *job, uint64_t count, uint64_t left)
{
	uint64_t block = job->internal.block_sectors;

	return dmcore__min_u64(left, dmcore__max_u64(count / block, 1) * block);
}

/* How long the next slice is, which moves data. */
static uint64_t slice_sectors(const struct kcopyd_job *job, enum kcopyd__slice_kind kind,
			      uint64_t left)
{
	const struct kcopyd_job_internal *internal = &job->internal;
	uint64_t count = dmcore__min_u64(left, internal->slice_sectors);

	if (kind == KCOPYD__SLICE_SHARE)
		count = dmcore__min_u64(left, KCOPYD__SHARE_SECTORS);
	if (kind == KCOPYD__SLICE_VERIFY)
		count = dmcore__min_u64(count, (uint64_t)internal->client->pages.total *
						       KCOPYD__PAGE_SECTORS / 2);
	return kcopyd__throttle_slice(internal->client, count);
}

/* In sequence: as much as no destination splits. */
static uint64_t in_sequence(const struct kcopyd_job *job, enum kcopyd__slice_kind kind,
			    uint64_t count)
{
	if (!(job->flags & KCOPYD_WRITE_SEQ))
		return count;
	/* What dm-io makes one request of a list of pages. */
	if (kind == KCOPYD__SLICE_ZERO && !kcopyd__job_zeroes_cheaply(job))
		count = dmcore__min_u64(count, KCOPYD__ZERO_LIST_SECTORS);
	for (unsigned int i = 0; i < job->num_dests; i++)
		count = unsplit(job, &job->dests[i], count, kind);
	return count;
}

/* Takes the pages that a slice needs, and makes it shorter if there are fewer in one run. */
static bool take_pages(const struct kcopyd_job *job, struct kcopyd__piece *piece)
{
	uint64_t copies = piece->kind == KCOPYD__SLICE_VERIFY ? 2 : 1;
	uint64_t block = job->internal.block_sectors;
	uint64_t least = dmcore__min_u64(piece->count, block) * copies;
	unsigned int want;

	want = (unsigned int)((piece->count * copies + KCOPYD__PAGE_SECTORS - 1) /
			      KCOPYD__PAGE_SECTORS);
	/* A slice isn't cut to shreds because memory is: rather it waits. */
	least = dmcore__max_u64((least + KCOPYD__PAGE_SECTORS - 1) / KCOPYD__PAGE_SECTORS,
				want / 4);
	piece->num_pages = want;
	piece->buffer = kcopyd__pages_take(&job->internal.client->pages, (unsigned int)least,
					   &piece->num_pages);
	if (piece->buffer && piece->num_pages < want)
		piece->count = piece->num_pages * (uint64_t)KCOPYD__PAGE_SECTORS / copies / block *
			       block;
	return piece->buffer;
}

/* What counts for a rate. */
static uint64_t bytes_of(const struct kcopyd_job *job, const struct kcopyd__piece *piece)
{
	if (piece->kind == KCOPYD__SLICE_FLUSH ||
	    (piece->kind == KCOPYD__SLICE_ZERO && kcopyd__job_zeroes_cheaply(job)))
		return 0;
	return dmcore__sectors_to_bytes(piece->count);
}

/* What can't be shared after all is written again: not in sequence. */
static bool may_share(const struct kcopyd_job *job)
{
	return (job->flags & (KCOPYD_SHARE | KCOPYD_WRITE_SEQ)) == KCOPYD_SHARE &&
	       !kcopyd__job_has(job, KCOPYD__NO_SHARE);
}

/* What the next slice does, and how much of the job there is to do it with: sets piece->count. */
static void choose_kind(struct kcopyd_job *job, struct kcopyd__piece *piece)
{
	struct kcopyd_job_internal *internal = &job->internal;

	piece->count = internal->count - internal->cursor;
	if (internal->phase == KCOPYD__FLUSH) {
		piece->kind = KCOPYD__SLICE_FLUSH;
	} else if (internal->phase == KCOPYD__VERIFY) {
		piece->kind = KCOPYD__SLICE_VERIFY;
	} else if (kcopyd__job_is_zero(job)) {
		piece->kind = KCOPYD__SLICE_ZERO;
	} else {
		piece->kind = may_share(job) ? KCOPYD__SLICE_SHARE : KCOPYD__SLICE_COPY;
		/* Extents are told from their starts on. */
		if (!(job->flags & KCOPYD_SPARSE) || kcopyd__job_has(job, KCOPYD__DESCENDS))
			return;
		kcopyd__find_extent(job);
		piece->count = internal->extent_end - internal->cursor;
		if (kcopyd__job_has(job, KCOPYD__HOLE))
			piece->kind = KCOPYD__SLICE_ZERO;
	}
}

/* Which slice comes next; false: what comes next needs none, and has been done. */
static bool choose(struct kcopyd_job *job, struct kcopyd__piece *piece)
{
	struct kcopyd_job_internal *internal = &job->internal;
	uint64_t left;
	uint64_t count;

	choose_kind(job, piece);
	left = piece->count;
	if (piece->kind == KCOPYD__SLICE_FLUSH)
		return true;
	if (piece->kind == KCOPYD__SLICE_ZERO && !kcopyd__job_is_zero(job) &&
	    job->flags & KCOPYD_DESTS_ZEROED) {
		internal->counts[KCOPYD__SKIPPED] += left;
		internal->cursor += left;
		return false;
	}
	if (piece->kind == KCOPYD__SLICE_ZERO && kcopyd__job_zeroes_cheaply(job))
		count = dmcore__min_u64(left, KCOPYD__ZERO_SECTORS);
	else
		count = slice_sectors(job, piece->kind, left);
	piece->count = whole_blocks(job, in_sequence(job, piece->kind, count), left);
	return true;
}

/* Those that wait for pages have them in their order. */
static bool has_pages(struct kcopyd_job *job, struct kcopyd__piece *piece)
{
	const struct dmcore__list *starving = &job->internal.client->starving;

	if (!dmcore__list_empty(starving) && starving->next != kcopyd__job_link(job))
		return false;
	return take_pages(job, piece);
}

/* Has the client provide what the slice needs; MORE: it is the slice's then. */
static enum kcopyd__turn provide(struct kcopyd_job *job, struct kcopyd__piece *piece)
{
	struct kcopyd_client *kc = job->internal.client;
	bool needs_pages =
		piece->kind == KCOPYD__SLICE_COPY || piece->kind == KCOPYD__SLICE_VERIFY;

	if (dmcore__list_empty(&kc->free_slices) ||
	    (piece->kind == KCOPYD__SLICE_SHARE && kc->sharing))
		return KCOPYD__TURN_WAITS;
	if (needs_pages && !has_pages(job, piece))
		return KCOPYD__TURN_STARVES;
	if (kcopyd__throttle_start(kc, bytes_of(job, piece)))
		return KCOPYD__TURN_MORE;
	if (needs_pages)
		kcopyd__pages_give(&kc->pages, piece->buffer, piece->num_pages);
	return KCOPYD__TURN_WAITS;
}

/* How many slices the job may have under way. */
static uint32_t slices_max(const struct kcopyd_job *job)
{
	bool shares = job->internal.phase == KCOPYD__COPY && may_share(job);

	/* What can't be shared goes back to its start: nothing may be ahead of it. */
	return kcopyd__job_has(job, KCOPYD__SERIAL) || shares ? 1 : KCOPYD_SUBJOBS_MAX;
}

enum kcopyd__turn kcopyd__job_turn(struct kcopyd_job *job)
{
	struct kcopyd_job_internal *internal = &job->internal;
	struct kcopyd__piece piece = { .buffer = NULL };
	enum kcopyd__turn turn;

	if (kcopyd__job_stops(job) || phase_is_done(job))
		return next_phase(job);
	if (internal->inflight >= slices_max(job))
		return leave_line(job);
	if (!choose(job, &piece))
		return phase_is_done(job) ? next_phase(job) : KCOPYD__TURN_MORE;
	turn = provide(job, &piece);
	if (turn != KCOPYD__TURN_MORE)
		return turn;
	kcopyd__slice_start(internal->client, job, &piece);
	/* A device may have cancelled it meanwhile. */
	if (internal->state != KCOPYD__READY)
		return KCOPYD__TURN_BUSY;
	if (internal->inflight >= slices_max(job) || phase_is_done(job))
		return leave_line(job);
	return KCOPYD__TURN_MORE;
}

void kcopyd__job_go_on(struct kcopyd_job *job)
{
	struct kcopyd_job_internal *internal = &job->internal;
	bool is_done = kcopyd__job_stops(job) || phase_is_done(job);

	/* What has no more to start doesn't wait in line, perhaps for memory or a throttle. */
	if (is_done && (internal->inflight > 0 || next_phase(job) == KCOPYD__TURN_BUSY))
		return;
	kcopyd__client_queue(internal->client, job);
}

/* A job in line that starts nothing more doesn't wait there, nor others behind it. */
static void leave_line_for_good(struct kcopyd_job *job)
{
	struct kcopyd_client *kc = job->internal.client;

	next_phase(job);
	kcopyd__throttle_ask_again(kc);
}

void kcopyd__job_slice_ended(struct kcopyd_job *job)
{
	DMCORE__ASSERT(job->internal.inflight > 0);
	job->internal.inflight--;
	if (job->internal.state == KCOPYD__BUSY)
		kcopyd__job_go_on(job);
	else if (kcopyd__job_stops(job))
		leave_line_for_good(job);
}

void kcopyd__job_stop(struct kcopyd_job *job)
{
	kcopyd__job_note(job, KCOPYD__CANCELLED);
	if (job->internal.state == KCOPYD__READY)
		leave_line_for_good(job);
}
