/* SPDX-License-Identifier: MIT */
/*
 * What a core makes of types that leave out what is optional, or answer what they shouldn't: each
 * hook by itself, memory with requests but no end_io, results above zero, memory that there isn't.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "map/map.h"
#include "support/fixture.h"

TestSuite(types_made, .init = fixture_open, .fini = fixture_close);

/* ---- a type that does as it is told ---- */

static struct {
	int ctr_ret;
	int message_ret;
	int preresume_ret;
	const char *why;        /* what messages and preresume leave as the core's message */
	unsigned int copies;
	unsigned int copied_ops; /* a bit for each; of the others there is one */
	unsigned int flags;     /* of the target */
	size_t alloc_bytes;     /* by the constructor */
	void *allocated;
	bool noflush;           /* as the constructor saw it */
	bool looks_up;          /* devices without a name */
	int no_name_ret;
	int no_word_ret;
	unsigned int hooks;
	unsigned int mapped;
} toy;

/* The core keeps what it is given until its end. */
static struct dmcore_target_type toy_type;

static int toy_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct dmcore_bdev *bdev;

	while (dmcore_args_left(args) > 0)
		dmcore_args_next(args);
	target->flags = toy.flags;
	toy.noflush = dmcore_target_noflush(target);
	if (toy.looks_up) {
		toy.no_name_ret = dmcore_target_device(target, NULL, &bdev);
		toy.no_word_ret = dmcore_target_device(target, "", &bdev);
	}
	if (toy.alloc_bytes > 0)
		toy.allocated = dmcore_target_alloc(target, toy.alloc_bytes);
	return toy.ctr_ret;
}

static enum dmcore_map_result toy_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	toy.mapped++;
	if (toy_type.per_bio_bytes)
		memset(dmcore_bio_target_data(bio), 0xaa, toy_type.per_bio_bytes);
	dmcore_bio_complete(bio, 0);
	return DMCORE_MAP_SUBMITTED;
}

/* A message of the core's, from some call that has failed meanwhile. */
static void leave_message(struct dmcore_target *target)
{
	struct dmcore_bdev *bdev;

	if (toy.why)
		cr_assert_neq(dmcore_bdev_open(dmcore_target_core(target), toy.why, 0, &bdev), 0);
}

static int toy_message(struct dmcore_target *target, struct dmcore_args *args,
		       struct dmcore_text *reply)
{
	(void)args;
	(void)reply;
	leave_message(target);
	return toy.message_ret;
}

static int toy_preresume(struct dmcore_target *target)
{
	leave_message(target);
	toy.hooks++;
	return toy.preresume_ret;
}

static void toy_hook(struct dmcore_target *target)
{
	(void)target;
	toy.hooks++;
}

static unsigned int toy_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return toy.copied_ops >> op & 1 ? toy.copies : 1;
}

static struct dmcore_target_type bare_type(void)
{
	return (struct dmcore_target_type){
		.struct_size = sizeof(struct dmcore_target_type),
		.name = "toy",
		.version = { 1, 0, 0 },
		.ctr = toy_ctr,
		.map = toy_map,
	};
}

static void register_toy(void)
{
	cr_assert_eq(dmcore_target_register(fixture.core, &toy_type), 0, "%s",
		     dmcore_error_message());
}

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	static unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
	struct fixture_io io = { .bdev = bdev, .op = op, .sector = sector, .count = count };

	io.buffer = op <= DMCORE_OP_WRITE ? buffer : NULL;
	return fixture_run(&io);
}

/* ---- names ---- */

Test(types_made, a_name_is_of_visible_characters)
{
	static const char *const names[] = { "a b", "a\tb", "\001", "a\037", "a\177", "toy\n" };

	toy_type = bare_type();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		toy_type.name = names[i];
		cr_assert_eq(dmcore_target_register(fixture.core, &toy_type), -EINVAL, "%zu", i);
	}
	toy_type.name = "t\303\266y";
	register_toy();
	fixture_device("a", "0 8 t\303\266y");
}

/* ---- constructors ---- */

Test(types_made, a_constructor_s_result_above_zero_is_an_invalid_argument)
{
	toy_type = bare_type();
	register_toy();
	toy.ctr_ret = 5;
	fixture_expect_refused("0 8 toy", -EINVAL, "table line 1: toy: Unknown error");
}

Test(types_made, a_constructor_that_names_no_device_gets_none)
{
	toy_type = bare_type();
	register_toy();
	toy.noflush = true;
	toy.looks_up = true;
	fixture_device("a", "0 8 toy");
	cr_assert_eq(toy.no_name_ret, -EINVAL);
	cr_assert_eq(toy.no_word_ret, -EINVAL);
	/* Nor is its table a device's yet. */
	cr_assert_not(toy.noflush);
}

Test(types_made, memory_of_any_size_is_had_or_told_not_to_be)
{
	static const size_t sizes[] = { SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2 + 8 };
	struct dmcore_table *table;

	toy_type = bare_type();
	register_toy();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		toy.alloc_bytes = sizes[i];
		toy.allocated = &toy;
		table = fixture_table("0 8 toy");
		cr_assert_null(toy.allocated);
		dmcore_table_destroy(table);
	}
	/* More than any chunk that the table takes by itself; and chunks of every size before. */
	toy.alloc_bytes = 3 << 20;
	table = fixture_table("0 8 toy\n8 8 toy");
	cr_assert_not_null(toy.allocated);
	for (size_t i = 0; i < toy.alloc_bytes; i++)
		cr_assert_eq(((unsigned char *)toy.allocated)[i], 0);
	dmcore_table_destroy(table);
}

/* ---- hooks ---- */

/* Loads, suspends, resumes and removes; how often a hook was called. */
static unsigned int count_hooks(void)
{
	struct dmcore_device *device;

	toy.hooks = 0;
	fixture_open();
	register_toy();
	device = fixture_device("a", "0 8 toy");
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(dmcore_device_remove(device), 0);
	fixture_close();
	return toy.hooks;
}

Test(types_hooks, each_may_be_the_only_one)
{
	toy_type = bare_type();
	cr_assert_eq(count_hooks(), 0);
	/* With the suspend, and before the device goes. */
	toy_type.presuspend = toy_hook;
	cr_assert_eq(count_hooks(), 2);
	toy_type = bare_type();
	toy_type.presuspend_undo = toy_hook;
	cr_assert_eq(count_hooks(), 0);
	toy_type = bare_type();
	toy_type.postsuspend = toy_hook;
	cr_assert_eq(count_hooks(), 2);
	toy_type = bare_type();
	toy_type.preresume = toy_preresume;
	cr_assert_eq(count_hooks(), 2);
	toy_type = bare_type();
	toy_type.resume = toy_hook;
	cr_assert_eq(count_hooks(), 2);
}

static struct dmcore_device *suspended_toy(void)
{
	struct dmcore_device *device;

	toy_type = bare_type();
	toy_type.preresume = toy_preresume;
	register_toy();
	device = fixture_device("a", "0 8 toy");
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	return device;
}

Test(types_made, a_preresume_s_result_above_zero_is_an_invalid_argument)
{
	struct dmcore_device *device = suspended_toy();

	toy.preresume_ret = 5;
	cr_assert_eq(dmcore_device_resume(device), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), "a: toy: preresume failed, error = -22");
}

Test(types_made, why_a_preresume_has_failed_is_told_if_it_left_words)
{
	struct dmcore_device *device = suspended_toy();

	toy.preresume_ret = -EIO;
	toy.why = "no.such:8s";
	cr_assert_eq(dmcore_device_resume(device), -EIO);
	cr_assert_str_eq(dmcore_error_message(), "a: toy: preresume failed, error = -5: "
						 "no.such:8s: no driver 'no.such', "
						 "and no such file");
}

/* ---- messages ---- */

static void send(struct dmcore_device *device, int error, const char *message)
{
	cr_assert_eq(dmcore_device_message(device, 0, "hello", NULL, 0), error);
	cr_assert_str_eq(dmcore_error_message(), message);
}

Test(types_made, a_message_that_fails_has_the_words_there_are)
{
	struct dmcore_device *device;

	toy_type = bare_type();
	toy_type.message = toy_message;
	register_toy();
	device = fixture_device("a", "0 8 toy");
	toy.message_ret = 5;
	send(device, -EINVAL, "a: toy: the message was refused");
	toy.message_ret = -EIO;
	send(device, -EIO, "a: toy: the message was refused");
	toy.why = "no.such:8s";
	send(device, -EIO, "a: no.such:8s: no driver 'no.such', and no such file");
	/* What went wrong inside is forgotten where the message is taken all the same. */
	toy.message_ret = 0;
	cr_assert_eq(dmcore_device_message(device, 0, "hello", NULL, 0), 0);
}

/* ---- requests ---- */

Test(types_made, memory_with_a_request_needs_no_end_io)
{
	struct dmcore_bdev *bdev;

	toy_type = bare_type();
	toy_type.per_bio_bytes = 100;
	register_toy();
	bdev = fixture_mapped("a", "0 8 zero\n8 8 toy\n16 8 zero");
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 8, 8), 0);
	cr_assert_eq(toy.mapped, 4);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(toy.mapped, 4);
}

Test(types_made, without_num_bios_only_reads_and_writes_pass)
{
	struct dmcore_bdev *bdev;

	toy_type = bare_type();
	toy.flags = DMCORE_TARGET_DISCARDS;
	register_toy();
	bdev = fixture_mapped("a", "0 8 toy");
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(toy.mapped, 2);
	cr_assert_eq(run(bdev, DMCORE_OP_FLUSH, 0, 0), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_DISCARD, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE_ZEROES, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(toy.mapped, 2);
}

Test(types_made, a_flush_of_its_devices_needs_devices)
{
	struct dmcore_bdev *bdev;

	toy_type = bare_type();
	toy_type.num_bios = toy_num_bios;
	toy.flags = DMCORE_TARGET_FLUSH_DEVICES;
	register_toy();
	/* It tells of none: the flush is its own. */
	bdev = fixture_mapped("a", "0 8 toy");
	cr_assert_eq(run(bdev, DMCORE_OP_FLUSH, 0, 0), 0);
	cr_assert_eq(toy.mapped, 1);
}

/* Whether the only target wants one copy or more of what. */
Test(types_hooks, a_target_gets_as_many_copies_as_it_wants)
{
	static const enum dmcore_op ops[] = { DMCORE_OP_FLUSH, DMCORE_OP_DISCARD,
					      DMCORE_OP_WRITE_ZEROES };
	struct dmcore_bdev *bdev;

	toy_type = bare_type();
	toy_type.num_bios = toy_num_bios;
	toy.flags = DMCORE_TARGET_DISCARDS;
	toy.copies = 3;
	for (unsigned int i = 0; i < 3; i++) {
		fixture_open();
		register_toy();
		toy.copied_ops = 1u << ops[i];
		bdev = fixture_mapped("a", "0 8 toy");
		for (unsigned int j = 0; j < 3; j++) {
			toy.mapped = 0;
			cr_assert_eq(run(bdev, ops[j], 0, ops[j] == DMCORE_OP_FLUSH ? 0 : 8), 0);
			cr_assert_eq(toy.mapped, i == j ? 3 : 1, "operations %d, %d: %u", ops[i],
				     ops[j], toy.mapped);
		}
		toy.mapped = 0;
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
		cr_assert_eq(toy.mapped, 1);
		fixture_close();
	}
}

Test(types_made, a_type_s_name_that_is_too_long_is_cut_in_the_message)
{
	struct dmcore_table *table;
	char name[200];
	char expected[256];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	cr_assert_eq(dmcore_table_create(fixture.core, 0, &table), 0);
	cr_assert_eq(dmcore_table_add(table, 0, 8, name, ""), -EINVAL);
	snprintf(expected, sizeof(expected), "Target type name %.64s is too long.", name);
	cr_assert_str_eq(dmcore_error_message(), expected);
	name[20] = '\0';
	cr_assert_eq(dmcore_table_add(table, 0, 8, name, ""), -EINVAL);
	snprintf(expected, sizeof(expected), "Target type name %s is too long.", name);
	cr_assert_str_eq(dmcore_error_message(), expected);
	dmcore_table_destroy(table);
}
