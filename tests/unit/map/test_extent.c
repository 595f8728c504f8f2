/* SPDX-License-Identifier: MIT */
/*
 * dmcore_bdev_extent() on mapped devices: each type of target over disks whose holes are known, and
 * devices that have none, another or a shorter table.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/driver.h>
#include <dmcore/target.h>

#include "../../support/fixture.h"
#include "../../support/rng.h"
#include "../../support/samples.h"

#define SECTOR DMCORE_SECTOR_BYTES
#define NUM_SPOTS SAMPLE_LEAVES_MAX
#define SECTORS SAMPLE_LEAF_SECTORS

/* ---- the driver "spots": disks that know of each sector whether it is zero ---- */

static unsigned char spots[NUM_SPOTS][SECTORS * SECTOR];
static const char *const leaves[NUM_SPOTS] = { "spots:0", "spots:1", "spots:2", "spots:3" };

static int spots_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	snprintf(key, bytes, "%s", args);
	return 0;
}

static int spots_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)flags;
	dmcore_bdev_set_private(bdev, spots[args[0] - '0']);
	dmcore_bdev_set_size(bdev, SECTORS);
	return 0;
}

static void spots_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void spots_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	unsigned char *data = dmcore_bdev_private(bdev);

	if (bio->op > DMCORE_OP_WRITE)
		dmcore_bio_complete(bio, -EOPNOTSUPP);
	else
		dmcore_bio_complete(bio, dmcore_bio_copy(bio, data + bio->sector * SECTOR));
}

static bool is_zero(const unsigned char *sector)
{
	return sector[0] == 0 && memcmp(sector, sector + 1, SECTOR - 1) == 0;
}

static int spots_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
			struct dmcore_extent *extent)
{
	const unsigned char *data = dmcore_bdev_private(bdev);
	bool zero = is_zero(data + sector * SECTOR);

	extent->kind = zero ? DMCORE_EXTENT_ZERO : DMCORE_EXTENT_DATA;
	for (extent->count = 1; extent->count < count; extent->count++) {
		if (is_zero(data + (sector + extent->count) * SECTOR) != zero)
			break;
	}
	return 0;
}

static const struct dmcore_driver spots_driver = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "spots",
	.identify = spots_identify,
	.open = spots_open,
	.close = spots_close,
	.submit = spots_submit,
	.extent = spots_extent,
};

/* ---- */

static struct rng rng;

static void open_spots(void)
{
	fixture_open();
	rng_start(&rng, 1);
	cr_assert_eq(dmcore_driver_register(fixture.core, &spots_driver), 0);
}

TestSuite(extent, .init = open_spots, .fini = fixture_close);

/* Stretches of zeroes and of data, each of a few sectors. */
static void fill_spots(void)
{
	memset(spots, 0, sizeof(spots));
	for (unsigned int i = 0; i < NUM_SPOTS; i++) {
		bool zero = rng_one_in(&rng, 2);

		for (unsigned int s = 0; s < SECTORS; s++) {
			if (rng_one_in(&rng, 7))
				zero = !zero;
			if (!zero)
				spots[i][s * SECTOR + rng_below(&rng, SECTOR)] = 1;
		}
	}
}

static struct dmcore_extent look(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count)
{
	struct dmcore_extent extent = { DMCORE_EXTENT_DATA, 0 };

	cr_assert_eq(dmcore_bdev_extent(bdev, sector, count, &extent), 0, "%s",
		     dmcore_error_message());
	cr_assert_geq(extent.count, 1);
	cr_assert_leq(extent.count, count);
	cr_assert(extent.kind == DMCORE_EXTENT_DATA || extent.kind == DMCORE_EXTENT_ZERO);
	return extent;
}

static void expect(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		   enum dmcore_extent_kind kind, uint64_t length)
{
	struct dmcore_extent extent = look(bdev, sector, count);

	cr_assert_eq(extent.kind, kind, "sector %lu", (unsigned long)sector);
	cr_assert_eq(extent.count, length, "sector %lu: %lu", (unsigned long)sector,
		     (unsigned long)extent.count);
}

/*
 * Walks over a device by steps of any length: what is called zero reads so. `exact`: what reads so
 * is called zero. Sectors that can't be read are data.
 */
static void check_device(struct dmcore_bdev *bdev, bool exact, const char *what)
{
	uint64_t size = dmcore_bdev_size_sectors(bdev);
	uint64_t at = 0;

	while (at < size) {
		struct dmcore_extent extent = look(bdev, at, 1 + rng_below(&rng, size));

		for (uint64_t s = at; s < at + extent.count; s++) {
			unsigned char data[SECTOR];
			struct fixture_io io = { bdev, DMCORE_OP_READ, 0, s, 1, data };
			bool zero = fixture_run(&io) == 0 && is_zero(data);

			if (extent.kind == DMCORE_EXTENT_ZERO)
				cr_assert(zero, "%s: sector %lu, seed %lu", what,
					  (unsigned long)s, (unsigned long)rng_seed());
			else if (exact)
				cr_assert(!zero, "%s: sector %lu, seed %lu", what,
					  (unsigned long)s, (unsigned long)rng_seed());
		}
		at += extent.count;
	}
	cr_assert_eq(at, size);
}

static void drop(struct dmcore_device *device)
{
	cr_assert_eq(dmcore_device_remove(device), 0, "%s", dmcore_error_message());
}

/* ---- targets ---- */

Test(extent, no_target_calls_zero_what_is_read_otherwise)
{
	const struct sample *sample;
	unsigned int i = 0;

	samples_cover(fixture.core);
	while ((sample = sample_next(&i)) != NULL) {
		char text[SAMPLE_TEXT_MAX];
		struct dmcore_device *device;

		fill_spots();
		for (unsigned int k = 0; k < sample->num_leaves; k++) {
			if (sample->side_leaves >> k & 1)
				memset(spots[k], 0, sizeof(spots[k]));
		}
		device = fixture_device("d", sample_text(sample, leaves, text, sizeof(text)));
		for (unsigned int k = 0; k < 8; k++)
			check_device(dmcore_device_bdev(device), false, text);
		for (unsigned int k = 0; k < SAMPLE_MESSAGES_MAX && sample->messages[k]; k++) {
			cr_assert_geq(dmcore_device_message(device, 0, sample->messages[k], NULL,
							    0),
				      0, "%s: %s", sample->messages[k], dmcore_error_message());
			check_device(dmcore_device_bdev(device), false, sample->messages[k]);
		}
		drop(device);
	}
}

Test(extent, targets_tell_all_the_holes_that_are_below_them)
{
	static const char *const tables[] = {
		"0 96 delay spots:0 16 0 spots:1 16 0 spots:2 16 0",
		"0 96 dust spots:0 16 1024",
		"0 96 flakey spots:0 16 1 0",
		"0 96 linear spots:0 32",
		("0 24 linear spots:0 128\n24 40 linear spots:1 16\n64 8 zero\n"
		 "72 24 linear spots:2 0"),
		"0 96 log-writes spots:0 spots:1",
		"0 96 striped 2 8 spots:0 16 spots:1 32",
		"0 96 striped 3 1 spots:0 0 spots:1 32 spots:2 8",
		"0 96 striped 4 6 spots:0 0 spots:1 32 spots:2 8 spots:0 64",
		"0 96 snapshot-origin spots:0",
		"0 96 switch 2 16 0 spots:0 0 spots:1 32",
		"0 10 zero\n10 80 switch 3 7 0 spots:0 0 spots:1 32 spots:2 5\n90 6 zero",
		"0 48 unstriped 3 8 1 spots:0 16",
		"0 8 zero\n8 80 unstriped 2 5 1 spots:0 16",
		"0 96 zero",
	};

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		struct dmcore_device *device;

		fill_spots();
		device = fixture_device("d", tables[i]);
		for (unsigned int k = 0; k < 8; k++)
			check_device(dmcore_device_bdev(device), true, tables[i]);
		drop(device);
	}
}

Test(extent, what_a_target_may_fail_to_read_is_data)
{
	struct dmcore_device *dust = fixture_device("dust", "0 96 dust spots:0 0 512");
	struct dmcore_device *error = fixture_device("error", "0 96 error");
	struct dmcore_device *down = fixture_device("down", "0 96 flakey spots:0 0 0 1");

	expect(dmcore_device_bdev(dust), 0, 96, DMCORE_EXTENT_ZERO, 96);
	cr_assert_geq(dmcore_device_message(dust, 0, "enable", NULL, 0), 0);
	expect(dmcore_device_bdev(dust), 0, 96, DMCORE_EXTENT_ZERO, 96);
	cr_assert_geq(dmcore_device_message(dust, 0, "addbadblock 50", NULL, 0), 0);
	expect(dmcore_device_bdev(dust), 0, 96, DMCORE_EXTENT_DATA, 96);
	cr_assert_geq(dmcore_device_message(dust, 0, "disable", NULL, 0), 0);
	expect(dmcore_device_bdev(dust), 0, 96, DMCORE_EXTENT_ZERO, 96);
	expect(dmcore_device_bdev(error), 0, 96, DMCORE_EXTENT_DATA, 96);
	expect(dmcore_device_bdev(down), 0, 96, DMCORE_EXTENT_DATA, 96);
	drop(down);
	drop(error);
	drop(dust);
}

Test(extent, the_regions_of_a_switch_are_looked_up_as_they_are_now)
{
	struct dmcore_device *device =
		fixture_device("d", "0 32 switch 2 8 0 spots:0 0 spots:1 0");
	struct dmcore_bdev *bdev = dmcore_device_bdev(device);

	memset(spots[1], 1, sizeof(spots[1]));
	expect(bdev, 0, 32, DMCORE_EXTENT_ZERO, 8);
	cr_assert_geq(dmcore_device_message(device, 0, "set_region_mappings 1:0 :0", NULL, 0), 0);
	expect(bdev, 0, 32, DMCORE_EXTENT_ZERO, 24);
	drop(device);
}

/* Chunks of one kind are told in one. */
Test(extent, pieces_of_a_kind_are_put_together)
{
	struct dmcore_device *device = fixture_device("d", "0 128 striped 2 2 spots:0 0 spots:1 0");
	struct dmcore_bdev *bdev = dmcore_device_bdev(device);

	expect(bdev, 0, 128, DMCORE_EXTENT_ZERO, 128);
	expect(bdev, 1, 100, DMCORE_EXTENT_ZERO, 100);
	/* Sector 10 of the second stripe. */
	spots[1][10 * SECTOR] = 1;
	expect(bdev, 0, 128, DMCORE_EXTENT_ZERO, 22);
	expect(bdev, 22, 128, DMCORE_EXTENT_DATA, 1);
	expect(bdev, 23, 128, DMCORE_EXTENT_ZERO, 128 - 23);
	drop(device);
}

/* ---- devices ---- */

Test(extent, a_device_without_a_table_has_no_sector)
{
	struct dmcore_extent extent;
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(fixture.core, "d", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_bdev_extent(dmcore_device_bdev(device), 0, 1, &extent), -EIO);
	drop(device);
}

Test(extent, what_is_behind_the_table_is_an_error)
{
	struct dmcore_device *device = fixture_device("d", "0 96 zero");
	struct dmcore_extent extent;

	cr_assert_eq(dmcore_bdev_extent(dmcore_device_bdev(device), 96, 1, &extent), -EIO);
	expect(dmcore_device_bdev(device), 95, UINT64_MAX, DMCORE_EXTENT_ZERO, 1);
	drop(device);
}

Test(extent, a_suspended_device_tells_of_its_live_table)
{
	struct dmcore_device *device = fixture_device("d", "0 96 zero");
	struct dmcore_bdev *bdev = dmcore_device_bdev(device);

	memset(spots[0], 1, sizeof(spots[0]));
	cr_assert_eq(dmcore_device_load(device, fixture_table("0 64 linear spots:0 0")), 0);
	expect(bdev, 0, 96, DMCORE_EXTENT_ZERO, 96);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	expect(bdev, 0, 96, DMCORE_EXTENT_ZERO, 96);
	cr_assert_eq(dmcore_device_resume(device), 0);
	expect(bdev, 0, 96, DMCORE_EXTENT_DATA, 64);
	drop(device);
}

Test(extent, a_device_below_that_has_become_shorter_is_an_error)
{
	struct dmcore_device *below = fixture_device("below", "0 96 zero");
	struct dmcore_device *device = fixture_device("d", "0 48 linear below 48");
	struct dmcore_bdev *bdev = dmcore_device_bdev(device);
	struct dmcore_extent extent;

	expect(bdev, 0, 48, DMCORE_EXTENT_ZERO, 48);
	cr_assert_eq(dmcore_device_load(below, fixture_table("0 64 zero")), 0);
	cr_assert_eq(dmcore_device_resume(below), 0);
	expect(bdev, 0, 48, DMCORE_EXTENT_ZERO, 16);
	cr_assert_eq(dmcore_bdev_extent(bdev, 16, 1, &extent), -EIO);
	drop(device);
	drop(below);
}

Test(extent, a_high_stack_is_looked_through)
{
	enum { DEPTH = 40 };
	struct dmcore_device *devices[DEPTH];
	char name[16];
	char text[64];

	spots[0][40 * SECTOR] = 1;
	for (unsigned int i = 0; i < DEPTH; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		if (i == 0)
			snprintf(text, sizeof(text), "0 200 linear spots:0 0");
		else
			snprintf(text, sizeof(text), "0 %u linear d%u 1", 200 - i, i - 1);
		devices[i] = fixture_device(name, text);
	}
	expect(dmcore_device_bdev(devices[DEPTH - 1]), 0, 200, DMCORE_EXTENT_ZERO, 1);
	expect(dmcore_device_bdev(devices[DEPTH - 1]), 1, 200, DMCORE_EXTENT_DATA, 1);
	expect(dmcore_device_bdev(devices[DEPTH - 1]), 2, 200, DMCORE_EXTENT_ZERO, 159);
	for (unsigned int i = DEPTH; i-- > 0;)
		drop(devices[i]);
}

/* ---- types of the application's own ---- */

static struct dmcore_place place;
static uint64_t asked_sector;
static uint64_t asked_count;

static int odd_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	(void)target;
	(void)args;
	return 0;
}

static enum dmcore_map_result odd_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static void odd_extent(struct dmcore_target *target, uint64_t sector, struct dmcore_place *result)
{
	(void)target;
	asked_sector = sector;
	asked_count = result->count;
	*result = place;
}

static const struct dmcore_target_type odd = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "odd",
	.version = { 1, 0, 0 },
	.ctr = odd_ctr,
	.map = odd_map,
	.extent = odd_extent,
};

/* Of an author who knew the fields before it. */
static const struct dmcore_target_type old = {
	.struct_size = offsetof(struct dmcore_target_type, extent),
	.name = "old",
	.version = { 1, 0, 0 },
	.ctr = odd_ctr,
	.map = odd_map,
	.extent = odd_extent,
};

Test(extent, a_target_is_asked_about_its_own_sectors)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_target_register(fixture.core, &odd), 0);
	device = fixture_device("d", "0 10 zero\n10 20 odd\n30 10 zero");
	place = (struct dmcore_place){ .kind = DMCORE_EXTENT_DATA, .count = 3 };
	expect(dmcore_device_bdev(device), 12, 28, DMCORE_EXTENT_DATA, 18);
	cr_assert_eq(asked_sector, 27);
	cr_assert_eq(asked_count, 3);
	place.kind = DMCORE_EXTENT_ZERO;
	expect(dmcore_device_bdev(device), 12, 2, DMCORE_EXTENT_DATA, 2);
	place.count = 2;
	expect(dmcore_device_bdev(device), 12, 2, DMCORE_EXTENT_ZERO, 2);
	drop(device);
}

Test(extent, senseless_places_are_data)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_target_register(fixture.core, &odd), 0);
	device = fixture_device("d", "0 20 odd");
	place = (struct dmcore_place){ .kind = DMCORE_EXTENT_ZERO, .count = 0 };
	expect(dmcore_device_bdev(device), 4, 8, DMCORE_EXTENT_DATA, 8);
	place.count = 9;
	expect(dmcore_device_bdev(device), 4, 8, DMCORE_EXTENT_DATA, 8);
	drop(device);
}

Test(extent, a_type_of_an_older_author_has_data)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_target_register(fixture.core, &old), 0);
	device = fixture_device("d", "0 20 old");
	place = (struct dmcore_place){ .kind = DMCORE_EXTENT_ZERO, .count = 20 };
	expect(dmcore_device_bdev(device), 0, 20, DMCORE_EXTENT_DATA, 20);
	drop(device);
}
