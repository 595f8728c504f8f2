/* SPDX-License-Identifier: MIT */
/*
 * A merge is cut at every point: what it shows is the same in all states, and it can go on, to the
 * same origin. It is cut again on its way, three deep.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   more of everything
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simsnap.h"

static struct simsnap snap;

/* Another snapshot of the origin, on a disk of its own; it is only read. */
static bool has_other;
static struct dmcore_device *other;
static uint8_t other_versions[SIMSNAP_SECTORS_MAX];

/* ---- the other snapshot --------------------------------------------------------------------- */

static void start_other(void)
{
	char text[80];

	if (!has_other)
		return;
	snprintf(text, sizeof(text), "0 %u snapshot sim:d0 sim:d2 P %u",
		 (unsigned int)snap.num_sectors, snap.options.chunk_sectors);
	other = simworld_map(&snap.world, "t", text);
}

static void stop_other(void)
{
	if (other)
		cr_assert_eq(dmcore_device_remove(other), 0);
	other = NULL;
}

/* Of the origin as it is. */
static void make_other(void)
{
	simworld_add_disk(&snap.world, snap.options.cow_sectors);
	for (uint64_t i = 0; i < snap.num_sectors; i++) {
		int version = simsnap_version(SIMSNAP_ORIGIN, i,
					      simsnap_disk(&snap, SIMSNAP_ORIGIN) + i * 512);

		cr_assert_geq(version, 0);
		other_versions[i] = (uint8_t)version;
	}
	has_other = true;
	start_other();
	stop_other();
}

static void look_at_other(void)
{
	static unsigned char data[SIMSNAP_SECTORS_MAX * 512];

	if (!other)
		return;
	if (dmcore_pread(dmcore_device_bdev(other), data, snap.num_sectors * 512, 0)) {
		simsnap_note(&snap, "the other snapshot can't be read");
		return;
	}
	for (uint64_t i = 0; i < snap.num_sectors; i++) {
		int version = simsnap_version(SIMSNAP_ORIGIN, i, data + i * 512);

		if (version != other_versions[i]) {
			simsnap_note(&snap, "the other snapshot, sector %u: version %d, not %u",
				     (unsigned int)i, version, other_versions[i]);
			return;
		}
	}
}

/* ---- merges --------------------------------------------------------------------------------- */

/* Nothing but the metadata is left. */
static bool is_merged(void)
{
	unsigned long allocated;
	unsigned long metadata;
	char text[80];
	char *end;

	simsnap_status(&snap, text, sizeof(text));
	allocated = strtoul(text, &end, 10);
	cr_assert_eq(*end, '/', "%s", text);
	strtoul(end + 1, &end, 10);
	metadata = strtoul(end, NULL, 10);
	return allocated == metadata;
}

static void let_time_pass(void)
{
	unsigned char sector[512];

	cr_assert_eq(dmcore_pread(snap.world.bdevs[SIMSNAP_SNAPSHOT], sector, 512, 0), 0);
}

static void wait_until_merged(void)
{
	unsigned int rounds;

	for (rounds = 0; rounds < 4000 && !is_merged(); rounds++)
		let_time_pass();
	cr_assert(is_merged(), "the merge doesn't end");
}

/* ---- the judge ------------------------------------------------------------------------------ */

static void expect_exactly(struct simsnap_expected *expected, const uint8_t *seen)
{
	memset(expected, 0, sizeof(*expected));
	memset(expected->first, 1, sizeof(expected->first));
	memcpy(expected->base[SIMSNAP_SNAPSHOT], seen, snap.num_sectors);
}

/* All has come into the origin. */
static void check_origin(const uint8_t *seen)
{
	for (uint64_t i = 0; i < snap.num_sectors; i++) {
		int version = simsnap_version(SIMSNAP_SNAPSHOT, i,
					      simsnap_disk(&snap, SIMSNAP_ORIGIN) + i * 512);

		if (version != seen[i]) {
			simsnap_note(&snap, "merged, sector %u: version %d, seen %u",
				     (unsigned int)i, version, seen[i]);
			return;
		}
	}
}

static void judge_states(struct simsnap_expected *expected, uint32_t per_cut, unsigned int depth);

/* `depth`: cuts of the merge that goes on here. */
static void judge(const struct simsnap_expected *expected, uint32_t per_cut, unsigned int depth)
{
	uint8_t dropped[SIMSNAP_SECTORS_MAX];
	uint8_t seen[SIMSNAP_SECTORS_MAX];
	struct simsnap_expected exact;
	uint64_t next_free;
	uint32_t count;

	snap.num_states++;
	if (depth)
		cr_assert_eq(dmcore_sim_record(snap.world.sim), 0);
	if (!simsnap_check_cow(&snap, expected->promise.exceptions_max, &count, &next_free))
		return;
	start_other();
	if (simsnap_activate_as(&snap, SIMSNAP_SNAPSHOT, "snapshot-merge")) {
		simsnap_note(&snap, "activation: %s", dmcore_error_message());
		stop_other();
		return;
	}
	look_at_other();
	if (!simsnap_look(&snap, SIMSNAP_SNAPSHOT, expected, seen)) {
		simsnap_deactivate(&snap);
		stop_other();
		return;
	}
	expect_exactly(&exact, seen);
	exact.promise.exceptions_max = count;
	wait_until_merged();
	simsnap_look(&snap, SIMSNAP_SNAPSHOT, &exact, dropped);
	look_at_other();
	simsnap_deactivate(&snap);
	stop_other();
	check_origin(seen);
	simsnap_check_cow(&snap, 0, &count, &next_free);
	if (depth && snap.num_broken == 0)
		judge_states(&exact, per_cut, depth - 1);
}

/* `expected` NULL: by the marks. */
static void judge_states(struct simsnap_expected *expected, uint32_t per_cut, unsigned int depth)
{
	const struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.states_per_cut = per_cut,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *outer = snap.states;
	static struct simsnap_expected marked;

	cr_assert_eq(dmcore_sim_states_open(snap.world.sim, &options, &snap.states), 0, "%s",
		     dmcore_error_message());
	while (dmcore_sim_states_next(snap.states) == 1) {
		cr_assert_eq(dmcore_sim_states_info(snap.states, &state), 0);
		if (!expected)
			simsnap_expect(&snap, &snap.at_mark[state.mark], &marked);
		judge(expected ? expected : &marked, per_cut, depth);
	}
	cr_assert_eq(dmcore_sim_states_close(snap.states), 0);
	snap.states = outer;
}

static void expect_right(const char *what, uint64_t nr)
{
	cr_assert_eq(snap.num_broken, 0, "%s %lu: %s", what, (unsigned long)nr, snap.broken);
	cr_assert_gt(snap.num_states, 2);
}

/* ---- what is merged ------------------------------------------------------------------------- */

/* The chunks of the snapshot that are written, in this order. */
struct story {
	const char *chunks;
	bool from_origin; /* some exceptions are of chunks that the origin has overwritten */
};

static const struct story stories[] = {
	{ "0", false },
	{ "01", false },
	{ "10", false },
	{ "012", false },
	{ "210", false },
	{ "0213", false },
	{ "3120", true },
	{ "0123", true },
};

#define NUM_STORIES (sizeof(stories) / sizeof(stories[0]))

static void tell_story(const struct story *story, const struct simsnap_options *options)
{
	uint64_t chunk = options->chunk_sectors;

	simsnap_open(&snap, options, 1);
	cr_assert_eq(simsnap_activate(&snap), 0);
	for (const char *at = story->chunks; *at; at++) {
		bool origin = story->from_origin && at > story->chunks + 1;

		simsnap_do(&snap, origin ? SIMSNAP_ORIGIN : SIMSNAP_SNAPSHOT, DMCORE_OP_WRITE, 0,
			   (uint64_t)(*at - '0') * chunk, chunk);
	}
	simsnap_do(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_FLUSH, 0, 0, 0);
	simsnap_deactivate(&snap);
	simsnap_settle(&snap);
}

static void begin_merge(void)
{
	simsnap_record(&snap);
	start_other();
	cr_assert_eq(simsnap_activate_as(&snap, SIMSNAP_SNAPSHOT, "snapshot-merge"), 0, "%s",
		     dmcore_error_message());
}

static void end_and_judge(uint32_t per_cut, unsigned int depth)
{
	if (simsnap_slow() && per_cut > 16)
		per_cut = 16;
	simsnap_deactivate(&snap);
	stop_other();
	judge_states(NULL, per_cut, depth);
	simsnap_close(&snap);
	has_other = false;
}

static void merge_story(const struct story *story, const struct simsnap_options *options,
			uint32_t per_cut, unsigned int depth)
{
	tell_story(story, options);
	begin_merge();
	wait_until_merged();
	end_and_judge(per_cut, depth);
}

static const struct simsnap_options sizes[] = {
	{ .chunk_sectors = 1, .origin_chunks = 6, .cow_sectors = 9 },
	{ .chunk_sectors = 2, .origin_chunks = 6, .cow_sectors = 18 },
	{ .chunk_sectors = 8, .origin_chunks = 6, .cow_sectors = 72, .atomic_bytes = 4096 },
};

Test(merges, show_the_same_in_every_state, .timeout = 600)
{
	for (unsigned int size = 0; size < (simsnap_slow() ? 1u : 3u); size++) {
		for (unsigned int i = 0; i < NUM_STORIES; i++) {
			merge_story(&stories[i], &sizes[size], 1024, 0);
			expect_right("story", i);
		}
	}
}

Test(merges, that_are_cut_again_go_on_to_the_same_origin, .timeout = 600)
{
	for (unsigned int size = 0; size < (simsnap_brief() ? 1u : 3u); size++) {
		for (unsigned int i = 0; i < NUM_STORIES; i++) {
			merge_story(&stories[i], &sizes[size], simsnap_slow() ? 3 : 8, 2);
			expect_right("story", i);
		}
	}
}

/* From the end of one area into the one before. */
Test(merges, of_two_areas_show_the_same_in_every_state, .timeout = 600)
{
	static const struct simsnap_options options = {
		.chunk_sectors = 1,
		.origin_chunks = 44,
		.cow_sectors = 48,
		.garbage = true,
	};

	for (unsigned int step = 1; step < 4; step += 2) {
		for (uint64_t count = 32; count < 35; count++) {
			simsnap_open(&snap, &options, count);
			cr_assert_eq(simsnap_activate(&snap), 0);
			for (uint64_t i = 0; i < count; i++)
				simsnap_submit(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_WRITE, 0,
					       i * step % count, 1);
			simsnap_wait(&snap, 0);
			simsnap_do(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_FLUSH, 0, 0, 0);
			simsnap_deactivate(&snap);
			simsnap_settle(&snap);
			begin_merge();
			wait_until_merged();
			end_and_judge(64, 0);
			expect_right("exceptions", count);
		}
	}
}

/* ---- requests meanwhile --------------------------------------------------------------------- */

static void request_at_random(struct rng *rng)
{
	static const unsigned int flags[] = { 0, 0, DMCORE_BIO_FUA, DMCORE_BIO_PREFLUSH };
	uint64_t sector = rng_below(rng, snap.num_sectors);
	uint64_t most = snap.num_sectors - sector;
	unsigned int what = (unsigned int)rng_below(rng, 14);

	if (what == 0) {
		simsnap_suspend_and_resume(&snap, SIMSNAP_SNAPSHOT);
	} else if (what == 1) {
		simsnap_deactivate(&snap);
		cr_assert_eq(simsnap_activate_as(&snap, SIMSNAP_SNAPSHOT, "snapshot-merge"), 0);
	} else if (what == 2) {
		/* It may be the same type as before. */
		simsnap_reload(&snap, rng_one_in(rng, 2) ? "snapshot" : "snapshot-merge");
	} else if (what < 5) {
		simsnap_submit(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_FLUSH, 0, 0, 0);
	} else {
		simsnap_submit(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_WRITE, flags[rng_below(rng, 4)],
			       sector, rng_between(rng, 1, most > 9 ? 9 : most));
	}
	simsnap_wait(&snap, (unsigned int)rng_below(rng, SIMSNAP_AT_ONCE));
}

static void merge_at_random(unsigned int nr, bool beside)
{
	struct simsnap_options options = sizes[nr % 3];
	struct rng rng;

	rng_start(&rng, nr);
	options.spread_ns = rng_below(&rng, 3) * 50000;
	tell_story(&stories[rng_below(&rng, NUM_STORIES)], &options);
	if (beside)
		make_other();
	begin_merge();
	for (unsigned int i = 0; i < 12; i++)
		request_at_random(&rng);
	simsnap_wait(&snap, 0);
	if (rng_one_in(&rng, 2)) {
		simsnap_reload(&snap, "snapshot-merge");
		wait_until_merged();
	}
	end_and_judge(128, 0);
}

Test(merges, under_writes_keep_what_is_promised_in_every_state, .timeout = 3600)
{
	unsigned int count = rng_full() ? 2000 : simsnap_slow() ? 3 : simsnap_brief() ? 10 : 100;

	for (unsigned int i = 0; i < count; i++) {
		merge_at_random(i, false);
		expect_right("program", i);
	}
}

/* ---- beside another snapshot ---------------------------------------------------------------- */

/* It has its own copies, durably, before the origin is overwritten. */
Test(merges, beside_another_snapshot_leave_its_past_in_every_state, .timeout = 600)
{
	for (unsigned int size = 0; size < (simsnap_brief() ? 1u : 3u); size++) {
		for (unsigned int i = 0; i < 2 * NUM_STORIES; i++) {
			tell_story(&stories[i / 2], &sizes[size]);
			make_other();
			begin_merge();
			wait_until_merged();
			end_and_judge(i % 2 ? 8 : 512, i % 2);
			expect_right("story", i);
		}
	}
}

Test(merges, under_writes_beside_another_snapshot_leave_its_past, .timeout = 3600)
{
	unsigned int count = rng_full() ? 2000 : simsnap_slow() ? 3 : simsnap_brief() ? 10 : 60;

	for (unsigned int i = 0; i < count; i++) {
		merge_at_random(1000 + i, true);
		expect_right("program", i);
	}
}

/* ---- the judge is judged -------------------------------------------------------------------- */

Test(merges, to_an_origin_that_lies_are_found_out, .timeout = 600)
{
	struct simsnap_options options = sizes[0];
	uint64_t num_broken = 0;

	options.origin_flags = DMCORE_SIM_LIES;
	for (unsigned int i = 0; i < NUM_STORIES; i++) {
		merge_story(&stories[i], &options, 1024, 0);
		num_broken += snap.num_broken > 0;
	}
	cr_assert_eq(num_broken, NUM_STORIES);
}
