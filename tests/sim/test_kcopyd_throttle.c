/* SPDX-License-Identifier: MIT */
/*
 * The throttle of kcopyd in virtual time: the share of the time in which disks are at work, and
 * bytes per second, over ten seconds and more, with fast disks and slow ones, one client and
 * three.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "support/rng.h"
#include "support/simcopy.h"

#define SECOND UINT64_C(1000000000)
#define MS UINT64_C(1000000)
#define CLIENTS 3u
/* A job, over and over. */
#define JOB_SECTORS 4096u

static struct simworld world;
static struct kcopyd_throttle *throttle;
static unsigned int num_clients;
static struct kcopyd_client *clients[CLIENTS];
/* One of each client, which is submitted anew when it ends. */
static struct simcopy copies[CLIENTS];
static bool goes_on;

static void open_world(uint64_t io_ns, unsigned int flags)
{
	simcopy_open(&world, 1);
	throttle = NULL;
	num_clients = 0;
	goes_on = true;
	memset(copies, 0, sizeof(copies));
	world.options.read_ns = io_ns;
	world.options.write_ns = io_ns;
	world.options.flags = flags;
	/* What has been written is settled soon, so that it needn't be kept. */
	world.options.cache_units = 4096;
	world.options.atomic_bytes = 4096;
	for (unsigned int i = 0; i <= CLIENTS; i++)
		simworld_add_disk(&world, JOB_SECTORS);
	cr_assert_eq(kcopyd_throttle_create(world.queue, &throttle), 0);
}

static void again(struct simcopy *copy)
{
	cr_assert_eq(copy->job.status, 0);
	if (goes_on)
		simcopy_start(clients[copy - copies], copy);
}

static void add_client(unsigned int pages, unsigned int flags)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	unsigned int i = num_clients++;

	options.throttle = throttle;
	cr_assert_eq(kcopyd_client_create_with(world.queue, pages, &options, &clients[i]), 0, "%s",
		     dmcore_error_message());
	simcopy_from(&copies[i], &world, 0, 0, JOB_SECTORS, flags);
	simcopy_to(&copies[i], &world, 1 + i, 0);
	copies[i].ended = again;
}

static void start_all(void)
{
	goes_on = true;
	for (unsigned int i = 0; i < num_clients; i++)
		simcopy_start(clients[i], &copies[i]);
}

static void pass(uint64_t ns)
{
	uint64_t until_ns = dmcore_sim_now_ns(world.sim) + ns;

	while (dmcore_sim_now_ns(world.sim) < until_ns)
		simcopy_poll(&world, 1, (int64_t)(until_ns - dmcore_sim_now_ns(world.sim)));
}

static void end_all(void)
{
	goes_on = false;
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, 0), 0);
	for (unsigned int i = 0; i < num_clients; i++)
		simcopy_wait(&world, &copies[i]);
}

static void close_world(void)
{
	end_all();
	for (unsigned int i = 0; i < num_clients; i++)
		cr_assert_eq(simcopy_destroy(clients[i]), 0);
	cr_assert_eq(kcopyd_throttle_destroy(throttle), 0);
	simcopy_close(&world);
}

/* ---- the share of the time ------------------------------------------------------------------ */

/* Per cent of so much time in which disks were at work, times 10. */
static unsigned int share_over(uint64_t ns)
{
	uint64_t before_ns = simcopy_busy_ns();

	pass(ns);
	return (unsigned int)((simcopy_busy_ns() - before_ns) * 1000 / ns);
}

struct load {
	uint64_t io_ns; /* of a read, and of a write */
	unsigned int clients;
	unsigned int pages;
};

static const struct load loads[] = {
	{ MS, 1, 1 },      { 2 * MS, 1, 64 },   { 5 * MS, 1, 8 }, { 5 * MS, 3, 8 },
	{ 40 * MS, 1, 1 }, { 40 * MS, 1, 256 }, { 40 * MS, 3, 16 },
};

#define NUM_LOADS (sizeof(loads) / sizeof(loads[0]))

static void expect_share(const struct load *load, unsigned int percent)
{
	unsigned int share = share_over((rng_brief() ? 10 : 20) * SECOND);

	cr_assert(share >= percent * 10 - 50 && share <= percent * 10 + 50,
		  "%u clients, %u pages, %u us: %u %% asked, %u.%u %% seen", load->clients,
		  load->pages, (unsigned int)(load->io_ns / 1000), percent, share / 10, share % 10);
}

static void open_load(const struct load *load)
{
	open_world(load->io_ns, 0);
	for (unsigned int i = 0; i < load->clients; i++)
		add_client(load->pages, 0);
}

static void check_share(unsigned int percent)
{
	for (unsigned int i = 0; i < NUM_LOADS; i += rng_brief() ? 2 : 1) {
		open_load(&loads[i]);
		cr_assert_eq(kcopyd_throttle_set(throttle, percent, 0), 0);
		start_all();
		pass(2 * SECOND);
		expect_share(&loads[i], percent);
		close_world();
	}
}

Test(share, of_10_per_cent_is_kept, .timeout = 600)
{
	check_share(10);
}

Test(share, of_25_per_cent_is_kept, .timeout = 600)
{
	check_share(25);
}

Test(share, of_50_per_cent_is_kept, .timeout = 600)
{
	check_share(50);
}

Test(share, of_90_per_cent_is_kept, .timeout = 600)
{
	check_share(90);
}

Test(share, of_100_per_cent_and_more_is_no_bound, .timeout = 600)
{
	static const unsigned int percents[] = { 100, 101, UINT32_MAX };

	for (unsigned int i = 0; i < 3; i++) {
		open_load(&loads[2]);
		cr_assert_eq(kcopyd_throttle_set(throttle, percents[i], 0), 0);
		start_all();
		cr_assert_geq(share_over(SECOND), 999);
		close_world();
	}
}

/* A slow disk now and then, by a rule. */
Test(share, is_kept_where_some_requests_take_long, .timeout = 600)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_DELAY,
		.per_million = 50000,
		.delay_ns = 100 * MS,
	};

	open_load(&loads[2]);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(dmcore_sim_rule_add(world.disks[i], &rule), 0);
	cr_assert_eq(kcopyd_throttle_set(throttle, 50, 0), 0);
	start_all();
	pass(2 * SECOND);
	expect_share(&loads[2], 50);
	close_world();
}

Test(share, changes_while_copies_are_under_way, .timeout = 600)
{
	static const unsigned int percents[] = { 50, 10, 90, 25 };

	open_load(&loads[2]);
	start_all();
	cr_assert_geq(share_over(SECOND), 999);
	for (unsigned int i = 0; i < 4; i++) {
		cr_assert_eq(kcopyd_throttle_set(throttle, percents[i], 0), 0);
		/* The last seconds count, too. */
		pass(4 * SECOND);
		expect_share(&loads[2], percents[i]);
	}
	cr_assert_eq(kcopyd_throttle_set(throttle, 0, 0), 0);
	pass(4 * SECOND);
	cr_assert_leq(share_over(20 * SECOND), 30);
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, 0), 0);
	cr_assert_geq(share_over(SECOND), 999);
	close_world();
}

/* A slice isn't held up for more than a second, by nothing at all. */
Test(share, of_nothing_lets_a_slice_pass_each_second, .timeout = 600)
{
	for (unsigned int i = 0; i < NUM_LOADS; i++) {
		const uint64_t seconds = 30;
		uint64_t slices[CLIENTS];

		open_load(&loads[i]);
		cr_assert_eq(kcopyd_throttle_set(throttle, 0, 0), 0);
		start_all();
		pass(seconds * SECOND);
		for (unsigned int c = 0; c < num_clients; c++) {
			uint64_t slice = loads[i].pages < 8 ? 8 : loads[i].pages;

			slices[c] = (copies[c].num_ends * (uint64_t)JOB_SECTORS +
				     simcopy_progress(&copies[c]).position_sectors) / slice;
			/* Its own time comes on top. */
			cr_assert_geq(slices[c],
				      seconds * SECOND / (SECOND + 2 * loads[i].io_ns) - 2,
				      "load %u: %u", i, (unsigned int)slices[c]);
			cr_assert_leq(slices[c], 12 * seconds);
		}
		close_world();
	}
}

/* Its memory is short: what wasn't used isn't saved up. */
Test(share, that_was_not_used_makes_no_burst, .timeout = 600)
{
	open_load(&loads[2]);
	cr_assert_eq(kcopyd_throttle_set(throttle, 10, 0), 0);
	pass(100 * SECOND);
	start_all();
	cr_assert_leq(share_over(2 * SECOND), 300);
	close_world();
}

/* ---- bytes per second ----------------------------------------------------------------------- */

static uint64_t bytes_over(uint64_t ns)
{
	uint64_t before = simcopy_watch.written_sectors;

	pass(ns);
	return (simcopy_watch.written_sectors - before) * DMCORE_SECTOR_BYTES;
}

struct rate {
	uint64_t bytes_per_second;
	uint64_t io_ns;
	unsigned int clients;
	unsigned int pages;
	unsigned int seconds; /* long enough for the size of a slice */
};

static const struct rate rates[] = {
	{ 10000, 100000, 1, 1, 30 },       { 10000, 20 * MS, 3, 8, 60 },
	{ 10000, 0, 1, 256, 200 },         { 1000000, 100000, 1, 1, 10 },
	{ 1000000, 20 * MS, 1, 64, 10 },   { 1000000, 100000, 3, 8, 10 },
	{ 1000000, 50 * MS, 3, 256, 20 },  { 100000000, 100000, 1, 256, 10 },
	{ 100000000, 2 * MS, 3, 1024, 10 },
};

#define NUM_RATES (sizeof(rates) / sizeof(rates[0]))

static void expect_rate(const struct rate *rate, uint64_t bytes, uint64_t seconds)
{
	uint64_t wanted = rate->bytes_per_second * seconds;

	cr_assert(bytes * 100 >= wanted * 95 && bytes * 100 <= wanted * 105,
		  "%lu bytes/s, %u clients, %u pages, %u us: %lu bytes, not %lu",
		  (unsigned long)rate->bytes_per_second, rate->clients, rate->pages,
		  (unsigned int)(rate->io_ns / 1000), (unsigned long)bytes, (unsigned long)wanted);
}

static void open_rate(const struct rate *rate, unsigned int flags)
{
	open_world(rate->io_ns, 0);
	for (unsigned int i = 0; i < rate->clients; i++)
		add_client(rate->pages, flags);
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, rate->bytes_per_second), 0);
}

Test(rate, is_kept_within_5_per_cent, .timeout = 600)
{
	/* The last ones move gigabytes. */
	for (unsigned int i = 0; i < NUM_RATES - (rng_brief() ? 2 : 0); i++) {
		open_rate(&rates[i], 0);
		start_all();
		pass(2 * SECOND);
		expect_rate(&rates[i], bytes_over(rates[i].seconds * SECOND), rates[i].seconds);
		close_world();
	}
}

/* However many destinations there are, and as often as it is read. */
Test(rate, counts_what_is_copied_or_compared, .timeout = 600)
{
	const struct rate rate = { 1000000, 100000, 1, 64, 20 };

	for (unsigned int flags = 0; flags <= KCOPYD_VERIFY; flags += KCOPYD_VERIFY) {
		unsigned int times = flags ? 2 : 1;

		open_rate(&rate, flags);
		for (unsigned int i = 2; i <= CLIENTS; i++)
			simcopy_to(&copies[0], &world, i, 0);
		start_all();
		/* Whole jobs: a job is compared when all of it is written. */
		for (unsigned int n = 0; n < 4; n++) {
			uint64_t begin_ns = dmcore_sim_now_ns(world.sim);
			unsigned int ends = copies[0].num_ends;

			while (copies[0].num_ends == ends)
				simcopy_poll(&world, 1, -1);
			if (n == 0)
				continue;
			begin_ns = dmcore_sim_now_ns(world.sim) - begin_ns;
			expect_rate(&rate, (uint64_t)times * JOB_SECTORS * 512 * SECOND / begin_ns,
				    1);
		}
		close_world();
	}
}

Test(rate, changes_while_copies_are_under_way, .timeout = 600)
{
	static const uint64_t speeds[] = { 100000, 10000000, 1000000 };
	struct rate rate = { 1000000, 100000, 1, 64, 10 };

	open_rate(&rate, 0);
	start_all();
	for (unsigned int i = 0; i < 3; i++) {
		rate.bytes_per_second = speeds[i];
		cr_assert_eq(kcopyd_throttle_set(throttle, 100, speeds[i]), 0);
		pass(2 * SECOND);
		expect_rate(&rate, bytes_over(10 * SECOND), 10);
	}
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, 0), 0);
	cr_assert_geq(share_over(SECOND), 999);
	close_world();
}

/* A long time in which nothing was copied isn't made up for. */
Test(rate, makes_no_burst_after_idle_time, .timeout = 600)
{
	for (unsigned int i = 0; i < NUM_RATES - (rng_brief() ? 2 : 0); i++) {
		uint64_t wanted = rates[i].bytes_per_second;
		/* Each client has a slice under way at once; it may have been paid for. */
		uint64_t slack = rates[i].clients * (wanted / 8 + 8192);

		if (rates[i].io_ns > 20 * MS)
			continue;
		open_rate(&rates[i], 0);
		start_all();
		pass(3 * SECOND);
		end_all();
		cr_assert_eq(kcopyd_throttle_set(throttle, 100, rates[i].bytes_per_second), 0);
		pass(100 * SECOND);
		start_all();
		cr_assert_leq(bytes_over(SECOND), wanted + slack, "rate %u", i);
		close_world();
	}
}

/* Both bounds at once: the stricter one rules. */
Test(rate, and_share_hold_together, .timeout = 600)
{
	const struct rate rate = { 1000000, 5 * MS, 1, 8, 10 };
	unsigned int share;

	open_rate(&rate, 0);
	/* A slice of 4 KiB in 10 ms: at most 409,600 bytes per second, half of the time. */
	cr_assert_eq(kcopyd_throttle_set(throttle, 50, 100000), 0);
	start_all();
	pass(2 * SECOND);
	cr_assert_leq(bytes_over(10 * SECOND), 1050000);
	cr_assert_eq(kcopyd_throttle_set(throttle, 10, 100000000), 0);
	pass(4 * SECOND);
	share = share_over(10 * SECOND);
	cr_assert(share >= 50 && share <= 150, "%u", share);
	close_world();
}

/* ---- what needs no throttle ----------------------------------------------------------------- */

/* A job that is held up can be cancelled: it ends at once. */
Test(throttle, holds_up_no_cancellation)
{
	uint64_t begin_ns;

	open_load(&loads[2]);
	copies[0].ended = NULL;
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, 1), 0);
	start_all();
	pass(3 * SECOND);
	cr_assert(copies[0].busy);
	begin_ns = dmcore_sim_now_ns(world.sim);
	cr_assert_eq(simcopy_cancel(&copies[0]), 0);
	cr_assert_eq(simcopy_wait(&world, &copies[0]), -ECANCELED);
	cr_assert_leq(dmcore_sim_now_ns(world.sim) - begin_ns, 100 * MS);
	close_world();
}

Test(throttle, of_a_client_that_waits_does_not_keep_it_from_being_destroyed)
{
	open_load(&loads[2]);
	copies[0].ended = NULL;
	cr_assert_eq(kcopyd_throttle_set(throttle, 0, 10000000), 0);
	start_all();
	pass(SECOND);
	cr_assert(copies[0].busy);
	cr_assert_eq(kcopyd_throttle_destroy(throttle), -EBUSY);
	cr_assert_eq(simcopy_cancel(&copies[0]), 0);
	cr_assert_eq(simcopy_destroy(clients[0]), 0);
	cr_assert_eq(copies[0].job.status, -ECANCELED);
	cr_assert_eq(copies[0].num_ends, 1);
	num_clients = 0;
	close_world();
}

/* A client without one isn't held up by that of others. */
Test(throttle, is_only_for_its_clients)
{
	struct kcopyd_client *other;
	struct simcopy free_copy = { .num_ends = 0 };
	uint64_t begin_ns;

	open_load(&loads[2]);
	cr_assert_eq(kcopyd_throttle_set(throttle, 0, 1000), 0);
	start_all();
	cr_assert_eq(kcopyd_client_create(world.queue, 256, &other), 0);
	simcopy_from(&free_copy, &world, 0, 0, JOB_SECTORS, 0);
	simcopy_to(&free_copy, &world, 2, 0);
	begin_ns = dmcore_sim_now_ns(world.sim);
	cr_assert_eq(simcopy_run(&world, other, &free_copy), 0);
	/* 16 slices, 8 at a time. */
	cr_assert_leq(dmcore_sim_now_ns(world.sim) - begin_ns, SECOND);
	cr_assert_eq(simcopy_destroy(other), 0);
	close_world();
}
