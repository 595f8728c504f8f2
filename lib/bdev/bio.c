/* SPDX-License-Identifier: MIT */
/*
 * The life of a bio: submission goes down in a loop, device by device; completion comes up in a
 * loop, frame by frame, from the queue's poll. Neither recurses, whatever the stack.
 */
#include "bdev/bio.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"

void dmcore_bio_init(struct dmcore_bio *bio, struct dmcore_queue *queue)
{
	memset(bio, 0, offsetof(struct dmcore_bio, frames));
	bio->queue = queue;
}

struct dmcore_bio *dmcore_bio_get(struct dmcore_queue *queue)
{
	struct dmcore_bio *bio = queue ? queue->free_bios : NULL;

	if (!bio)
		return NULL;
	queue->free_bios = bio->next;
	queue->bios_out++;
	dmcore_bio_init(bio, queue);
	bio->internal.origin = DMCORE__BIO_POOLED;
	return bio;
}

void dmcore_bio_put(struct dmcore_bio *bio)
{
	struct dmcore_queue *queue;

	if (!bio)
		return;
	queue = bio->queue;
	if (bio->internal.origin != DMCORE__BIO_POOLED ||
	    bio->internal.state != DMCORE__BIO_IDLE) {
		dmcore__log(queue->core, DMCORE_LOG_ERROR,
			    "dmcore_bio_put: the bio is in flight, or not from the pool; ignored");
		return;
	}
	bio->internal.origin = DMCORE__BIO_FREE;
	bio->next = queue->free_bios;
	queue->free_bios = bio;
	queue->bios_out--;
}

void dmcore_bio_set_buffer(struct dmcore_bio *bio, void *buffer, size_t bytes)
{
	bio->vec.base = buffer;
	bio->vec.len_bytes = bytes;
	bio->vecs = &bio->vec;
	bio->num_vecs = 1;
	bio->vec_offset_bytes = 0;
	bio->count = dmcore__bytes_to_sectors(bytes);
}

void *dmcore_bio_driver_data(struct dmcore_bio *bio)
{
	return bio->driver_data;
}

/* From the device that bio->bdev names downwards, and then whatever was submitted meanwhile. */
static inline void submit_loop(struct dmcore_queue *queue, struct dmcore_bio *bio)
{
	dmcore__queue_set_submitting(queue, true);
	do {
		enum dmcore__route result;

		do {
			struct dmcore_bdev *bdev = bio->bdev;
			dmcore__route_fn route = dmcore__bdev_route(bdev);

			if (!route) {
				dmcore__leaf_submit(bdev, bio);
				result = DMCORE__ROUTE_TAKEN;
				break;
			}
			result = route(bdev, bio);
		} while (result == DMCORE__ROUTE_NEXT);
		if (dmcore__unlikely(result > DMCORE__ROUTE_NEXT))
			dmcore_bio_complete(bio, -EIO);
		bio = dmcore__chain_pop(&queue->pending);
	} while (dmcore__unlikely(bio != NULL));
	dmcore__queue_set_submitting(queue, false);
}

void dmcore__bio_send(struct dmcore_bio *bio)
{
	struct dmcore_queue *queue = bio->queue;

	if (dmcore__queue_submitting(queue))
		dmcore__chain_append(&queue->pending, bio);
	else
		submit_loop(queue, bio);
}

/* Flags that make sense with each operation. */
static const uint16_t legal_flags[DMCORE_OP_COUNT] = {
	[DMCORE_OP_READ] = DMCORE_BIO_NOWAIT | DMCORE_BIO_RAHEAD,
	[DMCORE_OP_WRITE] = DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH | DMCORE_BIO_NOWAIT,
	[DMCORE_OP_FLUSH] = DMCORE_BIO_NOWAIT,
	[DMCORE_OP_DISCARD] = DMCORE_BIO_NOWAIT,
	[DMCORE_OP_WRITE_ZEROES] = DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH | DMCORE_BIO_NOWAIT,
};

/*
 * Where the data begin in an entry is 32 bits, and a split of a long request may leave them
 * anywhere in it: no entry may be longer than that.
 */
static bool entries_fit_split(const struct dmcore_bio *bio)
{
	for (uint32_t i = 0; i < bio->num_vecs; i++) {
		if (bio->vecs[i].len_bytes > UINT32_MAX)
			return false;
	}
	return true;
}

/* Whether the fields that the submitter sets make sense by themselves. */
static DMCORE__NOINLINE bool well_formed(const struct dmcore_bio *bio)
{
	uint64_t end;

	if (bio->op >= DMCORE_OP_COUNT || bio->flags & ~legal_flags[bio->op])
		return false;
	if (bio->op == DMCORE_OP_FLUSH)
		return true;
	/* 0 wraps round to more than any device has. */
	if (bio->count - 1 >= DMCORE_DEVICE_SECTORS_MAX ||
	    dmcore__add_overflows(bio->sector, bio->count, &end))
		return false;
	if (bio->op > DMCORE_OP_WRITE)
		return true;
	if (!bio->vecs || bio->num_vecs == 0 || bio->vec_offset_bytes >= bio->vecs->len_bytes)
		return false;
	return bio->vec_offset_bytes + (bio->count << DMCORE_SECTOR_SHIFT) <= UINT32_MAX ||
	       entries_fit_split(bio);
}

/* 2 GiB, which 32 bits count. */
#define PLAIN_SECTORS_MAX (UINT32_C(1) << 22)

/* The same of nearly every READ and WRITE, by fewer questions; false: it isn't so simple. */
static inline bool surely_well_formed(const struct dmcore_bio *bio)
{
	uint64_t num_vecs_and_offset = (uint64_t)bio->vec_offset_bytes << 32 | bio->num_vecs;

	return dmcore__bio_word(bio) <= DMCORE__WORD_WRITE &&
	       bio->count - 1 < PLAIN_SECTORS_MAX && bio->sector < DMCORE_DEVICE_SECTORS_MAX &&
	       bio->vecs && num_vecs_and_offset == 1 && bio->vecs->len_bytes != 0;
}

/* From within a submission; or the first one of a queue, which is its submitter's from now on. */
static DMCORE__NOINLINE void submit_inside(struct dmcore_queue *queue, struct dmcore_bio *bio)
{
	if (!atomic_load_explicit(&queue->owned, memory_order_relaxed)) {
		dmcore__queue_own(queue);
		submit_loop(queue, bio);
	} else {
		dmcore__chain_append(&queue->pending, bio);
	}
}

int dmcore_bio_submit(struct dmcore_bio *bio)
{
	struct dmcore_queue *queue;

	if (dmcore__unlikely(!bio || !bio->queue || !bio->bdev))
		return -EINVAL;
	if (dmcore__unlikely(!surely_well_formed(bio))) {
		if (!well_formed(bio))
			return -EINVAL;
	}
	queue = bio->queue;
	if (dmcore__unlikely(bio->bdev->core != dmcore__living(queue->core)))
		return bio->bdev->core != queue->core ? -EINVAL : -EOWNERDEAD;
	if (dmcore__unlikely(bio->internal.state != DMCORE__BIO_IDLE))
		return -EBUSY;
	dmcore__bio_set_state(bio, DMCORE__BIO_INFLIGHT);
	queue->inflight++;
	if (dmcore__unlikely(dmcore__queue_submitting(queue)))
		submit_inside(queue, bio);
	else
		submit_loop(queue, bio);
	return 0;
}

/*
 * Pops the frames that only count, down to one that wants more; false: none is left. A request that
 * has ended leaves its devices at once, not when its owner comes round to poll: whoever suspends
 * one mustn't wait for a thread that isn't running.
 */
static inline bool pop_plain_frames(struct dmcore_queue *queue, struct dmcore_bio *bio)
{
	uint32_t top_bytes = bio->internal.top_bytes;
	const struct dmcore__frame *frame;

	if (top_bytes == 0)
		return false;
	do {
		frame = (const struct dmcore__frame *)(const void *)(bio->frames + top_bytes) - 1;
		if (frame->end && (!frame->errors_only || bio->status))
			break;
		dmcore__slot_leave(queue, frame->slot);
		top_bytes -= frame->bytes;
	} while (top_bytes);
	bio->internal.top_bytes = (uint16_t)top_bytes;
	return top_bytes != 0;
}

static inline void end(struct dmcore_bio *bio, int status, bool remote)
{
	struct dmcore_queue *queue = bio->queue;

	bio->status = status;
	dmcore__bio_set_state(bio, DMCORE__BIO_READY);
	if (remote) {
		dmcore__queue_post_bio(queue, bio);
		return;
	}
	pop_plain_frames(queue, bio);
	dmcore__chain_append(&queue->ready, bio);
}

/*
 * Of a bio that has failed, or isn't in flight. A failed flush is told at once: who waits for a
 * flush of his own mustn't take its end for more than it is.
 */
static DMCORE__NOINLINE void end_unusually(struct dmcore_bio *bio, int status, bool remote)
{
	if (bio->internal.state != DMCORE__BIO_INFLIGHT) {
		dmcore__log(bio->queue->core, DMCORE_LOG_ERROR,
			    "dmcore_bio_complete%s: the bio is not in flight; ignored",
			    remote ? "_remote" : "");
		return;
	}
	if (bio->op == DMCORE_OP_FLUSH && !dmcore__bdev_route(bio->bdev))
		atomic_fetch_add(&bio->bdev->num_failed_flushes, 1);
	end(bio, status, remote);
}

void dmcore_bio_complete(struct dmcore_bio *bio, int status)
{
	if (dmcore__unlikely(bio->internal.state != DMCORE__BIO_INFLIGHT || status))
		end_unusually(bio, status, false);
	else
		end(bio, 0, false);
}

void dmcore_bio_complete_remote(struct dmcore_bio *bio, int status)
{
	if (dmcore__unlikely(bio->internal.state != DMCORE__BIO_INFLIGHT || status))
		end_unusually(bio, status, true);
	else
		end(bio, 0, true);
}

/* The bio, which is ready, is its submitter's again. */
static inline void hand_back(struct dmcore_queue *queue, struct dmcore_bio *bio)
{
	queue->inflight--;
	if (dmcore__unlikely(!bio->done)) {
		dmcore__chain_append(&queue->reapable, bio);
		return;
	}
	bio->internal.state = DMCORE__BIO_IDLE;
	bio->done(bio);
}

unsigned int dmcore_queue_reap(struct dmcore_queue *queue, struct dmcore_bio **bios,
			       unsigned int max)
{
	unsigned int count = 0;

	if (!queue || !bios || !dmcore__alive(queue->core))
		return 0;
	while (count < max && queue->reapable.head) {
		bios[count] = dmcore__chain_pop(&queue->reapable);
		dmcore__bio_set_state(bios[count], DMCORE__BIO_IDLE);
		count++;
	}
	return count;
}

/* Deals with the frames of a completed bio; 1 if it has ended, 0 if it goes on. */
static DMCORE__NOINLINE unsigned int unwind(struct dmcore_queue *queue, struct dmcore_bio *bio)
{
	dmcore__bio_set_state(bio, DMCORE__BIO_INFLIGHT);
	while (bio) {
		while (pop_plain_frames(queue, bio)) {
			struct dmcore__frame *frame = dmcore__frame_top(bio);
			enum dmcore__unwind next = frame->end(bio, frame);

			if (next == DMCORE__UNWIND_STOP)
				return 0;
			if (next == DMCORE__UNWIND_SUBMIT) {
				dmcore__bio_send(bio);
				return 0;
			}
		}
		if (dmcore__likely(bio->internal.origin != DMCORE__BIO_PIECE)) {
			dmcore__bio_set_state(bio, DMCORE__BIO_READY);
			hand_back(queue, bio);
			return 1;
		}
		bio = dmcore__fan_piece_done(bio);
	}
	return 0;
}

/* Whether a bio is ready, without frames, and no piece. */
static inline bool is_unwound(const struct dmcore_bio *bio)
{
	const struct dmcore_bio_internal *internal = &bio->internal;
	uint32_t word = (uint32_t)internal->top_bytes | (uint32_t)internal->state << 16 |
			(uint32_t)internal->origin << 24;

	return (word & ~((uint32_t)DMCORE__BIO_POOLED << 24)) == DMCORE__BIO_READY << 16;
}

/*
 * Only what is ready now: callbacks that submit again and complete at once don't keep the poll from
 * returning.
 */
static unsigned int run_ready(struct dmcore_queue *queue, unsigned int max)
{
	struct dmcore__bio_chain chain = queue->ready;
	unsigned int ended = 0;
	struct dmcore_bio *bio;

	queue->ready.head = NULL;
	queue->rounds++;
	while (ended < max && (bio = dmcore__chain_pop(&chain))) {
		if (dmcore__unlikely(!is_unwound(bio))) {
			ended += unwind(queue, bio);
			continue;
		}
		hand_back(queue, bio);
		ended++;
	}
	if (chain.head) {
		chain.tail->next = queue->ready.head;
		if (!queue->ready.head)
			queue->ready.tail = chain.tail;
		queue->ready.head = chain.head;
	}
	return ended;
}

void dmcore__bio_defer(struct dmcore_bio *bio)
{
	struct dmcore_queue *queue = bio->queue;
	uint32_t now = atomic_load_explicit(&queue->num_deferred, memory_order_relaxed);

	atomic_fetch_add_explicit(&bio->bdev->num_deferred, 1, memory_order_relaxed);
	dmcore__chain_append(&queue->deferred, bio);
	atomic_store_explicit(&queue->num_deferred, now + 1, memory_order_relaxed);
}

/* In order; those whose device is still suspended get in line again. */
static void replay(struct dmcore_queue *queue)
{
	struct dmcore__bio_chain chain = queue->deferred;
	struct dmcore_bio *bio;

	queue->deferred.head = NULL;
	atomic_store_explicit(&queue->num_deferred, 0, memory_order_relaxed);
	while ((bio = dmcore__chain_pop(&chain))) {
		struct dmcore_bdev *bdev = bio->bdev;

		/* It counts as deferred until it is inside, lest the device be removed under it. */
		queue->replay_slot = bdev->slot;
		dmcore__bio_send(bio);
		queue->replay_slot = DMCORE__NO_SLOT;
		atomic_fetch_sub_explicit(&bdev->num_deferred, 1, memory_order_release);
	}
}

const struct dmcore__queue_hooks dmcore__bio_hooks = {
	.run_ready = run_ready,
	.replay = replay,
};

void dmcore_bio_advance(struct dmcore_bio *bio, uint64_t sectors)
{
	uint64_t bytes = dmcore__sectors_to_bytes(sectors);

	bio->sector += sectors;
	bio->count -= sectors;
	if (bio->op > DMCORE_OP_WRITE)
		return;
	bytes += bio->vec_offset_bytes;
	while (bio->num_vecs > 0 && bytes >= bio->vecs->len_bytes) {
		bytes -= bio->vecs->len_bytes;
		bio->vecs++;
		bio->num_vecs--;
	}
	DMCORE__DEBUG_ASSERT(bytes <= UINT32_MAX);
	bio->vec_offset_bytes = (uint32_t)bytes;
}

/* Calls `fn` for each contiguous run of a bio's memory; -EFAULT if there is too little. */
static int each_run(struct dmcore_bio *bio, void (*fn)(char *run, size_t bytes, char **cursor),
		    char *cursor)
{
	uint64_t left = dmcore__sectors_to_bytes(bio->count);
	uint64_t offset = bio->vec_offset_bytes;

	for (uint32_t i = 0; i < bio->num_vecs && left > 0; i++) {
		const struct dmio_bvec *vec = &bio->vecs[i];
		size_t bytes = vec->len_bytes - offset;

		if (bytes > left)
			bytes = left;
		fn((char *)vec->base + offset, bytes, &cursor);
		left -= bytes;
		offset = 0;
	}
	return left ? -EFAULT : 0;
}

static void zero_run(char *run, size_t bytes, char **cursor)
{
	(void)cursor;
	memset(run, 0, bytes);
}

static void copy_to_run(char *run, size_t bytes, char **cursor)
{
	memcpy(run, *cursor, bytes);
	*cursor += bytes;
}

static void copy_from_run(char *run, size_t bytes, char **cursor)
{
	memcpy(*cursor, run, bytes);
	*cursor += bytes;
}

int dmcore_bio_zero_fill(struct dmcore_bio *bio)
{
	return each_run(bio, zero_run, NULL);
}

int dmcore_bio_copy(struct dmcore_bio *bio, void *buffer)
{
	return each_run(bio, bio->op == DMCORE_OP_READ ? copy_to_run : copy_from_run, buffer);
}

_Static_assert(DMCORE_OP_READ == 0 && DMCORE_OP_WRITE == DMCORE__WORD_WRITE &&
		       DMCORE_OP_COUNT <= DMCORE__WORD_NO_RW,
	       "the bits of an operation tell whether it is one of these two");

_Static_assert(sizeof(void *) != 8 || offsetof(struct dmcore_bdev, name) == 64,
	       "what a request reads of its device is one cache line");

/* The layout that users compile in, and that the hot path counts on. */
_Static_assert(sizeof(void *) != 8 || offsetof(struct dmcore_bio, done) == 64,
	       "the first cache line holds all that mapping needs");
_Static_assert(sizeof(void *) != 8 || offsetof(struct dmcore_bio, frames) == 128,
	       "completion needs the second line, frames begin on the third");
_Static_assert(sizeof(void *) != 8 || sizeof(struct dmcore_bio) % 64 == 0,
	       "the bios of a pool all begin on a line");
