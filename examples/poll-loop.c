/* SPDX-License-Identifier: MIT */
/*
 * Reads a file or device with up to 32 requests in flight: each completion sends the next read.
 *
 *	./poll-loop FILE
 */
#include <stdio.h>
#include <stdlib.h>

#include <dmcore.h>

#define IN_FLIGHT 32
#define BLOCK_SECTORS 8

static struct dmcore_bdev *disk;
static unsigned long long next_sector, in_flight, failures, sum;
static unsigned char buffers[IN_FLIGHT][BLOCK_SECTORS * DMCORE_SECTOR_BYTES];

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

static void read_done(struct dmcore_bio *bio);

/* Sends a read of the next block into a buffer, or puts the bio back when all is read. */
static void send_next(struct dmcore_bio *bio, unsigned char *buffer)
{
	if (next_sector + BLOCK_SECTORS > dmcore_bdev_size_sectors(disk)) {
		dmcore_bio_put(bio);
		return;
	}
	/* On its way down a bio's fields are rewritten, so set them all, each time. */
	bio->bdev = disk;
	bio->op = DMCORE_OP_READ;
	bio->sector = next_sector;
	dmcore_bio_set_buffer(bio, buffer, sizeof(buffers[0]));
	bio->done = read_done;
	bio->context = buffer;
	check(dmcore_bio_submit(bio), "submit");
	next_sector += BLOCK_SECTORS;
	in_flight++;
}

/* Runs inside dmcore_queue_poll(), on our thread; the bio is ours again. */
static void read_done(struct dmcore_bio *bio)
{
	unsigned char *data = bio->context;

	in_flight--;
	failures += bio->status != 0;
	for (size_t i = 0; bio->status == 0 && i < sizeof(buffers[0]); i++)
		sum += data[i];
	send_next(bio, data);
}

int main(int argc, char **argv)
{
	struct dmcore *core;
	struct dmcore_queue *queue;

	if (argc != 2)
		return fprintf(stderr, "usage: %s FILE\n", argv[0]), 2;
	check(dmcore_create(NULL, &core), "create");
	check(dmcore_queue_create(core, NULL, &queue), "queue");
	check(dmcore_bdev_open(core, argv[1], DMCORE_OPEN_READ_ONLY, &disk), "open");
	for (int i = 0; i < IN_FLIGHT; i++)
		send_next(dmcore_bio_get(queue), buffers[i]);
	while (in_flight > 0)
		check(dmcore_queue_poll(queue, 1, IN_FLIGHT, -1), "poll");
	printf("%llu sectors read, %llu reads failed, the sum of all bytes is %llu\n",
	       next_sector, failures, sum);
	check(dmcore_bdev_close(disk), "close");
	check(dmcore_queue_destroy(queue), "destroy queue");
	return failures != 0 || dmcore_destroy(core) != 0;
}
