/* SPDX-License-Identifier: MIT */
/* dmsetup's concise form (map/concise.c); what dmsetup makes of each text was asked of it. */
#include <errno.h>

#include <criterion/criterion.h>

#include "base/core.h"
#include "support/fixture.h"

TestSuite(concise, .init = fixture_open, .fini = fixture_close);

static struct dmcore_device_info info_of(struct dmcore_device *device)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_device_info(device, &info), 0);
	return info;
}

static struct dmcore_device *make(const char *text)
{
	struct dmcore_device *last;

	cr_assert_eq(dmcore_device_create_concise(fixture.core, text, 0, &last), 0, "%s: %s", text,
		     dmcore_error_message());
	return last;
}

static void expect_concise_refused(const char *text, int error, const char *message)
{
	struct dmcore_device *last = (void *)&fixture;
	uint64_t before = atomic_load(&fixture.core->live_allocations);

	cr_assert_eq(dmcore_device_create_concise(fixture.core, text, 0, &last), error, "%s", text);
	cr_assert_str_eq(dmcore_error_message(), message);
	cr_assert_null(last);
	cr_assert_eq(atomic_load(&fixture.core->live_allocations), before, "%s: left behind", text);
}

Test(concise, makes_a_running_device)
{
	struct dmcore_device *device = make("a,u-1,5,rw,0 8 zero,8 8 error");

	cr_assert_eq(dmcore_device_find(fixture.core, "a"), device);
	cr_assert_str_eq(info_of(device).uuid, "u-1");
	cr_assert_not(info_of(device).suspended);
	cr_assert_not(info_of(device).read_only);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "0 8 zero \n8 8 error \n");
}

Test(concise, makes_devices_that_stand_on_each_other)
{
	struct dmcore_device *last = make("a,,,rw,0 8 zero; b,,,ro,0 8 linear /dev/mapper/a 0;");

	cr_assert_str_eq(dmcore_device_name(last), "b");
	cr_assert(info_of(last).read_only);
	cr_assert_eq(info_of(dmcore_device_find(fixture.core, "a")).open_count, 1);
}

Test(concise, empty_fields_have_defaults)
{
	struct dmcore_device *device = make("a,,,,0 8 zero");

	cr_assert_str_eq(info_of(device).uuid, "");
	cr_assert_not(info_of(device).read_only);
}

Test(concise, empty_text_makes_nothing)
{
	cr_assert_null(make(""));
	cr_assert_null(make(" ; ;"));
	cr_assert_eq(dmcore_device_create_concise(fixture.core, "", 0, NULL), 0);
}

Test(concise, backslash_quotes_any_character)
{
	cr_assert_str_eq(dmcore_device_name(make("a\\,b,,,rw,0 8 zero")), "a,b");
	cr_assert_str_eq(dmcore_device_name(make("a\\;b,,,rw,0 8 zero")), "a;b");
	cr_assert_str_eq(dmcore_device_name(make("a\\\\b,,,rw,0 8 zero")), "a\\b");
	cr_assert_str_eq(dmcore_device_name(make("a\\x,,,rw,0 8 zero")), "ax");
}

Test(concise, doubled_backslash_quotes_within_the_table)
{
	struct dmcore_device *device = make("a,,,rw,0 8 linear mem:8s\\,name=x\\\\ y 0");

	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE),
			 "0 8 linear mem:8s,name=x\\ y 0\n");
}

Test(concise, missing_fields_are_refused)
{
	static const char message[] =
		"device a: Five comma-separated fields are required for each device";

	expect_concise_refused("a", -EINVAL, message);
	expect_concise_refused("a,,,rw", -EINVAL, message);
}

Test(concise, entry_without_a_whole_table_is_refused)
{
	static const char message[] =
		"device a: Incomplete entry: five comma-separated fields are required for each "
		"device";

	expect_concise_refused("a,,,rw,", -EINVAL, message);
	expect_concise_refused("a,,,rw,0 8 zero,", -EINVAL, message);
}

Test(concise, other_flags_are_refused)
{
	expect_concise_refused("a,,,RW,0 8 zero", -EINVAL,
			       "device a: Invalid flags parameter 'RW' must be 'ro' or 'rw' or "
			       "empty.");
}

Test(concise, failure_names_the_device_and_leaves_none)
{
	expect_concise_refused("a,,,rw,0 8 zero;b,,,rw,0 8 linear a 0,8 8 nosuch", -EINVAL,
			       "device b: table line 2: nosuch: unknown target type");
	expect_concise_refused("a,,,rw,0 8 zero;a,,,rw,0 8 zero", -EBUSY,
			       "device a: device a exists");
	cr_assert_null(dmcore_device_find(fixture.core, "a"));
}

Test(concise, failure_leaves_older_devices_alone)
{
	struct dmcore_device *device = make("old,,,rw,0 8 zero");

	expect_concise_refused("a,,,rw,0 8 zero;b,,,rw,0 8 zero 1", -EINVAL,
			       "device b: table line 1: zero: No arguments required");
	cr_assert_eq(dmcore_device_find(fixture.core, "old"), device);
}
