/* SPDX-License-Identifier: MIT */
/* The plan of a table's flush (map/flush.c). */
#include <errno.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "map/map.h"
#include "support/fixture.h"

#define DISK "mem:64s,name=a"

TestSuite(flush_plan, .init = fixture_open, .fini = fixture_close);

/* `copies N`: wants so many flushes of its own. */
static int copies_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	uint64_t copies;
	int ret = dmcore_args_u64(args, 0, UINT32_MAX, "no number", &copies);

	target->private_data = (void *)(uintptr_t)copies;
	return ret;
}

static enum dmcore_map_result copies_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static unsigned int copies_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	return op == DMCORE_OP_FLUSH ? (unsigned int)(uintptr_t)target->private_data : 0;
}

static const struct dmcore_target_type copies_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "copies",
	.version = { 1, 0, 0 },
	.ctr = copies_ctr,
	.map = copies_map,
	.num_bios = copies_num_bios,
};

static struct dmcore_table *table_with_copies(const char *text)
{
	cr_assert_eq(dmcore_target_register(fixture.core, &copies_type), 0);
	return fixture_table(text);
}

Test(flush_plan, has_each_device_once)
{
	struct dmcore_table *table =
		fixture_table("0 8 linear mem:64s,name=a 0\n"
			      "8 8 linear mem:64s,name=b 0\n"
			      "16 16 striped 2 8 mem:64s,name=a 8 mem:64s,name=c 0\n");

	cr_assert_eq(table->num_flush_steps, 3);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_not_null(table->flush_steps[i].bdev);
	dmcore_table_destroy(table);
}

Test(flush_plan, counts_two_names_of_one_device_once)
{
	struct dmcore_table *table = fixture_table("0 8 linear mem:64s,name=a 0\n"
						   "8 8 linear mem:65s,name=a 0\n");

	cr_assert_eq(table->num_flush_steps, 1);
	dmcore_table_destroy(table);
}

Test(flush_plan, is_empty_where_nothing_wants_a_flush)
{
	struct dmcore_table *table = fixture_table("0 8 zero\n8 8 error\n16 8 error " DISK " 0");

	cr_assert_eq(table->num_flush_steps, 0);
	dmcore_table_destroy(table);
}

Test(flush_plan, has_the_copies_that_a_target_wants)
{
	struct dmcore_table *table = table_with_copies("0 8 linear mem:64s,name=a 0\n"
						       "8 8 copies 3\n16 8 copies 0\n");

	cr_assert_eq(table->num_flush_steps, 4);
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_eq(table->flush_steps[i + 1].target, dmcore__table_target(table, 1));
		cr_assert_eq(table->flush_steps[i + 1].bio_nr, i);
	}
	dmcore_table_destroy(table);
}

Test(flush_plan, is_bounded)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_target_register(fixture.core, &copies_type), 0);
	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 copies 4294967295", 0, &table),
		     -EOVERFLOW);
	cr_assert_null(table);
}

static bool is_simple(const char *text)
{
	struct dmcore_table *table = fixture_table(text);
	bool simple = table->simple;

	dmcore_table_destroy(table);
	return simple;
}

Test(flush_plan, table_of_one_whole_target_is_simple)
{
	cr_assert(is_simple("0 8 zero"));
	cr_assert(is_simple("0 8 linear " DISK " 0"));
	cr_assert(is_simple("0 8 striped 1 8 " DISK " 0"));
}

Test(flush_plan, table_that_splits_or_copies_is_not_simple)
{
	cr_assert_not(is_simple("0 8 zero\n8 8 zero"));
	cr_assert_not(is_simple("0 8 striped 1 4 " DISK " 0"));
	cr_assert_not(is_simple("0 8 striped 2 4 " DISK " 0 " DISK " 8"));
}
