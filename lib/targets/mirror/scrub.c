/* SPDX-License-Identifier: MIT */
/*
 * Scrub: all legs of the regions that are in sync are read and compared, piece by piece and in
 * order, while writes to the piece wait; beside others as slowly as recovery. Nothing is changed,
 * unless a repair is asked for: then a region that differs is marked in the log, and when that is
 * durable it isn't in sync any more, and recovery does the rest. dmcore__scrub_message() is called
 * by targets/mirror.c; all else runs on the service.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/mirror/mirror.h"

/* Of a piece. */
#define PIECE_SECTORS 256u
#define PIECE_SECTORS_PACED 128u
#define PIECE_BYTES (PIECE_SECTORS * DMCORE_SECTOR_BYTES)
/* As recovery has them. */
#define PACE 128u
#define PACE_MIN_NS UINT64_C(10000000)
#define PACE_MAX_NS UINT64_C(10000000000)

/* What a scrub needs while it is under way; the legs' buffers stand behind. */
struct scrub_memory {
	struct dmcore_bio bios[MIRROR_LEGS_MAX];
	unsigned char *buffers;
};

static struct scrub_memory *make_memory(const struct mirror *mirror)
{
	struct scrub_memory *memory =
		dmcore_zalloc(mirror->core, sizeof(*memory) + DMIO_PAGE_BYTES +
						    (size_t)mirror->num_legs * PIECE_BYTES);
	uintptr_t at = (uintptr_t)(memory + 1);

	if (memory)
		memory->buffers = (unsigned char *)(memory + 1) + (-at & (DMIO_PAGE_BYTES - 1));
	return memory;
}

static unsigned char *buffer_of(const struct mirror *mirror, uint32_t leg)
{
	return mirror->scrub.memory->buffers + (size_t)leg * PIECE_BYTES;
}

static uint64_t end_of_region(const struct mirror *mirror, uint64_t region)
{
	return dmcore__min_u64((region + 1) << mirror->log.region_shift,
			       dmcore_target_len(mirror->target));
}

static void pause_ended(struct dmcore_timer *timer)
{
	struct mirror *mirror = dmcore__container_of(timer, struct mirror, scrub.timer);

	mirror->scrub.paced = dmcore__mirror_in_use(mirror, MIRROR_SCRUB_LOOKS);
	dmcore__scrub_go_on(mirror);
}

static void pause_for(struct mirror *mirror, uint64_t ns)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	scrub->timer.fn = pause_ended;
	dmcore_timer_start(mirror->service, &scrub->timer, dmcore_clock_ns(mirror->core) + ns);
}

/* ---- what it has found ---- */

static void note_difference(struct mirror_scrub *scrub, uint64_t region, uint64_t sector)
{
	struct scrub_result *result = &scrub->result;
	uint32_t last = result->num_runs - 1;

	if (result->num_differing == 0)
		result->first_sector = sector;
	result->num_differing++;
	if (result->num_runs > 0 &&
	    result->runs[last].region + result->runs[last].count == region) {
		result->runs[last].count++;
	} else if (last + 1 < SCRUB_RUNS_MAX) {
		result->runs[last + 1].region = region;
		result->runs[last + 1].count = 1;
		result->num_runs++;
	}
	if (scrub->repair)
		scrub->repairs |= UINT64_C(1) << (region - scrub->region);
}

static bool differ(const struct mirror *mirror, uint64_t sector, uint64_t count)
{
	size_t at = (size_t)dmcore__sectors_to_bytes(sector - mirror->scrub.sector);

	for (uint32_t leg = 1; leg < mirror->num_legs; leg++) {
		if (memcmp(buffer_of(mirror, 0) + at, buffer_of(mirror, leg) + at,
			   (size_t)dmcore__sectors_to_bytes(count)) != 0)
			return true;
	}
	return false;
}

/* One region of the piece, or the part of it that was read; the cursor goes behind it. */
static void judge_region(struct mirror *mirror, uint64_t region)
{
	struct mirror_scrub *scrub = &mirror->scrub;
	uint64_t region_end = end_of_region(mirror, region);
	uint64_t begin = scrub->cursor;
	uint64_t end = dmcore__min_u64(region_end, scrub->sector + scrub->count);

	scrub->cursor = region_end;
	if (!dmcore__log_in_sync(&mirror->log, region)) {
		scrub->result.num_skipped++;
	} else if (scrub->read_failed) {
		scrub->result.num_failed++;
	} else if (differ(mirror, begin, end - begin)) {
		while (!differ(mirror, begin, 1))
			begin++;
		note_difference(scrub, region, begin);
		scrub->result.num_compared++;
	} else {
		scrub->cursor = end;
		scrub->result.num_compared += end == region_end;
	}
}

static void judge(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	/* One bad sector doesn't keep its neighbours from being compared. */
	if (scrub->read_failed && scrub->num_regions > 1) {
		scrub->single_end = scrub->sector + scrub->count;
		return;
	}
	for (uint32_t i = 0; i < scrub->num_regions; i++)
		judge_region(mirror, scrub->region + i);
}

/* ---- a piece ---- */

/* A region that nobody has entered since is again what it was, as far as that still holds. */
static void put_back(struct mirror *mirror, uint64_t region, enum region_state before)
{
	struct regions *regions = mirror->regions;

	if (before == REGION_ABSENT)
		dmcore__region_remove(regions, region);
	else if (before == REGION_MARKING &&
		 *dmcore__region_ticket(regions, region) > mirror->log.done_ticket)
		dmcore__region_set(regions, region, REGION_MARKING);
	else
		dmcore__region_set(regions, region, dmcore__log_in_sync(&mirror->log, region) ?
						    REGION_DIRTY : REGION_NOSYNC);
}

static void release(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	for (uint32_t i = 0; i < scrub->num_regions; i++)
		put_back(mirror, scrub->region + i, (enum region_state)scrub->before[i]);
	scrub->num_regions = 0;
	scrub->state = SCRUB_BETWEEN;
	dmcore__recovery_let_waiters_go(mirror);
	dmcore__log_flush(mirror);
}

/* Leaves the legs to others for a while, if there are any. */
static void end_piece(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;
	uint64_t pause_ns = (dmcore_clock_ns(mirror->core) - scrub->started_ns) * PACE;

	if (dmcore__mirror_in_use(mirror, MIRROR_SCRUB_LOOKS))
		scrub->paced = true;
	if (scrub->paced && !scrub->stopping)
		pause_for(mirror, dmcore__min_u64(dmcore__max_u64(pause_ns, PACE_MIN_NS),
						  PACE_MAX_NS));
	release(mirror);
}

static void leg_read(struct dmcore_bio *bio)
{
	struct mirror *mirror = bio->context;
	struct mirror_scrub *scrub = &mirror->scrub;
	const struct mirror_leg *leg = &mirror->legs[bio - scrub->memory->bios];

	if (bio->status && scrub->num_regions == 1 && scrub->result.num_failed == 0)
		dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
				  "scrub: %s can't be read at sector %" PRIu64,
				  dmcore_bdev_name(leg->bdev),
				  dmcore__mirror_leg_sector(leg, scrub->sector));
	if (bio->status)
		scrub->read_failed = true;
	if (--scrub->reads_left == 0)
		dmcore__scrub_go_on(mirror);
}

static void read_legs(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	scrub->state = SCRUB_READING;
	scrub->read_failed = false;
	scrub->repairs = 0;
	scrub->reads_left = mirror->num_legs;
	scrub->started_ns = dmcore_clock_ns(mirror->core);
	for (uint32_t leg = 0; leg < mirror->num_legs; leg++) {
		struct dmcore_bio *bio = &scrub->memory->bios[leg];

		dmcore_bio_init(bio, mirror->service);
		bio->bdev = mirror->legs[leg].bdev;
		bio->op = DMCORE_OP_READ;
		bio->sector = dmcore__mirror_leg_sector(&mirror->legs[leg], scrub->sector);
		dmcore_bio_set_buffer(bio, buffer_of(mirror, leg),
				      (size_t)dmcore__sectors_to_bytes(scrub->count));
		bio->done = leg_read;
		dmcore__mirror_send(mirror, bio);
	}
}

/* As before a write: who enters a region that isn't in sync relies on its mark. */
static void mark_repairs(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	scrub->state = SCRUB_MARKING;
	for (uint64_t bits = scrub->repairs; bits; bits &= bits - 1)
		dmcore__log_mark(mirror, scrub->region + (uint64_t)__builtin_ctzll(bits));
	scrub->ticket = mirror->log.ticket;
	mirror->log.wanted = true;
	dmcore__log_flush(mirror);
}

/* ---- the next one ---- */

/* Moves the cursor to a region that is in sync. False: there is none. */
static bool find_region(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;
	uint64_t region = scrub->cursor >> mirror->log.region_shift;
	uint64_t next;

	if (scrub->cursor >= dmcore_target_len(mirror->target))
		return false;
	next = dmcore__min_u64(dmcore__log_next_synced(&mirror->log, region),
			       mirror->log.num_regions);
	if (next > region) {
		scrub->result.num_skipped += next - region;
		scrub->cursor = next << mirror->log.region_shift;
	}
	scrub->region = next;
	return next < mirror->log.num_regions;
}

/* Regions from the cursor on, or the next part of one. False: there is no place. */
static bool take_piece(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;
	uint64_t sectors = scrub->paced ? PIECE_SECTORS_PACED : PIECE_SECTORS;
	uint64_t max = dmcore__min_u64(sectors >> mirror->log.region_shift, SCRUB_REGIONS_MAX);
	uint64_t region = scrub->region;

	if (scrub->cursor < scrub->single_end)
		max = 1;
	do {
		enum region_state before = dmcore__region_state(mirror->regions, region);

		if (!dmcore__recovery_take(mirror, region))
			break;
		scrub->before[scrub->num_regions++] = (uint8_t)before;
		region++;
	} while (scrub->num_regions < max && region < mirror->log.num_regions &&
		 dmcore__log_in_sync(&mirror->log, region));
	if (scrub->num_regions == 0)
		return false;
	scrub->sector = scrub->cursor;
	scrub->count = dmcore__min_u64(end_of_region(mirror, region - 1) - scrub->sector, sectors);
	scrub->state = SCRUB_TAKEN;
	return true;
}

static void finish(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	dmcore_timer_cancel(mirror->service, &scrub->timer);
	scrub->state = SCRUB_IDLE;
	dmcore_free(mirror->core, scrub->memory);
	scrub->memory = NULL;
	atomic_store(&scrub->ended, !scrub->stopping);
	atomic_store(&scrub->active, false);
	dmcore_target_event(mirror->target);
	/* A suspension may wait for it. */
	dmcore__recovery_go_on(mirror);
}

/* ---- steps: each returns whether the next one may be taken ---- */

static bool begin_piece(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	if (scrub->stopping || !find_region(mirror)) {
		finish(mirror);
		return false;
	}
	if (scrub->timer.previous)
		return false;
	if (take_piece(mirror))
		return true;
	pause_for(mirror, PACE_MIN_NS);
	return false;
}

static bool read_piece(struct mirror *mirror)
{
	const struct mirror_scrub *scrub = &mirror->scrub;

	/* Who stops it may be the one that those inside wait for. */
	if (scrub->stopping)
		release(mirror);
	else if (dmcore__regions_are_entered(mirror->regions, scrub->region, scrub->num_regions))
		return false;
	else
		read_legs(mirror);
	return true;
}

static bool compare_piece(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	if (scrub->reads_left > 0)
		return false;
	if (!scrub->stopping)
		judge(mirror);
	if (scrub->repairs)
		mark_repairs(mirror);
	else
		end_piece(mirror);
	return true;
}

static bool repair_piece(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	if (scrub->ticket > mirror->log.done_ticket)
		return false;
	if (!dmcore__log_is_well(&mirror->log))
		scrub->repairs = 0;
	for (uint64_t bits = scrub->repairs; bits; bits &= bits - 1)
		dmcore__log_set_sync(mirror,
				     scrub->region + (uint64_t)__builtin_ctzll(bits), false);
	end_piece(mirror);
	dmcore__recovery_go_on(mirror);
	return true;
}

static bool step(struct mirror *mirror)
{
	switch (mirror->scrub.state) {
	case SCRUB_BETWEEN:
		return begin_piece(mirror);
	case SCRUB_TAKEN:
		return read_piece(mirror);
	case SCRUB_READING:
		return compare_piece(mirror);
	case SCRUB_MARKING:
		return repair_piece(mirror);
	case SCRUB_IDLE:
		break;
	}
	return false;
}

void dmcore__scrub_go_on(struct mirror *mirror)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	/* What a step waits for may come about while it is taken. */
	if (scrub->busy)
		return;
	scrub->busy = true;
	while (step(mirror))
		;
	scrub->busy = false;
}

void dmcore__scrub_stop(struct mirror *mirror)
{
	mirror->scrub.stopping = true;
	dmcore__scrub_go_on(mirror);
}

/* ---- messages ---- */

/* They don't wait for the service, which may want the core's lock: they hold it. */

static void carry_out(struct dmcore_work *work)
{
	struct mirror *mirror = dmcore__container_of(work, struct mirror, scrub.work);
	struct mirror_scrub *scrub = &mirror->scrub;

	atomic_store(&scrub->posted, false);
	if (scrub->state == SCRUB_IDLE && atomic_load(&scrub->active)) {
		scrub->memory = scrub->next_memory;
		scrub->repair = scrub->next_repair;
		scrub->stopping = !mirror->recovery.running;
		scrub->paced = false;
		scrub->cursor = 0;
		scrub->single_end = 0;
		scrub->state = SCRUB_BETWEEN;
	}
	if (atomic_load(&scrub->unwanted))
		scrub->stopping = true;
	dmcore__scrub_go_on(mirror);
}

static void post(struct mirror *mirror)
{
	if (atomic_exchange(&mirror->scrub.posted, true))
		return;
	mirror->scrub.work.fn = carry_out;
	dmcore_queue_post(mirror->service, &mirror->scrub.work);
}

static int start(struct mirror *mirror, struct dmcore_args *args, bool repair)
{
	struct mirror_scrub *scrub = &mirror->scrub;

	if (atomic_load(&scrub->active))
		return dmcore_args_fail(args, -EBUSY, "a scrub is under way");
	if (!mirror->recovery.running)
		return dmcore_args_fail(args, -EBUSY, "the mirror is suspended");
	scrub->next_memory = make_memory(mirror);
	if (!scrub->next_memory)
		return dmcore_args_fail(args, -ENOMEM, "no memory for a scrub");
	scrub->next_repair = repair;
	memset(&scrub->result, 0, sizeof(scrub->result));
	atomic_store(&scrub->ended, false);
	atomic_store(&scrub->unwanted, false);
	atomic_store(&scrub->active, true);
	post(mirror);
	return 0;
}

static void tell(const struct mirror *mirror, struct dmcore_text *reply)
{
	const struct mirror_scrub *scrub = &mirror->scrub;
	const struct scrub_result *result = &scrub->result;
	bool active = atomic_load(&scrub->active);
	uint64_t num_differing = result->num_differing;
	uint64_t begin = mirror->target->begin;
	uint64_t told = 0;

	dmcore_text_printf(reply, "scrub %s %" PRIu64 " %" PRIu64 " %" PRIu64,
			   active ? "running" : atomic_load(&scrub->ended) ? "done" : "idle",
			   result->num_compared, mirror->log.num_regions, num_differing);
	if (num_differing > 0)
		dmcore_text_printf(reply, " %" PRIu64, begin + result->first_sector);
	dmcore_text_printf(reply, "\nskipped %" PRIu64 " failed %" PRIu64, result->num_skipped,
			   result->num_failed);
	for (uint32_t i = 0; i < result->num_runs; i++) {
		uint64_t sector = result->runs[i].region << mirror->log.region_shift;
		uint64_t count = result->runs[i].count;
		uint64_t end = end_of_region(mirror, result->runs[i].region + count - 1);

		dmcore_text_printf(reply, "\n%" PRIu64 " %" PRIu64, begin + sector, end - sector);
		told += count;
	}
	if (told < num_differing)
		dmcore_text_printf(reply, "\nmore");
}

int dmcore__scrub_message(struct mirror *mirror, struct dmcore_args *args,
			  struct dmcore_text *reply)
{
	const char *word = dmcore_args_next(args);

	if (dmcore_args_left(args) == 0 && (!word || strcasecmp(word, "repair") == 0))
		return start(mirror, args, word != NULL);
	if (dmcore_args_left(args) > 0 ||
	    (strcasecmp(word, "stop") != 0 && strcasecmp(word, "status") != 0))
		return dmcore_args_fail(args, -EINVAL,
					"scrub takes nothing, or one of: repair, stop, status");
	if (strcasecmp(word, "status") == 0) {
		tell(mirror, reply);
	} else if (atomic_load(&mirror->scrub.active)) {
		atomic_store(&mirror->scrub.unwanted, true);
		post(mirror);
	}
	return 0;
}
