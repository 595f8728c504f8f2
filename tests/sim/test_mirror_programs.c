/* SPDX-License-Identifier: MIT */
/*
 * Random programs of requests to a mirror in a simulated world, against a model: while its regions
 * are recovered, suspended, and while legs fail for a while and come back. Every read finds what
 * was acknowledged before it came or something newer, and in the end all legs hold the same.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   100,000 programs
 *	DMCORE_PROGRAM=N     only program N of each kind
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/sim.h>

#include "support/rng.h"
#include "support/simworld.h"

#define SECTORS_MAX 256u
#define LEGS_MAX 9u
#define LEG_STEP 3u /* leg i begins at i times as many sectors */
#define LEG_SECTORS (SECTORS_MAX + LEGS_MAX * LEG_STEP)
#define AT_ONCE 8u
#define OPERATIONS 40u
#define VERSIONS 256u
#define US UINT64_C(1000)
#define MS (1000 * US)

struct request {
	struct dmcore_bio bio;
	bool busy;
	uint64_t sector; /* the bio's own are its targets' */
	uint64_t count;
	uint8_t op;
	uint8_t versions[SECTORS_MAX];
	uint8_t least[SECTORS_MAX];
	unsigned char data[SECTORS_MAX * DMCORE_SECTOR_BYTES];
};

static struct simworld world;
static struct dmcore_device *device;
static struct request requests[AT_ONCE];
static struct rng rng;
static uint64_t program;
static unsigned int num_legs;
static uint64_t num_sectors;
static uint32_t region_sectors;
static bool on_disk;
static bool may_fail;
static uint64_t num_written; /* sectors, to legs */
static uint64_t num_across;  /* requests to legs that touch two regions */

/* The model. */
static uint8_t latest[SECTORS_MAX]; /* version that was given out */
static uint8_t acked[SECTORS_MAX];  /* that has been acknowledged */
static bool zeroes[SECTORS_MAX][VERSIONS];

/* ---- contents ---- */

static void fill(unsigned char *data, uint64_t sector, uint8_t version)
{
	uint64_t word = UINT64_C(0x3199) << 48 | sector << 16 | version;

	if (zeroes[sector][version])
		word = 0;
	for (unsigned int i = 0; i < DMCORE_SECTOR_BYTES; i += sizeof(word))
		memcpy(data + i, &word, sizeof(word));
}

/* Whether it is one of these versions. */
static bool is_between(const unsigned char *data, uint64_t sector, uint8_t low, uint8_t high)
{
	unsigned char expected[DMCORE_SECTOR_BYTES];

	for (unsigned int version = low; version <= high; version++) {
		fill(expected, sector, (uint8_t)version);
		if (memcmp(data, expected, sizeof(expected)) == 0)
			return true;
	}
	return false;
}

static const unsigned char *leg_data(unsigned int leg)
{
	const unsigned char *data = dmcore_sim_disk_data(world.disks[leg]);

	return data + (uint64_t)leg * LEG_STEP * DMCORE_SECTOR_BYTES;
}

/* ---- worlds ---- */

static void watch(const struct dmcore_sim_event *event, void *context)
{
	unsigned int leg = (unsigned int)strtoul(event->disk + (event->disk[0] != '\0'), NULL, 10);
	uint64_t sector = event->sector - (uint64_t)leg * LEG_STEP;

	(void)context;
	if (event->kind != DMCORE_SIM_SUBMIT || leg >= num_legs || event->count == 0)
		return;
	if (event->op == DMCORE_OP_WRITE)
		num_written += event->count;
	if (sector / region_sectors != (sector + event->count - 1) / region_sectors)
		num_across++;
}

static void load_legs(void)
{
	static unsigned char data[LEG_SECTORS * DMCORE_SECTOR_BYTES];

	memset(latest, 0, sizeof(latest));
	memset(acked, 0, sizeof(acked));
	memset(zeroes, 0, sizeof(zeroes));
	for (unsigned int leg = 0; leg < num_legs; leg++) {
		memset(data, (int)leg, sizeof(data));
		for (uint64_t i = 0; i < num_sectors && leg == 0; i++)
			fill(data + i * DMCORE_SECTOR_BYTES, i, 0);
		cr_assert_eq(dmcore_sim_disk_load(world.disks[leg], data, sizeof(data), 0), 0);
	}
}

static void open_world(void)
{
	num_written = 0;
	num_across = 0;
	simworld_open_watched(&world, rng_seed() + program, watch, NULL);
	world.options.read_ns = 50 * US;
	world.options.write_ns = 80 * US;
	world.options.flush_ns = 100 * US;
	world.options.spread_ns = rng_below(&rng, 3) * 200 * US;
	world.options.depth = rng_one_in(&rng, 4) ? 1 : 0;
	for (unsigned int i = 0; i <= num_legs; i++)
		simworld_add_disk(&world, LEG_SECTORS);
	load_legs();
	for (unsigned int i = 0; i < AT_ONCE; i++)
		dmcore_bio_init(&requests[i].bio, world.queue);
}

static void activate(const char *sync, const char *features)
{
	char text[300];
	char log[24] = "";
	int at;

	if (on_disk)
		snprintf(log, sizeof(log), " sim:d%u", num_legs);
	at = snprintf(text, sizeof(text), "0 %u mirror %s %u%s %u%s %u", (unsigned int)num_sectors,
		      on_disk ? "disk" : "core", 1u + on_disk + (sync[0] != '\0'), log,
		      region_sectors, sync, num_legs);
	for (unsigned int i = 0; i < num_legs; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " sim:d%u %u", i,
			       i * LEG_STEP);
	snprintf(text + at, sizeof(text) - (size_t)at, "%s", features);
	device = simworld_map(&world, "m", text);
}

static void close_world(void)
{
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_eq(world.num_stuck, 0);
	simworld_close(&world);
}

/* The service has its turns while somebody polls. */
static void pass(uint64_t ns)
{
	uint64_t until_ns = dmcore_sim_now_ns(world.sim) + ns;
	uint64_t now_ns;

	while ((now_ns = dmcore_sim_now_ns(world.sim)) < until_ns)
		cr_assert_geq(dmcore_queue_poll(world.queue, 1, UINT32_MAX,
						(int64_t)(until_ns - now_ns)),
			      0);
}

static void read_progress(unsigned int *in_sync, unsigned int *all)
{
	char line[300];
	const char *at;

	cr_assert_gt(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, line, sizeof(line)), 0);
	at = strchr(line, '/');
	cr_assert(at, "%s", line);
	while (at[-1] != ' ')
		at--;
	*in_sync = (unsigned int)strtoul(at, NULL, 10);
	*all = (unsigned int)strtoul(strchr(at, '/') + 1, NULL, 10);
}

static void recover(void)
{
	unsigned int in_sync;
	unsigned int all;

	for (unsigned int i = 0; i < 1000; i++) {
		read_progress(&in_sync, &all);
		if (in_sync == all)
			return;
		pass(i < 200 ? MS : 1000 * MS);
	}
	cr_assert_fail("program %llu: %u of %u regions are in sync", (unsigned long long)program,
		       in_sync, all);
}

static void expect_same_legs(void)
{
	for (unsigned int leg = 1; leg < num_legs; leg++)
		cr_assert_eq(memcmp(leg_data(0), leg_data(leg), num_sectors * DMCORE_SECTOR_BYTES),
			     0, "program %llu: leg %u differs", (unsigned long long)program, leg);
	for (uint64_t i = 0; i < num_sectors; i++)
		cr_assert(is_between(leg_data(0) + i * DMCORE_SECTOR_BYTES, i, acked[i], latest[i]),
			  "program %llu: sector %llu is not version %u to %u",
			  (unsigned long long)program, (unsigned long long)i, acked[i], latest[i]);
}

/* ---- requests ---- */

static void check_read(const struct request *request)
{
	for (uint64_t i = 0; i < request->count; i++) {
		uint64_t sector = request->sector + i;

		cr_assert(is_between(request->data + i * DMCORE_SECTOR_BYTES, sector,
				     request->least[i], latest[sector]),
			  "program %llu: sector %llu is read as none of %u to %u",
			  (unsigned long long)program, (unsigned long long)sector,
			  request->least[i], latest[sector]);
	}
}

static void note_end(struct dmcore_bio *bio)
{
	struct request *request = bio->context;

	request->busy = false;
	if (bio->status) {
		cr_assert(may_fail, "program %llu: op %u ends with %d",
			  (unsigned long long)program, request->op, bio->status);
		return;
	}
	if (request->op == DMCORE_OP_READ)
		check_read(request);
	for (uint64_t i = 0; i < request->count && request->op != DMCORE_OP_READ; i++)
		acked[request->sector + i] = request->versions[i];
}

static bool is_written(uint64_t sector, uint64_t count)
{
	for (unsigned int i = 0; i < AT_ONCE; i++) {
		const struct request *other = &requests[i];

		if (other->busy && other->op != DMCORE_OP_READ &&
		    other->sector < sector + count && sector < other->sector + other->count)
			return true;
	}
	return false;
}

static struct request *find_idle(void)
{
	for (unsigned int i = 0; i < AT_ONCE; i++) {
		if (!requests[i].busy)
			return &requests[i];
	}
	return NULL;
}

static void give_versions(struct request *request)
{
	for (uint64_t i = 0; i < request->count; i++) {
		uint64_t sector = request->sector + i;
		uint8_t version = ++latest[sector];

		cr_assert_neq(version, 0);
		zeroes[sector][version] = request->op != DMCORE_OP_WRITE;
		request->versions[i] = version;
		fill(request->data + i * DMCORE_SECTOR_BYTES, sector, version);
	}
}

/* Two writes of one sector may come to the legs in different orders: there is one at a time. */
static void send(enum dmcore_op op, unsigned int flags, uint64_t sector, uint64_t count)
{
	struct request *request = find_idle();
	struct dmcore_bio *bio;

	if (!request || (op != DMCORE_OP_READ && is_written(sector, count)))
		return;
	bio = &request->bio;
	request->busy = true;
	request->op = (uint8_t)op;
	request->sector = sector;
	request->count = count;
	if (op == DMCORE_OP_READ)
		memcpy(request->least, acked + sector, count);
	else
		give_versions(request);
	bio->bdev = dmcore_device_bdev(device);
	bio->op = (uint8_t)op;
	bio->flags = (uint16_t)flags;
	bio->sector = sector;
	bio->count = count;
	bio->done = note_end;
	bio->context = request;
	if (op == DMCORE_OP_READ || op == DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(bio, request->data, count * DMCORE_SECTOR_BYTES);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static bool all_idle(void)
{
	for (unsigned int i = 0; i < AT_ONCE; i++) {
		if (requests[i].busy)
			return false;
	}
	return true;
}

static void wait_for_all(void)
{
	for (unsigned int i = 0; i < 1000 && !all_idle(); i++)
		pass(i < 200 ? MS : 1000 * MS);
	cr_assert(all_idle(), "program %llu: a request doesn't end", (unsigned long long)program);
}

/* ---- programs ---- */

static void fail_at_random(void)
{
	static const uint32_t ops[] = {
		1u << DMCORE_OP_WRITE,
		1u << DMCORE_OP_FLUSH,
		1u << DMCORE_OP_READ,
		1u << DMCORE_OP_WRITE | 1u << DMCORE_OP_DISCARD | 1u << DMCORE_OP_WRITE_ZEROES,
	};
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = rng_one_in(&rng, 2) ? DMCORE_SIM_FAIL : DMCORE_SIM_FAIL_DONE,
		.status = -5,
		.ops = ops[rng_below(&rng, 4)],
		.times = (uint32_t)rng_below(&rng, 4), /* 0: until it is mended */
	};

	/* The oldest rule decides: when there is no room it fails already. */
	(void)!dmcore_sim_rule_add(world.disks[rng_below(&rng, num_legs)], &rule);
}

static void mend(void)
{
	for (unsigned int i = 0; i < num_legs; i++)
		dmcore_sim_rules_clear(world.disks[i]);
}

static void send_at_random(void)
{
	static const enum dmcore_op ops[] = { DMCORE_OP_WRITE, DMCORE_OP_WRITE, DMCORE_OP_WRITE,
					      DMCORE_OP_READ,  DMCORE_OP_READ,  DMCORE_OP_DISCARD,
					      DMCORE_OP_WRITE_ZEROES };
	enum dmcore_op op = ops[rng_below(&rng, 7)];
	uint64_t sector = rng_below(&rng, num_sectors);
	uint64_t most = num_sectors - sector;

	if (most > 3u * region_sectors)
		most = 3u * region_sectors;
	send(op, op == DMCORE_OP_WRITE && rng_one_in(&rng, 6) ? DMCORE_BIO_FUA : 0, sector,
	     rng_between(&rng, 1, most));
}

/* What waits for a leg to be replaced ends with it. */
static void suspend_and_resume(void)
{
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0, "program %llu: %s",
		     (unsigned long long)program, dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0);
}

static void run_at_random(bool fails)
{
	uint64_t what = rng_below(&rng, 30);

	if (what == 0) {
		suspend_and_resume();
	} else if (what == 1) {
		pass(1100 * MS);
	} else if (what == 2) {
		mend();
	} else if (what <= 4 && fails) {
		fail_at_random();
	} else {
		send_at_random();
	}
	if (!rng_one_in(&rng, 3))
		pass(rng_below(&rng, 400 * US));
}

static void choose_world(unsigned int legs_max)
{
	rng_start(&rng, program);
	num_legs = (unsigned int)rng_between(&rng, 2, legs_max);
	region_sectors = 2u << rng_below(&rng, 6);
	num_sectors = rng_between(&rng, region_sectors + 1, SECTORS_MAX);
	on_disk = rng_one_in(&rng, 2);
	may_fail = false;
}

static void run_program(bool fails)
{
	static const char *const features[] = {
		"", " 1 balance_reads", " 3 write_behind 1 8",
		" 4 write_behind 1 64 balance_reads", " 1 handle_errors",
		" 2 handle_errors keep_log", " 4 write_behind 1 16 handle_errors",
	};
	const char *chosen;

	choose_world(4);
	chosen = features[rng_below(&rng, fails ? 7 : 4)];
	open_world();
	activate("", chosen);
	may_fail = fails;
	for (unsigned int i = 0; i < OPERATIONS; i++)
		run_at_random(fails);
	mend();
	pass(100 * MS);
	if (!all_idle())
		suspend_and_resume();
	wait_for_all();
	recover();
	expect_same_legs();
	/* A leg that has failed to read isn't read again by this table. */
	cr_assert_eq(dmcore_device_remove(device), 0);
	activate("", chosen);
	may_fail = false;
	send(DMCORE_OP_READ, 0, 0, num_sectors);
	wait_for_all();
	recover();
	expect_same_legs();
	close_world();
}

static unsigned int first_program(void)
{
	const char *number = getenv("DMCORE_PROGRAM");

	return number ? (unsigned int)strtoul(number, NULL, 10) : 0;
}

static unsigned int num_programs(void)
{
	if (getenv("DMCORE_PROGRAM"))
		return first_program() + 1;
	return rng_full() ? 100000 : rng_brief() ? 100 : 1500;
}

Test(mirror_programs, first_recovery_writes_each_leg_but_one_once, .timeout = 3600)
{
	for (unsigned int i = first_program(); i < num_programs(); i++) {
		program = i;
		choose_world(LEGS_MAX);
		open_world();
		activate("", "");
		recover();
		cr_assert_leq(num_written, num_sectors * (num_legs - 1),
			      "program %llu: %llu sectors",
			      (unsigned long long)program,
			      (unsigned long long)num_written);
		expect_same_legs();
		close_world();
	}
}

Test(mirror_programs, no_update_is_lost_during_recovery, .timeout = 36000)
{
	for (unsigned int i = first_program(); i < num_programs(); i++) {
		program = i;
		run_program(false);
	}
}

Test(mirror_programs, no_update_is_lost_on_legs_that_fail_for_a_while, .timeout = 36000)
{
	for (unsigned int i = first_program(); i < num_programs(); i++) {
		program = i;
		run_program(true);
	}
}

/* ---- one thing at a time ---- */

Test(mirror_programs, write_to_region_that_is_recovered_waits_for_it)
{
	const struct dmcore_sim_rule hold = {
		.struct_size = sizeof(hold),
		.action = DMCORE_SIM_HOLD,
		.ops = 1u << DMCORE_OP_READ,
		.times = 1,
	};

	choose_world(2);
	num_sectors = 128;
	region_sectors = 32;
	open_world();
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &hold), 0);
	activate("", "");
	pass(MS);
	num_written = 0;
	send(DMCORE_OP_WRITE, 0, 5, 3);
	pass(20 * MS);
	cr_assert(requests[0].busy);
	cr_assert_eq(num_written, 0);
	dmcore_sim_release(world.disks[0]);
	wait_for_all();
	recover();
	expect_same_legs();
	cr_assert_eq(acked[5], 1);
	close_world();
}

static bool is_clean(uint64_t region)
{
	const unsigned char *log = dmcore_sim_disk_data(world.disks[num_legs]);

	return log[1024 + region / 8] >> region % 8 & 1;
}

Test(mirror_programs, write_across_edges_marks_each_region_and_no_other)
{
	choose_world(2);
	num_sectors = 100;
	region_sectors = 8;
	on_disk = true;
	open_world();
	activate(" nosync", "");
	send(DMCORE_OP_WRITE, 0, 12, 30);
	wait_for_all();
	cr_assert_eq(num_written, 2 * 30u);
	cr_assert_eq(num_across, 0);
	for (uint64_t region = 0; region < 13; region++)
		cr_assert_eq(is_clean(region), region < 1 || region > 5, "region %u",
			     (unsigned int)region);
	pass(1100 * MS);
	for (uint64_t region = 0; region < 13; region++)
		cr_assert(is_clean(region), "region %u", (unsigned int)region);
	close_world();
}
