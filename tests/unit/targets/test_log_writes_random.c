/* SPDX-License-Identifier: MIT */
/*
 * Random requests to a log-writes target, many at once, that end in a random order: at each flush
 * of its log, a replay holds exactly what had completed when that flush was submitted, and in the
 * end what the device holds. With so few pages that completed writes are logged early, and that
 * requests wait.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"
#include "support/rng.h"
#include "support/stage.h"

/* Of the first ones; those behind them are written with FUA. */
#define PLAIN_SECTORS 448u
#define SECTORS 512u
#define LOG_SECTORS 65536u
#define COUNT_MAX 4u
/* More than there are entries. */
#define SLOTS 300u
#define STEPS 8000u
#define PHASE 1000u
#define FLUSHES_MAX 1000u

/* A request, and the version that its write gives its sectors. */
struct slot {
	struct dmcore_bio bio;
	bool busy;
	bool is_flush;
	uint64_t sector;
	uint64_t count;
	uint64_t version;
	unsigned char data[COUNT_MAX * DMCORE_SECTOR_BYTES];
};

/* What had completed when a flush was submitted. */
struct promise {
	bool exact; /* it was submitted to the device at once, not after a wait for memory */
	uint64_t versions[PLAIN_SECTORS];
};

static struct stage stage;
static struct rng rng;
static struct fault_disk *disk;
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;
static struct slot slots[SLOTS];
static bool is_busy[SECTORS];
static uint64_t completed[SECTORS];
static struct promise *promises;
static unsigned int num_promises;
static unsigned int num_waited;
static uint64_t last_version;
static bool flush_under_way;
static unsigned char log_bytes[LOG_SECTORS * DMCORE_SECTOR_BYTES];

static void ended(struct dmcore_bio *bio)
{
	struct slot *slot = bio->context;

	cr_assert_eq(bio->status, 0);
	slot->busy = false;
	if (slot->is_flush) {
		flush_under_way = false;
		return;
	}
	for (uint64_t i = 0; i < slot->count; i++) {
		completed[slot->sector + i] = slot->version;
		is_busy[slot->sector + i] = false;
	}
}

static void submit(struct slot *slot, enum dmcore_op op, unsigned int flags)
{
	unsigned int held = fault_num_held(disk);

	dmcore_bio_init(&slot->bio, stage.queue);
	dmcore_bio_set_buffer(&slot->bio, slot->data, slot->count * DMCORE_SECTOR_BYTES);
	slot->bio.bdev = bdev;
	slot->bio.op = (uint8_t)op;
	slot->bio.flags = (uint16_t)flags;
	slot->bio.sector = slot->sector;
	slot->bio.count = slot->count;
	slot->bio.done = ended;
	slot->bio.context = slot;
	slot->busy = true;
	cr_assert_eq(dmcore_bio_submit(&slot->bio), 0);
	num_waited += fault_num_held(disk) == held;
	if (op == DMCORE_OP_FLUSH)
		promises[num_promises - 1].exact = fault_num_held(disk) > held;
}

static void submit_flush(struct slot *slot)
{
	if (flush_under_way || num_promises == FLUSHES_MAX)
		return;
	memcpy(promises[num_promises].versions, completed, sizeof(promises[0].versions));
	num_promises++;
	flush_under_way = true;
	slot->is_flush = true;
	slot->sector = 0;
	slot->count = 0;
	submit(slot, DMCORE_OP_FLUSH, 0);
}

static void submit_write(struct slot *slot, bool fua)
{
	slot->is_flush = false;
	slot->count = 1 + rng_below(&rng, COUNT_MAX);
	slot->sector = fua ? PLAIN_SECTORS + rng_below(&rng, SECTORS - PLAIN_SECTORS - COUNT_MAX) :
			     rng_below(&rng, PLAIN_SECTORS - COUNT_MAX);
	for (uint64_t i = 0; i < slot->count; i++) {
		if (is_busy[slot->sector + i])
			return;
	}
	slot->version = ++last_version;
	for (uint64_t i = 0; i < slot->count; i++) {
		is_busy[slot->sector + i] = true;
		memcpy(slot->data + i * DMCORE_SECTOR_BYTES, &slot->version,
		       sizeof(slot->version));
	}
	submit(slot, DMCORE_OP_WRITE, fua ? DMCORE_BIO_FUA : 0);
}

static void release_one(unsigned int index, bool stalls)
{
	if (!stalls || fault_held(disk, index).op != DMCORE_OP_FLUSH)
		fault_release(disk, index, 0);
}

/* stalls: a flush takes so long that memory runs out behind it. */
static void step(bool stalls)
{
	struct slot *slot = &slots[rng_below(&rng, SLOTS)];
	uint64_t choice = rng_below(&rng, 100);
	unsigned int held = fault_num_held(disk);

	if (choice < 50 && !slot->busy)
		submit_write(slot, choice < 5);
	else if (choice < 54 && !slot->busy && !stalls)
		submit_flush(slot);
	else if (choice < 60)
		dmcore_queue_poll(stage.queue, 0, UINT32_MAX, 0);
	else if (choice < 65)
		dmcore_service_poll(stage.core, 0, UINT32_MAX, 0);
	else if (held > 0)
		release_one((unsigned int)rng_below(&rng, held), stalls);
}

static void drain(void)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		while (slots[i].busy) {
			fault_release_all(disk);
			dmcore_queue_poll(stage.queue, 0, UINT32_MAX, 0);
			dmcore_service_poll(stage.core, 0, UINT32_MAX, 0);
		}
	}
}

static void check_promise(unsigned int nr, const uint64_t *replayed)
{
	cr_assert_lt(nr, num_promises);
	for (unsigned int i = 0; i < PLAIN_SECTORS; i++) {
		uint64_t promised = promises[nr].versions[i];

		cr_assert(promises[nr].exact ? replayed[i] == promised : replayed[i] >= promised,
			  "seed %llu, flush %u, sector %u: %llu of %llu",
			  (unsigned long long)rng_seed(), nr, i,
			  (unsigned long long)replayed[i], (unsigned long long)promised);
	}
}

static void check_log(void)
{
	static uint64_t replayed[SECTORS];
	struct dmcore_logwrites_super super;
	unsigned int num_flushes = 0;
	uint64_t at = 1;

	memset(replayed, 0, sizeof(replayed));
	cr_assert_eq(dmcore_pread(stage.bdevs[1], log_bytes, sizeof(log_bytes), 0), 0);
	cr_assert_eq(dmcore_logwrites_super_decode(log_bytes, &super), DMCORE_LOGWRITES_GOOD);
	for (uint64_t i = 0; i < super.num_entries; i++) {
		const unsigned char *block = log_bytes + at * DMCORE_SECTOR_BYTES;
		struct dmcore_logwrites_entry entry;

		cr_assert_eq(dmcore_logwrites_entry_decode(block, DMCORE_SECTOR_BYTES, &entry),
			     DMCORE_LOGWRITES_GOOD);
		if (entry.flags & DMCORE_LOGWRITES_FLUSH)
			check_promise(num_flushes++, replayed);
		for (uint64_t k = 0; k < entry.count; k++)
			memcpy(&replayed[entry.sector + k], block + (1 + k) * DMCORE_SECTOR_BYTES,
			       sizeof(replayed[0]));
		at += dmcore_logwrites_entry_blocks(&entry);
	}
	cr_assert_eq(num_flushes, num_promises);
	cr_assert_eq(memcmp(replayed, completed, sizeof(replayed)), 0);
}

Test(log_writes_random, replay_of_the_log_up_to_a_flush_is_what_it_covers)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	char text[128];

	options.flags = DMCORE_SERVICE_MANUAL;
	stage_open(&stage, &options, NULL);
	rng_start(&rng, 0);
	promises = calloc(FLUSHES_MAX, sizeof(*promises));
	cr_assert_not_null(promises);
	disk = stage_disk(&stage, 1, SECTORS, "");
	stage_disk(&stage, 2, LOG_SECTORS, "");
	snprintf(text, sizeof(text), "0 %u log-writes %s %s", SECTORS,
		 stage_disk_spec(1, SECTORS, ""), stage_disk_spec(2, LOG_SECTORS, ""));
	bdev = stage_map(&stage, "t", text);
	device = stage.devices[0];
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD,
						   .ops = FAULT_WRITE | FAULT_FLUSH });
	for (unsigned int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < STEPS; i++)
			step(i / PHASE % 2 == 1);
		drain();
		actor_suspend(device, 0);
		check_log();
		actor_resume(device);
	}
	cr_assert_gt(num_promises, 30);
	cr_assert_gt(num_waited, 10);
	free(promises);
	stage_close(&stage);
}
