/* SPDX-License-Identifier: MIT */
/*
 * snapshot-merge: a snapshot that is given back to its origin. It reads as the snapshot does, while
 * its exceptions are copied to the origin one run after the other; then it is the origin.
 *
 * Table line:  as snapshot's, with a persistent store
 *
 * What has no exception, or none any more, is read and written in the origin, whose other snapshots
 * get their copies first. Called by the core through the type at the end; the work is done in
 * targets/snapshot/merge.c.
 */
#include <errno.h>

#include <dmcore/target.h>

#include "base/compiler.h"
#include "targets/snapshot/snapshot.h"

static int merge_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	return dmcore__snapshot_construct(target, args, true);
}

static enum dmcore_map_result map_read(const struct snapshot_target *own, struct dmcore_bio *bio)
{
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_request *request = dmcore_bio_target_data(bio);
	enum exceptions_result result;
	uint64_t new_chunk;

	result = dmcore__exceptions_find(snapshot->exceptions,
					 dmcore__snapshot_chunk(snapshot, bio->sector), &new_chunk,
					 &request->version);
	if (result == EXCEPTIONS_BUSY) {
		dmcore__request_post(request, snapshot->service, dmcore__request_merge_read);
		return DMCORE_MAP_SUBMITTED;
	}
	bio->bdev = own->origin_bdev;
	if (result == EXCEPTIONS_FOUND && dmcore__snapshot_is_valid(snapshot)) {
		bio->bdev = own->cow_bdev;
		bio->sector = dmcore__snapshot_cow_sector(snapshot, new_chunk, bio->sector);
	}
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_map_result merge_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct snapshot_target *own = target->private_data;
	struct snapshot_request *request = dmcore_bio_target_data(bio);

	request->snapshot = own->snapshot;
	dmcore__request_keep(request, bio);
	if (dmcore__unlikely(atomic_load(&own->lost)))
		return DMCORE_MAP_KILL;
	switch (bio->op) {
	case DMCORE_OP_READ:
		return map_read(own, bio);
	case DMCORE_OP_FLUSH:
		bio->bdev = bio->bio_nr == 0 ? own->origin_bdev : own->cow_bdev;
		return DMCORE_MAP_REMAPPED;
	case DMCORE_OP_DISCARD:
		dmcore_bio_complete(bio, 0);
		return DMCORE_MAP_SUBMITTED;
	default:
		dmcore__request_post(request, own->snapshot->service,
				     dmcore__request_merge_write);
		return DMCORE_MAP_SUBMITTED;
	}
}

static unsigned int merge_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	const struct snapshot_target *own = target->private_data;

	if (op == DMCORE_OP_FLUSH)
		return 2;
	return op == DMCORE_OP_DISCARD && own->discard_zeroes;
}

extern const struct dmcore_target_type dmcore__target_snapshot_merge;

const struct dmcore_target_type dmcore__target_snapshot_merge = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "snapshot-merge",
	.version = { 1, 5, 0 },
	.per_bio_bytes = sizeof(struct snapshot_request),
	.ctr = merge_ctr,
	.dtr = dmcore__snapshot_leave,
	.map = merge_map,
	.num_bios = merge_num_bios,
	.presuspend = dmcore__snapshot_presuspend,
	.postsuspend = dmcore__snapshot_postsuspend,
	.preresume = dmcore__snapshot_preresume,
	.resume = dmcore__snapshot_resume,
	.status = dmcore__snapshot_status,
	.iterate_devices = dmcore__snapshot_iterate_devices,
	.extent = dmcore__snapshot_extent,
};
