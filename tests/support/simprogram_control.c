/* SPDX-License-Identifier: MIT */
/* What random programs do to devices, disks and timers; called by simprogram.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "simprogram_inner.h"

/* ---- tables --------------------------------------------------------------------------------- */

static void load(unsigned int device, const struct simtable *simtable)
{
	struct dmcore_table *table;
	char text[1024];
	int ret;

	simtable_text(simtable, text, sizeof(text));
	ret = dmcore_table_parse(program.core, text, 0, &table);
	PROGRAM_CHECK(ret == 0, "%s: %s", dmcore_error_message(), text);
	if (ret)
		return;
	ret = dmcore_device_load(program.devices[device], table);
	PROGRAM_CHECK(ret == 0, "%s: %s", dmcore_error_message(), text);
	if (ret)
		dmcore_table_destroy(table);
}

void control_create(unsigned int device)
{
	int ret = dmcore_device_create(program.core, simtable_device_name(device), NULL, 0,
				       &program.devices[device]);

	PROGRAM_CHECK(ret == 0, "%s", dmcore_error_message());
	if (ret)
		return;
	load(device, &program.tables.live[device]);
	program.bdevs[device] = dmcore_device_bdev(program.devices[device]);
	ret = dmcore_device_resume(program.devices[device]);
	PROGRAM_CHECK(ret == 0, "%s", dmcore_error_message());
}

bool control_is_suspended(void)
{
	bool is_suspended = false;

	for (unsigned int i = SIMTABLE_DISKS; i < SIMTABLE_DEVICES; i++)
		is_suspended |= program.is_suspended[i];
	return is_suspended;
}

/* False: something inside doesn't end in time. */
static bool suspend(unsigned int device)
{
	unsigned int flags = choose(2) ? DMCORE_SUSPEND_NOFLUSH : 0;
	int64_t timeout_ns = choose(4) ? STEP_NS : 0;
	int ret = dmcore_device_suspend(program.devices[device], flags, timeout_ns);

	program_trace("  suspend %s flags %u: %d", simtable_device_name(device), flags, ret);
	PROGRAM_CHECK(ret == 0 || (ret == -ETIMEDOUT && !program.is_suspended[device]),
		      "suspend: %d: %s", ret, dmcore_error_message());
	/* All that was inside has ended; now those are told who asked. */
	io_settle();
	program.is_suspended[device] |= ret == 0;
	return ret == 0;
}

static void reload(unsigned int device)
{
	simtable_choose(&program.tables, device, &program.choice, &program.next[device]);
	load(device, &program.next[device]);
	program.has_next[device] = true;
	program_trace("  load %s", simtable_device_name(device));
}

void control_resume(unsigned int device)
{
	int ret;

	/* It would wait for ever for what is held. */
	if (program.has_next[device] && !program.is_suspended[device] && !suspend(device))
		return;
	if (program.has_next[device]) {
		program.tables.live[device] = program.next[device];
		io_moved(device);
		program.result->num_swaps++;
	}
	program.has_next[device] = false;
	program.is_suspended[device] = false;
	ret = dmcore_device_resume(program.devices[device]);
	program_trace("  resume %s: %d", simtable_device_name(device), ret);
	PROGRAM_CHECK(ret == 0, "resume: %d: %s", ret, dmcore_error_message());
}

static void swap(unsigned int device)
{
	reload(device);
	control_resume(device);
}

static void clear(unsigned int device)
{
	PROGRAM_CHECK(dmcore_device_clear(program.devices[device]) == 0, "clear");
	program.has_next[device] = false;
}

static void look(unsigned int device)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	char text[1024];
	char mine[1024];

	PROGRAM_CHECK(dmcore_device_info(program.devices[device], &info) == 0, "info");
	PROGRAM_CHECK(info.suspended == program.is_suspended[device] &&
			      info.inactive_table == program.has_next[device] &&
			      info.size_sectors == program.tables.sizes[device],
		      "%s is told otherwise", simtable_device_name(device));
	PROGRAM_CHECK(dmcore_device_text(program.devices[device], DMCORE_TEXT_STATUS, 0, text,
					 sizeof(text)) > 0, "status");
	simtable_text(&program.tables.live[device], mine, sizeof(mine));
	PROGRAM_CHECK(dmcore_device_text(program.devices[device], DMCORE_TEXT_TABLE, 0, text,
					 sizeof(text)) > 0, "table");
	PROGRAM_CHECK(strcmp(text, mine) == 0, "table %s, not %s", text, mine);
}

/* ---- messages ------------------------------------------------------------------------------- */

static void tell_dust(unsigned int device, struct simtable_target *target)
{
	static const char *const texts[] = { "enable", "disable", "countbadblocks", "quiet" };
	char text[64];

	if (choose(2))
		snprintf(text, sizeof(text), "addbadblock %" PRIu64,
			 (target->legs[0].start + simchoose(&program.choice, target->length)) /
				 target->unit);
	else
		snprintf(text, sizeof(text), "%s", texts[choose(4)]);
	program_trace("  message %s: %s", simtable_device_name(device), text);
	target->may_fail = true;
	/* It may be listed already. */
	dmcore_device_message(program.devices[device], target->begin, text, NULL, 0);
}

static void tell_switch(unsigned int device, struct simtable_target *target)
{
	uint64_t num_regions = (target->length - 1) / target->chunk + 1;
	uint32_t region = choose(num_regions);
	uint32_t path = choose(target->num_legs);
	char text[64];
	int64_t ret;

	snprintf(text, sizeof(text), "set_region_mappings %x:%x", region, path);
	program_trace("  message %s: %s", simtable_device_name(device), text);
	ret = dmcore_device_message(program.devices[device], target->begin, text, NULL, 0);
	PROGRAM_CHECK(ret == 0, "%s: %s", text, dmcore_error_message());
	target->paths[region] = (uint8_t)path;
}

static void tell(unsigned int device)
{
	struct simtable *table = &program.tables.live[device];
	struct simtable_target *target = &table->targets[choose(table->num_targets)];
	char reply[256];

	/* What is on its way might be answered by the old state or the new. */
	io_drain(STEP_NS);
	if (program.num_running)
		return;
	if (target->kind == SIMTABLE_DUST)
		tell_dust(device, target);
	else if (target->kind == SIMTABLE_SWITCH)
		tell_switch(device, target);
	else if (!control_is_suspended())
		dmcore_device_message(program.devices[device], 0,
				      choose(2) ? "@stats_create - /4" : "@stats_delete 0", reply,
				      sizeof(reply));
}

/* ---- disks ---------------------------------------------------------------------------------- */

static void add_rule(void)
{
	static const enum dmcore_sim_action actions[] = {
		DMCORE_SIM_FAIL,  DMCORE_SIM_FAIL_DONE, DMCORE_SIM_TEAR,
		DMCORE_SIM_DELAY, DMCORE_SIM_DELAY,     DMCORE_SIM_HOLD,
	};
	static const int statuses[] = { -EIO, -ENOSPC, -EILSEQ };
	struct dmcore_sim_rule rule = { .struct_size = sizeof(rule) };
	unsigned int disk = choose(program.tables.num_disks);
	int ret;

	rule.action = actions[choose(6)];
	rule.status = statuses[choose(3)];
	rule.ops = choose(1u << DMCORE_OP_COUNT);
	rule.skip = choose(3);
	rule.times = choose(4);
	rule.delay_ns = choose(2000000);
	rule.sectors = choose(8) * program.tables.unit;
	if (choose(2)) {
		rule.sector = choose(program.tables.sizes[disk]);
		rule.count = 1 + choose(64);
	}
	if (program.num_rules == 8)
		return;
	program.num_rules++;
	ret = dmcore_sim_rule_add(program.disks[disk], &rule);
	PROGRAM_CHECK(ret == 0, "%s", dmcore_error_message());
	program_trace("  rule on d%u: action %d ops %x skip %u times %u %" PRIu64 "+%" PRIu64, disk,
		      (int)rule.action, rule.ops, rule.skip, rule.times, rule.sector, rule.count);
	if (rule.action == DMCORE_SIM_HOLD) {
		program.has_holds = true;
		return;
	}
	if (rule.action == DMCORE_SIM_DELAY)
		return;
	program.has_faults = true;
	for (unsigned int i = 0; i < SLOTS; i++)
		program.slots[i].may_fail = true;
}

static void plant(void);

void control_clear_rules(void)
{
	for (unsigned int i = 0; i < program.tables.num_disks; i++) {
		dmcore_sim_rules_clear(program.disks[i]);
		dmcore_sim_release(program.disks[i]);
	}
	program.num_rules = 0;
	program.has_holds = false;
	/* Requests that a disk has failed already may not have ended yet. */
	program.has_faults = false;
	plant();
}

/* What is wrong on purpose stays. */
static void plant(void)
{
	struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.ops = 1u << DMCORE_OP_WRITE,
		.skip = 2,
		.times = 1,
	};

	switch (program.options->defect) {
	case SIMPROGRAM_MISDIRECTS:
		rule.action = DMCORE_SIM_MISDIRECT;
		rule.sector_to = 8;
		break;
	case SIMPROGRAM_LOSES:
		rule.action = DMCORE_SIM_LOSE;
		break;
	case SIMPROGRAM_CORRUPTS:
		rule.action = DMCORE_SIM_CORRUPT;
		rule.ops = 1u << DMCORE_OP_READ;
		break;
	case SIMPROGRAM_HANGS:
		rule.action = DMCORE_SIM_DELAY;
		rule.ops = 1u << DMCORE_OP_FLUSH;
		rule.skip = 0;
		rule.times = 0;
		rule.delay_ns = 1000 * (uint64_t)LIVENESS_NS;
		break;
	default:
		return;
	}
	PROGRAM_CHECK(dmcore_sim_rule_add(program.disks[0], &rule) == 0, "a defect");
}

/* ---- timers --------------------------------------------------------------------------------- */

static void timer_runs(struct dmcore_timer *timer)
{
	struct clock_timer *own = (struct clock_timer *)timer;

	PROGRAM_CHECK(own->is_running, "a timer runs twice");
	PROGRAM_CHECK(dmcore_sim_now_ns(program.sim) >= own->at_ns, "a timer runs early");
	own->is_running = false;
}

void control_start_timer(void)
{
	struct clock_timer *own = &program.timers[choose(TIMERS)];
	int ret;

	if (own->is_running && choose(3) == 0) {
		PROGRAM_CHECK(dmcore_timer_cancel(program.queue, &own->timer), "it was running");
		own->is_running = false;
		return;
	}
	own->at_ns = dmcore_sim_now_ns(program.sim) + choose(3000000);
	own->timer.fn = timer_runs;
	own->is_running = true;
	ret = dmcore_timer_start(program.queue, &own->timer, own->at_ns);
	PROGRAM_CHECK(ret == 0, "timer: %d", ret);
}

/* ---- steps ---------------------------------------------------------------------------------- */

void control_step(unsigned int kind)
{
	unsigned int device = SIMTABLE_DISKS + choose(SIMTABLE_DEVICES - SIMTABLE_DISKS + 1);

	if (device >= SIMTABLE_DEVICES)
		device = SIMTABLE_TOP;
	if (kind < 2)
		suspend(device);
	else if (kind < 5)
		control_resume(device);
	else if (kind < 7)
		reload(device);
	else if (kind == 7)
		choose(4) ? look(device) : clear(device);
	else if (kind < 10)
		tell(device);
	else if (kind == 10)
		add_rule();
	else if (kind == 11)
		control_clear_rules();
	else if (kind < 14)
		swap(device);
	else
		control_start_timer();
}
