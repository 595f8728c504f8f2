/* SPDX-License-Identifier: MIT */
/* A snapshot in a simulated world, and the model of it; see simsnap.h. */
#include "simsnap.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "rng.h"

static const char *const names[SIMSNAP_SIDES] = { "o", "s" };

bool simsnap_slow(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return !rng_full();
#else
	return false;
#endif
}

bool simsnap_brief(void)
{
#if defined(__SANITIZE_ADDRESS__) || !defined(__OPTIMIZE__)
	return !rng_full();
#else
	const char *preloaded = getenv("LD_PRELOAD");

	return rng_brief() || (preloaded && strstr(preloaded, "vgpreload"));
#endif
}

/* ---- contents ---- */

void simsnap_fill(unsigned char *sector, enum simsnap_side side, uint64_t number, uint8_t version)
{
	uint64_t word = UINT64_C(0xd15c) << 48 | (uint64_t)side << 32 | number << 8 | version;

	/* Both have begun as one. */
	if (version == 0)
		word &= ~(UINT64_C(0xffff) << 32);
	for (unsigned int i = 0; i < 512; i += 8)
		memcpy(sector + i, &word, 8);
}

int simsnap_version(enum simsnap_side side, uint64_t number, const unsigned char *sector)
{
	uint64_t word;

	memcpy(&word, sector, 8);
	if (memcmp(sector, sector + 8, 504) != 0)
		return -1;
	if ((word & 0xff) == 0)
		side = SIMSNAP_ORIGIN;
	if (word >> 8 != ((UINT64_C(0xd15c) << 48 | (uint64_t)side << 32 | number << 8) >> 8))
		return -1;
	return (int)(word & 0xff);
}

const unsigned char *simsnap_disk(const struct simsnap *snap, enum simsnap_side side)
{
	return dmcore_sim_disk_data(snap->world.disks[side]);
}

/* ---- worlds ---- */

/* What was there before: it looks like entries, of which the first four bytes end none. */
static void load_garbage(struct simsnap *snap)
{
	static unsigned char garbage[SIMSNAP_COW_SECTORS_MAX * 512];

	for (size_t i = 0; i < sizeof(garbage); i += 16) {
		dmcore_cow_store(garbage + i, (i / 16) % snap->options.origin_chunks, 8);
		dmcore_cow_store(garbage + i + 8, 2 + (i / 16) % 5, 8);
	}
	memset(garbage, 0, 4);
	cr_assert_eq(dmcore_sim_disk_load(snap->world.disks[1], garbage,
					  snap->options.cow_sectors * 512, 0), 0);
}

static void load_origin(struct simsnap *snap)
{
	static unsigned char data[SIMSNAP_SECTORS_MAX * 512];

	for (uint64_t i = 0; i < snap->num_sectors; i++)
		simsnap_fill(data + i * 512, SIMSNAP_ORIGIN, i, 0);
	cr_assert_eq(dmcore_sim_disk_load(snap->world.disks[0], data, snap->num_sectors * 512, 0),
		     0);
}

static void add_disks(struct simsnap *snap)
{
	const struct simsnap_options *options = &snap->options;
	struct simworld *world = &snap->world;

	world->options.atomic_bytes = options->atomic_bytes;
	world->options.read_ns = 10000;
	world->options.write_ns = 20000;
	world->options.flush_ns = 30000;
	world->options.spread_ns = options->spread_ns;
	world->options.flags = options->disk_flags | options->origin_flags;
	simworld_add_disk(world, snap->num_sectors);
	world->options.flags = options->disk_flags | options->cow_flags;
	simworld_add_disk(world, options->cow_sectors);
}

void simsnap_settle(struct simsnap *snap)
{
	static unsigned char copy[SIMSNAP_COW_SECTORS_MAX * 512];
	uint64_t sectors[SIMSNAP_SIDES] = { snap->num_sectors, snap->options.cow_sectors };

	for (unsigned int side = 0; side < SIMSNAP_SIDES; side++) {
		memcpy(copy, simsnap_disk(snap, (enum simsnap_side)side), sectors[side] * 512);
		cr_assert_eq(dmcore_sim_disk_load(snap->world.disks[side], copy,
						  sectors[side] * 512, 0), 0);
	}
}

void simsnap_open(struct simsnap *snap, const struct simsnap_options *options, uint64_t seed)
{
	uint64_t *hashes = snap->hashes;
	uint64_t num_hashes = snap->num_hashes;

	memset(snap, 0, sizeof(*snap));
	snap->hashes = hashes;
	snap->num_hashes = num_hashes;
	snap->options = *options;
	if (!snap->options.store)
		snap->options.store = "P";
	if (!snap->options.probes)
		snap->options.probes = 1;
	snap->num_sectors = (uint64_t)options->origin_chunks * options->chunk_sectors;
	cr_assert_leq(snap->num_sectors, SIMSNAP_SECTORS_MAX);
	cr_assert_leq(options->cow_sectors, SIMSNAP_COW_SECTORS_MAX);
	/* What a state takes is taken again by the next one. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	simworld_open(&snap->world, seed);
	add_disks(snap);
	load_origin(snap);
	if (options->garbage)
		load_garbage(snap);
	for (unsigned int i = 0; i < SIMSNAP_AT_ONCE; i++) {
		snap->requests[i].snap = snap;
		dmcore_bio_init(&snap->requests[i].bio, snap->world.queue);
	}
	if (!options->is_new) {
		cr_assert_eq(simsnap_activate(snap), 0, "%s", dmcore_error_message());
		simsnap_deactivate(snap);
		simsnap_settle(snap);
	}
}

void simsnap_close(struct simsnap *snap)
{
	simworld_close(&snap->world);
}

/* ---- devices ---- */

static int write_table(const struct simsnap *snap, enum simsnap_side side, const char *type,
		       char *text, size_t bytes)
{
	if (side == SIMSNAP_ORIGIN)
		return snprintf(text, bytes, "0 %u %s sim:d0", (unsigned int)snap->num_sectors,
				type);
	return snprintf(text, bytes, "0 %u %s sim:d0 sim:d1 %s %u",
			(unsigned int)snap->num_sectors, type, snap->options.store,
			snap->options.chunk_sectors);
}

static struct dmcore_table *parse(struct simsnap *snap, enum simsnap_side side, const char *type)
{
	struct dmcore_table *table;
	char text[80];

	write_table(snap, side, type, text, sizeof(text));
	cr_assert_eq(dmcore_table_parse(snap->world.core, text, 0, &table), 0, "%s: %s", text,
		     dmcore_error_message());
	return table;
}

int simsnap_activate_as(struct simsnap *snap, enum simsnap_side side, const char *type)
{
	struct dmcore_device *device;
	int ret;

	cr_assert_null(snap->devices[side]);
	cr_assert_eq(dmcore_device_create(snap->world.core, names[side], NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, parse(snap, side, type)), 0, "%s",
		     dmcore_error_message());
	ret = dmcore_device_resume(device);
	if (ret)
		cr_assert_eq(dmcore_device_remove(device), 0);
	else
		snap->devices[side] = device;
	return ret;
}

int simsnap_activate(struct simsnap *snap)
{
	int ret = simsnap_activate_as(snap, SIMSNAP_SNAPSHOT, "snapshot");

	return ret ? ret : simsnap_activate_as(snap, SIMSNAP_ORIGIN, "snapshot-origin");
}

void simsnap_deactivate(struct simsnap *snap)
{
	simsnap_wait(snap, 0);
	for (unsigned int side = 0; side < SIMSNAP_SIDES; side++) {
		if (snap->devices[side])
			cr_assert_eq(dmcore_device_remove(snap->devices[side]), 0);
		snap->devices[side] = NULL;
	}
}

void simsnap_reload(struct simsnap *snap, const char *type)
{
	struct dmcore_device *device = snap->devices[SIMSNAP_SNAPSHOT];

	cr_assert_eq(dmcore_device_load(device, parse(snap, SIMSNAP_SNAPSHOT, type)), 0,
		     "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
}

void simsnap_suspend_and_resume(struct simsnap *snap, enum simsnap_side side)
{
	cr_assert_eq(dmcore_device_suspend(snap->devices[side], 0, -1), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(snap->devices[side]), 0, "%s", dmcore_error_message());
}

void simsnap_status(struct simsnap *snap, char *text, size_t bytes)
{
	const char *at;
	char line[160];

	cr_assert_gt(dmcore_device_text(snap->devices[SIMSNAP_SNAPSHOT], DMCORE_TEXT_STATUS, 0,
					line, sizeof(line)), 0);
	line[strcspn(line, "\n")] = '\0';
	at = line;
	for (unsigned int i = 0; i < 3; i++) {
		at = strchr(at, ' ');
		cr_assert(at, "%s", line);
		at++;
	}
	snprintf(text, bytes, "%s", at);
}

bool simsnap_is_invalid(struct simsnap *snap)
{
	char text[80];

	simsnap_status(snap, text, sizeof(text));
	return strncmp(text, "Invalid", 7) == 0;
}

/* ---- the model ---- */

void simsnap_mark(struct simsnap *snap)
{
	cr_assert_lt(snap->num_marks + 1, SIMSNAP_MARKS_MAX);
	snap->at_mark[++snap->num_marks] = snap->now;
	cr_assert_eq(dmcore_sim_mark(snap->world.sim, snap->num_marks), 0);
}

void simsnap_record(struct simsnap *snap)
{
	simsnap_wait(snap, 0);
	snap->num_marks = 0;
	snap->at_mark[0] = snap->now;
	cr_assert_eq(dmcore_sim_record(snap->world.sim), 0);
}

void simsnap_mark_changed(struct simsnap *snap)
{
	if (memcmp(&snap->at_mark[snap->num_marks], &snap->now, sizeof(snap->now)) != 0)
		simsnap_mark(snap);
}

/* Its chunks may get exceptions from now on. */
static void touch(struct simsnap *snap, uint64_t sector, uint64_t count)
{
	uint64_t last = (sector + count - 1) / snap->options.chunk_sectors;

	for (uint64_t i = sector / snap->options.chunk_sectors; i <= last; i++) {
		snap->now.exceptions_max += !snap->touched[i];
		snap->touched[i] = true;
	}
	if (snap->options.overflows)
		snap->now.may_be_invalid = true;
	simsnap_mark_changed(snap);
}

static void raise_to(uint8_t *oldest, const uint8_t *other, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		if (oldest[i] < other[i])
			oldest[i] = other[i];
	}
}

static bool is_lost(struct simsnap *snap)
{
	return snap->options.overflows && snap->devices[SIMSNAP_SNAPSHOT] &&
	       simsnap_is_invalid(snap);
}

static void ended_well(struct simsnap *snap, const struct simsnap_request *request)
{
	uint8_t *oldest = snap->now.oldest[request->side];

	if (request->op == DMCORE_OP_FLUSH || request->flags & DMCORE_BIO_PREFLUSH)
		raise_to(oldest, request->covered, snap->num_sectors);
	if (request->op != DMCORE_OP_WRITE)
		return;
	raise_to(snap->ended[request->side] + request->sector, request->versions, request->count);
	if (request->flags & DMCORE_BIO_FUA)
		raise_to(oldest + request->sector, request->versions, request->count);
	/* What has lost the snapshot is done: nobody may ever see it as valid again. */
	if (request->side == SIMSNAP_ORIGIN && (request->alone || request->was_invalid) &&
	    is_lost(snap))
		snap->now.must_be_invalid = true;
}

static void note_end(struct dmcore_bio *bio)
{
	struct simsnap_request *request = bio->context;
	struct simsnap *snap = request->snap;

	request->busy = false;
	snap->num_busy--;
	cr_assert(bio->status == 0 ||
		  (snap->options.overflows && request->side == SIMSNAP_SNAPSHOT), "%d",
		  bio->status);
	if (bio->status)
		snap->num_failed++;
	else
		ended_well(snap, request);
	simsnap_mark_changed(snap);
}

/* ---- requests ---- */

static bool is_free(const struct simsnap *snap, enum simsnap_side side, uint64_t sector,
		    uint64_t count)
{
	for (unsigned int i = 0; i < SIMSNAP_AT_ONCE; i++) {
		const struct simsnap_request *other = &snap->requests[i];

		if (other->busy && other->op == DMCORE_OP_WRITE && other->side == side &&
		    other->sector < sector + count && sector < other->sector + other->count)
			return false;
	}
	return true;
}

static struct simsnap_request *idle_request(struct simsnap *snap)
{
	simsnap_wait(snap, SIMSNAP_AT_ONCE - 1);
	for (unsigned int i = 0; i < SIMSNAP_AT_ONCE; i++) {
		if (!snap->requests[i].busy)
			return &snap->requests[i];
	}
	return NULL;
}

static void begin_write(struct simsnap *snap, struct simsnap_request *request)
{
	uint8_t *latest = snap->latest[request->side] + request->sector;

	touch(snap, request->sector, request->count);
	memset(request->versions, 0, sizeof(request->versions));
	for (uint64_t i = 0; i < request->count; i++) {
		cr_assert_lt(latest[i] + 1, SIMSNAP_PROBE);
		request->versions[i] = ++latest[i];
		simsnap_fill(request->memory + i * 512, request->side, request->sector + i,
			     latest[i]);
	}
	dmcore_bio_set_buffer(&request->bio, request->memory, request->count * 512);
}

void simsnap_submit(struct simsnap *snap, enum simsnap_side side, enum dmcore_op op,
		    unsigned int flags, uint64_t sector, uint64_t count)
{
	struct simsnap_request *request;

	while (op == DMCORE_OP_WRITE && !is_free(snap, side, sector, count))
		simsnap_wait(snap, snap->num_busy - 1);
	request = idle_request(snap);
	for (unsigned int i = 0; i < SIMSNAP_AT_ONCE; i++)
		snap->requests[i].alone = false;
	request->busy = true;
	request->alone = snap->num_busy == 0;
	request->was_invalid = is_lost(snap);
	request->side = side;
	request->op = op;
	request->flags = flags;
	request->sector = sector;
	request->count = count;
	memcpy(request->covered, snap->ended[side], sizeof(request->covered));
	request->bio.bdev = dmcore_device_bdev(snap->devices[side]);
	request->bio.op = (uint8_t)op;
	request->bio.flags = (uint16_t)flags;
	request->bio.sector = sector;
	request->bio.count = count;
	request->bio.done = note_end;
	request->bio.context = request;
	if (op == DMCORE_OP_WRITE)
		begin_write(snap, request);
	snap->num_busy++;
	cr_assert_eq(dmcore_bio_submit(&request->bio), 0);
}

void simsnap_wait(struct simsnap *snap, unsigned int num_busy)
{
	while (snap->num_busy > num_busy)
		cr_assert_geq(dmcore_queue_poll(snap->world.queue, 1, UINT32_MAX, -1), 0);
}

void simsnap_do(struct simsnap *snap, enum simsnap_side side, enum dmcore_op op,
		unsigned int flags, uint64_t sector, uint64_t count)
{
	simsnap_submit(snap, side, op, flags, sector, count);
	simsnap_wait(snap, 0);
}
