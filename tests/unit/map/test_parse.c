/* SPDX-License-Identifier: MIT */
/* dmsetup's text of a table (map/parse.c), and how tables are printed (map/status.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"

#define LINES_MANY 100000u
#define LINE_BYTES 64

TestSuite(parse, .init = fixture_open, .fini = fixture_close);

static void expect_table(const char *text, const char *printed)
{
	struct dmcore_table *table = fixture_table(text);

	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_TABLE), printed);
	dmcore_table_destroy(table);
}

static void expect_invalid_format(const char *text, unsigned int line)
{
	char message[128];

	snprintf(message, sizeof(message),
		 "table line %u: Invalid format on line %u of table: not "
		 "`start length type params`",
		 line, line);
	fixture_expect_refused(text, -EINVAL, message);
}

Test(parse, takes_a_target_a_line)
{
	expect_table("0 8 linear mem:8s,name=a 0\n8 8 zero\n",
		     "0 8 linear mem:8s,name=a 0\n8 8 zero \n");
}

Test(parse, last_line_needs_no_newline)
{
	expect_table("0 8 zero\n8 8 error", "0 8 zero \n8 8 error \n");
}

Test(parse, white_space_of_every_kind_may_stand_around_words)
{
	expect_table(" \t 0 \v 8\fzero \r\n", "0 8 zero \n");
	expect_table("0\t8\tlinear\tmem:8s,name=a\t0\t\n", "0 8 linear mem:8s,name=a 0\n");
}

Test(parse, empty_lines_and_comments_are_skipped)
{
	expect_table("\n# one\n   # two\n \t\n0 8 zero\n\n#", "0 8 zero \n");
}

Test(parse, comment_behind_params_is_cut_off)
{
	expect_table("0 8 zero # all zeroes\n", "0 8 zero \n");
	expect_table("0 8 linear mem:8s,name=a 0# so it ends\n", "0 8 linear mem:8s,name=a 0\n");
}

Test(parse, comment_sign_cuts_a_device_name_too)
{
	fixture_expect_refused("0 8 linear /dev/a#b 0", -EINVAL,
			       "table line 1: linear: Invalid argument count");
}

Test(parse, comment_sign_in_the_type_belongs_to_it)
{
	fixture_expect_refused("0 8 zero#x", -EINVAL, "table line 1: zero#x: unknown target type");
}

/* D-006 in docs/conformance.md */
Test(parse, quoted_comment_sign_and_space_stay_in_the_name)
{
	expect_table("0 8 linear mem:8s,name=a\\#b\\ c 0 # cut\n",
		     "0 8 linear mem:8s,name=a\\#b\\ c 0\n");
}

Test(parse, printed_table_is_parsed_to_the_same_table)
{
	static const char text[] = "0 8 linear mem:8s,name=a\\#b\\ c\\\\d 0\n"
				   "8 16 striped 2 4 mem:8s,name=\\\\ 0 mem:8s,name=\xc3\xa0 0\n"
				   "24 1 zero \n25 7 error \n";

	expect_table(text, text);
}

Test(parse, leading_zeroes_are_decimal)
{
	expect_table("00 010 zero", "0 10 zero \n");
}

Test(parse, line_of_less_than_three_words_is_invalid)
{
	expect_invalid_format("0", 1);
	expect_invalid_format("0 8", 1);
	expect_invalid_format("0 8 ", 1);
	expect_invalid_format("08zero", 1);
	expect_invalid_format("0 8 zero\n\n8\n", 3);
}

Test(parse, word_in_place_of_a_number_is_invalid)
{
	expect_invalid_format("a 8 zero", 1);
	expect_invalid_format("0 x zero", 1);
	expect_invalid_format("# one\n0 8 zero\n8 x zero", 3);
}

/* D-002 */
Test(parse, sign_before_a_number_is_invalid)
{
	expect_invalid_format("0 +8 zero", 1);
	expect_invalid_format("-0 8 zero", 1);
	expect_invalid_format("0 -8 zero", 1);
}

/* D-003 */
Test(parse, number_that_runs_into_the_next_word_is_invalid)
{
	expect_invalid_format("0 8zero", 1);
	expect_invalid_format("0 0x8 zero", 1);
	expect_invalid_format("0 8. zero", 1);
}

Test(parse, number_beyond_64_bits_is_too_large)
{
	static const char *const texts[] = {
		"0 18446744073709551616 zero",
		"18446744073709551616 8 zero",
		"0 99999999999999999999999999999999 zero",
	};

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(texts); i++)
		fixture_expect_refused(texts[i], -EINVAL, "table line 1: too large device");
}

/* D-018 */
Test(parse, text_without_a_target_is_refused)
{
	fixture_expect_refused("", -EINVAL, "no targets specified");
	fixture_expect_refused("\n# nothing\n\n", -EINVAL, "no targets specified");
}

/* D-017 */
Test(parse, first_wrong_line_is_told)
{
	fixture_expect_refused("0 8 nosuch\n8 x zero\n", -EINVAL,
			       "table line 1: nosuch: unknown target type");
}

Test(parse, message_counts_every_line_of_the_text)
{
	fixture_expect_refused("\n# one\n0 8 zero\n8 8 striped 2 0 a 0 b 0\n", -EINVAL,
			       "table line 4: striped: Invalid chunk_size");
}

Test(parse, device_that_is_too_small_is_told_by_its_line)
{
	fixture_expect_refused("# one\n0 8 linear mem:16s,name=a 0\n\n8 8 linear mem:16s,name=a 9",
			       -EINVAL,
			       "table line 4: mem:16s,name=a too small for target: start=9, len=8, "
			       "dev_size=16");
}

Test(parse, lookup_failure_is_told_whole)
{
	fixture_expect_refused("0 8 linear /nonexistent/disk.img 0", -ENOENT,
			       "table line 1: linear: Device lookup failed: "
			       "/nonexistent/disk.img: No such file or directory (ENOENT)");
}

Test(parse, unknown_flag_is_refused)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 zero", 1u << 31, &table), -EINVAL);
	cr_assert_null(table);
}

Test(parse, text_that_is_too_long_is_refused)
{
	size_t bytes = DMCORE_TABLE_TEXT_BYTES_MAX + 1;
	char *text = malloc(bytes + 1);

	cr_assert_not_null(text);
	memset(text, '\n', bytes);
	text[bytes] = '\0';
	fixture_expect_refused(text, -E2BIG, "the text of a table is longer than 268435456 bytes");
	free(text);
}

Test(parse, takes_many_lines)
{
	char *text = malloc(LINES_MANY * LINE_BYTES);
	char *at = text;
	struct dmcore_table *table;

	cr_assert_not_null(text);
	for (unsigned int i = 0; i < LINES_MANY; i++)
		at += snprintf(at, LINE_BYTES, "%u 8 linear mem:1G,name=%u %u\n", i * 8, i % 3,
			       (LINES_MANY - 1 - i) * 8);
	table = fixture_table(text);
	cr_assert_eq(dmcore_table_num_targets(table), LINES_MANY);
	cr_assert_eq(dmcore_table_size_sectors(table), LINES_MANY * 8);
	dmcore_table_destroy(table);
	free(text);
}

/* ---- printing ---- */

Test(parse, text_that_does_not_fit_is_cut_and_its_length_told)
{
	struct dmcore_table *table = fixture_table("0 8 zero\n8 8 error");
	char small[8];

	cr_assert_eq(dmcore_table_text(table, DMCORE_TEXT_TABLE, NULL, 0), 21);
	cr_assert_eq(dmcore_table_text(table, DMCORE_TEXT_TABLE, small, sizeof(small)), 21);
	cr_assert_str_eq(small, "0 8 zer");
	dmcore_table_destroy(table);
}

Test(parse, unknown_kind_of_text_is_refused)
{
	struct dmcore_table *table = fixture_table("0 8 zero");
	char text[8];

	cr_assert_eq(dmcore_table_text(table, (enum dmcore_text_kind)3, text, sizeof(text)),
		     -EINVAL);
	dmcore_table_destroy(table);
}
