/* SPDX-License-Identifier: MIT */
/* The tokenizer and the number parsers of base/args.c, and dmcore_args_*. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/target.h>

#include "base/args.h"
#include "base/compiler.h"

#define WORDS_MAX 8

static char text[256];
static char *words[WORDS_MAX];

/* Splits a copy; returns the number of words. */
static unsigned int split(const char *from)
{
	unsigned int count;

	cr_assert_lt(strlen(from), sizeof(text));
	memcpy(text, from, strlen(from) + 1);
	cr_assert(dmcore__split(text, words, WORDS_MAX, &count), "%s", from);
	return count;
}

static struct dmcore_args take(const char *from)
{
	struct dmcore_args args = { .words = words };

	args.count = split(from);
	return args;
}

Test(split, cuts_at_every_kind_of_white_space)
{
	cr_assert_eq(split(" a\tb\nc\vd\fe\rf "), 6);
	for (unsigned int i = 0; i < 6; i++) {
		cr_assert_eq(words[i][0], (char)('a' + (int)i));
		cr_assert_eq(words[i][1], '\0');
	}
}

Test(split, finds_nothing_in_nothing)
{
	cr_assert_eq(split(""), 0);
	cr_assert_eq(split(" \t "), 0);
}

Test(split, backslash_keeps_white_space_in_a_word)
{
	cr_assert_eq(split("my\\ disk.img 0"), 2);
	cr_assert_str_eq(words[0], "my disk.img");
	cr_assert_str_eq(words[1], "0");
}

Test(split, backslash_before_any_character_is_dropped)
{
	cr_assert_eq(split("a\\b \\\\ \\#"), 3);
	cr_assert_str_eq(words[0], "ab");
	cr_assert_str_eq(words[1], "\\");
	cr_assert_str_eq(words[2], "#");
}

Test(split, lone_backslash_at_the_end_stays)
{
	cr_assert_eq(split("a b\\"), 2);
	cr_assert_str_eq(words[1], "b\\");
}

Test(split, quoted_space_alone_is_a_word)
{
	cr_assert_eq(split("a \\  b"), 3);
	cr_assert_str_eq(words[1], " ");
}

Test(split, takes_no_byte_of_utf8_for_white_space)
{
	cr_assert_eq(split("/dev/\xc3\xa0 0"), 2);
	cr_assert_str_eq(words[0], "/dev/\xc3\xa0");
}

Test(split, refuses_more_words_than_there_is_room_for)
{
	char nine[] = "1 2 3 4 5 6 7 8 9";
	char eight[] = "1 2 3 4 5 6 7 8 ";
	unsigned int count;

	cr_assert_not(dmcore__split(nine, words, WORDS_MAX, &count));
	cr_assert(dmcore__split(eight, words, WORDS_MAX, &count));
	cr_assert_eq(count, WORDS_MAX);
}

static void expect_u64(const char *word, uint64_t expected)
{
	uint64_t value = 0;

	cr_assert(dmcore__parse_u64(word, &value), "%s", word);
	cr_assert_eq(value, expected, "%s", word);
}

static void expect_no_u64(const char *word)
{
	uint64_t value = 77;

	cr_assert_not(dmcore__parse_u64(word, &value), "%s", word);
	cr_assert_eq(value, 77, "%s changed the value", word);
}

Test(parse_u64, reads_decimal_digits)
{
	expect_u64("0", 0);
	expect_u64("000", 0);
	expect_u64("0123", 123);
	expect_u64("18446744073709551615", UINT64_MAX);
}

Test(parse_u64, refuses_what_does_not_fit)
{
	expect_no_u64("18446744073709551616");
	expect_no_u64("18446744073709551620");
	expect_no_u64("99999999999999999999999999");
}

Test(parse_u64, refuses_everything_but_digits)
{
	static const char *const malformed[] = { "",	"+1", "-1",  "-0",  " 1",      "1 ",
						 "0x1", "1k", "1.0", "1e3", "\xc2\xb2" };

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(malformed); i++)
		expect_no_u64(malformed[i]);
}

Test(args, hands_out_words_in_order_and_then_none)
{
	struct dmcore_args args = take("a b");

	cr_assert_eq(dmcore_args_left(&args), 2);
	cr_assert_str_eq(dmcore_args_next(&args), "a");
	cr_assert_eq(dmcore_args_left(&args), 1);
	cr_assert_str_eq(dmcore_args_next(&args), "b");
	cr_assert_eq(dmcore_args_left(&args), 0);
	cr_assert_null(dmcore_args_next(&args));
}

Test(args, number_is_taken_within_its_bounds)
{
	struct dmcore_args args = take("3 9 18446744073709551615");
	uint64_t value;

	cr_assert_eq(dmcore_args_u64(&args, 3, 9, "bad", &value), 0);
	cr_assert_eq(value, 3);
	cr_assert_eq(dmcore_args_u64(&args, 3, 9, "bad", &value), 0);
	cr_assert_eq(value, 9);
	cr_assert_eq(dmcore_args_u64(&args, 0, UINT64_MAX, "bad", &value), 0);
	cr_assert_eq(value, UINT64_MAX);
	cr_assert_null(args.error);
}

Test(args, number_out_of_bounds_sets_the_error)
{
	struct dmcore_args args = take("2 10 x");
	uint64_t value = 77;

	for (unsigned int i = 0; i < 3; i++) {
		args.error = NULL;
		cr_assert_eq(dmcore_args_u64(&args, 3, 9, "bad number", &value), -EINVAL);
		cr_assert_str_eq(args.error, "bad number");
	}
	cr_assert_eq(value, 77);
}

Test(args, missing_number_sets_the_error)
{
	struct dmcore_args args = take("");
	uint64_t value;

	cr_assert_eq(dmcore_args_u64(&args, 0, 9, "none", &value), -EINVAL);
	cr_assert_str_eq(args.error, "none");
}

Test(args, fail_returns_the_error_it_is_given)
{
	struct dmcore_args args = take("");

	cr_assert_eq(dmcore_args_fail(&args, -ENOENT, "gone"), -ENOENT);
	cr_assert_str_eq(args.error, "gone");
}
