/* SPDX-License-Identifier: MIT */
/* Leaves that mark what they serve; see stamp.h. */
#include "stamp.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

struct leaf {
	uint32_t id;
	bool late;
};

/* Requests that the other thread will end. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	pthread_t thread;
	struct dmcore_bio *head;
	bool end;
} late = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

static void *end_late(void *unused)
{
	struct dmcore_bio *chain;
	bool end = false;

	(void)unused;
	while (!end) {
		pthread_mutex_lock(&late.lock);
		while (!late.head && !late.end)
			pthread_cond_wait(&late.more, &late.lock);
		chain = late.head;
		late.head = NULL;
		end = late.end && !chain;
		pthread_mutex_unlock(&late.lock);
		while (chain) {
			struct dmcore_bio *bio = chain;

			chain = bio->next;
			dmcore_bio_complete_remote(bio, 0);
		}
	}
	return NULL;
}

void stamp_late_start(void)
{
	late.end = false;
	cr_assert_eq(pthread_create(&late.thread, NULL, end_late, NULL), 0);
}

void stamp_late_end(void)
{
	pthread_mutex_lock(&late.lock);
	late.end = true;
	pthread_cond_signal(&late.more);
	pthread_mutex_unlock(&late.lock);
	cr_assert_eq(pthread_join(late.thread, NULL), 0);
}

static int stamp_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	if (strlen(args) >= bytes)
		return -EINVAL;
	memcpy(key, args, strlen(args) + 1);
	return 0;
}

static int stamp_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	struct dmcore_limits limits = {
		.struct_size = sizeof(limits),
		.caps = DMCORE_CAP_FUA | DMCORE_CAP_VOLATILE_CACHE | DMCORE_CAP_DISCARD |
			DMCORE_CAP_WRITE_ZEROES,
		.logical_block_bytes = DMCORE_SECTOR_BYTES,
		.discard_granularity_bytes = DMCORE_SECTOR_BYTES,
		.memory_align_bytes = 1,
	};
	struct leaf *leaf = dmcore_zalloc(dmcore_bdev_core(bdev), sizeof(*leaf));
	char *end;

	(void)flags;
	if (!leaf)
		return -ENOMEM;
	leaf->id = (uint32_t)strtoul(args, &end, 10);
	leaf->late = strcmp(end, ",late") == 0;
	dmcore_bdev_set_size(bdev, STAMP_SECTORS);
	dmcore_bdev_set_private(bdev, leaf);
	return dmcore_bdev_set_limits(bdev, &limits);
}

static void stamp_close(struct dmcore_bdev *bdev)
{
	dmcore_free(dmcore_bdev_core(bdev), dmcore_bdev_private(bdev));
}

static void mark(const struct leaf *leaf, const struct dmcore_bio *bio)
{
	char *memory = (char *)bio->vecs->base + bio->vec_offset_bytes;

	for (uint64_t i = 0; i < bio->count; i++, memory += DMCORE_SECTOR_BYTES) {
		struct stamp_mark *entry = (struct stamp_mark *)(void *)memory;

		entry->sector = bio->sector + i;
		entry->leaf = leaf->id;
		entry->times++;
	}
}

static void stamp_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	const struct leaf *leaf = dmcore_bdev_private(bdev);

	if (bio->op <= DMCORE_OP_WRITE)
		mark(leaf, bio);
	if (!leaf->late) {
		dmcore_bio_complete(bio, 0);
		return;
	}
	pthread_mutex_lock(&late.lock);
	bio->next = late.head;
	late.head = bio;
	pthread_cond_signal(&late.more);
	pthread_mutex_unlock(&late.lock);
}

static const struct dmcore_driver stamp_driver = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "stamp",
	.version = { 1, 0, 0 },
	.identify = stamp_identify,
	.open = stamp_open,
	.close = stamp_close,
	.submit = stamp_submit,
};

int stamp_register(struct dmcore *core)
{
	return dmcore_driver_register(core, &stamp_driver);
}

uint32_t stamp_leaf(const struct dmcore_bdev *bdev)
{
	const struct leaf *leaf = dmcore_bdev_private(bdev);

	return leaf->id;
}
