/* SPDX-License-Identifier: MIT */
/* The flakey target: bytes that it changes, in reads and in writes. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/rng.h"
#include "support/stage.h"

#define SECTORS 256
#define BYTES (SECTORS * DMCORE_SECTOR_BYTES)
#define DISK "fault:256,id=1"
#define VECS_MAX 2048

static struct stage stage;
static struct fault_disk *disk;
static _Atomic uint64_t now_ns;
static unsigned char buffer[BYTES];
static unsigned char copy[BYTES];
static struct dmio_bvec vecs[VECS_MAX];

static uint64_t test_clock(void *context)
{
	(void)context;
	return atomic_load(&now_ns);
}

static void open_seeded(uint64_t seed)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.clock_ns = test_clock;
	options.seed = seed;
	stage_open(&stage, &options, NULL);
	disk = stage_disk(&stage, 1, SECTORS, "");
}

static void open_stage(void)
{
	open_seeded(5);
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(flakey_corrupt, .init = open_stage, .fini = close_stage);

/* Down for good, with these features. */
static struct dmcore_bdev *map_down(const char *name, const char *words)
{
	char text[256];

	snprintf(text, sizeof(text), "0 256 flakey " DISK " 0 0 1 %s", words);
	return stage_map(&stage, name, text);
}

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return stage_run(&stage, bdev, op, 0, sector, count, buffer);
}

/* A write or read of `count` sectors at 0, in entries of `step` bytes of the buffer; the last one
 * is longer than need be. */
static struct dmcore_bio *make_vector_bio(struct dmcore_bdev *bdev, enum dmcore_op op,
					  uint64_t count, size_t step, uint32_t vec_offset_bytes,
					  struct tally *tally)
{
	struct dmcore_bio *bio = stage_bio(&stage, bdev, op, 0, count, buffer, tally);
	uint32_t num_vecs = 0;
	size_t at = 0;

	while (at < count * DMCORE_SECTOR_BYTES + vec_offset_bytes) {
		cr_assert_lt(num_vecs, VECS_MAX);
		vecs[num_vecs].base = buffer + at;
		vecs[num_vecs++].len_bytes = step;
		at += step;
	}
	bio->vecs = vecs;
	bio->num_vecs = num_vecs;
	bio->vec_offset_bytes = vec_offset_bytes;
	return bio;
}

static int run_vector(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t count, size_t step,
		      uint32_t vec_offset_bytes)
{
	struct tally tally = { 0 };

	cr_assert_eq(dmcore_bio_submit(make_vector_bio(bdev, op, count, step, vec_offset_bytes,
						       &tally)), 0);
	stage_wait(&stage, &tally, 1);
	return tally.status;
}

/* The first byte that differs, or -1; and that no other does. */
static int64_t only_difference(const unsigned char *a, const unsigned char *b, size_t bytes)
{
	int64_t found = -1;

	for (size_t i = 0; i < bytes; i++) {
		if (a[i] == b[i])
			continue;
		cr_assert_eq(found, -1, "bytes %lld and %zu differ", (long long)found, i);
		found = (int64_t)i;
	}
	return found;
}

static void fill(unsigned char *bytes, size_t length, uint64_t stream)
{
	struct rng rng;

	rng_start(&rng, stream);
	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)(rng_next(&rng) >> 32);
}

/* ---- one byte ---- */

Test(flakey_corrupt, read_has_another_byte_and_the_device_has_not)
{
	struct dmcore_bdev *bdev = map_down("f", "5 corrupt_bio_byte 513 r 5 0");

	memset(fault_data(disk), 0x11, BYTES);
	memset(copy, 0x11, BYTES);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 3, 8), 0);
	cr_assert_eq(only_difference(buffer, copy, 8 * DMCORE_SECTOR_BYTES), 512);
	cr_assert_eq(buffer[512], 5);
	cr_assert_eq(only_difference(fault_data(disk), copy, BYTES), -1);
}

Test(flakey_corrupt, write_has_another_byte_and_the_callers_memory_has_not)
{
	struct dmcore_bdev *bdev = map_down("f", "5 corrupt_bio_byte 513 w 5 0");

	memset(buffer, 0x22, BYTES);
	memset(copy, 0x22, BYTES);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(only_difference(buffer, copy, BYTES), -1);
	cr_assert_eq(only_difference(fault_data(disk), buffer, 8 * DMCORE_SECTOR_BYTES), 512);
	cr_assert_eq(fault_data(disk)[512], 5);
}

Test(flakey_corrupt, bio_is_the_submitters_again_with_its_own_vector)
{
	struct dmcore_bdev *bdev = map_down("f", "5 corrupt_bio_byte 1 w 5 0");
	struct dmcore_bio bio;

	memset(buffer, 0x22, BYTES);
	dmcore_bio_init(&bio, stage.queue);
	bio.bdev = bdev;
	bio.op = DMCORE_OP_WRITE;
	dmcore_bio_set_buffer(&bio, buffer, DMCORE_SECTOR_BYTES);
	cr_assert_eq(dmcore_bio_submit(&bio), 0);
	stage_settle(&stage);
	cr_assert_eq(bio.status, 0);
	cr_assert_eq(bio.vecs, &bio.vec);
	cr_assert_eq(bio.num_vecs, 1);
	cr_assert_eq(bio.vec_offset_bytes, 0);
}

Test(flakey_corrupt, byte_behind_the_end_of_a_request_is_none)
{
	struct dmcore_bdev *reads = map_down("r", "5 corrupt_bio_byte 513 r 5 0");
	struct dmcore_bdev *writes = map_down("w", "5 corrupt_bio_byte 4294967295 w 5 0");

	memset(buffer, 0x33, BYTES);
	memset(copy, 0x33, BYTES);
	cr_assert_eq(run(writes, DMCORE_OP_WRITE, 0, 256), 0);
	cr_assert_eq(only_difference(fault_data(disk), copy, BYTES), -1);
	cr_assert_eq(run(reads, DMCORE_OP_READ, 0, 1), 0);
	cr_assert_eq(only_difference(buffer, copy, BYTES), -1);
	cr_assert_eq(run(reads, DMCORE_OP_READ, 0, 2), 0);
	cr_assert_eq(buffer[512], 5);
}

Test(flakey_corrupt, other_direction_is_left_alone)
{
	struct dmcore_bdev *reads = map_down("r", "5 corrupt_bio_byte 1 r 5 0");
	struct dmcore_bdev *writes = map_down("w", "5 corrupt_bio_byte 1 w 5 0");

	memset(buffer, 0x44, BYTES);
	memset(copy, 0x44, BYTES);
	cr_assert_eq(run(reads, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(only_difference(fault_data(disk), copy, 8 * DMCORE_SECTOR_BYTES), -1);
	cr_assert_eq(run(writes, DMCORE_OP_READ, 0, 8), 0);
	cr_assert_eq(only_difference(buffer, copy, BYTES), -1);
}

Test(flakey_corrupt, nothing_is_changed_while_up)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 256 flakey " DISK " 0 1 1 9 "
					     "corrupt_bio_byte 1 w 5 0 random_read_corrupt "
					     "1000000000 random_write_corrupt 1000000000");

	fill(buffer, BYTES, 1);
	memcpy(copy, buffer, BYTES);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 256), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 256), 0);
	cr_assert_eq(only_difference(buffer, copy, BYTES), -1);
	atomic_fetch_add(&now_ns, 1000000000);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 256), 0);
	cr_assert_eq(fault_data(disk)[0], 5);
}

Test(flakey_corrupt, failed_read_leaves_memory_alone)
{
	struct dmcore_bdev *bdev = map_down("f", "5 corrupt_bio_byte 1 r 5 0");

	memset(buffer, 0x55, BYTES);
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_FAIL, .status = -ENOSPC });
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -ENOSPC);
	cr_assert_eq(buffer[0], 0x55);
}

/* D-080 in docs/conformance.md */
Test(flakey_corrupt, mask_chooses_by_the_kernels_bits)
{
	static const struct {
		unsigned int mask;
		unsigned int flags;
		bool changes;
	} cases[] = {
		{ 0, 0, true },
		{ 0, DMCORE_BIO_FUA, true },
		{ 1, 0, true },
		{ 1, DMCORE_BIO_FUA, true },
		{ 1u << 17, 0, false },
		{ 1u << 17, DMCORE_BIO_FUA, true },
		{ 1u << 17 | 1, DMCORE_BIO_FUA, true },
		{ 1u << 18, DMCORE_BIO_PREFLUSH, false },
		{ 1u << 21, DMCORE_BIO_NOWAIT, true },
		{ 1u << 21 | 1u << 17, DMCORE_BIO_NOWAIT, false },
		{ 2, 0, false },
		{ 2048, 0, false },
		{ 4294967295, DMCORE_BIO_FUA, false },
	};

	memset(buffer, 0x66, BYTES);
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(cases); i++) {
		struct dmcore_bdev *bdev;
		char words[64];
		char name[16];

		snprintf(name, sizeof(name), "f%zu", i);
		snprintf(words, sizeof(words), "5 corrupt_bio_byte 2 w 5 %u", cases[i].mask);
		bdev = map_down(name, words);
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, cases[i].flags, 0, 1,
				       buffer), 0);
		cr_assert_eq(fault_data(disk)[1], cases[i].changes ? 5 : 0x66, "case %zu", i);
	}
}

Test(flakey_corrupt, mask_of_a_read_may_want_read_ahead)
{
	struct dmcore_bdev *bdev = map_down("f", "5 corrupt_bio_byte 2 r 5 524288");
	struct dmcore_bdev *none = map_down("n", "5 corrupt_bio_byte 2 r 5 1");

	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 1, buffer), 0);
	cr_assert_eq(buffer[1], 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, DMCORE_BIO_RAHEAD, 0, 1, buffer), 0);
	cr_assert_eq(buffer[1], 5);
	cr_assert_eq(stage_run(&stage, none, DMCORE_OP_READ, DMCORE_BIO_RAHEAD, 0, 1, buffer), 0);
	cr_assert_eq(buffer[1], 0);
}

/* ---- vectors ---- */

/* Every byte of a request, whatever lies where in its vector. */
Test(flakey_corrupt, finds_its_byte_in_any_vector)
{
	static const size_t steps[] = { 1, 3, 100, 511, 512, 513, 1024, 4096 };
	static const unsigned int bytes[] = { 1, 2, 3, 100, 101, 512, 513, 1023, 1024 };

	for (size_t b = 0; b < DMCORE__ARRAY_SIZE(bytes); b++) {
		struct dmcore_bdev *write;
		struct dmcore_bdev *read;
		char words[64];

		snprintf(words, sizeof(words), "5 corrupt_bio_byte %u w 0 0", bytes[b]);
		write = map_down("w", words);
		snprintf(words, sizeof(words), "5 corrupt_bio_byte %u r 0 0", bytes[b]);
		read = map_down("r", words);
		for (size_t s = 1; s < DMCORE__ARRAY_SIZE(steps); s++) {
			uint32_t offset = (uint32_t)(steps[s] > 2 ? steps[s] / 3 : 0);

			memset(buffer, 0xff, BYTES);
			memset(copy, 0xff, BYTES);
			cr_assert_eq(run_vector(write, DMCORE_OP_WRITE, 2, steps[s], offset), 0);
			cr_assert_eq(only_difference(fault_data(disk), copy, 1024),
				     (int64_t)bytes[b] - 1, "entries of %zu", steps[s]);
			cr_assert_eq(only_difference(buffer, copy, BYTES), -1);
			memset(fault_data(disk), 0xff, BYTES);
			cr_assert_eq(run_vector(read, DMCORE_OP_READ, 2, steps[s], offset), 0);
			cr_assert_eq(only_difference(buffer, copy, BYTES),
				     (int64_t)bytes[b] - 1 + offset, "entries of %zu", steps[s]);
		}
		while (stage.num_devices > 0)
			cr_assert_eq(dmcore_device_remove(stage.devices[--stage.num_devices]), 0);
	}
}

/* D-083 in docs/conformance.md */
Test(flakey_corrupt, write_of_very_many_entries_passes_as_it_is)
{
	struct dmcore_bdev *bdev = map_down("f", "5 corrupt_bio_byte 1 w 0 0");

	memset(buffer, 0xff, BYTES);
	cr_assert_eq(run_vector(bdev, DMCORE_OP_WRITE, 2, 1, 0), 0);
	cr_assert_eq(fault_data(disk)[0], 0xff);
	cr_assert_eq(run_vector(bdev, DMCORE_OP_WRITE, 3, 3, 0), 0);
	cr_assert_eq(fault_data(disk)[0], 0);
}

/* D-083 in docs/conformance.md: 32 at once, and as many again when they have ended. */
Test(flakey_corrupt, long_vectors_are_changed_as_long_as_there_is_memory_for_them)
{
	struct dmcore_bdev *bdev = map_down("f", "5 corrupt_bio_byte 1 w 0 0");

	memset(buffer, 0xff, BYTES);
	for (unsigned int round = 0; round < 3; round++) {
		struct tally tally = { 0 };

		fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
		for (unsigned int i = 0; i < 40; i++)
			cr_assert_eq(dmcore_bio_submit(make_vector_bio(
					     bdev, DMCORE_OP_WRITE, 1, 64, 0, &tally)), 0);
		cr_assert_eq(fault_num_held(disk), 40);
		for (unsigned int i = 0; i < 40; i++) {
			fault_release(disk, 0, 0);
			cr_assert_eq(fault_data(disk)[0], i < 32 ? 0 : 0xff, "write %u", i);
		}
		stage_wait(&stage, &tally, 40);
		cr_assert_eq(tally.failed, 0);
		fault_clear_rules(disk);
	}
}

/* ---- at random ---- */

Test(flakey_corrupt, certain_corruption_changes_one_byte_or_none)
{
	struct dmcore_bdev *bdev =
		map_down("f", "4 random_read_corrupt 1000000000 random_write_corrupt 1000000000");
	unsigned int changed = 0;

	fill(buffer, BYTES, 1);
	memcpy(copy, buffer, BYTES);
	for (unsigned int i = 0; i < 64; i++) {
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
		cr_assert_eq(only_difference(buffer, copy, BYTES), -1);
		if (only_difference(fault_data(disk), buffer, 4096) >= 0)
			changed++;
		memcpy(fault_data(disk), copy, BYTES);
		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
		if (only_difference(buffer, copy, 4096) >= 0)
			changed++;
		memcpy(buffer, copy, BYTES);
	}
	/* The same byte may come again, but not always. */
	cr_assert_gt(changed, 64);
}

Test(flakey_corrupt, chosen_and_random_byte_may_both_change)
{
	struct dmcore_bdev *bdev = map_down("f", "7 corrupt_bio_byte 1 r 5 0 "
						 "random_read_corrupt 1000000000");
	unsigned int both = 0;

	for (unsigned int i = 0; i < 64; i++) {
		unsigned int others = 0;

		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
		for (unsigned int k = 1; k < 4096; k++)
			others += buffer[k] != 0;
		cr_assert_leq(others, 1);
		if (buffer[0] == 5 && others)
			both++;
	}
	cr_assert_gt(both, 32);
}

/* Writes and reads at random, at a device that changes one in four; what is on it then. */
static void run_seeded(uint64_t seed, unsigned char *result)
{
	struct dmcore_bdev *bdev;

	stage_close(&stage);
	open_seeded(seed);
	bdev = map_down("f", "4 random_read_corrupt 250000000 random_write_corrupt 250000000");
	memset(buffer, 0, BYTES);
	for (unsigned int i = 0; i < 64; i++) {
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, (uint64_t)i * 4, 4), 0);
		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 256), 0);
	}
	memcpy(result, fault_data(disk), BYTES);
}

Test(flakey_corrupt, same_seed_changes_the_same_bytes_and_another_one_others)
{
	static unsigned char other[BYTES];

	run_seeded(1, copy);
	run_seeded(1, other);
	cr_assert_eq(memcmp(copy, other, BYTES), 0);
	run_seeded(2, other);
	cr_assert_neq(memcmp(copy, other, BYTES), 0);
}

Test(flakey_corrupt, two_targets_change_different_bytes)
{
	struct dmcore_bdev *a = map_down("a", "2 random_read_corrupt 1000000000");
	struct dmcore_bdev *b = map_down("b", "2 random_read_corrupt 1000000000");
	unsigned int same = 0;

	for (unsigned int i = 0; i < 16; i++) {
		cr_assert_eq(run(a, DMCORE_OP_READ, 0, 256), 0);
		memcpy(copy, buffer, BYTES);
		cr_assert_eq(run(b, DMCORE_OP_READ, 0, 256), 0);
		same += memcmp(copy, buffer, BYTES) == 0;
	}
	cr_assert_lt(same, 4);
}

Test(flakey_corrupt, probability_of_zero_and_of_next_to_nothing_change_nothing)
{
	struct dmcore_bdev *bdev = map_down("f", "3 random_write_corrupt 0 error_reads");

	fill(buffer, BYTES, 1);
	for (unsigned int i = 0; i < 32; i++) {
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
		cr_assert_eq(only_difference(fault_data(disk), buffer, 4096), -1);
	}
}

/* ---- many threads ---- */

#define THREADS 4
#define WRITES 300

struct writer {
	struct dmcore_bdev *bdev;
	unsigned int index;
	_Atomic bool ok;
	unsigned char data[16 * DMCORE_SECTOR_BYTES];
	struct dmio_bvec vecs[16];
};

static struct writer writers[THREADS];

/* Each to sectors of its own, in sixteen entries: more than lie with a bio. */
static bool write_much(struct writer *writer, struct dmcore_queue *queue)
{
	struct tally tally = { 0 };

	for (unsigned int i = 0; i < WRITES; i++) {
		struct dmcore_bio *bio = dmcore_bio_get(queue);

		if (!bio)
			return false;
		bio->bdev = writer->bdev;
		bio->op = DMCORE_OP_WRITE;
		bio->sector = writer->index * 16;
		bio->count = 16;
		bio->vecs = writer->vecs;
		bio->num_vecs = 16;
		bio->done = tally_done;
		bio->context = &tally;
		if (dmcore_bio_submit(bio) != 0)
			return false;
		while (tally.ended <= i) {
			if (dmcore_queue_poll(queue, 1, 64, STAGE_PATIENCE_NS) < 0)
				return false;
		}
	}
	for (unsigned int i = 0; i < sizeof(writer->data); i++) {
		if (writer->data[i] != 0xee)
			return false;
	}
	return tally.failed == 0;
}

static void *writer_main(void *context)
{
	struct writer *writer = context;
	struct dmcore_queue *queue;
	bool ok;

	if (dmcore_queue_create(stage.core, NULL, &queue) != 0)
		return NULL;
	ok = write_much(writer, queue);
	atomic_store(&writer->ok, dmcore_queue_destroy(queue) == 0 && ok);
	return NULL;
}

Test(flakey_corrupt, threads_change_their_own_writes_at_once)
{
	struct dmcore_bdev *bdev = map_down("f", "7 corrupt_bio_byte 2 w 5 0 "
						 "random_write_corrupt 500000000");
	pthread_t threads[THREADS];

	for (unsigned int i = 0; i < THREADS; i++) {
		writers[i].bdev = bdev;
		writers[i].index = i;
		memset(writers[i].data, 0xee, sizeof(writers[i].data));
		for (unsigned int k = 0; k < 16; k++)
			writers[i].vecs[k] = (struct dmio_bvec){
				writers[i].data + k * (size_t)DMCORE_SECTOR_BYTES,
				DMCORE_SECTOR_BYTES
			};
		cr_assert_eq(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		const unsigned char *data = fault_data(disk) + i * sizeof(writers[0].data);
		unsigned int others = 0;

		pthread_join(threads[i], NULL);
		cr_assert(atomic_load(&writers[i].ok), "thread %u", i);
		for (unsigned int k = 0; k < sizeof(writers[0].data); k++)
			others += k != 1 && data[k] != 0xee;
		cr_assert_leq(others, 1);
	}
}
