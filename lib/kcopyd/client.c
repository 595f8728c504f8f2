/* SPDX-License-Identifier: MIT */
/*
 * Clients: all their memory is allocated when they are made. They give their jobs turns, one slice
 * each, and run the callbacks of those that have ended, one after another, from work of the queue.
 * Called by applications and by all of this folder.
 */
#include <errno.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/options.h"
#include "kcopyd/kcopyd.h"
#include "queue/queue.h"

/* Slices of all jobs under way: one for each page, within these. */
#define SLICES_MIN 16u
#define SLICES_MAX 64u
/* Turns that jobs get before the queue's other completions have theirs. */
#define TURNS_MAX 256u
/* Completions that one poll runs while a destroy waits. */
#define POLL_MAX 64u

static const char zero_page[DMIO_PAGE_BYTES] __attribute__((aligned(DMIO_PAGE_BYTES)));

/* ---- running ---- */

static void post_work(struct kcopyd_client *kc)
{
	if (kc->posted)
		return;
	kc->posted = true;
	dmcore_queue_post(kc->queue, &kc->work);
}

static void move_to(struct dmcore__list *line, struct kcopyd_job *job)
{
	dmcore__list_remove(kcopyd__job_link(job));
	dmcore__list_append(line, kcopyd__job_link(job));
}

/* Gives one job its turn, of those that have waited for pages if there may be some for it; false:
 * nobody can have one. */
static bool give_turn(struct kcopyd_client *kc, bool *no_pages)
{
	bool starves = !*no_pages && !dmcore__list_empty(&kc->starving);
	struct dmcore__list *line = starves ? &kc->starving : &kc->ready;
	struct kcopyd_job *job;

	if (dmcore__list_empty(line))
		return false;
	job = kcopyd__job_of(line->next);
	switch (kcopyd__job_turn(job)) {
	case KCOPYD__TURN_MORE:
		move_to(&kc->ready, job);
		break;
	case KCOPYD__TURN_STARVES:
		*no_pages = true;
		if (!starves)
			move_to(&kc->starving, job);
		break;
	case KCOPYD__TURN_WAITS:
		return false;
	case KCOPYD__TURN_BUSY:
		break;
	}
	return true;
}

/* Gives jobs their turns; true: there is more to give, later. */
static bool give_turns(struct kcopyd_client *kc)
{
	unsigned int turns = 0;
	bool no_pages = false;

	if (kc->running)
		return false;
	kc->running = true;
	while (turns < TURNS_MAX && give_turn(kc, &no_pages))
		turns++;
	kc->running = false;
	return turns == TURNS_MAX;
}

void kcopyd__client_run(struct kcopyd_client *kc)
{
	if (give_turns(kc))
		post_work(kc);
}

void kcopyd__client_queue(struct kcopyd_client *kc, struct kcopyd_job *job)
{
	kcopyd__job_set_state(job, KCOPYD__READY);
	dmcore__list_append(&kc->ready, kcopyd__job_link(job));
}

static int status_of(const struct kcopyd_job *job)
{
	if (kcopyd__job_has(job, KCOPYD__CANCELLED))
		return -ECANCELED;
	if (job->read_err || job->write_err)
		return -EIO;
	if (!job->verify_err)
		return 0;
	return job->internal.mismatch == UINT64_MAX ? -EIO : -EILSEQ;
}

void kcopyd__client_end(struct kcopyd_client *kc, struct kcopyd_job *job)
{
	job->status = status_of(job);
	kcopyd__job_set_state(job, KCOPYD__ENDED);
	dmcore__list_append(&kc->ended, kcopyd__job_link(job));
	post_work(kc);
}

/* Runs the callbacks that are there now: they may start jobs that end at once. The last one may
 * destroy the client. */
static void run_callbacks(struct kcopyd_client *kc)
{
	struct dmcore__list *last = kc->ended.prev;
	struct dmcore__list *link;

	if (dmcore__list_empty(&kc->ended))
		return;
	do {
		struct kcopyd_job *job;

		link = kc->ended.next;
		job = kcopyd__job_of(link);
		dmcore__list_remove(link);
		kcopyd__job_set_state(job, KCOPYD__IDLE);
		job->internal.client = NULL;
		kc->outstanding--;
		/* The job may be gone afterwards, and so may not be looked at. */
		job->done(job);
	} while (link != last);
}

static void run_work(struct dmcore_work *work)
{
	struct kcopyd_client *kc = dmcore__container_of(work, struct kcopyd_client, work);
	bool more = give_turns(kc);

	kc->posted = false;
	if (more)
		post_work(kc);
	run_callbacks(kc);
}

/* ---- making and destroying ---- */

static int check_options(struct dmcore_queue *queue, unsigned int num_pages,
			 struct kcopyd_options *options)
{
	uint64_t pages_sectors = (uint64_t)num_pages * KCOPYD__PAGE_SECTORS;

	if (num_pages == 0 || num_pages > KCOPYD_PAGES_MAX)
		return dmcore__error(-EINVAL, "kcopyd: %u pages, a client has 1 to %u", num_pages,
				     KCOPYD_PAGES_MAX);
	if (options->subjob_sectors > KCOPYD_SUBJOB_SECTORS_MAX ||
	    options->subjob_sectors % KCOPYD__PAGE_SECTORS)
		return dmcore__error(-EINVAL, "kcopyd: sub-jobs of %u sectors: a multiple of %u, "
				     "%u at the most", options->subjob_sectors,
				     KCOPYD__PAGE_SECTORS, KCOPYD_SUBJOB_SECTORS_MAX);
	if (options->jobs > KCOPYD_JOBS_MAX)
		return dmcore__error(-EINVAL, "kcopyd: %u jobs, %u at the most", options->jobs,
				     KCOPYD_JOBS_MAX);
	if (options->throttle && options->throttle->queue != queue)
		return dmcore__error(-EINVAL, "kcopyd: the throttle is another queue's");
	if (options->subjob_sectors == 0) {
		options->subjob_sectors = (unsigned int)dmcore__min_u64(
			pages_sectors / KCOPYD_SUBJOBS_MAX, KCOPYD_SUBJOB_SECTORS_DEFAULT);
		options->subjob_sectors -= options->subjob_sectors % KCOPYD__PAGE_SECTORS;
		if (options->subjob_sectors == 0)
			options->subjob_sectors = KCOPYD__PAGE_SECTORS;
	}
	options->subjob_sectors =
		(unsigned int)dmcore__min_u64(options->subjob_sectors, pages_sectors);
	if (options->jobs == 0)
		options->jobs = KCOPYD_JOBS_DEFAULT;
	return 0;
}

static int allocate(struct kcopyd_client *kc, unsigned int num_pages, unsigned int num_jobs)
{
	struct dmcore *core = kc->queue->core;
	unsigned int num_slices =
		(unsigned int)dmcore__min_u64(SLICES_MAX, dmcore__max_u64(SLICES_MIN, num_pages));
	int ret = kcopyd__pages_create(core, num_pages, &kc->pages);

	if (ret)
		return ret;
	kc->slices = dmcore__zalloc_array(core, num_slices, sizeof(*kc->slices));
	kc->jobs = dmcore__zalloc_array(core, num_jobs, sizeof(*kc->jobs));
	if (!kc->slices || !kc->jobs)
		return -ENOMEM;
	for (unsigned int i = 0; i < num_slices; i++) {
		kc->slices[i].client = kc;
		dmcore__list_append(&kc->free_slices, &kc->slices[i].link);
	}
	for (unsigned int i = 0; i < num_jobs; i++) {
		kc->jobs[i].client = kc;
		dmcore__list_append(&kc->free_jobs, kcopyd__job_link(&kc->jobs[i].job));
	}
	/* A request for each slice at least, and pieces to write to destinations at once. */
	return dmio_client_create(kc->queue, num_slices, &kc->io);
}

static void free_client(struct kcopyd_client *kc)
{
	struct dmcore *core = kc->queue->core;

	DMCORE__ASSERT(kc->pages.free == kc->pages.total || !dmcore__alive(core));
	kcopyd__throttle_leave(kc);
	dmio_client_destroy(kc->io);
	kcopyd__pages_destroy(core, &kc->pages);
	dmcore__free(core, kc->slices);
	dmcore__free(core, kc->jobs);
	dmcore__free(core, kc);
}

int kcopyd_client_create_with(struct dmcore_queue *queue, unsigned int num_pages,
			      const struct kcopyd_options *options, struct kcopyd_client **result)
{
	struct kcopyd_options settled = KCOPYD_OPTIONS_INIT;
	struct kcopyd_client *kc;
	int ret;

	if (!result)
		return -EINVAL;
	*result = NULL;
	if (!queue)
		return dmcore__error(-EINVAL, "kcopyd: a client needs a queue");
	if (options && !dmcore__struct_take(&settled, sizeof(settled), options))
		return dmcore__error(-EINVAL, "kcopyd options: struct_size isn't set");
	ret = check_options(queue, num_pages, &settled);
	if (ret)
		return ret;
	kc = dmcore__zalloc(queue->core, sizeof(*kc));
	if (!kc)
		return dmcore__error(-ENOMEM, "kcopyd: no memory for a client");
	kc->queue = queue;
	kc->subjob_sectors = settled.subjob_sectors;
	kc->work.fn = run_work;
	kc->zeroes.page = (void *)(uintptr_t)zero_page;
	kc->zeroes.next = &kc->zeroes;
	dmcore__list_init(&kc->ready);
	dmcore__list_init(&kc->starving);
	dmcore__list_init(&kc->ended);
	dmcore__list_init(&kc->free_slices);
	dmcore__list_init(&kc->free_jobs);
	dmcore_bio_init(&kc->share, queue);
	kcopyd__throttle_join(kc, settled.throttle);
	ret = allocate(kc, num_pages, settled.jobs);
	if (ret) {
		free_client(kc);
		return dmcore__error(ret, "kcopyd: no memory for a client of %u pages", num_pages);
	}
	*result = kc;
	return 0;
}

int kcopyd_client_create(struct dmcore_queue *queue, unsigned int num_pages,
			 struct kcopyd_client **result)
{
	return kcopyd_client_create_with(queue, num_pages, NULL, result);
}

int kcopyd_client_destroy(struct kcopyd_client *kc)
{
	int ret = 0;

	if (!kc)
		return 0;
	if (kc->closing ||
	    ((kc->outstanding > 0 || kc->posted) && dmcore__queue_polling(kc->queue)))
		return -EBUSY;
	kc->closing = true;
	/* In a child of fork() nothing will end: what is under way is the parent's. */
	while ((kc->outstanding > 0 || kc->posted) && ret != -EOWNERDEAD) {
		ret = dmcore_queue_poll(kc->queue, 1, POLL_MAX, -1);
		if (ret < 0 && ret != -EINTR && ret != -EOWNERDEAD) {
			kc->closing = false;
			return dmcore__error(ret, "kcopyd: %u jobs are under way", kc->outstanding);
		}
	}
	free_client(kc);
	return 0;
}
