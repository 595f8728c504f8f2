/* SPDX-License-Identifier: MIT */
/*
 * What has been told to be durable is there whatever a power cut leaves: random requests, several
 * at once, on disks of a simulated world and on devices of the library's targets over them. Every
 * state that a cut may leave is compared with what had been promised by then.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   100,000 programs
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/sim.h>

#include "support/rng.h"

#define SECTORS 48u
#define DISKS 3u
#define DISK_SECTORS 64u
#define AT_ONCE 6u
#define OPS 24u
#define PROGRAMS 120u
#define PROGRAMS_BRIEF 21u
#define PROGRAMS_FULL 100000u
#define MARKS_MAX (2 * OPS + 2)
#define WORDS (DMCORE_SECTOR_BYTES / sizeof(uint64_t))

/* What the requests go to. */
static const char *const tables[] = {
	NULL, /* a disk itself */
	"0 48 linear sim:a 8",
	"0 20 linear sim:a 0\n20 28 linear sim:b 16",
	"0 48 striped 3 4 sim:a 0 sim:b 8 sim:c 16",
	"0 24 striped 2 3 sim:a 0 sim:c 4\n24 24 linear sim:b 10",
	"0 48 switch 2 8 0 sim:a 0 sim:b 0",
	"0 48 dust sim:a 8 512",
	"0 48 delay sim:a 8 0 sim:a 8 1 sim:a 8 1",
	"0 48 flakey sim:a 8 1 0",
};

#define NUM_TABLES (sizeof(tables) / sizeof(tables[0]))

/* Every sector counts its writes: a version is there if it or a later one is. */
typedef uint32_t versions[SECTORS];

struct request {
	bool busy;
	enum dmcore_op op;
	unsigned int flags;
	uint64_t sector;
	uint64_t count;
	uint32_t version;
	versions covered; /* FLUSH, PREFLUSH: what had ended when it was submitted */
	struct dmcore_bio bio;
	unsigned char memory[SECTORS * DMCORE_SECTOR_BYTES];
};

struct program {
	struct rng rng;
	unsigned long nr;
	struct dmcore_sim *sim;
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmcore_bdev *bdev;
	struct dmcore_bdev *opened;
	struct dmcore_device *device;
	struct dmcore_sim_disk *disks[DISKS];
	unsigned int num_writes;     /* that have reached the disks */
	unsigned int num_fua_writes;
	int status;                  /* that requests end with */
	unsigned int num_busy;
	struct request requests[AT_ONCE];
	uint32_t last_version;
	versions submitted;
	versions ended;
	versions promised;
	unsigned int num_marks;
	versions at_mark[MARKS_MAX];
	unsigned long num_states;
	unsigned long num_broken; /* promises, in all states */
	char broken[160];         /* the first of them */
};

static struct program program;

/* ---- worlds --------------------------------------------------------------------------------- */

static void note_event(const struct dmcore_sim_event *event, void *context)
{
	(void)context;
	if (event->kind != DMCORE_SIM_SUBMIT || event->op != DMCORE_OP_WRITE)
		return;
	program.num_writes++;
	program.num_fua_writes += (event->flags & DMCORE_BIO_FUA) != 0;
}

static void open_world(unsigned long nr, const char *table, unsigned int disk_flags)
{
	struct dmcore_sim_options options = {
		.struct_size = sizeof(options),
		.seed = nr + 1,
		.event = note_event,
	};
	struct dmcore_sim_disk_options disk_options = {
		.struct_size = sizeof(disk_options),
		.sectors = DISK_SECTORS,
		.flags = disk_flags,
		.read_ns = 1000,
		.write_ns = 5000,
		.flush_ns = 20000,
		.spread_ns = 30000,
	};

	memset(&program, 0, sizeof(program));
	program.nr = nr;
	rng_start(&program.rng, nr);
	cr_assert_eq(dmcore_sim_create(&options, &program.sim), 0);
	for (unsigned int i = 0; i < DISKS; i++) {
		const char name[] = { (char)('a' + (int)i), '\0' };

		cr_assert_eq(dmcore_sim_disk_create(program.sim, name, &disk_options,
						    &program.disks[i]), 0);
	}
	cr_assert_eq(dmcore_sim_core(program.sim, NULL, &program.core), 0);
	cr_assert_eq(dmcore_queue_create(program.core, NULL, &program.queue), 0);
	if (!table) {
		cr_assert_eq(dmcore_bdev_open(program.core, "sim:a", 0, &program.opened), 0);
		program.bdev = program.opened;
	} else {
		struct dmcore_table *parsed;

		cr_assert_eq(dmcore_table_parse(program.core, table, 0, &parsed), 0, "%s",
			     dmcore_error_message());
		cr_assert_eq(dmcore_device_create(program.core, "m", NULL, 0, &program.device), 0);
		cr_assert_eq(dmcore_device_load(program.device, parsed), 0);
		cr_assert_eq(dmcore_device_resume(program.device), 0);
		program.bdev = dmcore_device_bdev(program.device);
	}
	for (unsigned int i = 0; i < AT_ONCE; i++)
		dmcore_bio_init(&program.requests[i].bio, program.queue);
	cr_assert_eq(dmcore_sim_record(program.sim), 0);
}

static void close_world(void)
{
	cr_assert_eq(dmcore_queue_destroy(program.queue), 0);
	cr_assert_eq(dmcore_device_remove(program.device), 0);
	cr_assert_eq(dmcore_bdev_close(program.opened), 0);
	cr_assert_eq(dmcore_destroy(program.core), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_destroy(program.sim), 0);
}

/* ---- requests, and what they promise -------------------------------------------------------- */

static void fill(unsigned char *bytes, uint64_t sector, uint64_t count, uint32_t version)
{
	for (uint64_t i = 0; i < count * WORDS; i++) {
		uint64_t word = (sector + i / WORDS) << 32 | version;

		memcpy(bytes + i * sizeof(word), &word, sizeof(word));
	}
}

static void raise_to(versions versions, const uint32_t *other)
{
	for (unsigned int i = 0; i < SECTORS; i++) {
		if (versions[i] < other[i])
			versions[i] = other[i];
	}
}

/* From now on this must survive. */
static void promise(void)
{
	cr_assert_lt(program.num_marks + 1, MARKS_MAX);
	memcpy(program.at_mark[++program.num_marks], program.promised, sizeof(versions));
	cr_assert_eq(dmcore_sim_mark(program.sim, program.num_marks), 0);
}

static void note_end(struct dmcore_bio *bio)
{
	struct request *request = bio->context;

	cr_assert_eq(bio->status, program.status, "program %lu: %d", program.nr, bio->status);
	request->busy = false;
	program.num_busy--;
	if (bio->status)
		return;
	if (request->op == DMCORE_OP_FLUSH || request->flags & DMCORE_BIO_PREFLUSH)
		raise_to(program.promised, request->covered);
	for (uint64_t i = 0; request->op == DMCORE_OP_WRITE && i < request->count; i++) {
		uint64_t sector = request->sector + i;

		program.ended[sector] = request->version;
		if (request->flags & DMCORE_BIO_FUA)
			program.promised[sector] = request->version;
	}
	promise();
}

static bool is_free(uint64_t sector, uint64_t count)
{
	for (unsigned int i = 0; i < AT_ONCE; i++) {
		const struct request *other = &program.requests[i];

		if (other->busy && other->op == DMCORE_OP_WRITE &&
		    other->sector < sector + count && sector < other->sector + other->count)
			return false;
	}
	return true;
}

static struct request *idle_request(void)
{
	for (unsigned int i = 0; i < AT_ONCE; i++) {
		if (!program.requests[i].busy)
			return &program.requests[i];
	}
	return NULL;
}

static void submit(enum dmcore_op op, unsigned int flags, uint64_t sector, uint64_t count)
{
	struct request *request = idle_request();
	struct dmcore_bio *bio = &request->bio;

	request->busy = true;
	request->op = op;
	request->flags = flags;
	request->sector = sector;
	request->count = count;
	memcpy(request->covered, program.ended, sizeof(versions));
	bio->bdev = program.bdev;
	bio->op = (uint8_t)op;
	bio->flags = (uint16_t)flags;
	bio->sector = sector;
	if (op == DMCORE_OP_WRITE) {
		request->version = ++program.last_version;
		fill(request->memory, sector, count, request->version);
		dmcore_bio_set_buffer(bio, request->memory, count * DMCORE_SECTOR_BYTES);
		for (uint64_t i = 0; i < count; i++)
			program.submitted[sector + i] = request->version;
	}
	bio->count = count;
	bio->done = note_end;
	bio->context = request;
	program.num_busy++;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

/* Until no more than so many are under way. */
static void wait_for(unsigned int num_busy)
{
	while (program.num_busy > num_busy)
		cr_assert_geq(dmcore_queue_poll(program.queue, 1, UINT32_MAX, -1), 0);
}

static void run_at_random(void)
{
	static const unsigned int flags[] = {
		0, 0, 0, DMCORE_BIO_FUA, DMCORE_BIO_PREFLUSH, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA,
	};

	for (unsigned int i = 0; i < OPS; i++) {
		uint64_t sector = rng_below(&program.rng, SECTORS);
		uint64_t count = 1 + rng_below(&program.rng, 8);

		wait_for((unsigned int)rng_below(&program.rng, AT_ONCE));
		if (count > SECTORS - sector)
			count = SECTORS - sector;
		if (rng_one_in(&program.rng, 4))
			submit(DMCORE_OP_FLUSH, 0, 0, 0);
		else if (is_free(sector, count))
			submit(DMCORE_OP_WRITE, flags[rng_below(&program.rng, 6)], sector, count);
	}
	wait_for(0);
}

/* ---- states --------------------------------------------------------------------------------- */

/* The version that a sector holds; UINT32_MAX: no one's. */
static uint32_t version_of(const unsigned char *bytes, uint64_t sector)
{
	uint64_t first;
	uint64_t word;

	memcpy(&first, bytes, sizeof(first));
	for (unsigned int i = 1; i < WORDS; i++) {
		memcpy(&word, bytes + i * sizeof(word), sizeof(word));
		if (word != first)
			return UINT32_MAX;
	}
	if (first == 0)
		return 0;
	return first >> 32 == sector ? (uint32_t)first : UINT32_MAX;
}

static void check_state(const struct dmcore_sim_states *states, const versions found)
{
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	const uint32_t *promised;

	cr_assert_eq(dmcore_sim_states_info(states, &state), 0);
	promised = program.at_mark[state.mark];
	for (unsigned int i = 0; i < SECTORS; i++) {
		if (found[i] >= promised[i] && found[i] <= program.submitted[i])
			continue;
		if (program.num_broken++ == 0)
			snprintf(program.broken, sizeof(program.broken),
				 "cut after event %llu: sector %u holds %u, %u was promised",
				 (unsigned long long)state.cut_nr, i, found[i], promised[i]);
	}
}

/* Through all states, by the device itself; `look` sees each, too. */
static void check_states(enum dmcore_sim_cuts cuts, uint32_t per_cut,
			 void (*look)(const versions found))
{
	static unsigned char bytes[SECTORS * DMCORE_SECTOR_BYTES];
	struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = cuts,
		.states_per_cut = per_cut,
	};
	struct dmcore_sim_states *states;
	int ret;

	cr_assert_eq(dmcore_sim_states_open(program.sim, &options, &states), 0, "%s",
		     dmcore_error_message());
	while ((ret = dmcore_sim_states_next(states)) > 0) {
		versions found;

		cr_assert_eq(dmcore_pread(program.bdev, bytes, sizeof(bytes), 0), 0);
		for (unsigned int i = 0; i < SECTORS; i++)
			found[i] = version_of(bytes + (size_t)i * DMCORE_SECTOR_BYTES, i);
		check_state(states, found);
		if (look)
			look(found);
		program.num_states++;
	}
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

static void expect_kept(const char *what)
{
	cr_assert_eq(program.num_broken, 0, "%s, program %lu, seed %lu: %lu broken promises: %s",
		     what, program.nr, (unsigned long)rng_seed(), program.num_broken,
		     program.broken);
	cr_assert_gt(program.num_states, 0);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static const unsigned int disk_kinds[] = {
	0,
	DMCORE_SIM_NO_FUA,
	DMCORE_SIM_NO_FUA | DMCORE_SIM_NO_DISCARD | DMCORE_SIM_NO_WRITE_ZEROES,
};

static unsigned long num_programs(void)
{
	if (rng_full())
		return PROGRAMS_FULL;
	return rng_brief() ? PROGRAMS_BRIEF : PROGRAMS;
}

static void run_program(unsigned long nr, unsigned int more_flags)
{
	open_world(nr, tables[nr % NUM_TABLES], disk_kinds[nr / NUM_TABLES % 3] | more_flags);
	run_at_random();
	check_states(DMCORE_SIM_CUTS_EPOCHS, 24, NULL);
}

Test(promises, of_random_programs_are_kept, .timeout = 36000)
{
	for (unsigned long nr = 0; nr < num_programs(); nr++) {
		run_program(nr, 0);
		expect_kept("random");
		close_world();
	}
}

/* The judge is judged. */
Test(promises, of_disks_that_lie_are_found_broken)
{
	unsigned int num_found = 0;

	for (unsigned long nr = 0; nr < 3 * NUM_TABLES; nr++) {
		run_program(nr, DMCORE_SIM_LIES);
		num_found += program.num_broken > 0;
		close_world();
	}
	cr_assert_gt(num_found, 2 * NUM_TABLES, "%u", num_found);
}

/* Each device over each kind of disk. */
static void on_every_device(void (*test)(void), void (*look)(const versions found))
{
	for (unsigned int i = 0; i < NUM_TABLES; i++) {
		for (unsigned int kind = 0; kind < 3; kind++) {
			open_world(i, tables[i], disk_kinds[kind]);
			test();
			check_states(DMCORE_SIM_CUTS_EVENTS, rng_brief() ? 6 : 24, look);
			expect_kept(tables[i] ? tables[i] : "a disk");
			close_world();
		}
	}
}

/* Over all stripes. */
static void write_durably(void)
{
	submit(DMCORE_OP_WRITE, 0, 0, SECTORS);
	wait_for(0);
	submit(DMCORE_OP_WRITE, DMCORE_BIO_FUA, 1, SECTORS - 2);
	wait_for(0);
	cr_assert_eq(program.promised[1], 2);
	cr_assert_eq(program.promised[SECTORS - 2], 2);
	cr_assert_eq(program.promised[0], 0);
}

Test(promises, durable_write_is_in_every_state)
{
	on_every_device(write_durably, NULL);
}

static void write_after_write(void)
{
	submit(DMCORE_OP_WRITE, 0, 3, 30);
	wait_for(0);
	submit(DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 40, 1);
	wait_for(0);
}

static void both_or_the_first(const versions found)
{
	for (unsigned int i = 3; i < 33; i++)
		cr_assert(found[40] == 0 || found[i] == 1, "sector %u isn't there", i);
}

Test(promises, write_with_preflush_is_never_there_before_what_had_ended)
{
	on_every_device(write_after_write, both_or_the_first);
}

static void write_and_flush_all(void)
{
	submit(DMCORE_OP_WRITE, 0, 0, SECTORS);
	wait_for(0);
	submit(DMCORE_OP_FLUSH, 0, 0, 0);
	wait_for(0);
	cr_assert_eq(program.promised[0], 1);
	cr_assert_eq(program.promised[SECTORS - 1], 1);
}

Test(promises, flush_keeps_what_every_disk_below_has_cached)
{
	on_every_device(write_and_flush_all, NULL);
}

static unsigned int num_absent;

static void count_absent(const versions found)
{
	num_absent += found[0] == 0;
}

/* That such a write may be lost though a flush that came later has ended. */
Test(promises, flush_promises_nothing_for_a_write_under_way, .timeout = 36000)
{
	for (unsigned long nr = 0; nr < num_programs(); nr++) {
		open_world(nr, tables[nr % NUM_TABLES], 0);
		submit(DMCORE_OP_WRITE, 0, 0, 1);
		submit(DMCORE_OP_FLUSH, 0, 0, 0);
		wait_for(0);
		cr_assert_eq(program.promised[0], 0);
		num_absent = 0;
		check_states(DMCORE_SIM_CUTS_END, 16, count_absent);
		expect_kept("under way");
		cr_assert_gt(num_absent, 0, "program %lu", nr);
		close_world();
	}
}

/* By every disk in turn: it is told, and what is written again and flushed is there. */
Test(promises, failed_flush_is_told_and_promises_nothing)
{
	static const char table[] = "0 48 striped 3 4 sim:a 0 sim:b 8 sim:c 16";
	struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_FAIL,
		.status = -EIO,
		.ops = 1u << DMCORE_OP_FLUSH,
		.times = 1,
	};

	for (unsigned int i = 0; i < DISKS; i++) {
		open_world(i, table, 0);
		cr_assert_eq(dmcore_sim_rule_add(program.disks[i], &rule), 0);
		submit(DMCORE_OP_WRITE, 0, 0, SECTORS);
		wait_for(0);
		program.status = -EIO;
		submit(DMCORE_OP_FLUSH, 0, 0, 0);
		wait_for(0);
		cr_assert_eq(dmcore_sim_rules_acted(program.disks[i]), 1);
		program.status = 0;
		submit(DMCORE_OP_WRITE, 0, 0, SECTORS);
		wait_for(0);
		submit(DMCORE_OP_FLUSH, 0, 0, 0);
		wait_for(0);
		cr_assert_eq(program.promised[0], 2);
		check_states(DMCORE_SIM_CUTS_EVENTS, 64, NULL);
		expect_kept(table);
		close_world();
	}
}

Test(promises, every_part_of_a_durable_write_over_stripes_is_durable)
{
	open_world(0, "0 48 striped 3 4 sim:a 0 sim:b 8 sim:c 16", 0);
	submit(DMCORE_OP_WRITE, DMCORE_BIO_FUA, 2, 10);
	wait_for(0);
	cr_assert_eq(program.num_writes, 3);
	cr_assert_eq(program.num_fua_writes, 3);
	check_states(DMCORE_SIM_CUTS_EVENTS, 1024, NULL);
	expect_kept("stripes");
	close_world();
}
