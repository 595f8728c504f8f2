/* SPDX-License-Identifier: MIT */
/* Memory by the hooks of a core (base/alloc.c), and messages (base/error.c), where they end. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "base/alloc.h"
#include "base/core.h"
#include "base/error.h"
#include "support/fixture.h"

TestSuite(alloc, .init = fixture_open, .fini = fixture_close);
TestSuite(error_message, .init = fixture_open, .fini = fixture_close);

Test(alloc, more_than_there_can_be_is_not_even_asked_for)
{
	static const size_t counts[] = { SIZE_MAX, SIZE_MAX / 2 + 1, SIZE_MAX / 8,
					 SIZE_MAX / 16 + 1 };
	uint64_t before = atomic_load(&fixture.core->live_allocations);

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		cr_assert_null(dmcore__zalloc_array(fixture.core, counts[i], 8), "%zu", i);
	cr_assert_null(dmcore__zalloc_aligned(fixture.core, SIZE_MAX, 64));
	cr_assert_null(dmcore__zalloc_aligned(fixture.core, SIZE_MAX / 2 + 1, 64));
	cr_assert_eq(atomic_load(&fixture.core->live_allocations), before);
}

Test(alloc, aligned_memory_is_zeroed_and_freed)
{
	uint64_t before = atomic_load(&fixture.core->live_allocations);

	for (size_t align = sizeof(void *); align <= 65536; align *= 2) {
		unsigned char *memory = dmcore__zalloc_aligned(fixture.core, 100, align);

		cr_assert_not_null(memory);
		cr_assert_eq((uintptr_t)memory % align, 0);
		for (unsigned int i = 0; i < 100; i++)
			cr_assert_eq(memory[i], 0);
		memset(memory, 0xff, 100);
		dmcore__free_aligned(fixture.core, memory);
	}
	dmcore__free_aligned(fixture.core, NULL);
	cr_assert_eq(atomic_load(&fixture.core->live_allocations), before);
}

Test(error_message, prefix_that_fills_the_message_leaves_no_room_for_the_rest)
{
	char prefix[DMCORE_ERROR_BYTES_MAX + 100];

	memset(prefix, 'p', sizeof(prefix) - 1);
	prefix[sizeof(prefix) - 1] = '\0';
	cr_assert_eq(dmcore__error(-EIO, "the rest"), -EIO);
	cr_assert_eq(dmcore__error_prefix(-EIO, "%s", prefix), -EIO);
	cr_assert_eq(strlen(dmcore_error_message()), DMCORE_ERROR_BYTES_MAX - 1);
	cr_assert_eq(strspn(dmcore_error_message(), "p"), DMCORE_ERROR_BYTES_MAX - 1);
	/* With some room the rest is cut. */
	prefix[DMCORE_ERROR_BYTES_MAX - 6] = '\0';
	dmcore__error(-EIO, "the rest");
	dmcore__error_prefix(-EIO, "%s", prefix);
	cr_assert_str_eq(dmcore_error_message() + DMCORE_ERROR_BYTES_MAX - 6, ": the");
}

Test(error_message, of_a_path_too_long_for_it_begins_with_the_path)
{
	static char path[8192];
	struct dmcore_bdev *bdev;

	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	cr_assert_eq(dmcore_bdev_open(fixture.core, path, 0, &bdev), -ENAMETOOLONG);
	cr_assert_eq(strlen(dmcore_error_message()), DMCORE_ERROR_BYTES_MAX - 1);
	cr_assert_eq(strncmp(dmcore_error_message(), path, DMCORE_ERROR_BYTES_MAX - 1), 0);
}
