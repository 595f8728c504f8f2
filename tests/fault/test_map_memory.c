/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of the way from a text to a running device fails, once and from then on: the
 * call says so, and leaves nothing behind.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/heap.h"

#define PARAMS_LONG 1000

static struct dmcore *create_core(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore *core;

	heap_use(&options);
	cr_assert_eq(dmcore_create(&options, &core), 0);
	return core;
}

static int (*scenario)(struct dmcore *core);

static int run_scenario(void *core)
{
	return scenario(core);
}

/* `what` returns what went wrong, and undoes what it did. */
static void fail_each(int (*what)(struct dmcore *core))
{
	struct dmcore *core = create_core();
	struct heap_loop loop = { .scenario = run_scenario, .context = core };

	scenario = what;
	for (unsigned int for_good = 0; for_good < 2; for_good++)
		heap_fail_each(&loop, for_good);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(heap.outstanding, 0);
}

static int parse(struct dmcore *core)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(core,
				     "0 8 linear mem:64s,name=a 0\n"
				     "8 16 striped 2 4 mem:64s,name=b 0 mem:64s,name=c 0\n"
				     "24 8 zero\n"
				     "32 8 error mem:64s,name=d 0\n"
				     "40 8 unstriped 2 4 1 mem:64s,name=e 0\n"
				     "48 8 switch 2 4 0 mem:64s,name=f 0 mem:64s,name=g 0\n",
				     0, &table);

	cr_assert_eq(ret != 0, table == NULL);
	dmcore_table_destroy(table);
	return ret;
}

Test(map_memory, parsing_survives_every_failure)
{
	fail_each(parse);
}

static int add_long(struct dmcore *core)
{
	char params[PARAMS_LONG + 1];
	struct dmcore_table *table;
	int ret = dmcore_table_create(core, 0, &table);

	if (ret)
		return ret;
	memset(params, ' ', PARAMS_LONG);
	params[PARAMS_LONG] = '\0';
	for (unsigned int i = 0; i < 1000 && ret == 0; i++)
		ret = dmcore_table_add(table, i, 1, "error", i % 100 ? NULL : params);
	dmcore_table_destroy(table);
	return ret;
}

Test(map_memory, adding_target_by_target_survives_every_failure)
{
	fail_each(add_long);
}

static int add_devices(struct dmcore *core)
{
	struct dmcore_table *table;
	char params[] = "mem:8s,name=x 0";
	int ret = dmcore_table_create(core, 0, &table);

	if (ret)
		return ret;
	for (unsigned int i = 0; i < 26 && ret == 0; i++) {
		params[strlen("mem:8s,name=")] = (char)('a' + (int)i);
		ret = dmcore_table_add(table, 8 * i, 8, "linear", params);
	}
	dmcore_table_destroy(table);
	return ret;
}

Test(map_memory, opening_many_devices_survives_every_failure)
{
	fail_each(add_devices);
}

static int make_device(struct dmcore *core)
{
	struct dmcore_device *device;
	struct dmcore_table *table;
	int ret = dmcore_device_create(core, "a", "uuid", 0, &device);

	if (ret)
		return ret;
	ret = dmcore_table_parse(core, "0 8 linear mem:8s 0", 0, &table);
	if (ret == 0)
		ret = dmcore_device_load(device, table);
	if (ret == 0)
		ret = dmcore_device_resume(device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	return ret;
}

Test(map_memory, making_a_device_survives_every_failure)
{
	fail_each(make_device);
}

static int list_bad_blocks(struct dmcore *core)
{
	struct dmcore_device *device;
	int64_t ret =
		dmcore_device_create_concise(core, "a,,,rw,0 64 dust mem:64s 0 512", 0, &device);
	char text[32];

	if (ret)
		return (int)ret;
	/* More than the first bucket of each level has room for. */
	for (unsigned int i = 0; i < 64 && ret == 0; i++) {
		snprintf(text, sizeof(text), "addbadblock %u", i);
		ret = dmcore_device_message(device, 0, text, NULL, 0);
	}
	if (ret == 0)
		ret = dmcore_device_message(device, 0, "listbadblocks", NULL, 0);
	cr_assert_eq(dmcore_device_remove(device), 0);
	return ret < 0 ? (int)ret : 0;
}

Test(map_memory, list_of_bad_blocks_survives_every_failure)
{
	fail_each(list_bad_blocks);
}

static int make_concise(struct dmcore *core)
{
	struct dmcore_device *last;
	int ret = dmcore_device_create_concise(core,
					       "a,u,,rw,0 8 linear mem:8s 0;"
					       "b,,,rw,0 8 linear a 0",
					       0, &last);

	cr_assert_eq(ret != 0, last == NULL);
	if (ret == 0) {
		cr_assert_eq(dmcore_device_remove(last), 0);
		cr_assert_eq(dmcore_device_remove(dmcore_device_find(core, "a")), 0);
	}
	return ret;
}

Test(map_memory, concise_form_survives_every_failure)
{
	fail_each(make_concise);
}

static int print(struct dmcore *core)
{
	struct dmcore_table *table;
	int ret = dmcore_table_create(core, 0, &table);
	char text[16];

	for (unsigned int i = 0; i < 100 && ret == 0; i++)
		ret = dmcore_table_add(table, i, 1, "zero", NULL);
	if (ret == 0) {
		int64_t length = dmcore_table_text(table, DMCORE_TEXT_TABLE, text, sizeof(text));

		ret = length < 0 ? (int)length : 0;
	}
	dmcore_table_destroy(table);
	return ret;
}

Test(map_memory, printing_survives_every_failure)
{
	fail_each(print);
}
