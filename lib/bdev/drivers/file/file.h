/* SPDX-License-Identifier: MIT */
/*
 * What the files of the file driver share: an open file, and a request on its way to it.
 *
 *	file.c      the driver: which device, and the path of the plain read and write
 *	open.c      opens, and asks the kernel for size, alignment and abilities
 *	request.c   all other requests: who does them, and the loop of their system calls
 *	transfer.c  reads and writes: short counts, vectors, bounce buffers, FUA
 *	range.c     DISCARD and WRITE_ZEROES
 *	copy.c      copies within the kernel
 *	extent.c    where the file has holes
 *	sync.c      FLUSH, who asks which opening of the file, and the memory of a sync that failed
 */
#ifndef DMCORE_LIB_BDEV_DRIVERS_FILE_FILE_H
#define DMCORE_LIB_BDEV_DRIVERS_FILE_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/context.h>
#include <dmcore/driver.h>

/* How zeroes are written: the first that the file takes, found out by trying. */
enum filedev_zeroing {
	FILEDEV_ZERO_RANGE, /* fallocate(): zeroed, and stays allocated */
	FILEDEV_PUNCH_HOLE, /* fallocate(): zeroed and freed */
	FILEDEV_WRITE,      /* zeroes are written */
};

/* Openings of a writable file, each of which the kernel tells of failed writes once. */
#define FILEDEV_OPENINGS 4

/* The one that all calls but syncs go to. */
#define FILEDEV_MAIN 0

/* An open file or block device; the private data of its bdev. */
struct filedev {
	struct dmcore_file *file; /* openings[FILEDEV_MAIN].file */
	uint64_t memory_mask; /* direct I/O: alignment of memory - 1, else 0 */
	uint64_t length_mask; /* direct I/O: logical block - 1, else 0 */
	int claim_fd;         /* O_EXCL: keeps a node from being mounted; or -1 */
	bool is_block;        /* a node, else a regular file */
	bool read_only;

	/* Learnt on the way, by any queue's thread; none is ever taken back. */
	_Atomic bool lost;       /* a sync failed: writes may be lost */
	_Atomic bool no_dsync;   /* it refuses RWF_DSYNC */
	_Atomic bool no_discard;
	_Atomic int zeroing;     /* enum filedev_zeroing */

	/* A bit for each opening that no sync or durable write has; those who wait for one. */
	_Atomic uint32_t free_openings;
	struct dmcore_work *_Atomic waiting;
	struct {
		struct dmcore_file *file;
		int fd;
	} openings[FILEDEV_OPENINGS];
	unsigned int num_openings;
	struct dmcore_file *claim; /* of claim_fd, or NULL */
};

/* Pieces of memory that fit in a request. */
#define FILEDEV_SLICES 5

struct filedev_request;

/*
 * Deals with the result of a request's system call, io.result: never -EINTR or -EAGAIN. True: io
 * has been set up anew and is to be started. False: the request is in other hands, or has ended.
 */
typedef bool (*filedev_settle_fn)(struct filedev_request *request);

/*
 * A bio on its way, in dmcore_bio_driver_data(). The path of the plain read and write sets no more
 * than io, bio and the first slice; dmcore__filedev_begin() sets up the rest.
 */
struct filedev_request {
	struct dmcore_fileio io; /* first: its done function finds the request by it */
	struct dmcore_bio *bio;
	filedev_settle_fn settle;

	/* Transfers: what is still to be moved, from where in memory. vec NULL: zeroes. Copies:
	 * left_bytes alone. */
	const struct dmio_bvec *vec;
	uint64_t vec_offset_bytes;
	uint64_t left_bytes;
	void *bounce;            /* the buffer, once there is one */

	union {
		struct dmcore_work work;             /* waits for a poll, or an opening */
		struct dmcore_bounce_waiter waiter;  /* waits for a bounce buffer */
	} wait;
	uint16_t stalls;         /* calls in a row that moved nothing */
	bool bounced;            /* goes through a bounce buffer */
	bool sync_after;         /* FUA by a sync at the end */
	int8_t opening;          /* the one that it has for itself, or -1 */
	struct dmio_bvec slices[FILEDEV_SLICES];
};

_Static_assert(sizeof(struct filedev_request) <= DMCORE_BIO_DRIVER_BYTES,
	       "a request lives in its bio");

static inline struct filedev *dmcore__filedev_of(const struct filedev_request *request)
{
	return dmcore_bdev_private(request->bio->bdev);
}

/* open.c: as dmcore_driver::open. */
int dmcore__filedev_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags);
void dmcore__filedev_close(struct dmcore_bdev *bdev);
int dmcore__filedev_refresh(struct dmcore_bdev *bdev);

/* request.c: carries out a bio of any kind. */
void dmcore__filedev_submit(struct dmcore_bio *bio);
/* Makes a bio's request ready for any of the rest. */
struct filedev_request *dmcore__filedev_begin(struct dmcore_bio *bio);
/* Starts io, and again for as long as settle asks for it. */
void dmcore__filedev_run(struct filedev_request *request);
/* Goes on after io has ended. */
void dmcore__filedev_continue(struct filedev_request *request);
/* Goes on with dmcore__filedev_run() in the queue's next poll. */
void dmcore__filedev_run_later(struct filedev_request *request);
/* Counts a call that moved nothing. False: that was one too many. */
bool dmcore__filedev_may_stall(struct filedev_request *request);

/* transfer.c: READ and WRITE, from the start, or from the first call on, which has ended. */
void dmcore__filedev_transfer(struct filedev_request *request);
void dmcore__filedev_resume(struct filedev_request *request);
/* Turns a request into a write of zeroes. As filedev_settle_fn. */
bool dmcore__filedev_write_zeroes(struct filedev_request *request);

/* range.c */
void dmcore__filedev_discard(struct filedev_request *request);
void dmcore__filedev_zero(struct filedev_request *request);

/* copy.c: as dmcore_driver::copy. */
void dmcore__filedev_copy(struct dmcore_bdev *bdev, struct dmcore_bio *bio,
			  struct dmcore_bdev *from, uint64_t from_sector);

/* extent.c: as dmcore_driver::extent. */
int dmcore__filedev_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
			   struct dmcore_extent *extent);

/* sync.c: FLUSH. */
void dmcore__filedev_sync(struct filedev_request *request);
/* Turns a request into a sync, which ends it. As filedev_settle_fn. */
bool dmcore__filedev_become_sync(struct filedev_request *request);
/* A durable write has failed: notes that writes may be lost, if `error` leaves that open. */
void dmcore__filedev_note_loss(struct filedev *device, int error);
/* Takes the main opening for a durable write. False: another request has it. */
bool dmcore__filedev_claim_main(struct filedev_request *request);
/* Gives back the opening that a request has, if any; after what it was told has been noted. */
void dmcore__filedev_release(struct filedev_request *request);

#endif
