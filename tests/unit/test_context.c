/* SPDX-License-Identifier: MIT */
/* The core object: options, what keeps it from being destroyed, and two of them side by side. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include <dmcore/version.h>

#include "support/scratch.h"
#include "support/stage.h"

static int create_with(const struct dmcore_options *options)
{
	struct dmcore *core = (void *)&core;
	int ret = dmcore_create(options, &core);

	if (ret)
		cr_assert_null(core, "a failed call must clear its result");
	cr_assert_eq(dmcore_destroy(core), 0);
	return ret;
}

static void *some_alloc(size_t bytes, void *context)
{
	(void)context;
	return malloc(bytes);
}

static void some_release(void *memory, void *context)
{
	(void)context;
	free(memory);
}

Test(context, refuses_options_out_of_range)
{
	static const struct {
		struct dmcore_options options;
		const char *message;
	} cases[] = {
		{ { .struct_size = 0 }, "struct_size" },
		{ { .struct_size = sizeof(size_t) - 1 }, "struct_size" },
		{ { .flags = DMCORE_NO_MODULES << 1 }, "flag" },
		{ { .backend = (enum dmcore_backend)3 }, "backend" },
		{ { .backend = (enum dmcore_backend)-1 }, "backend" },
		{ { .bdevs_max = DMCORE_BDEVS_MAX + 1 }, "bdevs_max 65537" },
		{ { .alloc = some_alloc }, "alloc and release" },
		{ { .release = some_release }, "alloc and release" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dmcore_options options = cases[i].options;

		if (i >= 2)
			options.struct_size = sizeof(options);
		cr_assert_eq(create_with(&options), -EINVAL, "case %zu", i);
		cr_assert_not_null(strstr(dmcore_error_message(), cases[i].message), "%zu: %s", i,
				   dmcore_error_message());
	}
	cr_assert_eq(dmcore_create(NULL, NULL), -EINVAL);
}

Test(context, takes_the_options_of_an_older_caller)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	/* What lies behind struct_size isn't the caller's. */
	options.struct_size = sizeof(size_t);
	memset((char *)&options + sizeof(size_t), 0xff, sizeof(options) - sizeof(size_t));
	cr_assert_eq(create_with(&options), 0, "%s", dmcore_error_message());
	options = (struct dmcore_options){ .struct_size = offsetof(struct dmcore_options, alloc) };
	options.alloc = some_alloc;
	cr_assert_eq(create_with(&options), 0, "%s", dmcore_error_message());
	cr_assert_eq(create_with(NULL), 0);
}

Test(context, takes_the_most_and_the_fewest_devices)
{
	static const unsigned int numbers[] = { 1, DMCORE_BDEVS_MAX };

	for (unsigned int i = 0; i < 2; i++) {
		struct dmcore_options options = DMCORE_OPTIONS_INIT;
		struct dmcore_queue *queue;
		struct dmcore_bdev *bdev;
		struct dmcore_bdev *second = NULL;
		struct dmcore *core;

		options.bdevs_max = numbers[i];
		cr_assert_eq(dmcore_create(&options, &core), 0, "%s", dmcore_error_message());
		cr_assert_eq(dmcore_queue_create(core, NULL, &queue), 0);
		cr_assert_eq(dmcore_bdev_open(core, "mem:1M", 0, &bdev), 0);
		cr_assert_eq(dmcore_bdev_open(core, "mem:1M", 0, &second), i == 0 ? -ENFILE : 0);
		cr_assert_eq(dmcore_bdev_close(second), 0);
		cr_assert_eq(dmcore_bdev_close(bdev), 0);
		cr_assert_eq(dmcore_queue_destroy(queue), 0);
		cr_assert_eq(dmcore_destroy(core), 0);
	}
}

Test(context, destroying_nothing_is_no_error)
{
	cr_assert_eq(dmcore_destroy(NULL), 0);
	cr_assert_eq(dmcore_queue_destroy(NULL), 0);
	cr_assert_eq(dmcore_bdev_close(NULL), 0);
	cr_assert_eq(dmcore_device_remove(NULL), 0);
	cr_assert_eq(dmio_client_destroy(NULL), 0);
	dmcore_table_destroy(NULL);
	dmcore_file_detach(NULL);
	dmcore_bio_put(NULL);
	dmcore_free(NULL, NULL);
}

Test(context, tells_its_version)
{
	cr_assert_str_eq(dmcore_version(), DMCORE_VERSION_STRING);
}

/* ---- what is left --------------------------------------------------------------------------- */

static void refuses(struct dmcore *core, const char *message)
{
	cr_assert_eq(dmcore_destroy(core), -EBUSY);
	cr_assert_not_null(strstr(dmcore_error_message(), message), "'%s' isn't in '%s'", message,
			   dmcore_error_message());
}

Test(context, destroy_names_what_is_left_and_changes_nothing)
{
	struct dmcore_table *table;
	struct dmcore_queue *queue;
	struct dmcore_bdev *bdev;
	struct dmcore_bdev *again;
	struct dmcore *core;
	unsigned char sector[DMCORE_SECTOR_BYTES];

	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_queue_create(core, NULL, &queue), 0);
	refuses(core, "1 queues");
	cr_assert_eq(dmcore_queue_poll(queue, 0, 1, 0), 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);

	cr_assert_eq(dmcore_bdev_open(core, "mem:1M,name=disk", 0, &bdev), 0);
	refuses(core, "mem:1M,name=disk is still open");
	cr_assert_eq(dmcore_pread(bdev, sector, sizeof(sector), 0), 0);
	cr_assert_eq(dmcore_bdev_open(core, "mem:1M,name=disk", 0, &again), 0);
	cr_assert_eq(again, bdev);
	cr_assert_eq(dmcore_bdev_close(again), 0);
	refuses(core, "mem:1M,name=disk is still open");
	cr_assert_eq(dmcore_bdev_close(bdev), 0);

	cr_assert_eq(dmcore_table_parse(core, "0 8 linear mem:1M 0", 0, &table), 0);
	refuses(core, "table");
	dmcore_table_destroy(table);

	cr_assert_eq(dmcore_table_create(core, 0, &table), 0);
	refuses(core, "table");
	dmcore_table_destroy(table);
	cr_assert_eq(dmcore_destroy(core), 0);
}

static struct dmcore_device *make_device(struct dmcore *core, const char *name, const char *text)
{
	struct dmcore_device *device;
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(core, text, 0, &table), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_create(core, name, NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0);
	return device;
}

Test(context, destroy_removes_mapped_devices_and_their_stacks)
{
	struct dmcore_bdev *opened;
	struct dmcore *core;

	cr_assert_eq(dmcore_create(NULL, &core), 0);
	make_device(core, "low", "0 2048 linear mem:1M 0");
	make_device(core, "middle", "0 1024 linear low 0\n1024 1024 linear /dev/mapper/low 1024");
	make_device(core, "high", "0 2048 striped 2 8 middle 0 middle 1024");
	/* One that is still empty, and one with a table that never went live. */
	cr_assert_eq(dmcore_device_create(core, "empty", NULL, 0, &(struct dmcore_device *){ 0 }),
		     0);
	cr_assert_eq(dmcore_bdev_open(core, "middle", 0, &opened), 0);
	refuses(core, "middle is still open");
	cr_assert_eq(dmcore_bdev_close(opened), 0);
	cr_assert_eq(dmcore_destroy(core), 0, "%s", dmcore_error_message());
}

/* ---- two of them ---------------------------------------------------------------------------- */

Test(context, two_cores_share_nothing)
{
	unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev[2];
	struct stage stages[2];
	struct dmcore_bio *bio;

	for (unsigned int i = 0; i < 2; i++) {
		stage_open(&stages[i], NULL, NULL);
		stage_bdev(&stages[i], "mem:1M,name=same", 0);
		bdev[i] = stage_map(&stages[i], "same", "0 1024 linear mem:1M,name=same 512");
	}
	for (unsigned int i = 0; i < 2; i++) {
		pattern_fill(buffer, 8, 8, i);
		cr_assert_eq(stage_run(&stages[i], bdev[i], DMCORE_OP_WRITE, 0, 8, 8, buffer), 0);
	}
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(stage_run(&stages[i], bdev[i], DMCORE_OP_READ, 0, 8, 8, buffer), 0);
		cr_assert_eq(pattern_differs(buffer, 8, 8, i), -1);
	}
	cr_assert_neq(dmcore_device_find(stages[0].core, "same"),
		      dmcore_device_find(stages[1].core, "same"));
	/* A device has no business in a queue of the other core. */
	bio = stage_bio(&stages[0], bdev[1], DMCORE_OP_READ, 0, 8, buffer, NULL);
	cr_assert_eq(dmcore_bio_submit(bio), -EINVAL);
	dmcore_bio_put(bio);
	stage_close(&stages[0]);
	cr_assert_eq(stage_run(&stages[1], bdev[1], DMCORE_OP_READ, 0, 8, 8, buffer), 0);
	cr_assert_eq(pattern_differs(buffer, 8, 8, 1), -1);
	stage_close(&stages[1]);
}

Test(context, two_cores_may_use_one_file)
{
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct scratch scratch;
	struct dmcore_bdev *bdev[2];
	struct stage stages[2];

	scratch_create(&scratch, NULL, 1 << 20);
	for (unsigned int i = 0; i < 2; i++) {
		stage_open(&stages[i], NULL, NULL);
		bdev[i] = stage_bdev(&stages[i], scratch.path, 0);
	}
	for (unsigned int i = 0; i < 100; i++) {
		pattern_fill(buffer, i, 1, i);
		cr_assert_eq(stage_run(&stages[i % 2], bdev[i % 2], DMCORE_OP_WRITE, 0, i, 1,
				       buffer), 0);
		memset(buffer, 0, sizeof(buffer));
		cr_assert_eq(stage_run(&stages[1 - i % 2], bdev[1 - i % 2], DMCORE_OP_READ, 0, i,
				       1, buffer), 0);
		cr_assert_eq(pattern_differs(buffer, i, 1, i), -1);
	}
	stage_close(&stages[1]);
	stage_close(&stages[0]);
	scratch_close(&scratch);
}

static uint64_t random_of(uint64_t seed, unsigned int number)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore *core;
	uint64_t result = 0;

	options.seed = seed;
	cr_assert_eq(dmcore_create(&options, &core), 0);
	for (unsigned int i = 0; i <= number; i++)
		result = dmcore_random(core);
	cr_assert_eq(dmcore_destroy(core), 0);
	return result;
}

Test(context, random_numbers_repeat_from_the_seed)
{
	for (unsigned int i = 0; i < 16; i++) {
		cr_assert_eq(random_of(0, i), random_of(0, i));
		cr_assert_neq(random_of(0, i), random_of(0, i + 1));
		cr_assert_neq(random_of(0, i), random_of(1, i));
	}
}
