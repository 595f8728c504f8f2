/* SPDX-License-Identifier: MIT */
/*
 * Two threads, each with a queue of its own, fill the two halves of one striped device. Devices
 * belong to no queue, so the threads share nothing else and need no lock.
 *
 *	./threads
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dmcore.h>

#define HALF_SECTORS 2048
#define HALF_BYTES (HALF_SECTORS * DMCORE_SECTOR_BYTES)

struct writer {
	pthread_t thread;
	struct dmcore *core;
	struct dmcore_bdev *set;
	uint64_t sector;
	int letter;
};

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

static void *fill_half(void *context)
{
	struct writer *writer = context;
	char *data = memset(malloc(HALF_BYTES), writer->letter, HALF_BYTES);
	struct dmcore_queue *queue;
	struct dmcore_bio *bio;

	check(dmcore_queue_create(writer->core, NULL, &queue), "queue");
	bio = dmcore_bio_get(queue);
	bio->bdev = writer->set;
	bio->op = DMCORE_OP_WRITE;
	bio->sector = writer->sector;
	dmcore_bio_set_buffer(bio, data, HALF_BYTES); /* no done function: see below */
	check(dmcore_bio_submit(bio), "submit");
	while (dmcore_queue_reap(queue, &bio, 1) == 0)
		check(dmcore_queue_poll(queue, 1, 1, -1), "poll");
	check(bio->status, "write");
	dmcore_bio_put(bio);
	check(dmcore_queue_destroy(queue), "destroy queue");
	free(data);
	return NULL;
}

int main(void)
{
	struct dmcore *core;
	struct dmcore_device *device;
	struct writer writers[2] = { { .letter = 'a' }, { .sector = HALF_SECTORS, .letter = 'b' } };
	char around[2 * DMCORE_SECTOR_BYTES];

	check(dmcore_create(NULL, &core), "create");
	check(dmcore_device_create_concise(core, "set,,,rw,0 4096 striped 2 16 mem:1M 0 mem:1M 0",
					   0, &device), "device");
	for (int i = 0; i < 2; i++) {
		writers[i].core = core;
		writers[i].set = dmcore_device_bdev(device);
		pthread_create(&writers[i].thread, NULL, fill_half, &writers[i]);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(writers[i].thread, NULL);
	check(dmcore_pread(writers[0].set, around, sizeof(around),
			   HALF_BYTES - DMCORE_SECTOR_BYTES), "read");
	printf("around the middle: %c%c\n", around[DMCORE_SECTOR_BYTES - 1],
	       around[DMCORE_SECTOR_BYTES]);
	return dmcore_destroy(core) != 0;
}
