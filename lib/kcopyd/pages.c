/* SPDX-License-Identifier: MIT */
/* The pages of a client, and the runs that its slices have of them. Called by client.c, job.c and
 * slice.c. */
#include <errno.h>

#include "base/alloc.h"
#include "kcopyd/kcopyd.h"

#define BITS 64u

int kcopyd__pages_create(struct dmcore *core, unsigned int total, struct kcopyd__pages *pages)
{
	pages->used = dmcore__zalloc_array(core, (total + BITS - 1) / BITS, sizeof(uint64_t));
	pages->memory = dmcore__alloc_aligned(core, (size_t)total * DMIO_PAGE_BYTES,
					      DMIO_PAGE_BYTES);
	if (!pages->used || !pages->memory)
		return -ENOMEM;
	pages->total = total;
	pages->free = total;
	return 0;
}

void kcopyd__pages_destroy(struct dmcore *core, struct kcopyd__pages *pages)
{
	dmcore__free_aligned(core, pages->memory);
	dmcore__free(core, pages->used);
}

/* The first page from `page` on that is used, or isn't; total if there is none. */
static unsigned int find(const struct kcopyd__pages *pages, unsigned int page, bool used)
{
	while (page < pages->total) {
		uint64_t word = pages->used[page / BITS];

		word = (used ? word : ~word) >> page % BITS;
		if (word) {
			page += (unsigned int)__builtin_ctzll(word);
			return page < pages->total ? page : pages->total;
		}
		page += BITS - page % BITS;
	}
	return pages->total;
}

static void mark(struct kcopyd__pages *pages, unsigned int page, unsigned int count, bool used)
{
	for (; count > 0; page++, count--) {
		uint64_t bit = UINT64_C(1) << page % BITS;

		DMCORE__DEBUG_ASSERT(!(pages->used[page / BITS] & bit) == used);
		if (used)
			pages->used[page / BITS] |= bit;
		else
			pages->used[page / BITS] &= ~bit;
	}
}

char *kcopyd__pages_take(struct kcopyd__pages *pages, unsigned int least, unsigned int *count)
{
	unsigned int longest = 0;
	unsigned int first = 0;
	unsigned int page;
	unsigned int end;

	DMCORE__ASSERT(least > 0 && least <= *count && *count <= pages->total);
	if (pages->free < least)
		return NULL;
	for (page = find(pages, 0, false); page < pages->total && longest < *count;
	     page = find(pages, end, false)) {
		end = find(pages, page, true);
		if (end - page > longest) {
			longest = end - page;
			first = page;
		}
	}
	if (longest < least)
		return NULL;
	if (*count > longest)
		*count = longest;
	mark(pages, first, *count, true);
	pages->free -= *count;
	return pages->memory + (size_t)first * DMIO_PAGE_BYTES;
}

void kcopyd__pages_give(struct kcopyd__pages *pages, char *run, unsigned int count)
{
	size_t first = (size_t)(run - pages->memory) / DMIO_PAGE_BYTES;

	DMCORE__ASSERT(count > 0 && first + count <= pages->total);
	mark(pages, (unsigned int)first, count, false);
	pages->free += count;
}
