/* SPDX-License-Identifier: MIT */
/* The load generator. See load.h. */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void note(struct load *load, struct dmcore_bio *bio, uint64_t value)
{
	load->completed++;
	load->hash += bench_mix(value);
	if (__builtin_expect(bio->status != 0, 0) && !load->error)
		load->error = bio->status;
}

/* A bio isn't restored on its way up: its sector is the one that the last target mapped to. */
static void sector_done(struct dmcore_bio *bio)
{
	note(bio->context, bio, bio->sector);
}

static void data_done(struct dmcore_bio *bio)
{
	uint64_t word;

	memcpy(&word, bio->vecs->base, sizeof(word));
	note(bio->context, bio, word);
}

static void count_done(struct dmcore_bio *bio)
{
	note(bio->context, bio, 1);
}

static const dmcore_bio_done_fn done_functions[] = {
	[LOAD_HASH_SECTOR] = sector_done,
	[LOAD_HASH_DATA] = data_done,
	[LOAD_HASH_COUNT] = count_done,
};

int load_open(struct load *load)
{
	size_t bytes = load->sectors * DMCORE_SECTOR_BYTES;

	for (unsigned int i = 0; i < load->batch; i++) {
		struct dmcore_bio *bio = dmcore_bio_get(load->queue);

		if (!bio) {
			load_close(load);
			return -EBUSY;
		}
		bio->op = (uint8_t)load->op;
		bio->done = done_functions[load->hash_by];
		bio->context = load;
		load->vecs[i].base = load->buffers + i * bytes;
		load->vecs[i].len_bytes = bytes;
		load->bios[i] = bio;
	}
	return 0;
}

void load_close(struct load *load)
{
	for (unsigned int i = 0; i < load->batch; i++) {
		dmcore_bio_put(load->bios[i]);
		load->bios[i] = NULL;
	}
}

/* All that a layer may have changed is set again, as an application must. */
static inline int submit(struct load *load, unsigned int i, uint64_t position)
{
	struct dmcore_bio *bio = load->bios[i];

	bio->bdev = load->bdev;
	bio->sector = position * load->sectors;
	bio->count = load->sectors;
	bio->vecs = &load->vecs[i];
	bio->num_vecs = 1;
	bio->vec_offset_bytes = 0;
	return dmcore_bio_submit(bio);
}

int load_run(void *context, struct bench_run *run)
{
	struct load *load = context;
	struct bench_random random = bench_random_start(run->seed);
	uint64_t next = 0;
	uint64_t sent = 0;

	load->completed = 0;
	load->hash = 0;
	load->error = 0;
	while (sent < run->count) {
		for (unsigned int i = 0; i < load->batch; i++) {
			uint64_t position = next;
			int ret;

			if (!load->sequential)
				position = bench_random_position(&random, load->positions);
			else if (++next == load->positions)
				next = 0;
			ret = submit(load, i, position);
			if (ret)
				return ret;
		}
		sent += load->batch;
		while (load->completed < sent) {
			unsigned int left = (unsigned int)(sent - load->completed);
			int ret = dmcore_queue_poll(load->queue, left, left, -1);

			if (ret < 0 && ret != -EINTR)
				return ret;
		}
	}
	run->completed = load->completed;
	run->hash = load->hash;
	return load->error;
}

char *load_buffers(uint64_t sectors)
{
	size_t bytes = (size_t)sectors * DMCORE_SECTOR_BYTES * BENCH_BATCH_MAX;
	void *memory;

	if (posix_memalign(&memory, 4096, bytes))
		return NULL;
	memset(memory, 0, bytes);
	return memory;
}
