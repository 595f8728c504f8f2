/* SPDX-License-Identifier: MIT */
/* Requests that are carried out in pieces: where they are cut, in what order they may end. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define SECTORS 4096
#define DISKS_MAX 8
#define PIECES_MAX 5

static struct stage stage;
static struct fault_disk *disks[DISKS_MAX];
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];
static char table[8192];

static void open_with(const struct dmcore_queue_options *options, unsigned int num_disks)
{
	stage_open(&stage, NULL, options);
	for (unsigned int i = 0; i < num_disks; i++)
		disks[i] = stage_disk(&stage, i, SECTORS, "");
}

static void set_up(void)
{
	open_with(NULL, 4);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(fan, .init = set_up, .fini = tear_down);

/* A line of a table, `format` with a %s for each disk from the first. */
static void add_line(const char *format)
{
	size_t used = strlen(table);

	snprintf(table + used, sizeof(table) - used, format, stage_disk_spec(0, SECTORS, ""),
		 stage_disk_spec(1, SECTORS, ""), stage_disk_spec(2, SECTORS, ""),
		 stage_disk_spec(3, SECTORS, ""));
	used = strlen(table);
	snprintf(table + used, sizeof(table) - used, "\n");
}

struct extent {
	unsigned int disk;
	uint64_t sector;
	uint64_t count;
};

/* That exactly these requests of one operation reached the disks, in this order on each. */
static void expect_extents(enum dmcore_op op, const struct extent *extents, size_t count)
{
	unsigned int seen[DISKS_MAX] = { 0 };
	size_t total = 0;

	for (size_t i = 0; i < count; i++) {
		unsigned int d = extents[i].disk;
		struct fault_entry entry;

		cr_assert_lt(seen[d], fault_num_logged(disks[d]), "extent %zu is missing", i);
		entry = fault_logged(disks[d], seen[d]++);
		cr_assert(entry.op == op && entry.sector == extents[i].sector &&
				  entry.count == extents[i].count,
			  "extent %zu: op %d at %llu + %llu on disk %u", i, (int)entry.op,
			  (unsigned long long)entry.sector, (unsigned long long)entry.count, d);
	}
	for (unsigned int d = 0; d < stage.num_bdevs; d++)
		total += fault_num_logged(disks[d]);
	cr_assert_eq(total, count, "%zu requests instead of %zu", total, count);
}

static void clear_logs(void)
{
	for (unsigned int d = 0; d < stage.num_bdevs; d++)
		fault_clear_log(disks[d]);
}

/* ---- where they are cut --------------------------------------------------------------------- */

Test(fan, is_cut_at_the_ends_of_targets)
{
	static const struct extent inside[] = { { 1, 203, 4 } };
	static const struct extent two[] = { { 0, 109, 1 }, { 1, 200, 1 } };
	static const struct extent all[] = { { 0, 100, 10 }, { 1, 200, 7 }, { 2, 300, 1 },
					     { 3, 0, 82 } };
	struct dmcore_bdev *bdev;

	add_line("0 10 linear %1$s 100");
	add_line("10 7 linear %2$s 200");
	add_line("17 1 linear %3$s 300");
	add_line("18 82 linear %4$s 0");
	bdev = stage_map(&stage, "m", table);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 13, 4, buffer), 0);
	expect_extents(DMCORE_OP_READ, inside, 1);
	clear_logs();
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 9, 2, buffer), 0);
	expect_extents(DMCORE_OP_READ, two, 2);
	clear_logs();
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 0, 100, buffer), 0);
	expect_extents(DMCORE_OP_WRITE, all, 4);
}

Test(fan, is_cut_at_chunks_counted_from_the_start_of_the_target)
{
	/* Chunks of 6 sectors from sector 5 of the device on: 5, 11, 17, 23, 29. */
	static const struct extent extents[] = { { 3, 903, 2 }, { 0, 0, 6 },   { 1, 50, 6 },
						 { 2, 70, 6 },  { 0, 6, 6 },   { 1, 56, 3 } };
	struct dmcore_bdev *bdev;

	add_line("0 5 linear %4$s 900");
	add_line("5 36 striped 3 6 %1$s 0 %2$s 50 %3$s 70");
	bdev = stage_map(&stage, "m", table);
	pattern_fill(buffer, 3, 29, 1);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 3, 29, buffer), 0);
	expect_extents(DMCORE_OP_WRITE, extents, 6);
	cr_assert_eq(pattern_differs(fault_data(disks[3]) + 903 * 512, 3, 2, 1), -1);
	cr_assert_eq(pattern_differs(fault_data(disks[2]) + 70 * 512, 17, 6, 1), -1);
	cr_assert_eq(pattern_differs(fault_data(disks[1]) + 56 * 512, 29, 3, 1), -1);
	memset(buffer, 0, sizeof(buffer));
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 3, 29, buffer), 0);
	cr_assert_eq(pattern_differs(buffer, 3, 29, 1), -1);
}

/* Across m chunk borders: m + 1 pieces, whose places are worked out the slow way. */
Test(fan, a_request_across_m_chunk_borders_has_m_plus_1_pieces)
{
	struct extent extents[64];
	struct dmcore_bdev *bdev;

	add_line("0 1200 striped 4 10 %1$s 1 %2$s 2 %3$s 3 %4$s 4");
	bdev = stage_map(&stage, "m", table);
	for (uint64_t sector = 0; sector < 45; sector += 3) {
		for (uint64_t count = 1; count < 200; count += 13) {
			size_t pieces = 0;

			for (uint64_t s = sector; s < sector + count; s++) {
				uint64_t chunk = s / 10;

				if (s > sector && s % 10 != 0) {
					extents[pieces - 1].count++;
					continue;
				}
				extents[pieces++] = (struct extent){
					chunk % 4, chunk / 4 * 10 + s % 10 + chunk % 4 + 1, 1
				};
			}
			clear_logs();
			cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, sector, count,
					       buffer), 0);
			expect_extents(DMCORE_OP_READ, extents, pieces);
		}
	}
}

/* Memory of any shape: 64 entries of odd lengths, from the end of a buffer to its front. */
static struct dmio_bvec scattered[64];
static unsigned char scatter_memory[SECTORS * DMCORE_SECTOR_BYTES];

static void shape_scattered(unsigned int step)
{
	size_t used = 0;

	for (unsigned int i = 0; i < 64; i++) {
		scattered[i].len_bytes = 37 * step + i % 3;
		used += scattered[i].len_bytes + i % 5;
		scattered[i].base = scatter_memory + sizeof(scatter_memory) - used;
	}
}

/* Copies between a flat buffer and that memory from `offset` on. */
static void copy_scattered(unsigned char *flat, size_t bytes, size_t offset, bool scatter)
{
	for (unsigned int i = 0; bytes > 0; i++, offset = 0) {
		unsigned char *memory = (unsigned char *)scattered[i].base + offset;
		size_t run = scattered[i].len_bytes - offset;

		run = run < bytes ? run : bytes;
		memcpy(scatter ? memory : flat, scatter ? flat : memory, run);
		flat += run;
		bytes -= run;
	}
}

static void run_scattered(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector,
			  uint64_t count)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio = stage_bio(&stage, bdev, op, sector, count, NULL, &tally);

	bio->vecs = scattered;
	bio->num_vecs = 64;
	bio->vec_offset_bytes = 20;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0, "%d", tally.status);
}

Test(fan, memory_goes_with_its_pieces_whatever_its_shape)
{
	struct dmcore_bdev *bdev;

	add_line("0 960 striped 3 5 %1$s 0 %2$s 0 %3$s 0");
	bdev = stage_map(&stage, "m", table);
	for (unsigned int step = 1; step <= 40; step++) {
		uint64_t count = (37 * step * 64 - 20) / DMCORE_SECTOR_BYTES;

		shape_scattered(step);
		pattern_fill(buffer, step, count, step);
		copy_scattered(buffer, count * DMCORE_SECTOR_BYTES, 20, true);
		run_scattered(bdev, DMCORE_OP_WRITE, step, count);
		cr_assert_eq(dmcore_pread(bdev, buffer, count * 512, step * 512), 0);
		cr_assert_eq(pattern_differs(buffer, step, count, step), -1, "step %u", step);
		memset(scatter_memory, 0, sizeof(scatter_memory));
		run_scattered(bdev, DMCORE_OP_READ, step, count);
		copy_scattered(buffer, count * DMCORE_SECTOR_BYTES, 20, false);
		cr_assert_eq(pattern_differs(buffer, step, count, step), -1, "step %u", step);
	}
}

/* ---- few bios for pieces -------------------------------------------------------------------- */

static void large_request_with(unsigned int splits)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_bdev *bdev;
	struct tally tally = { 0 };

	options.splits = splits;
	options.bios = 2;
	open_with(&options, 4);
	add_line("0 4096 striped 4 1 %1$s 0 %2$s 0 %3$s 0 %4$s 0");
	bdev = stage_map(&stage, "m", table);
	pattern_fill(buffer, 0, SECTORS, splits);
	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 0, SECTORS, buffer, &tally);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	memset(buffer, 0, sizeof(buffer));
	/* Two at once, each dependent on itself alone. */
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 2000, buffer, &tally);
	stage_submit(&stage, bdev, DMCORE_OP_READ, 2000, 2096, buffer + 2000 * 512, &tally);
	stage_wait(&stage, &tally, 3);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(pattern_differs(buffer, 0, SECTORS, splits), -1);
	cr_assert_eq(fault_count(disks[0], 0), 2048);
}

Test(fan_options, makes_progress_with_one_bio_for_pieces, .fini = tear_down)
{
	large_request_with(1);
}

Test(fan_options, makes_progress_with_two_bios_for_pieces, .fini = tear_down)
{
	large_request_with(2);
}

Test(fan_options, makes_progress_while_another_request_has_the_pieces, .fini = tear_down)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_bdev *slow;
	struct dmcore_bdev *fast;
	struct tally stuck = { 0 };
	struct tally tally = { 0 };

	options.splits = 2;
	open_with(&options, 4);
	add_line("0 64 striped 2 1 %1$s 0 %2$s 0");
	slow = stage_map(&stage, "slow", table);
	table[0] = '\0';
	add_line("0 64 striped 2 1 %3$s 0 %4$s 0");
	fast = stage_map(&stage, "fast", table);
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_HOLD });
	fault_add_rule(disks[1], &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&stage, slow, DMCORE_OP_READ, 0, 64, buffer, &stuck);
	cr_assert_eq(fault_num_held(disks[0]) + fault_num_held(disks[1]), 3);
	for (unsigned int i = 1; i <= 5; i++) {
		stage_submit(&stage, fast, DMCORE_OP_READ, 0, 64, buffer + i * 64 * 512, &tally);
		stage_wait(&stage, &tally, i);
	}
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(stuck.ended, 0);
	fault_clear_rules(disks[0]);
	fault_clear_rules(disks[1]);
	fault_release_all(disks[0]);
	fault_release_all(disks[1]);
	stage_wait(&stage, &stuck, 1);
	cr_assert_eq(stuck.failed, 0);
}

/* What is stuck in one device is no reason to keep the others waiting. */
Test(fan_options, goes_on_beside_a_piece_that_hangs, .fini = tear_down)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;

	options.splits = 1;
	open_with(&options, 4);
	add_line("0 64 striped 4 1 %1$s 0 %2$s 0 %3$s 0 %4$s 0");
	bdev = stage_map(&stage, "m", table);
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_HOLD, .times = 1 });
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 64, buffer, &tally);
	/* Pieces don't count: nothing ends here, and each poll sends the next one. */
	for (unsigned int i = 0; i < 100; i++)
		cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(fault_count(disks[i], FAULT_READ), 16, "disk %u", i);
	fault_release_all(disks[0]);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

/* Three layers that all split, with a single bio for the pieces of all of them. */
Test(fan_options, nests_with_one_bio_for_pieces, .fini = tear_down)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_bdev *bdev;

	options.splits = 1;
	open_with(&options, 4);
	add_line("0 600 striped 2 4 %1$s 0 %2$s 8");
	stage_map(&stage, "a", table);
	table[0] = '\0';
	add_line("0 600 striped 2 6 %3$s 1 %4$s 3");
	stage_map(&stage, "b", table);
	stage_map(&stage, "c", "0 250 linear a 0\n250 350 linear b 7\n");
	bdev = stage_map(&stage, "d", "0 1000 striped 2 50 c 0 a 20\n1000 20 linear b 400\n");

	/* The two legs of d overlap below: sector by sector is what counts. */
	for (uint64_t sector = 0; sector < 1020; sector++) {
		pattern_fill(buffer, sector, 1, 1);
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, sector, 1, buffer), 0);
	}
	cr_assert_eq(dmcore_pread(bdev, buffer, 1020 * 512, 0), 0);
	memset(buffer + 1024 * 512, 0, 1020 * 512);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 1020, buffer + 1024 * 512), 0);
	for (uint64_t sector = 0; sector < 1020; sector++) {
		unsigned char one[DMCORE_SECTOR_BYTES];

		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, sector, 1, one), 0);
		cr_assert_eq(memcmp(one, buffer + sector * 512, 512), 0);
		cr_assert_eq(memcmp(one, buffer + (1024 + sector) * 512, 512), 0);
	}
}

/* ---- the order in which they end ------------------------------------------------------------ */

static void swap(unsigned int *a, unsigned int *b)
{
	unsigned int c = *a;

	*a = *b;
	*b = c;
}

/* The next permutation in lexical order; false behind the last. */
static bool next_permutation(unsigned int *order, unsigned int n)
{
	unsigned int i = n - 1;
	unsigned int j = n - 1;

	while (i > 0 && order[i - 1] > order[i])
		i--;
	if (i == 0)
		return false;
	while (order[j] < order[i - 1])
		j--;
	swap(&order[i - 1], &order[j]);
	for (j = n - 1; i < j; i++, j--)
		swap(&order[i], &order[j]);
	return true;
}

/* Which of the held requests of a disk is the piece with this number; each has 8 sectors. */
static unsigned int held_index(unsigned int piece)
{
	for (unsigned int i = 0; i < fault_num_held(disks[0]); i++) {
		if (fault_held(disks[0], i).sector == piece * 8)
			return i;
	}
	cr_assert_fail("piece %u isn't held", piece);
	return 0;
}

/*
 * One request of n pieces that end in this order, those of the mask with an error of their own.
 * `polls`: each is seen by a poll before the next one ends.
 */
static void end_in_order(struct dmcore_bdev *bdev, const unsigned int *order, unsigned int n,
			 unsigned int failing, bool polls)
{
	struct tally tally = { 0 };
	int expected = 0;

	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 0, n * 8, buffer, &tally);
	cr_assert_eq(fault_num_held(disks[0]), n);
	for (unsigned int i = 0; i < n; i++) {
		int status = failing >> order[i] & 1 ? -100 - (int)order[i] : 0;

		if (status && !expected)
			expected = status;
		cr_assert_eq(tally.ended, 0, "ended before its last piece");
		fault_release(disks[0], held_index(order[i]), status);
		if (polls && i + 1 < n)
			cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	}
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, expected, "status %d instead of %d", tally.status, expected);
}

/* Every order in which up to 5 pieces can end, and every set of them that fails. */
Test(fan, the_first_error_is_the_status_in_every_order)
{
	struct dmcore_bdev *bdev;

	for (unsigned int i = 0; i < PIECES_MAX; i++) {
		char line[64];

		snprintf(line, sizeof(line), "%u 8 linear %%1$s %u", i * 8, i * 8);
		add_line(line);
	}
	bdev = stage_map(&stage, "m", table);
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_HOLD });
	for (unsigned int n = 2; n <= PIECES_MAX; n++) {
		for (unsigned int failing = 0; failing < 1u << n; failing++) {
			unsigned int order[PIECES_MAX] = { 0, 1, 2, 3, 4 };

			do {
				end_in_order(bdev, order, n, failing, false);
				end_in_order(bdev, order, n, failing, true);
			} while (next_permutation(order, n));
		}
	}
}

/* With nothing to hold a piece back with, as on most disks. */
Test(fan, no_success_covers_an_error)
{
	struct dmcore_bdev *bdev;

	add_line("0 8 linear %1$s 0");
	add_line("8 8 error");
	add_line("16 8 linear %2$s 0");
	bdev = stage_map(&stage, "m", table);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 9, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 15, 2, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 24, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 0, 24, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 16, 8, buffer), 0);
	/* All pieces are carried out, whatever becomes of the others. */
	cr_assert_eq(fault_count(disks[0], FAULT_WRITE), 1);
	cr_assert_eq(fault_count(disks[1], FAULT_WRITE), 1);
}
