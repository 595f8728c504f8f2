/* SPDX-License-Identifier: MIT */
/*
 * Fuzzer of whole programs: the bytes of an input are tables, requests, faults, suspensions and
 * swaps of tables, carried out on disks of RAM and in the model of tests/support/model.h. Every
 * string of bytes is a program.
 *
 * Each request ends once, with a status that the model and the faults allow; what is read, and what
 * the disks hold in the end, is what the model says; and nothing is left behind.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "program.h"

#define STEPS_MAX 200
#define TARGETS_MAX 4

/* ---- faults --------------------------------------------------------------------------------- */

static void clear_rules(void)
{
	for (unsigned int i = 0; i < DISKS; i++) {
		fault_clear_rules(world.disks[i]);
		world.num_rules[i] = 0;
	}
	world.may_hold = false;
	if (world.num_running == 0)
		world.num_statuses = 0;
}

static int choose_status(void)
{
	static const int statuses[] = { -EIO, -ENOSPC, -EILSEQ, -ENODATA };
	int status = statuses[fuzz_below(&world.bytes, 4)];

	add_status(status);
	return status;
}

static void add_rule(void)
{
	unsigned int disk = fuzz_below(&world.bytes, DISKS);
	unsigned int action = fuzz_u8(&world.bytes);
	struct fault_rule rule = { .action = (enum fault_action)(action % 4) };

	if (world.num_rules[disk] == FAULT_RULES_MAX)
		return;
	world.num_rules[disk]++;
	rule.ops = fuzz_below(&world.bytes, 32);
	if (rule.action == FAULT_HOLD)
		world.may_hold = true;
	else
		rule.status = choose_status();
	if (rule.action == FAULT_TEAR)
		rule.torn_sectors = fuzz_below(&world.bytes, 16) * world.unit;
	rule.skip = (action >> 2) % 4;
	rule.times = (action >> 4) % 4;
	if (action & 0x40) {
		rule.sector = fuzz_below(&world.bytes, DISK_SECTORS);
		rule.count = 1 + fuzz_below(&world.bytes, 32);
	}
	fault_add_rule(world.disks[disk], &rule);
}

static void release_one(void)
{
	unsigned int disk = fuzz_below(&world.bytes, DISKS);
	unsigned int choice = fuzz_u8(&world.bytes);
	unsigned int num_held = fault_num_held(world.disks[disk]);

	if (num_held > 0)
		fault_release(world.disks[disk], choice % num_held,
			      choice & 0x80 ? choose_status() : 0);
}

/* ---- tables --------------------------------------------------------------------------------- */

/* Targets on the leaves, at least as long as the device above needs. */
static void choose_targets(struct model *model)
{
	unsigned int count = 1 + fuzz_below(&world.bytes, TARGETS_MAX);

	for (unsigned int i = 0; i < count; i++) {
		unsigned int kind = fuzz_u8(&world.bytes);
		uint64_t rows = 1 + fuzz_below(&world.bytes, 8);
		uint64_t chunk = (uint64_t)world.unit << (kind >> 3) % 4;
		unsigned int legs = 1 + (kind >> 5) % 3;

		if (kind % 8 == 7)
			model_add(model, MODEL_ERROR, rows * chunk, 0, 0, 0, 0);
		else if (kind % 8 == 6)
			model_add(model, MODEL_ZERO, rows * chunk, 0, 0, 0, 0);
		else if (kind % 8 >= 4)
			model_add(model, MODEL_STRIPED, rows * chunk, rows * chunk, 1, legs,
				  (kind & 1) * world.unit);
		else
			model_add(model, MODEL_STRIPED, rows * chunk * legs, chunk, legs, rows & 1,
				  (kind & 1) * world.unit);
	}
	if (model->size_sectors < world.upper_end)
		model_add(model, MODEL_ZERO, world.upper_end - model->size_sectors, 0, 0, 0, 0);
	if (model->size_sectors == 0)
		model_add(model, MODEL_ZERO, world.unit, 0, 0, 0, 0);
}

static void load(const struct model *model)
{
	char text[2048];
	struct dmcore_table *table;
	int ret;

	FUZZ_CHECK(model_text(model, world.specs, text, sizeof(text)) < sizeof(text), "too long");
	ret = dmcore_table_parse(world.core, text, 0, &table);
	FUZZ_CHECK(ret == 0, "%s: %s", dmcore_error_message(), text);
	FUZZ_CHECK(dmcore_table_size_sectors(table) == model->size_sectors, "%s", text);
	ret = dmcore_device_load(world.device, table);
	FUZZ_CHECK(ret == 0, "%s: %s", dmcore_error_message(), text);
}

static void reload(void)
{
	model_set_targets(&world.next, NULL);
	choose_targets(&world.next);
	load(&world.next);
	world.has_next = true;
}

static void clear_table(void)
{
	FUZZ_CHECK(dmcore_device_clear(world.device) == 0, "%s", dmcore_error_message());
	world.has_next = false;
}

/* ---- suspend and resume --------------------------------------------------------------------- */

static void check_info(void)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	FUZZ_CHECK(dmcore_device_info(world.device, &info) == 0, "%s", dmcore_error_message());
	FUZZ_CHECK(info.suspended == world.is_suspended, "suspended: %d", info.suspended);
	FUZZ_CHECK(info.inactive_table == world.has_next, "inactive: %d", info.inactive_table);
	FUZZ_CHECK(info.size_sectors == world.model.size_sectors, "%llu sectors",
		   (unsigned long long)info.size_sectors);
}

/* Whether all that is inside the devices ends by polling alone. */
static bool ends_by_itself(void)
{
	for (unsigned int i = 0; i < DISKS; i++) {
		if (fault_num_held(world.disks[i]) > 0)
			return false;
	}
	return !world.may_hold && !world.is_suspended;
}

/*
 * The device has become suspended. What was inside it has ended. Writes whose flush alone has
 * ended, and requests that no poll has sent since the last resume, wait as if they had not begun.
 */
static void check_suspended(bool is_upper)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		poll_queue(16);
	for (unsigned int i = 0; i < SLOTS; i++) {
		struct slot *slot = &world.slots[i];

		if (slot->state != SLOT_RUNNING || (is_upper && !slot->is_upper))
			continue;
		FUZZ_CHECK(slot->has_preflush || slot->has_waited,
			   "a request is inside a suspended device");
		slot->state = SLOT_WAITING;
		world.num_running--;
		for (uint64_t j = 0; j < slot->range.count && !slot->is_outside; j++) {
			if (slot->places[j])
				*slot->places[j] = slot->old[j];
		}
	}
}

static bool may_wait_again(void)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		const struct slot *slot = &world.slots[i];

		if (slot->state == SLOT_RUNNING && (slot->has_preflush || slot->has_waited))
			return true;
	}
	return false;
}

static void suspend(bool is_upper)
{
	unsigned int flags = fuzz_u8(&world.bytes) & 1 ? DMCORE_SUSPEND_NOFLUSH : 0;
	bool *state = is_upper ? &world.upper_is_suspended : &world.is_suspended;
	int64_t timeout_ns = ends_by_itself() ? -1 : 0;
	int ret = dmcore_device_suspend(is_upper ? world.upper : world.device, flags, timeout_ns);

	FUZZ_CHECK(ret == 0 || (ret == -ETIMEDOUT && timeout_ns == 0 && !*state), "%s",
		   dmcore_error_message());
	if (ret || *state)
		return;
	*state = true;
	check_suspended(is_upper);
}

/* Those that have waited are on their way from now on. */
static void begin_waiting(void)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		struct slot *slot = &world.slots[i];

		if (slot->state != SLOT_WAITING || must_wait(slot->is_upper))
			continue;
		slot->has_waited = true;
		begin(slot);
	}
}

static void resume(bool is_upper)
{
	int ret;

	if (is_upper) {
		world.upper_is_suspended = false;
	} else {
		/* It would wait for ever for some, and others may go to either table. */
		if (world.has_next && !world.is_suspended &&
		    (!ends_by_itself() || may_wait_again())) {
			clear_rules();
			drain();
		}
		if (world.has_next)
			model_set_targets(&world.model, &world.next);
		world.has_next = false;
		world.is_suspended = false;
	}
	begin_waiting();
	ret = dmcore_device_resume(is_upper ? world.upper : world.device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
}

/* ---- steps ---------------------------------------------------------------------------------- */

static void send_message(unsigned int choice)
{
	static const char *const texts[] = {
		"@stats_create - 8",
		"@stats_create 4+60 /3 1 precise_timestamps",
		"@stats_delete 0",
		"@stats_print_clear 0",
		"@stats_list",
		"no such message",
		"@stats_delete 1",
	};
	struct dmcore_device *device = choice & 0x80 && world.upper ? world.upper : world.device;
	char reply[512];

	/* To make and delete regions waits for what is under way. */
	if (ends_by_itself())
		dmcore_device_message(device, 0, texts[choice % 7], reply, sizeof(reply));
}

/* A device is in use while something is inside or waits, or another one stands on it. */
static void try_remove(void)
{
	bool is_used = world.upper != NULL;

	for (unsigned int i = 0; i < SLOTS; i++)
		is_used |= world.slots[i].state == SLOT_WAITING;
	for (unsigned int i = 0; i < DISKS; i++)
		is_used |= fault_num_held(world.disks[i]) > 0;
	if (is_used && dmcore_device_remove(world.device) != -EBUSY)
		fuzz_fail(__FILE__, __LINE__, "remove", "a device in use goes");
}

static void control_step(unsigned int choice)
{
	bool is_upper = choice & 1 && world.upper;

	switch (choice / 2 % 8) {
	case 0:
	case 1:
		suspend(is_upper);
		break;
	case 2:
	case 3:
		resume(is_upper);
		break;
	case 4:
		reload();
		break;
	case 5:
		choice & 0x20 ? clear_table() : try_remove();
		break;
	default:
		send_message(choice >> 1);
		break;
	}
	check_info();
}

static void step(unsigned int choice)
{
	switch (choice % 16) {
	case 0:
	case 1:
	case 2:
		do_request(DMCORE_OP_READ);
		break;
	case 3:
	case 4:
	case 5:
		do_request(DMCORE_OP_WRITE);
		break;
	case 6:
		do_request(DMCORE_OP_FLUSH);
		break;
	case 7:
		do_request(DMCORE_OP_DISCARD);
		break;
	case 8:
		do_request(DMCORE_OP_WRITE_ZEROES);
		break;
	case 9:
		poll_queue(1 + choice / 16);
		break;
	case 10:
		choice & 0x80 ? clear_rules() : add_rule();
		break;
	case 11:
		release_one();
		break;
	case 12:
		drain();
		break;
	default:
		control_step(fuzz_u8(&world.bytes));
		break;
	}
}

/* ---- a program ------------------------------------------------------------------------------ */

static struct dmcore_device *create(const char *name)
{
	struct dmcore_device *device;
	int ret = dmcore_device_create(world.core, name, NULL, 0, &device);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	return device;
}

/* A linear target over a part of the device. */
static void create_upper(void)
{
	uint64_t units = world.model.size_sectors / world.unit;
	uint64_t start = fuzz_below(&world.bytes, (uint32_t)units) * world.unit;
	struct dmcore_table *table;
	char text[128];
	int ret;

	snprintf(text, sizeof(text), "0 %llu linear lower %llu",
		 (unsigned long long)(world.model.size_sectors - start),
		 (unsigned long long)start);
	world.upper = create("upper");
	world.upper_start = start;
	world.upper_end = world.model.size_sectors;
	ret = dmcore_table_parse(world.core, text, 0, &table);
	FUZZ_CHECK(ret == 0, "%s: %s", dmcore_error_message(), text);
	ret = dmcore_device_load(world.upper, table);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_resume(world.upper);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
}

static void begin_program(void)
{
	unsigned int options = fuzz_u8(&world.bytes);

	choose_disks();
	model_create(&world.model, DISKS, DISK_SECTORS);
	world.model.discard_zeroes = (world.caps & DMCORE_CAP_DISCARD) &&
				     (world.caps & DMCORE_CAP_DISCARD_ZEROES);
	world.next = (struct model){ .num_leaves = DISKS, .leaf_sectors = DISK_SECTORS };
	choose_targets(&world.model);
	world.device = create("lower");
	load(&world.model);
	FUZZ_CHECK(dmcore_device_resume(world.device) == 0, "%s", dmcore_error_message());
	if (options & 1)
		create_upper();
	world.next_tag = 1;
}

static void end_program(void)
{
	clear_rules();
	drain();
	resume(false);
	if (world.upper)
		resume(true);
	drain();
	for (unsigned int i = 0; i < SLOTS; i++)
		FUZZ_CHECK(world.slots[i].state == SLOT_FREE, "a request is left");
	for (unsigned int i = 0; i < DISKS; i++) {
		int64_t sector = model_leaf_differs(&world.model, i, 0, DISK_SECTORS,
						    fault_data(world.disks[i]));

		FUZZ_CHECK(sector < 0, "sector %lld of disk %u", (long long)sector, i);
	}
	FUZZ_CHECK(dmcore_device_remove(world.upper) == 0, "%s", dmcore_error_message());
	FUZZ_CHECK(dmcore_device_remove(world.device) == 0, "%s", dmcore_error_message());
	/* Its tags are the other one's. */
	model_set_targets(&world.next, NULL);
	model_destroy(&world.model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool has_disks;
	struct dmcore_queue *queue = fuzz_kept_queue();

	fuzz_enter();
	if (!has_disks)
		open_disks(dmcore_queue_core(queue));
	has_disks = true;
	/* Not the requests: they are large, and all free. */
	memset(&world, 0, offsetof(struct world, slots));
	world.bytes = (struct fuzz_bytes){ data, size };
	world.queue = queue;
	world.core = dmcore_queue_core(queue);
	begin_program();
	for (unsigned int i = 0; i < STEPS_MAX && world.bytes.left > 0; i++)
		step(fuzz_u8(&world.bytes));
	end_program();
	fuzz_kept_check();
	fuzz_leave();
	return 0;
}
