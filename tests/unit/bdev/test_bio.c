/* SPDX-License-Identifier: MIT */
/* A request's life: what is refused, what ends with a status, how it is used again. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define SECTORS 1024

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_bdev *bdev;
static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];
static struct tally tally;

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	disk = stage_disk(&stage, 0, SECTORS, "");
	bdev = stage.bdevs[0];
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(bio, .init = set_up, .fini = tear_down);

static struct dmcore_bio *read_of(uint64_t sector, uint64_t count)
{
	return stage_bio(&stage, bdev, DMCORE_OP_READ, sector, count, buffer, &tally);
}

/* ---- refusals ------------------------------------------------------------------------------- */

/* What a caller can get wrong. */
enum mistake {
	NO_QUEUE,
	NO_DEVICE,
	UNKNOWN_OP,
	UNKNOWN_FLAG,
	NO_SECTORS,
	TOO_MANY_SECTORS,
	RANGE_WRAPS,
	NO_VECTOR,
	EMPTY_VECTOR,
	OFFSET_BEHIND_VECTOR,
	EMPTY_ENTRY,
	READ_FUA,
	READ_PREFLUSH,
	WRITE_RAHEAD,
	FLUSH_FUA,
	FLUSH_PREFLUSH,
	DISCARD_FUA,
	DISCARD_PREFLUSH,
	DISCARD_NO_SECTORS,
	WRITE_ZEROES_RANGE_WRAPS,
	MISTAKES,
};

static void set(struct dmcore_bio *bio, enum dmcore_op op, unsigned int flags)
{
	bio->op = (uint8_t)op;
	bio->flags = (uint16_t)flags;
}

static void make_range_mistake(struct dmcore_bio *bio, enum mistake mistake)
{
	switch (mistake) {
	case NO_SECTORS:
		bio->count = 0;
		break;
	case TOO_MANY_SECTORS:
		bio->count = DMCORE_DEVICE_SECTORS_MAX + 1;
		break;
	case RANGE_WRAPS:
		bio->sector = UINT64_MAX - 3;
		break;
	case DISCARD_NO_SECTORS:
		set(bio, DMCORE_OP_DISCARD, 0);
		bio->count = 0;
		break;
	default:
		set(bio, DMCORE_OP_WRITE_ZEROES, 0);
		bio->sector = UINT64_MAX - 3;
		break;
	}
}

static void make_flag_mistake(struct dmcore_bio *bio, enum mistake mistake)
{
	static const struct {
		enum dmcore_op op;
		unsigned int flags;
	} wrong[MISTAKES] = {
		[READ_FUA] = { DMCORE_OP_READ, DMCORE_BIO_FUA },
		[READ_PREFLUSH] = { DMCORE_OP_READ, DMCORE_BIO_PREFLUSH },
		[WRITE_RAHEAD] = { DMCORE_OP_WRITE, DMCORE_BIO_RAHEAD },
		[FLUSH_FUA] = { DMCORE_OP_FLUSH, DMCORE_BIO_FUA },
		[FLUSH_PREFLUSH] = { DMCORE_OP_FLUSH, DMCORE_BIO_PREFLUSH },
		[DISCARD_FUA] = { DMCORE_OP_DISCARD, DMCORE_BIO_FUA },
		[DISCARD_PREFLUSH] = { DMCORE_OP_DISCARD, DMCORE_BIO_PREFLUSH },
	};

	set(bio, wrong[mistake].op, wrong[mistake].flags);
}

static void make_mistake(struct dmcore_bio *bio, enum mistake mistake)
{
	switch (mistake) {
	case NO_QUEUE:
		bio->queue = NULL;
		break;
	case NO_DEVICE:
		bio->bdev = NULL;
		break;
	case UNKNOWN_OP:
		bio->op = DMCORE_OP_COUNT;
		break;
	case UNKNOWN_FLAG:
		bio->flags = DMCORE_BIO_FLAGS_ALL + 1;
		break;
	case NO_SECTORS:
	case TOO_MANY_SECTORS:
	case RANGE_WRAPS:
	case DISCARD_NO_SECTORS:
	case WRITE_ZEROES_RANGE_WRAPS:
		make_range_mistake(bio, mistake);
		break;
	case NO_VECTOR:
		bio->vecs = NULL;
		break;
	case EMPTY_VECTOR:
		bio->num_vecs = 0;
		break;
	case EMPTY_ENTRY:
		bio->vec.len_bytes = 0;
		break;
	case OFFSET_BEHIND_VECTOR:
		bio->vec_offset_bytes = 8 * DMCORE_SECTOR_BYTES;
		break;
	default:
		make_flag_mistake(bio, mistake);
		break;
	}
}

Test(bio, refused_requests_change_nothing_and_never_end)
{
	for (enum mistake mistake = 0; mistake < MISTAKES; mistake++) {
		struct dmcore_bio *bio = read_of(0, 8);
		struct dmcore_queue *queue = bio->queue;

		make_mistake(bio, mistake);
		cr_assert_eq(dmcore_bio_submit(bio), -EINVAL, "mistake %d", (int)mistake);
		stage_settle(&stage);
		cr_assert_eq(tally.ended, 0, "mistake %d", (int)mistake);
		cr_assert_eq(fault_count(disk, 0), 0, "mistake %d", (int)mistake);
		bio->queue = queue;
		dmcore_bio_put(bio);
	}
	cr_assert_eq(dmcore_bio_submit(NULL), -EINVAL);
}

Test(bio, a_corrected_request_is_accepted)
{
	struct dmcore_bio *bio = read_of(0, 8);

	bio->bdev = NULL;
	cr_assert_eq(dmcore_bio_submit(bio), -EINVAL);
	bio->bdev = bdev;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

Test(bio, one_in_flight_is_not_submitted_again)
{
	struct dmcore_bio *bio = read_of(0, 8);

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_bio_submit(bio), -EBUSY);
	stage_settle(&stage);
	cr_assert_eq(dmcore_bio_submit(bio), -EBUSY);
	fault_release_all(disk);
	/* Completed, but its submitter doesn't know yet. */
	cr_assert_eq(dmcore_bio_submit(bio), -EBUSY);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(fault_count(disk, 0), 1);
}

/* ---- statuses ------------------------------------------------------------------------------- */

Test(bio, what_the_device_refuses_is_a_status)
{
	struct dmcore_bdev *blocks = stage_bdev(&stage, stage_disk_spec(1, SECTORS, ",block=4096"),
						0);
	struct dmcore_bdev *plain = stage_bdev(&stage, stage_disk_spec(2, SECTORS, ",caps=0"), 0);
	struct dmcore_bdev *read_only = stage_bdev(&stage, stage_disk_spec(3, SECTORS, ""),
						   DMCORE_OPEN_READ_ONLY);

	/* Behind the end, or across it. */
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, SECTORS, 1, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, SECTORS - 1, 2, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_DISCARD, 0, 0, SECTORS + 1, NULL), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, UINT64_MAX - 8, 4, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, SECTORS - 1, 1, buffer), 0);
	/* Parts of a block. */
	cr_assert_eq(stage_run(&stage, blocks, DMCORE_OP_READ, 0, 1, 8, buffer), -EINVAL);
	cr_assert_eq(stage_run(&stage, blocks, DMCORE_OP_READ, 0, 0, 7, buffer), -EINVAL);
	cr_assert_eq(stage_run(&stage, blocks, DMCORE_OP_WRITE_ZEROES, 0, 8, 4, NULL), -EINVAL);
	cr_assert_eq(stage_run(&stage, blocks, DMCORE_OP_READ, 0, 8, 8, buffer), 0);
	/* Writes of any kind to a read-only device. */
	cr_assert_eq(stage_run(&stage, read_only, DMCORE_OP_WRITE, 0, 0, 1, buffer), -EROFS);
	cr_assert_eq(stage_run(&stage, read_only, DMCORE_OP_DISCARD, 0, 0, 1, NULL), -EROFS);
	cr_assert_eq(stage_run(&stage, read_only, DMCORE_OP_WRITE_ZEROES, 0, 0, 1, NULL), -EROFS);
	cr_assert_eq(stage_run(&stage, read_only, DMCORE_OP_READ, 0, 0, 1, buffer), 0);
	cr_assert_eq(stage_run(&stage, read_only, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	/* What it can't do. */
	cr_assert_eq(stage_run(&stage, plain, DMCORE_OP_DISCARD, 0, 0, 1, NULL), -EOPNOTSUPP);
	cr_assert_eq(fault_count(fault_disk_of(plain), 0), 0);
	cr_assert_eq(fault_count(fault_disk_of(blocks), 0), 1);
}

Test(bio, memory_that_is_too_small_is_a_status)
{
	struct dmio_bvec vecs[2] = { { buffer, 512 }, { buffer + 512, 512 } };
	struct dmcore_bio *bio = read_of(0, 3);

	bio->vecs = vecs;
	bio->num_vecs = 2;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, -EFAULT);
}

Test(bio, the_driver_s_status_reaches_the_submitter)
{
	static const int statuses[] = { -EIO, -ENOSPC, -EOPNOTSUPP, -ETIMEDOUT, -4095 };

	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		fault_clear_rules(disk);
		fault_add_rule(disk, &(struct fault_rule){ .status = statuses[i] });
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 1, buffer),
			     statuses[i]);
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL),
			     statuses[i]);
	}
	fault_clear_rules(disk);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 1, buffer), 0);
}

Test(bio, a_flush_has_no_range)
{
	struct dmcore_bio *bio = stage_bio(&stage, bdev, DMCORE_OP_FLUSH, UINT64_MAX, 77, NULL,
					   &tally);

	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_count(disk, FAULT_FLUSH), 1);
}

/* ---- life ----------------------------------------------------------------------------------- */

Test(bio, comes_from_the_pool_clean)
{
	struct dmcore_bio *bio = dmcore_bio_get(stage.queue);

	cr_assert_eq(bio->queue, stage.queue);
	memset(bio, 0x5a, offsetof(struct dmcore_bio, queue));
	bio->context = buffer;
	bio->status = -EIO;
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_bio_get(stage.queue), bio, "the last one is the warmest");
	cr_assert(bio->queue == stage.queue && !bio->bdev && !bio->vecs && !bio->done &&
		  !bio->context && bio->sector == 0 && bio->count == 0 && bio->num_vecs == 0 &&
		  bio->flags == 0 && bio->op == DMCORE_OP_READ && bio->status == 0);
	dmcore_bio_put(bio);
}

Test(bio, of_the_caller_s_own_memory_is_as_good)
{
	struct dmcore_bio bio;

	memset(&bio, 0xa5, sizeof(bio));
	for (unsigned int i = 0; i < 3; i++) {
		dmcore_bio_init(&bio, stage.queue);
		bio.bdev = bdev;
		bio.op = DMCORE_OP_WRITE;
		bio.sector = i;
		dmcore_bio_set_buffer(&bio, buffer, 1024);
		cr_assert_eq(bio.count, 2);
		cr_assert_eq(dmcore_bio_submit(&bio), 0);
		cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, -1), 1);
		cr_assert_eq(dmcore_queue_reap(stage.queue, &(struct dmcore_bio *){ 0 }, 1), 1);
		cr_assert_eq(bio.status, 0);
	}
	/* It has no place in a pool. */
	dmcore_bio_put(&bio);
	cr_assert_eq(stage.num_logged, 1);
	cr_assert_eq(fault_count(disk, FAULT_WRITE), 3);
}

Test(bio, can_be_used_again_and_again)
{
	struct dmcore_bio *bio = dmcore_bio_get(stage.queue);

	for (unsigned int i = 0; i < 100; i++) {
		bio->bdev = bdev;
		bio->op = i % 2 ? DMCORE_OP_READ : DMCORE_OP_WRITE;
		bio->sector = i;
		dmcore_bio_set_buffer(bio, buffer, DMCORE_SECTOR_BYTES);
		cr_assert_eq(dmcore_bio_submit(bio), 0);
		cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, -1), 1);
		cr_assert_eq(dmcore_queue_reap(stage.queue, &bio, 1), 1);
		cr_assert_eq(bio->status, 0);
	}
	dmcore_bio_put(bio);
}

Test(bio, put_twice_or_in_flight_is_ignored_and_logged)
{
	struct dmcore_bio *bio = read_of(0, 1);
	struct dmcore_bio *other;

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	dmcore_bio_put(bio);
	cr_assert_eq(stage.num_logged, 1, "%s", stage.logged);
	cr_assert_not_null(strstr(stage.logged, "dmcore_bio_put"), "%s", stage.logged);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(stage.num_logged, 1);
	dmcore_bio_put(bio);
	cr_assert_eq(stage.num_logged, 2);
	cr_assert_eq(dmcore_bio_get(stage.queue), bio);
	cr_assert_neq(other = dmcore_bio_get(stage.queue), bio, "it was put back once");
	dmcore_bio_put(bio);
	dmcore_bio_put(other);
}

/* A driver that completes each request twice, once from where it shouldn't. */
static int twice_open(struct dmcore_bdev *opened, const char *args, unsigned int flags)
{
	(void)args;
	(void)flags;
	dmcore_bdev_set_size(opened, SECTORS);
	return 0;
}

static void twice_close(struct dmcore_bdev *closed)
{
	(void)closed;
}

static void twice_submit(struct dmcore_bdev *to, struct dmcore_bio *bio)
{
	(void)to;
	dmcore_bio_complete(bio, 0);
	if (bio->sector % 2)
		dmcore_bio_complete_remote(bio, -EIO);
	else
		dmcore_bio_complete(bio, -EIO);
}

static const struct dmcore_driver twice = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "twice",
	.open = twice_open,
	.close = twice_close,
	.submit = twice_submit,
};

Test(bio, completed_twice_ends_once_and_is_logged)
{
	struct dmcore_bdev *other;

	cr_assert_eq(dmcore_driver_register(stage.core, &twice), 0);
	other = stage_bdev(&stage, "twice:", 0);
	for (unsigned int i = 0; i < 4; i++) {
		cr_assert_eq(stage_run(&stage, other, DMCORE_OP_READ, 0, i, 1, buffer), 0);
		cr_assert_eq(stage.num_logged, i + 1);
		cr_assert_not_null(strstr(stage.logged, "not in flight"), "%s", stage.logged);
	}
}

/* ---- memory --------------------------------------------------------------------------------- */

static struct dmio_bvec three[3] = { { buffer, 700 }, { buffer + 1000, 900 },
				     { buffer + 3000, 2000 } };

static struct dmcore_bio *bio_with_three(uint32_t offset)
{
	struct dmcore_bio *bio = read_of(10, 4);

	bio->vecs = three;
	bio->num_vecs = 3;
	bio->vec_offset_bytes = offset;
	return bio;
}

Test(bio, advance_moves_range_and_memory)
{
	struct dmcore_bio *bio = bio_with_three(100);

	dmcore_bio_advance(bio, 0);
	cr_assert(bio->sector == 10 && bio->count == 4 && bio->vec_offset_bytes == 100);
	dmcore_bio_advance(bio, 1);
	cr_assert(bio->sector == 11 && bio->count == 3);
	cr_assert(bio->vecs == three && bio->num_vecs == 3 && bio->vec_offset_bytes == 612);
	dmcore_bio_advance(bio, 2);
	cr_assert(bio->sector == 13 && bio->count == 1);
	cr_assert(bio->vecs == three + 2 && bio->num_vecs == 1);
	cr_assert_eq(bio->vec_offset_bytes, 612 + 1024 - 700 - 900);
	dmcore_bio_put(bio);

	/* What has no memory has only a range. */
	bio = stage_bio(&stage, bdev, DMCORE_OP_DISCARD, 5, 10, NULL, &tally);
	dmcore_bio_advance(bio, 7);
	cr_assert(bio->sector == 12 && bio->count == 3);
	dmcore_bio_put(bio);
}

Test(bio, zero_fill_and_copy_keep_to_the_vector)
{
	unsigned char source[4 * DMCORE_SECTOR_BYTES];
	unsigned char expected[sizeof(buffer)];
	struct dmcore_bio *bio = bio_with_three(100);

	memset(buffer, 0xee, sizeof(buffer));
	memset(expected, 0xee, sizeof(expected));
	memset(expected + 100, 0, 600);
	memset(expected + 1000, 0, 900);
	memset(expected + 3000, 0, 2048 - 1500);
	cr_assert_eq(dmcore_bio_zero_fill(bio), 0);
	cr_assert_eq(memcmp(buffer, expected, sizeof(buffer)), 0);

	pattern_fill(source, 10, 4, 1);
	cr_assert_eq(dmcore_bio_copy(bio, source), 0);
	memcpy(expected + 100, source, 600);
	memcpy(expected + 1000, source + 600, 900);
	memcpy(expected + 3000, source + 1500, 2048 - 1500);
	cr_assert_eq(memcmp(buffer, expected, sizeof(buffer)), 0);

	bio->op = DMCORE_OP_WRITE;
	memset(source, 0, sizeof(source));
	cr_assert_eq(dmcore_bio_copy(bio, source), 0);
	cr_assert_eq(pattern_differs(source, 10, 4, 1), -1);

	bio->num_vecs = 2;
	cr_assert_eq(dmcore_bio_copy(bio, source), -EFAULT);
	bio->op = DMCORE_OP_READ;
	cr_assert_eq(dmcore_bio_zero_fill(bio), -EFAULT);
	dmcore_bio_put(bio);
}

Test(bio, scratch_memory_is_aligned)
{
	struct dmcore_bio *first = dmcore_bio_get(stage.queue);
	struct dmcore_bio *second = dmcore_bio_get(stage.queue);

	cr_assert_eq((uintptr_t)dmcore_bio_driver_data(first) % 16, 0);
	cr_assert_eq((uintptr_t)dmcore_bio_driver_data(second) % 16, 0);
	memset(dmcore_bio_driver_data(first), 0xff, DMCORE_BIO_DRIVER_BYTES);
	cr_assert_eq(second->queue, stage.queue);
	dmcore_bio_put(second);
	dmcore_bio_put(first);
}
