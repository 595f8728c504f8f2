/* SPDX-License-Identifier: MIT */
/*
 * The library's side of the case `snapshot`: a snapshot of the origin's file, and a load that goes
 * to places one step apart, as qemu-img bench does. See snapshot.h.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <dmcore/target.h>

#include "snapshot.h"

/* ---- a target that counts commits ---- */

struct counting {
	struct dmcore_bdev *bdev;
};

/* Cases come one after another. */
static atomic_ullong commits;

static int counting_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct counting *own = dmcore_target_alloc(target, sizeof(*own));

	if (!own)
		return dmcore_args_fail(args, -ENOMEM, "no memory");
	target->private_data = own;
	return dmcore_target_device(target, dmcore_args_next(args), &own->bdev);
}

/* Nothing but a commit is written with FUA. */
static enum dmcore_map_result counting_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct counting *own = target->private_data;

	if (bio->op == DMCORE_OP_WRITE && bio->flags & DMCORE_BIO_FUA)
		atomic_fetch_add(&commits, 1);
	bio->bdev = own->bdev;
	return DMCORE_MAP_REMAPPED;
}

static unsigned int counting_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

static int counting_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				    void *context)
{
	const struct counting *own = target->private_data;

	return fn(target, own->bdev, 0, dmcore_target_len(target), context);
}

static const struct dmcore_target_type counting_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "counting",
	.version = { 1, 0, 0 },
	.ctr = counting_ctr,
	.map = counting_map,
	.num_bios = counting_num_bios,
	.iterate_devices = counting_iterate_devices,
};

/* ---- the load ---- */

struct snap_load {
	const struct snap_row *row;
	struct dmcore_bdev *bdev;
	struct dmcore_bio *bios[BENCH_BATCH_MAX];
	struct dmio_bvec vecs[BENCH_BATCH_MAX];
	uint64_t next_block;
	uint64_t blocks; /* of the origin */
	uint64_t left;   /* to be submitted */
	uint64_t completed;
	unsigned int busy; /* under way */
	int error;
};

static bool writes(const struct snap_row *row)
{
	return row->kind == SNAP_FRESH || row->kind == SNAP_REWRITE;
}

static void submit(struct snap_load *load, struct dmcore_bio *bio)
{
	int ret;

	load->busy++;
	ret = dmcore_bio_submit(bio);
	if (ret) {
		load->busy--;
		load->error = ret;
	}
}

static void submit_next(struct snap_load *load, unsigned int i)
{
	struct dmcore_bio *bio = load->bios[i];

	load->left--;
	bio->bdev = load->bdev;
	bio->op = writes(load->row) ? DMCORE_OP_WRITE : DMCORE_OP_READ;
	bio->sector = load->next_block * BENCH_BLOCK_SECTORS;
	bio->count = BENCH_BLOCK_SECTORS;
	bio->vecs = &load->vecs[i];
	bio->num_vecs = 1;
	bio->vec_offset_bytes = 0;
	load->next_block = (load->next_block + load->row->step_blocks) % load->blocks;
	submit(load, bio);
}

static void submit_flush(struct snap_load *load, struct dmcore_bio *bio)
{
	bio->bdev = load->bdev;
	bio->op = DMCORE_OP_FLUSH;
	bio->sector = 0;
	bio->count = 0;
	bio->vecs = NULL;
	bio->num_vecs = 0;
	submit(load, bio);
}

static void ended(struct dmcore_bio *bio)
{
	struct snap_load *load = bio->context;
	unsigned int i = 0;

	load->busy--;
	if (bio->status && !load->error)
		load->error = bio->status;
	if (load->row->flushes && bio->op == DMCORE_OP_WRITE && !load->error) {
		submit_flush(load, bio);
		return;
	}
	load->completed++;
	while (load->bios[i] != bio)
		i++;
	if (load->left > 0 && !load->error)
		submit_next(load, i);
}

static int run_load(struct snap_load *load, uint64_t count)
{
	const struct rig *rig = load->row->rig;

	load->left = count;
	for (unsigned int i = 0; i < load->row->depth && load->left > 0 && !load->error; i++)
		submit_next(load, i);
	while (load->busy > 0) {
		int ret = dmcore_queue_poll(rig->queue, 1, load->row->depth, -1);

		if (ret < 0 && ret != -EINTR)
			return ret;
	}
	return load->error;
}

static int open_load(struct snap_load *load, const struct snap_row *row, struct dmcore_bdev *bdev)
{
	memset(load, 0, sizeof(*load));
	load->row = row;
	load->bdev = bdev;
	load->blocks = row->files->bytes / BENCH_BLOCK_BYTES;
	for (unsigned int i = 0; i < row->depth; i++) {
		struct dmcore_bio *bio = dmcore_bio_get(row->rig->queue);

		if (!bio)
			return -EBUSY;
		bio->done = ended;
		bio->context = load;
		load->vecs[i].base = row->rig->buffers + (size_t)i * BENCH_BLOCK_BYTES;
		load->vecs[i].len_bytes = BENCH_BLOCK_BYTES;
		load->bios[i] = bio;
	}
	return 0;
}

static void close_load(struct snap_load *load)
{
	for (unsigned int i = 0; i < BENCH_BATCH_MAX; i++) {
		if (load->bios[i])
			dmcore_bio_put(load->bios[i]);
	}
}

/* ---- a run ---- */

static int remove_device(struct rig *rig, const char *name)
{
	struct dmcore_device *device = dmcore_device_find(rig->core, name);
	int ret = device ? dmcore_device_remove(device) : 0;

	return ret ? bench_fail(rig->bench, ret, "%s: %s", name, dmcore_error_message()) : 0;
}

static struct dmcore_bdev *map_snapshot(const struct snap_row *row, const char *cow)
{
	char table[2 * SNAP_PATH_BYTES + 64];
	char origin[SNAP_PATH_BYTES];

	snap_path(row->files, "origin", 0, origin);
	snprintf(table, sizeof(table), "0 %llu snapshot %s %s P %u",
		 (unsigned long long)(row->files->bytes / DMCORE_SECTOR_BYTES), origin, cow,
		 row->chunk_sectors);
	return rig_map(row->rig, "snapshot", table);
}

/* The COW device that a kind of row needs. */
static int prepare_cow(const struct snap_row *row, char path[SNAP_PATH_BYTES])
{
	bool mapped = row->kind == SNAP_REWRITE || row->kind == SNAP_MAPPED;

	snap_path(row->files, mapped ? "cow" : "fresh", row->chunk_sectors, path);
	if (mapped && access(path, F_OK) == 0)
		return 0;
	return snap_make_file(row->files, path, 2 * row->files->bytes);
}

static int run_on(const struct snap_row *row, const char *cow, struct bench_run *run)
{
	struct dmcore_bdev *bdev = map_snapshot(row, cow);
	struct snap_load load;
	uint64_t began_ns;
	int ret;

	if (!bdev)
		return -EIO;
	ret = open_load(&load, row, bdev);
	began_ns = bench_now_ns();
	if (ret == 0)
		ret = run_load(&load, run->count);
	run->elapsed_ns = bench_now_ns() - began_ns;
	run->completed = load.completed;
	close_load(&load);
	if (remove_device(row->rig, "snapshot") && ret == 0)
		ret = -EIO;
	return ret;
}

/* Gives every chunk an exception, so that rows find all mapped. */
static int fill_cow(const struct snap_row *row, const char *cow)
{
	struct snap_row fill = *row;
	struct bench_run run = { 0 };
	uint64_t chunk_blocks = row->chunk_sectors / BENCH_BLOCK_SECTORS;

	fill.kind = SNAP_FRESH;
	fill.depth = 32;
	fill.step_blocks = 5 * chunk_blocks;
	run.count = row->files->bytes / BENCH_BLOCK_BYTES / chunk_blocks;
	return run_on(&fill, cow, &run);
}

int snap_run(void *context, struct bench_run *run)
{
	const struct snap_row *row = context;
	char cow[SNAP_PATH_BYTES];
	bool mapped = row->kind == SNAP_REWRITE || row->kind == SNAP_MAPPED;
	char path[SNAP_PATH_BYTES];
	int ret;

	snap_path(row->files, "cow", row->chunk_sectors, path);
	mapped = mapped && access(path, F_OK);
	ret = prepare_cow(row, cow);
	if (ret == 0 && mapped)
		ret = fill_cow(row, cow);
	if (ret)
		return ret;
	snap_settle(row->files);
	ret = run_on(row, cow, run);
	if (row->kind == SNAP_FRESH || row->kind == SNAP_UNMAPPED)
		unlink(cow);
	return ret;
}

int snap_count_commits(struct snap_row *row, uint64_t count)
{
	struct bench_run run = { .count = count };
	char table[SNAP_PATH_BYTES + 64];
	char cow[SNAP_PATH_BYTES];
	int ret = dmcore_target_register(row->rig->core, &counting_type);

	if (ret == -EEXIST)
		ret = 0;
	if (ret == 0)
		ret = prepare_cow(row, cow);
	if (ret)
		return ret;
	snprintf(table, sizeof(table), "0 %llu counting %s",
		 (unsigned long long)(2 * row->files->bytes / DMCORE_SECTOR_BYTES), cow);
	if (!rig_map(row->rig, "counted", table))
		return -EIO;
	atomic_store(&commits, 0);
	ret = run_on(row, "/dev/mapper/counted", &run);
	row->num_commits = atomic_load(&commits);
	if (remove_device(row->rig, "counted") && ret == 0)
		ret = -EIO;
	unlink(cow);
	return ret;
}
