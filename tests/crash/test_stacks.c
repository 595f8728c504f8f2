/* SPDX-License-Identifier: MIT */
/*
 * What was promised through stacks of mapped devices is there after every power cut: each state is
 * read through the same stack. Disks that lie show that it would be seen.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simworld.h"

#define SECTORS 12u
#define OLD 1
#define NEW 2

/* The table on top, and those of the devices below, all over three disks. */
struct stack {
	const char *names[3];
	const char *tables[3];
};

static const struct stack stacks[] = {
	{ { "top" }, { "0 12 linear sim:d0 3" } },
	{ { "top" }, { "0 5 linear sim:d0 3\n5 7 linear sim:d1 1" } },
	{ { "top" }, { "0 12 striped 3 2 sim:d0 0 sim:d1 3 sim:d2 5" } },
	{ { "top" }, { "0 12 unstriped 3 2 1 sim:d1 1" } },
	{ { "top" }, { "0 12 switch 3 2 0 sim:d0 0 sim:d1 3 sim:d2 5" } },
	{ { "a", "top" },
	  { "0 24 striped 2 3 sim:d0 0 sim:d2 4", "0 12 unstriped 2 3 1 a 0" } },
	{ { "a", "b", "top" },
	  { "0 12 linear sim:d0 4", "0 12 striped 2 1 sim:d1 0 sim:d2 0",
	    "0 12 striped 2 2 a 2 b 1" } },
	{ { "a", "b", "top" },
	  { "0 16 switch 2 1 0 sim:d0 0 sim:d1 0", "0 16 linear a 0",
	    "0 6 linear b 0\n6 6 unstriped 2 1 0 sim:d2 0" } },
	{ { "a", "b", "top" },
	  { "0 12 delay sim:d0 0 1", "0 12 striped 2 2 a 0 sim:d1 0", "0 12 linear b 0" } },
};

#define NUM_STACKS (sizeof(stacks) / sizeof(stacks[0]))

static struct simworld world;
static struct dmcore_bdev *top;

static void map(const char *name, const char *text)
{
	struct dmcore_device *device;
	struct dmcore_table *table;

	cr_assert_eq(dmcore_device_create(world.core, name, NULL, 0, &device), 0);
	cr_assert_eq(dmcore_table_parse(world.core, text, 0, &table), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
	top = dmcore_device_bdev(device);
}

static void open_stack(const struct stack *stack, unsigned int flags)
{
	static unsigned char old[SECTORS * DMCORE_SECTOR_BYTES];

	simworld_open(&world, 1);
	world.options.flags = flags;
	world.options.max_io_sectors = 4;
	world.options.write_ns = 1000;
	world.options.flush_ns = 3000;
	world.options.spread_ns = 2000;
	for (unsigned int i = 0; i < 3; i++)
		simworld_add_disk(&world, 64);
	for (unsigned int i = 0; i < 3 && stack->names[i]; i++)
		map(stack->names[i], stack->tables[i]);
	memset(old, OLD, sizeof(old));
	cr_assert_eq(dmcore_pwrite(top, old, sizeof(old), 0), 0);
	cr_assert_eq(dmcore_flush(top), 0);
	/* Disks that lie begin with it, too. */
	for (unsigned int i = 0; i < 3; i++) {
		static unsigned char copy[64 * DMCORE_SECTOR_BYTES];

		memcpy(copy, dmcore_sim_disk_data(world.disks[i]), sizeof(copy));
		cr_assert_eq(dmcore_sim_disk_load(world.disks[i], copy, sizeof(copy), 0), 0);
	}
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
}

static void close_stack(const struct stack *stack)
{
	for (unsigned int i = 3; i-- > 0;) {
		if (stack->names[i])
			cr_assert_eq(dmcore_device_remove(
					     dmcore_device_find(world.core, stack->names[i])),
				     0);
	}
	simworld_close(&world);
}

static void write_new(uint64_t sector, uint64_t count, unsigned int flags)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];
	struct dmcore_bio *bio = dmcore_bio_get(world.queue);

	cr_assert(bio);
	memset(data, NEW, sizeof(data));
	dmcore_bio_set_buffer(bio, data, count * DMCORE_SECTOR_BYTES);
	bio->bdev = top;
	bio->op = DMCORE_OP_WRITE;
	bio->flags = (uint16_t)flags;
	bio->sector = sector;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	/* Polls count what the library does below, too. */
	while (dmcore_queue_reap(world.queue, &bio, 1) == 0)
		cr_assert_gt(dmcore_queue_poll(world.queue, 1, UINT32_MAX, -1), 0);
	cr_assert_eq(bio->status, 0);
	dmcore_bio_put(bio);
}

static void promise(void)
{
	cr_assert_eq(dmcore_sim_mark(world.sim, 1), 0);
}

/* What one state holds, as bits: sectors that are new. Each is old or new, and nothing else. */
static unsigned int read_state(void)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];
	unsigned int bits = 0;

	cr_assert_eq(dmcore_pread(top, data, sizeof(data), 0), 0);
	for (unsigned int i = 0; i < SECTORS; i++) {
		const unsigned char *sector = data + (size_t)i * DMCORE_SECTOR_BYTES;

		cr_assert(sector[0] == OLD || sector[0] == NEW);
		cr_assert_eq(memcmp(sector, sector + 1, DMCORE_SECTOR_BYTES - 1), 0);
		bits |= (sector[0] == NEW ? 1u : 0u) << i;
	}
	return bits;
}

/* How many states lack something of what was promised; or have `second` without `first`. */
static unsigned int count_broken(unsigned int promised, unsigned int first, unsigned int second)
{
	const struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = DMCORE_SIM_CUTS_EVENTS,
		.states_per_cut = 40,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	unsigned int num_broken = 0;
	unsigned int num_promised = 0;

	cr_assert_eq(dmcore_sim_states_open(world.sim, &options, &states), 0, "%s",
		     dmcore_error_message());
	while (dmcore_sim_states_next(states) == 1) {
		unsigned int bits = read_state();

		cr_assert_eq(dmcore_sim_states_info(states, &state), 0);
		num_promised += state.num_marks > 0;
		num_broken += (state.num_marks && (bits & promised) != promised) ||
			      (bits & second && (bits & first) != first);
	}
	cr_assert_gt(state.nr, 20);
	cr_assert_gt(num_promised, 0);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
	return num_broken;
}

#define ALL ((1u << SECTORS) - 1)

static void write_and_flush(void)
{
	write_new(0, SECTORS, 0);
	cr_assert_eq(dmcore_flush(top), 0);
	promise();
}

static void write_durably(void)
{
	write_new(0, SECTORS, DMCORE_BIO_FUA);
	promise();
}

static void write_behind_a_flush(void)
{
	write_new(0, 8, 0);
	write_new(8, 4, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA);
	promise();
}

/* Through every stack, on disks of all kinds; and lying ones are found out each time. */
static void check(void (*program)(void), unsigned int first, unsigned int second)
{
	static const unsigned int kinds[] = {
		0,
		DMCORE_SIM_NO_FUA,
		DMCORE_SIM_NO_CACHE,
		DMCORE_SIM_LIES,
		DMCORE_SIM_LIES | DMCORE_SIM_NO_FUA,
	};

	for (unsigned int s = 0; s < NUM_STACKS; s++) {
		for (unsigned int k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
			unsigned int num_broken;

			open_stack(&stacks[s], kinds[k]);
			program();
			num_broken = count_broken(ALL, first, second);
			if (kinds[k] & DMCORE_SIM_LIES)
				cr_assert_gt(num_broken, 0, "stack %u, disks %x", s, kinds[k]);
			else
				cr_assert_eq(num_broken, 0, "stack %u, disks %x", s, kinds[k]);
			close_stack(&stacks[s]);
		}
	}
}

Test(stacks, flush_reaches_the_cache_of_every_disk_below, .timeout = 600)
{
	check(write_and_flush, 0, 0);
}

Test(stacks, every_piece_of_a_durable_write_is_durable, .timeout = 600)
{
	check(write_durably, 0, 0);
}

Test(stacks, write_behind_a_flush_is_never_there_before_what_had_ended, .timeout = 600)
{
	check(write_behind_a_flush, 0xff, 0xf00);
}

/* One disk's flush fails, whichever: so does that of the stack, and nothing was promised. */
Test(stacks, flush_fails_with_that_of_any_disk_below, .timeout = 600)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_FAIL,
		.status = -EIO,
		.ops = 1u << DMCORE_OP_FLUSH,
		.times = 1,
	};
	unsigned int num_failed = 0;

	for (unsigned int s = 0; s < NUM_STACKS; s++) {
		for (unsigned int disk = 0; disk < 3; disk++) {
			uint64_t acted;
			int ret;

			open_stack(&stacks[s], 0);
			cr_assert_eq(dmcore_sim_rule_add(world.disks[disk], &rule), 0);
			write_new(0, SECTORS, 0);
			ret = dmcore_flush(top);
			acted = dmcore_sim_rules_acted(world.disks[disk]);
			cr_assert_eq(ret, acted ? -EIO : 0, "stack %u, disk %u", s, disk);
			num_failed += acted > 0;
			/* Written again it is kept: no failure sticks. */
			write_and_flush();
			cr_assert_eq(count_broken(ALL, 0, 0), 0);
			close_stack(&stacks[s]);
		}
	}
	cr_assert_gt(num_failed, NUM_STACKS);
}
