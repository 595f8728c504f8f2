/* SPDX-License-Identifier: MIT */
/*
 * What a power cut leaves of a mirror with a log on disk, promise by promise: a short script each,
 * of which all states are shown, and the same with a disk that forgets what the promise stands on,
 * which must be found out. Scripts of random length are in test_mirror_random.c.
 *
 *	DMCORE_CRASH_LOG=1   tells how many states there were
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simmir.h"

#define LEGS 2u
#define LOG_BITS_OFFSET 1024u
#define REGION_SECTORS 2u
#define SECTORS 16u
#define REGIONS (SECTORS / REGION_SECTORS)
#define BYTES (SECTORS * 512u)
/* Marks of scripts; those of the model are smaller. */
#define ENDED 1000u
#define FLUSHED 1001u

enum { WRITES = 1 << DMCORE_OP_WRITE, FLUSHES = 1 << DMCORE_OP_FLUSH };

struct course {
	const char *what;
	void (*prepare)(void);                           /* before anything is active; or NULL */
	void (*script)(void);                            /* activates and records */
	void (*check)(const struct dmcore_sim_state *state); /* of each state */
	enum dmcore_sim_cuts cuts;
	unsigned int disk_flags;
	uint64_t min_states;
};

static struct simmir mir;
static bool other_order; /* who checks reads takes the last leg for the first */
static uint64_t num_states;
static uint64_t num_wrong;
static char first_wrong[300];
static unsigned char original[LEGS][BYTES]; /* what the legs held at first */

/* ---- what a state holds --------------------------------------------------------------------- */

static const unsigned char *leg_data(unsigned int leg)
{
	return dmcore_sim_disk_data(mir.world.disks[leg]);
}

static bool is_clean(unsigned int region)
{
	const unsigned char *log = dmcore_sim_disk_data(mir.world.disks[LEGS]);

	return log[LOG_BITS_OFFSET + region / 8] >> region % 8 & 1;
}

static bool region_is_same(const unsigned char *data, const unsigned char *other,
			   unsigned int region)
{
	size_t bytes = REGION_SECTORS * 512;

	return memcmp(data + region * bytes, other + region * bytes, bytes) == 0;
}

static bool is_zeroes(const unsigned char *data, size_t bytes)
{
	return data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
}

static void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void wrong(const char *format, ...)
{
	va_list args;
	int at;

	if (num_wrong++)
		return;
	va_start(args, format);
	at = vsnprintf(first_wrong, sizeof(first_wrong), format, args);
	va_end(args);
	if (at < 0 || (size_t)at + 2 >= sizeof(first_wrong))
		return;
	memcpy(first_wrong + at, ": ", 3);
	dmcore_sim_states_text(mir.states, first_wrong + at + 2,
			       sizeof(first_wrong) - (size_t)at - 2);
}

/* ---- before --------------------------------------------------------------------------------- */

/* Leg 1 differs from leg 0 in these regions, from the first sector to the last. */
static void load_differing(unsigned int regions)
{
	static unsigned char data[BYTES];

	memcpy(data, leg_data(0), BYTES);
	for (unsigned int i = 0; i < BYTES; i++) {
		if (regions >> i / (REGION_SECTORS * 512) & 1)
			data[i] = (unsigned char)(0x80 + i / 512);
	}
	cr_assert_eq(dmcore_sim_disk_load(mir.world.disks[1], data, BYTES, 0), 0);
}

/* The log has these for clean, and no others. */
static void load_clean(unsigned int regions)
{
	unsigned char log[SIMMIR_LOG_SECTORS * 512];

	memcpy(log, dmcore_sim_disk_data(mir.world.disks[LEGS]), sizeof(log));
	log[LOG_BITS_OFFSET] = (unsigned char)regions;
	cr_assert_eq(dmcore_sim_disk_load(mir.world.disks[LEGS], log, sizeof(log), 0), 0);
}

/* ---- restarts ------------------------------------------------------------------------------- */

static void activate(void)
{
	char text[128];

	if (!other_order) {
		simmir_activate(&mir);
		return;
	}
	snprintf(text, sizeof(text), "0 %u mirror disk 2 sim:d2 %u 2 sim:d1 0 sim:d0 0", SECTORS,
		 REGION_SECTORS);
	mir.device = simworld_map(&mir.world, "m", text);
}

static struct dmcore_bdev *bdev(void)
{
	return dmcore_device_bdev(mir.device);
}

/* Active again, as after a loss of power, until all is in sync. */
static void recover(void)
{
	simmir_activate(&mir);
	simmir_recover(&mir);
	simmir_deactivate(&mir);
}

static void check_recovered(const unsigned char *expected)
{
	for (unsigned int leg = 0; leg < LEGS; leg++) {
		if (memcmp(leg_data(leg), expected, BYTES) != 0)
			wrong("leg %u is another after recovery", leg);
	}
	for (unsigned int region = 0; region < REGIONS; region++) {
		if (!is_clean(region))
			wrong("region %u isn't clean after recovery", region);
	}
}

static void check_recovery(void)
{
	static unsigned char expected[BYTES];

	memcpy(expected, leg_data(0), BYTES);
	recover();
	check_recovered(expected);
}

/* ---- a course ------------------------------------------------------------------------------- */

static void visit(const struct course *course)
{
	struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = course->cuts,
		.states_per_cut = 1u << 16,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	int ret;

	for (unsigned int i = 0; i <= LEGS; i++)
		dmcore_sim_rules_clear(mir.world.disks[i]);
	cr_assert_eq(dmcore_sim_states_open(mir.world.sim, &options, &mir.states), 0, "%s",
		     dmcore_error_message());
	while ((ret = dmcore_sim_states_next(mir.states)) == 1) {
		cr_assert_eq(dmcore_sim_states_info(mir.states, &state), 0);
		cr_assert(state.all);
		num_states++;
		course->check(&state);
	}
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_states_close(mir.states), 0);
	mir.states = NULL;
}

/* A disk that doesn't do some operations (bits), and says that it has; 0: all do. */
static void run_script(const struct course *course, unsigned int disk, uint32_t forgotten)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule), .action = DMCORE_SIM_LOSE, .ops = forgotten,
	};
	const struct simmir_options options = {
		.num_legs = LEGS, .region_sectors = REGION_SECTORS, .num_sectors = SECTORS,
		.spread_ns = 30000, .disk_flags = course->disk_flags,
	};

	simmir_open(&mir, &options, 1);
	if (course->prepare)
		course->prepare();
	for (unsigned int leg = 0; leg < LEGS; leg++)
		memcpy(original[leg], leg_data(leg), BYTES);
	if (forgotten)
		cr_assert_eq(dmcore_sim_rule_add(mir.world.disks[disk], &rule), 0);
	course->script();
	simmir_deactivate(&mir);
	visit(course);
	simmir_close(&mir);
}

static void begin(void)
{
	num_states = 0;
	num_wrong = 0;
	other_order = false;
}

static void expect_held(const struct course *course)
{
	begin();
	run_script(course, 0, 0);
	if (getenv("DMCORE_CRASH_LOG"))
		fprintf(stderr, "%s: %lu states\n", course->what, (unsigned long)num_states);
	cr_assert_eq(num_wrong, 0, "%s: %lu of %lu states, %s", course->what,
		     (unsigned long)num_wrong, (unsigned long)num_states, first_wrong);
	cr_assert_geq(num_states, course->min_states, "%s: %lu states", course->what,
		      (unsigned long)num_states);
}

static void expect_found_out(const struct course *course, unsigned int disk, uint32_t forgotten)
{
	begin();
	run_script(course, disk, forgotten);
	cr_assert_gt(num_wrong, 0, "%s: not noticed", course->what);
}

static void mark(unsigned int value)
{
	simmir_wait(&mir, 0);
	cr_assert_eq(dmcore_sim_mark(mir.world.sim, value), 0);
}

static void write_range(unsigned int flags, uint64_t sector, uint64_t count)
{
	simmir_submit(&mir, DMCORE_OP_WRITE, flags, sector, count);
}

static void activate_and_record(void)
{
	simmir_activate(&mir);
	simmir_record(&mir);
}

/* ---- MR-02: where legs differ the log says so ----------------------------------------------- */

static void check_clean_is_same(const struct dmcore_sim_state *state)
{
	(void)state;
	for (unsigned int region = 0; region < REGIONS; region++) {
		if (is_clean(region) && !region_is_same(leg_data(0), leg_data(1), region))
			wrong("region %u is clean and differs", region);
	}
}

/* What has been clean in between is written once more. */
static void write_and_write_again(void)
{
	activate_and_record();
	write_range(0, 1, 2);
	write_range(DMCORE_BIO_FUA, 6, 1);
	simmir_wait(&mir, 0);
	simmir_pass(&mir, 2 * SIMMIR_PAUSE_NS);
	write_range(0, 0, 2);
	write_range(0, 7, 2);
	simmir_submit(&mir, DMCORE_OP_FLUSH, 0, 0, 0);
	simmir_wait(&mir, 0);
	write_range(0, 3, 1);
	simmir_wait(&mir, 0);
}

static const struct course differing = {
	.what = "legs that differ", .script = write_and_write_again,
	.check = check_clean_is_same, .cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 1000,
};

Test(mirror_promises, regions_whose_legs_differ_are_marked)
{
	expect_held(&differing);
}

Test(mirror_promises, regions_whose_legs_differ_are_not_marked_by_a_log_that_forgets)
{
	expect_found_out(&differing, LEGS, FLUSHES);
	expect_found_out(&differing, LEGS, WRITES);
}

/* ---- MR-16: a mark is durable before the first data is -------------------------------------- */

/* No leg has anything new of it, unless its mark has been taken back, and then all have all. */
static void check_clean_has_no_data(const struct dmcore_sim_state *state)
{
	for (unsigned int region = 0; region < REGIONS; region++) {
		for (unsigned int leg = 0; leg < LEGS && is_clean(region); leg++) {
			if (state->mark < ENDED &&
			    !region_is_same(leg_data(leg), original[leg], region))
				wrong("region %u is clean, and leg %u has data", region, leg);
		}
	}
}

static void write_first(void)
{
	activate_and_record();
	write_range(0, 1, 1);
	write_range(DMCORE_BIO_FUA, 3, 3);
	write_range(DMCORE_BIO_PREFLUSH, 8, 2);
	simmir_submit(&mir, DMCORE_OP_FLUSH, 0, 0, 0);
	simmir_wait(&mir, 0);
	mark(ENDED);
}

static const struct course first_data = {
	.what = "first writes", .script = write_first, .check = check_clean_has_no_data,
	.cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 1000,
};

Test(mirror_promises, marks_are_durable_before_any_leg_has_data)
{
	expect_held(&first_data);
}

Test(mirror_promises, marks_of_a_log_that_forgets_are_not_durable_before_data)
{
	expect_found_out(&first_data, LEGS, FLUSHES);
}

/* ---- marks are taken back when all legs have the data --------------------------------------- */

/* After ENDED what is clean has been marked before. */
static void check_taken_back(const struct dmcore_sim_state *state)
{
	if (state->mark < ENDED)
		return;
	for (unsigned int region = 0; region < REGIONS; region++) {
		for (unsigned int leg = 0; leg < LEGS && is_clean(region); leg++) {
			const unsigned char *data = leg_data(leg) + region * REGION_SECTORS * 512;

			for (unsigned int i = 0; i < REGION_SECTORS; i++) {
				/* The version stands in the lowest byte. */
				if (data[i * 512] != mir.latest[region * REGION_SECTORS + i])
					wrong("region %u is clean, and leg %u lacks data", region,
					      leg);
			}
		}
	}
}

static void write_and_pause(void)
{
	activate_and_record();
	write_range(0, 0, 2);
	write_range(0, 5, 2);
	mark(ENDED);
	simmir_pass(&mir, 2 * SIMMIR_PAUSE_NS);
}

/* By a removal, which is more in a hurry. */
static void write_and_stop(void)
{
	activate_and_record();
	write_range(0, 0, 2);
	write_range(0, 5, 2);
	mark(ENDED);
}

static const struct course taken_back[] = {
	{
		.what = "marks that are taken back", .script = write_and_pause,
		.check = check_taken_back, .cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 1000,
	},
	{
		.what = "marks that a removal takes back", .script = write_and_stop,
		.check = check_taken_back, .cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 1000,
	},
};

Test(mirror_promises, marks_are_taken_back_when_all_legs_have_the_data)
{
	expect_held(&taken_back[0]);
	expect_held(&taken_back[1]);
}

Test(mirror_promises, marks_are_taken_back_too_early_where_a_leg_forgets)
{
	for (unsigned int leg = 0; leg < LEGS; leg++) {
		expect_found_out(&taken_back[0], leg, FLUSHES);
		expect_found_out(&taken_back[1], leg, FLUSHES);
	}
}

/* ---- MR-03: what a flush has covered survives every restart --------------------------------- */

static void check_promised(const struct dmcore_sim_state *state)
{
	const uint8_t *promised = mir.at_mark[state->mark];
	static unsigned char data[BYTES];

	simmir_activate(&mir);
	cr_assert_eq(dmcore_pread(bdev(), data, BYTES, 0), 0);
	for (unsigned int i = 0; i < SECTORS; i++) {
		if (data[i * 512] < promised[i] || data[i * 512] > mir.latest[i])
			wrong("sector %u has version %u, promised was %u", i, data[i * 512],
			      promised[i]);
	}
	simmir_recover(&mir);
	simmir_deactivate(&mir);
	check_recovered(data);
}

static void write_and_flush(void)
{
	activate_and_record();
	write_range(0, 1, 2);
	simmir_wait(&mir, 0);
	simmir_submit(&mir, DMCORE_OP_FLUSH, 0, 0, 0);
	write_range(DMCORE_BIO_FUA, 4, 2);
	simmir_wait(&mir, 0);
	write_range(0, 1, 2);
	write_range(0, 6, 1);
	simmir_wait(&mir, 0);
	write_range(DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 8, 1);
	simmir_wait(&mir, 0);
	write_range(0, 4, 1);
	simmir_wait(&mir, 0);
	simmir_submit(&mir, DMCORE_OP_FLUSH, 0, 0, 0);
	simmir_wait(&mir, 0);
}

static const struct course flushed = {
	.what = "flushes", .script = write_and_flush, .check = check_promised,
	.cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 900,
};

Test(mirror_promises, writes_that_a_flush_covers_survive_every_restart)
{
	expect_held(&flushed);
}

/* FUA is left to the library, which flushes. */
Test(mirror_promises, writes_that_a_flush_covers_survive_on_disks_without_fua)
{
	struct course course = flushed;

	course.disk_flags = DMCORE_SIM_NO_FUA;
	expect_held(&course);
}

Test(mirror_promises, writes_that_a_flush_covers_are_lost_by_a_first_leg_that_forgets)
{
	expect_found_out(&flushed, 0, FLUSHES);
}

/* ---- MR-10: two reads find the same --------------------------------------------------------- */

static void check_read(const unsigned char *expected, const char *when)
{
	static unsigned char data[BYTES];

	cr_assert_eq(dmcore_pread(bdev(), data, BYTES, 0), 0);
	if (memcmp(data, expected, BYTES) != 0)
		wrong("reads otherwise %s", when);
}

/* Which is what leg 0 holds. */
static void check_reads(const struct dmcore_sim_state *state)
{
	static unsigned char expected[BYTES];

	(void)state;
	memcpy(expected, leg_data(0), BYTES);
	activate();
	check_read(expected, "at first");
	check_read(expected, "the second time");
	simmir_recover(&mir);
	check_read(expected, "after recovery");
	simmir_deactivate(&mir);
	activate();
	check_read(expected, "after a restart");
	simmir_deactivate(&mir);
	check_recovered(expected);
}

static void leave_writes_unflushed(void)
{
	activate_and_record();
	write_range(0, 1, 2);
	write_range(0, 6, 1);
	simmir_wait(&mir, 0);
	write_range(0, 2, 1);
	simmir_wait(&mir, 0);
}

static const struct course read_twice = {
	.what = "reads", .script = leave_writes_unflushed, .check = check_reads,
	.cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 1000,
};

Test(mirror_promises, reads_after_a_cut_find_the_same_twice)
{
	expect_held(&read_twice);
}

/* The states do differ: a restart that takes another leg for the first reads something else. */
Test(mirror_promises, reads_after_a_cut_find_something_else_on_another_leg)
{
	begin();
	other_order = true;
	run_script(&read_twice, 0, 0);
	cr_assert_gt(num_wrong, 0);
}

/* ---- discards and zeroes -------------------------------------------------------------------- */

static void check_zeroed(const struct dmcore_sim_state *state)
{
	check_clean_is_same(state);
	check_clean_has_no_data(state);
	if (state->mark >= FLUSHED && !(is_zeroes(leg_data(0) + 512, 2 * 512) &&
					is_zeroes(leg_data(0) + 7 * 512, 2 * 512)))
		wrong("leg 0 has lost zeroes");
	if (state->nr % 16 == 0)
		check_recovery();
}

static void discard_and_zero(void)
{
	activate_and_record();
	cr_assert_eq(dmcore_discard(bdev(), 2 * 512, 512), 0);
	cr_assert_eq(dmcore_write_zeroes(bdev(), 2 * 512, 7 * 512), 0);
	mark(ENDED);
	cr_assert_eq(dmcore_flush(bdev()), 0);
	mark(FLUSHED);
}

static const struct course zeroed = {
	.what = "discards and zeroes", .script = discard_and_zero, .check = check_zeroed,
	.cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 1000,
};

Test(mirror_promises, discards_and_zeroes_are_marked_and_flushed_like_writes)
{
	expect_held(&zeroed);
}

Test(mirror_promises, discards_and_zeroes_are_lost_where_a_disk_forgets)
{
	expect_found_out(&zeroed, LEGS, FLUSHES);
	expect_found_out(&zeroed, 0, FLUSHES);
}

/* ---- MR-03: removal and suspension in the middle of recovery -------------------------------- */

/* Every other region, so that each is copied by itself. */
#define UNSYNCED 0x55u

static uint64_t recovery_ns;
static bool suspends;
static unsigned int num_in_the_middle;

static void differ_in_every_other(void)
{
	load_differing(UNSYNCED);
	load_clean(~UNSYNCED & 0xff);
}

static void stop_recovery(void)
{
	unsigned int in_sync;
	unsigned int all;

	simmir_record(&mir);
	simmir_activate(&mir);
	simmir_pass(&mir, recovery_ns);
	simmir_progress(&mir, &in_sync, &all);
	num_in_the_middle += in_sync > REGIONS / 2 && in_sync < all;
	if (suspends)
		simmir_suspend_and_resume(&mir);
}

static void check_stopped(const struct dmcore_sim_state *state)
{
	check_clean_is_same(state);
	if (memcmp(leg_data(0), original[0], BYTES) != 0)
		wrong("recovery has changed leg 0");
	if (state->nr % 4 == 0)
		check_recovery();
}

static const struct course stopped = {
	.what = "recovery that is stopped", .prepare = differ_in_every_other,
	.script = stop_recovery, .check = check_stopped, .cuts = DMCORE_SIM_CUTS_EVENTS,
	.min_states = 20,
};

static void stop_everywhere(bool by_suspension)
{
	uint64_t step_ns = simmir_brief() || simmir_slow() ? 20000 : 10000;

	suspends = by_suspension;
	num_in_the_middle = 0;
	for (recovery_ns = 1; recovery_ns < 200000; recovery_ns += step_ns)
		expect_held(&stopped);
	cr_assert_gt(num_in_the_middle, 2);
}

Test(mirror_promises, regions_are_not_clean_when_a_removal_stops_their_recovery)
{
	stop_everywhere(false);
}

Test(mirror_promises, regions_are_not_clean_when_a_suspension_stops_their_recovery)
{
	stop_everywhere(true);
}

Test(mirror_promises, regions_are_clean_too_early_when_recovery_writes_to_a_leg_that_forgets)
{
	suspends = false;
	recovery_ns = 300000;
	expect_found_out(&stopped, 1, WRITES);
	expect_found_out(&stopped, 1, FLUSHES);
}

/* ---- a repair that is cut off --------------------------------------------------------------- */

#define ROTTEN 0x24u

static void differ_unnoticed(void)
{
	load_differing(ROTTEN);
}

static void scrub_and_repair(void)
{
	char answer[400];

	cr_assert_geq(dmcore_device_message(mir.device, 0, "scrub repair", answer,
					    sizeof(answer)),
		      0, "%s", dmcore_error_message());
	do {
		simmir_pass(&mir, 1000000);
		cr_assert_gt(dmcore_device_message(mir.device, 0, "scrub status", answer,
						   sizeof(answer)),
			     0);
	} while (strncmp(answer, "scrub running", 13) == 0);
	cr_assert_eq(strncmp(answer, "scrub done 8 8 ", 15), 0, "%s", answer);
	simmir_recover(&mir);
}

static void repair(void)
{
	activate_and_record();
	scrub_and_repair();
}

/* A clean region whose legs differ is one that nothing has been done to yet. */
static void check_repaired(const struct dmcore_sim_state *state)
{
	(void)state;
	for (unsigned int region = 0; region < REGIONS; region++) {
		if (is_clean(region) && !region_is_same(leg_data(0), leg_data(1), region) &&
		    !region_is_same(leg_data(1), original[1], region))
			wrong("region %u is clean and half repaired", region);
	}
	if (memcmp(leg_data(0), original[0], BYTES) != 0)
		wrong("a repair has changed leg 0");
	simmir_activate(&mir);
	simmir_recover(&mir);
	scrub_and_repair();
	simmir_deactivate(&mir);
	check_recovered(original[0]);
}

static const struct course repaired = {
	.what = "repairs", .prepare = differ_unnoticed, .script = repair,
	.check = check_repaired, .cuts = DMCORE_SIM_CUTS_EVENTS, .min_states = 100,
};

Test(mirror_promises, repairs_that_are_cut_off_leave_no_half_repaired_region_clean)
{
	expect_held(&repaired);
}

Test(mirror_promises, repairs_leave_half_repaired_regions_clean_where_a_disk_forgets)
{
	expect_found_out(&repaired, LEGS, FLUSHES);
	expect_found_out(&repaired, 1, FLUSHES);
}
