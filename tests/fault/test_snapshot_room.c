/* SPDX-License-Identifier: MIT */
/*
 * COW devices on file systems that have no room, or no quota, for what is written to them: as with
 * any error of its COW device the snapshot is lost, or, if its chunk is there already, one write to
 * it fails; the origin never notices.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define C SNAPSHOTS_COW
#define CHUNKS 6u

/* ---- every write of a scenario finds no room ---- */

static struct dmcore_bdev *origin;
static struct dmcore_bdev *snapshot;

/* What the snapshot was written. */
static const struct {
	unsigned int flags;
	uint64_t sector;
	uint64_t count;
} writes[] = { { 0, 64, 8 }, { 0, 131, 3 }, { DMCORE_BIO_FUA, 256, 3 } };
#define WRITES 3u
static int results[WRITES];

/* It may fail once its chunk is there, and then nothing else has happened; or with the snapshot. */
static void write_snapshot(unsigned int nr, int status)
{
	int ret = snapshots_try_write(snapshot, writes[nr].flags, writes[nr].sector,
				      writes[nr].count, 2);

	results[nr] = ret;
	cr_assert(ret == 0 || ret == status || ret == -EIO, "%d", ret);
	if (ret == -EIO)
		snapshots_expect_status("s", "Invalid");
}

static void expect_snapshot(void)
{
	uint64_t at = 0;

	for (unsigned int i = 0; i < WRITES; i++) {
		snapshots_expect(snapshot, at, writes[i].sector - at, 0);
		at = writes[i].sector + writes[i].count;
		snapshots_expect(snapshot, writes[i].sector, writes[i].count, results[i] ? 0 : 2);
	}
	snapshots_expect(snapshot, at, SNAPSHOTS_ORIGIN_SECTORS - at, 0);
}

static void carry_out_all(int status)
{
	snapshots_write(origin, 0, 8, 1);
	write_snapshot(0, status);
	write_snapshot(1, status);
	snapshots_write(origin, 192, 3, 1);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	write_snapshot(2, status);
	snapshots_write(origin, 128, 8, 1);
	snapshots_write(origin, 320, 64, 1);
	cr_assert_eq(snapshots_run(origin, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
}

static void expect_origin(void)
{
	snapshots_expect(origin, 0, 8, 1);
	snapshots_expect(origin, 8, 120, 0);
	snapshots_expect(origin, 128, 8, 1);
	snapshots_expect(origin, 136, 56, 0);
	snapshots_expect(origin, 192, 3, 1);
	snapshots_expect(origin, 195, 125, 0);
	snapshots_expect(origin, 320, 64, 1);
	snapshots_expect(origin, 384, 128, 0);
}

/* One of the writes has met it, and is all that has. */
static bool is_alone(int status)
{
	bool found = false;

	for (unsigned int i = 0; i < WRITES; i++) {
		if (results[i] == -EIO)
			return false;
		found |= results[i] == status;
	}
	return found;
}

/* True: it has been reached. */
static bool nth_write_finds_none(const char *params, unsigned int nth, int status, bool for_good)
{
	bool reached;

	snapshots_open();
	snapshot = snapshots_map("s", SNAPSHOTS_ORIGIN_SECTORS, params);
	origin = snapshots_map("o", SNAPSHOTS_ORIGIN_SECTORS, "snapshot-origin " O);
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = status, .ops = FAULT_WRITE,
			.skip = nth, .times = for_good ? 0 : 1 });
	carry_out_all(status);
	expect_origin();
	reached = fault_num_failed(snapshots.cow) > 0;
	fault_clear_rules(snapshots.cow);
	if (!reached || (!for_good && is_alone(status))) {
		expect_snapshot();
	} else {
		snapshots_expect_status("s", "Invalid");
		cr_assert_eq(snapshots_try_read(snapshot, 0, 8), -EIO);
	}
	snapshots_remove("s");
	expect_origin();
	snapshots_close();
	return reached;
}

static void all_writes_find_none(const char *params)
{
	static const int statuses[] = { -ENOSPC, -EDQUOT };

	for (unsigned int i = 0; i < 4; i++) {
		unsigned int nth = 0;

		while (nth_write_finds_none(params, nth, statuses[i / 2], i % 2))
			nth++;
		/* Six chunks of data and more; a table that makes no writes would test nothing. */
		cr_assert_gt(nth, CHUNKS);
	}
}

Test(snapshot_room, that_ends_at_any_write_loses_a_persistent_snapshot_and_nothing_else)
{
	all_writes_find_none("snapshot " O " " C " P 8");
}

Test(snapshot_room, that_ends_at_any_write_loses_a_transient_snapshot_and_nothing_else)
{
	all_writes_find_none("snapshot " O " " C " N 8");
}

/* ---- a real file system ---- */

/* A mount that this process alone has. */
static void mount_small(char *dir, size_t bytes)
{
	snprintf(dir, bytes, "%s/dmcore-room-XXXXXX", scratch_dir());
	cr_assert_not_null(mkdtemp(dir));
	if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) {
		rmdir(dir);
		cr_skip("no file systems may be mounted here");
	}
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("dmcore", dir, "tmpfs", 0, "size=256k")) {
		rmdir(dir);
		cr_skip("no tmpfs may be mounted here");
	}
}

Test(snapshot_room, that_a_file_system_has_no_more_of_ends_with_the_snapshot)
{
	unsigned int written = 0;
	struct scratch file;
	char params[160];
	char dir[128];

	mount_small(dir, sizeof(dir));
	scratch_create(&file, dir, UINT64_C(1) << 30);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	snapshots_open();
	snprintf(params, sizeof(params), "snapshot " O " %s P 8", file.path);
	snapshot = snapshots_map("s", SNAPSHOTS_ORIGIN_SECTORS, params);
	origin = snapshots_map("o", SNAPSHOTS_ORIGIN_SECTORS, "snapshot-origin " O);
	/* 64 chunks of 4 KiB and the metadata are more than it has. */
	for (uint64_t sector = 0; sector < SNAPSHOTS_ORIGIN_SECTORS; sector += 8) {
		snapshots_write(origin, sector, 8, 1);
		if (strcmp(snapshots_status("s"), "Invalid") == 0)
			break;
		snapshots_expect(snapshot, 0, sector + 8, 0);
		written++;
	}
	cr_assert_gt(written, 32);
	cr_assert_lt(written, 64);
	snapshots_expect_status("s", "Invalid");
	cr_assert_eq(snapshots_try_read(snapshot, 0, 8), -EIO);
	snapshots_write(origin, 0, SNAPSHOTS_ORIGIN_SECTORS, 3);
	snapshots_expect(origin, 0, SNAPSHOTS_ORIGIN_SECTORS, 3);
	/* Its header could be written: that is where it was. */
	snapshots_remove("s");
	snapshot = snapshots_map("s", SNAPSHOTS_ORIGIN_SECTORS, params);
	snapshots_expect_status("s", "Invalid");
	snapshots_remove("s");
	snapshots_close();
	scratch_close(&file);
}
