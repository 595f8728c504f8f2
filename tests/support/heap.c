/* SPDX-License-Identifier: MIT */
/* A core's allocator that counts, and that fails when it is told to; see heap.h. */
#include "heap.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
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

/*
 * So that nobody takes it for zeroed. The thread sanitizer, which keeps four bytes for each, would
 * take most of its time for this, and the other builds find as much.
 */
static void fill(void *memory, size_t bytes)
{
#ifndef __SANITIZE_THREAD__
	memset(memory, 0xc3, bytes);
#else
	(void)memory;
	(void)bytes;
#endif
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
	fill(memory, bytes);
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

static void arm(void *context, unsigned int n, bool for_good)
{
	(void)context;
	heap.for_good = for_good;
	atomic_store(&heap.failed, 0);
	atomic_store(&heap.left, n);
}

static unsigned int disarm(void *context)
{
	(void)context;
	atomic_store(&heap.left, 0);
	return atomic_load(&heap.failed);
}

const struct nth_kind heap_nth = { "allocation", arm, disarm };

/* What the message is before a scenario begins: a failure must leave another one. */
static void leave_stale_message(char *message, size_t bytes)
{
	cr_assert_eq(dmcore_flush(NULL), -EINVAL);
	snprintf(message, bytes, "%s", dmcore_error_message());
}

void heap_fail_each(const struct heap_loop *loop, bool for_good)
{
	struct nth nth = nth_of(&heap_nth, NULL, for_good);
	unsigned int refused = 0;
	char stale[64];

	leave_stale_message(stale, sizeof(stale));
	while (nth_begin(&nth)) {
		unsigned int before = heap.outstanding;
		int ret = loop->scenario(loop->context);

		nth_end(&nth);
		if (nth.failed == 0 || ret != 0 || !loop->may_do_without)
			cr_assert_eq(ret, nth.failed ? -ENOMEM : 0, "%s: %d: %s", nth_name(&nth),
				     ret, dmcore_error_message());
		cr_assert(ret == 0 || (dmcore_error_message()[0] != '\0' &&
				       strcmp(dmcore_error_message(), stale) != 0),
			  "%s: no message of its own", nth_name(&nth));
		refused += ret != 0;
		if (loop->after)
			loop->after(loop->context, ret);
		leave_stale_message(stale, sizeof(stale));
		cr_assert_eq(heap.outstanding, before, "%s: %d leaked", nth_name(&nth),
			     (int)(heap.outstanding - before));
	}
	cr_assert_gt(refused, 0, "every allocation could be done without");
}
