/* SPDX-License-Identifier: MIT */
/*
 * Writes that have to wait for their region, and what becomes of requests that a leg has failed.
 * All but what says otherwise runs on the service; targets/mirror.c posts to it, log.c and
 * recovery.c run requests again that waited for them.
 */
#include <errno.h>

#include "base/compiler.h"
#include "targets/mirror/mirror.h"

static struct mirror_request *of_work(struct dmcore_work *work)
{
	return dmcore__container_of(work, struct mirror_request, work);
}

/* ---- legs ---- */

uint32_t dmcore__mirror_choose_leg(const struct mirror *mirror)
{
	uint32_t first = atomic_load_explicit(&mirror->first_leg, memory_order_acquire);

	for (uint32_t i = 0; i < mirror->num_legs; i++) {
		uint32_t leg = (first + mirror->num_legs - i) % mirror->num_legs;

		if (dmcore__mirror_leg_is_well(&mirror->legs[leg]) &&
		    !dmcore__mirror_lags(mirror, leg))
			return leg;
	}
	if (mirror->behind.leg && dmcore__mirror_leg_is_well(&mirror->legs[mirror->behind.leg]))
		return mirror->behind.leg;
	return MIRROR_NO_LEG;
}

/* Of the legs that are well the one with the fewest reads. */
static uint32_t idlest_leg(const struct mirror *mirror)
{
	uint32_t first = atomic_load_explicit(&mirror->first_leg, memory_order_acquire);
	uint32_t fewest = UINT32_MAX;
	uint32_t idlest = MIRROR_NO_LEG;

	for (uint32_t i = 0; i < mirror->num_legs; i++) {
		uint32_t leg = (first + mirror->num_legs - i) % mirror->num_legs;
		uint32_t num = atomic_load_explicit(&mirror->loads[leg].num_reads,
						    memory_order_relaxed);

		if (num < fewest && dmcore__mirror_leg_is_well(&mirror->legs[leg]) &&
		    !dmcore__mirror_lags(mirror, leg)) {
			fewest = num;
			idlest = leg;
		}
	}
	return idlest;
}

uint32_t dmcore__mirror_read_leg(const struct mirror *mirror, uint64_t region)
{
	uint32_t first = atomic_load_explicit(&mirror->first_leg, memory_order_acquire);
	uint32_t leg = MIRROR_NO_LEG;

	if (dmcore__unlikely(!dmcore__log_in_sync(&mirror->log, region)))
		return dmcore__mirror_leg_reads(&mirror->legs[first]) ? first : MIRROR_NO_LEG;
	if (mirror->balances_reads)
		leg = idlest_leg(mirror);
	return leg == MIRROR_NO_LEG ? dmcore__mirror_choose_leg(mirror) : leg;
}

/* The first leg has failed: another one takes its place, if it holds the same. */
static void replace_first(struct mirror *mirror)
{
	uint32_t leg = atomic_load(&mirror->first_leg);
	uint32_t other = 0;

	if (dmcore__mirror_leg_is_well(&mirror->legs[leg]))
		return;
	if (atomic_load(&mirror->log.num_in_sync) < mirror->log.num_regions) {
		dmcore_target_log(mirror->target, DMCORE_LOG_ERROR,
				  "Primary mirror (%s) failed while out-of-sync: Reads may fail.",
				  dmcore_bdev_name(mirror->legs[leg].bdev));
		return;
	}
	while (other < mirror->num_legs && (!dmcore__mirror_leg_is_well(&mirror->legs[other]) ||
					    dmcore__mirror_lags(mirror, other)))
		other++;
	if (other == mirror->num_legs)
		other = dmcore__mirror_choose_leg(mirror);
	/* It may be what the others are made from: not before it has all that they have. */
	if (dmcore__mirror_lags(mirror, other) && atomic_load(&mirror->behind.num_writes) > 0)
		return;
	if (other == MIRROR_NO_LEG)
		dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
				  "All sides of mirror have failed.");
	else
		atomic_store_explicit(&mirror->first_leg, other, memory_order_release);
}

void dmcore__mirror_review_first(struct mirror *mirror)
{
	if (mirror->handle_errors && atomic_load(&mirror->leg_failed))
		replace_first(mirror);
}

/* Whether it is the first of its kind, and somebody cares. */
static bool note_failure(struct mirror *mirror, uint32_t leg, enum mirror_failure failure)
{
	uint32_t before = atomic_fetch_or(&mirror->legs[leg].failures, (uint32_t)failure);

	atomic_store(&mirror->leg_failed, true);
	return mirror->handle_errors && !(before & (uint32_t)failure);
}

void dmcore__mirror_fail_leg(struct mirror *mirror, uint32_t leg, enum mirror_failure failure)
{
	if (!note_failure(mirror, leg, failure))
		return;
	if (atomic_load(&mirror->first_leg) == leg)
		replace_first(mirror);
	dmcore_target_event(mirror->target);
}

void dmcore__mirror_fail_read(struct mirror *mirror, uint32_t leg)
{
	if (!note_failure(mirror, leg, MIRROR_READ_FAILED))
		return;
	if (atomic_load(&mirror->first_leg) == leg) {
		atomic_store(&mirror->first_failed, true);
		dmcore__mirror_wake(mirror);
	}
	dmcore_target_event(mirror->target);
}

/*
 * A leg has failed to write, or to flush: what it reads as now needn't be there after a restart,
 * and no later flush changes that. If the others are made from it, it is written once more.
 */
static void doubt(struct mirror *mirror, uint32_t leg)
{
	if (atomic_load(&mirror->first_leg) != leg)
		return;
	mirror->first_may_lose = mirror->num_legs <= KCOPYD_DESTS_MAX;
	mirror->keeps_marks = !mirror->first_may_lose;
}

void dmcore__mirror_fail_flush(struct mirror *mirror, uint32_t leg)
{
	mirror->num_flush_failures++;
	dmcore__mirror_fail_leg(mirror, leg, MIRROR_FLUSH_FAILED);
	doubt(mirror, leg);
	dmcore__log_unsync_unflushed(mirror);
	dmcore__recovery_put_off(mirror);
}

/* ---- on their way ---- */

static void forward_now(struct dmcore_work *work)
{
	struct mirror_request *request = of_work(work);
	const struct mirror_leg *leg;
	struct dmcore_bio *bio = request->bio;

	bio->count = request->count;
	bio->vecs = request->vecs;
	bio->num_vecs = request->num_vecs;
	bio->vec_offset_bytes = request->vec_offset_bytes;
	request->failed = 0;
	if (request->stage == MIRROR_TO_ALL || request->stage == MIRROR_FLUSH) {
		dmcore_bio_send_copies(bio, request->sent);
		return;
	}
	leg = &request->mirror->legs[request->leg];
	bio->bdev = leg->bdev;
	bio->sector = dmcore__mirror_leg_sector(leg, request->sector);
	dmcore_bio_forward(bio);
}

/* Sends a request to its legs, from its own queue. */
static void forward(struct mirror_request *request)
{
	request->work.fn = forward_now;
	dmcore_queue_post(request->bio->queue, &request->work);
}

static void wake(struct dmcore_work *work)
{
	struct mirror *mirror = dmcore__container_of(work, struct mirror, work);
	struct mirror_list waiting = mirror->no_place;

	atomic_store(&mirror->posted, false);
	if (atomic_exchange(&mirror->first_failed, false))
		replace_first(mirror);
	atomic_store(&mirror->regions->wanted, false);
	if (waiting.head) {
		dmcore__mirror_list_init(&mirror->no_place);
		while (waiting.head) {
			struct mirror_request *request = waiting.head;

			waiting.head = request->next;
			dmcore__mirror_run(request);
		}
	}
	dmcore__recovery_go_on(mirror);
	dmcore__scrub_go_on(mirror);
	dmcore__log_flush(mirror);
}

void dmcore__mirror_wake(struct mirror *mirror)
{
	if (atomic_exchange(&mirror->posted, true))
		return;
	mirror->work.fn = wake;
	dmcore_queue_post(mirror->service, &mirror->work);
}

static void leave(struct mirror_request *request)
{
	if (request->stage != MIRROR_TO_ALL && request->stage != MIRROR_TO_ONE)
		return;
	request->stage = MIRROR_OUTSIDE;
	if (dmcore__region_leave(request->mirror->regions, request->region))
		dmcore__mirror_wake(request->mirror);
}

static void complete(struct mirror_request *request, int status)
{
	leave(request);
	if (request->stage == MIRROR_FLUSH && status)
		atomic_store(&request->mirror->num_told, atomic_load(&request->mirror->num_lost));
	dmcore_bio_complete_remote(request->bio, status);
}

/* ---- writes ---- */

/* Into a region that isn't active; it waits if it has to. */
static enum region_state activate(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;
	uint64_t region = request->region;
	bool in_sync = dmcore__log_in_sync(&mirror->log, region);
	uint64_t evicted;

	if (!dmcore__region_add(mirror->regions, region, in_sync ? REGION_MARKING : REGION_NOSYNC,
				&evicted)) {
		dmcore__mirror_list_add(&mirror->no_place, request);
		return REGION_ABSENT;
	}
	if (evicted != UINT64_MAX)
		dmcore__clean_region(mirror, evicted);
	if (!in_sync)
		return REGION_NOSYNC;
	dmcore__log_mark(mirror, region);
	*dmcore__region_ticket(mirror->regions, region) = mirror->log.ticket;
	return REGION_MARKING;
}

/* Whether the mark of a region is as durable as it will ever be. */
static bool is_marked(struct mirror *mirror, uint64_t region)
{
	return *dmcore__region_ticket(mirror->regions, region) <= mirror->log.done_ticket;
}

/* ---- requests that can't go on ---- */

static bool holds(const struct mirror *mirror)
{
	return mirror->handle_errors && !mirror->keep_log;
}

/* Until somebody has replaced what has failed: it isn't known to be where it must be. */
static void hold_or_fail(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;

	if (!holds(mirror) || dmcore__mirror_choose_leg(mirror) == MIRROR_NO_LEG) {
		complete(request, -EIO);
		return;
	}
	leave(request);
	dmcore__mirror_list_add(&mirror->held, request);
	if (mirror->suspending)
		dmcore__mirror_release(mirror);
}

void dmcore__mirror_release(struct mirror *mirror)
{
	bool noflush = dmcore_target_noflush(mirror->target);
	struct mirror_request *request;

	while ((request = dmcore__mirror_list_take(&mirror->held)))
		complete(request, noflush ? DMCORE_STATUS_REQUEUE : -EIO);
}

static void flush(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;

	request->stage = MIRROR_FLUSH;
	request->sent = dmcore__mirror_all_legs(mirror);
	forward(request);
}

void dmcore__mirror_run_behind(struct mirror_request *request)
{
	uint32_t leg;

	if (request->op == DMCORE_OP_FLUSH) {
		flush(request);
		return;
	}
	leg = dmcore__mirror_read_leg(request->mirror, request->region);
	if (leg == MIRROR_NO_LEG) {
		request->stage = MIRROR_OUTSIDE;
		complete(request, -EIO);
		return;
	}
	dmcore__mirror_count_read(request->mirror, request, leg);
	forward(request);
}

/* What it was to cover has been written again. */
static void flush_anew(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;

	request->num_told = atomic_load(&mirror->num_lost);
	atomic_store(&mirror->num_told, request->num_told);
	flush(request);
}

void dmcore__mirror_run_held(struct mirror *mirror)
{
	struct mirror_list held = mirror->held;
	struct mirror_request *request = held.head;

	dmcore__mirror_list_init(&mirror->held);
	while (request) {
		struct mirror_request *next = request->next;

		/* Else what always fails, but for copies, would have all copied for ever. */
		if (request->again) {
			dmcore__mirror_list_add(&mirror->held, request);
		} else {
			request->again = true;
			if (request->stage == MIRROR_FLUSH)
				flush_anew(request);
			else
				dmcore__mirror_run(request);
		}
		request = next;
	}
}

/* ---- writes ---- */

/* Sends it on into its region, or not. */
static void go_in(struct mirror_request *request, enum region_state state)
{
	struct mirror *mirror = request->mirror;

	if (state == REGION_DIRTY) {
		/* Without a mark a restart would take the legs for the same. */
		if (mirror->handle_errors && !dmcore__log_is_well(&mirror->log)) {
			hold_or_fail(request);
			return;
		}
		request->sent = dmcore__mirror_all_legs(mirror);
		if (mirror->behind.leg && !dmcore__behind_admit(request))
			return;
		request->stage = MIRROR_TO_ALL;
	} else {
		/* After a restart leg 0 is what the others are made from. */
		if (atomic_load(&mirror->first_leg) != 0 ||
		    (holds(mirror) && atomic_load(&mirror->leg_failed))) {
			hold_or_fail(request);
			return;
		}
		request->stage = MIRROR_TO_ONE;
		request->leg = 0;
	}
	dmcore__region_enter_for(mirror->regions, request->region);
	forward(request);
}

void dmcore__mirror_run(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;
	enum region_state state = dmcore__region_state(mirror->regions, request->region);

	if (state == REGION_ABSENT)
		state = activate(request);
	if (state == REGION_MARKING && is_marked(mirror, request->region)) {
		/* A failed flush may have put it out of sync meanwhile. */
		state = dmcore__log_in_sync(&mirror->log, request->region) ? REGION_DIRTY :
									     REGION_NOSYNC;
		dmcore__region_set(mirror->regions, request->region, state);
	}
	switch (state) {
	case REGION_ABSENT:
		break;
	case REGION_MARKING:
		dmcore__log_wait(mirror, request);
		break;
	case REGION_RECOVERING:
		dmcore__mirror_list_add(&mirror->recovery.waiters, request);
		break;
	case REGION_NOSYNC:
	case REGION_DIRTY:
		go_in(request, state);
		break;
	}
}

void dmcore__mirror_write(struct dmcore_work *work)
{
	struct mirror_request *request = of_work(work);
	struct mirror *mirror = request->mirror;

	dmcore__clean_later(mirror);
	/* It may have ended on its own queue when this returns. */
	dmcore__mirror_run(request);
	dmcore__log_flush(mirror);
}

/* ---- requests that a leg has failed ---- */

static void fail_legs(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;

	for (uint32_t failed = request->failed; failed; failed &= failed - 1) {
		uint32_t leg = (uint32_t)__builtin_ctz(failed);

		if (request->stage != MIRROR_FLUSH) {
			dmcore__mirror_fail_leg(mirror, leg, MIRROR_WRITE_FAILED);
			doubt(mirror, leg);
		}
		/* A write with FUA may have been flushed, and that have failed. */
		if (request->stage == MIRROR_FLUSH || request->flags & DMCORE_BIO_FUA)
			dmcore__mirror_fail_flush(mirror, leg);
	}
}

void dmcore__mirror_unsync(struct mirror *mirror, uint64_t region)
{
	dmcore__log_set_sync(mirror, region, false);
	if (dmcore__region_state(mirror->regions, region) == REGION_DIRTY)
		dmcore__region_set(mirror->regions, region, REGION_NOSYNC);
}

/* A leg that doesn't discard is none the worse for it, but it may differ now. */
static void discard_failed(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;

	/* What all have refused none has done. */
	if (request->stage == MIRROR_TO_ALL &&
	    (request->failed != request->sent || request->torn))
		dmcore__mirror_unsync(mirror, request->region);
	if (request->failed & 1 || request->stage == MIRROR_TO_ONE)
		doubt(mirror, 0);
	complete(request, -EOPNOTSUPP);
	dmcore__recovery_go_on(mirror);
}

void dmcore__mirror_failed(struct dmcore_work *work)
{
	struct mirror_request *request = of_work(work);
	struct mirror *mirror = request->mirror;

	if (request->op == DMCORE_OP_DISCARD) {
		discard_failed(request);
		return;
	}
	if (request->stage == MIRROR_TO_ONE) {
		doubt(mirror, 0);
		complete(request, request->status);
		return;
	}
	/* First: if all has been in sync another leg takes the place of the first. */
	fail_legs(request);
	/* Its mark stays until it is recovered. */
	if (request->stage == MIRROR_TO_ALL)
		dmcore__mirror_unsync(mirror, request->region);
	/* Leg 0 has it, and is what a restart believes; and so has the one that is copied from. */
	if (!holds(mirror) && !(request->failed & (1u | 1u << atomic_load(&mirror->first_leg))))
		complete(request, 0);
	else
		hold_or_fail(request);
	dmcore__recovery_go_on(mirror);
	dmcore__log_flush(mirror);
}
