/* SPDX-License-Identifier: MIT */
/*
 * The calls that start, stop and look at jobs. A job is checked here, whole, before anything of it
 * starts. Called by applications and targets.
 */
#include <errno.h>
#include <string.h>

#include <dmcore/bdev.h>
#include <dmcore/driver.h>

#include "base/checked.h"
#include "base/error.h"
#include "bdev/bdev.h"
#include "kcopyd/kcopyd.h"
#include "queue/queue.h"

/* ---- checks ---- */

static int check_flags(const struct kcopyd_job *job)
{
	if (job->flags & ~KCOPYD_FLAGS_ALL)
		return dmcore__error(-EINVAL, "kcopyd: unknown flag in %#x", job->flags);
	if ((job->flags & (KCOPYD_DESTS_ZEROED | KCOPYD_SPARSE)) == KCOPYD_DESTS_ZEROED)
		return dmcore__error(-EINVAL, "kcopyd: KCOPYD_DESTS_ZEROED needs KCOPYD_SPARSE");
	if (job->data && (job->flags & (KCOPYD_SPARSE | KCOPYD_SHARE | KCOPYD_VERIFY)))
		return dmcore__error(-EINVAL, "kcopyd: a job with a data function can't be sparse, "
					      "share blocks, or be verified");
	if (job->data && !job->from.bdev)
		return dmcore__error(-EINVAL, "kcopyd: a data function without a source");
	return 0;
}

/* Checks one region of a job, and takes its block into account. */
static int check_region(const struct kcopyd_client *kc, const struct dmio_region *region,
			struct kcopyd_job *job)
{
	struct kcopyd_job_internal *internal = &job->internal;
	uint64_t end;
	uint32_t block;

	if (!region->bdev)
		return dmcore__error(-EINVAL, "kcopyd: a destination without a device");
	if (dmcore_bdev_core(region->bdev) != kc->queue->core)
		return dmcore__error(-EINVAL, "kcopyd: %s belongs to another core",
				     dmcore_bdev_name(region->bdev));
	if (dmcore__add_overflows(region->sector, internal->count, &end) ||
	    end > DMCORE_DEVICE_SECTORS_MAX)
		return dmcore__error(-EINVAL, "kcopyd: sectors that no device has, on %s",
				     dmcore_bdev_name(region->bdev));
	block = dmcore__bdev_block_mask(region->bdev) + 1;
	if (block > internal->block_sectors)
		internal->block_sectors = block;
	return 0;
}

static int check_regions(const struct kcopyd_client *kc, struct kcopyd_job *job)
{
	unsigned int frees = DMCORE_CAP_DISCARD | DMCORE_CAP_DISCARD_ZEROES;
	unsigned int caps = DMCORE_CAP_WRITE_ZEROES | frees;
	int ret = 0;

	if (job->num_dests == 0 || job->num_dests > KCOPYD_DESTS_MAX)
		return dmcore__error(-EINVAL, "kcopyd: %u destinations, a job has 1 to %d",
				     job->num_dests, KCOPYD_DESTS_MAX);
	job->internal.block_sectors = 1;
	job->internal.count = job->from.bdev ? job->from.count : job->dests[0].count;
	if (job->from.bdev)
		ret = check_region(kc, &job->from, job);
	for (unsigned int i = 0; i < job->num_dests && ret == 0; i++) {
		struct dmcore_limits limits = { .struct_size = sizeof(limits) };

		ret = check_region(kc, &job->dests[i], job);
		if (ret == 0) {
			dmcore_bdev_limits(job->dests[i].bdev, &limits);
			caps &= limits.caps;
			/* Another table may take over whose devices keep what they discard. */
			if (dmcore__bdev_route(job->dests[i].bdev))
				caps &= ~frees;
		}
	}
	if (caps & DMCORE_CAP_WRITE_ZEROES)
		kcopyd__job_note(job, KCOPYD__HAS_ZEROES);
	/* What can't be discarded after all is zeroed in a second try: not in sequence. */
	if ((caps & frees) == frees && job->from.bdev && !(job->flags & KCOPYD_WRITE_SEQ))
		kcopyd__job_note(job, KCOPYD__CAN_FREE);
	return ret;
}

/* Whether the client's pages hold what the devices take at the least. */
static int check_pages(const struct kcopyd_client *kc, struct kcopyd_job *job)
{
	struct kcopyd_job_internal *internal = &job->internal;
	uint64_t room_sectors = (uint64_t)kc->pages.total * KCOPYD__PAGE_SECTORS;
	uint64_t blocks = job->flags & KCOPYD_VERIFY ? 2 : 1;

	if (room_sectors < blocks * internal->block_sectors &&
	    (job->from.bdev || job->flags & KCOPYD_VERIFY))
		return dmcore__error(-EINVAL, "kcopyd: %u pages don't hold %u blocks of %u sectors",
				     kc->pages.total, (unsigned int)blocks,
				     internal->block_sectors);
	internal->slice_sectors = kc->subjob_sectors / internal->block_sectors *
				  internal->block_sectors;
	if (internal->slice_sectors == 0)
		internal->slice_sectors = internal->block_sectors;
	return 0;
}

/* Copies over itself: in which order, so that nothing is overwritten before it was read. */
static int check_overlap(struct kcopyd_job *job)
{
	uint64_t count = job->internal.count;
	bool before = false;
	bool behind = false;

	for (unsigned int i = 0; i < job->num_dests && job->from.bdev; i++) {
		const struct dmio_region *dest = &job->dests[i];

		if (dest->bdev != job->from.bdev || dest->sector >= job->from.sector + count ||
		    job->from.sector >= dest->sector + count)
			continue;
		kcopyd__job_note(job, KCOPYD__SERIAL);
		if (dest->sector < job->from.sector)
			before = true;
		else if (dest->sector > job->from.sector)
			behind = true;
	}
	if (!kcopyd__job_has(job, KCOPYD__SERIAL))
		return 0;
	if (before && behind)
		return dmcore__error(-EINVAL, "kcopyd: destinations overlap the source on both "
					      "sides; copy to one after the other");
	if (job->flags & KCOPYD_VERIFY)
		return dmcore__error(-EINVAL, "kcopyd: a destination overlaps the source, which "
					      "then can't be compared with it");
	if (behind && job->flags & KCOPYD_WRITE_SEQ)
		return dmcore__error(-EINVAL, "kcopyd: a destination overlaps the source from "
					      "behind, which can't be written in ascending order");
	if (behind)
		kcopyd__job_note(job, KCOPYD__DESCENDS);
	return 0;
}

int kcopyd__job_check(const struct kcopyd_client *kc, struct kcopyd_job *job)
{
	int ret = check_flags(job);

	if (ret == 0)
		ret = check_regions(kc, job);
	if (ret == 0)
		ret = check_pages(kc, job);
	return ret ? ret : check_overlap(job);
}

/* What every call that takes a job asks; empties the library's part of it. */
static int take_job(struct kcopyd_client *kc, struct kcopyd_job *job)
{
	if (!kc || !job || !job->done)
		return dmcore__error(-EINVAL, "kcopyd: no client, no job, or one without done");
	if (!dmcore__alive(kc->queue->core))
		return -EOWNERDEAD;
	if (job->internal.state != KCOPYD__IDLE)
		return dmcore__error(-EBUSY, "kcopyd: the job is under way");
	memset(&job->internal, 0, sizeof(job->internal));
	return 0;
}

/* ---- jobs of the caller's own ---- */

int kcopyd_submit(struct kcopyd_client *kc, struct kcopyd_job *job)
{
	int ret = take_job(kc, job);

	if (ret == 0)
		ret = kcopyd__job_check(kc, job);
	if (ret)
		return ret;
	kcopyd__job_begin(kc, job);
	kcopyd__job_set_state(job, KCOPYD__BUSY);
	kc->outstanding++;
	kcopyd__job_go_on(job);
	kcopyd__client_run(kc);
	return 0;
}

int kcopyd_cancel(struct kcopyd_job *job)
{
	if (!job || job->internal.state == KCOPYD__IDLE || job->internal.state == KCOPYD__PREPARED)
		return dmcore__error(-EINVAL, "kcopyd: no job that is under way");
	if (job->internal.state == KCOPYD__ENDED || kcopyd__job_has(job, KCOPYD__CANCELLED))
		return -EALREADY;
	kcopyd__job_stop(job);
	return 0;
}

int kcopyd_progress(const struct kcopyd_job *job, struct kcopyd_progress *progress)
{
	struct kcopyd_progress now = { .struct_size = sizeof(now) };
	const struct kcopyd_job_internal *internal;
	size_t size;

	if (!job || !progress || progress->struct_size < sizeof(progress->struct_size))
		return dmcore__error(-EINVAL, "kcopyd: no job, or struct_size isn't set");
	internal = &job->internal;
	size = progress->struct_size;
	now.struct_size = size;
	now.total_sectors = internal->count;
	now.position_sectors = kcopyd__job_position(job);
	now.copied_sectors = internal->counts[KCOPYD__COPIED];
	now.zeroed_sectors = internal->counts[KCOPYD__ZEROED];
	now.skipped_sectors = internal->counts[KCOPYD__SKIPPED];
	now.shared_sectors = internal->counts[KCOPYD__SHARED];
	now.failed_sectors = internal->counts[KCOPYD__LOST];
	now.verified_sectors = internal->counts[KCOPYD__VERIFIED];
	now.mismatch_sectors = internal->mismatch;
	memcpy(progress, &now, size < sizeof(now) ? size : sizeof(now));
	return 0;
}

/* ---- callbacks that the caller prepares ---- */

int kcopyd_prepare(struct kcopyd_client *kc, struct kcopyd_job *job)
{
	int ret = take_job(kc, job);

	if (ret)
		return ret;
	kcopyd__job_begin(kc, job);
	kcopyd__job_set_state(job, KCOPYD__PREPARED);
	kc->outstanding++;
	return 0;
}

static void prepared_work(struct dmcore_work *work)
{
	struct kcopyd_job *job = dmcore__container_of(work, struct kcopyd_job, internal.work);

	kcopyd__client_end(job->internal.client, job);
}

void kcopyd_do_callback(struct kcopyd_job *job, int read_err, unsigned int write_err)
{
	job->read_err = read_err;
	job->write_err = write_err;
	job->internal.work.fn = prepared_work;
	dmcore_queue_post(job->internal.client->queue, &job->internal.work);
}

/* ---- jobs of the client's pool ---- */

/* The job goes back first: the callback may need it for its next call. What was found to differ
 * has not been written, as far as that can tell. */
static void pool_job_done(struct kcopyd_job *job)
{
	struct kcopyd__pool_job *pooled = dmcore__container_of(job, struct kcopyd__pool_job, job);
	unsigned int write_err = job->write_err | job->verify_err;
	int read_err = job->read_err;

	dmcore__list_append(&pooled->client->free_jobs, kcopyd__job_link(job));
	pooled->notify(read_err, write_err, job->context);
}

/* Takes a job of the pool; it is gone from there only once it has been accepted. */
static int pool_job(struct kcopyd_client *kc, kcopyd_notify_fn fn, void *context,
		    struct kcopyd_job **result)
{
	struct kcopyd__pool_job *pooled;

	if (!kc || !fn)
		return dmcore__error(-EINVAL, "kcopyd: no client or no callback");
	if (!dmcore__alive(kc->queue->core))
		return -EOWNERDEAD;
	if (dmcore__list_empty(&kc->free_jobs))
		return -EAGAIN;
	pooled = dmcore__container_of(kcopyd__job_of(kc->free_jobs.next), struct kcopyd__pool_job,
				      job);
	pooled->notify = fn;
	pooled->job.done = pool_job_done;
	pooled->job.context = context;
	*result = &pooled->job;
	return 0;
}

static int start_pool_job(struct kcopyd_client *kc, const struct dmio_region *from,
			  unsigned int num_dests, const struct dmio_region *dests,
			  unsigned int flags, kcopyd_notify_fn fn, void *context)
{
	struct kcopyd_job *job = NULL;
	int ret = pool_job(kc, fn, context, &job);

	if (ret)
		return ret;
	if (!dests || num_dests == 0 || num_dests > KCOPYD_DESTS_MAX)
		return dmcore__error(-EINVAL, "kcopyd: %u destinations, a job has 1 to %d",
				     num_dests, KCOPYD_DESTS_MAX);
	if (from && !from->bdev)
		return dmcore__error(-EINVAL, "kcopyd: a source without a device");
	dmcore__list_remove(kcopyd__job_link(job));
	job->from = from ? *from : (struct dmio_region){ NULL, 0, 0 };
	job->num_dests = num_dests;
	memcpy(job->dests, dests, num_dests * sizeof(*dests));
	job->flags = flags;
	ret = kcopyd_submit(kc, job);
	if (ret) {
		dmcore__list_init(kcopyd__job_link(job));
		dmcore__list_append(&kc->free_jobs, kcopyd__job_link(job));
	}
	return ret;
}

int kcopyd_copy(struct kcopyd_client *kc, const struct dmio_region *from, unsigned int num_dests,
		const struct dmio_region *dests, unsigned int flags, kcopyd_notify_fn fn,
		void *context)
{
	return start_pool_job(kc, from, num_dests, dests, flags, fn, context);
}

int kcopyd_zero(struct kcopyd_client *kc, unsigned int num_dests, const struct dmio_region *dests,
		unsigned int flags, kcopyd_notify_fn fn, void *context)
{
	return start_pool_job(kc, NULL, num_dests, dests, flags, fn, context);
}

int kcopyd_prepare_callback(struct kcopyd_client *kc, kcopyd_notify_fn fn, void *context,
			    struct kcopyd_job **result)
{
	struct kcopyd_job *job = NULL;
	int ret;

	if (!result)
		return -EINVAL;
	*result = NULL;
	ret = pool_job(kc, fn, context, &job);
	if (ret)
		return ret;
	dmcore__list_remove(kcopyd__job_link(job));
	ret = kcopyd_prepare(kc, job);
	DMCORE__ASSERT(ret == 0);
	*result = job;
	return 0;
}
