/* SPDX-License-Identifier: MIT */
/*
 * A snapshot is given to another table while its origin is written to, and whatever of that needs
 * memory gets none: the old table or the new one has all exceptions, those being made too.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/heap.h"
#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define TABLE "snapshot " O " fault:2048,id=2 P 8"
#define CHUNKS (SNAPSHOTS_ORIGIN_SECTORS / 8)
#define AT_ONCE 2u

static struct dmcore_bdev *origin;
static struct dmcore_bdev *snapshot;
static unsigned char bytes[AT_ONCE][8 * DMCORE_SECTOR_BYTES];
static unsigned int num_written; /* chunks of the origin */

static void open_both(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	snapshots_open_with(&options);
	/* It stays while no table names it. */
	stage_disk(&snapshots.stage, 2, 2048, "");
	snapshot = snapshots_map("s", SNAPSHOTS_ORIGIN_SECTORS, TABLE);
	origin = snapshots_map("o", SNAPSHOTS_ORIGIN_SECTORS, "snapshot-origin " O);
	num_written = 0;
}

static void close_both(void)
{
	snapshots_close();
	cr_assert_eq(heap.outstanding, 0);
}

/* Their copies are being made, and go no further. */
static void begin_writes(struct tally *tally)
{
	fault_add_rule(snapshots.origin, &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_READ, .times = AT_ONCE });
	for (unsigned int i = 0; i < AT_ONCE; i++, num_written++) {
		cr_assert_lt(num_written, CHUNKS);
		pattern_fill(bytes[i], num_written * 8, 8, 1);
		stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, num_written * 8, 8,
			     bytes[i], tally);
	}
	snapshots_await_held(snapshots.origin, AT_ONCE);
}

static void end_writes(struct tally *tally)
{
	fault_release_all(snapshots.origin);
	snapshots_wait(tally, AT_ONCE);
	cr_assert_eq(tally->failed, 0);
	fault_clear_rules(snapshots.origin);
}

static void expect_all(void)
{
	snapshots_expect(snapshot, 0, SNAPSHOTS_ORIGIN_SECTORS, 0);
	snapshots_expect(origin, 0, num_written * 8, 1);
}

/* It waits for the copies, which go on meanwhile. */
static int hand_over(void)
{
	int ret = snapshots_load("s", SNAPSHOTS_ORIGIN_SECTORS, TABLE);

	fault_release_all(snapshots.origin);
	return ret ? ret : snapshots_resume("s");
}

static void fail_each(bool for_good)
{
	struct nth nth = nth_of(&heap_nth, NULL, for_good);
	bool more = true;

	while (more) {
		struct tally tally = { 0 };
		int ret = 0;

		snapshots_suspend("s");
		begin_writes(&tally);
		more = nth_begin(&nth);
		if (more) {
			ret = hand_over();
			nth_end(&nth);
			cr_assert_eq(ret, nth.failed ? -ENOMEM : 0, "%s: %d", nth_name(&nth), ret);
		}
		if (ret)
			cr_assert_eq(dmcore_device_clear(dmcore_device_find(snapshots.stage.core,
									    "s")), 0);
		if (ret || !more)
			cr_assert_eq(snapshots_resume("s"), 0, "%s", dmcore_error_message());
		end_writes(&tally);
		expect_all();
	}
}

static void fail_each_and_read_again(bool for_good)
{
	open_both();
	fail_each(for_good);
	cr_assert_gt(num_written, 4 * AT_ONCE);
	snapshots_remove("s");
	snapshot = snapshots_map("s", SNAPSHOTS_ORIGIN_SECTORS, TABLE);
	expect_all();
	close_both();
}

Test(snapshot_handover_memory, failing_once_anywhere_loses_no_exception)
{
	fail_each_and_read_again(false);
}

Test(snapshot_handover_memory, failing_from_anywhere_on_loses_no_exception)
{
	fail_each_and_read_again(true);
}
