/* SPDX-License-Identifier: MIT */
/* The disks and the requests of the fuzzer of programs, and the verdict on each. See program.h. */
#include "program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What disks are like. All disks of a program have one block size. */
static const struct {
	const char *args;
	unsigned int caps;
} kinds[] = {
	{ "", 0x1f },
	{ ",caps=0", 0 },
	{ ",caps=1", 1 },
	{ ",max_io=8,chunk=16,max_discard=8,max_zeroes=4", 0x1f },
	{ ",align=512,max_io=3", 0x1f },
	{ ",block=4096", 0x1f },
	{ ",block=4096,caps=5,max_io=16", 5 },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))
#define KINDS_OF_512 5

struct world world;

/* ---- disks, which are kept ------------------------------------------------------------------ */

static char disk_specs[DISKS][KINDS][80];
static struct dmcore_bdev *disk_bdevs[DISKS][KINDS];

void open_disks(struct dmcore *core)
{
	int ret = fault_register(core);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	for (unsigned int i = 0; i < DISKS; i++) {
		for (unsigned int k = 0; k < KINDS; k++) {
			snprintf(disk_specs[i][k], sizeof(disk_specs[i][k]), "fault:%d,id=%u%s",
				 DISK_SECTORS, i, kinds[k].args);
			ret = dmcore_bdev_open(core, disk_specs[i][k], 0, &disk_bdevs[i][k]);
			FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
		}
	}
	fuzz_kept_settle();
}

void choose_disks(void)
{
	unsigned int choice = fuzz_u8(&world.bytes);
	bool is_4k = choice % 8 == 7;

	world.unit = is_4k ? 8 : 1;
	world.caps = 0x1f;
	for (unsigned int i = 0; i < DISKS; i++) {
		unsigned int kind = is_4k ? KINDS_OF_512 + (choice >> (3 + i)) % 2 :
					    (choice + i * (choice >> 3)) % KINDS_OF_512;

		world.disks[i] = fault_disk_of(disk_bdevs[i][kind]);
		world.specs[i] = disk_specs[i][kind];
		world.caps &= kinds[kind].caps;
		memset(fault_data(world.disks[i]), 0, DISK_SECTORS * DMCORE_SECTOR_BYTES);
		fault_clear_log(world.disks[i]);
	}
}

/* ---- what a request did --------------------------------------------------------------------- */

static bool is_fault(int status)
{
	for (unsigned int i = 0; i < world.num_statuses; i++) {
		if (world.statuses[i] == status)
			return true;
	}
	return false;
}

void add_status(int status)
{
	if (is_fault(status) || world.num_statuses == STATUSES_MAX)
		return;
	world.statuses[world.num_statuses++] = status;
}

/* Whether something has failed on a disk since the logs were cleared. */
static bool has_failure(void)
{
	for (unsigned int i = 0; i < DISKS; i++) {
		unsigned int count = fault_num_logged(world.disks[i]);

		for (unsigned int j = 0; j < count; j++) {
			if (fault_logged(world.disks[i], j).status)
				return true;
		}
	}
	return false;
}

static bool flush_has_failed(void)
{
	for (unsigned int i = 0; i < DISKS; i++) {
		unsigned int count = fault_num_logged(world.disks[i]);

		for (unsigned int j = 0; j < count; j++) {
			struct fault_entry entry = fault_logged(world.disks[i], j);

			if (entry.op == DMCORE_OP_FLUSH && entry.status)
				return true;
		}
	}
	return false;
}

static void check_status(const struct slot *slot, int status)
{
	bool may_be_unsupported =
		slot->range.op == DMCORE_OP_DISCARD && !(world.caps & DMCORE_CAP_DISCARD);

	if (slot->is_refused) {
		FUZZ_CHECK(status == -EAGAIN || status == -EIO, "status %d at once", status);
		return;
	}
	/* The write behind the flush may have met with a suspended device. */
	if (slot->bio.flags & DMCORE_BIO_NOWAIT && slot->has_preflush && status == -EAGAIN)
		return;
	if (slot->is_outside) {
		FUZZ_CHECK(status == -EIO || (slot->has_preflush && is_fault(status)),
			   "status %d beyond the end", status);
		return;
	}
	if (may_be_unsupported && status == -EOPNOTSUPP)
		return;
	/* Made durable by a flush, it fails with any other that fails meanwhile. */
	if (slot->bio.flags & DMCORE_BIO_FUA && status == -EIO && flush_has_failed())
		return;
	/* As the zero target does. */
	if (slot->bio.flags & DMCORE_BIO_RAHEAD && status == -EIO)
		return;
	FUZZ_CHECK(is_fault(status) || model_allows(slot->errors, status),
		   "op %u at %llu+%llu: status %d", slot->range.op,
		   (unsigned long long)slot->range.sector,
		   (unsigned long long)slot->range.count, status);
	if (slot->is_alone && slot->errors == 0 && !may_be_unsupported)
		FUZZ_CHECK((status != 0) == has_failure(), "op %u: status %d", slot->range.op,
			   status);
}

/* The bytes of a sector, by its place in the model's tags. */
static const unsigned char *leaf_bytes(const uint64_t *place)
{
	for (unsigned int i = 0; i < DISKS; i++) {
		const uint64_t *tags = world.model.tags[i];

		if (place >= tags && place < tags + DISK_SECTORS)
			return fault_data(world.disks[i]) + (place - tags) * DMCORE_SECTOR_BYTES;
	}
	fuzz_fail(__FILE__, __LINE__, "place", "of no disk");
}

/* After a failure each sector is as before, or as if there had been none. */
static void settle_failure(struct slot *slot)
{
	for (uint64_t i = 0; i < slot->range.count; i++) {
		uint64_t *place = slot->places[i];

		if (!place || *place == MODEL_UNKNOWN || model_holds(leaf_bytes(place), *place))
			continue;
		/* By another table the sector may be that of a request that began later. */
		if (*place != slot->set[i])
			continue;
		FUZZ_CHECK(model_holds(leaf_bytes(place), slot->old[i]),
			   "op %u: sector %llu is neither old nor new", slot->range.op,
			   (unsigned long long)(slot->range.sector + i));
		*place = slot->old[i];
	}
}

static void check_read(const struct slot *slot)
{
	for (uint64_t i = 0; i < slot->range.count; i++)
		FUZZ_CHECK(model_holds(slot->data + i * DMCORE_SECTOR_BYTES, slot->old[i]),
			   "sector %llu of %llu+%llu is read wrong",
			   (unsigned long long)(slot->range.sector + i),
			   (unsigned long long)slot->range.sector,
			   (unsigned long long)slot->range.count);
}

static bool is_outside(const struct slot *slot)
{
	uint64_t end = slot->range.sector + slot->range.count;

	return slot->range.op != DMCORE_OP_FLUSH &&
	       (end > world.model.size_sectors || (slot->is_upper && end > world.upper_end));
}

void begin(struct slot *slot)
{
	const struct range *range = &slot->range;

	slot->state = SLOT_RUNNING;
	slot->is_alone = world.num_running == 0;
	for (unsigned int i = 0; i < SLOTS && !slot->is_alone; i++)
		world.slots[i].is_alone = false;
	world.num_running++;
	for (unsigned int i = 0; i < DISKS && slot->is_alone; i++)
		fault_clear_log(world.disks[i]);
	slot->errors = 0;
	slot->is_outside = is_outside(slot);
	if (slot->is_outside || range->op == DMCORE_OP_FLUSH)
		return;
	for (uint64_t i = 0; i < range->count; i++)
		slot->places[i] = model_tag(&world.model, range->sector + i, &slot->old[i]);
	if (slot->is_refused)
		return;
	slot->errors = model_run(&world.model, range->op, range->sector, range->count, slot->tag);
	for (uint64_t i = 0; i < range->count; i++)
		slot->set[i] = slot->places[i] ? *slot->places[i] : MODEL_UNKNOWN;
}

static void slot_done(struct dmcore_bio *bio)
{
	struct slot *slot = bio->context;

	/* What can't be right needs no resume to fail. */
	if (slot->state == SLOT_WAITING && is_outside(slot))
		begin(slot);
	FUZZ_CHECK(slot->state == SLOT_RUNNING, "a request in state %d ends with %d",
		   (int)slot->state, bio->status);
	slot->state = SLOT_FREE;
	world.num_running--;
	check_status(slot, bio->status);
	if (slot->is_outside || slot->is_refused || slot->range.op == DMCORE_OP_FLUSH)
		return;
	if (slot->range.op != DMCORE_OP_READ && bio->status)
		settle_failure(slot);
	else if (slot->range.op == DMCORE_OP_READ && bio->status == 0)
		check_read(slot);
}

/* ---- requests ------------------------------------------------------------------------------- */

static bool overlaps(const struct range *a, const struct range *b)
{
	return a->sector < b->sector + b->count && b->sector < a->sector + a->count &&
	       (a->op != DMCORE_OP_READ || b->op != DMCORE_OP_READ);
}

/* A free slot, if the request doesn't meet with another one: the model knows no order of them. */
static struct slot *find_slot(const struct range *range)
{
	struct slot *found = NULL;

	for (unsigned int i = 0; i < SLOTS; i++) {
		struct slot *slot = &world.slots[i];

		if (slot->state == SLOT_FREE)
			found = slot;
		else if (overlaps(&slot->range, range))
			return NULL;
	}
	return found;
}

static void fill_bio(struct slot *slot, struct dmcore_bdev *bdev, uint64_t sector, uint8_t choice)
{
	struct dmcore_bio *bio = &slot->bio;
	size_t bytes = (size_t)slot->range.count * DMCORE_SECTOR_BYTES;
	size_t first_bytes = 1 + choice * 3u;

	dmcore_bio_init(bio, world.queue);
	bio->bdev = bdev;
	bio->op = (uint8_t)slot->range.op;
	bio->sector = sector;
	bio->count = slot->range.count;
	bio->done = slot_done;
	bio->context = slot;
	if (slot->range.op != DMCORE_OP_READ && slot->range.op != DMCORE_OP_WRITE)
		return;
	if (slot->range.op == DMCORE_OP_WRITE)
		model_fill(slot->data, slot->range.count, slot->tag);
	else
		memset(slot->data, 0xa5, bytes);
	dmcore_bio_set_buffer(bio, slot->data, bytes);
	if (choice % 4 != 3 || first_bytes >= bytes)
		return;
	slot->vecs[0] = (struct dmio_bvec){ slot->data, first_bytes };
	slot->vecs[1] = (struct dmio_bvec){ slot->data + first_bytes, bytes - first_bytes };
	bio->vecs = slot->vecs;
	bio->num_vecs = 2;
}

/* FUA and PREFLUSH by their bits; NOWAIT or RAHEAD sometimes. */
static uint16_t choose_flags(enum dmcore_op op, uint8_t choice)
{
	uint16_t flags = 0;

	if (op == DMCORE_OP_WRITE || op == DMCORE_OP_WRITE_ZEROES)
		flags = choice & (DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH);
	if ((choice >> 2) % 8 == 7)
		flags |= DMCORE_BIO_NOWAIT;
	if ((choice >> 2) % 8 == 6 && op == DMCORE_OP_READ)
		flags |= DMCORE_BIO_RAHEAD;
	return flags;
}

bool must_wait(bool is_upper)
{
	return world.is_suspended || (is_upper && world.upper_is_suspended);
}

/* A range, in units: also behind the end at times. */
static struct range choose_range(enum dmcore_op op, uint64_t start, bool is_odd)
{
	uint64_t unit = world.unit;
	uint64_t sector = (fuzz_u8(&world.bytes) * 2u + is_odd) * unit;
	uint64_t count = (1 + fuzz_below(&world.bytes, COUNT_MAX / world.unit)) * unit;

	sector %= world.model.size_sectors + 2 * unit;
	return (struct range){ op, start + sector, op == DMCORE_OP_FLUSH ? 0 : count };
}

void do_request(enum dmcore_op op)
{
	uint8_t flags_choice = fuzz_u8(&world.bytes);
	uint8_t shape_choice = fuzz_u8(&world.bytes);
	bool is_upper = world.upper && flags_choice & 0x80;
	uint64_t start = is_upper ? world.upper_start : 0;
	struct range range = choose_range(op, start, shape_choice & 1);
	struct slot *slot = find_slot(&range);
	bool waits = must_wait(is_upper);
	uint16_t flags = choose_flags(op, flags_choice);

	if (!slot)
		return;
	slot->range = range;
	slot->tag = world.next_tag;
	world.next_tag += range.count;
	slot->is_upper = is_upper;
	fill_bio(slot, dmcore_device_bdev(is_upper ? world.upper : world.device),
		 range.sector - start, shape_choice);
	slot->bio.flags = flags;
	slot->has_waited = false;
	slot->has_preflush = flags & DMCORE_BIO_PREFLUSH;
	slot->is_refused = waits && flags & (DMCORE_BIO_NOWAIT | DMCORE_BIO_RAHEAD);
	slot->state = SLOT_WAITING;
	if (!waits || slot->is_refused)
		begin(slot);
	FUZZ_CHECK(dmcore_bio_submit(&slot->bio) == 0, "%s", dmcore_error_message());
}

void poll_queue(unsigned int max)
{
	int ret = dmcore_queue_poll(world.queue, 0, max, 0);

	FUZZ_CHECK(ret >= 0 && (unsigned int)ret <= max, "%d", ret);
	FUZZ_CHECK(dmcore_service_poll(world.core, 0, max, 0) >= 0, "the service");
}

void drain(void)
{
	for (unsigned int turns = 0; world.num_running > 0; turns++) {
		FUZZ_CHECK(turns < 10000, "%u requests don't end", world.num_running);
		for (unsigned int i = 0; i < DISKS; i++)
			fault_release_all(world.disks[i]);
		poll_queue(16);
	}
}
