/* SPDX-License-Identifier: MIT */
/*
 * Backs up an image while a program writes it. The backup is the image as it was at one moment: a
 * snapshot is made of it, and copied at leisure. Then the snapshot is dropped; or, with -r, the
 * image is put back to that moment by merging it.
 *
 *	./backup-while-writing [-r] IMAGE COW BACKUP	The files are overwritten.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dmcore.h>

#define IMAGE_BYTES (4u << 20)
#define BLOCK_BYTES 4096u
#define NUM_BLOCKS (IMAGE_BYTES / BLOCK_BYTES)
#define STEP 309u /* blocks from one write to the next; coprime to their number */
#define PAGES 256
#define TEXT_BYTES 1024
#define PATH_BYTES_MAX 300

/* Write i puts i + 1 into block i * STEP % NUM_BLOCKS. */
struct writer {
	pthread_t thread;
	struct dmcore_bdev *disk;
	atomic_ullong count; /* of writes */
	atomic_bool stopping;
};

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

/* ---- who writes the image ---- */

static void *run_writer(void *context)
{
	static unsigned long long block[BLOCK_BYTES / sizeof(unsigned long long)];
	struct writer *writer = context;

	for (unsigned long long i = 0; !writer->stopping; i++) {
		block[0] = i + 1;
		check(dmcore_pwrite(writer->disk, block, BLOCK_BYTES,
				    i * STEP % NUM_BLOCKS * BLOCK_BYTES), "write");
		writer->count = i + 1;
	}
	return NULL;
}

static void let_write(struct writer *writer, unsigned int more)
{
	unsigned long long until = writer->count + more;

	while (writer->count < until)
		usleep(100);
}

/* Tells how many writes had been done at the moment that a file shows; false: it shows none. */
static bool moment_of(const char *path, unsigned long long *count)
{
	static unsigned long long numbers[NUM_BLOCKS];
	FILE *file = fopen(path, "r");

	*count = 0;
	for (unsigned int i = 0; i < NUM_BLOCKS; i++) {
		if (!file || fseek(file, (long)i * BLOCK_BYTES, SEEK_SET) ||
		    fread(&numbers[i], sizeof(numbers[i]), 1, file) != 1)
			return perror(path), false;
		if (numbers[i] > *count)
			*count = numbers[i];
	}
	fclose(file);
	/* Those of the last round, and those of the one before. */
	for (unsigned long long i = 0; i < NUM_BLOCKS && i < *count; i++) {
		if (numbers[(*count - 1 - i) * STEP % NUM_BLOCKS] != *count - i)
			return false;
	}
	return true;
}

/* ---- devices ---- */

static void load(struct dmcore *core, struct dmcore_device *device, const char *text)
{
	struct dmcore_table *table;

	check(dmcore_table_parse(core, text, 0, &table), "table");
	check(dmcore_device_load(device, table), "load");
	check(dmcore_device_resume(device), "resume");
}

static struct dmcore_device *make(struct dmcore *core, const char *name, const char *text)
{
	struct dmcore_device *device;

	check(dmcore_device_create(core, name, NULL, 0, &device), "device");
	load(core, device, text);
	return device;
}

static void text_of(struct dmcore_device *device, char *text)
{
	check((int)dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text, TEXT_BYTES), "status");
}

/* ---- backup ---- */

static void copy_done(int read_err, unsigned int write_err, void *context)
{
	int *result = context;

	*result = read_err || write_err ? -1 : 1;
}

/* Copies a device to a file, and flushes that. */
static void copy(struct dmcore *core, struct dmcore_device *device, const char *path)
{
	struct dmio_region from = { .bdev = dmcore_device_bdev(device) };
	struct dmio_region to = { .sector = 0 };
	struct dmcore_queue *queue;
	struct kcopyd_client *kc;
	int result = 0;

	from.count = dmcore_bdev_size_sectors(from.bdev);
	check(dmcore_bdev_open(core, path, 0, &to.bdev), "open");
	check(dmcore_queue_create(core, NULL, &queue), "queue");
	check(kcopyd_client_create(queue, PAGES, &kc), "client");
	check(kcopyd_copy(kc, &from, 1, &to, KCOPYD_FLUSH, copy_done, &result), "copy");
	while (result == 0)
		check(dmcore_queue_poll(queue, 1, 16, -1), "poll");
	check(kcopyd_client_destroy(kc), "destroy client");
	check(dmcore_queue_destroy(queue), "destroy queue");
	check(dmcore_bdev_close(to.bdev), "close");
	if (result < 0) {
		fprintf(stderr, "%s: the copy has failed\n", path);
		exit(1);
	}
}

/* The image goes back to the snapshot, which ends with that. */
static void revert(struct dmcore *core, struct dmcore_device *snap, const char *words)
{
	char text[TEXT_BYTES], *used, *metadata;
	uint32_t event_nr = dmcore_device_event_nr(snap);

	snprintf(text, sizeof(text), "0 %u snapshot-merge %s", IMAGE_BYTES / DMCORE_SECTOR_BYTES,
		 words);
	load(core, snap, text);
	/* An event tells that the merge has ended. It has succeeded if the status ends with
	 * USED/SIZE METADATA, and no more than metadata is in use. */
	check(dmcore_device_wait(snap, &event_nr, -1), "wait");
	text_of(snap, text);
	metadata = strrchr(text, ' ');
	used = strrchr(text, '/');
	while (used && used[-1] != ' ')
		used--;
	if (!used || strtoull(used, NULL, 10) != strtoull(metadata, NULL, 10)) {
		fprintf(stderr, "the merge has failed: %s", text);
		exit(1);
	}
}

static void back_up(struct dmcore *core, struct writer *writer, char **paths, bool reverts)
{
	unsigned int sectors = IMAGE_BYTES / DMCORE_SECTOR_BYTES;
	struct dmcore_device *disk, *snap;
	char words[TEXT_BYTES - 64], text[TEXT_BYTES];

	/* Who writes the image does so by this device, from the beginning. */
	snprintf(text, sizeof(text), "0 %u snapshot-origin %s", sectors, paths[0]);
	disk = make(core, "disk", text);
	writer->disk = dmcore_device_bdev(disk);
	pthread_create(&writer->thread, NULL, run_writer, writer);
	let_write(writer, NUM_BLOCKS + 100);

	/* The moment: while the disk is suspended no write is under way, and others wait. */
	check(dmcore_device_suspend(disk, 0, -1), "suspend");
	snprintf(words, sizeof(words), "%s %s P 64", paths[0], paths[1]);
	snprintf(text, sizeof(text), "0 %u snapshot %s", sectors, words);
	snap = make(core, "snap", text);
	check(dmcore_device_resume(disk), "resume");

	let_write(writer, 200);
	copy(core, snap, paths[2]);
	let_write(writer, 200);
	text_of(snap, text);
	printf("%s", text);

	/* What is to be put back must not be written meanwhile. */
	writer->stopping = true;
	pthread_join(writer->thread, NULL);
	check(dmcore_device_remove(disk), "remove");
	if (reverts)
		revert(core, snap, words);
	check(dmcore_device_remove(snap), "remove");
}

static void make_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	/* The COW device holds all of the image, and where each chunk of it is. */
	if (fd < 0 || ftruncate(fd, 2 * IMAGE_BYTES) < 0 || close(fd) < 0) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	bool reverts = argc > 1 && strcmp(argv[1], "-r") == 0;
	char **paths = argv + 1 + reverts;
	static struct writer writer;
	unsigned long long backed_up, left;
	struct dmcore *core;

	if (argc != 4 + reverts || strlen(paths[0]) > PATH_BYTES_MAX ||
	    strlen(paths[1]) > PATH_BYTES_MAX)
		return fprintf(stderr, "usage: %s [-r] IMAGE COW BACKUP\n", argv[0]), 2;
	for (unsigned int i = 0; i < 3; i++)
		make_file(paths[i]);
	check(dmcore_create(NULL, &core), "create");
	back_up(core, &writer, paths, reverts);
	check(dmcore_destroy(core), "destroy");
	/* A snapshot that isn't needed any more is a file that isn't. */
	unlink(paths[1]);

	if (!moment_of(paths[2], &backed_up) || !moment_of(paths[0], &left))
		return fputs("a file shows no one moment\n", stderr), 1;
	printf("the backup has %s writes, the image %s\n",
	       backed_up < writer.count ? "the first" : "all",
	       left == writer.count ? "all" : left == backed_up ? "as many" : "others");
	return 0;
}
