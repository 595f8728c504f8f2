/* SPDX-License-Identifier: MIT */
/* What can be done to a device beside its I/O: names, uuids, slots, texts, deferred removal. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"

static struct stage stage;
static struct dmcore_device *device;
static char text[256];

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	stage_disk(&stage, 0, 64, "");
	device = actor_mapped(&stage, "m", "0 64 linear fault:64,id=0 0");
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(names, .init = set_up, .fini = tear_down);
TestSuite(slots, .init = set_up, .fini = tear_down);
TestSuite(deferred_remove, .init = set_up, .fini = tear_down);

static void expect_text(struct dmcore_device *of, enum dmcore_text_kind kind, unsigned int flags,
			const char *expected)
{
	int64_t ret = dmcore_device_text(of, kind, flags, text, sizeof(text));

	cr_assert_eq(ret, (int64_t)strlen(expected), "%lld, %s", (long long)ret, text);
	cr_assert_str_eq(text, expected);
}

static struct dmcore_device *put_on_top(const char *name)
{
	return actor_mapped(&stage, name, "0 32 linear /dev/mapper/m 0");
}

/* ---- names ---- */

Test(names, device_is_found_by_the_new_one_only)
{
	cr_assert_eq(dmcore_device_rename(device, "other"), 0);
	cr_assert_str_eq(dmcore_device_name(device), "other");
	cr_assert_str_eq(actor_info(device).name, "other");
	cr_assert_eq(dmcore_device_find(stage.core, "other"), device);
	cr_assert_eq(dmcore_device_find(stage.core, "/dev/mapper/other"), device);
	cr_assert_null(dmcore_device_find(stage.core, "m"));
	/* The old one is free. */
	actor_device(&stage, "m");
}

Test(names, tables_above_say_the_new_one_and_go_on)
{
	struct dmcore_device *upper = put_on_top("upper");
	struct dmcore_table *table;
	unsigned char sector[512];

	cr_assert_eq(dmcore_device_rename(device, "other"), 0);
	expect_text(upper, DMCORE_TEXT_TABLE, 0, "0 32 linear other 0\n");
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(upper), DMCORE_OP_READ, 0, 0, 1, sector),
		     0);
	/* What is printed can be loaded again, and means the same device. */
	cr_assert_eq(dmcore_table_parse(stage.core, text, 0, &table), 0);
	cr_assert_eq(actor_info(device).open_count, 2);
	dmcore_table_destroy(table);
	cr_assert_neq(dmcore_table_parse(stage.core, "0 32 linear /dev/mapper/m 0", 0, &table), 0);
}

/* Its own is taken as well, as in the kernel. */
Test(names, taken_or_malformed_ones_are_refused)
{
	char long_name[DMCORE_NAME_MAX + 2];

	actor_device(&stage, "other");
	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	cr_assert_eq(dmcore_device_rename(device, "other"), -EBUSY);
	cr_assert_eq(dmcore_device_rename(device, "m"), -EBUSY);
	cr_assert_eq(dmcore_device_rename(device, ""), -EINVAL);
	cr_assert_eq(dmcore_device_rename(device, "a/b"), -EINVAL);
	cr_assert_eq(dmcore_device_rename(device, ".."), -EINVAL);
	cr_assert_eq(dmcore_device_rename(device, long_name), -EINVAL);
	cr_assert_eq(dmcore_device_rename(device, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_rename(NULL, "a"), -EINVAL);
	cr_assert_str_eq(dmcore_device_name(device), "m");
	long_name[DMCORE_NAME_MAX] = '\0';
	cr_assert_eq(dmcore_device_rename(device, long_name), 0);
	cr_assert_str_eq(actor_info(device).name, long_name);
}

Test(names, change_while_suspended_or_without_a_table)
{
	struct dmcore_device *empty = actor_device(&stage, "empty");

	actor_suspend(device, 0);
	cr_assert_eq(dmcore_device_rename(device, "a"), 0);
	cr_assert_eq(dmcore_device_rename(empty, "b"), 0);
	cr_assert(actor_info(device).suspended);
}

Test(names, uuid_is_set_once)
{
	struct dmcore_device *other = actor_device(&stage, "other");
	char long_uuid[DMCORE_UUID_MAX + 2];

	memset(long_uuid, 'u', sizeof(long_uuid) - 1);
	long_uuid[sizeof(long_uuid) - 1] = '\0';
	cr_assert_eq(dmcore_device_set_uuid(device, ""), -EINVAL);
	cr_assert_eq(dmcore_device_set_uuid(device, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_set_uuid(device, long_uuid), -EINVAL);
	cr_assert_str_eq(actor_info(device).uuid, "");
	cr_assert_eq(dmcore_device_set_uuid(device, "u-1"), 0);
	cr_assert_str_eq(actor_info(device).uuid, "u-1");
	cr_assert_eq(dmcore_device_set_uuid(device, "u-2"), -EINVAL);
	cr_assert_eq(dmcore_device_set_uuid(device, "u-1"), -EINVAL);
	cr_assert_str_eq(actor_info(device).uuid, "u-1");
	cr_assert_eq(dmcore_device_set_uuid(other, "u-1"), -EBUSY);
	long_uuid[DMCORE_UUID_MAX] = '\0';
	cr_assert_eq(dmcore_device_set_uuid(other, long_uuid), 0);
	cr_assert_str_eq(actor_info(other).uuid, long_uuid);
}

/* ---- slots ---- */

Test(slots, are_told_apart)
{
	struct dmcore_device_info info;

	actor_load(device, "0 16 zero\n16 16 actor 1");
	info = actor_info(device);
	cr_assert(info.live_table && info.inactive_table);
	cr_assert_eq(info.num_targets, 1);
	cr_assert_eq(info.size_sectors, 64);
	cr_assert_eq(info.num_inactive_targets, 2);
	cr_assert_eq(info.inactive_size_sectors, 32);
	cr_assert_not(info.suspended);
	cr_assert_not(info.changing);
	expect_text(device, DMCORE_TEXT_TABLE, 0, "0 64 linear fault:64,id=0 0\n");
	expect_text(device, DMCORE_TEXT_TABLE, DMCORE_TEXT_INACTIVE, "0 16 zero \n16 16 actor \n");
	expect_text(device, DMCORE_TEXT_STATUS, DMCORE_TEXT_INACTIVE,
		    "0 16 zero \n16 16 actor \n");
	actor_resume(device);
	info = actor_info(device);
	cr_assert_not(info.inactive_table);
	cr_assert_eq(info.num_inactive_targets, 0);
	cr_assert_eq(info.inactive_size_sectors, 0);
	cr_assert_eq(info.num_targets, 2);
	expect_text(device, DMCORE_TEXT_TABLE, DMCORE_TEXT_INACTIVE, "");
	expect_text(device, DMCORE_TEXT_TABLE, 0, "0 16 zero \n16 16 actor \n");
}

Test(slots, clear_empties_the_inactive_one)
{
	actor_load(device, "0 16 actor 1");
	actor_log();
	cr_assert_eq(dmcore_device_clear(device), 0);
	cr_assert_str_eq(actor_log(), "dtr 1");
	cr_assert_not(actor_info(device).inactive_table);
	cr_assert_eq(dmcore_device_clear(device), 0);
	cr_assert(actor_info(device).live_table);
	cr_assert_eq(dmcore_device_clear(NULL), -EINVAL);
}

Test(slots, loading_again_replaces_the_inactive_one)
{
	actor_load(device, "0 16 actor 1");
	actor_log();
	actor_load(device, "0 16 actor 2");
	cr_assert_str_eq(actor_log(), "ctr 2, dtr 1");
	actor_resume(device);
	cr_assert_str_eq(actor_log(), "preresume 2, resume 2");
}

Test(slots, device_that_is_cleared_before_its_first_resume_has_nothing_to_resume)
{
	struct dmcore_device *empty = actor_device(&stage, "empty");

	actor_load(empty, "0 8 zero");
	cr_assert_eq(dmcore_device_clear(empty), 0);
	cr_assert_eq(dmcore_device_resume(empty), -EINVAL);
	cr_assert(actor_info(empty).suspended);
}

Test(slots, unknown_flag_or_kind_of_a_text_is_refused)
{
	cr_assert_eq(dmcore_device_text(device, DMCORE_TEXT_TABLE, 2, text, sizeof(text)),
		     -EINVAL);
	cr_assert_eq(dmcore_device_text(device, (enum dmcore_text_kind)3, 0, text, sizeof(text)),
		     -EINVAL);
	cr_assert_eq(dmcore_device_text(device, (enum dmcore_text_kind)-1, 0, text, sizeof(text)),
		     -EINVAL);
}

/* Once, also one that is asked for by two names, in the order in which they were asked for. */
Test(slots, devices_below_are_told_once)
{
	struct dmcore_device *top;

	actor_mapped(&stage, "a b", "0 8 zero");
	expect_text(device, DMCORE_TEXT_DEPS, 0, "fault:64,id=0\n");
	expect_text(dmcore_device_find(stage.core, "a b"), DMCORE_TEXT_DEPS, 0, "");
	top = actor_mapped(&stage, "top",
			   "0 8 linear m 8\n8 8 linear /dev/mapper/m 0\n16 8 linear a\\ b 0\n"
			   "24 8 linear m 16\n32 8 linear fault:64,id=0 0\n");
	expect_text(top, DMCORE_TEXT_DEPS, 0, "m\na\\ b\nfault:64,id=0\n");
	/* What another table tells doesn't come into it. */
	expect_text(device, DMCORE_TEXT_DEPS, 0, "fault:64,id=0\n");
	actor_load(top, "0 8 linear m 0");
	expect_text(top, DMCORE_TEXT_DEPS, DMCORE_TEXT_INACTIVE, "m\n");
	expect_text(top, DMCORE_TEXT_DEPS, 0, "m\na\\ b\nfault:64,id=0\n");
	expect_text(actor_device(&stage, "empty"), DMCORE_TEXT_DEPS, 0, "");
}

/* Assertion 34. */
Test(slots, text_that_does_not_fit_is_cut_and_its_length_told)
{
	static const char whole[] = "0 64 linear fault:64,id=0 0\n";
	int64_t length = (int64_t)strlen(whole);

	for (size_t room = 1; room <= sizeof(whole); room++) {
		memset(text, 'x', sizeof(text));
		cr_assert_eq(dmcore_device_text(device, DMCORE_TEXT_TABLE, 0, text, room), length);
		cr_assert_eq(strlen(text), room - 1);
		cr_assert_eq(memcmp(text, whole, room - 1), 0);
		cr_assert_eq(text[room], 'x');
	}
	cr_assert_eq(dmcore_device_text(device, DMCORE_TEXT_TABLE, 0, NULL, 0), length);
}

/* ---- deferred removal ---- */

Test(deferred_remove, of_what_nobody_has_open_is_at_once)
{
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove_deferred(device), 0);
	cr_assert_null(dmcore_device_find(stage.core, "m"));
	cr_assert_eq(dmcore_device_remove_deferred(NULL), 0);
}

Test(deferred_remove, comes_with_the_last_closing)
{
	struct dmcore_bdev *bdev;
	struct dmcore_bdev *again;
	unsigned char sector[512];

	cr_assert_eq(dmcore_bdev_open(stage.core, "/dev/mapper/m", 0, &bdev), 0);
	cr_assert_eq(dmcore_bdev_open(stage.core, "/dev/mapper/m", 0, &again), 0);
	cr_assert_eq(dmcore_device_remove(device), -EBUSY);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove_deferred(device), 0);
	cr_assert(actor_info(device).deferred_remove);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 1, sector), 0);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_eq(dmcore_device_find(stage.core, "m"), device);
	cr_assert_eq(dmcore_bdev_close(again), 0);
	cr_assert_null(dmcore_device_find(stage.core, "m"));
}

Test(deferred_remove, comes_with_the_last_table_above)
{
	struct dmcore_device *upper = put_on_top("upper");

	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove_deferred(device), 0);
	cr_assert_eq(dmcore_device_find(stage.core, "m"), device);
	/* The table that is replaced was the last to use it. */
	actor_reload(upper, "0 8 zero");
	cr_assert_null(dmcore_device_find(stage.core, "m"));
}

Test(deferred_remove, goes_down_a_stack)
{
	struct dmcore_device *middle = put_on_top("middle");
	struct dmcore_device *top =
		actor_mapped(&stage, "top", "0 16 linear /dev/mapper/middle 0");

	cr_assert_eq(dmcore_device_remove_deferred(device), 0);
	cr_assert_eq(dmcore_device_remove_deferred(middle), 0);
	actor_forget(&stage, top);
	actor_forget(&stage, middle);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(top), 0);
	cr_assert_null(dmcore_device_at(stage.core, 0));
}

Test(deferred_remove, is_cancelled_by_a_message)
{
	struct dmcore_device *upper = put_on_top("upper");

	cr_assert_eq(dmcore_device_remove_deferred(device), 0);
	cr_assert_eq(dmcore_device_message(device, 0, "@cancel_deferred_remove", NULL, 0), 0);
	cr_assert_not(actor_info(device).deferred_remove);
	actor_forget(&stage, upper);
	cr_assert_eq(dmcore_device_remove(upper), 0);
	cr_assert_eq(dmcore_device_find(stage.core, "m"), device);
}

/* It can still be opened, as in the kernel. */
Test(deferred_remove, does_not_keep_others_from_opening)
{
	struct dmcore_device *upper = put_on_top("upper");
	struct dmcore_bdev *bdev;

	actor_forget(&stage, device);
	actor_forget(&stage, upper);
	cr_assert_eq(dmcore_device_remove_deferred(device), 0);
	cr_assert_eq(dmcore_bdev_open(stage.core, "/dev/mapper/m", 0, &bdev), 0);
	cr_assert_eq(dmcore_device_remove(upper), 0);
	cr_assert_eq(dmcore_device_find(stage.core, "m"), device);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_null(dmcore_device_find(stage.core, "m"));
}

Test(deferred_remove, of_a_suspended_device_runs_it_down_when_it_is_closed)
{
	struct dmcore_device *upper;

	actor_reload(device, "0 64 actor 1");
	upper = put_on_top("upper");
	actor_suspend(device, 0);
	actor_log();
	actor_forget(&stage, device);
	actor_forget(&stage, upper);
	cr_assert_eq(dmcore_device_remove_deferred(device), 0);
	cr_assert_eq(dmcore_device_remove(upper), 0);
	cr_assert_str_eq(actor_log(), "dtr 1");
}

Test(deferred_remove, is_refused_while_requests_wait)
{
	struct tally tally = { 0 };
	unsigned char sector[512];

	actor_suspend(device, 0);
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_READ, 0, 1, sector, &tally);
	cr_assert_eq(dmcore_device_remove(device), -EBUSY);
	cr_assert_eq(dmcore_device_remove_deferred(device), -EBUSY);
	cr_assert_not(actor_info(device).deferred_remove);
	actor_resume(device);
	stage_wait(&stage, &tally, 1);
}
