/* SPDX-License-Identifier: MIT */
/*
 * Recovery: regions whose legs differ are copied from the first leg to the others, while writes to
 * them wait. Neighbours are copied in one go, several runs of them at a time; while others use the
 * mirror it is one short run at a time with long pauses between. Who has been round begins again at
 * the start as long as there is something left; what fails is tried again region by region, and
 * after several failures later, and later each time. Called on the service.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/mirror/mirror.h"

#define RETRY_MIN_NS UINT64_C(1000000000)
#define RETRY_MAX_NS UINT64_C(60000000000)
/* A run: as many sectors, but one region if that is more; and as many regions. */
#define RUN_SECTORS 8192u
#define RUN_SECTORS_PACED 128u
#define RUN_REGIONS 64u
/* One after another before it waits: the leg may be gone. */
#define FAILURES_MAX 8u
/* Beside others: after each run a pause of as many times its length, between these: a run that hung
 * on a leg says nothing of the next one. */
#define PACE 128u
#define PACE_MIN_NS UINT64_C(10000000)
#define PACE_MAX_NS UINT64_C(10000000000)

int dmcore__recovery_create(struct mirror *mirror)
{
	struct mirror_recovery *recovery = &mirror->recovery;

	dmcore__mirror_list_init(&recovery->waiters);
	recovery->retry_ns = RETRY_MIN_NS;
	for (uint32_t i = 0; i < MIRROR_RUNS; i++)
		recovery->runs[i].mirror = mirror;
	return kcopyd_client_create(mirror->service, MIRROR_PAGES, &recovery->kc);
}

void dmcore__recovery_destroy(struct mirror *mirror)
{
	kcopyd_client_destroy(mirror->recovery.kc);
}

/* ---- time ---- */

static void wait_for(struct mirror *mirror, void (*fn)(struct dmcore_timer *timer), uint64_t ns)
{
	struct dmcore_timer *timer = &mirror->recovery.timer;

	if (timer->previous || !mirror->recovery.running)
		return;
	timer->fn = fn;
	dmcore_timer_start(mirror->service, timer, dmcore_clock_ns(mirror->core) + ns);
}

static void try_again(struct dmcore_timer *timer)
{
	struct mirror *mirror = dmcore__container_of(timer, struct mirror, recovery.timer);

	mirror->recovery.num_failed = 0;
	dmcore__recovery_go_on(mirror);
	dmcore__log_flush(mirror);
}

static void wait_to_try_again(struct mirror *mirror)
{
	struct mirror_recovery *recovery = &mirror->recovery;

	if (recovery->timer.previous)
		return;
	wait_for(mirror, try_again, recovery->retry_ns);
	recovery->retry_ns = dmcore__min_u64(2 * recovery->retry_ns, RETRY_MAX_NS);
}

static void pause_ended(struct dmcore_timer *timer)
{
	struct mirror *mirror = dmcore__container_of(timer, struct mirror, recovery.timer);

	mirror->recovery.paced = dmcore__mirror_in_use(mirror, MIRROR_RECOVERY_LOOKS);
	dmcore__recovery_go_on(mirror);
	dmcore__log_flush(mirror);
}

/* Leaves the legs to others for a while, if there are any. */
static void pace(struct mirror *mirror, const struct mirror_run *run)
{
	uint64_t length_ns = dmcore_clock_ns(mirror->core) - run->started_ns;
	uint64_t pause_ns = length_ns * PACE;

	if (dmcore__mirror_in_use(mirror, MIRROR_RECOVERY_LOOKS))
		mirror->recovery.paced = true;
	if (mirror->recovery.paced)
		wait_for(mirror, pause_ended,
			 dmcore__min_u64(dmcore__max_u64(pause_ns, PACE_MIN_NS), PACE_MAX_NS));
}

/* ---- a run ---- */

void dmcore__recovery_let_waiters_go(struct mirror *mirror)
{
	struct mirror_list waiting = mirror->recovery.waiters;
	struct mirror_request *request = waiting.head;

	dmcore__mirror_list_init(&mirror->recovery.waiters);
	while (request) {
		struct mirror_request *next = request->next;

		dmcore__mirror_run(request);
		request = next;
	}
	/* Places have become free. */
	if (atomic_load(&mirror->regions->wanted))
		dmcore__mirror_wake(mirror);
}

static void all_in_sync(struct mirror *mirror)
{
	for (uint32_t i = 0; i < mirror->num_legs; i++)
		atomic_store(&mirror->legs[i].failures, 0);
	atomic_store(&mirror->leg_failed, false);
	atomic_store(&mirror->first_leg, 0);
	mirror->first_may_lose = false;
	dmcore_target_event(mirror->target);
	dmcore__mirror_run_held(mirror);
}

static void note_failures(struct mirror *mirror, const struct mirror_run *run)
{
	const struct kcopyd_job *job = &run->job;
	uint32_t first = atomic_load(&mirror->first_leg);
	uint32_t dest = 0;

	if (job->read_err)
		dmcore__mirror_fail_leg(mirror, first, MIRROR_SYNC_FAILED);
	for (uint32_t leg = 0; leg < mirror->num_legs; leg++) {
		if (leg == first && !run->with_first)
			continue;
		if (job->write_err >> dest++ & 1)
			dmcore__mirror_fail_leg(mirror, leg, MIRROR_SYNC_FAILED);
	}
}

/* One bad sector doesn't keep its neighbours from being recovered. */
static void run_failed(struct mirror *mirror, const struct mirror_run *run)
{
	struct mirror_recovery *recovery = &mirror->recovery;

	note_failures(mirror, run);
	recovery->num_failed++;
	if (run->num_regions == 1)
		return;
	recovery->cursor = dmcore__min_u64(recovery->cursor, run->region);
	if (recovery->single_end < run->region + run->num_regions)
		recovery->single_end = run->region + run->num_regions;
}

static void run_succeeded(struct mirror *mirror, const struct mirror_run *run)
{
	mirror->recovery.retry_ns = RETRY_MIN_NS;
	mirror->recovery.num_failed = 0;
	for (uint32_t i = 0; i < run->num_regions; i++) {
		dmcore__log_set_sync(mirror, run->region + i, true);
		dmcore__clean_region(mirror, run->region + i);
	}
	dmcore__clean_later(mirror);
	if (atomic_load(&mirror->log.num_in_sync) == mirror->log.num_regions)
		all_in_sync(mirror);
}

static void recovered(struct kcopyd_job *job)
{
	struct mirror_run *run = job->context;
	struct mirror *mirror = run->mirror;
	struct mirror_run done = *run;

	for (uint32_t i = 0; i < run->num_regions; i++)
		dmcore__region_remove(mirror->regions, run->region + i);
	run->num_regions = 0;
	run->copies = false;
	mirror->recovery.num_busy--;
	/* What a leg has lost on the way it hasn't got. */
	if (job->status == 0 && done.num_flush_failures == mirror->num_flush_failures)
		run_succeeded(mirror, &done);
	else
		run_failed(mirror, &done);
	pace(mirror, &done);
	dmcore__recovery_let_waiters_go(mirror);
	dmcore__recovery_go_on(mirror);
	dmcore__log_flush(mirror);
}

static void copy(struct mirror *mirror, struct mirror_run *run)
{
	struct kcopyd_job *job = &run->job;
	uint32_t shift = mirror->log.region_shift;
	uint64_t sector = run->region << shift;
	uint32_t first = atomic_load(&mirror->first_leg);

	job->from.bdev = mirror->legs[first].bdev;
	job->from.sector = dmcore__mirror_leg_sector(&mirror->legs[first], sector);
	job->from.count = dmcore__min_u64((uint64_t)run->num_regions << shift,
					  dmcore_target_len(mirror->target) - sector);
	run->with_first = mirror->first_may_lose;
	job->num_dests = 0;
	for (uint32_t leg = 0; leg < mirror->num_legs; leg++) {
		struct dmio_region *dest = &job->dests[job->num_dests];

		if (leg == first && !run->with_first)
			continue;
		dest->bdev = mirror->legs[leg].bdev;
		dest->sector = dmcore__mirror_leg_sector(&mirror->legs[leg], sector);
		job->num_dests++;
	}
	job->flags = 0;
	job->done = recovered;
	job->context = run;
	run->copies = true;
	run->num_flush_failures = mirror->num_flush_failures;
	run->started_ns = dmcore_clock_ns(mirror->core);
	if (kcopyd_submit(mirror->recovery.kc, job)) {
		job->status = -EIO;
		job->read_err = 0;
		job->write_err = 0;
		recovered(job);
	}
}

/* ---- which come next ---- */

bool dmcore__recovery_take(struct mirror *mirror, uint64_t region)
{
	uint64_t evicted = UINT64_MAX;

	if (dmcore__region_state(mirror->regions, region) != REGION_ABSENT) {
		dmcore__region_set(mirror->regions, region, REGION_RECOVERING);
		return true;
	}
	if (!dmcore__region_add(mirror->regions, region, REGION_RECOVERING, &evicted))
		return false;
	if (evicted != UINT64_MAX)
		dmcore__clean_region(mirror, evicted);
	return true;
}

/* The next region from the cursor on that is neither in sync nor being recovered. */
static uint64_t next_region(const struct mirror *mirror, uint64_t from)
{
	uint64_t region = dmcore__log_next_unsynced(&mirror->log, from);

	while (region != UINT64_MAX &&
	       dmcore__region_state(mirror->regions, region) == REGION_RECOVERING)
		region = dmcore__log_next_unsynced(&mirror->log, region + 1);
	return region;
}

/* Where to begin; UINT64_MAX: there is nothing to do now. */
static uint64_t choose(struct mirror *mirror)
{
	struct mirror_recovery *recovery = &mirror->recovery;
	uint64_t region = next_region(mirror, recovery->cursor);

	if (region != UINT64_MAX)
		return region;
	recovery->cursor = 0;
	recovery->single_end = 0;
	return next_region(mirror, 0);
}

static uint32_t run_regions_max(const struct mirror *mirror, uint64_t region)
{
	const struct mirror_recovery *recovery = &mirror->recovery;
	uint64_t sectors = recovery->paced ? RUN_SECTORS_PACED : RUN_SECTORS;
	uint64_t regions = sectors >> mirror->log.region_shift;

	if (regions <= 1 || region < recovery->single_end)
		return 1;
	return (uint32_t)dmcore__min_u64(regions, RUN_REGIONS);
}

static bool fill(struct mirror *mirror, struct mirror_run *run)
{
	uint64_t region = choose(mirror);
	uint32_t max;

	if (region == UINT64_MAX)
		return false;
	run->region = region;
	max = run_regions_max(mirror, region);
	while (run->num_regions < max &&
	       dmcore__recovery_take(mirror, run->region + run->num_regions)) {
		run->num_regions++;
		if (next_region(mirror, run->region + run->num_regions) !=
		    run->region + run->num_regions)
			break;
	}
	mirror->recovery.cursor = run->region + run->num_regions;
	if (run->num_regions == 0)
		return false;
	mirror->recovery.num_busy++;
	return true;
}

static bool may_begin(const struct mirror_recovery *recovery)
{
	return recovery->running && !recovery->timer.previous &&
	       recovery->num_failed < FAILURES_MAX &&
	       (!recovery->paced || recovery->num_busy == 0);
}

void dmcore__recovery_go_on(struct mirror *mirror)
{
	struct mirror_recovery *recovery = &mirror->recovery;
	bool more = true;

	if (recovery->busy)
		return;
	/* A run may end while it is begun. */
	recovery->busy = true;
	for (uint32_t i = 0; i < MIRROR_RUNS; i++) {
		struct mirror_run *run = &recovery->runs[i];

		if (run->num_regions == 0 && more && may_begin(recovery))
			more = fill(mirror, run);
		if (run->num_regions > 0 && !run->copies &&
		    !dmcore__regions_are_entered(mirror->regions, run->region, run->num_regions))
			copy(mirror, run);
	}
	recovery->busy = false;
	if (recovery->running && recovery->num_busy == 0 && recovery->num_failed > 0)
		wait_to_try_again(mirror);
	if (!recovery->running && recovery->num_busy == 0 && recovery->idle_call &&
	    dmcore__scrub_is_idle(mirror)) {
		struct dmcore_call *call = recovery->idle_call;

		recovery->idle_call = NULL;
		dmcore_service_return(call, 0);
	}
}

void dmcore__recovery_put_off(struct mirror *mirror)
{
	mirror->recovery.num_failed = FAILURES_MAX;
	dmcore__recovery_go_on(mirror);
}

void dmcore__recovery_start(struct mirror *mirror)
{
	mirror->recovery.running = true;
	mirror->recovery.cursor = 0;
	mirror->recovery.num_failed = 0;
	mirror->recovery.single_end = 0;
	mirror->recovery.retry_ns = RETRY_MIN_NS;
	dmcore__recovery_go_on(mirror);
}

/* A run that waits for those inside: who stops recovery may be the one that they wait for. */
static void give_up(struct mirror *mirror, struct mirror_run *run)
{
	if (run->num_regions == 0 || run->copies)
		return;
	for (uint32_t i = 0; i < run->num_regions; i++) {
		uint64_t region = run->region + i;

		if (dmcore__region_inside(mirror->regions, region) > 0)
			dmcore__region_set(mirror->regions, region, REGION_NOSYNC);
		else
			dmcore__region_remove(mirror->regions, region);
	}
	run->num_regions = 0;
	mirror->recovery.num_busy--;
}

void dmcore__recovery_stop(struct mirror *mirror, struct dmcore_call *call)
{
	mirror->recovery.running = false;
	dmcore_timer_cancel(mirror->service, &mirror->recovery.timer);
	for (uint32_t i = 0; i < MIRROR_RUNS; i++)
		give_up(mirror, &mirror->recovery.runs[i]);
	dmcore__recovery_let_waiters_go(mirror);
	mirror->recovery.idle_call = call;
	dmcore__recovery_go_on(mirror);
}
