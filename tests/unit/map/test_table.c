/* SPDX-License-Identifier: MIT */
/* Tables built target by target (map/table.c), and what they hold (map/resources.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "base/core.h"
#include "map/map.h"
#include "support/fixture.h"

#define MANY_WORDS 200000

TestSuite(table, .init = fixture_open, .fini = fixture_close);

static struct dmcore_table *empty_table(void)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_create(fixture.core, 0, &table), 0);
	return table;
}

static void add(struct dmcore_table *table, uint64_t start, uint64_t length, const char *type,
		const char *params)
{
	cr_assert_eq(dmcore_table_add(table, start, length, type, params), 0, "%s",
		     dmcore_error_message());
}

static void expect_add_refused(struct dmcore_table *table, uint64_t start, uint64_t length,
			       const char *type, const char *params, int error, const char *message)
{
	unsigned int num_targets = dmcore_table_num_targets(table);
	uint64_t size_sectors = dmcore_table_size_sectors(table);

	cr_assert_eq(dmcore_table_add(table, start, length, type, params), error);
	cr_assert_str_eq(dmcore_error_message(), message);
	cr_assert_eq(dmcore_table_num_targets(table), num_targets);
	cr_assert_eq(dmcore_table_size_sectors(table), size_sectors);
}

/* ---- a type that tells what is done to it ---- */

static struct {
	unsigned int constructed;
	unsigned int destroyed;
	uint64_t destroyed_begin[8];
	void *memory;
} probe;

/* `probe [fail] [device…]`: opens the devices, takes memory, and fails if asked to. */
static int probe_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	bool fail = false;
	const char *word;

	probe.memory = dmcore_target_alloc(target, 100);
	cr_assert_not_null(probe.memory);
	cr_assert_eq((uintptr_t)probe.memory % 8, 0);
	for (unsigned int i = 0; i < 100; i++)
		cr_assert_eq(((char *)probe.memory)[i], 0, "not zeroed");
	memset(probe.memory, 0xff, 100);
	while ((word = dmcore_args_next(args))) {
		struct dmcore_bdev *bdev;
		int ret;

		if (strcmp(word, "fail") == 0) {
			fail = true;
			continue;
		}
		ret = dmcore_target_device(target, word, &bdev);
		if (ret)
			return dmcore_args_fail(args, ret, "no device");
	}
	if (fail)
		return -EINVAL;
	probe.constructed++;
	return 0;
}

static void probe_dtr(struct dmcore_target *target)
{
	probe.destroyed_begin[probe.destroyed++] = target->begin;
}

static enum dmcore_map_result probe_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static int probe_iterate(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	(void)target;
	(void)fn;
	(void)context;
	return 0;
}

static const struct dmcore_target_type probe_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "probe",
	.version = { 1, 0, 0 },
	.ctr = probe_ctr,
	.dtr = probe_dtr,
	.map = probe_map,
	.iterate_devices = probe_iterate,
};

static void use_probe(void)
{
	cr_assert_eq(dmcore_target_register(fixture.core, &probe_type), 0);
}

/* ---- tables ---- */

Test(table, is_empty_at_first)
{
	struct dmcore_table *table = empty_table();

	cr_assert_eq(dmcore_table_num_targets(table), 0);
	cr_assert_eq(dmcore_table_size_sectors(table), 0);
	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_TABLE), "");
	dmcore_table_destroy(table);
}

Test(table, refuses_an_unknown_flag)
{
	struct dmcore_table *table = (void *)&fixture;

	cr_assert_eq(dmcore_table_create(fixture.core, DMCORE_OPEN_FLAGS_ALL + 1, &table), -EINVAL);
	cr_assert_null(table);
}

Test(table, destroying_none_does_nothing)
{
	dmcore_table_destroy(NULL);
}

Test(table, grows_by_each_target)
{
	struct dmcore_table *table = empty_table();

	add(table, 0, 8, "zero", NULL);
	add(table, 8, 3, "error", "");
	cr_assert_eq(dmcore_table_num_targets(table), 2);
	cr_assert_eq(dmcore_table_size_sectors(table), 11);
	dmcore_table_destroy(table);
}

Test(table, knows_the_length_of_each_of_many_targets)
{
	struct dmcore_table *table = empty_table();
	uint64_t begin = 0;

	for (uint64_t i = 0; i < 1000; i++) {
		add(table, begin, i % 7 + 1, "zero", NULL);
		begin += i % 7 + 1;
	}
	for (uint32_t i = 0; i < 1000; i++)
		cr_assert_eq(dmcore_target_len(dmcore__table_target(table, i)), i % 7 + 1);
	dmcore_table_destroy(table);
}

Test(table, targets_stay_where_they_are_while_it_grows)
{
	struct dmcore_table *table = empty_table();
	struct dmcore_target *first;

	add(table, 0, 8, "zero", NULL);
	first = dmcore__table_target(table, 0);
	for (uint64_t i = 1; i < 1000; i++)
		add(table, i * 8, 8, "zero", NULL);
	cr_assert_eq(dmcore__table_target(table, 0), first);
	dmcore_table_destroy(table);
}

Test(table, refuses_a_target_without_length)
{
	struct dmcore_table *table = empty_table();

	/* Before anything else that is wrong with it. */
	expect_add_refused(table, UINT64_MAX, 0, "nosuch", NULL, -EINVAL, "zero-length target");
	dmcore_table_destroy(table);
}

Test(table, refuses_sectors_beyond_the_largest_device)
{
	static const uint64_t ranges[][2] = {
		{ 0, DMCORE_DEVICE_SECTORS_MAX + 1 },
		{ 8, DMCORE_DEVICE_SECTORS_MAX },
		{ 0, UINT64_MAX },
		{ UINT64_MAX - 7, 8 },
		{ UINT64_MAX, UINT64_MAX },
		{ UINT64_MAX - 7, 16 },
	};
	struct dmcore_table *table = empty_table();

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(ranges); i++)
		expect_add_refused(table, ranges[i][0], ranges[i][1], "nosuch", NULL, -EINVAL,
				   "too large device");
	add(table, 0, DMCORE_DEVICE_SECTORS_MAX, "zero", NULL);
	dmcore_table_destroy(table);
}

Test(table, refuses_an_unknown_type_before_a_gap)
{
	struct dmcore_table *table = empty_table();

	expect_add_refused(table, 8, 8, "nosuch", NULL, -EINVAL, "nosuch: unknown target type");
	expect_add_refused(table, 8, 8, "Zero", NULL, -EINVAL, "Zero: unknown target type");
	expect_add_refused(table, 8, 8, NULL, NULL, -EINVAL, ": unknown target type");
	dmcore_table_destroy(table);
}

Test(table, refuses_a_type_name_that_the_kernel_has_no_room_for)
{
	struct dmcore_table *table = empty_table();

	expect_add_refused(table, 0, 8, "aaaaaaaaaaaaaaa", NULL, -EINVAL,
			   "aaaaaaaaaaaaaaa: unknown target type");
	expect_add_refused(table, 0, 8, "aaaaaaaaaaaaaaaa", NULL, -EINVAL,
			   "Target type name aaaaaaaaaaaaaaaa is too long.");
	dmcore_table_destroy(table);
}

Test(table, refuses_gap_overlap_and_a_late_start_alike)
{
	struct dmcore_table *table = empty_table();

	expect_add_refused(table, 1, 8, "zero", NULL, -EINVAL, "zero: Gap in table");
	add(table, 0, 8, "zero", NULL);
	expect_add_refused(table, 9, 8, "zero", NULL, -EINVAL, "zero: Gap in table");
	expect_add_refused(table, 7, 8, "zero", NULL, -EINVAL, "zero: Gap in table");
	expect_add_refused(table, 0, 8, "zero", NULL, -EINVAL, "zero: Gap in table");
	dmcore_table_destroy(table);
}

Test(table, refuses_a_gap_before_the_constructor_runs)
{
	struct dmcore_table *table = empty_table();

	use_probe();
	expect_add_refused(table, 1, 8, "probe", "fail", -EINVAL, "probe: Gap in table");
	cr_assert_null(probe.memory);
	dmcore_table_destroy(table);
}

Test(table, refuses_targets_once_it_is_complete)
{
	struct dmcore_table *table = fixture_table("0 8 zero");

	expect_add_refused(table, 8, 8, "zero", NULL, -EBUSY, "the table is complete");
	dmcore_table_destroy(table);
}

Test(table, failed_constructor_without_a_text_has_the_kernels)
{
	struct dmcore_table *table = empty_table();

	use_probe();
	expect_add_refused(table, 0, 8, "probe", "fail", -EINVAL, "probe: Unknown error");
	dmcore_table_destroy(table);
}

Test(table, failed_constructor_leaves_nothing_behind)
{
	struct dmcore_table *table = empty_table();
	uint64_t before;

	use_probe();
	add(table, 0, 8, "probe", "mem:8s");
	before = atomic_load(&fixture.core->live_allocations);
	for (unsigned int i = 0; i < 1000; i++)
		expect_add_refused(table, 8, 8, "probe", "mem:16s mem:32s fail", -EINVAL,
				   "probe: Unknown error");
	cr_assert_eq(atomic_load(&fixture.core->live_allocations), before);
	add(table, 8, 8, "probe", "mem:16s");
	dmcore_table_destroy(table);
}

Test(table, destructors_run_in_order_and_not_for_what_failed)
{
	struct dmcore_table *table = empty_table();

	use_probe();
	add(table, 0, 8, "probe", NULL);
	add(table, 8, 8, "probe", NULL);
	expect_add_refused(table, 16, 8, "probe", "fail", -EINVAL, "probe: Unknown error");
	add(table, 16, 8, "probe", NULL);
	dmcore_table_destroy(table);
	cr_assert_eq(probe.destroyed, 3);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(probe.destroyed_begin[i], 8 * i);
}

Test(table, says_why_a_device_was_not_to_be_had)
{
	struct dmcore_table *table = empty_table();

	expect_add_refused(table, 0, 8, "linear", "/nonexistent/disk.img 0", -ENOENT,
			   "linear: Device lookup failed: /nonexistent/disk.img: "
			   "No such file or directory (ENOENT)");
	dmcore_table_destroy(table);
}

Test(table, opens_a_device_once_however_often_it_is_named)
{
	struct dmcore_bdev *bdev = fixture_mapped("below", "0 64 zero");
	struct dmcore_table *table = empty_table();

	for (uint64_t i = 0; i < 8; i++)
		add(table, 8 * i, 8, "linear", "below 0");
	cr_assert_eq(bdev->open_count, 1);
	dmcore_table_destroy(table);
	cr_assert_eq(bdev->open_count, 0);
}

Test(table, holds_thousands_of_devices)
{
	struct dmcore_table *table = empty_table();
	char params[64];

	for (unsigned int i = 0; i < 3000; i++) {
		snprintf(params, sizeof(params), "mem:8s,name=%u 0", i);
		add(table, 8 * i, 8, "linear", params);
	}
	cr_assert_eq(dmcore_table_complete(table), 0);
	cr_assert_eq(table->num_flush_steps, 3000);
	dmcore_table_destroy(table);
}

static int expect_read_only(struct dmcore_bdev *bdev, void *context)
{
	cr_assert(dmcore_bdev_is_read_only(bdev));
	++*(unsigned int *)context;
	return 0;
}

Test(table, read_only_one_opens_devices_read_only)
{
	struct dmcore_table *table;
	unsigned int seen = 0;

	cr_assert_eq(dmcore_table_create(fixture.core, DMCORE_TABLE_READ_ONLY, &table), 0);
	add(table, 0, 8, "linear", "mem:8s,name=a 0");
	dmcore__table_each_device(table, expect_read_only, &seen);
	cr_assert_eq(seen, 1);
	dmcore_table_destroy(table);
}

Test(table, takes_params_too_long_for_the_stack)
{
	struct dmcore_table *table = empty_table();
	char *params = malloc(2 * MANY_WORDS + 1);

	for (unsigned int i = 0; i < MANY_WORDS; i++)
		memcpy(params + 2 * i, "1 ", 3);
	params[2 * (DMCORE_TARGET_ARGS_MAX + 1)] = '\0';
	expect_add_refused(table, 0, 8, "error", params, -E2BIG, "error: more than 131072 words");
	params[2 * DMCORE_TARGET_ARGS_MAX] = '\0';
	add(table, 0, 8, "error", params);
	free(params);
	dmcore_table_destroy(table);
}

Test(table, holds_a_million_targets_and_not_one_more)
{
	struct dmcore_table *table = empty_table();
	struct dmcore_target *last;

	for (uint64_t i = 0; i < DMCORE_TABLE_TARGETS_MAX; i++)
		cr_assert_eq(dmcore_table_add(table, i, 1, "zero", NULL), 0);
	expect_add_refused(table, DMCORE_TABLE_TARGETS_MAX, 1, "zero", NULL, -EOVERFLOW,
			   "more than 1048576 targets");
	last = dmcore__table_target(table, DMCORE_TABLE_TARGETS_MAX - 1);
	cr_assert_eq(last->begin, DMCORE_TABLE_TARGETS_MAX - 1);
	cr_assert_eq(dmcore_target_len(last), 1);
	dmcore_table_destroy(table);
}

Test(table, memory_of_targets_is_aligned_zeroed_and_their_own)
{
	struct dmcore_table *table = empty_table();
	struct dmcore_target *target;
	unsigned char *memory[64];

	add(table, 0, 8, "zero", NULL);
	target = dmcore__table_target(table, 0);
	for (unsigned int i = 0; i < 64; i++) {
		size_t bytes = (size_t)i * i * i;

		memory[i] = dmcore_target_alloc(target, bytes);
		cr_assert_not_null(memory[i]);
		cr_assert_eq((uintptr_t)memory[i] % 16, 0);
		for (size_t at = 0; at < bytes; at++)
			cr_assert_eq(memory[i][at], 0);
		memset(memory[i], (int)i, bytes);
	}
	for (unsigned int i = 1; i < 64; i++) {
		cr_assert_eq(memory[i][0], i);
		cr_assert_eq(memory[i][(size_t)i * i * i - 1], i);
	}
	cr_assert_null(dmcore_target_alloc(target, SIZE_MAX));
	dmcore_table_destroy(table);
}

Test(table, type_with_devices_must_tell_which)
{
	struct dmcore_target_type type = probe_type;
	struct dmcore_table *table = empty_table();

	type.iterate_devices = NULL;
	cr_assert_eq(dmcore_target_register(fixture.core, &type), 0);
	expect_add_refused(table, 0, 8, "probe", "mem:8s", -EINVAL,
			   "probe: no device: the target type has no iterate_devices");
	dmcore_table_destroy(table);
}

Test(table, empty_word_is_no_device)
{
	struct dmcore_table *table = empty_table();

	use_probe();
	cr_assert_eq(dmcore_table_add(table, 0, 8, "probe", NULL), 0);
	cr_assert_eq(dmcore_target_device(dmcore__table_target(table, 0), "",
					  &(struct dmcore_bdev *){ NULL }),
		     -EINVAL);
	dmcore_table_destroy(table);
}
