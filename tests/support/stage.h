/* SPDX-License-Identifier: MIT */
/*
 * What tests of queues, requests and stacks of devices stand on: a core that keeps what it logs, a
 * queue, devices opened by their specification and mapped by their table, and requests that are
 * counted. Asserts that all works, unless it says otherwise.
 */
#ifndef DMCORE_TESTS_SUPPORT_STAGE_H
#define DMCORE_TESTS_SUPPORT_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

#include "fault_driver.h"

/* The longest that a test waits for anything, nanoseconds. */
#define STAGE_PATIENCE_NS INT64_C(20000000000)
#define STAGE_DEVICES_MAX 64

struct stage {
	struct dmcore *core;
	struct dmcore_queue *queue;
	unsigned int num_bdevs;
	struct dmcore_bdev *bdevs[STAGE_DEVICES_MAX]; /* opened by stage_bdev(), oldest first */
	unsigned int num_devices;
	struct dmcore_device *devices[STAGE_DEVICES_MAX];
	_Atomic unsigned int num_logged; /* errors and warnings */
	char logged[256];                /* the last of them */
};

/* What has become of some requests: the context of their bios. */
struct tally {
	unsigned int ended;
	unsigned int failed;
	int status; /* of the last one that failed, else 0 */
};

/* The driver "fault" is registered. NULL: the defaults, with the backend of the environment. */
void stage_open(struct stage *stage, const struct dmcore_options *options,
		const struct dmcore_queue_options *queue_options);
/* Removes the devices and closes the bdevs, youngest first; the queue too, if it is still there. */
void stage_close(struct stage *stage);

/* Opens a device that stage_close() closes. */
struct dmcore_bdev *stage_bdev(struct stage *stage, const char *spec, unsigned int flags);
/* Opens "fault:SECTORS,id=N" and what `args` says behind that. */
struct fault_disk *stage_disk(struct stage *stage, unsigned int id, uint64_t sectors,
			      const char *args);
/* The same disk's specification, for a table: "fault:SECTORS,id=N<args>". */
const char *stage_disk_spec(unsigned int id, uint64_t sectors, const char *args);
/* Makes a mapped device of a table's text, running; stage_close() removes it. */
struct dmcore_bdev *stage_map(struct stage *stage, const char *name, const char *table);

/* A bio of the queue's pool whose end is counted in `tally`, which then takes it back. */
struct dmcore_bio *stage_bio(struct stage *stage, struct dmcore_bdev *bdev, enum dmcore_op op,
			     uint64_t sector, uint64_t count, void *buffer, struct tally *tally);
/* Submits one, which must be accepted. */
void stage_submit(struct stage *stage, struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector,
		  uint64_t count, void *buffer, struct tally *tally);
/* Polls until so many have ended, and sees that no more do. */
void stage_wait(struct stage *stage, struct tally *tally, unsigned int count);
/* Polls without waiting, until nothing happens any more. */
void stage_settle(struct stage *stage);
/* Carries out one request, with these flags; returns its status. */
int stage_run(struct stage *stage, struct dmcore_bdev *bdev, enum dmcore_op op, unsigned int flags,
	      uint64_t sector, uint64_t count, void *buffer);
/* A dmcore_bio_done_fn: counts in the tally that is the context, and puts a pooled bio back. */
void tally_done(struct dmcore_bio *bio);

/* The backend of the stage's queue. */
enum dmcore_backend stage_backend(struct stage *stage);
/* Whether this process can have io_uring at all. */
bool stage_has_io_uring(void);
/* CLOCK_MONOTONIC. */
uint64_t stage_now_ns(void);
/* Sleeps. */
void stage_sleep_ns(uint64_t ns);

/* Bytes that tell by which sector they are and which version: 512 each. */
void pattern_fill(void *buffer, uint64_t sector, uint64_t count, uint32_t version);
/* The first sector of `count` that doesn't hold that, or -1. */
int64_t pattern_differs(const void *buffer, uint64_t sector, uint64_t count, uint32_t version);

#endif
