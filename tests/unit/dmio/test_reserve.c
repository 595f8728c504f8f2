/* SPDX-License-Identifier: MIT */
/* Where the memory of a dm-io client comes from, when, and when it goes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/dmio_world.h"

#define ARGS "4096"
#define REQUESTS_MANY 100
#define LONG_PAGES (64 * 8) /* eight pieces */
#define LONG_SECTORS (LONG_PAGES * (DMIO_PAGE_BYTES / DMCORE_SECTOR_BYTES))

static struct world world;
static unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
static struct pending pending[REQUESTS_MANY];

struct counting {
	unsigned int allocations;
	unsigned int outstanding;
	unsigned int fail_after; /* allocations that succeed */
};

static void *counting_alloc(size_t bytes, void *context)
{
	struct counting *counting = context;

	if (counting->allocations >= counting->fail_after)
		return NULL;
	counting->allocations++;
	counting->outstanding++;
	return malloc(bytes);
}

static void counting_release(void *memory, void *context)
{
	struct counting *counting = context;

	counting->outstanding--;
	free(memory);
}

static void open_counting(struct counting *counting)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	*counting = (struct counting){ .fail_after = UINT32_MAX };
	options.alloc = counting_alloc;
	options.release = counting_release;
	options.alloc_context = counting;
	world_open_on(&world, 1, ARGS, 0, &options);
}

/* Has every request of the client in flight at once. */
static void use_up(void)
{
	struct dmio_region where = world_region(&world, 0, 8, 8);
	int ret;

	do {
		ret = dmio_async_vm(world.client, 1, &where, DMIO_WRITE, buffer, pending_done,
				    &pending[0]);
	} while (ret == 0);
	cr_assert_eq(ret, -EAGAIN);
	world_settle(&world);
}

Test(reserve, data_path_does_not_allocate)
{
	struct counting counting;
	unsigned int before;
	struct pages pages;
	struct dmio_region where;

	open_counting(&counting);
	pages_create(&pages, 200, 2);
	where = world_region(&world, 0, 0, 1600);
	before = counting.allocations;
	for (unsigned int i = 0; i < 100; i++) {
		cr_assert_eq(dmio_sync(world.client, 1, &where, DMIO_WRITE | DMIO_PREFLUSH,
				       pages.list, 0, NULL),
			     0);
		use_up();
	}
	cr_assert_eq(counting.allocations, before);
	pages_destroy(&pages);
	world_close(&world);
	cr_assert_eq(counting.outstanding, 0);
}

Test(reserve, memory_is_given_back_by_put_and_destroy)
{
	struct counting counting;
	unsigned int before;
	struct dmio_client *client;

	open_counting(&counting);
	before = counting.outstanding;
	cr_assert_eq(dmio_get(world.client, 1000), 0);
	cr_assert_gt(counting.outstanding, before);
	dmio_put(world.client, 1000);
	cr_assert_eq(counting.outstanding, before);
	cr_assert_eq(dmio_client_create(world.queue, 1000, &client), 0);
	cr_assert_eq(dmio_client_destroy(client), 0);
	cr_assert_eq(counting.outstanding, before);
	world_close(&world);
	cr_assert_eq(counting.outstanding, 0);
}

/* So many long writes are under way while the reserve is given back. */
static void put_under(unsigned int num_requests)
{
	struct fault_rule hold = { .action = FAULT_HOLD };
	struct dmio_region where;
	struct counting counting;
	struct pages pages;
	unsigned int before;

	open_counting(&counting);
	before = counting.outstanding;
	fault_add_rule(world.disk[0], &hold);
	pages_create(&pages, LONG_PAGES, 2);
	where = world_region(&world, 0, 0, LONG_SECTORS);
	cr_assert_eq(dmio_get(world.client, LONG_PAGES), 0);
	memset(pending, 0, sizeof(pending));
	for (unsigned int i = 0; i < num_requests; i++)
		cr_assert_eq(dmio_async(world.client, 1, &where, DMIO_WRITE, pages.list, 0,
					pending_done, &pending[i]),
			     0);
	dmio_put(world.client, LONG_PAGES);
	cr_assert_gt(counting.outstanding, before);
	while (fault_num_held(world.disk[0]) > 0) {
		fault_release_all(world.disk[0]);
		world_settle(&world);
	}
	for (unsigned int i = 0; i < num_requests; i++) {
		cr_assert_eq(pending[i].calls, 1);
		cr_assert_eq(pending[i].error_bits, 0);
	}
	cr_assert_eq(counting.outstanding, before);
	pages_destroy(&pages);
	world_close(&world);
}

Test(reserve, memory_in_use_is_given_back_when_its_requests_end)
{
	/* Few requests with more segments than stay, and more requests than stay. */
	put_under(5);
	put_under(REQUESTS_MANY);
}

Test(reserve, failing_allocation_leaves_everything_as_it_was)
{
	struct counting counting;
	struct dmio_client *client;
	unsigned int before;
	unsigned int n;
	int ret = -ENOMEM;

	open_counting(&counting);
	before = counting.outstanding;
	for (n = 0; ret == -ENOMEM; n++) {
		counting.fail_after = counting.allocations + n;
		client = (void *)&world;
		ret = dmio_client_create(world.queue, 100, &client);
		if (ret) {
			cr_assert_eq(ret, -ENOMEM);
			cr_assert_null(client);
			cr_assert_eq(counting.outstanding, before, "after %u", n);
		}
	}
	cr_assert_gt(n, 100);
	before = counting.outstanding;
	ret = -ENOMEM;
	for (n = 0; ret == -ENOMEM; n++) {
		counting.fail_after = counting.allocations + n;
		ret = dmio_get(client, 100);
		if (ret)
			cr_assert_eq(counting.outstanding, before, "after %u", n);
	}
	cr_assert_eq(ret, 0);
	cr_assert_gt(n, 100);
	cr_assert_eq(dmio_client_destroy(client), 0);
	world_close(&world);
}
