/* SPDX-License-Identifier: MIT */
/* Clients of dm-io: their reserve, and what happens when it is used up, grows, shrinks or ends. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/wait.h>

#include <criterion/criterion.h>

#include "../../support/child.h"
#include "../../support/dmio_world.h"
#include "../../support/heap.h"

#define ARGS "4096"
#define DISKS 2
#define REQUESTS_MANY 4096

static struct world world;
static unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
static struct pending pending[REQUESTS_MANY];

static void hold_all(unsigned int disk)
{
	struct fault_rule rule = { .action = FAULT_HOLD };

	fault_add_rule(world.disk[disk], &rule);
}

static int write_one(unsigned int disk, dmio_notify_fn fn, void *context)
{
	struct dmio_region where = world_region(&world, disk, 8, 8);

	return dmio_async_vm(world.client, 1, &where, DMIO_WRITE, buffer, fn, context);
}

/* Starts requests until the client has no more; returns how many are in flight, with `n` so far. */
static unsigned int use_up(unsigned int disk, unsigned int n)
{
	int ret;

	memset(&pending[n], 0, sizeof(pending) - n * sizeof(pending[0]));
	while ((ret = write_one(disk, pending_done, &pending[n])) == 0)
		cr_assert_lt(++n, REQUESTS_MANY);
	cr_assert_eq(ret, -EAGAIN);
	return n;
}

static void expect_all_called_back(unsigned int n, unsigned long error_bits)
{
	for (unsigned int i = 0; i < n; i++) {
		cr_assert_eq(pending[i].calls, 1, "request %u: %u callbacks", i, pending[i].calls);
		cr_assert_eq(pending[i].error_bits, error_bits);
	}
	for (unsigned int i = n; i < REQUESTS_MANY; i++)
		cr_assert_eq(pending[i].calls, 0, "request %u was refused", i);
}

Test(client, arguments_are_checked)
{
	struct dmio_client *client = (void *)&world;

	world_open(&world, 1, ARGS, 0);
	cr_assert_eq(dmio_client_create(NULL, 1, &client), -EINVAL);
	cr_assert_null(client);
	client = (void *)&world;
	cr_assert_eq(dmio_client_create(world.queue, DMIO_PAGES_MAX + 1, &client), -EINVAL);
	cr_assert_null(client);
	cr_assert_eq(dmio_client_create(world.queue, 0, NULL), -EINVAL);
	cr_assert_eq(dmio_get(world.client, DMIO_PAGES_MAX + 1), -EINVAL);
	cr_assert_eq(dmio_get(world.client, UINT32_MAX), -EINVAL);
	cr_assert_eq(dmio_get(world.client, 1), 0);
	cr_assert_eq(dmio_get(world.client, DMIO_PAGES_MAX), -EINVAL);
	cr_assert_eq(dmio_client_destroy(NULL), 0);
	world_close(&world);
}

Test(client, used_up_client_says_so_and_goes_on_after_a_poll)
{
	unsigned int n;

	world_open(&world, 1, ARGS, 0);
	hold_all(0);
	n = use_up(0, 0);
	cr_assert_geq(n, 16);
	cr_assert_eq(world_settle(&world), 0);
	fault_release(world.disk[0], 3, 0);
	world_settle(&world);
	cr_assert_eq(pending[3].calls, 1);
	cr_assert_eq(write_one(0, pending_done, &pending[n]), 0);
	fault_release_all(world.disk[0]);
	world_settle(&world);
	expect_all_called_back(n + 1, 0);
	world_close(&world);
}

Test(client, reserved_pages_can_all_be_requests_of_their_own)
{
	world_open(&world, 1, ARGS, 200);
	hold_all(0);
	cr_assert_geq(use_up(0, 0), 200);
	fault_release_all(world.disk[0]);
	world_close(&world);
}

/* From 1024 pages on requests are taken to have 16. */
Test(client, large_reserves_have_a_request_for_16_pages)
{
	unsigned int before;
	unsigned int grown;

	world_open(&world, 1, ARGS, 1024);
	hold_all(0);
	before = use_up(0, 0);
	cr_assert_geq(before, 1024);
	cr_assert_eq(dmio_get(world.client, 1600), 0);
	grown = use_up(0, before);
	cr_assert_eq(grown, before + 100);
	fault_release_all(world.disk[0]);
	world_settle(&world);
	world_close(&world);
}

Test(client, reserve_grows_with_get_and_shrinks_with_put)
{
	unsigned int before;
	unsigned int grown;

	world_open(&world, 1, ARGS, 10);
	hold_all(0);
	before = use_up(0, 0);
	cr_assert_eq(dmio_get(world.client, 100), 0);
	grown = use_up(0, before);
	cr_assert_eq(grown, before + 100);
	/* Everything is in flight: nothing can be freed yet, and it all still works. */
	dmio_put(world.client, 100);
	fault_release_all(world.disk[0]);
	world_settle(&world);
	expect_all_called_back(grown, 0);
	cr_assert_eq(use_up(0, 0), before);
	fault_release_all(world.disk[0]);
	world_settle(&world);
	expect_all_called_back(before, 0);
	/* More than was reserved: what nobody reserved stays. */
	dmio_put(world.client, UINT32_MAX);
	cr_assert_geq(use_up(0, 0), 16);
	fault_release_all(world.disk[0]);
	world_close(&world);
}

/* Requests that follow each other, each started by the callback of the one before. */
struct chain {
	unsigned int left;
	unsigned int refused;
};

static void start_next(unsigned long error, void *context)
{
	struct chain *chain = context;

	cr_assert_eq(error, 0);
	if (chain->left == 0)
		return;
	chain->left--;
	if (write_one(0, start_next, chain) != 0)
		chain->refused++;
}

Test(client, callback_may_start_another_when_nothing_was_left)
{
	struct chain chains[REQUESTS_MANY] = { { 0 } };
	unsigned int n = 0;

	world_open(&world, 1, ARGS, 0);
	while (write_one(0, start_next, &chains[n]) == 0)
		chains[n++].left = 100;
	world_settle(&world);
	for (unsigned int i = 0; i < n; i++) {
		cr_assert_eq(chains[i].left, 0);
		cr_assert_eq(chains[i].refused, 0);
	}
	cr_assert_eq(fault_count(world.disk[0], 0), 101 * n);
	world_close(&world);
}

/* There is no more memory from the first of them on. */
Test(client, ten_thousand_requests_pass_through_the_smallest_reserve)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmio_region where[DISKS];
	struct pages pages;
	static struct pending many[10000];

	heap_use(&options);
	world_open_on(&world, DISKS, ARGS, 1, &options);
	heap_nth.arm(NULL, 1, true);
	pages_create(&pages, 80, 2);
	for (unsigned int i = 0; i < DISKS; i++)
		where[i] = world_region(&world, i, 0, 640);
	for (unsigned int i = 0; i < 10000; i++) {
		int ret;

		while ((ret = dmio_async(world.client, DISKS, where, DMIO_WRITE, pages.list, 0,
					 pending_done, &many[i])) == -EAGAIN)
			cr_assert_gt(dmcore_queue_poll(world.queue, 1, 64, -1), 0);
		cr_assert_eq(ret, 0);
	}
	world_settle(&world);
	for (unsigned int i = 0; i < 10000; i++) {
		cr_assert_eq(many[i].calls, 1);
		cr_assert_eq(many[i].error_bits, 0);
	}
	cr_assert_eq(fault_count(world.disk[1], 0), 20000);
	cr_assert_eq(heap_nth.disarm(NULL), 0);
	pages_destroy(&pages);
	world_close(&world);
}

static void start_for_ever(unsigned long error, void *context)
{
	bool *stop = context;

	cr_assert_eq(error, 0);
	if (!*stop)
		cr_assert_eq(write_one(0, start_for_ever, stop), 0);
}

Test(client, sync_is_not_starved_by_callbacks_that_take_every_request)
{
	struct dmio_region where;
	bool stop = false;

	world_open(&world, DISKS, ARGS, 0);
	while (write_one(0, start_for_ever, &stop) == 0)
		;
	where = world_region(&world, 1, 0, 8);
	for (unsigned int i = 0; i < 100; i++)
		cr_assert_eq(dmio_sync_vm(world.client, 1, &where, DMIO_WRITE, buffer, NULL), 0);
	stop = true;
	world_close(&world);
}

Test(client, request_makes_progress_when_others_have_every_segment)
{
	struct dmio_region where[DISKS];
	struct pending second = { 0 };
	struct pages pages;

	/* Long writes to disk 0 take all there is; one to disk 1 runs in its own memory. */
	world_open(&world, DISKS, "40960", 0);
	hold_all(0);
	pages_create(&pages, 64 * 40, 2);
	where[0] = world_region(&world, 0, 0, 64 * 40 * 8);
	where[1] = world_region(&world, 1, 0, 64 * 40 * 8);
	for (unsigned int n = 0; n < 9; n++)
		cr_assert_eq(dmio_async(world.client, 1, where, DMIO_WRITE, pages.list, 0,
					pending_done, &pending[n]),
			     0);
	cr_assert_eq(dmio_async(world.client, 1, &where[1], DMIO_WRITE, pages.list, 0, pending_done,
				&second),
		     0);
	cr_assert_eq(world_wait(&world, &second), 0);
	cr_assert_eq(fault_count(world.disk[1], 0), 40);
	while (fault_num_held(world.disk[0]) > 0) {
		fault_release(world.disk[0], 0, 0);
		world_settle(&world);
	}
	cr_assert_eq(fault_count(world.disk[0], 0), 9 * 40);
	pages_destroy(&pages);
	world_close(&world);
}

/* ---- the end -------------------------------------------------------------------------------- */

Test(client, destroy_waits_and_runs_callbacks)
{
	struct chain chain = { .left = 50 };
	struct dmio_client *client;
	unsigned int n;

	world_open(&world, 1, ARGS, 0);
	cr_assert_eq(dmio_client_create(world.queue, 0, &client), 0);
	for (n = 0; n < 8; n++)
		cr_assert_eq(write_one(0, pending_done, &pending[n]), 0);
	cr_assert_eq(write_one(0, start_next, &chain), 0);
	cr_assert_eq(dmio_client_destroy(world.client), 0);
	expect_all_called_back(8, 0);
	cr_assert_eq(chain.left, 0);
	world.client = client;
	world_close(&world);
}

struct ending {
	struct dmio_client *client;
	int ret;
	unsigned int calls;
};

static void destroy_client(unsigned long error, void *context)
{
	struct ending *ending = context;

	cr_assert_eq(error, 0);
	ending->calls++;
	ending->ret = dmio_client_destroy(ending->client);
}

Test(client, destroy_in_a_callback_with_requests_in_flight_is_refused)
{
	struct ending ending;

	world_open(&world, DISKS, ARGS, 0);
	ending = (struct ending){ .client = world.client };
	hold_all(1);
	cr_assert_eq(write_one(0, destroy_client, &ending), 0);
	cr_assert_eq(write_one(1, pending_done, &pending[0]), 0);
	world_settle(&world);
	cr_assert_eq(ending.calls, 1);
	cr_assert_eq(ending.ret, -EBUSY);
	fault_release_all(world.disk[1]);
	cr_assert_eq(world_wait(&world, &pending[0]), 0);
	world_close(&world);
}

Test(client, destroy_in_the_last_callback_works)
{
	struct ending ending;

	world_open(&world, 1, ARGS, 0);
	ending = (struct ending){ .client = world.client };
	cr_assert_eq(write_one(0, destroy_client, &ending), 0);
	world_settle(&world);
	cr_assert_eq(ending.calls, 1);
	cr_assert_eq(ending.ret, 0);
	world.client = NULL;
	world_close(&world);
}

Test(client, destroy_in_a_callback_of_destroy_is_refused)
{
	struct ending ending;

	world_open(&world, 1, ARGS, 0);
	ending = (struct ending){ .client = world.client };
	cr_assert_eq(write_one(0, destroy_client, &ending), 0);
	cr_assert_eq(dmio_client_destroy(world.client), 0);
	cr_assert_eq(ending.calls, 1);
	cr_assert_eq(ending.ret, -EBUSY);
	world.client = NULL;
	world_close(&world);
}

static int try_in_child(void)
{
	struct dmio_region where = world_region(&world, 0, 8, 8);

	if (write_one(0, pending_done, &pending[1]) != -EOWNERDEAD)
		return 1;
	if (dmio_sync_vm(world.client, 1, &where, DMIO_WRITE, buffer, NULL) != -EOWNERDEAD)
		return 2;
	return dmio_client_destroy(world.client) == 0 ? 0 : 3;
}

Test(client, child_of_fork_is_refused)
{
	int status;
	pid_t pid;

	world_open(&world, 1, ARGS, 0);
	hold_all(0);
	cr_assert_eq(write_one(0, pending_done, &pending[0]), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0)
		child_exit(try_in_child());
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	cr_assert_eq(WEXITSTATUS(status), 0);
	fault_release_all(world.disk[0]);
	cr_assert_eq(world_wait(&world, &pending[0]), 0);
	world_close(&world);
}
