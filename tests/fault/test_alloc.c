/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of every control call fails, once and from then on: the call says so or does
 * without, nothing leaks, and what there is can be destroyed. The same for file descriptors.
 */
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/resource.h>

#include <criterion/criterion.h>

#include <dmcore.h>

#include "support/fault_driver.h"
#include "support/heap.h"
#include "support/scratch.h"

#define ROUNDS_MAX 10000u

static struct dmcore_options heap_options(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	return options;
}

static struct scratch scratch;

/* A scenario undoes what it did, also if it failed in between, and returns what went wrong. */
typedef int (*scenario_fn)(struct dmcore *core);

static void run_until_it_passes(struct dmcore *core, scenario_fn scenario)
{
	unsigned int failures = 0;
	unsigned int n;

	for (n = 1; n < ROUNDS_MAX; n++) {
		unsigned int before = heap.outstanding;
		int ret;

		atomic_store(&heap.failed, 0);
		atomic_store(&heap.left, n);
		ret = scenario(core);
		atomic_store(&heap.left, 0);
		cr_assert_eq(heap.outstanding, before, "allocation %u: %d leaked", n,
			     (int)(heap.outstanding - before));
		if (heap.failed == 0) {
			cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
			break;
		}
		cr_assert(ret == -ENOMEM || ret == 0, "allocation %u: %d: %s", n, ret,
			  dmcore_error_message());
		failures += ret != 0;
	}
	cr_assert_lt(n, ROUNDS_MAX);
	cr_assert_gt(failures, 0, "nothing was allocated");
}

/* In a core that has its own memory already, or (core NULL) from nothing. */
static void survives(scenario_fn scenario, bool with_core)
{
	struct dmcore_options options = heap_options();
	struct dmcore *core = NULL;

	scratch_create(&scratch, NULL, 1 << 20);
	for (unsigned int for_good = 0; for_good < 2; for_good++) {
		heap.for_good = for_good;
		if (with_core) {
			cr_assert_eq(dmcore_create(&options, &core), 0);
			cr_assert_eq(fault_register(core), 0);
		}
		run_until_it_passes(core, scenario);
		cr_assert_eq(dmcore_destroy(core), 0, "%s", dmcore_error_message());
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

static int register_driver(struct dmcore *unused)
{
	struct dmcore_options options = heap_options();
	struct dmcore *core;
	int ret = dmcore_create(&options, &core);

	(void)unused;
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

Test(alloc, parsing_a_table_of_each_target)
{
	static const char *const texts[] = {
		"0 8 zero",
		"0 8 error",
		"0 8 error fault:64,id=a 3",
		"0 8 linear mem:1M 0",
		"0 8 linear fault:64,id=a 8\n8 8 linear fault:64,id=b 0\n"
		"16 8 linear fault:64,id=a 0",
		"0 64 striped 4 8 fault:64,id=a 0 fault:64,id=b 0 fault:64,id=c 0 fault:64,id=a 32",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		table_text = texts[i];
		survives(parse_table, true);
	}
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

/* ---- descriptors that run out --------------------------------------------------------------- */

static unsigned int num_open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	cr_assert_not_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 3; /* "." and "..", and that of dir */
}

static int use_descriptors(void)
{
	struct dmcore_queue *queue = NULL;
	struct dmcore_bdev *bdev = NULL;
	struct dmcore *core;
	int ret = dmcore_create(NULL, &core);

	cr_assert_eq(ret, 0);
	ret = dmcore_queue_create(core, NULL, &queue);
	if (ret == 0)
		ret = dmcore_bdev_open(core, scratch.path, 0, &bdev);
	if (ret == 0)
		ret = dmcore_queue_fd(queue);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	/* So a demand for io_uring ends. */
	if (ret == -EOPNOTSUPP && strstr(dmcore_error_message(), "EMFILE"))
		ret = -EMFILE;
	return ret;
}

Test(descriptors, running_out_of_them_is_an_error_and_leaks_none)
{
	struct rlimit old;
	struct rlimit limit;
	unsigned int before;
	int ret = -EMFILE;

	scratch_create(&scratch, NULL, 1 << 20);
	cr_assert_geq(use_descriptors(), 0);
	before = num_open_files();
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	for (limit.rlim_cur = (rlim_t)scratch.fd + 1; ret == -EMFILE; limit.rlim_cur++) {
		cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
		ret = use_descriptors();
		cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
		cr_assert(ret >= 0 || ret == -EMFILE, "with %u: %d: %s",
			  (unsigned int)limit.rlim_cur, ret, dmcore_error_message());
		cr_assert_eq(num_open_files(), before);
	}
	cr_assert_gt(limit.rlim_cur, (rlim_t)scratch.fd + 3);
	scratch_close(&scratch);
}
