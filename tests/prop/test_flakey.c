/* SPDX-License-Identifier: MIT */
/*
 * Random flakey tables and random requests at random times, against a model that knows when the
 * target is down, what then becomes of a request, and which byte of it may be another.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/rng.h"
#include "support/stage.h"

#define SECTORS 64
#define BYTES (SECTORS * DMCORE_SECTOR_BYTES)
#define OFFSET 8
#define TABLES 40
#define REQUESTS 120
#define NS_PER_S UINT64_C(1000000000)
#define VECS_MAX 8

struct model {
	bool error_reads;
	bool error_writes;
	bool drop_writes;
	bool corrupts_writes;
	uint32_t corrupt_byte;
	uint8_t corrupt_value;
	uint32_t random_read;
	uint32_t random_write;
	uint32_t up_s;
	uint32_t down_s;
	uint64_t begun_ns;
};

static struct stage stage;
static struct fault_disk *disk;
static struct rng rng;
static uint64_t now_ns;
static struct model model;
static unsigned char shadow[BYTES + OFFSET * DMCORE_SECTOR_BYTES];
static unsigned char expected[BYTES];
static unsigned char memory[BYTES + 64];
static unsigned char before[BYTES + 64];
static struct dmio_bvec vecs[VECS_MAX];

static uint64_t test_clock(void *context)
{
	(void)context;
	return now_ns;
}

static void open_stage(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.clock_ns = test_clock;
	options.seed = rng_seed();
	stage_open(&stage, &options, NULL);
	disk = stage_disk(&stage, 1, SECTORS + OFFSET, "");
	rng_start(&rng, 1);
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(flakey_model, .init = open_stage, .fini = close_stage);

static uint32_t random_probability(void)
{
	return rng_one_in(&rng, 3) ? (uint32_t)rng_between(&rng, 1, 1000000000) : 0;
}

static void choose_model(void)
{
	model = (struct model){ 0 };
	model.up_s = (uint32_t)rng_below(&rng, 4);
	model.down_s = (uint32_t)rng_between(&rng, model.up_s == 0, 3);
	model.error_reads = rng_one_in(&rng, 4);
	model.error_writes = rng_one_in(&rng, 5);
	model.drop_writes = !model.error_writes && rng_one_in(&rng, 4);
	if (rng_one_in(&rng, 2)) {
		model.corrupt_byte = (uint32_t)rng_between(&rng, 1, 3000);
		model.corrupt_value = (uint8_t)rng_next(&rng);
		model.corrupts_writes = !model.error_writes && !model.drop_writes &&
					rng_one_in(&rng, 2);
	}
	model.random_read = random_probability();
	model.random_write = random_probability();
}

static struct dmcore_bdev *map_model(void)
{
	char words[256] = "";
	char text[512];
	unsigned int count = 0;
	size_t at = 0;

	if (model.random_write)
		at += (size_t)snprintf(words + at, sizeof(words) - at, " random_write_corrupt %u",
				       model.random_write);
	if (model.error_writes)
		at += (size_t)snprintf(words + at, sizeof(words) - at, " error_writes");
	if (model.corrupt_byte)
		at += (size_t)snprintf(words + at, sizeof(words) - at,
				       " corrupt_bio_byte %u %c %u 0", model.corrupt_byte,
				       model.corrupts_writes ? 'w' : 'r', model.corrupt_value);
	if (model.drop_writes)
		at += (size_t)snprintf(words + at, sizeof(words) - at, " drop_writes");
	if (model.random_read)
		at += (size_t)snprintf(words + at, sizeof(words) - at, " random_read_corrupt %u",
				       model.random_read);
	if (model.error_reads)
		snprintf(words + at, sizeof(words) - at, " error_reads");
	for (const char *c = words; *c; c++)
		count += *c == ' ';
	snprintf(text, sizeof(text), "0 %d flakey fault:%d,id=1 %d %u %u %u%s", SECTORS,
		 SECTORS + OFFSET, OFFSET, model.up_s, model.down_s, count, words);
	if (count == 0) {
		model.error_reads = true;
		model.error_writes = true;
	}
	model.begun_ns = now_ns;
	return stage_map(&stage, "f", text);
}

static bool is_down(void)
{
	uint64_t second = (now_ns - model.begun_ns) / NS_PER_S;

	return second % (model.up_s + model.down_s) >= model.up_s;
}

/* Cuts the memory into entries, the first of which begins with bytes that don't count. */
static void cut(struct dmcore_bio *bio)
{
	size_t left = bio->count * DMCORE_SECTOR_BYTES;
	uint32_t offset = (uint32_t)rng_below(&rng, 3) * 16;
	unsigned char *at = memory;

	bio->vec_offset_bytes = offset;
	left += offset;
	bio->num_vecs = 0;
	while (left > 0) {
		bool last = bio->num_vecs == VECS_MAX - 1 || left <= 64;
		size_t length = last ? left : rng_between(&rng, 49, left);

		vecs[bio->num_vecs].base = at;
		vecs[bio->num_vecs++].len_bytes = length;
		at += length;
		left -= length;
	}
	bio->vecs = vecs;
}

/* How `bytes` differ from what is expected, where one may by chance. */
static void check_bytes(const unsigned char *bytes, size_t length, bool may_differ)
{
	unsigned int others = 0;

	for (size_t i = 0; i < length; i++)
		others += bytes[i] != expected[i];
	cr_assert_leq(others, may_differ, "seed %llu", (unsigned long long)rng_seed());
}

static void expect_bytes(const unsigned char *bytes, size_t length, bool changed)
{
	memcpy(expected, bytes, length);
	if (changed && model.corrupt_byte && model.corrupt_byte <= length)
		expected[model.corrupt_byte - 1] = model.corrupt_value;
}

static int run(struct dmcore_bio *bio, struct tally *tally)
{
	fault_clear_log(disk);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, tally, 1);
	return tally->status;
}

static void check_read(struct dmcore_bio *bio, struct tally *tally)
{
	bool down = is_down();
	size_t length = bio->count * DMCORE_SECTOR_BYTES;
	const unsigned char *from = shadow + (bio->sector + OFFSET) * DMCORE_SECTOR_BYTES;
	const unsigned char *data;

	cut(bio);
	data = memory + bio->vec_offset_bytes;
	if (down && model.error_reads) {
		cr_assert_eq(run(bio, tally), -EIO);
		return;
	}
	expect_bytes(from, length, down && !model.corrupts_writes);
	cr_assert_eq(run(bio, tally), 0);
	check_bytes(data, length, down && model.random_read);
}

static void check_write(struct dmcore_bio *bio, struct tally *tally)
{
	bool down = is_down();
	bool drops = down && model.drop_writes;
	size_t length = bio->count * DMCORE_SECTOR_BYTES;
	size_t at = (bio->sector + OFFSET) * DMCORE_SECTOR_BYTES;
	int status = down && model.error_writes ? -EIO : 0;

	cut(bio);
	for (size_t i = 0; i < sizeof(memory); i++)
		memory[i] = (unsigned char)(rng_next(&rng) >> 32);
	memcpy(before, memory, sizeof(memory));
	expect_bytes(memory + bio->vec_offset_bytes, length, down && model.corrupts_writes);
	cr_assert_eq(run(bio, tally), status);
	cr_assert_eq(memcmp(memory, before, sizeof(memory)), 0, "the caller's memory");
	cr_assert_eq(fault_count(disk, 0), status == 0 && !drops);
	if (status == 0 && !drops) {
		check_bytes(fault_data(disk) + at, length, down && model.random_write);
		memcpy(shadow + at, fault_data(disk) + at, length);
	}
	cr_assert_eq(memcmp(shadow, fault_data(disk), sizeof(shadow)), 0);
}

static void check_other(struct dmcore_bio *bio, struct tally *tally)
{
	bool down = is_down();
	int status = down && model.error_writes ? -EIO : 0;

	cr_assert_eq(run(bio, tally), status);
	cr_assert_eq(fault_count(disk, 0), status == 0 && !(down && model.drop_writes));
	memcpy(shadow, fault_data(disk), sizeof(shadow));
}

static void check_request(struct dmcore_bdev *bdev)
{
	static const enum dmcore_op ops[] = { DMCORE_OP_READ, DMCORE_OP_WRITE, DMCORE_OP_WRITE,
					      DMCORE_OP_READ, DMCORE_OP_FLUSH, DMCORE_OP_DISCARD };
	enum dmcore_op op = ops[rng_below(&rng, sizeof(ops) / sizeof(ops[0]))];
	uint64_t sector = rng_below(&rng, SECTORS);
	uint64_t count = rng_between(&rng, 1, SECTORS - sector);
	struct tally tally = { 0 };
	struct dmcore_bio *bio = stage_bio(&stage, bdev, op, sector, count, NULL, &tally);

	now_ns += rng_below(&rng, NS_PER_S);
	if (op == DMCORE_OP_READ)
		check_read(bio, &tally);
	else if (op == DMCORE_OP_WRITE)
		check_write(bio, &tally);
	else
		check_other(bio, &tally);
}

Test(flakey_model, random_tables_do_as_the_model_does)
{
	for (unsigned int i = 0; i < TABLES; i++) {
		struct dmcore_bdev *bdev;

		choose_model();
		bdev = map_model();
		for (unsigned int k = 0; k < REQUESTS; k++)
			check_request(bdev);
		cr_assert_eq(dmcore_device_remove(stage.devices[--stage.num_devices]), 0);
	}
}
