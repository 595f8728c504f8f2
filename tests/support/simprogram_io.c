/* SPDX-License-Identifier: MIT */
/* The requests of random programs, and what they may return; called by simprogram.c. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "simprogram_inner.h"

/* ---- the end of a request ------------------------------------------------------------------- */

static bool is_read(const struct slot *slot)
{
	return slot->op == DMCORE_OP_READ;
}

/* Whether the range of a request may end like this. */
static bool is_allowed(const struct slot *slot, unsigned int r, int status)
{
	bool must_fail = false;
	bool may_fail = slot->may_fail || !has_power();
	bool may_refuse = slot->op == DMCORE_OP_DISCARD;

	for (uint64_t i = 0; i < slot->ranges[r].count; i++) {
		const struct touched *touched = &slot->touched[r][i];

		must_fail |= touched->place.must_fail && !touched->moved;
		may_fail |= touched->place.may_fail || touched->moved || touched->place.must_fail;
		may_refuse |= touched->place.refuses_zeroes && slot->op == DMCORE_OP_WRITE_ZEROES;
		/* It would go through it, too, if it went by a table that is gone. */
		may_refuse |= touched->moved;
	}
	if (status == 0)
		return !must_fail || slot->op == DMCORE_OP_DISCARD;
	return may_fail || (may_refuse && (status == -EOPNOTSUPP || slot->is_dmio));
}

static void check_read(const struct slot *slot, unsigned int r)
{
	const struct range *range = &slot->ranges[r];

	for (uint64_t i = 0; i < range->count; i++) {
		const struct touched *touched = &slot->touched[r][i];
		const struct simtable_place *place = &touched->place;
		const unsigned char *bytes = slot->data + i * 512;
		bool right = true;

		if (touched->moved || place->must_fail)
			continue;
		if (place->is_zero) {
			for (unsigned int byte = 0; byte < 512; byte++)
				right &= bytes[byte] == 0;
		} else {
			right = simmodel_may_read(&sectors, (unsigned int)place->disk,
						  place->sector, bytes, slot->begin_nr, now_nr());
		}
		PROGRAM_CHECK(right, "sector %" PRIu64 " of %s (%d:%" PRIu64 ") reads wrong",
			      range->sector + i, simtable_device_name(range->device), place->disk,
			      place->sector);
		program.result->num_checked++;
	}
}

static enum simmodel_cover cover_of(const struct slot *slot, const struct touched *touched)
{
	unsigned int disk_flags = program.disk_options[touched->place.disk].flags;

	if (disk_flags & DMCORE_SIM_NO_CACHE)
		return SIMMODEL_BY_ITSELF;
	/* A flush of another request that failed in between would take the cover away. */
	if (slot->flushes && !slot->may_fail)
		return SIMMODEL_BY_FLUSH;
	if (!(slot->flags & DMCORE_BIO_FUA))
		return SIMMODEL_PLAIN;
	return disk_flags & DMCORE_SIM_NO_FUA ? SIMMODEL_BY_FLUSH : SIMMODEL_BY_ITSELF;
}

void io_end_writes(const struct slot *slot, unsigned int r, int status)
{
	for (uint64_t i = 0; i < slot->ranges[r].count; i++) {
		const struct touched *touched = &slot->touched[r][i];

		if (!touched->version)
			continue;
		simmodel_end(touched->version, now_nr(), status != 0 || touched->moved,
			     cover_of(slot, touched));
	}
}

void io_end_range(struct slot *slot, unsigned int r, int status)
{
	if (status)
		program.result->num_failures++;
	PROGRAM_CHECK(is_allowed(slot, r, status), "request %u, range %u: status %d", slot->nr, r,
		      status);
	if (is_read(slot) && status == 0)
		check_read(slot, r);
	io_end_writes(slot, r, status);
}

void io_end(struct slot *slot, bool failed)
{
	bool is_flush = slot->op == DMCORE_OP_FLUSH || slot->flags & DMCORE_BIO_PREFLUSH;

	if (is_flush && !failed)
		simmodel_flushed(&sectors, slot->disks, slot->begin_nr, now_nr());
	/* A power cut ends flushes too, but the cache then is gone. */
	if (failed && (is_flush || slot->flushes || slot->flags & DMCORE_BIO_FUA) &&
	    slot->may_fail)
		simmodel_flush_failed(&sectors, slot->disks_ever, slot->begin_nr, now_nr());
	slot->is_running = false;
	program.num_running--;
	program.num_done++;
}

static void bio_done(struct dmcore_bio *bio)
{
	struct slot *slot = bio->context;
	int status = bio->status;

	dmcore_bio_put(bio);
	PROGRAM_CHECK(slot->is_running, "a request ends twice");
	program_trace("  %u ends: %d", slot->nr, status);
	io_end_range(slot, 0, status);
	io_end(slot, status != 0);
}

static void dmio_done(unsigned long bits, void *context)
{
	struct slot *slot = context;

	PROGRAM_CHECK(slot->is_running, "a dmio request ends twice");
	program_trace("  %u ends: bits %lx", slot->nr, bits);
	for (unsigned int r = 0; r < slot->num_ranges; r++)
		io_end_range(slot, r, bits >> r & 1 ? -EIO : 0);
	io_end(slot, bits != 0);
}

/* ---- its beginning -------------------------------------------------------------------------- */

static uint64_t value_of(const struct slot *slot, uint64_t i, unsigned int disk)
{
	if (slot->op == DMCORE_OP_WRITE)
		return slot->value + i;
	if (slot->op == DMCORE_OP_DISCARD &&
	    program.disk_options[disk].discard == DMCORE_SIM_DISCARD_RANDOM)
		return SIMMODEL_ANYTHING;
	return SIMMODEL_ZEROES;
}

static void find_place(struct slot *slot, unsigned int r, uint64_t i)
{
	struct touched *touched = &slot->touched[r][i];
	const struct range *range = &slot->ranges[r];
	unsigned int disk;

	touched->place = simtable_place(&program.tables, range->device, range->sector + i);
	touched->version = NULL;
	if (touched->place.disk < 0 || is_read(slot))
		return;
	disk = (unsigned int)touched->place.disk;
	if (slot->op == DMCORE_OP_DISCARD &&
	    program.disk_options[disk].discard == DMCORE_SIM_DISCARD_KEEPS)
		return;
	touched->version = simmodel_begin(&sectors, disk, touched->place.sector,
					  value_of(slot, i, disk), now_nr());
	PROGRAM_CHECK(touched->version, "the model has too few versions");
}

void io_begin(struct slot *slot)
{
	slot->is_running = true;
	slot->may_fail = program.has_faults;
	slot->begin_nr = now_nr();
	slot->disks = 0;
	slot->nr = (unsigned int)program.result->num_requests++;
	program.num_running++;
	for (unsigned int r = 0; r < slot->num_ranges; r++) {
		slot->disks |= simtable_disks(&program.tables, slot->ranges[r].device);
		slot->may_fail |= simtable_may_fail(&program.tables, slot->ranges[r].device);
		if (slot->op == DMCORE_OP_FLUSH)
			slot->ranges[r].count = 0;
		for (uint64_t i = 0; i < slot->ranges[r].count; i++) {
			slot->touched[r][i].moved = false;
			find_place(slot, r, i);
		}
		program_trace("  %u: op %u flags %u %s %" PRIu64 "+%" PRIu64 "%s", slot->nr,
			      slot->op, slot->flags, simtable_device_name(slot->ranges[r].device),
			      slot->ranges[r].sector, slot->ranges[r].count,
			      slot->is_copy ? " copy" : slot->is_dmio ? " dmio" : "");
	}
	slot->disks_ever = slot->disks;
}

unsigned int io_choose_device(void)
{
	unsigned int device = choose(16);

	/* Most go through all. */
	if (device < SIMTABLE_TOP && program.tables.sizes[device])
		return device;
	return SIMTABLE_TOP;
}

static uint64_t choose_count(void)
{
	uint64_t units = RANGE_SECTORS_MAX / program.tables.unit;

	if (program.records || choose(2))
		units = 8 / (program.tables.unit > 1 ? 2 : 1);
	return (1 + choose(units)) * program.tables.unit;
}

void io_choose_range(struct slot *slot, unsigned int device)
{
	struct range *range = &slot->ranges[slot->num_ranges];
	uint64_t size = program.tables.sizes[device];

	range->device = device;
	/* All ranges of a request are as long as the first. */
	range->count = slot->num_ranges ? slot->ranges[0].count : choose_count();
	range->sector = choose((size - range->count) / program.tables.unit + 1) *
			program.tables.unit;
	slot->num_ranges++;
}

struct slot *io_choose_slot(unsigned int op)
{
	struct slot *slot = NULL;

	for (unsigned int i = 0; i < SLOTS && !slot; i++) {
		if (!program.slots[i].is_running)
			slot = &program.slots[i];
	}
	if (!slot || sectors.num_free < RANGES_MAX * RANGE_SECTORS_MAX + 64)
		return NULL;
	if (op == DMCORE_OP_DISCARD && program.tables.has_switch)
		op = DMCORE_OP_WRITE_ZEROES;
	slot->op = op;
	slot->is_dmio = false;
	slot->is_copy = false;
	slot->flushes = false;
	slot->flags = 0;
	slot->num_ranges = 0;
	if (op == DMCORE_OP_WRITE || op == DMCORE_OP_WRITE_ZEROES)
		slot->flags = choose(4); /* FUA, PREFLUSH */
	slot->value = program.next_value;
	program.next_value += RANGE_SECTORS_MAX;
	return slot;
}

void io_fill(struct slot *slot, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		if (slot->op == DMCORE_OP_WRITE)
			simmodel_fill(slot->data + i * 512, slot->value + i);
		else
			memset(slot->data + i * 512, 0xa5, 512);
	}
}

/* Memory in up to three pieces. */
static void choose_vecs(struct slot *slot, struct dmcore_bio *bio, uint64_t count)
{
	size_t bytes = count * 512;
	size_t cuts[4] = { 0, bytes, bytes, bytes };

	if (choose(3) == 0) {
		cuts[1] = 1 + choose(bytes - 2);
		cuts[2] = cuts[1] + 1 + choose(bytes - cuts[1] - 1);
	}
	bio->num_vecs = 0;
	for (unsigned int i = 0; i < 3; i++) {
		if (cuts[i] == cuts[i + 1])
			continue;
		slot->vecs[bio->num_vecs].base = slot->data + cuts[i];
		slot->vecs[bio->num_vecs++].len_bytes = cuts[i + 1] - cuts[i];
	}
	bio->vecs = slot->vecs;
	bio->vec_offset_bytes = 0;
}

static void submit_bio(unsigned int op)
{
	struct slot *slot = io_choose_slot(op);
	struct dmcore_bio *bio = slot ? dmcore_bio_get(program.queue) : NULL;
	int ret;

	if (!bio)
		return;
	io_choose_range(slot, io_choose_device());
	io_fill(slot, slot->ranges[0].count);
	bio->bdev = program.bdevs[slot->ranges[0].device];
	bio->op = (uint8_t)slot->op;
	bio->flags = (uint16_t)slot->flags;
	bio->sector = slot->ranges[0].sector;
	bio->count = slot->ranges[0].count;
	if (op <= DMCORE_OP_WRITE)
		choose_vecs(slot, bio, slot->ranges[0].count);
	bio->done = bio_done;
	bio->context = slot;
	io_begin(slot);
	ret = dmcore_bio_submit(bio);
	PROGRAM_CHECK(ret == 0, "submit: %d", ret);
}

static void submit_dmio(void)
{
	static const unsigned int ops[] = { DMIO_WRITE, DMIO_WRITE, DMIO_WRITE, DMIO_READ,
					    DMIO_FLUSH, DMIO_WRITE_ZEROES };
	unsigned int rw = ops[choose(6)];
	unsigned int num = rw == DMIO_READ ? 1 : 1 + choose(RANGES_MAX);
	struct slot *slot = io_choose_slot(rw);
	struct dmio_region where[RANGES_MAX];
	uint64_t count = 0;
	int ret;

	if (!slot)
		return;
	slot->is_dmio = true;
	for (unsigned int r = 0; r < num; r++) {
		io_choose_range(slot, io_choose_device());
		count = slot->ranges[r].count;
		where[r].bdev = program.bdevs[slot->ranges[r].device];
		where[r].sector = slot->ranges[r].sector;
		where[r].count = count;
	}
	io_fill(slot, count);
	io_begin(slot);
	ret = dmio_async_vm(program.client, num, where, (int)(rw | slot->flags << 8), slot->data,
			    dmio_done, slot);
	if (ret == -EAGAIN) {
		/* All of the client's are on their way: as if it had failed. */
		for (unsigned int r = 0; r < num; r++)
			io_end_writes(slot, r, ret);
		slot->is_running = false;
		program.num_running--;
		return;
	}
	PROGRAM_CHECK(ret == 0, "dmio: %d", ret);
}

/* ---- plain calls ---------------------------------------------------------------------------- */

static int call(const struct slot *slot)
{
	struct dmcore_bdev *bdev = program.bdevs[slot->ranges[0].device];
	uint64_t at = slot->ranges[0].sector * 512;
	uint64_t bytes = slot->ranges[0].count * 512;

	switch (slot->op) {
	case DMCORE_OP_READ:
		return dmcore_pread(bdev, (void *)slot->data, bytes, at);
	case DMCORE_OP_WRITE:
		return dmcore_pwrite(bdev, slot->data, bytes, at);
	case DMCORE_OP_FLUSH:
		return dmcore_flush(bdev);
	case DMCORE_OP_DISCARD:
		return dmcore_discard(bdev, bytes, at);
	default:
		return dmcore_write_zeroes(bdev, bytes, at);
	}
}

static void plain_call(unsigned int op)
{
	struct slot *slot = io_choose_slot(op);
	int ret;

	if (!slot || control_is_suspended() || program.has_holds)
		return;
	slot->flags = 0;
	io_choose_range(slot, io_choose_device());
	io_fill(slot, slot->ranges[0].count);
	io_begin(slot);
	ret = call(slot);
	program_trace("  %u returns %d", slot->nr, ret);
	io_end_range(slot, 0, ret);
	io_end(slot, ret != 0);
}

/* ---- waiting -------------------------------------------------------------------------------- */

void io_settle(void)
{
	int ret;

	do {
		ret = dmcore_queue_poll(program.queue, 0, UINT32_MAX, 0);
		PROGRAM_CHECK(ret >= 0, "poll: %d", ret);
	} while (ret > 0);
}

void io_drain(int64_t timeout_ns)
{
	int64_t until_ns = (int64_t)dmcore_sim_now_ns(program.sim) + timeout_ns;

	io_settle();
	while (program.num_running && !program_failed()) {
		int64_t left_ns = until_ns - (int64_t)dmcore_sim_now_ns(program.sim);
		int ret = left_ns > 0 ? dmcore_queue_poll(program.queue, 1, UINT32_MAX, left_ns)
				      : 0;

		PROGRAM_CHECK(ret >= 0, "poll: %d", ret);
		if (ret <= 0)
			break;
	}
}

static void move(struct slot *slot, unsigned int r, uint64_t i, bool whole)
{
	struct touched *touched = &slot->touched[r][i];
	const struct touched old = *touched;
	const struct range *range = &slot->ranges[r];
	struct simtable_place place =
		simtable_place(&program.tables, range->device, range->sector + i);
	bool same = place.disk == old.place.disk && place.sector == old.place.sector &&
		    place.must_fail == old.place.must_fail && place.is_zero == old.place.is_zero;

	/* It may be there already. */
	if (same && !whole) {
		touched->place = place;
		return;
	}
	if (old.version)
		simmodel_end(old.version, now_nr(), true, SIMMODEL_PLAIN);
	find_place(slot, r, i);
	touched->moved = old.moved || (!whole && !same);
}

void io_moved(unsigned int device)
{
	for (unsigned int s = 0; s < SLOTS; s++) {
		struct slot *slot = &program.slots[s];
		bool whole = !slot->is_dmio && slot->ranges[0].device == device;
		unsigned int disks = 0;

		if (!slot->is_running)
			continue;
		for (unsigned int r = 0; r < slot->num_ranges; r++) {
			disks |= simtable_disks(&program.tables, slot->ranges[r].device);
			slot->may_fail |= simtable_may_fail(&program.tables,
							    slot->ranges[r].device);
			for (uint64_t i = 0; i < slot->ranges[r].count; i++)
				move(slot, r, i, whole);
		}
		slot->disks = slot->op == DMCORE_OP_FLUSH && whole ? disks : slot->disks & disks;
		slot->disks_ever |= disks;
	}
}

void io_read_all(unsigned int device)
{
	uint64_t size = program.tables.sizes[device];

	for (uint64_t at = 0; at < size && !program_failed(); at += RANGE_SECTORS_MAX) {
		uint64_t count = size - at < RANGE_SECTORS_MAX ? size - at : RANGE_SECTORS_MAX;
		struct slot *slot = io_choose_slot(DMCORE_OP_READ);
		int ret;

		if (!slot)
			return;
		slot->ranges[slot->num_ranges++] = (struct range){ device, at, count };
		io_fill(slot, count);
		io_begin(slot);
		ret = call(slot);
		io_end_range(slot, 0, ret);
		io_end(slot, ret != 0);
	}
}

/* ---- steps ---------------------------------------------------------------------------------- */

void io_step(unsigned int kind)
{
	if (kind < 3)
		submit_bio(DMCORE_OP_READ);
	else if (kind < 8)
		submit_bio(DMCORE_OP_WRITE);
	else if (kind < 10)
		submit_bio(DMCORE_OP_FLUSH);
	else if (kind == 10)
		submit_bio(choose(2) ? DMCORE_OP_DISCARD : DMCORE_OP_WRITE_ZEROES);
	else if (kind < 13)
		submit_dmio();
	else if (kind < 15)
		copy_step();
	else
		plain_call(choose(DMCORE_OP_COUNT));
}
