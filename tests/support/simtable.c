/* SPDX-License-Identifier: MIT */
/* Random tables, and where their sectors lie; see simtable.h. */
#include "simtable.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *simtable_device_name(unsigned int device)
{
	static const char *const names[SIMTABLE_DEVICES] = { "sim:d0", "sim:d1", "sim:d2", "sim:d3",
							     "m0",     "m1",     "top" };

	return names[device];
}

/* ---- choosing ------------------------------------------------------------------------------- */

/* A range of so many sectors on a device below. */
static void choose_leg(const struct simtables *tables, unsigned int device,
		       struct simchoice *choice, struct simtable_target *target, uint64_t sectors)
{
	unsigned int leg = target->num_legs++;
	unsigned int below = simchoose(choice, SIMTABLE_DISKS);

	if (device == SIMTABLE_TOP && simchoose(choice, 3))
		below = SIMTABLE_DISKS + simchoose(choice, 2);
	if (tables->sizes[below] < sectors)
		below = 0;
	target->legs[leg].device = below;
	target->legs[leg].start =
		simchoose(choice, (tables->sizes[below] - sectors) / tables->unit + 1) *
		tables->unit;
}

static void choose_legs(const struct simtables *tables, unsigned int device,
			struct simchoice *choice, struct simtable_target *target)
{
	unsigned int num = 1 + simchoose(choice, SIMTABLE_LEGS_MAX);
	uint64_t rows = 1 + simchoose(choice, 6);

	if (target->kind == SIMTABLE_STRIPED && rows * target->chunk * num <= target->length) {
		target->length = rows * target->chunk * num;
		for (unsigned int i = 0; i < num; i++)
			choose_leg(tables, device, choice, target, rows * target->chunk);
	} else if (target->kind == SIMTABLE_UNSTRIPED && rows * target->chunk <= target->length &&
		   rows * target->chunk * num <= 64) {
		target->length = rows * target->chunk;
		target->num_stripes = num;
		target->stripe = simchoose(choice, num);
		choose_leg(tables, device, choice, target, rows * target->chunk * num);
	} else if (target->kind == SIMTABLE_SWITCH) {
		for (unsigned int i = 0; i < num; i++)
			choose_leg(tables, device, choice, target, target->length);
	} else if (target->kind != SIMTABLE_ZERO && target->kind != SIMTABLE_ERROR) {
		if (target->kind < SIMTABLE_DUST)
			target->kind = SIMTABLE_LINEAR;
		choose_leg(tables, device, choice, target, target->length);
	}
}

void simtable_choose(const struct simtables *tables, unsigned int device, struct simchoice *choice,
		     struct simtable *table)
{
	/* What carries data is more frequent. */
	static const enum simtable_kind kinds[] = {
		SIMTABLE_LINEAR,    SIMTABLE_STRIPED, SIMTABLE_STRIPED, SIMTABLE_STRIPED,
		SIMTABLE_UNSTRIPED, SIMTABLE_SWITCH,  SIMTABLE_LINEAR,  SIMTABLE_STRIPED,
		SIMTABLE_SWITCH,    SIMTABLE_DELAY,   SIMTABLE_LINEAR,  SIMTABLE_STRIPED,
		SIMTABLE_DUST,      SIMTABLE_ZERO,    SIMTABLE_ERROR,   SIMTABLE_FLAKEY,
	};
	uint64_t size = tables->sizes[device];
	uint64_t at = 0;

	memset(table, 0, sizeof(*table));
	while (at < size) {
		struct simtable_target *target = &table->targets[table->num_targets++];

		target->kind = kinds[simchoose(choice, sizeof(kinds) / sizeof(kinds[0]))];
		target->unit = tables->unit;
		target->begin = at;
		target->length = size - at;
		target->chunk = (uint64_t)tables->unit << simchoose(choice, 3);
		if (table->num_targets == SIMTABLE_TARGETS_MAX)
			target->kind = SIMTABLE_LINEAR;
		else if (target->kind != SIMTABLE_STRIPED && size - at > 2 * tables->unit)
			target->length = (1 + simchoose(choice, (size - at) / tables->unit - 1)) *
					 tables->unit;
		if ((target->kind == SIMTABLE_SWITCH && !tables->has_switch) ||
		    (target->kind == SIMTABLE_FLAKEY && !tables->has_flakey))
			target->kind = SIMTABLE_LINEAR;
		if (target->kind == SIMTABLE_DELAY)
			target->delay_ms = simchoose(choice, 3);
		choose_legs(tables, device, choice, target);
		at += target->length;
	}
	simtable_renew(table);
}

void simtable_renew(struct simtable *table)
{
	for (unsigned int i = 0; i < table->num_targets; i++) {
		struct simtable_target *target = &table->targets[i];

		target->may_fail = false;
		for (unsigned int r = 0; r < SIMTABLE_REGIONS_MAX && target->num_legs; r++)
			target->paths[r] = (uint8_t)(r % target->num_legs);
	}
}

/* ---- text ----------------------------------------------------------------------------------- */

static int target_text(const struct simtable_target *target, char *text, size_t bytes)
{
	static const char *const names[SIMTABLE_KINDS] = { "linear", "striped", "unstriped",
							   "switch", "zero ",   "error ",
							   "dust",   "delay",   "flakey" };
	int length = snprintf(text, bytes, "%" PRIu64 " %" PRIu64 " %s", target->begin,
			      target->length, names[target->kind]);

#define ADD(...) length += snprintf(text + length, bytes - (size_t)length, __VA_ARGS__)
	if (target->kind == SIMTABLE_STRIPED)
		ADD(" %u %" PRIu64, target->num_legs, target->chunk);
	if (target->kind == SIMTABLE_UNSTRIPED)
		ADD(" %u %" PRIu64 " %u", target->num_stripes, target->chunk, target->stripe);
	if (target->kind == SIMTABLE_SWITCH)
		ADD(" %u %" PRIu64 " 0", target->num_legs, target->chunk);
	for (unsigned int i = 0; i < target->num_legs; i++)
		ADD(" %s %" PRIu64, simtable_device_name(target->legs[i].device),
		    target->legs[i].start);
	if (target->kind == SIMTABLE_DUST)
		ADD(" %u", target->unit * 512);
	if (target->kind == SIMTABLE_DELAY)
		ADD(" %u", target->delay_ms);
	if (target->kind == SIMTABLE_FLAKEY)
		ADD(" 1 1 2 error_reads error_writes");
	ADD("\n");
#undef ADD
	return length;
}

size_t simtable_text(const struct simtable *table, char *text, size_t bytes)
{
	size_t length = 0;

	for (unsigned int i = 0; i < table->num_targets; i++) {
		char line[256];
		int len = target_text(&table->targets[i], line, sizeof(line));

		if (length + (size_t)len < bytes)
			memcpy(text + length, line, (size_t)len + 1);
		length += (size_t)len;
	}
	return length;
}

/* ---- places --------------------------------------------------------------------------------- */

/* Through one target: the device below and the sector there; false: the way ends. */
static bool go_down(const struct simtable_target *target, unsigned int *device, uint64_t *sector)
{
	uint64_t offset = *sector - target->begin;
	uint64_t chunk_nr = offset / target->chunk;
	unsigned int leg = 0;

	if (target->num_legs == 0)
		return false;
	if (target->kind == SIMTABLE_STRIPED) {
		leg = (unsigned int)(chunk_nr % target->num_legs);
		offset = chunk_nr / target->num_legs * target->chunk + offset % target->chunk;
	} else if (target->kind == SIMTABLE_UNSTRIPED) {
		offset = (chunk_nr * target->num_stripes + target->stripe) * target->chunk +
			 offset % target->chunk;
	} else if (target->kind == SIMTABLE_SWITCH) {
		leg = target->paths[chunk_nr];
	}
	*device = target->legs[leg].device;
	*sector = target->legs[leg].start + offset;
	return true;
}

struct simtable_place simtable_place(const struct simtables *tables, unsigned int device,
				     uint64_t sector)
{
	struct simtable_place place = { .disk = -1 };

	while (device >= SIMTABLE_DISKS) {
		const struct simtable_target *target = tables->live[device].targets;

		while (sector - target->begin >= target->length)
			target++;
		place.may_fail |= target->may_fail;
		place.refuses_zeroes |= target->kind > SIMTABLE_STRIPED;
		if (!go_down(target, &device, &sector)) {
			place.is_zero = target->kind == SIMTABLE_ZERO;
			place.must_fail = target->kind == SIMTABLE_ERROR;
			return place;
		}
	}
	place.disk = (int)device;
	place.sector = sector;
	return place;
}

bool simtable_may_fail(const struct simtables *tables, unsigned int device)
{
	const struct simtable *table = &tables->live[device];
	bool may_fail = false;

	for (unsigned int i = 0; device >= SIMTABLE_DISKS && i < table->num_targets; i++) {
		const struct simtable_target *target = &table->targets[i];

		may_fail |= target->kind == SIMTABLE_FLAKEY;
		for (unsigned int leg = 0; leg < target->num_legs; leg++)
			may_fail |= simtable_may_fail(tables, target->legs[leg].device);
	}
	return may_fail;
}

unsigned int simtable_disks(const struct simtables *tables, unsigned int device)
{
	const struct simtable *table = &tables->live[device];
	unsigned int disks = 0;

	if (device < SIMTABLE_DISKS)
		return 1u << device;
	for (unsigned int i = 0; i < table->num_targets; i++) {
		for (unsigned int leg = 0; leg < table->targets[i].num_legs; leg++)
			disks |= simtable_disks(tables, table->targets[i].legs[leg].device);
	}
	return disks;
}
