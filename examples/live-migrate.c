/* SPDX-License-Identifier: MIT */
/*
 * Moves a volume from one file to another while two threads read and write it. Segment after
 * segment the volume is suspended, the segment is copied, and a table is resumed that has one
 * segment more on the new file. Requests that come meanwhile wait; none fails, and none is lost.
 *
 *	./live-migrate [OLD NEW]	OLD's content is overwritten. Without files: two of its own.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <dmcore.h>

#define VOLUME_BYTES (16u << 20)
#define SEGMENT_BYTES (1u << 20)
#define BLOCK_BYTES 4096u
#define BLOCK_WORDS (BLOCK_BYTES / sizeof(uint64_t))
#define NUM_BLOCKS (VOLUME_BYTES / BLOCK_BYTES)
#define NUM_THREADS 2u
#define DEPTH 8u
#define PATH_BYTES_MAX 400u

static atomic_ullong served, failed, wrong; /* requests */
static atomic_bool stopping;

/* A request of a load thread, used over and over. */
struct slot {
	struct dmcore_bio bio;
	struct load *load;
	unsigned int block;
	uint64_t data[BLOCK_WORDS];
};

/* A thread, which alone uses every NUM_THREADS-th block: it knows what they must hold. */
struct load {
	pthread_t thread;
	struct dmcore_bdev *volume;
	struct dmcore_queue *queue;
	unsigned int first_block, busy;
	uint64_t random;
	uint64_t versions[NUM_BLOCKS];
	bool in_use[NUM_BLOCKS];
	struct slot slots[DEPTH];
};

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

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
	struct load *load = slot->load;

	if (bio->status)
		failed++;
	else if (!holds(slot->data, slot->block, load->versions[slot->block]))
		wrong++;
	served++;
	load->in_use[slot->block] = false;
	load->busy--;
	if (!stopping)
		submit_next(slot);
}

/* Reads or writes a block that no other request of this thread is at. */
static void submit_next(struct slot *slot)
{
	struct load *load = slot->load;
	struct dmcore_bio *bio = &slot->bio;

	do {
		load->random = load->random * UINT64_C(6364136223846793005) + 1442695041;
		slot->block = (unsigned int)(load->random >> 40) % (NUM_BLOCKS / NUM_THREADS) *
			      NUM_THREADS + load->first_block;
	} while (load->in_use[slot->block]);
	load->in_use[slot->block] = true;
	dmcore_bio_init(bio, load->queue);
	bio->bdev = load->volume;
	bio->op = load->random >> 63 ? DMCORE_OP_WRITE : DMCORE_OP_READ;
	bio->sector = (uint64_t)slot->block * (BLOCK_BYTES / DMCORE_SECTOR_BYTES);
	bio->done = request_done;
	bio->context = slot;
	dmcore_bio_set_buffer(bio, slot->data, BLOCK_BYTES);
	load->versions[slot->block] += bio->op == DMCORE_OP_WRITE;
	for (size_t i = 0; i < BLOCK_WORDS && bio->op == DMCORE_OP_WRITE; i++)
		slot->data[i] = word_of(slot->block, load->versions[slot->block], i);
	load->busy++;
	check(dmcore_bio_submit(bio), "submit");
}

/* Loads the volume until told to stop; then sees if each block holds what was written last. */
static void *run_load(void *context)
{
	struct load *load = context;
	uint64_t *data = load->slots[0].data;

	for (unsigned int i = 0; i < DEPTH; i++) {
		load->slots[i].load = load;
		submit_next(&load->slots[i]);
	}
	while (load->busy > 0)
		check(dmcore_queue_poll(load->queue, 1, DEPTH, -1), "poll");
	check(dmcore_queue_destroy(load->queue), "destroy queue");
	for (unsigned int i = load->first_block; i < NUM_BLOCKS; i += NUM_THREADS) {
		check(dmcore_pread(load->volume, data, BLOCK_BYTES, (uint64_t)i * BLOCK_BYTES),
		      "verify");
		if (!holds(data, i, load->versions[i]))
			wrong++;
	}
	return NULL;
}

/* Puts a table into the inactive slot whose first `moved` sectors are on the new file. */
static void load_table(struct dmcore *core, struct dmcore_device *device, char **paths,
		       unsigned int moved)
{
	unsigned int rest = VOLUME_BYTES / DMCORE_SECTOR_BYTES - moved;
	struct dmcore_table *table;
	char text[1024] = "";
	int length = 0;

	/* Both names fit, see main(). */
	if (moved > 0)
		length = snprintf(text, sizeof(text), "0 %u linear %s 0\n", moved, paths[1]);
	if (rest > 0)
		snprintf(text + length, sizeof(text) - (size_t)length, "%u %u linear %s %u\n",
			 moved, rest, paths[0], moved);
	check(dmcore_table_parse(core, text, 0, &table), "table");
	check(dmcore_device_load(device, table), "load");
}

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Moves the segment that begins at `start`, and lets the load go on for a while. Returns how long
 * the volume stood still. */
static double move_segment(struct dmcore *core, struct dmcore_device *device, char **paths,
			   struct dmcore_bdev **files, unsigned int start)
{
	static char segment[SEGMENT_BYTES];
	unsigned long long until;
	double pause_ms = -now_ms();

	check(dmcore_device_suspend(device, 0, -1), "suspend");
	check(dmcore_pread(files[0], segment, SEGMENT_BYTES, start), "read segment");
	check(dmcore_pwrite(files[1], segment, SEGMENT_BYTES, start), "write segment");
	check(dmcore_flush(files[1]), "flush");
	load_table(core, device, paths, (start + SEGMENT_BYTES) / DMCORE_SECTOR_BYTES);
	check(dmcore_device_resume(device), "resume");
	pause_ms += now_ms();
	for (until = served + 200; served < until;)
		usleep(100);
	return pause_ms;
}

static int run(char **paths)
{
	static struct load loads[NUM_THREADS];
	double pause_ms, longest_ms = 0;
	struct dmcore_bdev *files[2];
	struct dmcore_device *device;
	struct dmcore *core;
	char text[1024];

	check(dmcore_create(NULL, &core), "create");
	for (int i = 0; i < 2; i++)
		check(dmcore_bdev_open(core, paths[i], 0, &files[i]), "open");
	check(dmcore_device_create(core, "volume", NULL, 0, &device), "device");
	load_table(core, device, paths, 0);
	check(dmcore_device_resume(device), "resume");
	for (unsigned int i = 0; i < NUM_THREADS; i++) {
		loads[i].volume = dmcore_device_bdev(device);
		loads[i].first_block = i;
		check(dmcore_queue_create(core, NULL, &loads[i].queue), "queue");
		pthread_create(&loads[i].thread, NULL, run_load, &loads[i]);
	}
	for (unsigned int start = 0; start < VOLUME_BYTES; start += SEGMENT_BYTES) {
		pause_ms = move_segment(core, device, paths, files, start);
		longest_ms = pause_ms > longest_ms ? pause_ms : longest_ms;
	}
	stopping = true;
	for (unsigned int i = 0; i < NUM_THREADS; i++)
		pthread_join(loads[i].thread, NULL);
	check((int)dmcore_device_text(device, DMCORE_TEXT_TABLE, 0, text, sizeof(text)), "text");
	printf("%s%llu requests served, %llu failed, %llu with wrong data\n"
	       "%u swaps, longest pause %.1f ms\n", text, served, failed, wrong,
	       VOLUME_BYTES / SEGMENT_BYTES, longest_ms);
	for (int i = 0; i < 2; i++)
		check(dmcore_bdev_close(files[i]), "close");
	check(dmcore_destroy(core), "destroy");
	return failed || wrong;
}

static void make_file(int fd, const char *path)
{
	if (fd < 0 || ftruncate(fd, VOLUME_BYTES) < 0 || close(fd) < 0) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	char own_old[] = "old.XXXXXX", own_new[] = "new.XXXXXX";
	char *own[] = { own_old, own_new };
	char **paths = argc == 3 ? argv + 1 : own;
	int ret;

	if (argc == 2 || argc > 3)
		return fprintf(stderr, "usage: %s [OLD NEW]\n", argv[0]), 2;
	if (strlen(paths[0]) > PATH_BYTES_MAX || strlen(paths[1]) > PATH_BYTES_MAX)
		return fprintf(stderr, "a name is longer than %u characters\n", PATH_BYTES_MAX), 2;
	for (int i = 0; i < 2; i++)
		make_file(paths == own ? mkstemp(own[i]) :
				  open(paths[i], O_RDWR | O_CREAT | O_TRUNC, 0600), paths[i]);
	ret = run(paths);
	for (int i = 0; i < 2 && paths == own; i++)
		unlink(own[i]);
	return ret;
}
