/* SPDX-License-Identifier: MIT */
/*
 * What a simulated world refuses: to be made without memory, to show states that there aren't, and
 * to be changed while it shows them. The linker sends mmap() and munmap() here first (--wrap, in
 * tests/local.mk).
 */
#include <errno.h>
#include <string.h>

#include <sys/mman.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simworld.h"

#define CALLS_MAX 200u

static unsigned int fails_at; /* the call of mmap() that fails; 0: none */
static unsigned int num_calls;
static int num_mapped;

void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *memory, size_t bytes);
int __wrap_munmap(void *memory, size_t bytes);

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	void *memory;

	if (++num_calls == fails_at) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	memory = __real_mmap(at, bytes, prot, flags, fd, offset);
	num_mapped += memory != MAP_FAILED;
	return memory;
}

int __wrap_munmap(void *memory, size_t bytes)
{
	num_mapped--;
	return __real_munmap(memory, bytes);
}

/* ---- memory ---- */

static struct simworld world;

static void open_world(void)
{
	simworld_open(&world, 1);
	simworld_add_disk(&world, 64);
}

static void close_world(void)
{
	simworld_close(&world);
}

/* Makes something and takes it down again, first with its first piece of memory refused, then with
 * the second, until there is no more to refuse. */
static void refuse_each(int (*make)(void))
{
	unsigned int n;
	int ret = -ENOMEM;

	for (n = 1; ret == -ENOMEM; n++) {
		int before = num_mapped;

		cr_assert_lt(n, CALLS_MAX);
		num_calls = 0;
		fails_at = n;
		ret = make();
		fails_at = 0;
		cr_assert(ret == 0 || ret == -ENOMEM, "call %u: %d, %s", n, ret,
			  dmcore_error_message());
		cr_assert_eq(ret == 0, num_calls < n, "call %u: %d", n, ret);
		cr_assert_eq(num_mapped, before, "call %u: a leak", n);
	}
	cr_assert_gt(n, 2);
}

static int make_world(void)
{
	struct dmcore_sim *sim = (void *)&world;
	int ret = dmcore_sim_create(NULL, &sim);

	cr_assert_eq(ret != 0, sim == NULL);
	cr_assert_eq(dmcore_sim_destroy(sim), 0);
	return ret;
}

static int make_disk(void)
{
	struct dmcore_sim_disk_options options = { .struct_size = sizeof(options), .sectors = 64 };
	struct dmcore_sim_disk *disk;
	struct dmcore_sim *sim;
	int ret = dmcore_sim_create(NULL, &sim);

	if (ret)
		return ret;
	ret = dmcore_sim_disk_create(sim, "a", &options, &disk);
	cr_assert_eq(ret != 0, disk == NULL);
	/* The name is still free. */
	if (ret)
		cr_assert_eq(dmcore_sim_disk_create(sim, "a", &options, &disk), 0);
	cr_assert_eq(dmcore_sim_destroy(sim), 0);
	return ret;
}

static int make_core(void)
{
	struct dmcore *core;
	struct dmcore_sim *sim;
	int ret = dmcore_sim_create(NULL, &sim);

	if (ret)
		return ret;
	ret = dmcore_sim_core(sim, NULL, &core);
	cr_assert_eq(ret != 0, core == NULL);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(dmcore_sim_destroy(sim), 0);
	return ret;
}

Test(sim_memory, lack_of_it_is_told_and_nothing_is_left)
{
	refuse_each(make_world);
	refuse_each(make_disk);
	refuse_each(make_core);
}

static int make_states(void)
{
	const unsigned char *data;
	struct dmcore_sim_states *states;
	int ret = dmcore_sim_states_open(world.sim, NULL, &states);

	cr_assert_eq(ret != 0, states == NULL);
	if (ret == 0) {
		cr_assert_eq(dmcore_sim_states_next(states), 1);
		cr_assert_eq(dmcore_sim_states_close(states), 0);
		return 0;
	}
	/* The run goes on as if nothing had been asked. */
	data = dmcore_sim_disk_data(world.disks[0]);
	cr_assert_eq(data[0], 7);
	return ret;
}

Test(sim_memory, states_that_have_none_leave_the_run_as_it_was, .init = open_world,
     .fini = close_world)
{
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 7, 0);
	simworld_write(&world, 1, 0, 1, 7, 0);
	refuse_each(make_states);
}

/* ---- states ---- */

TestSuite(sim_refusals, .init = open_world, .fini = close_world);

static void refuse_options(const struct dmcore_sim_states_options *options)
{
	struct dmcore_sim_states *states = (void *)&world;

	cr_assert_eq(dmcore_sim_states_open(world.sim, options, &states), -EINVAL);
	cr_assert_null(states);
}

Test(sim_refusals, of_options_that_there_are_not)
{
	struct dmcore_sim_states_options options = { .struct_size = sizeof(size_t) - 1 };
	struct dmcore_sim_states *states;

	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	refuse_options(&options);
	options.struct_size = sizeof(options);
	options.cuts = DMCORE_SIM_CUTS_END + 1;
	refuse_options(&options);
	options.cuts = DMCORE_SIM_CUTS_END;
	options.flags = 2;
	refuse_options(&options);
	options.flags = 0;
	options.states_per_cut = UINT32_MAX;
	refuse_options(&options);
	cr_assert_eq(dmcore_sim_states_open(NULL, NULL, &states), -EINVAL);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, NULL), -EINVAL);
	/* An older caller's options end before those. */
	options.struct_size = sizeof(options.struct_size);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &options, &states), 0);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(sim_refusals, of_states_that_are_not_shown)
{
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;

	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	cr_assert_eq(dmcore_sim_states_next(NULL), -EINVAL);
	cr_assert_eq(dmcore_sim_states_info(NULL, &state), -EINVAL);
	cr_assert_eq(dmcore_sim_states_close(NULL), 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), 0);
	/* None is shown yet, */
	cr_assert_eq(dmcore_sim_states_info(states, &state), -EINVAL);
	cr_assert_eq(dmcore_sim_states_next(states), 1);
	cr_assert_eq(dmcore_sim_states_info(states, NULL), -EINVAL);
	state.struct_size = sizeof(size_t) - 1;
	cr_assert_eq(dmcore_sim_states_info(states, &state), -EINVAL);
	state.struct_size = sizeof(state);
	cr_assert_eq(dmcore_sim_states_info(states, &state), 0);
	cr_assert_eq(state.nr, 0);
	while (dmcore_sim_states_next(states) == 1)
		;
	/* and none any more. */
	cr_assert_eq(dmcore_sim_states_next(states), 0);
	cr_assert_eq(dmcore_sim_states_info(states, &state), -EINVAL);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(sim_refusals, of_changes_while_states_are_shown)
{
	struct dmcore_sim_disk_options options = { .struct_size = sizeof(options), .sectors = 64 };
	struct dmcore_sim_states *states;
	struct dmcore_sim_disk *disk;
	struct dmcore_bio *bio;

	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), 0);
	cr_assert_eq(dmcore_sim_states_next(states), 1);
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "new", &options, &disk), -EBUSY);
	cr_assert_eq(dmcore_sim_destroy(world.sim), -EBUSY);
	cr_assert_str_eq(dmcore_error_message(), "states are open");
	/* A held request is one in flight. */
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0],
					 &(struct dmcore_sim_rule){
						 .struct_size = sizeof(struct dmcore_sim_rule),
						 .action = DMCORE_SIM_HOLD,
						 .times = 1 }), 0);
	bio = simworld_submit(&world, 0, DMCORE_OP_READ, 0, 0, 1, 0);
	cr_assert_eq(dmcore_sim_states_next(states), -EBUSY);
	cr_assert_eq(dmcore_sim_states_close(states), -EBUSY);
	cr_assert_eq(dmcore_sim_release(world.disks[0]), 1);
	cr_assert_eq(simworld_wait(&world, bio), 0);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "new", &options, &disk), 0);
}

Test(sim_refusals, of_states_too_deep)
{
	struct dmcore_sim_states *states[DMCORE_SIM_NESTED_MAX + 1];
	unsigned int depth;

	for (depth = 0; depth < DMCORE_SIM_NESTED_MAX; depth++) {
		cr_assert_eq(dmcore_sim_record(world.sim), 0);
		simworld_write(&world, 0, depth, 1, 1, 0);
		cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states[depth]), 0);
		cr_assert_eq(dmcore_sim_states_next(states[depth]), 1);
	}
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states[depth]), -ENOSPC);
	/* The innermost goes first. */
	cr_assert_eq(dmcore_sim_states_close(states[0]), -EBUSY);
	while (depth-- > 0)
		cr_assert_eq(dmcore_sim_states_close(states[depth]), 0);
}

Test(sim_refusals, of_a_history_without_power)
{
	dmcore_sim_cut(world.sim);
	cr_assert_eq(dmcore_sim_record(world.sim), -ENODEV);
	cr_assert_str_eq(dmcore_error_message(), "the power is off");
	dmcore_sim_power_on(world.sim);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
}

Test(sim_refusals, of_more_marks_than_a_history_has)
{
	struct dmcore_sim_states *states;

	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	for (unsigned int i = 0; i < DMCORE_SIM_MARKS_MAX; i++)
		cr_assert_eq(dmcore_sim_mark(world.sim, i), 0);
	cr_assert_eq(dmcore_sim_mark(world.sim, 0), -ENOSPC);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), 0);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
	/* The next has room again. */
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	cr_assert_eq(dmcore_sim_mark(world.sim, 0), 0);
}

Test(sim_refusals, of_a_cut_that_is_taken_back)
{
	dmcore_sim_cut_after(world.sim, 1);
	dmcore_sim_cut_after(world.sim, 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	cr_assert(dmcore_sim_has_power(world.sim));
	dmcore_sim_cut_after(world.sim, 1);
	cr_assert_eq(dmcore_sim_mark(world.sim, 1), 0);
	cr_assert_not(dmcore_sim_has_power(world.sim));
}

Test(sim_refusals, of_worlds_and_disks_that_there_are_not)
{
	struct dmcore_sim_disk_options options = { .struct_size = sizeof(options), .sectors = 64 };
	struct dmcore_options core_options = { .struct_size = sizeof(size_t) };
	struct dmcore_sim_rule rule = { .struct_size = sizeof(rule) };
	char name[DMCORE_SIM_NAME_MAX + 2];
	struct dmcore_sim_disk *disk;
	struct dmcore *core;

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	cr_assert_eq(dmcore_sim_disk_create(NULL, "a", &options, &disk), -EINVAL);
	cr_assert_eq(dmcore_sim_disk_create(world.sim, NULL, &options, &disk), -EINVAL);
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "a", NULL, &disk), -EINVAL);
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "a", &options, NULL), -EINVAL);
	cr_assert_eq(dmcore_sim_disk_create(world.sim, name, &options, &disk), -EINVAL);
	options.discard = DMCORE_SIM_DISCARD_RANDOM + 1;
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "a", &options, &disk), -EINVAL);
	options.discard = 0;
	options.logical_block_bytes = 2 * DMCORE_BLOCK_BYTES_MAX;
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "a", &options, &disk), -EINVAL);
	options.logical_block_bytes = 0;
	options.cache_units = DMCORE_SIM_CACHE_UNITS_MAX + 1;
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "a", &options, &disk), -EINVAL);
	options.struct_size = sizeof(size_t) - 1;
	cr_assert_eq(dmcore_sim_disk_create(world.sim, "a", &options, &disk), -EINVAL);
	cr_assert_eq(dmcore_sim_rule_add(NULL, &rule), -EINVAL);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], NULL), -EINVAL);
	cr_assert_eq(dmcore_sim_core(world.sim, NULL, NULL), -EINVAL);
	cr_assert_eq(dmcore_sim_core(world.sim, &core_options, &core), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	core_options = (struct dmcore_options)DMCORE_OPTIONS_INIT;
	core_options.bdevs_max = DMCORE_BDEVS_MAX + 1;
	cr_assert_eq(dmcore_sim_core(world.sim, &core_options, &core), -EINVAL);
	cr_assert_null(core);
}

Test(sim_refusals, of_events_that_there_are_not_are_still_printed)
{
	struct dmcore_sim_event event = { .nr = 3, .time_ns = 40, .kind = 99, .disk = "a" };
	char text[80];

	cr_assert_eq(dmcore_sim_event_text(&event, text, sizeof(text)), (int)strlen("3 40 ?"));
	cr_assert_str_eq(text, "3 40 ?");
	event.kind = DMCORE_SIM_SUBMIT;
	event.op = DMCORE_OP_COUNT;
	event.flags = DMCORE_BIO_PREFLUSH;
	dmcore_sim_event_text(&event, text, sizeof(text));
	cr_assert_str_eq(text, "3 40 a submit ? 0+0 preflush 0 0000000000000000");
}
