/* SPDX-License-Identifier: MIT */
/*
 * Writes that the service carries out for a request, with a bio of its own: others wait for their
 * end, which mustn't depend on when the request's queue is polled. Called on the service by
 * requests.c and merge.c.
 */
#include <errno.h>

#include <dmcore/driver.h>

#include "targets/snapshot/snapshot.h"

struct carrier {
	struct dmcore_bio bio;
	struct snapshot *snapshot;
	struct snapshot_request *request;
	void (*done)(struct snapshot_request *request, int status);
	struct carrier *next; /* free */
};

int dmcore__carriers_create(struct snapshot *snapshot)
{
	struct carrier *array = dmcore_zalloc(snapshot->core, SNAPSHOT_CARRIERS * sizeof(*array));

	if (!array)
		return -ENOMEM;
	dmcore__waiters_init(&snapshot->carrier_waiters);
	snapshot->carrier_array = array;
	snapshot->free_carrier = NULL;
	for (unsigned int i = 0; i < SNAPSHOT_CARRIERS; i++) {
		array[i].snapshot = snapshot;
		array[i].next = snapshot->free_carrier;
		snapshot->free_carrier = &array[i];
	}
	return 0;
}

void dmcore__carriers_destroy(struct snapshot *snapshot)
{
	dmcore_free(snapshot->core, snapshot->carrier_array);
	snapshot->carrier_array = NULL;
	snapshot->free_carrier = NULL;
}

static void carried(struct dmcore_bio *bio)
{
	struct carrier *carrier = bio->context;
	struct snapshot *snapshot = carrier->snapshot;
	struct snapshot_waiter *waiter;
	int status = bio->status;

	carrier->next = snapshot->free_carrier;
	snapshot->free_carrier = carrier;
	carrier->done(carrier->request, status);
	while (snapshot->free_carrier &&
	       (waiter = dmcore__waiters_take(&snapshot->carrier_waiters)))
		waiter->wake(waiter);
}

bool dmcore__carry(struct snapshot_request *request, uint64_t cow_sector,
		   void (*done)(struct snapshot_request *request, int status))
{
	struct snapshot *snapshot = request->snapshot;
	struct carrier *carrier = snapshot->free_carrier;
	struct dmcore_bio *bio;
	int ret;

	if (!carrier)
		return false;
	snapshot->free_carrier = carrier->next;
	carrier->request = request;
	carrier->done = done;
	bio = &carrier->bio;
	dmcore_bio_init(bio, snapshot->service);
	bio->bdev = snapshot->cow_bdev;
	bio->op = DMCORE_OP_WRITE;
	bio->flags = request->flags & DMCORE_BIO_FUA;
	bio->sector = cow_sector;
	bio->count = request->count;
	bio->vecs = request->vecs;
	bio->num_vecs = request->num_vecs;
	bio->vec_offset_bytes = request->vec_offset_bytes;
	bio->done = carried;
	bio->context = carrier;
	ret = dmcore_bio_submit(bio);
	if (ret) {
		bio->status = ret;
		carried(bio);
	}
	return true;
}
