/* SPDX-License-Identifier: MIT */
/* Messages to targets and to devices (map/message.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"

static struct stage stage;
static struct dmcore_device *device;
static char answer[256];

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	device = actor_mapped(&stage, "m", "0 8 actor 1\n8 8 zero\n16 8 actor 2\n24 8 actor 3");
	actor_log();
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(message, .init = set_up, .fini = tear_down);

static void expect_answer(uint64_t sector, const char *text, const char *expected)
{
	int64_t ret;

	memset(answer, 'x', sizeof(answer));
	ret = dmcore_device_message(device, sector, text, answer, sizeof(answer));
	cr_assert_eq(ret, (int64_t)strlen(expected), "%s: %lld: %s", text, (long long)ret,
		     dmcore_error_message());
	cr_assert_str_eq(answer, expected);
}

static void expect_error(uint64_t sector, const char *text, int error, const char *message)
{
	int64_t ret;

	memset(answer, 'x', sizeof(answer));
	ret = dmcore_device_message(device, sector, text, answer, sizeof(answer));
	cr_assert_eq(ret, error, "%s: %lld", text, (long long)ret);
	cr_assert_str_eq(dmcore_error_message(), message);
	cr_assert_eq(answer[0], 'x', "untouched");
}

/* ---- words ---- */

Test(message, is_split_at_white_space)
{
	expect_answer(0, "a", "1:[a]");
	expect_answer(0, "  one\ttwo \n three ", "1:[one][two][three]");
}

Test(message, backslash_quotes_the_next_character)
{
	expect_answer(0, "a\\ b c", "1:[a b][c]");
	expect_answer(0, "a\\\\b \\c", "1:[a\\b][c]");
	expect_answer(0, "\\ ", "1:[ ]");
	/* A last one stands for itself. */
	expect_answer(0, "end\\", "1:[end\\]");
}

Test(message, has_no_comments_and_no_quotes)
{
	expect_answer(0, "a#b #c \"d e\"", "1:[a#b][#c][\"d][e\"]");
}

Test(message, empty_one_is_refused)
{
	expect_error(0, "", -EINVAL, "m: Empty message received.");
	expect_error(0, " \t\n ", -EINVAL, "m: Empty message received.");
	/* Before anything else is looked at. */
	expect_error(1000, "", -EINVAL, "m: Empty message received.");
	cr_assert_str_eq(actor_log(), "");
}

Test(message, without_text_or_device_is_refused)
{
	cr_assert_eq(dmcore_device_message(device, 0, NULL, NULL, 0), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), "Invalid target message parameters.");
	cr_assert_eq(dmcore_device_message(NULL, 0, "a", NULL, 0), -EINVAL);
}

Test(message, of_too_many_words_is_refused)
{
	size_t bytes = 2 * ((size_t)DMCORE_TARGET_ARGS_MAX + 1);
	char *text = malloc(bytes + 1);

	cr_assert_not_null(text);
	for (size_t i = 0; i < bytes; i += 2) {
		text[i] = 'a';
		text[i + 1] = ' ';
	}
	text[bytes] = '\0';
	cr_assert_eq(dmcore_device_message(device, 0, text, NULL, 0), -E2BIG);
	cr_assert_neq(dmcore_error_message()[0], '\0');
	cr_assert_str_eq(actor_log(), "");
	/* One word less is taken. */
	text[bytes - 2] = '\0';
	cr_assert_gt(dmcore_device_message(device, 0, text, NULL, 0), 0);
	free(text);
}

/* ---- who gets it ---- */

Test(message, goes_to_the_target_that_holds_the_sector)
{
	expect_answer(7, "a", "1:[a]");
	expect_answer(16, "a", "2:[a]");
	expect_answer(23, "a", "2:[a]");
	expect_answer(24, "a", "3:[a]");
	expect_answer(31, "a", "3:[a]");
}

/* Assertion 33. */
Test(message, beyond_the_table_or_to_a_deaf_target_is_refused)
{
	expect_error(32, "a", -EINVAL, "m: Target message sector outside device.");
	expect_error(UINT64_MAX, "a", -EINVAL, "m: Target message sector outside device.");
	expect_error(8, "a", -EINVAL, "m: Target type does not support messages");
	expect_error(15, "a", -EINVAL, "m: Target type does not support messages");
}

Test(message, to_a_suspended_device_is_carried_out)
{
	actor_suspend(device, 0);
	expect_answer(16, "a", "2:[a]");
}

/* The kernel says so too; an inactive table gets none. */
Test(message, to_a_device_without_a_live_table_is_refused)
{
	device = actor_device(&stage, "empty");
	expect_error(0, "a", -EINVAL, "empty: The device has no table.");
	actor_load(device, "0 8 actor 4");
	expect_error(0, "a", -EINVAL, "empty: The device has no table.");
	expect_answer(0, "@cancel_deferred_remove", "");
}

Test(message, goes_to_the_live_table)
{
	actor_load(device, "0 8 actor 4");
	expect_answer(0, "a", "1:[a]");
	actor_resume(device);
	expect_answer(0, "a", "4:[a]");
	expect_error(8, "a", -EINVAL, "m: Target message sector outside device.");
}

/* ---- answers ---- */

/* Assertion 34, for answers: cut, told, and nothing behind the buffer written. */
Test(message, answer_that_does_not_fit_is_cut_and_its_length_told)
{
	memset(answer, 'x', sizeof(answer));
	cr_assert_eq(dmcore_device_message(device, 0, "hello", answer, 5), 9);
	cr_assert_eq(memcmp(answer, "1:[h\0x", 6), 0);
	cr_assert_eq(dmcore_device_message(device, 0, "hello", answer, 9), 9);
	cr_assert_str_eq(answer, "1:[hello");
	cr_assert_eq(dmcore_device_message(device, 0, "hello", answer, 10), 9);
	cr_assert_str_eq(answer, "1:[hello]");
	cr_assert_eq(dmcore_device_message(device, 0, "hello", answer, 1), 9);
	cr_assert_str_eq(answer, "");
	cr_assert_eq(dmcore_device_message(device, 0, "hello", NULL, 0), 9);
}

Test(message, may_have_no_answer)
{
	expect_answer(0, "quiet", "");
	cr_assert_eq(dmcore_device_message(device, 0, "quiet", NULL, 0), 0);
}

Test(message, error_of_the_target_is_passed_on)
{
	expect_error(0, "fail", -EPERM, "m: actor: as it was told");
	expect_error(0, "fail-silently", -ENOSPC, "m: actor: the message was refused");
}

/* ---- to the device itself ---- */

Test(message, of_an_unknown_kind_to_the_device_is_refused)
{
	expect_error(0, "@foo bar", -EINVAL, "m: Unsupported message sent to DM core: @foo");
	expect_error(0, "@", -EINVAL, "m: Unsupported message sent to DM core: @");
	cr_assert_str_eq(actor_log(), "");
	/* Only the first word says so. */
	expect_answer(0, "a @foo", "1:[a][@foo]");
}

/* As the real kernel answers: the sector doesn't matter, nor does the case. */
Test(message, cancel_deferred_remove_is_the_devices)
{
	expect_answer(0, "@cancel_deferred_remove", "");
	expect_answer(1000, "@cancel_deferred_remove", "");
	expect_answer(0, "@Cancel_Deferred_Remove", "");
	expect_error(0, "@cancel_deferred_remove x", -EINVAL,
		     "m: Invalid arguments for @cancel_deferred_remove");
}
