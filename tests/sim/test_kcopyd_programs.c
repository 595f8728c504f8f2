/* SPDX-License-Identifier: MIT */
/*
 * Random programs of copies in simulated worlds, each of which follows from its number: jobs of all
 * kinds with all flags, cancellations, prepared callbacks, faults, up to three clients with few
 * pages, and a throttle for all. A model says what destinations must hold and may hold. Callbacks
 * come one at a time, from a poll, each once.
 *
 *	DMCORE_SEED=N         the start of all random choices
 *	DMCORE_SIM_FIRST=N    the first program
 *	DMCORE_SIM_SEEDS=N    how many
 *	DMCORE_PROP_FULL=1    100,000 programs
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "support/rng.h"
#include "support/simcopy.h"

#define DISKS_MAX 4u
#define DISK_SECTORS_MAX 320u
#define JOB_SECTORS_MAX 96u
#define CLIENTS_MAX 3u
#define SLOTS 10u
#define MS UINT64_C(1000000)
#define PROGRAMS_FULL 100000u
#define PROGRAMS 3000u
#define PROGRAMS_FEW 250u

enum kind {
	OWN,
	FROM_POOL,
	PREPARED,      /* a job of the test's own */
	PREPARED_POOL,
};

struct slot {
	struct simcopy copy; /* first; of a job of the pool, its parameters */
	enum kind kind;
	bool may_fail;       /* some disk had faults while it ran */
	bool told;           /* PREPARED: it is to be called back with these */
	int read_err;
	unsigned int write_err;
	struct kcopyd_job *prepared;
	unsigned int client;
	unsigned int from;   /* disk, or SIMCOPY_ZEROES */
	unsigned int dests[KCOPYD_DESTS_MAX];
	bool descends;
	unsigned char want[JOB_SECTORS_MAX * 512];
};

static struct program {
	uint64_t nr;
	struct rng rng;
	struct simworld world;
	uint64_t unit;
	unsigned int num_disks;
	uint64_t num_sectors[DISKS_MAX];
	unsigned char model[DISKS_MAX][DISK_SECTORS_MAX * 512];
	bool has_faults;
	struct kcopyd_throttle *throttle;
	unsigned int num_clients;
	unsigned int pages[CLIENTS_MAX];
	struct kcopyd_client *clients[CLIENTS_MAX];
	struct slot slots[SLOTS];
	unsigned int depth; /* of steps within callbacks */
} program;

static struct {
	uint64_t jobs;
	uint64_t pool_jobs;
	uint64_t callbacks;
	uint64_t cancelled;
	uint64_t failed;
	uint64_t overlaps;
	uint64_t positions; /* that were neither the start nor the end */
	uint64_t refused;
} sum;

#define EXPECT(condition, ...) expect(condition, #condition, __LINE__)

static void expect(bool holds, const char *what, int line)
{
	cr_assert(holds, "DMCORE_SEED=%lu DMCORE_SIM_FIRST=%lu DMCORE_SIM_SEEDS=1: line %d: %s",
		  (unsigned long)rng_seed(), (unsigned long)program.nr, line, what);
}

static uint64_t below(uint64_t bound)
{
	return rng_below(&program.rng, bound);
}

static bool one_in(uint64_t n)
{
	return rng_one_in(&program.rng, n);
}

/* ---- worlds --------------------------------------------------------------------------------- */

/* Sectors of their own, and blocks of zeroes. */
static void load_disk(unsigned int disk)
{
	bool is_empty = one_in(4);
	uint64_t word = 0;

	memset(program.model[disk], 0, sizeof(program.model[disk]));
	for (uint64_t i = 0; i < program.num_sectors[disk] * 64 && !is_empty; i++) {
		if (i % 64 == 0)
			word = rng_next(&program.rng) | 1;
		if (i % 512 == 0 && one_in(3))
			i += 511;
		else
			memcpy(program.model[disk] + i * 8, &word, sizeof(word));
	}
	EXPECT(dmcore_sim_disk_load(program.world.disks[disk], program.model[disk],
				    program.num_sectors[disk] * 512, 0) == 0);
}

static void add_disk(unsigned int disk)
{
	static const unsigned int flags[] = {
		0, 0, DMCORE_SIM_NO_WRITE_ZEROES, DMCORE_SIM_NO_FUA | DMCORE_SIM_NO_DISCARD,
	};
	struct dmcore_sim_disk_options *options = &program.world.options;

	program.num_sectors[disk] = 64 + 64 * below(5);
	options->flags = flags[below(4)];
	options->discard = (enum dmcore_sim_discard)below(3);
	options->logical_block_bytes = program.unit == 8 && one_in(2) ? 4096 : 512;
	options->max_io_sectors = one_in(3) ? (uint32_t)(8 + 8 * below(4)) : 0;
	options->depth = one_in(2) ? (uint32_t)(1 + below(4)) : 0;
	options->read_ns = below(50000);
	options->write_ns = below(50000);
	options->flush_ns = below(100000);
	options->spread_ns = one_in(3) ? 0 : below(200000);
	simworld_add_disk(&program.world, program.num_sectors[disk]);
	load_disk(disk);
}

static void add_rule(void)
{
	static const enum dmcore_sim_action actions[] = {
		DMCORE_SIM_FAIL, DMCORE_SIM_FAIL, DMCORE_SIM_FAIL_DONE, DMCORE_SIM_TEAR,
		DMCORE_SIM_DELAY, DMCORE_SIM_HOLD,
	};
	unsigned int disk = (unsigned int)below(program.num_disks);
	struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = actions[below(6)],
		.status = -EIO,
		.ops = (uint32_t)below(1u << DMCORE_OP_COUNT),
		.skip = (uint32_t)below(6),
		.times = (uint32_t)below(4),
		.per_million = one_in(2) ? 0 : 200000,
		.delay_ns = below(2 * MS),
		.sectors = below(8) * program.unit,
	};

	EXPECT(dmcore_sim_rule_add(program.world.disks[disk], &rule) == 0);
	if (rule.action == DMCORE_SIM_DELAY || rule.action == DMCORE_SIM_HOLD)
		return;
	program.has_faults = true;
	for (unsigned int i = 0; i < SLOTS; i++)
		program.slots[i].may_fail = true;
}

static void clear_rules(void)
{
	for (unsigned int i = 0; i < program.num_disks; i++) {
		dmcore_sim_rules_clear(program.world.disks[i]);
		dmcore_sim_release(program.world.disks[i]);
	}
	program.has_faults = false;
}

static void add_client(void)
{
	static const unsigned int pages[] = { 1, 2, 3, 8, 16, 64 };
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	unsigned int i = program.num_clients++;

	program.pages[i] = pages[below(6)];
	options.subjob_sectors = one_in(2) ? 0 : (unsigned int)(8 + 8 * below(4));
	options.jobs = one_in(2) ? 0 : 1 + (unsigned int)below(3);
	options.throttle = one_in(3) ? NULL : program.throttle;
	EXPECT(kcopyd_client_create_with(program.world.queue, program.pages[i], &options,
					 &program.clients[i]) == 0);
}

static void open_program(uint64_t nr)
{
	memset(&program, 0, offsetof(struct program, model));
	program.has_faults = false;
	program.num_clients = 0;
	program.depth = 0;
	program.nr = nr;
	rng_start(&program.rng, nr);
	for (unsigned int i = 0; i < SLOTS; i++)
		memset(&program.slots[i], 0, offsetof(struct slot, want));
	simcopy_open(&program.world, nr);
	simcopy_watch.splits = true;
	program.unit = one_in(3) ? 8 : 1;
	program.num_disks = 2 + (unsigned int)below(DISKS_MAX - 1);
	for (unsigned int i = 0; i < program.num_disks; i++)
		add_disk(i);
	EXPECT(kcopyd_throttle_create(program.world.queue, &program.throttle) == 0);
	for (unsigned int i = 1 + (unsigned int)below(CLIENTS_MAX); i > 0; i--)
		add_client();
}

/* ---- what sectors hold ---------------------------------------------------------------------- */

static bool ignores_errors(const struct slot *slot)
{
	return (slot->copy.job.flags & (KCOPYD_IGNORE_ERROR | KCOPYD_WRITE_SEQ)) ==
	       KCOPYD_IGNORE_ERROR;
}

static const unsigned char *sector_of(const struct slot *slot, unsigned int dest, uint64_t i)
{
	return simcopy_sector(&program.world, slot->dests[dest],
			      slot->copy.job.dests[dest].sector + i);
}

static unsigned char *model_of(const struct slot *slot, unsigned int dest, uint64_t i)
{
	return program.model[slot->dests[dest]] + (slot->copy.job.dests[dest].sector + i) * 512;
}

/* Up to its position a job has been done, unless some was given up. */
static bool is_before(const struct slot *slot, const struct kcopyd_progress *progress, uint64_t i)
{
	uint64_t count = simcopy_count(&slot->copy);

	if (ignores_errors(slot) && progress->failed_sectors)
		return false;
	return slot->descends ? i >= count - progress->position_sectors
			      : i < progress->position_sectors;
}

static void check_position(const struct slot *slot)
{
	struct kcopyd_progress progress = simcopy_progress(&slot->copy);
	uint64_t count = simcopy_count(&slot->copy);

	EXPECT(progress.total_sectors == count);
	EXPECT(progress.position_sectors <= count);
	EXPECT(progress.copied_sectors + progress.zeroed_sectors + progress.skipped_sectors +
	       progress.shared_sectors + progress.failed_sectors >= progress.position_sectors);
	EXPECT(progress.copied_sectors + progress.zeroed_sectors + progress.skipped_sectors +
	       progress.shared_sectors + progress.failed_sectors <= count);
	EXPECT(progress.verified_sectors <= count);
	EXPECT(progress.shared_sectors == 0);
	/* What was given up may differ. */
	EXPECT(progress.mismatch_sectors == UINT64_MAX ||
	       (ignores_errors(slot) && progress.failed_sectors));
	sum.positions += progress.position_sectors > 0 && progress.position_sectors < count;
	for (unsigned int dest = 0; dest < slot->copy.job.num_dests; dest++) {
		for (uint64_t i = 0; i < count; i++) {
			if (is_before(slot, &progress, i))
				EXPECT(memcmp(sector_of(slot, dest, i), slot->want + i * 512,
					      512) == 0);
		}
	}
}

/* What the destinations hold now is what they may; from now on it is what they hold. */
static void check_dests(const struct slot *slot, bool is_good, bool has_zeroes)
{
	static const unsigned char zeroes[512];
	uint64_t count = simcopy_count(&slot->copy);

	for (unsigned int dest = 0; dest < slot->copy.job.num_dests; dest++) {
		for (uint64_t i = 0; i < count; i++) {
			const unsigned char *sector = sector_of(slot, dest, i);
			unsigned char *model = model_of(slot, dest, i);

			EXPECT(memcmp(sector, slot->want + i * 512, 512) == 0 ||
			       (!is_good && (memcmp(sector, model, 512) == 0 ||
					     (has_zeroes && memcmp(sector, zeroes, 512) == 0))));
		}
	}
	/* A destination may be a source, too. */
	for (unsigned int dest = 0; dest < slot->copy.job.num_dests; dest++)
		memcpy(model_of(slot, dest, 0), sector_of(slot, dest, 0), count * 512);
}

/* ---- ends ----------------------------------------------------------------------------------- */

static void step(void);

/* A callback may do whatever another function may. */
static void step_within(void)
{
	if (program.depth > 0 || !one_in(3))
		return;
	program.depth++;
	step();
	program.depth--;
}

static void check_end(const struct slot *slot, int read_err, unsigned int write_err)
{
	bool is_good = !read_err && !write_err && !slot->copy.cancelled;

	EXPECT(write_err >> slot->copy.job.num_dests == 0);
	EXPECT(slot->may_fail || (!read_err && !write_err));
	check_dests(slot, is_good, ignores_errors(slot) && read_err);
	sum.failed += read_err || write_err;
}

static void own_ended(struct simcopy *copy)
{
	struct slot *slot = (struct slot *)copy;
	const struct kcopyd_job *job = &copy->job;

	check_position(slot);
	EXPECT(copy->cancelled || job->status == 0 || job->status == -EIO);
	if (!copy->cancelled)
		EXPECT((job->status == 0) ==
		       (!job->read_err && !job->write_err && !job->verify_err));
	EXPECT(slot->may_fail || !job->verify_err);
	if (job->status == 0)
		EXPECT(simcopy_progress(copy).position_sectors == simcopy_count(copy));
	if (job->status == 0 && job->flags & KCOPYD_VERIFY)
		EXPECT(simcopy_progress(copy).verified_sectors == simcopy_count(copy));
	check_end(slot, job->read_err, job->write_err);
	sum.cancelled += copy->cancelled;
	step_within();
}

static void pool_ended(int read_err, unsigned int write_err, void *context)
{
	struct slot *slot = context;

	simcopy_enter();
	EXPECT(slot->copy.busy);
	slot->copy.busy = false;
	slot->copy.num_ends++;
	if (slot->kind == FROM_POOL) {
		simcopy_disown(slot->copy.job.dests, slot->copy.job.num_dests,
			       simcopy_count(&slot->copy), true);
		check_end(slot, read_err, write_err);
	} else {
		EXPECT(slot->told && read_err == slot->read_err && write_err == slot->write_err);
	}
	step_within();
	simcopy_leave();
}

static void prepared_ended(struct kcopyd_job *job)
{
	struct slot *slot = (struct slot *)job;
	bool failed = slot->read_err || slot->write_err;

	EXPECT(job->status == (failed ? -EIO : 0));
	pool_ended(job->read_err, job->write_err, slot);
}

/* ---- jobs ----------------------------------------------------------------------------------- */

static bool meets(const struct dmio_region *region, uint64_t region_count,
		  const struct dmcore_bdev *bdev, uint64_t sector, uint64_t count)
{
	return region->bdev == bdev && region->sector < sector + count &&
	       sector < region->sector + region_count;
}

/* Whether jobs under way leave a range alone: do not write it, and if it is to be written, do not
 * read it. */
static bool is_free(unsigned int disk, uint64_t sector, uint64_t count, bool to_write)
{
	const struct dmcore_bdev *bdev = program.world.bdevs[disk];

	for (unsigned int s = 0; s < SLOTS; s++) {
		const struct kcopyd_job *job = &program.slots[s].copy.job;

		if (!program.slots[s].copy.busy || program.slots[s].kind >= PREPARED)
			continue;
		if (to_write && meets(&job->from, job->from.count, bdev, sector, count))
			return false;
		for (unsigned int i = 0; i < job->num_dests; i++) {
			if (meets(&job->dests[i], simcopy_count(&program.slots[s].copy), bdev,
				  sector, count))
				return false;
		}
	}
	return true;
}

static unsigned int choose_flags(unsigned int client, bool overlaps)
{
	unsigned int flags = 0;

	if (one_in(2))
		return 0;
	flags |= one_in(3) ? KCOPYD_IGNORE_ERROR : 0;
	flags |= one_in(3) ? KCOPYD_WRITE_SEQ : 0;
	flags |= one_in(3) ? KCOPYD_FLUSH : 0;
	flags |= one_in(2) ? KCOPYD_SPARSE : 0;
	flags |= one_in(5) ? KCOPYD_SHARE : 0;
	/* Twice the pages; and of what was moved over itself nothing is left to compare with. */
	if (one_in(3) && program.pages[client] >= 2 && !overlaps)
		flags |= KCOPYD_VERIFY;
	return flags;
}

static struct slot *idle_slot(void)
{
	unsigned int first = (unsigned int)below(SLOTS);

	for (unsigned int i = 0; i < SLOTS; i++) {
		struct slot *slot = &program.slots[(first + i) % SLOTS];

		if (!slot->copy.busy)
			return slot;
	}
	return NULL;
}

/* A place that nobody uses; not to be found: false. */
static bool choose_place(uint64_t count, bool to_write, unsigned int *disk, uint64_t *sector)
{
	for (unsigned int i = 0; i < 16; i++) {
		*disk = (unsigned int)below(program.num_disks);
		if (count > program.num_sectors[*disk])
			continue;
		*sector = below((program.num_sectors[*disk] - count) / program.unit + 1) *
			  program.unit;
		if (is_free(*disk, *sector, count, to_write))
			return true;
	}
	return false;
}

/* A destination that lies over the source. */
static bool add_overlap(struct slot *slot, uint64_t count)
{
	uint64_t from = slot->copy.job.from.sector;
	uint64_t room = program.num_sectors[slot->from] - count;
	uint64_t sector;

	if (count < 2 * program.unit)
		return false;
	sector = from < count ? 0 : from - count;
	sector += below(2 * count / program.unit) * program.unit;
	if (sector > room || sector == from || sector + count <= from || from + count <= sector ||
	    !is_free(slot->from, sector, count, true))
		return false;
	slot->dests[0] = slot->from;
	slot->descends = sector > from;
	simcopy_to(&slot->copy, &program.world, slot->from, sector);
	sum.overlaps++;
	return true;
}

static bool add_dest(struct slot *slot, uint64_t count)
{
	struct kcopyd_job *job = &slot->copy.job;
	const struct dmcore_bdev *bdev;
	unsigned int disk;
	uint64_t sector;

	if (!choose_place(count, true, &disk, &sector))
		return false;
	bdev = program.world.bdevs[disk];
	if (meets(&job->from, count, bdev, sector, count))
		return false;
	for (unsigned int i = 0; i < job->num_dests; i++) {
		if (meets(&job->dests[i], count, bdev, sector, count))
			return false;
	}
	slot->dests[job->num_dests] = disk;
	simcopy_to(&slot->copy, &program.world, disk, sector);
	return true;
}

static bool dests_are_zero(const struct slot *slot, uint64_t count)
{
	for (unsigned int dest = 0; dest < slot->copy.job.num_dests; dest++) {
		const unsigned char *model = model_of(slot, dest, 0);

		for (uint64_t i = 0; i < count * 512; i++) {
			if (model[i])
				return false;
		}
	}
	return true;
}

/* Fills in a job: what, where to, and what it comes to; false: there is no room now. */
static bool choose_job(struct slot *slot)
{
	uint64_t count = (1 + below(JOB_SECTORS_MAX / program.unit)) * program.unit;
	unsigned int num_dests = one_in(2) ? 1 : 1 + (unsigned int)below(4);
	uint64_t sector = 0;
	bool overlaps;

	slot->client = (unsigned int)below(program.num_clients);
	slot->from = SIMCOPY_ZEROES;
	slot->descends = false;
	slot->may_fail = program.has_faults;
	if (one_in(16))
		count = 0;
	if (!one_in(5) && !choose_place(count, false, &slot->from, &sector))
		return false;
	simcopy_from(&slot->copy, &program.world, slot->from, sector, count, 0);
	overlaps = slot->from != SIMCOPY_ZEROES && one_in(5) && add_overlap(slot, count);
	while (!overlaps && slot->copy.job.num_dests < num_dests && add_dest(slot, count))
		;
	if (slot->copy.job.num_dests == 0)
		return false;
	slot->copy.job.flags = choose_flags(slot->client, overlaps);
	if (overlaps && slot->copy.job.dests[0].sector > slot->copy.job.from.sector)
		slot->copy.job.flags &= ~KCOPYD_WRITE_SEQ;
	if (slot->copy.job.flags & KCOPYD_SPARSE && dests_are_zero(slot, count) && !overlaps)
		slot->copy.job.flags |= KCOPYD_DESTS_ZEROED;
	memset(slot->want, 0, count * 512);
	if (slot->from != SIMCOPY_ZEROES)
		memcpy(slot->want, program.model[slot->from] + sector * 512, count * 512);
	return true;
}

static void submit_own(struct slot *slot)
{
	int ret;

	slot->kind = OWN;
	slot->copy.ended = own_ended;
	ret = simcopy_submit(program.clients[slot->client], &slot->copy);
	/* Blocks of 4 KiB need pages of their own, as does what is compared. */
	EXPECT(ret == 0);
	sum.jobs++;
}

static void submit_from_pool(struct slot *slot)
{
	struct kcopyd_client *kc = program.clients[slot->client];
	struct kcopyd_job *job = &slot->copy.job;
	bool is_zero = slot->from == SIMCOPY_ZEROES;
	int ret;

	slot->kind = FROM_POOL;
	slot->copy.busy = true;
	simcopy_own(job->dests, job->num_dests, simcopy_count(&slot->copy));
	simcopy_watch.in_call = true;
	if (is_zero && one_in(2))
		ret = kcopyd_zero(kc, job->num_dests, job->dests, job->flags, pool_ended, slot);
	else
		ret = kcopyd_copy(kc, is_zero ? NULL : &job->from, job->num_dests, job->dests,
				  job->flags, pool_ended, slot);
	simcopy_watch.in_call = false;
	EXPECT(ret == 0 || ret == -EAGAIN);
	sum.pool_jobs += ret == 0;
	sum.refused += ret == -EAGAIN;
	if (ret == 0)
		return;
	slot->copy.busy = false;
	simcopy_disown(job->dests, job->num_dests, simcopy_count(&slot->copy), true);
}

static void submit(void)
{
	struct slot *slot = idle_slot();

	if (!slot || !choose_job(slot))
		return;
	if (one_in(3))
		submit_from_pool(slot);
	else
		submit_own(slot);
}

/* ---- prepared callbacks --------------------------------------------------------------------- */

static void prepare(void)
{
	struct slot *slot = idle_slot();
	struct kcopyd_client *kc = program.clients[below(program.num_clients)];
	int ret;

	if (!slot)
		return;
	slot->told = false;
	slot->kind = one_in(2) ? PREPARED : PREPARED_POOL;
	if (slot->kind == PREPARED) {
		memset(&slot->copy.job, 0, sizeof(slot->copy.job));
		slot->copy.job.done = prepared_ended;
		slot->prepared = &slot->copy.job;
		EXPECT(kcopyd_prepare(kc, &slot->copy.job) == 0);
		EXPECT(kcopyd_prepare(kc, &slot->copy.job) == -EBUSY);
		EXPECT(kcopyd_cancel(&slot->copy.job) == -EINVAL);
	} else {
		ret = kcopyd_prepare_callback(kc, pool_ended, slot, &slot->prepared);
		EXPECT(ret == 0 || (ret == -EAGAIN && !slot->prepared));
		if (ret)
			return;
	}
	slot->copy.busy = true;
}

static void tell(struct slot *slot)
{
	if (!slot->copy.busy || slot->kind < PREPARED || slot->told)
		return;
	slot->told = true;
	slot->read_err = one_in(3) ? -1 : 0;
	slot->write_err = one_in(3) ? (unsigned int)below(256) : 0;
	simcopy_watch.in_call = true;
	kcopyd_do_callback(slot->prepared, slot->read_err, slot->write_err);
	simcopy_watch.in_call = false;
	sum.callbacks++;
}

/* ---- steps ---------------------------------------------------------------------------------- */

static void cancel(struct slot *slot)
{
	bool was_cancelled = slot->copy.cancelled;
	int ret;

	if (slot->kind != OWN)
		return;
	if (!slot->copy.busy) {
		EXPECT(kcopyd_cancel(&slot->copy.job) == -EINVAL);
		return;
	}
	if (was_cancelled) {
		EXPECT(kcopyd_cancel(&slot->copy.job) == -EALREADY);
		return;
	}
	ret = simcopy_cancel(&slot->copy);
	EXPECT(ret == 0 || ret == -EALREADY);
	check_position(slot);
}

static void set_throttle(void)
{
	static const unsigned int percents[] = { 0, 10, 50, 100, 100 };
	static const uint64_t rates[] = { 0, 0, 1000, 1000000 };

	EXPECT(kcopyd_throttle_set(program.throttle, percents[below(5)], rates[below(4)]) == 0);
}

static void poll(void)
{
	if (program.depth > 0)
		return;
	if (one_in(2))
		simcopy_poll(&program.world, 0, 0);
	else
		simcopy_poll(&program.world, 1 + (unsigned int)below(6),
			     (int64_t)below(MS / 5));
}

static void look(void)
{
	const struct slot *slot = &program.slots[below(SLOTS)];

	if (slot->copy.busy && slot->kind == OWN)
		check_position(slot);
}

static void step(void)
{
	switch (below(16)) {
	case 0:
	case 1:
	case 2:
	case 3:
		submit();
		break;
	case 4:
		cancel(&program.slots[below(SLOTS)]);
		break;
	case 5:
		prepare();
		break;
	case 6:
		tell(&program.slots[below(SLOTS)]);
		break;
	case 7:
	case 8:
		look();
		break;
	case 9:
		if (one_in(4))
			set_throttle();
		break;
	case 10:
		if (one_in(3))
			add_rule();
		else if (one_in(2))
			clear_rules();
		break;
	default:
		poll();
	}
}

/* ---- ends of programs ----------------------------------------------------------------------- */

static bool is_quiet(void)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		if (program.slots[i].copy.busy)
			return false;
	}
	return true;
}

static void close_program(void)
{
	uint64_t pages = 0;

	clear_rules();
	/* Callbacks start nothing new. */
	program.depth = 1;
	for (unsigned int i = 0; i < SLOTS; i++)
		tell(&program.slots[i]);
	while (one_in(2) && !is_quiet())
		simcopy_poll(&program.world, 1, -1);
	/* What is left ends while its client waits for it. */
	for (unsigned int i = 0; i < program.num_clients; i++) {
		EXPECT(simcopy_destroy(program.clients[i]) == 0);
		pages += program.pages[i];
	}
	EXPECT(is_quiet());
	EXPECT(simcopy_watch.read_sectors_most <= pages * 8);
	for (unsigned int i = 0; i < program.num_disks; i++)
		EXPECT(memcmp(simcopy_sector(&program.world, i, 0), program.model[i],
			      program.num_sectors[i] * 512) == 0);
	EXPECT(kcopyd_throttle_destroy(program.throttle) == 0);
	simcopy_close(&program.world);
}

static void run_program(uint64_t nr)
{
	open_program(nr);
	for (unsigned int i = 20 + (unsigned int)below(100); i > 0; i--)
		step();
	close_program();
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && text[0] ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t num_programs(void)
{
	return number("DMCORE_SIM_SEEDS", rng_full()    ? PROGRAMS_FULL
					  : rng_brief() ? PROGRAMS_FEW
							: PROGRAMS);
}

Test(programs, of_copies_keep_every_promise, .timeout = 36000)
{
	uint64_t first = number("DMCORE_SIM_FIRST", 0);
	uint64_t count = num_programs();

	for (uint64_t nr = first; nr < first + count; nr++)
		run_program(nr);
	if (getenv("DMCORE_PROP_VERBOSE"))
		fprintf(stderr,
			"%lu programs: %lu jobs (%lu from pools), %lu cancelled, %lu failed, "
			"%lu over themselves, %lu callbacks, %lu refused, %lu inner positions\n",
			(unsigned long)count, (unsigned long)sum.jobs, (unsigned long)sum.pool_jobs,
			(unsigned long)sum.cancelled, (unsigned long)sum.failed,
			(unsigned long)sum.overlaps, (unsigned long)sum.callbacks,
			(unsigned long)sum.refused, (unsigned long)sum.positions);
	if (first || count < PROGRAMS_FEW)
		return;
	cr_assert_gt(sum.jobs, 2 * count);
	cr_assert_gt(sum.pool_jobs, count);
	cr_assert_gt(sum.cancelled, count / 10);
	cr_assert_gt(sum.failed, count / 20);
	cr_assert_gt(sum.overlaps, count / 10);
	cr_assert_gt(sum.callbacks, count / 2);
	cr_assert_gt(sum.positions, count / 4);
	cr_assert_gt(sum.refused, 0);
}
