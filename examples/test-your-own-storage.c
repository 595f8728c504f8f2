/* SPDX-License-Identifier: MIT */
/*
 * Tests a small store with a write-ahead log against every power cut there is: written wrongly
 * twice, and rightly once. The store is the first half, its test the second.
 *
 *	./test-your-own-storage [SEED]
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dmcore.h>

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

/* ---- the store: eight slots on a device ---- */

#define SLOTS 8   /* block 1 + slot holds the slot's last settled record */
#define RECORDS 3 /* of the log, after the slots, used in turn */

enum bug { BUG_NONE, BUG_NO_FLUSH, BUG_EARLY_HEADER };

/* 512 bytes. Block 0, the header, has but a number: up to this one, records have been settled. */
struct block {
	uint64_t number; /* of the record, from 1 */
	uint64_t sum;
	uint64_t slot;
	uint64_t value[61];
};

struct store {
	struct dmcore_bdev *disk;
	enum bug bug;
	uint64_t last;    /* record */
	uint64_t settled; /* the last that the log needn't have any more */
	struct block slots[SLOTS];
};

static void write_block(struct store *store, const struct block *block, uint64_t nr)
{
	check(dmcore_pwrite(store->disk, block, sizeof(*block), nr * sizeof(*block)), "write");
}

static void read_block(struct store *store, struct block *block, uint64_t nr)
{
	check(dmcore_pread(store->disk, block, sizeof(*block), nr * sizeof(*block)), "read");
}

static uint64_t sum_of(const struct block *block)
{
	uint64_t sum = block->number * 31 + block->slot;

	for (unsigned int i = 0; i < 61; i++)
		sum = (sum ^ block->value[i]) * 0x9e3779b97f4a7c15;
	return sum;
}

/* Puts the slots in place, so that the log can be written over. */
static void settle(struct store *store)
{
	struct block header = { .number = store->last };

	for (unsigned int i = 0; i < SLOTS; i++) {
		if (store->slots[i].number > store->settled)
			write_block(store, &store->slots[i], 1 + i);
	}
	if (store->bug != BUG_EARLY_HEADER)
		check(dmcore_flush(store->disk), "flush");
	write_block(store, &header, 0);
	check(dmcore_flush(store->disk), "flush");
	store->settled = store->last;
}

/* When this returns, the slot has its value, whatever happens. */
static void set(struct store *store, uint64_t slot, uint64_t value)
{
	struct block *block = &store->slots[slot];

	if (store->last - store->settled == RECORDS)
		settle(store);
	block->number = ++store->last;
	block->slot = slot;
	for (unsigned int i = 0; i < 61; i++)
		block->value[i] = value;
	block->sum = sum_of(block);
	write_block(store, block, 1 + SLOTS + block->number % RECORDS);
	if (store->bug != BUG_NO_FLUSH)
		check(dmcore_flush(store->disk), "flush");
}

/* What a program does at start: reads the slots, and does again what the log has. */
static void recover(struct store *store, struct dmcore_bdev *disk, enum bug bug)
{
	struct block block;

	*store = (struct store){ .disk = disk, .bug = bug };
	read_block(store, &block, 0);
	store->last = store->settled = block.number;
	for (unsigned int i = 0; i < SLOTS; i++)
		read_block(store, &store->slots[i], 1 + i);
	while (store->last - store->settled < RECORDS) {
		read_block(store, &block, 1 + SLOTS + (store->last + 1) % RECORDS);
		if (block.number != store->last + 1 || block.sum != sum_of(&block))
			break;
		store->slots[block.slot] = block;
		store->last++;
	}
	settle(store);
}

/* ---- its test ---- */

#define STEPS 10
#define SHOWN 12 /* events before a cut that are shown */

struct test {
	enum bug bug;
	struct dmcore_sim *sim;
	struct dmcore_bdev *disk;
	uint64_t num_states;
	uint64_t failed_cut; /* event, if a state fails */
	char failed[1024];   /* the state, for people */
	uint64_t show_until; /* event; 0: the log isn't shown */
};

static void show_event(const struct dmcore_sim_event *event, void *context)
{
	struct test *test = context;
	char text[128];

	if (event->nr > test->show_until || event->nr + SHOWN <= test->show_until)
		return;
	dmcore_sim_event_text(event, text, sizeof(text));
	printf("    %s\n", text);
}

/* The work. It must follow from nothing but the seed. */
static uint64_t slot_of(uint64_t step)
{
	return step * step % SLOTS;
}

static void work(struct test *test)
{
	struct store store;

	recover(&store, test->disk, test->bug);
	check(dmcore_sim_record(test->sim), "record");
	for (uint64_t step = 1; step <= STEPS; step++) {
		set(&store, slot_of(step), step);
		/* A state of any later cut comes with this promise. */
		check(dmcore_sim_mark(test->sim, step), "mark");
	}
}

/* Whether the store is as it was after some step, and none that was promised is lost. */
static bool is_right(const struct store *store, uint64_t promised)
{
	uint64_t slots[SLOTS] = { 0 };

	for (uint64_t step = 1; step <= store->last; step++)
		slots[slot_of(step)] = step;
	for (unsigned int i = 0; i < SLOTS; i++) {
		if (store->slots[i].value[0] != slots[i] || store->slots[i].value[60] != slots[i])
			return false;
	}
	return store->last >= promised && store->last <= promised + 1;
}

/* Recovers each state of what was recorded; false: one isn't right. A recovery is cut, too. */
static bool check_states(struct test *test, bool nested, uint64_t promised)
{
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	struct store store;
	bool right = true;
	int ret;

	check(dmcore_sim_states_open(test->sim, NULL, &states), "states");
	while (right && (ret = dmcore_sim_states_next(states)) > 0) {
		check(dmcore_sim_states_info(states, &state), "state");
		if (!nested)
			promised = state.mark;
		check(nested ? 0 : dmcore_sim_record(test->sim), "record");
		recover(&store, test->disk, test->bug);
		right = is_right(&store, promised);
		if (!right) {
			dmcore_sim_states_text(states, test->failed, sizeof(test->failed));
			test->failed_cut = state.cut_nr;
		} else if (!nested) {
			right = check_states(test, true, promised);
		}
		test->num_states++;
	}
	check(right ? ret : 0, "next state");
	check(dmcore_sim_states_close(states), "close states");
	return right;
}

/* One run, and all that power cuts may make of it. */
static bool run(struct test *test, uint64_t seed)
{
	struct dmcore_sim_options options = {
		.struct_size = sizeof(options),
		.seed = seed,
		.event = test->show_until ? show_event : NULL,
		.event_context = test,
	};
	struct dmcore_sim_disk_options disk_options = {
		.struct_size = sizeof(disk_options),
		.sectors = 1 + SLOTS + RECORDS,
		.atomic_bytes = 256, /* half a block: writes tear */
	};
	struct dmcore_sim_disk *disk;
	struct dmcore *core;
	bool right;

	check(dmcore_sim_create(&options, &test->sim), "world");
	check(dmcore_sim_disk_create(test->sim, "log", &disk_options, &disk), "disk");
	check(dmcore_sim_core(test->sim, NULL, &core), "core");
	check(dmcore_bdev_open(core, "sim:log", 0, &test->disk), "open");
	work(test);
	right = check_states(test, false, 0);
	check(dmcore_bdev_close(test->disk), "close");
	check(dmcore_destroy(core), "destroy");
	check(dmcore_sim_destroy(test->sim), "destroy world");
	return right;
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "right", "no flush", "header too early" };
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	static struct test test;

	for (unsigned int i = 3; i-- > 0;) {
		test = (struct test){ .bug = (enum bug)i };
		if (run(&test, seed)) {
			printf("%s: all %llu states pass\n", names[i],
			       (unsigned long long)test.num_states);
			continue;
		}
		printf("%s: state %llu fails: %s\n", names[i],
		       (unsigned long long)test.num_states, test.failed);
		/* The same seed gives the same run: now with what led to the cut. */
		test = (struct test){ .bug = (enum bug)i, .show_until = test.failed_cut };
		if (run(&test, seed))
			return 1;
	}
	return test.failed_cut != 0;
}
