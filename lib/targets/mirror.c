/* SPDX-License-Identifier: MIT */
/*
 * mirror: two to nine devices that hold the same, and a log of where they may not.
 *
 * Table line:  <start> <length> mirror <core|disk> <#log_args> [<log device>] <region sectors>
 *		[sync|nosync] <#legs> {<device> <offset>}
 *		[<#features> [handle_errors] [keep_log] [balance_reads]
 *			     [write_behind <leg> <sectors>]]
 *
 * A read goes to the first leg that is well, or, where the legs may differ, to the first one alone.
 * A write goes to all legs; one to a region that is active does so at once, on the thread of the
 * request. All else is the service's: see targets/mirror/mirror.h. Called by the core through the
 * type at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <strings.h>

#include "base/compiler.h"
#include "targets/mirror/mirror.h"

static int mirror_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	return dmcore__mirror_construct(target, args);
}

/* ---- calls to the service ---- */

struct order {
	struct dmcore_call call;
	struct mirror *mirror;
	int ret;
};

static struct mirror *mirror_of(struct dmcore_call *call)
{
	return dmcore__container_of(call, struct order, call)->mirror;
}

static int give(struct mirror *mirror, void (*fn)(struct dmcore_call *call), bool immediate)
{
	struct order order = { .call = { .fn = fn, .immediate = immediate }, .mirror = mirror };

	return dmcore_service_call(mirror->core, &order.call);
}

static void end(struct dmcore_call *call)
{
	struct mirror *mirror = mirror_of(call);

	if (mirror->recovery.kc)
		dmcore__recovery_destroy(mirror);
	mirror->recovery.kc = NULL;
	dmcore_service_return(call, 0);
}

static void mirror_dtr(struct dmcore_target *target)
{
	struct mirror *mirror = target->private_data;

	/* Behind all that has been posted. */
	if (mirror->recovery.kc)
		give(mirror, end, true);
	dmcore_free(mirror->core, mirror->regions);
	dmcore__behind_free(mirror);
	dmcore__log_destroy(mirror);
}

/* ---- the way of a bio ---- */

static void keep(struct mirror_request *request, struct mirror *mirror, struct dmcore_bio *bio)
{
	request->mirror = mirror;
	request->bio = bio;
	request->sector = bio->sector - mirror->target->begin;
	request->count = bio->count;
	request->vecs = bio->vecs;
	request->num_vecs = bio->num_vecs;
	request->vec_offset_bytes = bio->vec_offset_bytes;
	request->flags = bio->flags;
	request->op = bio->op;
	request->region = request->sector >> mirror->log.region_shift;
	request->failed = 0;
	request->torn = false;
	request->again = false;
}

static void post(struct mirror_request *request, void (*fn)(struct dmcore_work *work))
{
	request->work.fn = fn;
	dmcore_queue_post(request->mirror->service, &request->work);
}

static enum dmcore_map_result send_to(const struct mirror *mirror,
				      const struct mirror_request *request,
				      struct dmcore_bio *bio, uint32_t leg)
{
	bio->bdev = mirror->legs[leg].bdev;
	bio->sector = dmcore__mirror_leg_sector(&mirror->legs[leg], request->sector);
	return DMCORE_MAP_REMAPPED;
}

/* Whether a leg may lack what has been acknowledged. What is behind and fails puts its region out
 * of sync before it is counted off. */
static bool is_behind(const struct mirror *mirror, const struct mirror_request *request,
		      uint32_t leg)
{
	return dmcore__unlikely(dmcore__mirror_lags(mirror, leg)) &&
	       (atomic_load(&mirror->behind.num_writes) > 0 ||
		!dmcore__log_in_sync(&mirror->log, request->region));
}

static enum dmcore_map_result map_read(struct mirror *mirror, struct mirror_request *request,
				       struct dmcore_bio *bio)
{
	uint32_t leg = dmcore__mirror_read_leg(mirror, request->region);

	request->stage = MIRROR_OUTSIDE;
	if (leg == MIRROR_NO_LEG || (bio->flags & DMCORE_BIO_RAHEAD &&
				     !dmcore__log_in_sync(&mirror->log, request->region)))
		return DMCORE_MAP_KILL;
	if (is_behind(mirror, request, leg)) {
		post(request, dmcore__behind_await);
		return DMCORE_MAP_SUBMITTED;
	}
	dmcore__mirror_count_read(mirror, request, leg);
	return send_to(mirror, request, bio, leg);
}

static enum dmcore_map_result send_to_all(const struct mirror *mirror,
					  struct mirror_request *request, struct dmcore_bio *bio)
{
	request->sent = dmcore__mirror_all_legs(mirror);
	dmcore_bio_send_copies(bio, request->sent);
	return DMCORE_MAP_SUBMITTED;
}

/* A leg that lags needn't be flushed while the others are well: what it lacks is marked. */
static enum dmcore_map_result map_flush(const struct mirror *mirror,
					struct mirror_request *request, struct dmcore_bio *bio)
{
	request->stage = MIRROR_FLUSH;
	request->num_told = atomic_load_explicit(&mirror->num_told, memory_order_acquire);
	if (dmcore__likely(!mirror->behind.leg))
		return send_to_all(mirror, request, bio);
	if (atomic_load(&mirror->leg_failed)) {
		post(request, dmcore__behind_await);
		return DMCORE_MAP_SUBMITTED;
	}
	request->sent = dmcore__mirror_all_legs(mirror) & ~(1u << mirror->behind.leg);
	dmcore_bio_send_copies(bio, request->sent);
	return DMCORE_MAP_SUBMITTED;
}

static enum dmcore_map_result map_write(struct mirror *mirror, struct mirror_request *request,
					struct dmcore_bio *bio)
{
	enum region_state state = REGION_ABSENT;

	/* All writes have to keep the order of those that one leg gets later. */
	if (dmcore__likely(!mirror->behind.leg))
		state = dmcore__region_enter(mirror->regions, request->region);
	if (dmcore__likely(state == REGION_DIRTY && dmcore__log_is_well(&mirror->log))) {
		request->stage = MIRROR_TO_ALL;
		return send_to_all(mirror, request, bio);
	}
	if (state == REGION_NOSYNC && !atomic_load(&mirror->leg_failed)) {
		request->stage = MIRROR_TO_ONE;
		request->leg = 0;
		return send_to(mirror, request, bio, 0);
	}
	if (state == REGION_DIRTY || state == REGION_NOSYNC) {
		if (dmcore__region_leave(mirror->regions, request->region))
			dmcore__mirror_wake(mirror);
	}
	request->stage = MIRROR_OUTSIDE;
	post(request, dmcore__mirror_write);
	return DMCORE_MAP_SUBMITTED;
}

static enum dmcore_map_result mirror_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct mirror_request *request = dmcore_bio_target_data(bio);
	struct mirror *mirror = target->private_data;

	keep(request, mirror, bio);
	if (atomic_load_explicit(&mirror->in_use, memory_order_relaxed) != MIRROR_IN_USE)
		atomic_store_explicit(&mirror->in_use, MIRROR_IN_USE, memory_order_relaxed);
	if (bio->op == DMCORE_OP_READ)
		return map_read(mirror, request, bio);
	if (bio->op != DMCORE_OP_FLUSH)
		return map_write(mirror, request, bio);
	return map_flush(mirror, request, bio);
}

static void mirror_map_copy(struct dmcore_target *target, void *per_bio, struct dmcore_bio *copy)
{
	const struct mirror_request *request = per_bio;
	const struct mirror *mirror = target->private_data;
	const struct mirror_leg *leg = &mirror->legs[copy->bio_nr];

	copy->bdev = leg->bdev;
	copy->sector = dmcore__mirror_leg_sector(leg, request->sector);
}

/* ---- its end ---- */

static enum dmcore_end_result read_failed(struct mirror *mirror, struct mirror_request *request,
					  struct dmcore_bio *bio, int *status)
{
	uint32_t leg = MIRROR_NO_LEG;

	if (request->flags & (DMCORE_BIO_RAHEAD | DMCORE_BIO_NOWAIT) || *status == -EOPNOTSUPP)
		return DMCORE_END_DONE;
	dmcore__mirror_fail_read(mirror, request->leg);
	if (dmcore__log_in_sync(&mirror->log, request->region))
		leg = dmcore__mirror_choose_leg(mirror);
	if (leg == MIRROR_NO_LEG) {
		*status = -EIO;
		return DMCORE_END_DONE;
	}
	if (is_behind(mirror, request, leg)) {
		request->stage = MIRROR_OUTSIDE;
		post(request, dmcore__behind_await);
		return DMCORE_END_INCOMPLETE;
	}
	bio->count = request->count;
	bio->vecs = request->vecs;
	bio->num_vecs = request->num_vecs;
	bio->vec_offset_bytes = request->vec_offset_bytes;
	dmcore__mirror_count_read(mirror, request, leg);
	send_to(mirror, request, bio, leg);
	return DMCORE_END_AGAIN;
}

static void mirror_end_copy(struct dmcore_target *target, void *per_bio, uint32_t bio_nr,
			    int status)
{
	struct mirror_request *request = per_bio;
	struct mirror *mirror = target->private_data;

	if (dmcore__likely(status == 0))
		return;
	request->failed |= 1u << bio_nr;
	request->torn |= status != -EOPNOTSUPP;
	if (bio_nr == 0 && (request->op == DMCORE_OP_FLUSH || request->flags & DMCORE_BIO_FUA))
		atomic_fetch_add(&mirror->num_lost, 1);
}

/* What a failed flush was to cover no other one covers: not those that came before anybody had been
 * told of it. */
static bool missed_a_failure(const struct mirror *mirror, const struct mirror_request *request)
{
	return atomic_load_explicit(&mirror->num_lost, memory_order_acquire) != request->num_told;
}

static enum dmcore_end_result mirror_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					    int *status)
{
	struct mirror_request *request = dmcore_bio_target_data(bio);
	struct mirror *mirror = target->private_data;

	if (request->stage == MIRROR_READ && dmcore__unlikely(mirror->balances_reads))
		atomic_fetch_sub_explicit(&mirror->loads[request->leg].num_reads, 1,
					  memory_order_relaxed);
	if (request->stage == MIRROR_FLUSH && dmcore__unlikely(missed_a_failure(mirror, request))) {
		request->failed |= 1;
		*status = -EIO;
	}
	if (dmcore__unlikely(*status)) {
		if (request->stage == MIRROR_READ)
			return read_failed(mirror, request, bio, status);
		if (request->stage == MIRROR_OUTSIDE)
			return DMCORE_END_DONE;
		if (request->stage == MIRROR_TO_ONE && request->flags & DMCORE_BIO_FUA)
			atomic_fetch_add(&mirror->num_lost, 1);
		request->status = *status;
		post(request, dmcore__mirror_failed);
		return DMCORE_END_INCOMPLETE;
	}
	if (request->stage != MIRROR_TO_ALL && request->stage != MIRROR_TO_ONE)
		return DMCORE_END_DONE;
	request->stage = MIRROR_OUTSIDE;
	if (dmcore__region_leave(mirror->regions, request->region))
		dmcore__mirror_wake(mirror);
	return DMCORE_END_DONE;
}

static unsigned int mirror_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

/* ---- suspend and resume ---- */

static void start_recovery(struct dmcore_call *call)
{
	struct mirror *mirror = mirror_of(call);

	mirror->suspending = false;
	dmcore__clean_later(mirror);
	dmcore__recovery_start(mirror);
	dmcore__log_flush(mirror);
	dmcore_service_return(call, 0);
}

static void make_client(struct dmcore_call *call)
{
	dmcore_service_return(call, dmcore__recovery_create(mirror_of(call)));
}

static int mirror_preresume(struct dmcore_target *target)
{
	struct mirror *mirror = target->private_data;
	int ret = 0;

	if (!mirror->recovery.kc)
		ret = give(mirror, make_client, true);
	return ret ? ret : dmcore__log_load(mirror);
}

static void mirror_resume(struct dmcore_target *target)
{
	give(target->private_data, start_recovery, true);
}

static void stop(struct dmcore_call *call)
{
	struct mirror *mirror = mirror_of(call);

	mirror->suspending = true;
	dmcore__mirror_release(mirror);
	dmcore__scrub_stop(mirror);
	dmcore__recovery_stop(mirror, call);
}

static void mirror_presuspend(struct dmcore_target *target)
{
	give(target->private_data, stop, false);
}

static void mirror_presuspend_undo(struct dmcore_target *target)
{
	give(target->private_data, start_recovery, true);
}

static void clean(struct dmcore_call *call)
{
	struct mirror *mirror = mirror_of(call);

	if (dmcore__behind_delays(mirror, call))
		return;
	dmcore__clean_all(mirror);
	dmcore__log_finish(mirror, call);
}

static void mirror_postsuspend(struct dmcore_target *target)
{
	give(target->private_data, clean, false);
}

/* ---- the rest ---- */

static int mirror_message(struct dmcore_target *target, struct dmcore_args *args,
			  struct dmcore_text *reply)
{
	struct mirror *mirror = target->private_data;
	const char *word = dmcore_args_next(args);

	if (strcasecmp(word, "scrub") == 0)
		return dmcore__scrub_message(mirror, args, reply);
	if (strcasecmp(word, "behind") != 0)
		return dmcore_args_fail(args, -EINVAL, "messages are: scrub, behind");
	if (dmcore_args_left(args) > 0)
		return dmcore_args_fail(args, -EINVAL, "behind takes nothing");
	dmcore_text_printf(reply, "behind %" PRIu32 " %" PRIu32 " %" PRIu32,
			   atomic_load(&mirror->behind.num_writes),
			   atomic_load(&mirror->behind.used_sectors),
			   mirror->behind.limit_sectors);
	return 0;
}

static int mirror_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				  void *context)
{
	const struct mirror *mirror = target->private_data;
	int ret = 0;

	for (uint32_t i = 0; i < mirror->num_legs && ret == 0; i++)
		ret = fn(target, mirror->legs[i].bdev, mirror->legs[i].offset_sectors,
			 dmcore_target_len(target), context);
	return ret;
}

extern const struct dmcore_target_type dmcore__target_mirror;

const struct dmcore_target_type dmcore__target_mirror = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "mirror",
	.version = { 1, 14, 0 },
	.features = DMCORE_TARGET_TYPE_REQUEUES,
	.per_bio_bytes = sizeof(struct mirror_request),
	.ctr = mirror_ctr,
	.dtr = mirror_dtr,
	.map = mirror_map,
	.end_io = mirror_end_io,
	.num_bios = mirror_num_bios,
	.presuspend = mirror_presuspend,
	.presuspend_undo = mirror_presuspend_undo,
	.postsuspend = mirror_postsuspend,
	.preresume = mirror_preresume,
	.resume = mirror_resume,
	.status = dmcore__mirror_status,
	.message = mirror_message,
	.iterate_devices = mirror_iterate_devices,
	.map_copy = mirror_map_copy,
	.end_copy = mirror_end_copy,
};
