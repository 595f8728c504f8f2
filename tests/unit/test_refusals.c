/* SPDX-License-Identifier: MIT */
/*
 * Calls without the object that they are about, or without a place for what they find: refused or
 * without effect, as each function's documentation says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/fixture.h"

TestSuite(refusals, .init = fixture_open, .fini = fixture_close);

static unsigned int works_run;

static void count_work(struct dmcore_work *work)
{
	(void)work;
	works_run++;
}

static void count_timer(struct dmcore_timer *timer)
{
	(void)timer;
	works_run++;
}

Test(refusals, of_queues)
{
	struct dmcore_queue_info info = { .struct_size = sizeof(info) };
	struct dmcore_timer timer = { .fn = count_timer };
	struct dmcore_work work = { .fn = count_work };
	struct dmcore_bio *bio;

	cr_assert_eq(dmcore_queue_destroy(NULL), 0);
	cr_assert_eq(dmcore_queue_poll(NULL, 0, 1, 0), -EINVAL);
	cr_assert_eq(dmcore_queue_kick(NULL), -EINVAL);
	cr_assert_eq(dmcore_queue_fd(NULL), -EINVAL);
	cr_assert_eq(dmcore_queue_claim(NULL), -EINVAL);
	cr_assert_eq(dmcore_queue_info(NULL, &info), -EINVAL);
	cr_assert_eq(dmcore_queue_register_buffers(NULL, NULL, 0), -EINVAL);
	cr_assert_eq(dmcore_queue_reap(NULL, &bio, 1), 0);
	cr_assert_eq(dmcore_queue_reap(fixture.queue, NULL, 1), 0);
	cr_assert_null(dmcore_bio_get(NULL));
	dmcore_bio_put(NULL);
	dmcore_queue_post(NULL, &work);
	dmcore_queue_post(fixture.queue, NULL);
	cr_assert_eq(dmcore_timer_start(NULL, &timer, 0), -EINVAL);
	cr_assert_eq(dmcore_timer_start(fixture.queue, NULL, 0), -EINVAL);
	cr_assert_eq(dmcore_timer_start(fixture.queue, &(struct dmcore_timer){ 0 }, 0), -EINVAL);
	cr_assert_eq(dmcore_timer_next_ns(NULL), UINT64_MAX);
	cr_assert_eq(dmcore_timer_start(fixture.queue, &timer, UINT64_MAX - 1), 0);
	cr_assert_not(dmcore_timer_cancel(NULL, &timer));
	cr_assert_not(dmcore_timer_cancel(fixture.queue, NULL));
	cr_assert_eq(dmcore_timer_next_ns(fixture.queue), UINT64_MAX - 1);
	cr_assert(dmcore_timer_cancel(fixture.queue, &timer));
	cr_assert_eq(dmcore_queue_poll(fixture.queue, 0, 1, 0), 0);
	cr_assert_eq(works_run, 0);
}

Test(refusals, of_buffers_above_a_gibibyte)
{
	struct dmio_bvec buffer = { &works_run, DMCORE_QUEUE_BUFFER_BYTES_MAX + 1 };

	cr_assert_eq(dmcore_queue_register_buffers(fixture.queue, &buffer, 1), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(),
			 "register_buffers: buffer 0 is empty or longer than 1 GiB");
}

Test(refusals, of_files)
{
	struct dmcore_file *file;

	cr_assert_eq(dmcore_file_attach(fixture.core, 0, NULL), -EINVAL);
	cr_assert_eq(dmcore_file_attach(fixture.core, -1, &file), -EINVAL);
	cr_assert_eq(dmcore_file_attach(NULL, 0, &file), -EINVAL);
	dmcore_file_detach(NULL);
}

Test(refusals, of_dmio_clients)
{
	struct dmio_client *client;

	cr_assert_eq(dmio_client_create(NULL, 1, &client), -EINVAL);
	cr_assert_eq(dmio_client_create(fixture.queue, 1, NULL), -EINVAL);
	cr_assert_eq(dmio_get(NULL, 1), -EINVAL);
	dmio_put(NULL, 1);
	cr_assert_eq(dmio_client_destroy(NULL), 0);
}

Test(refusals, of_devices)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	struct dmcore_table *table = fixture_table("0 8 zero");
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(NULL, "a", NULL, 0, &device), -EINVAL);
	cr_assert_eq(dmcore_device_create(fixture.core, NULL, NULL, 0, &device), -EINVAL);
	cr_assert_eq(dmcore_device_create(fixture.core, "a", NULL, 0, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_create(fixture.core, "a", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(NULL, table), -EINVAL);
	cr_assert_eq(dmcore_device_load(device, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_clear(NULL), -EINVAL);
	cr_assert_eq(dmcore_device_suspend(NULL, 0, 0), -EINVAL);
	cr_assert_eq(dmcore_device_resume(NULL), -EINVAL);
	cr_assert_eq(dmcore_device_rename(NULL, "b"), -EINVAL);
	cr_assert_eq(dmcore_device_rename(device, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_set_uuid(NULL, "uuid"), -EINVAL);
	cr_assert_eq(dmcore_device_set_uuid(device, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_info(NULL, &info), -EINVAL);
	cr_assert_eq(dmcore_device_info(device, NULL), -EINVAL);
	cr_assert_eq(dmcore_device_text(NULL, DMCORE_TEXT_TABLE, 0, NULL, 0), -EINVAL);
	cr_assert_eq(dmcore_device_message(NULL, 0, "a", NULL, 0), -EINVAL);
	cr_assert_eq(dmcore_device_event_nr(NULL), 0);
	cr_assert_eq(dmcore_device_remove(NULL), 0);
	cr_assert_eq(dmcore_device_remove_deferred(NULL), 0);
	cr_assert_eq(dmcore_device_remove(device), 0);
	dmcore_table_destroy(table);
}

Test(refusals, of_concise_texts)
{
	size_t bytes = DMCORE_TABLE_TEXT_BYTES_MAX + 1;
	struct dmcore_device *last = (void *)&works_run;
	char *text = malloc(bytes + 1);

	cr_assert_not_null(text);
	memset(text, ' ', bytes);
	text[bytes] = '\0';
	cr_assert_eq(dmcore_device_create_concise(NULL, "a,,,,0 8 zero", 0, &last), -EINVAL);
	cr_assert_null(last);
	cr_assert_eq(dmcore_device_create_concise(fixture.core, NULL, 0, &last), -EINVAL);
	cr_assert_eq(dmcore_device_create_concise(fixture.core, text, 0, &last), -E2BIG);
	cr_assert_not_null(strstr(dmcore_error_message(), "is longer than"), "%s",
			   dmcore_error_message());
	free(text);
}

Test(refusals, of_watches)
{
	struct dmcore_device *device = fixture_device("a", "0 8 zero");
	struct dmcore_watch *watch;
	uint32_t event_nr = 7;

	cr_assert_eq(dmcore_watch_create(NULL, 0, NULL, NULL, NULL, &watch), -EINVAL);
	cr_assert_eq(dmcore_watch_create(device, 0, NULL, NULL, NULL, NULL), -EINVAL);
	cr_assert_eq(dmcore_watch_fd(NULL), -EINVAL);
	cr_assert_eq(dmcore_watch_event_nr(NULL, &event_nr), -EINVAL);
	cr_assert_eq(event_nr, 7);
	cr_assert_eq(dmcore_watch_create(device, 0, NULL, NULL, NULL, &watch), 0);
	cr_assert_eq(dmcore_watch_event_nr(watch, NULL), -EINVAL);
	cr_assert_eq(dmcore_watch_event_nr(watch, &event_nr), 0);
	cr_assert_eq(event_nr, 0);
	dmcore_watch_destroy(watch);
	dmcore_watch_destroy(NULL);
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(refusals, of_tables)
{
	char *params = malloc(DMCORE_TABLE_TEXT_BYTES_MAX + 2);
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_create(NULL, 0, &table), -EINVAL);
	cr_assert_eq(dmcore_table_create(fixture.core, 0, NULL), -EINVAL);
	cr_assert_eq(dmcore_table_parse(NULL, "0 8 zero", 0, &table), -EINVAL);
	cr_assert_eq(dmcore_table_parse(fixture.core, NULL, 0, &table), -EINVAL);
	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 zero", 0, NULL), -EINVAL);
	cr_assert_eq(dmcore_table_add(NULL, 0, 8, "zero", NULL), -EINVAL);
	cr_assert_eq(dmcore_table_complete(NULL), -EINVAL);
	cr_assert_eq(dmcore_table_text(NULL, DMCORE_TEXT_TABLE, NULL, 0), -EINVAL);
	cr_assert_not_null(params);
	memset(params, 'x', DMCORE_TABLE_TEXT_BYTES_MAX + 1);
	params[DMCORE_TABLE_TEXT_BYTES_MAX + 1] = '\0';
	cr_assert_eq(dmcore_table_create(fixture.core, 0, &table), 0);
	cr_assert_eq(dmcore_table_add(table, 0, 8, NULL, NULL), -EINVAL);
	cr_assert_eq(dmcore_table_add(table, 0, 8, "zero", params), -E2BIG);
	cr_assert_eq(dmcore_table_num_targets(table), 0);
	cr_assert_eq(dmcore_table_add(table, 0, 8, "zero", NULL), 0);
	dmcore_table_destroy(table);
	free(params);
}

Test(refusals, of_types)
{
	cr_assert_null(dmcore_target_type_at(NULL, 0));
	cr_assert_null(dmcore_target_type_at(fixture.core, 100000));
	cr_assert_eq(dmcore_target_register(fixture.core, NULL), -EINVAL);
}

Test(refusals, of_cores)
{
	struct dmcore_work work = { .fn = count_work };

	cr_assert_eq(dmcore_create(NULL, NULL), -EINVAL);
	cr_assert_eq(dmcore_destroy(NULL), 0);
	cr_assert_null(dmcore_service_queue(NULL));
	cr_assert_eq(dmcore_service_post(NULL, &work), -EINVAL);
	cr_assert_eq(dmcore_service_post(fixture.core, NULL), -EINVAL);
	cr_assert_eq(dmcore_service_post(fixture.core, &(struct dmcore_work){ 0 }), -EINVAL);
	cr_assert_eq(dmcore_service_poll(NULL, 0, 1, 0), -EINVAL);
	cr_assert_eq(dmcore_service_poll(fixture.core, 0, 1, 0), -EINVAL);
	cr_assert_eq(dmcore_bdev_close(NULL), 0);
	cr_assert_eq(works_run, 0);
}

Test(refusals, name_their_error_even_where_it_has_no_name)
{
	cr_assert_str_eq(dmcore_error_name(0), "OK");
	cr_assert_str_eq(dmcore_error_name(EINVAL), "EINVAL");
	cr_assert_str_eq(dmcore_error_name(-EINVAL), "EINVAL");
	cr_assert_str_eq(dmcore_error_name(-100000), "E?");
}
