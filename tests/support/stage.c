/* SPDX-License-Identifier: MIT */
/* A core, a queue, devices and requests for tests; see stage.h. */
#include "stage.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <criterion/criterion.h>

/* Unlike any other file's words: what stands in a sector is told by the number of each word. */
#define PATTERN UINT64_C(0x9e3779b97f4a7c15)
#define WORDS (DMCORE_SECTOR_BYTES / sizeof(uint64_t))

static void keep_log(enum dmcore_log_level level, const char *message, void *context)
{
	struct stage *stage = context;

	if (level > DMCORE_LOG_WARNING)
		return;
	snprintf(stage->logged, sizeof(stage->logged), "%s", message);
	atomic_fetch_add(&stage->num_logged, 1);
}

void stage_open(struct stage *stage, const struct dmcore_options *options,
		const struct dmcore_queue_options *queue_options)
{
	struct dmcore_options own = DMCORE_OPTIONS_INIT;
	int ret;

	memset(stage, 0, sizeof(*stage));
	if (options)
		own = *options;
	own.log = keep_log;
	own.log_context = stage;
	ret = dmcore_create(&own, &stage->core);
	cr_assert_eq(ret, 0, "core: %d: %s", ret, dmcore_error_message());
	cr_assert_eq(fault_register(stage->core), 0);
	ret = dmcore_queue_create(stage->core, queue_options, &stage->queue);
	cr_assert_eq(ret, 0, "queue: %d: %s", ret, dmcore_error_message());
}

void stage_close(struct stage *stage)
{
	int ret = dmcore_queue_destroy(stage->queue);

	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
	while (stage->num_devices > 0) {
		ret = dmcore_device_remove(stage->devices[--stage->num_devices]);
		cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
	}
	while (stage->num_bdevs > 0) {
		ret = dmcore_bdev_close(stage->bdevs[--stage->num_bdevs]);
		cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
	}
	ret = dmcore_destroy(stage->core);
	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
}

struct dmcore_bdev *stage_bdev(struct stage *stage, const char *spec, unsigned int flags)
{
	struct dmcore_bdev *bdev;
	int ret = dmcore_bdev_open(stage->core, spec, flags, &bdev);

	cr_assert_eq(ret, 0, "%s: %d: %s", spec, ret, dmcore_error_message());
	cr_assert_lt(stage->num_bdevs, STAGE_DEVICES_MAX);
	stage->bdevs[stage->num_bdevs++] = bdev;
	return bdev;
}

const char *stage_disk_spec(unsigned int id, uint64_t sectors, const char *args)
{
	/* Two may stand in one call. */
	static char specs[4][128];
	static unsigned int next;
	char *spec = specs[next++ % 4];

	snprintf(spec, sizeof(specs[0]), "fault:%llu,id=%u%s", (unsigned long long)sectors, id,
		 args);
	return spec;
}

struct fault_disk *stage_disk(struct stage *stage, unsigned int id, uint64_t sectors,
			      const char *args)
{
	return fault_disk_of(stage_bdev(stage, stage_disk_spec(id, sectors, args), 0));
}

struct dmcore_bdev *stage_map(struct stage *stage, const char *name, const char *text)
{
	struct dmcore_device *device;
	struct dmcore_table *table;
	int ret;

	ret = dmcore_table_parse(stage->core, text, 0, &table);
	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
	ret = dmcore_device_create(stage->core, name, NULL, 0, &device);
	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
	ret = dmcore_device_load(device, table);
	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
	ret = dmcore_device_resume(device);
	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
	cr_assert_lt(stage->num_devices, STAGE_DEVICES_MAX);
	stage->devices[stage->num_devices++] = device;
	return dmcore_device_bdev(device);
}

void tally_done(struct dmcore_bio *bio)
{
	struct tally *tally = bio->context;

	tally->ended++;
	if (bio->status) {
		tally->failed++;
		tally->status = bio->status;
	}
	dmcore_bio_put(bio);
}

struct dmcore_bio *stage_bio(struct stage *stage, struct dmcore_bdev *bdev, enum dmcore_op op,
			     uint64_t sector, uint64_t count, void *buffer, struct tally *tally)
{
	struct dmcore_bio *bio = dmcore_bio_get(stage->queue);

	cr_assert_not_null(bio, "the queue's bios are all in use");
	bio->bdev = bdev;
	bio->op = (uint8_t)op;
	bio->sector = sector;
	if (buffer)
		dmcore_bio_set_buffer(bio, buffer, count * DMCORE_SECTOR_BYTES);
	bio->count = count;
	bio->done = tally_done;
	bio->context = tally;
	return bio;
}

void stage_submit(struct stage *stage, struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector,
		  uint64_t count, void *buffer, struct tally *tally)
{
	struct dmcore_bio *bio = stage_bio(stage, bdev, op, sector, count, buffer, tally);
	unsigned int ended = tally->ended;

	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(tally->ended, ended, "a callback ran inside submit");
}

/* Not the core's time, which may be in a hurry. */
static int64_t real_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void stage_wait(struct stage *stage, struct tally *tally, unsigned int count)
{
	int64_t until_ns = real_ns() + STAGE_PATIENCE_NS;

	while (tally->ended < count) {
		int ret = dmcore_queue_poll(stage->queue, 1, UINT32_MAX, STAGE_PATIENCE_NS);

		cr_assert(ret > 0 || ret == -EINTR || (ret == 0 && real_ns() < until_ns),
			  "poll: %d, and %u of %u ended", ret, tally->ended, count);
	}
	stage_settle(stage);
	cr_assert_eq(tally->ended, count, "%u of %u ended", tally->ended, count);
}

void stage_settle(struct stage *stage)
{
	int ret;

	do {
		ret = dmcore_queue_poll(stage->queue, 0, UINT32_MAX, 0);
		cr_assert_geq(ret, 0, "poll: %d", ret);
	} while (ret > 0);
}

int stage_run(struct stage *stage, struct dmcore_bdev *bdev, enum dmcore_op op, unsigned int flags,
	      uint64_t sector, uint64_t count, void *buffer)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio = stage_bio(stage, bdev, op, sector, count, buffer, &tally);

	bio->flags = (uint16_t)flags;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(stage, &tally, 1);
	return tally.status;
}

enum dmcore_backend stage_backend(struct stage *stage)
{
	struct dmcore_queue_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_queue_info(stage->queue, &info), 0);
	return info.backend;
}

bool stage_has_io_uring(void)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue *queue;
	struct dmcore *core;
	int ret;

	options.backend = DMCORE_BACKEND_IO_URING;
	cr_assert_eq(dmcore_create(NULL, &core), 0);
	ret = dmcore_queue_create(core, &options, &queue);
	dmcore_queue_destroy(queue);
	cr_assert_eq(dmcore_destroy(core), 0);
	return ret == 0;
}

uint64_t stage_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void stage_sleep_ns(uint64_t ns)
{
	struct timespec left = { .tv_sec = (time_t)(ns / 1000000000),
				 .tv_nsec = (long)(ns % 1000000000) };

	while (nanosleep(&left, &left) < 0)
		cr_assert_eq(errno, EINTR);
}

static uint64_t pattern_word(uint64_t sector, uint32_t version, uint64_t word)
{
	return (sector << 24 ^ (uint64_t)version << 8 ^ word) * PATTERN;
}

void pattern_fill(void *buffer, uint64_t sector, uint64_t count, uint32_t version)
{
	unsigned char *bytes = buffer;

	for (uint64_t i = 0; i < count * WORDS; i++) {
		uint64_t word = pattern_word(sector + i / WORDS, version, i % WORDS);

		memcpy(bytes + i * sizeof(word), &word, sizeof(word));
	}
}

int64_t pattern_differs(const void *buffer, uint64_t sector, uint64_t count, uint32_t version)
{
	const unsigned char *bytes = buffer;

	for (uint64_t i = 0; i < count * WORDS; i++) {
		uint64_t word = pattern_word(sector + i / WORDS, version, i % WORDS);

		if (memcmp(bytes + i * sizeof(word), &word, sizeof(word)) != 0)
			return (int64_t)(sector + i / WORDS);
	}
	return -1;
}
