/* SPDX-License-Identifier: MIT */
/* What dmcat's settle reads from the lines of a status. */
#include <criterion/criterion.h>

#include "../examples/dmcat/background.h"

static void all_are(const char *const *lines, enum background expected)
{
	for (; *lines; lines++)
		cr_assert_eq(background_of_line(*lines), expected, "%s", *lines);
}

Test(background, a_merge_is_done_when_metadata_is_all_there_is)
{
	static const char *const done[] = {
		"0 2048 snapshot-merge 16/2097152 16",
		"0 2048 snapshot-merge 48/2097152 48 ",
		NULL,
	};
	static const char *const under_way[] = {
		"0 2048 snapshot-merge 24/2097152 16",
		"0 2048 snapshot-merge 18446744073709551615/2097152 16",
		NULL,
	};

	all_are(done, BACKGROUND_NONE);
	all_are(under_way, BACKGROUND_UNDER_WAY);
}

Test(background, a_merge_that_tells_no_numbers_has_failed)
{
	static const char *const failed[] = {
		"0 2048 snapshot-merge Invalid",
		"0 2048 snapshot-merge Merge failed",
		"0 2048 snapshot-merge Overflow",
		"0 2048 snapshot-merge Unknown",
		"0 2048 snapshot-merge ",
		"0 2048 snapshot-merge 16 16",
		"0 2048 snapshot-merge 16/x 16",
		"0 2048 snapshot-merge 16/32",
		"0 2048 snapshot-merge 16/32 y",
		"0 2048 snapshot-merge 18446744073709551616/2097152 16",
		NULL,
	};

	all_are(failed, BACKGROUND_FAILED);
}

Test(background, a_mirror_recovers_until_all_regions_are_in_sync)
{
	static const char *const done[] = {
		"0 2048 mirror 2 7:0 7:1 64/64 1 AA 1 core",
		"0 2048 mirror 3 /dev/a b /c/d 64/64 1 ADA 3 disk 7:2 A",
		"0 2048 mirror 1 1/2 0/0 1 A 1 core",
		NULL,
	};
	static const char *const under_way[] = {
		"0 2048 mirror 2 7:0 7:1 3/64 1 AA 1 core",
		"0 2048 mirror 2 a\\ b 64/64 0/64 1 AA 1 core",
		"0 2048 mirror 2 7:0 7:1 3/64 1 RA 1 core",
		NULL,
	};

	all_are(done, BACKGROUND_NONE);
	all_are(under_way, BACKGROUND_UNDER_WAY);
}

Test(background, a_mirror_with_a_dead_leg_tries_again)
{
	static const char *const failing[] = {
		"0 2048 mirror 2 7:0 7:1 3/64 1 AD 1 core",
		"0 2048 mirror 2 7:0 7:1 3/64 1 AS 1 core",
		NULL,
	};

	all_are(failing, BACKGROUND_FAILING);
}

Test(background, a_mirror_that_tells_no_numbers_has_failed)
{
	static const char *const failed[] = {
		"0 2048 mirror 2 7:0 7:1 3/64 1",
		"0 2048 mirror 2 7:0 7:1",
		"0 2048 mirror 18446744073709551615 7:0 7:1 64/64 1 AA 1 core",
		"0 2048 mirror x 7:0 7:1 64/64 1 AA 1 core",
		"0 2048 mirror ",
		NULL,
	};

	all_are(failed, BACKGROUND_FAILED);
}

Test(background, other_targets_have_none)
{
	static const char *const lines[] = {
		"0 2048 snapshot 24/2097152 16",
		"0 2048 snapshot Invalid",
		"0 2048 snapshot-origin ",
		"0 2048 linear ",
		"0 2048 striped 2 7:0 7:1 1 AD",
		"0 2048",
		"",
		NULL,
	};

	all_are(lines, BACKGROUND_NONE);
}
