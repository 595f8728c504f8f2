/* SPDX-License-Identifier: MIT */
/* A core's allocator that counts, and that fails when it is told to; see heap.h. */
#include "heap.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

struct heap heap;

static bool is_time_to_fail(void)
{
	unsigned int left = atomic_load(&heap.left);

	if (left == 0)
		return false;
	if (left > 1 || !heap.for_good)
		atomic_store(&heap.left, left - 1);
	return left == 1;
}

static void *failing_alloc(size_t bytes, void *context)
{
	void *memory;

	(void)context;
	if (is_time_to_fail()) {
		atomic_fetch_add(&heap.failed, 1);
		return NULL;
	}
	memory = malloc(bytes);
	cr_assert_not_null(memory);
	memset(memory, 0xc3, bytes);
	atomic_fetch_add(&heap.outstanding, 1);
	return memory;
}

static void counting_release(void *memory, void *context)
{
	(void)context;
	cr_assert_not_null(memory);
	atomic_fetch_sub(&heap.outstanding, 1);
	free(memory);
}

void heap_use(struct dmcore_options *options)
{
	options->alloc = failing_alloc;
	options->release = counting_release;
}
