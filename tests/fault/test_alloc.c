/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of every control call fails, once and from then on: the call says so or does
 * without, nothing leaks, and what there is can be destroyed.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include <dmcore.h>
#include <dmcore/driver.h>
#include <dmcore/target.h>

#include "support/fault_driver.h"
#include "support/heap.h"
#include "support/scratch.h"

static struct dmcore_options heap_options(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	return options;
}

static struct scratch scratch;

/* A scenario undoes what it did, also if it failed in between, and returns what went wrong. */
typedef int (*scenario_fn)(struct dmcore *core);

struct run {
	struct dmcore *core;
	scenario_fn scenario;
};

static int run_scenario(void *context)
{
	const struct run *run = context;

	return run->scenario(run->core);
}

/* In a core that has its own memory already, or (core NULL) from nothing. */
static void survives(scenario_fn scenario, bool with_core)
{
	struct dmcore_options options = heap_options();
	struct run run = { .scenario = scenario };
	struct heap_loop loop = { run_scenario, NULL, &run, .may_do_without = true };

	scratch_create(&scratch, NULL, 1 << 20);
	for (unsigned int for_good = 0; for_good < 2; for_good++) {
		if (with_core) {
			cr_assert_eq(dmcore_create(&options, &run.core), 0);
			cr_assert_eq(fault_register(run.core), 0);
		}
		heap_fail_each(&loop, for_good);
		cr_assert_eq(dmcore_destroy(run.core), 0, "%s", dmcore_error_message());
		cr_assert_eq(heap.outstanding, 0);
	}
	scratch_close(&scratch);
}

/* ---- scenarios ------------------------------------------------------------------------------ */

static int make_core(struct dmcore *unused)
{
	struct dmcore_options options = heap_options();
	struct dmcore *core = (void *)&options;
	int ret = dmcore_create(&options, &core);

	(void)unused;
	cr_assert(ret == 0 || !core);
	cr_assert_eq(dmcore_destroy(core), 0);
	return ret;
}

static int make_queue_with(struct dmcore *core, enum dmcore_backend backend, unsigned int workers)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue *queue = (void *)&options;
	int ret;

	options.backend = backend;
	options.workers = workers;
	ret = dmcore_queue_create(core, &options, &queue);
	cr_assert(ret == 0 || !queue);
	if (ret == 0)
		cr_assert_eq(dmcore_queue_poll(queue, 0, 1, 0), 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	return ret;
}

static int make_queue(struct dmcore *core)
{
	return make_queue_with(core, DMCORE_BACKEND_AUTO, 0);
}

static int make_queue_of_workers(struct dmcore *core)
{
	return make_queue_with(core, DMCORE_BACKEND_PREAD, 3);
}

/* Where memory can be registered; want of lockable memory isn't that of the heap. */
static int register_buffers(struct dmcore *core)
{
	static unsigned char memory[4096] __attribute__((aligned(4096)));
	struct dmio_bvec buffers[2] = { { memory, 1024 }, { memory + 2048, 2048 } };
	struct dmcore_queue *queue;
	int ret = dmcore_queue_create(core, NULL, &queue);

	if (ret == 0) {
		ret = dmcore_queue_register_buffers(queue, buffers, 2);
		if (ret == -EOPNOTSUPP || heap.failed == 0)
			ret = 0;
	}
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	return ret;
}

static int attach_file(struct dmcore *core)
{
	struct dmcore_file *file = (void *)core;
	int ret = dmcore_file_attach(core, scratch.fd, &file);

	cr_assert_eq(ret == 0, file != NULL);
	dmcore_file_detach(file);
	return ret;
}

static int open_and_close(struct dmcore *core, const char *spec)
{
	struct dmcore_bdev *bdev = (void *)core;
	struct dmcore_bdev *again = NULL;
	int ret = dmcore_bdev_open(core, spec, 0, &bdev);

	if (ret) {
		cr_assert_null(bdev);
		return ret;
	}
	ret = dmcore_bdev_open(core, spec, 0, &again);
	cr_assert_eq(dmcore_bdev_close(again), 0);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	return ret;
}

static int open_file(struct dmcore *core)
{
	return open_and_close(core, scratch.path);
}

static int open_mem(struct dmcore *core)
{
	return open_and_close(core, "mem:1M,name=disk");
}

static int open_unshared_mem(struct dmcore *core)
{
	return open_and_close(core, "mem:1M");
}

static int plain_io(struct dmcore *core)
{
	unsigned char sector[DMCORE_SECTOR_BYTES] = { 1 };
	struct dmcore_bdev *bdev;
	int ret = dmcore_bdev_open(core, scratch.path, 0, &bdev);

	if (ret)
		return ret;
	ret = dmcore_pwrite(bdev, sector, sizeof(sector), 0);
	if (ret == 0)
		ret = dmcore_pread(bdev, sector, sizeof(sector), 0);
	if (ret == 0)
		ret = dmcore_write_zeroes(bdev, sizeof(sector), 0);
	if (ret == 0)
		ret = dmcore_flush(bdev);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	return ret;
}

/* Plain I/O keeps its queue for the next call, so only a new core begins anew. */
static int plain_io_in_a_new_core(struct dmcore *unused)
{
	struct dmcore_options options = heap_options();
	struct dmcore *core;
	int ret = dmcore_create(&options, &core);

	(void)unused;
	if (ret == 0)
		ret = plain_io(core);
	cr_assert_eq(dmcore_destroy(core), 0);
	return ret;
}

static const char *table_text;

static int parse_table(struct dmcore *core)
{
	struct dmcore_table *table = (void *)core;
	int ret = dmcore_table_parse(core, table_text, 0, &table);

	cr_assert(ret == 0 || !table);
	dmcore_table_destroy(table);
	return ret;
}

static int make_device(struct dmcore *core)
{
	struct dmcore_device *device = NULL;
	struct dmcore_table *table;
	char text[64];
	int ret = dmcore_table_parse(core, table_text, 0, &table);

	if (ret)
		return ret;
	ret = dmcore_device_create(core, "m", "uuid-of-m", 0, &device);
	if (ret == 0)
		ret = dmcore_device_load(device, table);
	if (ret) {
		/* Not loaded: still ours. */
		dmcore_table_destroy(table);
	} else {
		ret = dmcore_device_resume(device);
		if (ret == 0 && dmcore_device_text(device, DMCORE_TEXT_TABLE, 0, text,
						   sizeof(text)) < 0)
			ret = -ENOMEM;
	}
	cr_assert_eq(dmcore_device_remove(device), 0);
	return ret;
}

static int add_targets(struct dmcore *core)
{
	struct dmcore_table *table = (void *)core;
	char text[16];
	int ret = dmcore_table_create(core, 0, &table);

	if (ret) {
		cr_assert_null(table);
		return ret;
	}
	ret = dmcore_table_add(table, 0, 8, "linear", "fault:64,id=a 8");
	if (ret == 0)
		ret = dmcore_table_add(table, 8, 8, "linear", "mem:1M 0");
	if (ret == 0)
		ret = dmcore_table_complete(table);
	if (ret == 0 && dmcore_table_text(table, DMCORE_TEXT_TABLE, text, sizeof(text)) < 0)
		ret = -ENOMEM;
	dmcore_table_destroy(table);
	return ret;
}

static int make_client(struct dmcore *core)
{
	struct dmio_client *client = (void *)core;
	struct dmcore_queue *queue;
	int ret = dmcore_queue_create(core, NULL, &queue);

	if (ret)
		return ret;
	ret = dmio_client_create(queue, 32, &client);
	if (ret == 0) {
		ret = dmio_get(client, 64);
		if (ret == 0)
			dmio_put(client, 64);
	} else {
		cr_assert_null(client);
	}
	cr_assert_eq(dmio_client_destroy(client), 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	return ret;
}

static _Atomic unsigned int works_run;

static void count_work(struct dmcore_work *work)
{
	(void)work;
	atomic_fetch_add(&works_run, 1);
}

static int post_work(struct dmcore *unused)
{
	static struct dmcore_work work;
	struct dmcore_options options = heap_options();
	struct dmcore *core;
	int ret = dmcore_create(&options, &core);

	(void)unused;
	if (ret)
		return ret;
	atomic_store(&works_run, 0);
	work.fn = count_work;
	ret = dmcore_service_post(core, &work);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(atomic_load(&works_run), ret == 0, "an accepted post runs, no other does");
	/* Without memory for its queue the service can't be started. */
	return ret == -EAGAIN ? -ENOMEM : ret;
}

static enum dmcore_map_result kill_all(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static int construct(struct dmcore_target *target, struct dmcore_args *args)
{
	(void)target;
	(void)args;
	return 0;
}

/* More than one, so that the list grows. */
static int register_targets(struct dmcore *unused)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h" };
	static struct dmcore_target_type types[8];
	struct dmcore_options options = heap_options();
	struct dmcore *core;
	int ret = dmcore_create(&options, &core);

	(void)unused;
	for (unsigned int i = 0; i < 8 && ret == 0; i++) {
		types[i] = (struct dmcore_target_type){
			.struct_size = sizeof(types[i]),
			.name = names[i],
			.ctr = construct,
			.map = kill_all,
		};
		ret = dmcore_target_register(core, &types[i]);
	}
	cr_assert_eq(dmcore_destroy(core), 0);
	return ret;
}

static void see_event(struct dmcore_watch *watch, void *context)
{
	(void)watch;
	(void)context;
}

static int watch_from_a_queue(struct dmcore *core)
{
	struct dmcore_device *device = NULL;
	struct dmcore_watch *watch = NULL;
	struct dmcore_queue *queue;
	int ret = dmcore_queue_create(core, NULL, &queue);

	if (ret)
		return ret;
	ret = dmcore_device_create(core, "w", NULL, 0, &device);
	if (ret == 0)
		ret = dmcore_watch_create(device, 0, queue, see_event, NULL, &watch);
	dmcore_watch_destroy(watch);
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	return ret;
}

static int open_nothing(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)bdev;
	(void)args;
	(void)flags;
	return -ENXIO;
}

static void close_nothing(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void fail_request(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	(void)bdev;
	dmcore_bio_complete(bio, -EIO);
}

static int register_driver(struct dmcore *unused)
{
	static const struct dmcore_driver driver = {
		.struct_size = sizeof(driver),
		.name = "nothing",
		.open = open_nothing,
		.close = close_nothing,
		.submit = fail_request,
	};
	struct dmcore_options options = heap_options();
	struct dmcore *core;
	int ret = dmcore_create(&options, &core);

	(void)unused;
	if (ret == 0)
		ret = dmcore_driver_register(core, &driver);
	if (ret == 0)
		ret = fault_register(core);
	cr_assert_eq(dmcore_destroy(core), 0);
	return ret;
}

Test(alloc, making_a_core)
{
	survives(make_core, false);
}

Test(alloc, making_a_queue)
{
	survives(make_queue, true);
}

Test(alloc, making_a_queue_of_workers)
{
	survives(make_queue_of_workers, true);
}

Test(alloc, opening_a_file)
{
	survives(open_file, true);
}

Test(alloc, opening_a_ram_disk)
{
	survives(open_mem, true);
	survives(open_unshared_mem, true);
}

Test(alloc, plain_io)
{
	survives(plain_io_in_a_new_core, false);
}

Test(alloc, registering_a_driver)
{
	survives(register_driver, false);
}

Test(alloc, registering_target_types)
{
	survives(register_targets, false);
}

Test(alloc, registering_buffers)
{
	survives(register_buffers, true);
}

Test(alloc, attaching_a_file)
{
	survives(attach_file, true);
}

Test(alloc, adding_target_by_target)
{
	survives(add_targets, true);
}

Test(alloc, watching_from_a_queue)
{
	survives(watch_from_a_queue, true);
}

Test(alloc, parsing_a_table_of_many_targets)
{
	static char many[200 * 48];
	size_t used = 0;

	for (unsigned int i = 0; i < 200; i++)
		used += (size_t)snprintf(many + used, sizeof(many) - used,
					 "%u 1 linear fault:256,id=%u %u\n", i, i % 20, i);
	table_text = many;
	survives(parse_table, true);
}

Test(alloc, making_a_device)
{
	table_text = "0 64 striped 2 8 fault:64,id=a 0 fault:64,id=b 0\n64 8 linear mem:4k 0";
	survives(make_device, true);
}

Test(alloc, making_a_dmio_client)
{
	survives(make_client, true);
}

Test(alloc, posting_to_the_service)
{
	survives(post_work, false);
}
