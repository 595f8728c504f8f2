/* SPDX-License-Identifier: MIT */
/*
 * A mirror of two files is written to and read by a thread. One of the files fails; writes wait,
 * for the mirror handles errors. A third file takes its place, the writes go on, and recovery fills
 * it.
 * No request has failed, and in the end both files hold what was written last.
 *
 *	./mirror-replace-leg		Makes four files in the current folder, and removes them.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dmcore.h>

#define VOLUME_BYTES (16u << 20)
#define VOLUME_SECTORS (VOLUME_BYTES / DMCORE_SECTOR_BYTES)
#define REGION_SECTORS 128u
#define BLOCK_BYTES 4096u
#define BLOCK_WORDS (BLOCK_BYTES / sizeof(uint64_t))
#define NUM_BLOCKS (VOLUME_BYTES / BLOCK_BYTES)
#define DEPTH 8u

enum file { FIRST, SECOND, THIRD, LOG, NUM_FILES };

static atomic_ullong served, failed, wrong; /* requests */
static atomic_bool stopping;
static uint64_t versions[NUM_BLOCKS];       /* how often each block was written */
static bool in_use[NUM_BLOCKS];

/* A request, used over and over. */
struct slot {
	struct dmcore_bio bio;
	unsigned int block;
	uint64_t data[BLOCK_WORDS];
};

struct load {
	pthread_t thread;
	struct dmcore_bdev *volume;
	struct dmcore_queue *queue;
	unsigned int busy;
	uint64_t random;
	struct slot slots[DEPTH];
};

static struct load load;

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

/* ---- the load ---- */

/* What a block holds: zeroes at first, then what each write puts there. */
static uint64_t word_of(unsigned int block, uint64_t version, size_t index)
{
	return version ? (version * NUM_BLOCKS + block) * UINT64_C(0x9e3779b97f4a7c15) + index : 0;
}

static bool holds(const uint64_t *data, unsigned int block, uint64_t version)
{
	for (size_t i = 0; i < BLOCK_WORDS; i++) {
		if (data[i] != word_of(block, version, i))
			return false;
	}
	return true;
}

static void submit_next(struct slot *slot);

static void request_done(struct dmcore_bio *bio)
{
	struct slot *slot = bio->context;

	if (bio->status)
		failed++;
	else if (!holds(slot->data, slot->block, versions[slot->block]))
		wrong++;
	served++;
	in_use[slot->block] = false;
	load.busy--;
	if (!stopping)
		submit_next(slot);
}

/* Reads or writes a block that no other request is at. */
static void submit_next(struct slot *slot)
{
	struct dmcore_bio *bio = &slot->bio;

	do {
		load.random = load.random * UINT64_C(6364136223846793005) + 1442695041;
		slot->block = (unsigned int)(load.random >> 40) % NUM_BLOCKS;
	} while (in_use[slot->block]);
	in_use[slot->block] = true;
	dmcore_bio_init(bio, load.queue);
	bio->bdev = load.volume;
	bio->op = load.random >> 63 ? DMCORE_OP_WRITE : DMCORE_OP_READ;
	bio->sector = (uint64_t)slot->block * (BLOCK_BYTES / DMCORE_SECTOR_BYTES);
	bio->done = request_done;
	bio->context = slot;
	dmcore_bio_set_buffer(bio, slot->data, BLOCK_BYTES);
	versions[slot->block] += bio->op == DMCORE_OP_WRITE;
	for (size_t i = 0; i < BLOCK_WORDS && bio->op == DMCORE_OP_WRITE; i++)
		slot->data[i] = word_of(slot->block, versions[slot->block], i);
	load.busy++;
	check(dmcore_bio_submit(bio), "submit");
}

static void *run_load(void *context)
{
	(void)context;
	for (unsigned int i = 0; i < DEPTH; i++)
		submit_next(&load.slots[i]);
	while (load.busy > 0)
		check(dmcore_queue_poll(load.queue, 1, DEPTH, -1), "poll");
	check(dmcore_queue_destroy(load.queue), "destroy queue");
	return NULL;
}

/* ---- the mirror ---- */

static void load_table(struct dmcore *core, struct dmcore_device *device, const char *text)
{
	struct dmcore_table *table;

	check(dmcore_table_parse(core, text, 0, &table), "table");
	check(dmcore_device_load(device, table), "load");
}

/* What the mirror's status says behind the names of its legs: how far it is, and how they are. */
static void wait_for(struct dmcore_device *mirror, const char *words)
{
	char text[1024];

	for (;;) {
		check((int)dmcore_device_text(mirror, DMCORE_TEXT_STATUS, 0, text, sizeof(text)),
		      "status");
		if (strstr(text, words))
			break;
		usleep(1000);
	}
	fputs(text, stdout);
}

/* The second file is reached through a device of its own, so that it can be made to fail. */
static struct dmcore_device *make_second(struct dmcore *core, const char *path)
{
	struct dmcore_device *second;
	char text[128];

	check(dmcore_device_create(core, "second", NULL, 0, &second), "device");
	snprintf(text, sizeof(text), "0 %u linear %s 0\n", VOLUME_SECTORS, path);
	load_table(core, second, text);
	check(dmcore_device_resume(second), "resume");
	return second;
}

static void break_it(struct dmcore *core, struct dmcore_device *second)
{
	char text[64];

	snprintf(text, sizeof(text), "0 %u error\n", VOLUME_SECTORS);
	load_table(core, second, text);
	check(dmcore_device_resume(second), "resume");
}

/* `how`: nosync, for files that are the same, or sync, which has all copied. Either is meant for
 * one resume; afterwards a table without it would let the log say. */
static void load_mirror(struct dmcore *core, struct dmcore_device *mirror, const char *log,
			const char *how, const char *first, const char *second)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "0 %u mirror disk 3 %s %u %s 2 %s 0 %s 0 1 handle_errors\n", VOLUME_SECTORS, log,
		 REGION_SECTORS, how, first, second);
	load_table(core, mirror, text);
}

static void serve(unsigned int requests)
{
	unsigned long long until = served + requests;

	while (served < until)
		usleep(100);
}

static void expect_same(struct dmcore *core, const char *path)
{
	uint64_t *data = load.slots[0].data;
	struct dmcore_bdev *bdev;

	check(dmcore_bdev_open(core, path, 0, &bdev), "open");
	for (unsigned int i = 0; i < NUM_BLOCKS; i++) {
		check(dmcore_pread(bdev, data, BLOCK_BYTES, (uint64_t)i * BLOCK_BYTES), "read");
		if (!holds(data, i, versions[i]))
			wrong++;
	}
	check(dmcore_bdev_close(bdev), "close");
}

static int run(char paths[NUM_FILES][16])
{
	struct dmcore_device *second, *mirror;
	struct dmcore *core;

	check(dmcore_create(NULL, &core), "create");
	second = make_second(core, paths[SECOND]);
	check(dmcore_device_create(core, "mirror", NULL, 0, &mirror), "device");
	load_mirror(core, mirror, paths[LOG], "nosync", paths[FIRST], "second");
	check(dmcore_device_resume(mirror), "resume");
	load.volume = dmcore_device_bdev(mirror);
	check(dmcore_queue_create(core, NULL, &load.queue), "queue");
	pthread_create(&load.thread, NULL, run_load, NULL);
	serve(1000);

	break_it(core, second);
	wait_for(mirror, " AD ");
	load_mirror(core, mirror, paths[LOG], "sync", paths[FIRST], paths[THIRD]);
	/* What waits isn't flushed out, but goes through the new table. */
	check(dmcore_device_suspend(mirror, DMCORE_SUSPEND_NOFLUSH, -1), "suspend");
	check(dmcore_device_resume(mirror), "resume");
	serve(1000);
	stopping = true;
	pthread_join(load.thread, NULL);
	wait_for(mirror, " 256/256 1 AA ");

	check(dmcore_device_remove(mirror), "remove");
	expect_same(core, paths[FIRST]);
	expect_same(core, paths[THIRD]);
	printf("%llu requests served, %llu failed, %llu with wrong data\n", served, failed, wrong);
	check(dmcore_destroy(core), "destroy");
	return failed || wrong;
}

int main(void)
{
	char paths[NUM_FILES][16] = { "one.XXXXXX", "two.XXXXXX", "three.XXXXXX", "log.XXXXXX" };
	int ret;

	for (int i = 0; i < NUM_FILES; i++) {
		int fd = mkstemp(paths[i]);

		if (fd < 0 || ftruncate(fd, VOLUME_BYTES) < 0 || close(fd) < 0) {
			perror(paths[i]);
			exit(1);
		}
	}
	ret = run(paths);
	for (int i = 0; i < NUM_FILES; i++)
		unlink(paths[i]);
	return ret;
}
