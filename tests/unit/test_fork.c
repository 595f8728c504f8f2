/* SPDX-License-Identifier: MIT */
/*
 * A core in a child of fork(): every call of the interface that could wait for the parent's threads
 * or touch its rings is refused at once, and the parent goes on undisturbed. Queues and their
 * requests are in queue/test_owner.c.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "base/core.h"
#include "bdev/bdev.h"
#include "map/map.h"
#include "support/child.h"
#include "support/fixture.h"

TestSuite(fork, .init = fixture_open, .fini = fixture_close);

static struct {
	struct dmcore_bdev *bdev;
	struct dmcore_device *device; /* with a live table */
	struct dmcore_device *empty;
	struct dmcore_table *table; /* that isn't loaded */
	struct dmcore_watch *watch;
	struct dmcore_timer timer;
	struct dmcore_file *file;
} parent;

/* The line of the first check that failed, as an exit status: 0 is success. */
#define CHECK(expression)                                                                          \
	do {                                                                                       \
		if (!(expression))                                                                 \
			return __LINE__ % 250 + 1;                                                 \
	} while (0)

static int try_devices(void)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	struct dmcore_device *made;
	uint32_t event_nr = 0;
	char text[64];

	CHECK(dmcore_device_create(fixture.core, "new", NULL, 0, &made) == -EOWNERDEAD && !made);
	CHECK(dmcore_device_create_concise(fixture.core, "c,,,,0 8 zero", 0, &made) == -EOWNERDEAD);
	CHECK(dmcore_device_load(parent.empty, parent.table) == -EOWNERDEAD);
	CHECK(dmcore_device_clear(parent.empty) == -EOWNERDEAD);
	CHECK(dmcore_device_suspend(parent.device, 0, 0) == -EOWNERDEAD);
	CHECK(dmcore_device_resume(parent.device) == -EOWNERDEAD);
	CHECK(dmcore_device_rename(parent.device, "other") == -EOWNERDEAD);
	CHECK(dmcore_device_set_uuid(parent.device, "uuid") == -EOWNERDEAD);
	CHECK(dmcore_device_remove(parent.empty) == -EOWNERDEAD);
	CHECK(dmcore_device_remove_deferred(parent.empty) == -EOWNERDEAD);
	CHECK(dmcore_device_info(parent.device, &info) == -EOWNERDEAD);
	CHECK(dmcore_device_text(parent.device, DMCORE_TEXT_TABLE, 0, text, sizeof(text)) ==
	      -EOWNERDEAD);
	CHECK(dmcore_device_message(parent.device, 0, "hello", text, sizeof(text)) == -EOWNERDEAD);
	CHECK(dmcore_device_wait(parent.device, &event_nr, -1) == -EOWNERDEAD);
	CHECK(dmcore_watch_create(parent.device, 0, NULL, NULL, NULL, &parent.watch) ==
	      -EOWNERDEAD);
	CHECK(!dmcore_device_find(fixture.core, "live"));
	CHECK(!dmcore_device_at(fixture.core, 0));
	return 0;
}

static int try_tables(void)
{
	struct dmcore_table *made;
	char text[64];

	CHECK(dmcore_table_create(fixture.core, 0, &made) == -EOWNERDEAD && !made);
	CHECK(dmcore_table_parse(fixture.core, "0 8 zero", 0, &made) == -EOWNERDEAD && !made);
	CHECK(dmcore_table_add(parent.table, 8, 8, "zero", "") == -EOWNERDEAD);
	CHECK(dmcore_table_complete(parent.table) == -EOWNERDEAD);
	CHECK(dmcore_table_text(parent.table, DMCORE_TEXT_TABLE, text, sizeof(text)) ==
	      -EOWNERDEAD);
	/* Says nothing, and does nothing. */
	dmcore_table_destroy(parent.table);
	CHECK(dmcore_table_num_targets(parent.table) == 1);
	CHECK(!dmcore_target_type_at(fixture.core, 0));
	CHECK(dmcore_target_register(fixture.core, NULL) == -EOWNERDEAD);
	return 0;
}

static int try_stats(void)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct dmcore_stats_area area;

	CHECK(dmcore_stats_create(parent.device, &options) == -EOWNERDEAD);
	CHECK(dmcore_stats_read(parent.device, 0, 0, 1, &area, sizeof(area), NULL) == -EOWNERDEAD);
	CHECK(dmcore_stats_clear(parent.device, 0) == -EOWNERDEAD);
	CHECK(dmcore_stats_delete(parent.device, 0) == -EOWNERDEAD);
	return 0;
}

static int try_bdevs(void)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	const struct dmcore_driver *driver = dmcore__driver_find(fixture.core, "mem", 3);
	struct dmcore_file *file;
	struct dmcore_bdev *made;
	char sector[DMCORE_SECTOR_BYTES];

	CHECK(dmcore_bdev_open(fixture.core, "mem:8s", 0, &made) == -EOWNERDEAD && !made);
	CHECK(dmcore_bdev_limits(parent.bdev, &limits) == -EOWNERDEAD);
	CHECK(dmcore_bdev_close(parent.bdev) == -EOWNERDEAD);
	CHECK(dmcore_driver_register(fixture.core, driver) == -EOWNERDEAD);
	CHECK(dmcore_pread(parent.bdev, sector, sizeof(sector), 0) == -EOWNERDEAD);
	CHECK(dmcore_flush(parent.bdev) == -EOWNERDEAD);
	CHECK(dmcore_file_attach(fixture.core, 0, &file) == -EOWNERDEAD && !file);
	/* It stays the parent's: freed twice it would be found by the address sanitizer. */
	dmcore_file_detach(parent.file);
	dmcore_file_detach(parent.file);
	return 0;
}

static int try_queues(void)
{
	struct dmcore_queue *made;

	CHECK(dmcore_queue_create(fixture.core, NULL, &made) == -EOWNERDEAD && !made);
	CHECK(dmcore_timer_start(fixture.queue, &parent.timer, 1) == -EOWNERDEAD);
	CHECK(!dmcore_service_queue(fixture.core));
	CHECK(dmcore_queue_destroy(fixture.queue) == -EOWNERDEAD);
	CHECK(dmcore_destroy(fixture.core) == -EOWNERDEAD);
	return 0;
}

static void never(struct dmcore_timer *timer)
{
	(void)timer;
}

/* What fn() returns in a child, where nobody may wait for the lock that the parent holds. */
static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid;

	dmcore__lock(fixture.core);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		child_exit(fn());
	}
	dmcore__unlock(fixture.core);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

static void make_objects(void)
{
	parent.device = fixture_device("live", "0 8 linear fault:64,id=a 0");
	parent.bdev = fixture_bdev("mem:64s");
	parent.table = fixture_table("0 8 zero");
	parent.timer.fn = never;
	cr_assert_eq(dmcore_device_create(fixture.core, "empty", NULL, 0, &parent.empty), 0);
	cr_assert_eq(dmcore_watch_create(parent.device, 0, NULL, NULL, NULL, &parent.watch), 0);
	cr_assert_eq(dmcore_file_attach(fixture.core, 0, &parent.file), 0);
}

/* All of it still works. */
static void free_objects(void)
{
	static char sectors[8 * DMCORE_SECTOR_BYTES];

	cr_assert_eq(dmcore_pread(parent.bdev, sectors, sizeof(sectors), 0), 0);
	cr_assert_eq(dmcore_pread(dmcore_device_bdev(parent.device), sectors, sizeof(sectors), 0),
		     0);
	dmcore_file_detach(parent.file);
	dmcore_watch_destroy(parent.watch);
	dmcore_table_destroy(parent.table);
	cr_assert_eq(dmcore_device_remove(parent.empty), 0);
	cr_assert_eq(dmcore_device_remove(parent.device), 0);
}

Test(fork, a_child_is_refused_by_every_control_call)
{
	static int (*const tries[])(void) = { try_devices, try_tables, try_stats, try_bdevs,
					      try_queues };

	make_objects();
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
		cr_assert_eq(in_child(tries[i]), 0, "part %zu: the check in line %d (of 250)", i,
			     in_child(tries[i]) - 1);
	free_objects();
}
