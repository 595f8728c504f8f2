/* SPDX-License-Identifier: MIT */
/*
 * What a power cut leaves of a snapshot where it is delicate: while its store is made, in the midst
 * of a commit, at the end of an area, with copies that overtake each other, and when it is lost.
 * See tests/support/simsnap.h for the judge.
 */
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simsnap.h"

static struct simsnap snap;

static void begin(const struct simsnap_options *options, uint64_t seed)
{
	simsnap_open(&snap, options, seed);
	cr_assert_eq(simsnap_activate(&snap), 0, "%s", dmcore_error_message());
}

static void expect_right(const char *what, uint64_t nr)
{
	cr_assert_eq(snap.num_broken, 0, "%s %lu: %s", what, (unsigned long)nr, snap.broken);
	cr_assert_gt(snap.num_states, 0);
}

/* Judges all, and closes. */
static void expect_all_right(const char *what, uint64_t nr, unsigned int depth)
{
	simsnap_deactivate(&snap);
	simsnap_judge(&snap, DMCORE_SIM_CUTS_EPOCHS, depth || simsnap_slow() ? 64 : 1024, depth);
	expect_right(what, nr);
	simsnap_close(&snap);
}

static void write_chunks(enum simsnap_side side, uint64_t first, uint64_t count)
{
	uint64_t chunk = snap.options.chunk_sectors;

	for (uint64_t i = first; i < first + count; i++)
		simsnap_submit(&snap, side, DMCORE_OP_WRITE, 0, i * chunk, chunk);
}

static void flush(enum simsnap_side side)
{
	simsnap_wait(&snap, 0);
	simsnap_do(&snap, side, DMCORE_OP_FLUSH, 0, 0, 0);
}

/* ---- commits that tear ---------------------------------------------------------------------- */

/* An area has two units, and one commit writes both. If the first is lost, what the second says is
 * no part of the list, however many exceptions come later: three here, so that the list reaches the
 * second unit again. */
Test(commits, that_tear_bring_nothing_back, .timeout = 600)
{
	static const struct simsnap_options options = {
		.chunk_sectors = 2,
		.origin_chunks = 48,
		.probes = 3,
		.cow_sectors = 110,
	};

	for (unsigned int committed = 28; committed < 32; committed++) {
		for (unsigned int depth = 0; depth < (simsnap_brief() ? 1u : 2u); depth++) {
			begin(&options, committed);
			write_chunks(SIMSNAP_SNAPSHOT, 0, committed);
			flush(SIMSNAP_SNAPSHOT);
			simsnap_record(&snap);
			write_chunks(SIMSNAP_SNAPSHOT, committed, 40 - committed);
			flush(SIMSNAP_SNAPSHOT);
			expect_all_right("committed", committed, depth);
		}
	}
}

/* ---- the end of an area --------------------------------------------------------------------- */

/* From `placed` exceptions on, on a COW device full of what looks like exceptions. */
static void cross_area(enum simsnap_side side, unsigned int placed, unsigned int more,
		       unsigned int cow_flags, unsigned int depth)
{
	const struct simsnap_options options = {
		.chunk_sectors = 1,
		.origin_chunks = 40,
		.cow_sectors = 46,
		.cow_flags = cow_flags,
		.spread_ns = 50000,
		.garbage = true,
	};

	begin(&options, placed);
	write_chunks(SIMSNAP_SNAPSHOT, 0, placed);
	flush(SIMSNAP_SNAPSHOT);
	simsnap_record(&snap);
	write_chunks(side, placed, more);
	flush(side);
	expect_all_right("placed", placed, depth);
}

Test(areas, that_fill_are_followed_by_empty_ones_in_every_state, .timeout = 600)
{
	static const unsigned int kinds[] = { 0, DMCORE_SIM_NO_WRITE_ZEROES };

	for (unsigned int placed = 29; placed < 33; placed++) {
		for (unsigned int more = 1; more <= 5; more++) {
			for (unsigned int i = 0; i < 4; i++)
				cross_area((enum simsnap_side)(i % 2), placed, more, kinds[i / 2],
					   more == 2 && !simsnap_brief());
		}
	}
}

/* ---- a new store ---------------------------------------------------------------------------- */

/* The device is full of what looks like exceptions, but for the four bytes that say there is no
 * store on it. */
Test(stores, are_new_or_empty_in_every_state_of_their_making, .timeout = 600)
{
	static const unsigned int kinds[] = { 0, DMCORE_SIM_NO_WRITE_ZEROES, DMCORE_SIM_NO_FUA };

	for (uint32_t chunk = 1; chunk <= 8; chunk *= 2) {
		for (unsigned int i = 0; i < 6; i++) {
			const struct simsnap_options options = {
				.chunk_sectors = chunk,
				.origin_chunks = 4,
				.cow_sectors = 9 * chunk,
				.cow_flags = kinds[i % 3],
				.garbage = true,
				.is_new = true,
			};

			simsnap_open(&snap, &options, chunk);
			simsnap_record(&snap);
			cr_assert_eq(simsnap_activate(&snap), 0);
			if (i >= 3) {
				write_chunks(SIMSNAP_ORIGIN, 0, 1);
				write_chunks(SIMSNAP_SNAPSHOT, 0, 2);
				flush(SIMSNAP_SNAPSHOT);
			}
			expect_all_right("chunks", chunk,
					 i < 3 && chunk < 4 && !simsnap_slow() ? 2 : 0);
		}
	}
}

/* ---- copies that overtake each other -------------------------------------------------------- */

/* Whatever ends first, exceptions are placed in the order in which their chunks were given out: the
 * judge sees each in its place, and that the next one is given out behind the last. */
Test(copies, that_overtake_each_other_leave_no_gap_in_any_state, .timeout = 600)
{
	for (unsigned int seed = 0; seed < (simsnap_brief() ? 10u : 60u); seed++) {
		const struct simsnap_options options = {
			.chunk_sectors = seed % 2 ? 8 : 1,
			.origin_chunks = 10,
			.cow_sectors = seed % 2 ? 120 : 15,
			.atomic_bytes = seed % 2 ? 4096 : 512,
			.spread_ns = 2000000,
		};
		static const uint64_t orders[2][8] = {
			{ 3, 1, 4, 0, 5, 2, 7, 6 },
			{ 0, 1, 2, 3, 4, 5, 6, 7 },
		};

		begin(&options, seed + 1);
		simsnap_record(&snap);
		for (unsigned int i = 0; i < 6; i++) {
			enum simsnap_side side = (enum simsnap_side)((seed >> 2 ^ i) % 2);

			simsnap_submit(&snap, side, DMCORE_OP_WRITE, i == 2 ? DMCORE_BIO_FUA : 0,
				       orders[seed / 2 % 2][i] * options.chunk_sectors, 1);
		}
		expect_all_right("seed", seed, 0);
	}
}

/* ---- overflow ------------------------------------------------------------------------------- */

enum full_op {
	FULL_ORIGIN,   /* a write that needs a chunk */
	FULL_SNAPSHOT,
	FULL_MAPPED,   /* one that needs none */
	FULL_FLUSH,
	FULL_FUA,
	FULL_RELOAD,
	FULL_OPS,
};

static void run_full(enum full_op op, uint64_t chunk)
{
	switch (op) {
	case FULL_ORIGIN:
		write_chunks(SIMSNAP_ORIGIN, chunk, 1);
		break;
	case FULL_SNAPSHOT:
		write_chunks(SIMSNAP_SNAPSHOT, chunk, 1);
		break;
	case FULL_MAPPED:
		write_chunks(SIMSNAP_SNAPSHOT, 0, 1);
		break;
	case FULL_FLUSH:
		simsnap_submit(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_FLUSH, 0, 0, 0);
		break;
	case FULL_FUA:
		simsnap_submit(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_WRITE, DMCORE_BIO_FUA, 1, 1);
		break;
	default:
		simsnap_reload(&snap, "snapshot");
		break;
	}
}

/* Three operations, one after the other or at once, with room for one chunk, or none. */
static void overflow(const char *store, unsigned int program, uint64_t room, bool at_once)
{
	const struct simsnap_options options = {
		.chunk_sectors = 1,
		.origin_chunks = 9,
		.cow_sectors = 4 + (uint32_t)room,
		.store = store,
		.spread_ns = at_once ? 90000 : 0,
		.overflows = true,
	};

	begin(&options, program + 1);
	write_chunks(SIMSNAP_SNAPSHOT, 0, 1);
	flush(SIMSNAP_SNAPSHOT);
	write_chunks(SIMSNAP_SNAPSHOT, 1, 1);
	simsnap_wait(&snap, 0);
	simsnap_record(&snap);
	for (unsigned int i = 0, rest = program; i < 3; i++, rest /= FULL_OPS) {
		run_full((enum full_op)(rest % FULL_OPS), 2 + i);
		if (!at_once)
			simsnap_wait(&snap, 0);
	}
	expect_all_right(store, program, 0);
}

/* An origin write that was acknowledged has lost the snapshot for good; until then it is as good as
 * before. */
Test(overflows, lose_a_snapshot_for_good_or_not_at_all, .timeout = 600)
{
	uint64_t num_invalid = 0;

	for (unsigned int program = 0; program < FULL_OPS * FULL_OPS * FULL_OPS; program++) {
		for (unsigned int i = 0; i < 8; i++) {
			if (simsnap_brief() && (program + i) % 5)
				continue;
			overflow(i % 2 ? "P" : "PO", program, i / 2 % 2, i / 4);
			num_invalid += snap.num_invalid;
		}
	}
	cr_assert_gt(num_invalid, 100);
}

/* The area is full, and there is none behind it. */
Test(overflows, at_the_end_of_the_last_area_lose_it_for_good, .timeout = 600)
{
	static const struct simsnap_options options = {
		.chunk_sectors = 1,
		.origin_chunks = 40,
		.cow_sectors = 34,
		.overflows = true,
	};

	for (unsigned int i = 0; i < 4; i++) {
		begin(&options, i + 1);
		write_chunks(SIMSNAP_SNAPSHOT, 0, 30);
		flush(SIMSNAP_SNAPSHOT);
		simsnap_record(&snap);
		write_chunks((enum simsnap_side)(i % 2), 30, 1);
		if (i / 2)
			simsnap_wait(&snap, 0);
		write_chunks(SIMSNAP_ORIGIN, 31, 1);
		expect_all_right("order", i, 0);
		cr_assert_gt(snap.num_invalid, 0);
	}
}
