/* SPDX-License-Identifier: MIT */
/*
 * What a table keeps for its targets: memory in chunks that are freed in one go, and each device
 * that they asked for, opened once. Constructors come here through dmcore/target.h; table.c gives
 * back what a failed one took.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"
#include "base/log.h"
#include "map/map.h"

/* Chunks double in size from one to the next: small tables stay small, large ones take few. */
#define CHUNK_BYTES_MIN 4096u
#define CHUNK_BYTES_MAX (1u << 20)
/* That of struct dmcore_bio, which targets have in theirs. */
#define ALLOC_ALIGN_BYTES 16u
#define DEVICE_BUCKETS_MIN 16u

struct dmcore__arena_chunk {
	struct dmcore__arena_chunk *next; /* older */
	size_t used_bytes;
	size_t room_bytes;
	size_t unused; /* keeps memory aligned */
	unsigned char memory[];
};

struct dmcore__table_device {
	struct dmcore__table_device *next; /* in its bucket */
	struct dmcore__table_device *older;
	struct dmcore_bdev *bdev;
	uint64_t hash;
	bool to_read; /* alone; part of the key as is spec */
	char spec[];
};

/* ---- memory ---- */

static bool add_chunk(struct dmcore_table *table, size_t bytes)
{
	size_t room_bytes = CHUNK_BYTES_MIN;
	struct dmcore__arena_chunk *chunk;

	if (bytes > SIZE_MAX / 2)
		return false;
	if (table->arena && table->arena->room_bytes >= CHUNK_BYTES_MIN)
		room_bytes = table->arena->room_bytes * 2;
	if (room_bytes > CHUNK_BYTES_MAX)
		room_bytes = CHUNK_BYTES_MAX;
	if (room_bytes < bytes)
		room_bytes = bytes;
	chunk = dmcore__zalloc(table->core, sizeof(*chunk) + room_bytes);
	if (!chunk)
		return false;
	chunk->room_bytes = room_bytes;
	chunk->next = table->arena;
	table->arena = chunk;
	return true;
}

void *dmcore__table_alloc(struct dmcore_table *table, size_t bytes)
{
	struct dmcore__arena_chunk *chunk = table->arena;
	size_t padded = (bytes + ALLOC_ALIGN_BYTES - 1) & ~(size_t)(ALLOC_ALIGN_BYTES - 1);
	void *memory;

	if (padded < bytes)
		return NULL;
	if (!chunk || padded > chunk->room_bytes - chunk->used_bytes) {
		if (!add_chunk(table, padded))
			return NULL;
		chunk = table->arena;
	}
	memory = chunk->memory + chunk->used_bytes;
	chunk->used_bytes += padded;
	return memory;
}

static void rewind_memory(struct dmcore_table *table, struct dmcore__arena_chunk *to,
			  size_t used_bytes)
{
	while (table->arena != to) {
		struct dmcore__arena_chunk *chunk = table->arena;

		table->arena = chunk->next;
		dmcore__free(table->core, chunk);
	}
	if (!to)
		return;
	DMCORE__ASSERT(used_bytes <= to->used_bytes);
	memset(to->memory + used_bytes, 0, to->used_bytes - used_bytes);
	to->used_bytes = used_bytes;
}

void *dmcore_target_alloc(struct dmcore_target *target, size_t bytes)
{
	return dmcore__table_alloc(target->table, bytes);
}

/* ---- devices ---- */

/* FNV-1a */
static uint64_t hash_spec(const char *spec, bool to_read)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325) + to_read;

	for (; *spec; spec++)
		hash = (hash ^ (unsigned char)*spec) * UINT64_C(0x100000001b3);
	return hash ^ (hash >> 32);
}

static struct dmcore__table_device **bucket_of(const struct dmcore_table *table, uint64_t hash)
{
	return &table->devices[hash & (table->num_device_buckets - 1)];
}

static struct dmcore__table_device *find_device(const struct dmcore_table *table, const char *spec,
						bool to_read, uint64_t hash)
{
	struct dmcore__table_device *device;

	if (table->num_device_buckets == 0)
		return NULL;
	for (device = *bucket_of(table, hash); device; device = device->next) {
		if (device->hash == hash && device->to_read == to_read &&
		    strcmp(device->spec, spec) == 0)
			return device;
	}
	return NULL;
}

/* Sees to it that there are as many buckets as there will be devices. */
static int grow_buckets(struct dmcore_table *table)
{
	uint32_t num_buckets = table->num_device_buckets * 2;
	struct dmcore__table_device *device;
	void *buckets;

	if (table->num_devices < table->num_device_buckets)
		return 0;
	if (num_buckets == 0)
		num_buckets = DEVICE_BUCKETS_MIN;
	buckets = dmcore__zalloc_array(table->core, num_buckets, sizeof(*table->devices));
	if (!buckets)
		return -ENOMEM;
	dmcore__free(table->core, table->devices);
	table->devices = buckets;
	table->num_device_buckets = num_buckets;
	for (device = table->newest_device; device; device = device->older) {
		struct dmcore__table_device **bucket = bucket_of(table, device->hash);

		device->next = *bucket;
		*bucket = device;
	}
	return 0;
}

static int open_device(struct dmcore_table *table, const char *spec, bool to_read,
		       struct dmcore_bdev **result)
{
	struct dmcore_bdev *bdev;
	int ret;

	if (to_read)
		ret = dmcore__bdev_open_to_read(table->core, spec, table->flags, &bdev);
	else
		ret = dmcore_bdev_open(table->core, spec, table->flags, &bdev);
	if (ret)
		return ret;
	if (bdev->route && dmcore_bdev_size_sectors(bdev) == 0) {
		dmcore_bdev_close(bdev);
		return dmcore__error(-ENXIO, "%s: the mapped device has no table yet", spec);
	}
	bdev->table_opens++;
	*result = bdev;
	return 0;
}

static int add_device(struct dmcore_table *table, const char *spec, bool to_read, uint64_t hash,
		      struct dmcore__table_device **result)
{
	size_t spec_bytes = strlen(spec) + 1;
	struct dmcore__table_device *device;
	int ret = grow_buckets(table);

	if (ret)
		return ret;
	device = dmcore__zalloc(table->core, sizeof(*device) + spec_bytes);
	if (!device)
		return -ENOMEM;
	ret = open_device(table, spec, to_read, &device->bdev);
	if (ret)
		goto free_device;
	memcpy(device->spec, spec, spec_bytes);
	device->hash = hash;
	device->to_read = to_read;
	device->next = *bucket_of(table, hash);
	*bucket_of(table, hash) = device;
	device->older = table->newest_device;
	table->newest_device = device;
	table->num_devices++;
	*result = device;
	return 0;

free_device:
	dmcore__free(table->core, device);
	return ret;
}

static void drop_newest_device(struct dmcore_table *table)
{
	struct dmcore__table_device *device = table->newest_device;
	struct dmcore__table_device **link = bucket_of(table, device->hash);

	while (*link != device)
		link = &(*link)->next;
	*link = device->next;
	table->newest_device = device->older;
	table->num_devices--;
	device->bdev->table_opens--;
	if (dmcore_bdev_close(device->bdev) != 0)
		dmcore__log(table->core, DMCORE_LOG_ERROR, "%s stays open: requests are in flight",
			    device->spec);
	dmcore__free(table->core, device);
}

static int look_up(struct dmcore_target *target, const char *spec, bool to_read,
		   struct dmcore_bdev **result)
{
	struct dmcore_table *table = target->table;
	struct dmcore__table_device *device;
	uint64_t hash;
	int ret;

	if (!spec || !*spec)
		return dmcore__error(-EINVAL, "no device is named");
	if (!target->type->iterate_devices)
		return dmcore__error(-EINVAL, "the target type has no iterate_devices");
	hash = hash_spec(spec, to_read);
	device = find_device(table, spec, to_read, hash);
	if (!device) {
		ret = add_device(table, spec, to_read, hash, &device);
		if (ret)
			return ret;
	}
	*result = device->bdev;
	return 0;
}

static int get_device(struct dmcore_target *target, const char *spec, bool to_read,
		      struct dmcore_bdev **result)
{
	int ret;

	*result = NULL;
	ret = look_up(target, spec, to_read, result);
	if (ret)
		target->table->lookup_error = ret;
	return ret;
}

int dmcore_target_device(struct dmcore_target *target, const char *spec,
			 struct dmcore_bdev **result)
{
	return get_device(target, spec, false, result);
}

int dmcore_target_device_read_only(struct dmcore_target *target, const char *spec,
				   struct dmcore_bdev **result)
{
	return get_device(target, spec, true, result);
}

int dmcore__table_each_device(struct dmcore_table *table,
			      int (*fn)(struct dmcore_bdev *bdev, void *context), void *context)
{
	struct dmcore__table_device *device;
	int ret = 0;

	for (device = table->newest_device; device && ret == 0; device = device->older)
		ret = fn(device->bdev, context);
	return ret;
}

/* ---- all ---- */

struct dmcore__mark dmcore__table_mark(const struct dmcore_table *table)
{
	struct dmcore__mark mark = { .chunk = table->arena,
				     .device = table->newest_device,
				     .shared = table->newest_shared };

	if (mark.chunk)
		mark.used_bytes = mark.chunk->used_bytes;
	return mark;
}

void dmcore__table_rewind(struct dmcore_table *table, struct dmcore__mark mark)
{
	/* Before the devices that they are about, and the memory that the holds are in. */
	dmcore__shared_rewind(table, mark.shared);
	while (table->newest_device != mark.device)
		drop_newest_device(table);
	if (table->num_devices == 0) {
		dmcore__free(table->core, table->devices);
		table->devices = NULL;
		table->num_device_buckets = 0;
	}
	rewind_memory(table, mark.chunk, mark.used_bytes);
}
