/* SPDX-License-Identifier: MIT */
/* A table of each type of target; see samples.h. */
#include "samples.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "rng.h"

static const struct sample samples[] = {
	{
		.type = "delay",
		.num_leaves = 1,
		.table = "0 96 delay @0 16 0 @0 16 1 @0 16 0",
	},
	{
		.type = "dust",
		.num_leaves = 1,
		.table = "0 96 dust @0 16 1024",
		.messages = {
			"addbadblock 100 3", "queryblock 100", "countbadblocks", "listbadblocks",
			"enable", "removebadblock 100", "clearbadblocks", "quiet",
		},
	},
	{
		.type = "error",
		.data = SAMPLE_FAILS,
		.table = "0 96 error",
	},
	{
		.type = "error",
		.data = SAMPLE_FAILS,
		.num_leaves = 1,
		.table = "0 96 error @0 8",
	},
	{
		.type = "flakey",
		.num_leaves = 1,
		.table = "0 96 flakey @0 16 1 0 6 error_reads corrupt_bio_byte 1 w 1 0",
	},
	{
		/* Down, but no request is long enough. */
		.type = "flakey",
		.num_leaves = 1,
		.table = "0 96 flakey @0 16 0 1 5 corrupt_bio_byte 4294967295 w 1 0",
	},
	{
		.type = "linear",
		.num_leaves = 1,
		.table = "0 96 linear @0 32",
	},
	{
		.type = "linear",
		.num_leaves = 3,
		.table = "0 24 linear @0 128\n24 40 linear @1 16\n64 8 linear @0 64\n"
			 "72 24 linear @2 0",
	},
	{
		.type = "log-writes",
		.num_leaves = 2,
		.table = "0 96 log-writes @0 @1",
		.messages = { "mark one", "mark two" },
		.side_leaves = 1u << 1,
	},
	{
		.type = "mirror",
		.num_leaves = 2,
		.table = "0 96 mirror core 1 16 2 @0 0 @1 32",
		.side_leaves = 1u << 1,
		.may_break = true,
		.may_mend = true,
	},
	{
		.type = "mirror",
		.num_leaves = 4,
		.table = "0 96 mirror disk 2 @3 8 3 @0 16 @1 32 @2 0 2 handle_errors keep_log",
		.side_leaves = 7u << 1,
		.may_break = true,
		.may_mend = true,
	},
	{
		.type = "snapshot",
		.num_leaves = 2,
		.table = "0 96 snapshot @0 @1 P 8",
		.messages = {
			"overflow fail", "low_water 8", "grow", "overflow hold", "low_water 0",
			"overflow invalidate",
		},
		.side_leaves = 1u << 1,
		.may_break = true,
	},
	{
		.type = "snapshot",
		.num_leaves = 2,
		.table = "0 96 snapshot @0 @1 N 4 2 discard_zeroes_cow discard_passdown_origin",
		.side_leaves = 1u << 1,
		.may_break = true,
	},
	{
		.type = "snapshot-merge",
		.num_leaves = 2,
		.table = "0 96 snapshot-merge @0 @1 PO 16",
		.side_leaves = 1u << 1,
		.may_break = true,
	},
	{
		.type = "snapshot-origin",
		.num_leaves = 1,
		.table = "0 96 snapshot-origin @0",
	},
	{
		.type = "striped",
		.num_leaves = 2,
		.table = "0 96 striped 2 8 @0 16 @1 32",
	},
	{
		.type = "striped",
		.num_leaves = 3,
		.table = "0 96 striped 4 4 @0 0 @1 32 @2 8 @0 64",
	},
	{
		.type = "switch",
		.num_leaves = 2,
		.table = "0 96 switch 2 16 0 @0 0 @1 32",
		.messages = {
			"set_region_mappings 0:0 1:1 2:0 :1", "set_region_mappings 4:0 R1,1",
		},
	},
	{
		.type = "unstriped",
		.num_leaves = 1,
		.table = "0 96 unstriped 2 8 1 @0 16",
	},
	{
		.type = "zero",
		.data = SAMPLE_ZEROES,
		.table = "0 96 zero",
	},
};

const struct sample *sample_at(unsigned int index)
{
	return index < sizeof(samples) / sizeof(samples[0]) ? &samples[index] : NULL;
}

static bool is_another(unsigned int index)
{
	for (unsigned int i = 0; i < index; i++) {
		if (strcmp(samples[i].type, samples[index].type) == 0)
			return true;
	}
	return false;
}

const struct sample *sample_next(unsigned int *index)
{
	while (rng_brief() && sample_at(*index) && is_another(*index))
		(*index)++;
	return sample_at((*index)++);
}

void samples_cover(struct dmcore *core)
{
	const struct dmcore_target_type *type;

	for (unsigned int i = 0; (type = dmcore_target_type_at(core, i)) != NULL; i++) {
		bool found = false;

		for (unsigned int k = 0; sample_at(k) && !found; k++)
			found = strcmp(sample_at(k)->type, type->name) == 0;
		cr_assert(found, "the type \"%s\" is registered, but tests/support/samples.c has "
			  "no sample of it: add one, and its faults are tested", type->name);
	}
}

const char *sample_text(const struct sample *sample, const char *const *leaves, char *text,
			size_t bytes)
{
	size_t used = 0;

	for (const char *from = sample->table; *from; from++) {
		int length;

		if (*from == '@')
			length = snprintf(text + used, bytes - used, "%s", leaves[*++from - '0']);
		else
			length = snprintf(text + used, bytes - used, "%c", *from);
		used += (size_t)length;
		cr_assert_lt(used, bytes);
	}
	return text;
}
