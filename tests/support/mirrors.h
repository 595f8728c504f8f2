/* SPDX-License-Identifier: MIT */
/*
 * What tests of mirrors stand on: disks of the driver "fault" for legs and log, one mirror over
 * them, and a service and a clock that move only when the test says so. Everything here asserts
 * that it worked, unless it says otherwise.
 *
 *	TestSuite(mirror, .init = mirrors_open, .fini = mirrors_close);
 */
#ifndef DMCORE_TESTS_SUPPORT_MIRRORS_H
#define DMCORE_TESTS_SUPPORT_MIRRORS_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>

#include "fault_driver.h"
#include "stage.h"

#define MIRRORS_SECTORS 256u
#define MIRRORS_REGION_SECTORS 16u
#define MIRRORS_REGIONS (MIRRORS_SECTORS / MIRRORS_REGION_SECTORS)
#define MIRRORS_DISKS 5u
/* Requests that mirrors_start() has buffers for. */
#define MIRRORS_REQUESTS_MAX 64u
/* Longer than recovery pauses after its first failures, or than a region takes to be cleaned. */
#define MIRRORS_PAUSE_NS UINT64_C(2000000000)

struct mirrors {
	struct stage stage;
	uint64_t now_ns;
	struct dmcore_device *device;
	struct dmcore_bdev *bdev;
	struct fault_disk *disks[MIRRORS_DISKS];
	struct fault_disk *log;
	unsigned int num_started;
};

extern struct mirrors mirrors;

struct mirrors_table {
	const char *legs;     /* a digit for each disk: "01" */
	bool disk;            /* the log's type, or else core */
	const char *sync;     /* "nosync", "sync" or NULL */
	const char *features; /* "1 handle_errors" or NULL */
};

/* The disks: sector s of each holds version 0 of its pattern, and the log has all for clean. */
void mirrors_open(void);
void mirrors_close(void);

/* Polls queue and service until nothing happens any more. */
void mirrors_settle(void);
/* The same, so much later. */
void mirrors_pass_ns(uint64_t ns);
/* Lets time pass until all is in sync. */
void mirrors_await_in_sync(void);
/* Polls until so many have ended. */
void mirrors_wait(struct tally *tally, unsigned int count);

/* The mirror, running. */
void mirrors_map(const struct mirrors_table *table);
/* Makes another table live. */
void mirrors_load(const struct mirrors_table *table);
void mirrors_suspend(unsigned int flags);
void mirrors_resume(void);
void mirrors_remove(void);

/* One request; returns its status. */
int mirrors_run(enum dmcore_op op, unsigned int flags, uint64_t sector, uint64_t count,
		void *buffer);
int mirrors_try_write(unsigned int flags, uint64_t sector, uint64_t count, uint32_t version);
void mirrors_write(uint64_t sector, uint64_t count, uint32_t version);
int mirrors_try_read(uint64_t sector, uint64_t count);
int mirrors_flush(void);
/* Submits a write, and doesn't wait for it. */
void mirrors_start(unsigned int flags, uint64_t sector, uint64_t count, uint32_t version,
		   struct tally *tally);
/* That sectors of the mirror, or of a disk below it, hold this version. */
void mirrors_expect(uint64_t sector, uint64_t count, uint32_t version);
void mirrors_expect_disk(unsigned int disk, uint64_t sector, uint64_t count, uint32_t version);
/* That two disks hold the same. */
void mirrors_expect_same(unsigned int disk, unsigned int other);

/* That status has so many regions in sync, and these letters; `log`: of one on disk, or NULL. */
void mirrors_expect_status(unsigned int in_sync, const char *health, const char *log);
uint32_t mirrors_events(void);
/* Whether the log on disk has a region for clean; and has it so. */
bool mirrors_is_clean(uint64_t region);
void mirrors_set_clean(uint64_t region, bool clean);
void mirrors_fail(struct fault_disk *disk, unsigned int ops, unsigned int skip,
		  unsigned int times);

#endif
