/* SPDX-License-Identifier: MIT */
/*
 * Mirrors under random requests, over disks and a log that fail at random, suspended, resumed and
 * reloaded: what was acknowledged is read, or nothing is; no region that is clean on disk has legs
 * that differ; and when all works again all requests end and the legs are the same.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"
#include "support/rng.h"

#define SLOTS 12u
#define COUNT_MAX 40u
#define STEPS 250u
#define LEGS_MAX 3u
#define RULES_MAX 6u

/* A write or a flush that may still be under way. */
struct slot {
	bool busy;
	uint64_t sector;
	uint64_t count; /* 0: a flush */
	uint32_t version;
	struct tally tally;
	unsigned char buffer[COUNT_MAX * DMCORE_SECTOR_BYTES];
};

static struct slot slots[SLOTS];
static struct rng rng;
static struct mirrors_table table;
static unsigned int num_legs;
static unsigned int num_rules[LEGS_MAX];
/* Of a sector: the version that was acknowledged last, and the last one that was written. */
static uint32_t acknowledged[MIRRORS_SECTORS];
static uint32_t written[MIRRORS_SECTORS];
static uint32_t last_version;
static uint64_t stream;

/* ---- what must be so ---- */

static void take_note(struct slot *slot)
{
	if (!slot->busy || slot->tally.ended == 0)
		return;
	slot->busy = false;
	for (uint64_t i = 0; slot->tally.status == 0 && i < slot->count; i++)
		acknowledged[slot->sector + i] = slot->version;
}

static void settle(void)
{
	mirrors_settle();
	for (unsigned int i = 0; i < SLOTS; i++)
		take_note(&slots[i]);
}

static bool holds_one_of(const unsigned char *data, uint64_t sector, uint32_t oldest)
{
	for (uint32_t version = oldest; version <= written[sector]; version++) {
		if (pattern_differs(data, sector, 1, version) < 0)
			return true;
	}
	return false;
}

static void check_read(uint64_t sector, uint64_t count)
{
	static unsigned char data[MIRRORS_SECTORS * DMCORE_SECTOR_BYTES];
	uint32_t oldest[MIRRORS_SECTORS];
	int ret;

	/* What is acknowledged from now on may be missed. */
	memcpy(oldest, acknowledged, sizeof(oldest));
	ret = mirrors_run(DMCORE_OP_READ, 0, sector, count, data);
	settle();
	cr_assert(ret == 0 || ret == -EIO, "%d", ret);
	for (uint64_t i = 0; ret == 0 && i < count; i++)
		cr_assert(holds_one_of(data + i * DMCORE_SECTOR_BYTES, sector + i,
				       oldest[sector + i]),
			  "seed %llu, stream %llu: sector %llu isn't version %u to %u",
			  (unsigned long long)rng_seed(), (unsigned long long)stream,
			  (unsigned long long)(sector + i), oldest[sector + i],
			  written[sector + i]);
}

static bool are_same(uint64_t region)
{
	size_t bytes = (size_t)MIRRORS_REGION_SECTORS * DMCORE_SECTOR_BYTES;

	for (unsigned int i = 1; i < num_legs; i++) {
		if (memcmp(fault_data(mirrors.disks[0]) + region * bytes,
			   fault_data(mirrors.disks[i]) + region * bytes, bytes) != 0)
			return false;
	}
	return true;
}

static bool log_is_well(void)
{
	char text[256];

	cr_assert_gt(dmcore_device_text(mirrors.device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)),
		     0);
	return text[strcspn(text, "\n") - 1] == 'A';
}

static void check_log(void)
{
	if (!table.disk || !log_is_well())
		return;
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		cr_assert(!mirrors_is_clean(region) || are_same(region),
			  "seed %llu, stream %llu: region %llu",
			  (unsigned long long)rng_seed(), (unsigned long long)stream,
			  (unsigned long long)region);
}

static void check_all_ended(void)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		cr_assert(!slots[i].busy, "seed %llu, stream %llu: %u",
			  (unsigned long long)rng_seed(), (unsigned long long)stream, i);
}

/* ---- steps ---- */

static struct slot *free_slot(void)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		if (!slots[i].busy)
			return &slots[i];
	}
	return NULL;
}

/* Two writes at once to a sector would leave either. */
static bool is_written_to(uint64_t sector, uint64_t count)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		if (slots[i].busy && slots[i].sector < sector + count &&
		    sector < slots[i].sector + slots[i].count)
			return true;
	}
	return false;
}

static void submit(struct slot *slot, enum dmcore_op op, unsigned int flags)
{
	struct dmcore_bio *bio;

	slot->busy = true;
	slot->tally = (struct tally){ 0 };
	bio = stage_bio(&mirrors.stage, mirrors.bdev, op, slot->sector, slot->count,
			slot->count ? slot->buffer : NULL, &slot->tally);
	bio->flags = (uint16_t)flags;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static void step_write(void)
{
	static const unsigned int flags[] = { 0, 0, DMCORE_BIO_FUA, DMCORE_BIO_PREFLUSH };
	uint64_t count = rng_between(&rng, 1, rng_one_in(&rng, 3) ? COUNT_MAX : 8);
	uint64_t sector = rng_below(&rng, MIRRORS_SECTORS - count);
	struct slot *slot = free_slot();

	if (!slot || is_written_to(sector, count))
		return;
	slot->sector = sector;
	slot->count = count;
	slot->version = ++last_version;
	pattern_fill(slot->buffer, sector, count, slot->version);
	for (uint64_t i = 0; i < count; i++)
		written[sector + i] = slot->version;
	submit(slot, DMCORE_OP_WRITE, flags[rng_below(&rng, 4)]);
	/* Else several are under way at once. */
	if (!rng_one_in(&rng, 3))
		settle();
}

static void step_flush(void)
{
	struct slot *slot = free_slot();

	if (!slot)
		return;
	slot->sector = 0;
	slot->count = 0;
	submit(slot, DMCORE_OP_FLUSH, 0);
}

static void step_read(void)
{
	uint64_t count = rng_between(&rng, 1, COUNT_MAX);

	check_read(rng_below(&rng, MIRRORS_SECTORS - count), count);
}

static void step_break(void)
{
	static const unsigned int ops[] = { 0, FAULT_READ, FAULT_WRITE, FAULT_FLUSH };
	unsigned int leg = (unsigned int)rng_below(&rng, num_legs);

	if (num_rules[leg]++ >= RULES_MAX)
		return;
	fault_add_rule(mirrors.disks[leg], &(struct fault_rule){
			.action = rng_one_in(&rng, 3) ? FAULT_TEAR : FAULT_FAIL, .status = -EIO,
			.ops = ops[rng_below(&rng, 4)], .torn_sectors = rng_below(&rng, 8),
			.sector = rng_below(&rng, MIRRORS_SECTORS),
			.count = rng_one_in(&rng, 2) ? rng_between(&rng, 1, 30) : 0,
			.times = (unsigned int)rng_below(&rng, 4) });
}

static void step_mend(void)
{
	unsigned int leg = (unsigned int)rng_below(&rng, num_legs);

	fault_clear_rules(mirrors.disks[leg]);
	num_rules[leg] = 0;
}

static void step_log(void)
{
	fault_clear_rules(mirrors.log);
	if (rng_one_in(&rng, 2))
		mirrors_fail(mirrors.log, rng_one_in(&rng, 2) ? FAULT_WRITE : FAULT_FLUSH, 0,
			     (unsigned int)rng_below(&rng, 3));
}

static void step_suspend(void)
{
	unsigned int flags = rng_one_in(&rng, 2) ? DMCORE_SUSPEND_NOFLUSH : 0;
	bool another = rng_one_in(&rng, 2);

	/* What hasn't come in yet waits for the resume, too. */
	settle();
	/* Another table knows only what the log holds. */
	if (another)
		fault_clear_rules(mirrors.log);
	mirrors_suspend(flags);
	settle();
	if (!flags)
		check_all_ended();
	if (another)
		mirrors_load(&table);
	else
		mirrors_resume();
}

static void step(void)
{
	switch (rng_below(&rng, 20)) {
	case 0:
		step_break();
		break;
	case 1:
		step_mend();
		break;
	case 2:
		step_log();
		break;
	case 3:
		if (rng_one_in(&rng, 3))
			step_suspend();
		break;
	case 4:
	case 5:
		mirrors_pass_ns(rng_below(&rng, 2 * MIRRORS_PAUSE_NS));
		break;
	case 6:
		step_flush();
		break;
	case 7:
	case 8:
	case 9:
		step_read();
		break;
	default:
		step_write();
		break;
	}
}

/* ---- a run ---- */

static void begin(unsigned int way)
{
	static const char *const features[] = {
		NULL, "1 handle_errors", "2 handle_errors keep_log", "1 balance_reads",
		"5 handle_errors keep_log write_behind 1 32",
		"5 balance_reads handle_errors write_behind 1 8", "3 write_behind 1 64",
	};

	memset(slots, 0, sizeof(slots));
	memset(acknowledged, 0, sizeof(acknowledged));
	memset(written, 0, sizeof(written));
	memset(num_rules, 0, sizeof(num_rules));
	last_version = 0;
	num_legs = 2 + way / 14 % 2;
	table = (struct mirrors_table){ .legs = num_legs == 2 ? "01" : "012",
					.disk = way / 7 % 2, .features = features[way % 7] };
	mirrors_open();
	mirrors_map(&table);
}

static void finish(void)
{
	fault_clear_rules(mirrors.log);
	for (unsigned int i = 0; i < num_legs; i++)
		fault_clear_rules(mirrors.disks[i]);
	mirrors_await_in_sync();
	settle();
	check_log();
	/* What a failed log holds up ends with a suspension. */
	mirrors_suspend(0);
	settle();
	check_all_ended();
	mirrors_resume();
	mirrors_await_in_sync();
	check_read(0, MIRRORS_SECTORS);
	for (unsigned int i = 1; i < num_legs; i++)
		mirrors_expect_same(0, i);
	mirrors_close();
}

Test(mirror_random, requests_and_failures_lose_nothing_that_was_acknowledged)
{
	unsigned int runs = rng_full() ? 2400 : 120;

	for (stream = 1; stream <= runs; stream++) {
		rng_start(&rng, stream);
		begin((unsigned int)stream);
		for (unsigned int i = 0; i < STEPS; i++) {
			step();
			if (rng_one_in(&rng, 4)) {
				settle();
				check_log();
			}
		}
		settle();
		finish();
	}
}
