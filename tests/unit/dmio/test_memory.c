/* SPDX-License-Identifier: MIT */
/* The memory of dm-io requests: page lists, vectors and buffers of every shape, on every device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/dmio_world.h"
#include "../../support/rng.h"
#include "dmio/memory.h"

#define SECTORS 2048
#define ARGS "2048"

static struct world world;

/* ---- cutting pages into pieces -------------------------------------------------------------- */

static struct dmio__memory whole(const struct pages *pages, uint32_t offset_bytes)
{
	return (struct dmio__memory){
		.kind = DMIO__MEMORY_PAGES,
		.offset_bytes = offset_bytes,
		.pages = pages->list,
	};
}

Test(memory, neighbouring_pages_become_one_entry)
{
	struct dmio_bvec vecs[DMIO__PIECE_VECS];
	struct dmio__memory memory;
	struct dmio__piece piece;
	struct pages pages;

	pages_create(&pages, 40, 1);
	memory = whole(&pages, 100);
	dmio__memory_take(&memory, 39 * 8, vecs, &piece);
	cr_assert_eq(piece.num_vecs, 1);
	cr_assert_eq(piece.num_sectors, 39 * 8);
	cr_assert_eq(piece.vecs[0].base, pages.memory + 100);
	cr_assert_eq(piece.vecs[0].len_bytes, 39 * DMIO_PAGE_BYTES);
	pages_destroy(&pages);
}

Test(memory, scattered_pages_fit_a_piece_from_any_offset)
{
	struct dmio_bvec vecs[DMIO__PIECE_VECS];
	struct dmio__memory memory;
	struct dmio__piece piece;
	struct pages pages;
	size_t bytes;

	pages_create(&pages, 200, 2);
	for (uint32_t offset = 0; offset < DMIO_PAGE_BYTES; offset++) {
		uint64_t left = 199 * 8;

		memory = whole(&pages, offset);
		while (left > 0) {
			dmio__memory_take(&memory, left, vecs, &piece);
			cr_assert_leq(piece.num_vecs, DMIO__PIECE_VECS);
			cr_assert(piece.num_sectors == left ||
				  piece.num_sectors == DMIO__PIECE_SECTORS);
			bytes = 0;
			for (unsigned int i = 0; i < piece.num_vecs; i++)
				bytes += piece.vecs[i].len_bytes;
			cr_assert_eq(bytes, piece.num_sectors * DMCORE_SECTOR_BYTES);
			left -= piece.num_sectors;
		}
	}
	pages_destroy(&pages);
}

Test(memory, huge_buffer_goes_out_in_pieces_that_32_bits_can_address)
{
	struct dmio_bvec vecs[DMIO__PIECE_VECS];
	struct dmio__memory memory = { .kind = DMIO__MEMORY_BUFFER };
	uint64_t left = (UINT64_C(5) << 30) / DMCORE_SECTOR_BYTES + 1;
	char *base = (char *)0x10000;
	struct dmio__piece piece;
	uint64_t done = 0;

	/* Only addresses are computed here. */
	memory.buffer = base;
	while (left > 0) {
		dmio__memory_take(&memory, left, vecs, &piece);
		cr_assert_eq(piece.vecs[0].base, base + done);
		cr_assert_leq(piece.vecs[0].len_bytes, UINT32_MAX);
		done += piece.vecs[0].len_bytes;
		left -= piece.num_sectors;
	}
	cr_assert_eq(done, (UINT64_C(5) << 30) + DMCORE_SECTOR_BYTES);
}

/* ---- what a call accepts -------------------------------------------------------------------- */

static int write_pages(const struct pages *pages, unsigned int offset, uint64_t count)
{
	struct dmio_region where = world_region(&world, 0, 0, count);

	return dmio_sync(world.client, 1, &where, DMIO_WRITE, pages ? pages->list : NULL, offset,
			 NULL);
}

Test(memory, list_that_is_too_short_is_refused)
{
	struct pages pages;

	world_open(&world, 1, ARGS, 4);
	pages_create(&pages, 4, 2);
	cr_assert_eq(write_pages(&pages, 0, 32), 0);
	cr_assert_eq(write_pages(&pages, 0, 33), -EINVAL);
	cr_assert_eq(write_pages(&pages, 512, 31), 0);
	cr_assert_eq(write_pages(&pages, 513, 31), -EINVAL);
	cr_assert_eq(write_pages(&pages, 4095, 24), 0);
	cr_assert_eq(write_pages(&pages, 4096, 8), -EINVAL);
	cr_assert_eq(write_pages(NULL, 0, 1), -EINVAL);
	pages.list[1].page = NULL;
	cr_assert_eq(write_pages(&pages, 0, 8), 0);
	cr_assert_eq(write_pages(&pages, 0, 9), -EINVAL);
	cr_assert_eq(fault_count(world.disk[0], 0), 4);
	pages_destroy(&pages);
	world_close(&world);
}

Test(memory, list_in_a_circle_repeats_its_pages)
{
	struct pages pages;

	world_open(&world, 1, ARGS, 4);
	pages_create(&pages, 3, 2);
	for (unsigned int i = 0; i < 3; i++)
		memset(pages.list[i].page, (int)i + 1, DMIO_PAGE_BYTES);
	pages.list[2].next = pages.list;
	cr_assert_eq(write_pages(&pages, 0, SECTORS), 0);
	for (size_t i = 0; i < SECTORS / 8; i++)
		cr_assert_eq(*world_bytes(&world, 0, i * 8), i % 3 + 1);
	pages_destroy(&pages);
	world_close(&world);
}

static int write_vector(const struct dmio_bvec *vecs, uint64_t count)
{
	struct dmio_region where = world_region(&world, 0, 0, count);

	return dmio_sync_bvec(world.client, 1, &where, DMIO_WRITE, vecs, NULL);
}

Test(memory, vector_with_an_empty_entry_is_refused)
{
	static unsigned char buffer[4096];
	struct dmio_bvec vecs[3] = { { buffer, 512 }, { buffer + 512, 0 }, { buffer + 512, 512 } };

	world_open(&world, 1, ARGS, 4);
	cr_assert_eq(write_vector(vecs, 1), 0, "what is not needed is not looked at");
	cr_assert_eq(write_vector(vecs, 2), -EINVAL);
	vecs[1] = (struct dmio_bvec){ NULL, 512 };
	cr_assert_eq(write_vector(vecs, 2), -EINVAL);
	vecs[1] = (struct dmio_bvec){ buffer + 512, (size_t)UINT32_MAX + 1 };
	cr_assert_eq(write_vector(vecs, 2), -EINVAL);
	cr_assert_eq(write_vector(NULL, 2), -EINVAL);
	vecs[1] = (struct dmio_bvec){ buffer + 512, sizeof(buffer) - 512 };
	cr_assert_eq(write_vector(vecs, 2), 0, "the last entry may be longer than needed");
	cr_assert_eq(fault_count(world.disk[0], 0), 2);
	world_close(&world);
}

/* ---- any memory on any device --------------------------------------------------------------- */

enum form { FORM_PAGES, FORM_VECTOR, FORM_BUFFER, FORMS };

/* Memory of one of the forms, around `bytes` bytes. */
struct shape {
	enum form form;
	struct pages pages;
	unsigned int offset;
	struct dmio_bvec *vecs;
	unsigned char *buffer;
	unsigned char *allocated;
};

static void make_vector(struct shape *shape, size_t bytes)
{
	size_t left = bytes;
	unsigned int n = 0;

	/* Every entry with a gap behind it. */
	shape->vecs = calloc(bytes / 16 + 64, sizeof(*shape->vecs));
	shape->allocated = malloc(3 * bytes + 64);
	cr_assert(shape->vecs && shape->allocated);
	shape->buffer = shape->allocated;
	while (left > 0) {
		size_t max = world_random(&world, 8) == 0 ? 20000 : 600;
		size_t length = 16 + (size_t)world_random(&world, max);

		if (length > left)
			length = left;
		shape->vecs[n].base = shape->buffer + world_random(&world, 16);
		shape->vecs[n].len_bytes = length;
		shape->buffer += length + 16;
		left -= length;
		n++;
	}
}

static void shape_create(struct shape *shape, enum form form, size_t bytes)
{
	*shape = (struct shape){ .form = form };
	switch (form) {
	case FORM_PAGES:
		if (world_random(&world, 2))
			shape->offset = (unsigned int)world_random(&world, DMIO_PAGE_BYTES);
		pages_create(&shape->pages, (unsigned int)(bytes / DMIO_PAGE_BYTES) + 2,
			     1 + (unsigned int)world_random(&world, 2));
		break;
	case FORM_VECTOR:
		make_vector(shape, bytes);
		break;
	default:
		shape->allocated = malloc(bytes + 64);
		cr_assert_not_null(shape->allocated);
		shape->buffer = shape->allocated + world_random(&world, 64);
		break;
	}
}

static void shape_destroy(struct shape *shape)
{
	if (shape->form == FORM_PAGES)
		pages_destroy(&shape->pages);
	free(shape->vecs);
	free(shape->allocated);
}

/* Copies between the shape and a flat buffer. */
static void shape_copy(struct shape *shape, unsigned char *flat, size_t bytes, bool to_flat)
{
	const struct dmio_bvec *vec = shape->vecs;

	if (shape->form == FORM_PAGES && to_flat) {
		pages_copy_out(&shape->pages, shape->offset, flat, bytes);
	} else if (shape->form == FORM_PAGES) {
		pages_copy_in(&shape->pages, shape->offset, flat, bytes);
	} else if (shape->form == FORM_BUFFER) {
		memcpy(to_flat ? flat : shape->buffer, to_flat ? shape->buffer : flat, bytes);
	} else {
		for (; bytes > 0; vec++) {
			size_t n = vec->len_bytes < bytes ? vec->len_bytes : bytes;

			memcpy(to_flat ? flat : vec->base, to_flat ? vec->base : flat, n);
			flat += n;
			bytes -= n;
		}
	}
}

static int run(struct shape *shape, unsigned int num_regions, const struct dmio_region *where,
	       int rw)
{
	struct pending pending = { 0 };
	int ret;

	switch (shape->form) {
	case FORM_PAGES:
		ret = dmio_async(world.client, num_regions, where, rw, shape->pages.list,
				 shape->offset, pending_done, &pending);
		break;
	case FORM_VECTOR:
		ret = dmio_async_bvec(world.client, num_regions, where, rw, shape->vecs,
				      pending_done, &pending);
		break;
	default:
		ret = dmio_async_vm(world.client, num_regions, where, rw, shape->buffer,
				    pending_done, &pending);
		break;
	}
	cr_assert_eq(ret, 0);
	cr_assert_eq(pending.calls, 0, "called back inside the call");
	return world_wait(&world, &pending) ? -EIO : 0;
}

/* Devices of the random runs, each with the bytes it should hold. */
struct models {
	unsigned int num_devices;
	struct dmcore_bdev *bdev[WORLD_DISKS_MAX];
	unsigned char *bytes[WORLD_DISKS_MAX];
	unsigned int block_sectors;
};

/* One write to random regions, one read back. Regions of the same device don't overlap. */
static void random_round(struct models *models, unsigned int round)
{
	unsigned int num_regions = 1 + (unsigned int)world_random(&world, models->num_devices);
	unsigned int first = (unsigned int)world_random(&world, models->num_devices);
	unsigned int blocks = SECTORS / models->block_sectors;
	uint64_t longest = 0;
	struct dmio_region where[WORLD_DISKS_MAX];
	unsigned char *flat = malloc((size_t)SECTORS * DMCORE_SECTOR_BYTES);
	unsigned char *again = malloc((size_t)SECTORS * DMCORE_SECTOR_BYTES);
	struct shape shape;
	size_t bytes;

	for (unsigned int i = 0; i < num_regions; i++) {
		uint64_t max = world_random(&world, 4) ? 40 : blocks;
		uint64_t count = world_random(&world, max < blocks ? max : blocks);
		uint64_t sector = world_random(&world, blocks - count);

		where[i].bdev = models->bdev[(first + i) % models->num_devices];
		where[i].sector = sector * models->block_sectors;
		where[i].count = count * models->block_sectors;
		longest = where[i].count > longest ? where[i].count : longest;
	}
	bytes = (size_t)longest * DMCORE_SECTOR_BYTES;
	world_fill(&world, flat, bytes);
	shape_create(&shape, (enum form)world_random(&world, FORMS), bytes);
	shape_copy(&shape, flat, bytes, false);
	cr_assert_eq(run(&shape, num_regions, where, DMIO_WRITE), 0, "seed %lu round %u",
		     (unsigned long)world.seed, round);
	for (unsigned int i = 0; i < num_regions; i++) {
		size_t n = (size_t)where[i].count * DMCORE_SECTOR_BYTES;
		size_t at = (size_t)where[i].sector * DMCORE_SECTOR_BYTES;

		memcpy(models->bytes[(first + i) % models->num_devices] + at, flat, n);
		shape_copy(&shape, again, n, true);
		cr_assert_eq(memcmp(again, flat, n), 0, "the write changed its memory");
	}
	shape_destroy(&shape);

	bytes = (size_t)where[0].count * DMCORE_SECTOR_BYTES;
	shape_create(&shape, (enum form)world_random(&world, FORMS), bytes);
	cr_assert_eq(run(&shape, 1, where, DMIO_READ), 0);
	shape_copy(&shape, again, bytes, true);
	cr_assert_eq(memcmp(again, flat, bytes), 0, "seed %lu round %u: read back other data",
		     (unsigned long)world.seed, round);
	shape_destroy(&shape);
	free(flat);
	free(again);
}

static void compare_devices(const struct models *models)
{
	size_t bytes = (size_t)SECTORS * DMCORE_SECTOR_BYTES;
	unsigned char *content = malloc(bytes);

	for (unsigned int i = 0; i < models->num_devices; i++) {
		cr_assert_eq(dmcore_pread(models->bdev[i], content, bytes, 0), 0);
		cr_assert_eq(memcmp(content, models->bytes[i], bytes), 0, "seed %lu: device %u",
			     (unsigned long)world.seed, i);
	}
	free(content);
}

static void run_rounds(struct models *models, unsigned int rounds)
{
	for (unsigned int i = 0; i < models->num_devices; i++)
		models->bytes[i] = calloc(SECTORS, DMCORE_SECTOR_BYTES);
	for (unsigned int round = 0; round < rounds; round++)
		random_round(models, round);
	compare_devices(models);
	for (unsigned int i = 0; i < models->num_devices; i++)
		free(models->bytes[i]);
}

Test(memory, one_to_64_regions_of_any_alignment_get_the_same_bytes, .timeout = 36000)
{
	struct models models = { .num_devices = WORLD_DISKS_MAX, .block_sectors = 1 };

	world_open(&world, WORLD_DISKS_MAX, ARGS, 8);
	memcpy(models.bdev, world.bdev, sizeof(models.bdev));
	run_rounds(&models, rng_full() ? 10000 : 150);
	world_close(&world);
}

Test(memory, blocks_of_4096_bytes_are_never_cut, .timeout = 120)
{
	struct models models = { .num_devices = 4, .block_sectors = 8 };

	world_open(&world, 4, ARGS ",block=4096", 8);
	memcpy(models.bdev, world.bdev, sizeof(models.bdev));
	run_rounds(&models, 150);
	world_close(&world);
}

Test(memory, blocks_of_65536_bytes_are_never_cut, .timeout = 120)
{
	struct models models = { .num_devices = 4, .block_sectors = 128 };

	world_open(&world, 4, ARGS ",block=65536", 8);
	memcpy(models.bdev, world.bdev, sizeof(models.bdev));
	run_rounds(&models, 150);
	world_close(&world);
}

static void run_on_files(unsigned int flags, unsigned int block_sectors)
{
	struct models models = { .block_sectors = block_sectors };
	char path[4][64];
	int ret = 0;

	world_open(&world, 0, ARGS, 8);
	for (unsigned int i = 0; i < 4; i++) {
		int fd;

		snprintf(path[i], sizeof(path[i]), "dmio-test-XXXXXX");
		fd = mkstemp(path[i]);
		cr_assert_geq(fd, 0);
		cr_assert_eq(ftruncate(fd, (off_t)SECTORS * DMCORE_SECTOR_BYTES), 0);
		close(fd);
		ret = dmcore_bdev_open(world.core, path[i], flags, &models.bdev[i]);
		if (ret) {
			unlink(path[i]);
			break;
		}
		models.num_devices++;
	}
	if (models.num_devices == 4)
		run_rounds(&models, 100);
	for (unsigned int i = 0; i < models.num_devices; i++) {
		cr_assert_eq(dmcore_bdev_close(models.bdev[i]), 0);
		unlink(path[i]);
	}
	world_close(&world);
	if (ret == -EINVAL && flags & DMCORE_OPEN_DIRECT)
		cr_skip("no direct I/O on this file system");
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
}

Test(memory, files_get_the_same_bytes, .timeout = 120)
{
	run_on_files(0, 1);
}

Test(memory, files_past_the_page_cache_get_the_same_bytes, .timeout = 120)
{
	run_on_files(DMCORE_OPEN_DIRECT, 8);
}
