/* SPDX-License-Identifier: MIT */
/* The life of mapped devices (map/device.c). */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <dmcore/driver.h>
#include <dmcore/event.h>

#include "base/compiler.h"
#include "base/core.h"
#include "map/map.h"
#include "support/child.h"
#include "support/fixture.h"

#define SECTOR DMCORE_SECTOR_BYTES

TestSuite(create, .init = fixture_open, .fini = fixture_close);
TestSuite(load, .init = fixture_open, .fini = fixture_close);
TestSuite(resume, .init = fixture_open, .fini = fixture_close);
TestSuite(names, .init = fixture_open, .fini = fixture_close);
TestSuite(remove_device, .init = fixture_open, .fini = fixture_close);

static struct dmcore_device *empty_device(const char *name)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(fixture.core, name, NULL, 0, &device), 0, "%s",
		     dmcore_error_message());
	return device;
}

static struct dmcore_device_info info_of(struct dmcore_device *device)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_device_info(device, &info), 0);
	return info;
}

static void expect_create_refused(const char *name, const char *uuid, unsigned int flags, int error)
{
	struct dmcore_device *device = (void *)&fixture;

	cr_assert_eq(dmcore_device_create(fixture.core, name, uuid, flags, &device), error, "%s",
		     name);
	cr_assert_null(device);
	cr_assert_neq(dmcore_error_message()[0], '\0');
}

/* ---- create ---- */

Test(create, devices_are_listed_in_the_order_in_which_they_were_made)
{
	struct dmcore_device *first = empty_device("b");
	struct dmcore_device *second = empty_device("a");

	cr_assert_eq(dmcore_device_at(fixture.core, 0), first);
	cr_assert_eq(dmcore_device_at(fixture.core, 1), second);
	cr_assert_null(dmcore_device_at(fixture.core, 2));
	cr_assert_eq(dmcore_device_remove(first), 0);
	cr_assert_eq(dmcore_device_at(fixture.core, 0), second);
	cr_assert_null(dmcore_device_at(fixture.core, 1));
}

Test(create, calls_without_an_object_are_refused)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	struct dmcore_device *device;
	struct dmcore_table *table;

	cr_assert_eq(dmcore_device_create(NULL, "a", NULL, 0, &device), -EINVAL);
	cr_assert_eq(dmcore_device_create(fixture.core, NULL, NULL, 0, &device), -EINVAL);
	cr_assert_eq(dmcore_device_load(NULL, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_resume(NULL), -EINVAL);
	cr_assert_eq(dmcore_device_remove(NULL), 0);
	cr_assert_eq(dmcore_device_info(NULL, &info), -EINVAL);
	cr_assert_eq(dmcore_device_text(NULL, DMCORE_TEXT_TABLE, 0, NULL, 0), -EINVAL);
	cr_assert_null(dmcore_device_find(fixture.core, NULL));
	cr_assert_null(dmcore_device_at(NULL, 0));
	cr_assert_eq(dmcore_table_create(NULL, 0, &table), -EINVAL);
	cr_assert_eq(dmcore_table_parse(fixture.core, NULL, 0, &table), -EINVAL);
	cr_assert_eq(dmcore_table_complete(NULL), -EINVAL);
	cr_assert_eq(dmcore_device_create_concise(fixture.core, NULL, 0, NULL), -EINVAL);
}

/* The lock of the core may be held by a thread that isn't there in a child. */
Test(create, child_of_fork_is_refused_and_doesnt_wait)
{
	struct dmcore_device *device = empty_device("a");
	struct dmcore_table *table;
	int status;
	pid_t pid;

	dmcore__lock(fixture.core);
	pid = fork();
	if (pid == 0) {
		bool refused =
			dmcore_device_resume(device) == -EOWNERDEAD &&
			dmcore_device_remove(device) == -EOWNERDEAD &&
			dmcore_table_parse(fixture.core, "0 8 zero", 0, &table) == -EOWNERDEAD &&
			!dmcore_device_find(fixture.core, "a") &&
			!dmcore_device_at(fixture.core, 0);

		child_exit(refused ? 0 : 1);
	}
	dmcore__unlock(fixture.core);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

/* The descriptor of a watch is shared with the parent, and the lock may be held. */
Test(create, child_of_fork_takes_no_events_from_a_watch)
{
	struct dmcore_device *device = empty_device("a");
	struct dmcore_watch *watch;
	uint32_t event_nr = 0;
	int status;
	pid_t pid;

	cr_assert_eq(dmcore_watch_create(device, 0, NULL, NULL, NULL, &watch), 0);
	pthread_mutex_lock(&fixture.core->map->events_lock);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		child_exit(dmcore_watch_event_nr(watch, &event_nr) == -EOWNERDEAD ? 0 : 1);
	}
	pthread_mutex_unlock(&fixture.core->map->events_lock);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	dmcore_watch_destroy(watch);
}

Test(create, device_is_born_suspended_and_empty)
{
	struct dmcore_device *device;
	struct dmcore_device_info info;

	cr_assert_eq(dmcore_device_create(fixture.core, "a", "u-1", 0, &device), 0);
	info = info_of(device);
	cr_assert_str_eq(info.name, "a");
	cr_assert_str_eq(info.uuid, "u-1");
	cr_assert(info.suspended);
	cr_assert_not(info.read_only);
	cr_assert_not(info.live_table);
	cr_assert_not(info.inactive_table);
	cr_assert_eq(info.num_targets, 0);
	cr_assert_eq(info.open_count, 0);
	cr_assert_eq(info.event_nr, 0);
	cr_assert_eq(info.size_sectors, 0);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "");
}

Test(create, malformed_name_is_refused)
{
	char name[DMCORE_NAME_MAX + 2];

	memset(name, 'n', sizeof(name));
	name[DMCORE_NAME_MAX + 1] = '\0';
	expect_create_refused(name, NULL, 0, -EINVAL);
	expect_create_refused("", NULL, 0, -EINVAL);
	expect_create_refused(".", NULL, 0, -EINVAL);
	expect_create_refused("..", NULL, 0, -EINVAL);
	expect_create_refused("a/b", NULL, 0, -EINVAL);
	name[DMCORE_NAME_MAX] = '\0';
	cr_assert_str_eq(dmcore_device_name(empty_device(name)), name);
}

Test(create, malformed_uuid_and_flags_are_refused)
{
	char uuid[DMCORE_UUID_MAX + 2];
	struct dmcore_device *device;

	memset(uuid, 'u', sizeof(uuid));
	uuid[DMCORE_UUID_MAX + 1] = '\0';
	expect_create_refused("a", uuid, 0, -EINVAL);
	expect_create_refused("a", NULL, DMCORE_OPEN_DIRECT, -EINVAL);
	uuid[DMCORE_UUID_MAX] = '\0';
	cr_assert_eq(dmcore_device_create(fixture.core, "a", uuid, 0, &device), 0);
	cr_assert_str_eq(info_of(device).uuid, uuid);
}

Test(create, taken_name_or_uuid_is_refused)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(fixture.core, "a", "u-1", 0, &device), 0);
	expect_create_refused("a", NULL, 0, -EBUSY);
	expect_create_refused("b", "u-1", 0, -EBUSY);
	cr_assert_eq(dmcore_device_create(fixture.core, "b", "", 0, &device), 0);
	cr_assert_eq(dmcore_device_create(fixture.core, "c", "", 0, &device), 0);
}

Test(create, device_is_found_under_both_of_its_names)
{
	struct dmcore_device *device = empty_device("a");

	cr_assert_eq(dmcore_device_find(fixture.core, "a"), device);
	cr_assert_eq(dmcore_device_find(fixture.core, "/dev/mapper/a"), device);
	cr_assert_null(dmcore_device_find(fixture.core, "b"));
}

Test(create, info_fills_in_as_much_as_the_caller_knows)
{
	struct dmcore_device *device = empty_device("a");
	struct dmcore_device_info info;

	memset(&info, 0x77, sizeof(info));
	info.struct_size = offsetof(struct dmcore_device_info, uuid);
	cr_assert_eq(dmcore_device_info(device, &info), 0);
	cr_assert_str_eq(info.name, "a");
	cr_assert_eq(info.uuid[0], 0x77);
	info.struct_size = 0;
	cr_assert_eq(dmcore_device_info(device, &info), -EINVAL);
}

/* ---- load ---- */

Test(load, table_waits_for_resume)
{
	struct dmcore_device *device = empty_device("a");
	struct dmcore_device_info info;

	cr_assert_eq(dmcore_device_load(device, fixture_table("0 8 zero")), 0);
	info = info_of(device);
	cr_assert(info.suspended);
	cr_assert(info.inactive_table);
	cr_assert_not(info.live_table);
	cr_assert_eq(info.size_sectors, 0);
}

Test(load, completes_a_table_that_is_not)
{
	struct dmcore_device *device = empty_device("a");
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_create(fixture.core, 0, &table), 0);
	cr_assert_eq(dmcore_device_load(device, table), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), "a: no targets specified");
	cr_assert_eq(dmcore_table_add(table, 0, 8, "zero", NULL), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
}

Test(load, second_table_takes_the_place_of_the_first)
{
	struct dmcore_device *device = empty_device("a");

	cr_assert_eq(dmcore_device_load(device, fixture_table("0 8 zero")), 0);
	cr_assert_eq(dmcore_device_load(device, fixture_table("0 16 error")), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "0 16 error \n");
}

Test(load, loaded_table_is_refused_and_left_alone_by_destroy)
{
	struct dmcore_table *table = fixture_table("0 8 zero");
	struct dmcore_device *a = empty_device("a");
	struct dmcore_device *b = empty_device("b");

	cr_assert_eq(dmcore_device_load(a, table), 0);
	cr_assert_eq(dmcore_device_load(a, table), -EBUSY);
	cr_assert_eq(dmcore_device_load(b, table), -EBUSY);
	cr_assert_str_eq(dmcore_error_message(), "b: the table is loaded into a already");
	dmcore_table_destroy(table);
	cr_assert_eq(dmcore_device_resume(a), 0);
}

Test(load, table_of_another_core_is_refused)
{
	struct dmcore_table *table;
	struct dmcore *other;

	cr_assert_eq(dmcore_create(NULL, &other), 0);
	cr_assert_eq(dmcore_table_parse(other, "0 8 zero", 0, &table), 0);
	cr_assert_eq(dmcore_device_load(empty_device("a"), table), -EINVAL);
	dmcore_table_destroy(table);
	cr_assert_eq(dmcore_destroy(other), 0);
}

Test(load, device_without_a_table_can_not_be_stood_on)
{
	empty_device("a");
	fixture_expect_refused("0 8 linear a 0", -ENXIO,
			       "table line 1: linear: Device lookup failed: a: the mapped device "
			       "has no table yet");
}

static void expect_loop(struct dmcore_device *device, const char *text)
{
	struct dmcore_table *table = fixture_table(text);

	cr_assert_eq(dmcore_device_load(device, table), -ELOOP);
	cr_assert_not_null(strstr(dmcore_error_message(), "would stand on itself"));
	dmcore_table_destroy(table);
}

Test(load, table_on_the_device_itself_is_refused)
{
	expect_loop(fixture_device("a", "0 8 zero"), "0 8 linear a 0");
}

/* D-016 */
Test(load, table_on_what_stands_on_the_device_is_refused)
{
	struct dmcore_device *a = fixture_device("a", "0 8 zero");

	fixture_device("b", "0 8 linear a 0");
	fixture_device("c", "0 8 linear b 0");
	expect_loop(a, "0 8 linear c 0");
}

Test(load, inactive_tables_count_for_circles)
{
	struct dmcore_device *a = fixture_device("a", "0 8 zero");
	struct dmcore_device *b = fixture_device("b", "0 8 zero");

	cr_assert_eq(dmcore_device_load(b, fixture_table("0 8 linear a 0")), 0);
	expect_loop(a, "0 8 linear b 0");
}

Test(load, two_ways_to_one_device_are_no_circle)
{
	struct dmcore_device *d = empty_device("d");

	fixture_device("a", "0 8 zero");
	fixture_device("b", "0 8 linear a 0");
	fixture_device("c", "0 8 linear a 0");
	cr_assert_eq(dmcore_device_load(d, fixture_table("0 8 linear b 0\n8 8 linear c 0")), 0);
	cr_assert_eq(dmcore_device_load(d, fixture_table("0 8 linear c 0\n8 8 linear a 0")), 0);
}

/* D-013 in docs/conformance.md */
Test(load, writable_table_on_a_read_only_device_is_refused)
{
	struct dmcore_device *device;
	struct dmcore_table *table;

	cr_assert_eq(dmcore_device_create(fixture.core, "ro", NULL, DMCORE_OPEN_READ_ONLY, &device),
		     0);
	cr_assert_eq(dmcore_device_load(device, fixture_table("0 8 zero")), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	fixture_expect_refused("0 8 linear ro 0", -EROFS,
			       "table line 1: linear: Device lookup failed: ro: the mapped device "
			       "is read-only");
	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 linear ro 0", DMCORE_TABLE_READ_ONLY,
					&table),
		     0);
	dmcore_table_destroy(table);
}

/* ---- resume ---- */

Test(resume, makes_the_table_live)
{
	struct dmcore_device *device = fixture_device("a", "0 8 zero\n8 8 error\n");
	struct dmcore_device_info info = info_of(device);

	cr_assert_not(info.suspended);
	cr_assert(info.live_table);
	cr_assert_not(info.inactive_table);
	cr_assert_eq(info.num_targets, 2);
	cr_assert_eq(info.size_sectors, 16);
	cr_assert_eq(dmcore_bdev_size_sectors(dmcore_device_bdev(device)), 16);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "0 8 zero \n8 8 error \n");
}

Test(resume, needs_a_table)
{
	cr_assert_eq(dmcore_device_resume(empty_device("a")), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), "a: no table is loaded");
}

Test(resume, running_device_stays_as_it_is)
{
	struct dmcore_device *device = fixture_device("a", "0 8 zero");

	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_not(info_of(device).suspended);
}

Test(resume, checks_the_devices_below_again)
{
	struct dmcore_bdev *disk = fixture_bdev("fault:16,id=a");
	struct dmcore_device *device = empty_device("a");

	cr_assert_eq(dmcore_device_load(device, fixture_table("0 16 linear fault:16,id=a 0")), 0);
	dmcore_bdev_set_size(disk, 8);
	cr_assert_eq(dmcore_device_resume(device), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(),
			 "a: table line 1: fault:16,id=a too small for target: start=0, len=16, "
			 "dev_size=8");
	cr_assert(info_of(device).suspended);
	cr_assert(info_of(device).inactive_table);
	dmcore_bdev_set_size(disk, 16);
	cr_assert_eq(dmcore_device_resume(device), 0);
}

Test(resume, gives_the_device_the_limits_of_its_table)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 64 linear mem:64s,block=4096 0");
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	cr_assert_eq(dmcore_bdev_limits(bdev, &limits), 0);
	cr_assert_eq(limits.logical_block_bytes, 4096);
}

Test(resume, read_only_table_makes_the_device_read_only)
{
	struct dmcore_device *device = empty_device("a");
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 zero", DMCORE_TABLE_READ_ONLY, &table),
		     0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert(info_of(device).read_only);
	cr_assert(dmcore_bdev_is_read_only(dmcore_device_bdev(device)));
}

/* ---- remove ---- */

Test(remove_device, of_none_does_nothing)
{
	cr_assert_eq(dmcore_device_remove(NULL), 0);
}

Test(remove_device, takes_tables_and_their_devices_along)
{
	uint64_t before = atomic_load(&fixture.core->live_allocations);
	struct dmcore_device *device = fixture_device("a", "0 8 linear mem:8s 0");

	cr_assert_eq(dmcore_device_load(device, fixture_table("0 8 linear mem:8s 0")), 0);
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_eq(atomic_load(&fixture.core->live_allocations), before);
	cr_assert_null(dmcore_device_find(fixture.core, "a"));
}

Test(remove_device, name_and_uuid_are_free_again)
{
	struct dmcore_device *device;

	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(dmcore_device_create(fixture.core, "a", "u", 0, &device), 0);
		cr_assert_eq(dmcore_device_remove(device), 0);
	}
}

Test(names, new_one_is_an_event_of_a_device_with_a_table)
{
	struct dmcore_device *empty = empty_device("empty");
	struct dmcore_device *device = fixture_device("a", "0 8 zero");

	cr_assert_eq(dmcore_device_rename(device, "b"), 0);
	cr_assert_eq(info_of(device).event_nr, 1);
	cr_assert_eq(dmcore_device_set_uuid(device, "u"), 0);
	cr_assert_eq(info_of(device).event_nr, 2);
	cr_assert_eq(dmcore_device_rename(device, "empty"), -EBUSY);
	cr_assert_eq(dmcore_device_set_uuid(device, "v"), -EINVAL);
	cr_assert_eq(info_of(device).event_nr, 2);
	cr_assert_eq(dmcore_device_rename(empty, "a"), 0);
	cr_assert_eq(info_of(empty).event_nr, 0);
}

Test(remove_device, open_one_is_busy)
{
	struct dmcore_device *device = fixture_device("a", "0 8 zero");
	struct dmcore_bdev *bdev;

	cr_assert_eq(dmcore_bdev_open(fixture.core, "a", 0, &bdev), 0);
	cr_assert_eq(bdev, dmcore_device_bdev(device));
	cr_assert_eq(dmcore_device_remove(device), -EBUSY);
	cr_assert_str_eq(dmcore_error_message(), "device a is open");
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(remove_device, one_that_another_stands_on_is_busy)
{
	struct dmcore_device *below = fixture_device("below", "0 8 zero");
	struct dmcore_device *above = fixture_device("above", "0 8 linear below 0");

	cr_assert_eq(info_of(below).open_count, 1);
	cr_assert_eq(dmcore_device_remove(below), -EBUSY);
	cr_assert_eq(dmcore_device_remove(above), 0);
	cr_assert_eq(dmcore_device_remove(below), 0);
}

Test(remove_device, one_with_requests_in_flight_is_busy)
{
	static unsigned char buffer[SECTOR];
	struct dmcore_device *device = fixture_device("a", "0 64 linear fault:64,id=a 0");
	struct fault_disk *disk = fixture_disk("fault:64,id=a");
	struct dmcore_bio *bio = dmcore_bio_get(fixture.queue);
	struct dmcore_bio *ended;

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	bio->bdev = dmcore_device_bdev(device);
	bio->op = DMCORE_OP_READ;
	dmcore_bio_set_buffer(bio, buffer, sizeof(buffer));
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_device_remove(device), -EBUSY);
	cr_assert_str_eq(dmcore_error_message(), "device a has requests in flight");
	fault_release_all(disk);
	while (dmcore_queue_reap(fixture.queue, &ended, 1) == 0)
		cr_assert_geq(dmcore_queue_poll(fixture.queue, 1, 1, -1), 0);
	cr_assert_eq(ended, bio);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(remove_device, core_takes_down_a_stack_from_the_top)
{
	fixture_device("a", "0 8 zero");
	fixture_device("b", "0 8 linear a 0");
	fixture_device("c", "0 8 linear b 0\n8 8 linear a 0");
	empty_device("d");
}
