/* SPDX-License-Identifier: MIT */
/*
 * What a power cut leaves of a snapshot, in every state of all programs of one to three operations.
 * See tests/support/simsnap.h for the judge.
 *
 *	DMCORE_CRASH_LOG=1   tells how many states there were
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simsnap.h"

#define HASHES (UINT64_C(1) << 17)

static struct simsnap snap;

static void tell(const char *what, uint64_t num_states)
{
	if (getenv("DMCORE_CRASH_LOG"))
		fprintf(stderr, "%s: %lu states\n", what, (unsigned long)num_states);
}

/* ---- operations ----------------------------------------------------------------------------- */

enum op {
	SNAPSHOT_PART,   /* of chunk 0 */
	SNAPSHOT_WHOLE,
	SNAPSHOT_SECOND, /* chunk 1 */
	SNAPSHOT_FUA,
	SNAPSHOT_FLUSH,
	ORIGIN_SAME,     /* chunk 0 */
	ORIGIN_OTHER,    /* chunk 1 */
	ORIGIN_RANGE,    /* chunks 1 and 2 */
	ORIGIN_FLUSH,
	SUSPEND,
	RELOAD,
	ACTIVATE,
	OPS,
};

static void write_snapshot(unsigned int flags, uint64_t sector, uint64_t count)
{
	simsnap_do(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_WRITE, flags, sector, count);
}

static void write_origin(uint64_t sector, uint64_t count)
{
	simsnap_do(&snap, SIMSNAP_ORIGIN, DMCORE_OP_WRITE, 0, sector, count);
}

static void run(enum op op)
{
	uint64_t chunk = snap.options.chunk_sectors;

	switch (op) {
	case SNAPSHOT_PART:
		write_snapshot(0, chunk / 2, 1);
		break;
	case SNAPSHOT_WHOLE:
		write_snapshot(0, 0, chunk);
		break;
	case SNAPSHOT_SECOND:
		write_snapshot(0, chunk, 1);
		break;
	case SNAPSHOT_FUA:
		write_snapshot(DMCORE_BIO_FUA, chunk / 2, 1);
		break;
	case SNAPSHOT_FLUSH:
		simsnap_do(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_FLUSH, 0, 0, 0);
		break;
	case ORIGIN_SAME:
		write_origin(0, 1);
		break;
	case ORIGIN_OTHER:
		write_origin(chunk, chunk);
		break;
	case ORIGIN_RANGE:
		write_origin(2 * chunk - 1, 2);
		break;
	case ORIGIN_FLUSH:
		simsnap_do(&snap, SIMSNAP_ORIGIN, DMCORE_OP_FLUSH, 0, 0, 0);
		break;
	case SUSPEND:
		simsnap_suspend_and_resume(&snap, SIMSNAP_SNAPSHOT);
		break;
	case RELOAD:
		simsnap_reload(&snap, "snapshot");
		break;
	default:
		simsnap_deactivate(&snap);
		cr_assert_eq(simsnap_activate(&snap), 0, "%s", dmcore_error_message());
		break;
	}
}

/* ---- programs of one to three --------------------------------------------------------------- */

/* Which programs, and how they are judged. */
struct course {
	const char *what;
	struct simsnap_options options;
	unsigned int count_max; /* operations of a program */
	unsigned int step;      /* of the longest programs every n-th */
	uint32_t per_cut;
	unsigned int depth;
};

static unsigned int programs_of(unsigned int count)
{
	return count ? OPS * programs_of(count - 1) : 1;
}

static void run_program(const struct course *course, unsigned int count, unsigned int program)
{
	simsnap_open(&snap, &course->options, 1);
	cr_assert_eq(simsnap_activate(&snap), 0);
	simsnap_record(&snap);
	for (unsigned int i = 0, rest = program; i < count; i++, rest /= OPS)
		run((enum op)(rest % OPS));
	simsnap_deactivate(&snap);
	simsnap_judge(&snap, DMCORE_SIM_CUTS_EPOCHS, course->per_cut, course->depth);
	simsnap_close(&snap);
}

/* All programs up to so many operations; how many of them left something wrong. */
static unsigned int run_course(const struct course *course)
{
	uint64_t *hashes = calloc(HASHES, sizeof(*hashes));
	unsigned int num_wrong = 0;
	uint64_t num_states = 0;

	cr_assert(hashes);
	for (unsigned int count = 1; count <= course->count_max; count++) {
		unsigned int step = count < course->count_max ? 1 : course->step;

		for (unsigned int i = 0; i < programs_of(count); i += step) {
			memset(hashes, 0, HASHES * sizeof(*hashes));
			simsnap_remember(&snap, hashes, HASHES);
			run_program(course, count, i);
			num_states += snap.num_states;
			num_wrong += snap.num_broken > 0;
			cr_assert(snap.num_broken == 0 ||
					  course->options.disk_flags & DMCORE_SIM_LIES,
				  "%s, %u operations, program %u: %s", course->what, count, i,
				  snap.broken);
		}
	}
	tell(course->what, num_states);
	free(hashes);
	return num_wrong;
}

Test(programs, with_chunks_of_1_sector_hold_in_every_state, .timeout = 3600)
{
	const struct course course = {
		.what = "chunks of 1 sector",
		.options = { .chunk_sectors = 1, .origin_chunks = 5, .cow_sectors = 9 },
		.count_max = 3,
		.step = simsnap_brief() ? 29 : 1,
		.per_cut = 1024,
	};

	run_course(&course);
}

/* On a disk that writes chunks whole, so that all states can be shown. */
Test(programs, with_chunks_of_8_sectors_hold_in_every_state, .timeout = 3600)
{
	const struct course course = {
		.what = "chunks of 8 sectors, whole",
		.options = { .chunk_sectors = 8, .origin_chunks = 5, .cow_sectors = 72,
			     .atomic_bytes = 4096 },
		.count_max = 3,
		.step = simsnap_brief() ? 29 : 1,
		.per_cut = 1024,
	};

	run_course(&course);
}

/* Chunks tear between sectors: of more than 1,024 states of a cut a choice is shown. */
Test(programs, with_chunks_that_tear_hold_in_every_state, .timeout = 3600)
{
	const struct course courses[] = {
		{
			.what = "chunks of 8 sectors, torn",
			.options = { .chunk_sectors = 8, .origin_chunks = 5, .cow_sectors = 72 },
			.count_max = 2,
			.step = simsnap_brief() ? 29 : 1,
			.per_cut = 1024,
		},
		{
			.what = "chunks of 2 sectors, torn",
			.options = { .chunk_sectors = 2, .origin_chunks = 5, .cow_sectors = 18 },
			.count_max = 3,
			.step = simsnap_brief() ? 97 : 1,
			.per_cut = 1024,
		},
	};

	run_course(&courses[0]);
	run_course(&courses[1]);
}

/* The judge's own work is cut, too: an activation, a write, a flush, a deactivation, and all that
 * once more. */
Test(programs, hold_if_the_recovery_is_cut_too, .timeout = 3600)
{
	const struct course course = {
		.what = "two cuts more",
		.options = { .chunk_sectors = 1, .origin_chunks = 5, .cow_sectors = 9 },
		.count_max = 2,
		.step = simsnap_brief() ? 29 : 1,
		.per_cut = 1024,
		.depth = 2,
	};

	run_course(&course);
}

/* The judge is judged. */
Test(programs, on_disks_that_lie_are_found_out, .timeout = 3600)
{
	const struct course course = {
		.what = "lies",
		.options = { .chunk_sectors = 1, .origin_chunks = 5, .cow_sectors = 9,
			     .disk_flags = DMCORE_SIM_LIES },
		.count_max = 2,
		.step = 1,
		.per_cut = 1024,
	};

	cr_assert_gt(run_course(&course), 20);
}
