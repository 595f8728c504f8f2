/* SPDX-License-Identifier: MIT */
/*
 * What a status says of work that targets do by themselves. Called by live.c. These lines are as
 * the kernel's; those of all other types tell of no such work.
 *
 *	START LENGTH snapshot-merge ALLOCATED/TOTAL METADATA
 *	START LENGTH mirror LEGS DEVICE… IN_SYNC/REGIONS 1 HEALTH LOG…
 *
 * A merge is done when what is allocated is metadata. In a mirror's health there is a letter for
 * each leg: A for one that works, D where a write and S where the recovery has failed, which is
 * tried again.
 */
#include "background.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "words.h"

/* Reads `A/B`, in place. */
static bool read_ratio(char *word, uint64_t *a, uint64_t *b)
{
	char *slash = word ? strchr(word, '/') : NULL;

	if (!slash)
		return false;
	*slash = '\0';
	return words_number(word, a) == 0 && words_number(slash + 1, b) == 0;
}

/* A word instead of numbers, `Invalid` or `Merge failed`, says that it has failed. */
static enum background of_merge(char *rest)
{
	char *usage = words_next(&rest);
	char *metadata = words_next(&rest);
	uint64_t allocated_sectors;
	uint64_t total_sectors;
	uint64_t metadata_sectors;

	if (!metadata || !read_ratio(usage, &allocated_sectors, &total_sectors) ||
	    words_number(metadata, &metadata_sectors))
		return BACKGROUND_FAILED;
	return allocated_sectors == metadata_sectors ? BACKGROUND_NONE : BACKGROUND_UNDER_WAY;
}

static enum background of_mirror(char *rest)
{
	char *word = words_next(&rest);
	uint64_t num_in_sync;
	uint64_t num_regions;
	uint64_t num_legs;

	if (!word || words_number(word, &num_legs))
		return BACKGROUND_FAILED;
	for (uint64_t i = 0; i < num_legs && word; i++)
		word = words_next(&rest);
	if (!read_ratio(words_next(&rest), &num_in_sync, &num_regions))
		return BACKGROUND_FAILED;
	if (num_in_sync == num_regions)
		return BACKGROUND_NONE;
	words_next(&rest);
	word = words_next(&rest);
	if (!word)
		return BACKGROUND_FAILED;
	return strpbrk(word, "DS") ? BACKGROUND_FAILING : BACKGROUND_UNDER_WAY;
}

enum background background_of_line(const char *line)
{
	char *text = strdup(line);
	char *rest = text;
	enum background work = BACKGROUND_NONE;
	char *type;

	if (!text)
		return BACKGROUND_FAILED;
	words_next(&rest);
	words_next(&rest);
	type = words_next(&rest);
	if (type && strcmp(type, "snapshot-merge") == 0)
		work = of_merge(rest);
	else if (type && strcmp(type, "mirror") == 0)
		work = of_mirror(rest);
	free(text);
	return work;
}
