/* SPDX-License-Identifier: MIT */
/* 10,000 dm-io requests through the smallest reserve, on a slow disk, in virtual time. */
#include <errno.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simworld.h"

#define REQUESTS 10000u
#define NS_MAX UINT64_C(60000000000)

static struct simworld world;
static unsigned int num_ended;
static unsigned int num_failed;

static void ended(unsigned long bits, void *context)
{
	(void)context;
	num_ended++;
	num_failed += bits != 0;
}

static void start(struct dmio_client *client, unsigned int i, unsigned char *data)
{
	struct dmio_region where[2] = {
		{ world.bdevs[0], (uint64_t)i % 1000 * 8, 8 },
		{ world.bdevs[1], (uint64_t)i % 1000 * 8, 8 },
	};
	int ret;

	do {
		ret = dmio_async_vm(client, 2, where, DMIO_WRITE, data, ended, NULL);
		if (ret == -EAGAIN)
			cr_assert_gt(dmcore_queue_poll(world.queue, 1, UINT32_MAX, -1), 0);
	} while (ret == -EAGAIN);
	cr_assert_eq(ret, 0);
}

Test(reserve, ten_thousand_requests_end_within_a_minute_of_the_world, .timeout = 600)
{
	static unsigned char data[4096];
	struct dmio_client *client;

	simworld_open(&world, 1);
	world.options.write_ns = 50000;
	world.options.spread_ns = 100000;
	world.options.depth = 4;
	world.options.max_io_sectors = 4;
	simworld_add_disk(&world, 8192);
	simworld_add_disk(&world, 8192);
	cr_assert_eq(dmio_client_create(world.queue, 0, &client), 0);
	for (unsigned int i = 0; i < REQUESTS; i++)
		start(client, i, data);
	while (num_ended < REQUESTS)
		cr_assert_gt(dmcore_queue_poll(world.queue, 1, UINT32_MAX, (int64_t)NS_MAX), 0);
	cr_assert_eq(num_ended, REQUESTS);
	cr_assert_eq(num_failed, 0);
	cr_assert_gt(dmcore_sim_now_ns(world.sim), 0);
	cr_assert_lt(dmcore_sim_now_ns(world.sim), NS_MAX);
	cr_assert_eq(world.num_stuck, 0);
	cr_assert_eq(dmio_client_destroy(client), 0);
	simworld_close(&world);
}
