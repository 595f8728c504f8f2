/* SPDX-License-Identifier: MIT */
/* Types that will not stand beside others, or give way to any; and types of older authors. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/fixture.h"

static int plain_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	(void)target;
	(void)args;
	return 0;
}

static enum dmcore_map_result plain_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	dmcore_bio_complete(bio, 0);
	return DMCORE_MAP_SUBMITTED;
}

static unsigned int num_hooks;

static void count_hook(struct dmcore_target *target)
{
	(void)target;
	num_hooks++;
}

#define TYPE(type_name, type_features)                                                             \
	{                                                                                          \
		.struct_size = sizeof(struct dmcore_target_type), .name = (type_name),             \
		.version = { 1, 0, 0 }, .features = (type_features), .ctr = plain_ctr,             \
		.map = plain_map                                                                   \
	}

static const struct dmcore_target_type types[] = {
	TYPE("alone", DMCORE_TARGET_TYPE_SINGLETON),
	TYPE("writes", DMCORE_TARGET_TYPE_ALWAYS_WRITEABLE),
	TYPE("fixed", DMCORE_TARGET_TYPE_IMMUTABLE),
	TYPE("rigid", DMCORE_TARGET_TYPE_IMMUTABLE),
	TYPE("joker", DMCORE_TARGET_TYPE_WILDCARD),
	TYPE("plain", 0),
};

static void set_up(void)
{
	fixture_open();
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		cr_assert_eq(dmcore_target_register(fixture.core, &types[i]), 0);
}

TestSuite(features, .init = set_up, .fini = fixture_close);

Test(features, singleton_stands_alone)
{
	fixture_device("a", "0 8 alone");
	fixture_expect_refused("0 8 plain\n8 8 alone", -EINVAL,
			       "table line 2: alone: singleton target type must appear alone in "
			       "table");
	fixture_expect_refused("0 8 alone\n8 8 plain", -EINVAL,
			       "table line 2: target type alone must appear alone in table");
	fixture_expect_refused("0 8 alone\n8 8 alone", -EINVAL,
			       "table line 2: target type alone must appear alone in table");
}

Test(features, always_writeable_is_not_taken_read_only)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 writes", DMCORE_TABLE_READ_ONLY,
					&table), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(),
			 "table line 1: writes: target type may not be included in a "
			 "read-only table");
	fixture_device("a", "0 8 writes\n8 8 plain");
}

Test(features, immutable_is_not_mixed)
{
	fixture_device("a", "0 8 fixed\n8 8 fixed");
	fixture_expect_refused("0 8 plain\n8 8 fixed", -EINVAL,
			       "table line 2: fixed: immutable target type cannot be mixed with "
			       "other target types");
	fixture_expect_refused("0 8 fixed\n8 8 plain", -EINVAL,
			       "table line 2: plain: immutable target type cannot be mixed with "
			       "other target types");
}

static int try_load(struct dmcore_device *device, const char *text)
{
	struct dmcore_table *table = fixture_table(text);
	int ret = dmcore_device_load(device, table);

	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

Test(features, immutable_gives_way_to_its_like_or_a_wildcard)
{
	struct dmcore_device *device = fixture_device("a", "0 8 fixed");

	cr_assert_eq(try_load(device, "0 8 plain"), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(),
			 "a: can't replace immutable target type fixed");
	cr_assert_eq(try_load(device, "0 8 rigid"), -EINVAL);
	cr_assert_eq(try_load(device, "0 16 fixed"), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "0 16 fixed \n");
	/* A wildcard among others is enough, as `error` is in the kernel. */
	cr_assert_eq(try_load(device, "0 8 plain\n8 8 joker"), 0);
	cr_assert_eq(try_load(device, "0 8 error"), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(try_load(device, "0 8 plain"), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
}

/* Only the live table counts. */
Test(features, inactive_immutable_gives_way_to_any)
{
	struct dmcore_device *device = fixture_device("a", "0 8 plain");

	cr_assert_eq(try_load(device, "0 8 fixed"), 0);
	cr_assert_eq(try_load(device, "0 8 zero"), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
}

Test(features, unknown_one_is_refused)
{
	static const struct dmcore_target_type odd = TYPE("odd", 1u << 30);

	cr_assert_eq(dmcore_target_register(fixture.core, &odd), -EINVAL);
}

/* ---- types of authors who knew fewer fields ---- */

Test(features, older_type_has_none_of_the_later_functions)
{
	static struct dmcore_target_type old = TYPE("old", 0);
	struct dmcore_device *device;

	/* Behind what its author knew there may be anything. */
	old.presuspend = count_hook;
	old.postsuspend = count_hook;
	old.resume = count_hook;
	old.struct_size = offsetof(struct dmcore_target_type, presuspend);
	cr_assert_eq(dmcore_target_register(fixture.core, &old), 0);
	device = fixture_device("a", "0 8 old");
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(num_hooks, 0);
	cr_assert_eq(dmcore_device_message(device, 0, "x", NULL, 0), -EINVAL);
	cr_assert_eq(fixture_run(&(struct fixture_io){ .bdev = dmcore_device_bdev(device),
						       .op = DMCORE_OP_FLUSH }), 0);
}

Test(features, type_that_lacks_the_first_fields_is_refused)
{
	static struct dmcore_target_type tiny = TYPE("tiny", 0);

	tiny.struct_size = offsetof(struct dmcore_target_type, io_hints);
	cr_assert_eq(dmcore_target_register(fixture.core, &tiny), -EINVAL);
}
