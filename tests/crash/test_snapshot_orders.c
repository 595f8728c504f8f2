/* SPDX-License-Identifier: MIT */
/*
 * Three orders of writes that a snapshot keeps and the Linux kernel doesn't: what stands behind the
 * end of a list of exceptions is cleared before another one comes, a lost snapshot is lost durably
 * before the origin is overwritten, and a new store is zeroed before it is one. The kernel's order
 * is played here by plain requests to the disks, and the same judge finds it wrong.
 */
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simsnap.h"

static struct simsnap snap;
static unsigned char area[4096];

static uint64_t chunk_bytes(void)
{
	return snap.options.chunk_sectors * 512;
}

static void raw_write(enum simsnap_side side, const void *data, uint64_t bytes, uint64_t at)
{
	cr_assert_eq(dmcore_pwrite(snap.world.bdevs[side], data, bytes, at), 0);
}

static void judge_all(void)
{
	simsnap_deactivate(&snap);
	simsnap_judge(&snap, DMCORE_SIM_CUTS_EVENTS, simsnap_slow() ? 48 : 1024, 0);
	simsnap_close(&snap);
	cr_assert_gt(snap.num_states, 5);
}

/* ---- the tail of an area -------------------------------------------------------------------- */

/* A commit of which a part is lost; the next one is the kernel's: the whole area. */
static const struct simsnap_options tails = {
	.chunk_sectors = 2,
	.origin_chunks = 48,
	.probes = 2,
	.cow_sectors = 110,
};

static void leave_tails(void)
{
	simsnap_open(&snap, &tails, 1);
	cr_assert_eq(simsnap_activate(&snap), 0);
	for (unsigned int i = 0; i < 40; i++) {
		simsnap_do(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_WRITE, 0, i * 2, 2);
		if (i == 29)
			simsnap_do(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_FLUSH, 0, 0, 0);
		if (i == 29)
			simsnap_record(&snap);
	}
	simsnap_do(&snap, SIMSNAP_SNAPSHOT, DMCORE_OP_FLUSH, 0, 0, 0);
	simsnap_deactivate(&snap);
}

/* What a chunk of the snapshot holds, by the list in `area`. */
static const unsigned char *find_chunk(uint64_t old_chunk)
{
	for (unsigned int i = 0; i < chunk_bytes() / 16; i++) {
		struct dmcore_cow_entry entry;

		dmcore_cow_entry_decode(area + (size_t)i * 16, &entry);
		if (entry.new_chunk == 0)
			break;
		if (entry.old_chunk == old_chunk)
			return simsnap_disk(&snap, SIMSNAP_SNAPSHOT) +
			       entry.new_chunk * chunk_bytes();
	}
	return simsnap_disk(&snap, SIMSNAP_ORIGIN) + old_chunk * chunk_bytes();
}

static void read_area(void)
{
	memcpy(area, simsnap_disk(&snap, SIMSNAP_SNAPSHOT) + chunk_bytes(), chunk_bytes());
}

static void see_all(unsigned char *seen)
{
	for (uint64_t i = 0; i < snap.options.origin_chunks; i++)
		memcpy(seen + i * chunk_bytes(), find_chunk(i), chunk_bytes());
}

/* Two chunks of the snapshot are written and committed in the kernel's way, or in ours: with the
 * rest of the area cleared. What is seen of the others must not change. */
static bool commit_changes_others(bool clears)
{
	static unsigned char before[SIMSNAP_SECTORS_MAX * 512];
	static unsigned char after[SIMSNAP_SECTORS_MAX * 512];
	unsigned int count = 0;
	uint64_t last = snap.options.origin_chunks - 2;

	read_area();
	see_all(before);
	while (count < chunk_bytes() / 16 && dmcore_cow_load(area + (size_t)count * 16 + 8, 8))
		count++;
	if (clears)
		memset(area + (size_t)count * 16, 0, chunk_bytes() - (size_t)count * 16);
	for (uint64_t i = last; i < last + 2; i++) {
		struct dmcore_cow_entry entry = { i, count + 2 };

		raw_write(SIMSNAP_SNAPSHOT, before, chunk_bytes(),
			  entry.new_chunk * chunk_bytes());
		dmcore_cow_entry_encode(&entry, area + (size_t)count++ * 16);
	}
	cr_assert_eq(dmcore_flush(snap.world.bdevs[SIMSNAP_SNAPSHOT]), 0);
	raw_write(SIMSNAP_SNAPSHOT, area, chunk_bytes(), chunk_bytes());
	cr_assert_eq(dmcore_flush(snap.world.bdevs[SIMSNAP_SNAPSHOT]), 0);
	read_area();
	see_all(after);
	return memcmp(before, after, last * chunk_bytes()) != 0;
}

static unsigned int count_changed_by_a_commit(bool clears)
{
	struct dmcore_sim_states *states;
	unsigned int num_changed = 0;

	leave_tails();
	cr_assert_eq(dmcore_sim_states_open(snap.world.sim, NULL, &states), 0);
	while (dmcore_sim_states_next(states) == 1)
		num_changed += commit_changes_others(clears);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
	simsnap_close(&snap);
	return num_changed;
}

Test(orders, a_tail_that_is_kept_comes_back, .timeout = 600)
{
	cr_assert_gt(count_changed_by_a_commit(false), 0);
	cr_assert_eq(count_changed_by_a_commit(true), 0);
}

/* The same states, and the library's own commits. */
Test(orders, a_tail_is_cleared_when_the_store_is_read, .timeout = 600)
{
	leave_tails();
	judge_all();
	cr_assert_eq(snap.num_broken, 0, "%s", snap.broken);
}

/* ---- a lost snapshot ------------------------------------------------------------------------ */

static const struct simsnap_options full = {
	.chunk_sectors = 1,
	.origin_chunks = 8,
	.cow_sectors = 4,
	.overflows = true,
};

/* Two chunks of the origin have found room, and a third finds none. */
static void fill_up(void)
{
	simsnap_open(&snap, &full, 1);
	cr_assert_eq(simsnap_activate(&snap), 0);
	simsnap_do(&snap, SIMSNAP_ORIGIN, DMCORE_OP_WRITE, 0, 0, 2);
	simsnap_do(&snap, SIMSNAP_ORIGIN, DMCORE_OP_FLUSH, 0, 0, 0);
	simsnap_record(&snap);
}

/* The header is invalidated, and the origin written, which is acknowledged and flushed. */
static void lose_as_the_kernel_does(bool durably)
{
	const struct dmcore_cow_header header = { DMCORE_COW_MAGIC, 0, DMCORE_COW_VERSION, 1 };
	unsigned char sector[512] = { 0 };

	fill_up();
	simsnap_deactivate(&snap);
	dmcore_cow_header_encode(&header, sector);
	snap.now.may_be_invalid = true;
	simsnap_mark(&snap);
	raw_write(SIMSNAP_SNAPSHOT, sector, 512, 0);
	if (durably)
		cr_assert_eq(dmcore_flush(snap.world.bdevs[SIMSNAP_SNAPSHOT]), 0);
	snap.latest[SIMSNAP_ORIGIN][2] = 1;
	simsnap_fill(sector, SIMSNAP_ORIGIN, 2, 1);
	raw_write(SIMSNAP_ORIGIN, sector, 512, 2 * 512);
	snap.now.must_be_invalid = true;
	simsnap_mark(&snap);
	cr_assert_eq(dmcore_flush(snap.world.bdevs[SIMSNAP_ORIGIN]), 0);
	snap.now.oldest[SIMSNAP_ORIGIN][2] = 1;
	simsnap_mark(&snap);
	judge_all();
}

Test(orders, a_header_without_a_flush_lets_a_lost_snapshot_come_back, .timeout = 600)
{
	lose_as_the_kernel_does(false);
	cr_assert_gt(snap.num_broken, 0);
	lose_as_the_kernel_does(true);
	cr_assert_eq(snap.num_broken, 0, "%s", snap.broken);
}

Test(orders, a_snapshot_is_lost_durably_before_the_origin_is_written, .timeout = 600)
{
	fill_up();
	simsnap_do(&snap, SIMSNAP_ORIGIN, DMCORE_OP_WRITE, 0, 2, 1);
	cr_assert(snap.now.must_be_invalid);
	simsnap_do(&snap, SIMSNAP_ORIGIN, DMCORE_OP_FLUSH, 0, 0, 0);
	judge_all();
	cr_assert_eq(snap.num_broken, 0, "%s", snap.broken);
	cr_assert_gt(snap.num_invalid, 0);
}

/* ---- a new store ---------------------------------------------------------------------------- */

static const struct simsnap_options garbage = {
	.chunk_sectors = 1,
	.origin_chunks = 4,
	.cow_sectors = 8,
	.garbage = true,
	.is_new = true,
};

/* The header first, then the area, and one flush behind both; or the area, durable, before. */
static void make_store_as_the_kernel_does(bool zeroes_first)
{
	const struct dmcore_cow_header header = { DMCORE_COW_MAGIC, 1, DMCORE_COW_VERSION, 1 };
	struct dmcore_bdev *cow;
	unsigned char sector[512] = { 0 };

	simsnap_open(&snap, &garbage, 1);
	cow = snap.world.bdevs[SIMSNAP_SNAPSHOT];
	simsnap_record(&snap);
	if (zeroes_first) {
		raw_write(SIMSNAP_SNAPSHOT, sector, 512, 512);
		cr_assert_eq(dmcore_flush(cow), 0);
	}
	dmcore_cow_header_encode(&header, sector);
	raw_write(SIMSNAP_SNAPSHOT, sector, 512, 0);
	memset(sector, 0, sizeof(sector));
	if (!zeroes_first)
		raw_write(SIMSNAP_SNAPSHOT, sector, 512, 512);
	cr_assert_eq(dmcore_flush(cow), 0);
	judge_all();
}

Test(orders, a_header_before_the_zeroes_makes_garbage_exceptions, .timeout = 600)
{
	make_store_as_the_kernel_does(false);
	cr_assert_gt(snap.num_broken, 0);
	make_store_as_the_kernel_does(true);
	cr_assert_eq(snap.num_broken, 0, "%s", snap.broken);
}

Test(orders, a_store_is_zeroed_before_it_is_one, .timeout = 600)
{
	simsnap_open(&snap, &garbage, 1);
	simsnap_record(&snap);
	cr_assert_eq(simsnap_activate(&snap), 0);
	judge_all();
	cr_assert_eq(snap.num_broken, 0, "%s", snap.broken);
}
