/* SPDX-License-Identifier: MIT */
/* The growing text of base/text.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "base/text.h"
#include "support/fixture.h"

#define LONG_BYTES 10000

TestSuite(text, .init = fixture_open, .fini = fixture_close);

Test(text, grows_with_what_is_written)
{
	struct dmcore_text text;

	dmcore__text_init(&text, fixture.core);
	for (unsigned int i = 0; i < LONG_BYTES; i++)
		dmcore_text_printf(&text, "%u", i % 10);
	cr_assert_eq(text.used_bytes, LONG_BYTES);
	for (unsigned int i = 0; i < LONG_BYTES; i++)
		cr_assert_eq(text.data[i], (char)('0' + (int)(i % 10)));
	cr_assert_eq(text.data[LONG_BYTES], '\0');
	dmcore__text_fini(&text);
}

Test(text, takes_one_piece_of_any_length)
{
	struct dmcore_text text;

	dmcore__text_init(&text, fixture.core);
	dmcore_text_printf(&text, "<%*s>", LONG_BYTES, "x");
	cr_assert_eq(text.used_bytes, LONG_BYTES + 2);
	cr_assert_eq(text.data[LONG_BYTES], 'x');
	cr_assert_str_eq(text.data + LONG_BYTES, "x>");
	dmcore__text_fini(&text);
}

Test(text, copy_cuts_and_tells_the_whole_length)
{
	struct dmcore_text text;
	char buffer[4] = "xxx";

	dmcore__text_init(&text, fixture.core);
	dmcore__text_append(&text, "abcdef", 6);
	cr_assert_eq(dmcore__text_copy(&text, buffer, sizeof(buffer)), 6);
	cr_assert_str_eq(buffer, "abc");
	cr_assert_eq(dmcore__text_copy(&text, buffer, 1), 6);
	cr_assert_str_eq(buffer, "");
	cr_assert_eq(dmcore__text_copy(&text, NULL, 0), 6);
	dmcore__text_fini(&text);
}

/* A character that no locale has. */
Test(text, what_cannot_be_printed_is_told_by_copy)
{
	struct dmcore_text text;
	char buffer[8];

	dmcore__text_init(&text, fixture.core);
	dmcore_text_printf(&text, "%lc", (wint_t)0x110000);
	dmcore_text_printf(&text, "more");
	cr_assert_lt(dmcore__text_copy(&text, buffer, sizeof(buffer)), 0);
	dmcore__text_fini(&text);
}

Test(text, copy_of_nothing_is_empty)
{
	struct dmcore_text text;
	char buffer[4] = "xxx";

	dmcore__text_init(&text, fixture.core);
	cr_assert_eq(dmcore__text_copy(&text, buffer, sizeof(buffer)), 0);
	cr_assert_str_eq(buffer, "");
	dmcore__text_fini(&text);
}

Test(text, device_name_is_quoted_where_a_parser_would_stumble)
{
	struct dmcore_bdev *bdev = fixture_bdev("mem:8s,name=a\\b#c d");
	struct dmcore_text text;

	dmcore__text_init(&text, fixture.core);
	dmcore_text_device(&text, bdev);
	cr_assert_str_eq(text.data, "mem:8s,name=a\\\\b\\#c\\ d");
	dmcore__text_fini(&text);
}

/* An allocator that gives out nothing while `refuse` is set. */
static bool refuse;

static void *sparing_alloc(size_t bytes, void *context)
{
	(void)context;
	return refuse ? NULL : malloc(bytes);
}

static void sparing_release(void *memory, void *context)
{
	(void)context;
	free(memory);
}

Test(text_memory, lack_of_it_is_told_by_copy)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore_text text;
	struct dmcore *core;
	char buffer[8];

	options.alloc = sparing_alloc;
	options.release = sparing_release;
	cr_assert_eq(dmcore_create(&options, &core), 0);
	dmcore__text_init(&text, core);
	refuse = true;
	dmcore_text_printf(&text, "%d", 1);
	refuse = false;
	dmcore_text_printf(&text, "%d", 2);
	cr_assert_eq(dmcore__text_copy(&text, buffer, sizeof(buffer)), -ENOMEM);
	dmcore__text_fini(&text);
	cr_assert_eq(dmcore_destroy(core), 0);
}
