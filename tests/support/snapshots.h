/* SPDX-License-Identifier: MIT */
/*
 * What tests of snapshots stand on: a stage with an origin whose sectors hold version 0 of their
 * pattern, COW devices of any size, and mapped devices over them. All are disks of the driver
 * "fault". Everything here asserts that it worked, unless it says otherwise.
 *
 *	TestSuite(snapshot, .init = snapshots_open, .fini = snapshots_close);
 */
#ifndef DMCORE_TESTS_SUPPORT_SNAPSHOTS_H
#define DMCORE_TESTS_SUPPORT_SNAPSHOTS_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>
#include <dmcore/cow.h>

#include "fault_driver.h"
#include "stage.h"

#define SNAPSHOTS_ORIGIN_SECTORS 512u
#define SNAPSHOTS_ORIGIN "fault:512,id=0"
/* COW devices that snapshots_cow() makes have these, if it isn't told others. */
#define SNAPSHOTS_COW_SECTORS 256u
#define SNAPSHOTS_COW "fault:256,id=1"

struct snapshots {
	struct stage stage;
	bool manual;
	struct fault_disk *origin; /* SNAPSHOTS_ORIGIN */
	struct fault_disk *cow;    /* SNAPSHOTS_COW, zeroes */
};

extern struct snapshots snapshots;

void snapshots_open(void);
/* The same, with a core of these options. */
void snapshots_open_with(const struct dmcore_options *options);
/* The same; but nothing runs between the calls of the test, and time stands still. */
void snapshots_open_manual(void);
void snapshots_close(void);

/* Polls the queue, and a manual service, until nothing happens any more. */
void snapshots_settle(void);
/* The same, until so many have ended. */
void snapshots_wait(struct tally *tally, unsigned int count);

/* A mapped device, "0 <sectors> <type> <params>", running. */
struct dmcore_bdev *snapshots_map(const char *name, uint64_t sectors, const char *params);
/* Loads a table into a device; returns what that returned. */
int snapshots_load(const char *name, uint64_t sectors, const char *params);
/* Loads, and resumes. */
void snapshots_reload(const char *name, uint64_t sectors, const char *params);
void snapshots_suspend(const char *name);
int snapshots_resume(const char *name);
/* Removes a device. */
void snapshots_remove(const char *name);

/* Carries out one request; returns its status. */
int snapshots_run(struct dmcore_bdev *bdev, enum dmcore_op op, unsigned int flags, uint64_t sector,
		  uint64_t count, void *buffer);
/* Requests, with their pattern. */
void snapshots_write(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count, uint32_t version);
int snapshots_try_write(struct dmcore_bdev *bdev, unsigned int flags, uint64_t sector,
			uint64_t count, uint32_t version);
int snapshots_try_read(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count);
/* That sectors hold this version. */
void snapshots_expect(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		      uint32_t version);
void snapshots_expect_zeroes(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count);
/* That a disk holds it, below all. */
void snapshots_expect_disk(struct fault_disk *disk, uint64_t sector, uint64_t at, uint64_t count,
			   uint32_t version);

/* What the device's target says behind "0 <length> <type> ", without the newline. */
const char *snapshots_status(const char *name);
const char *snapshots_table(const char *name);
void snapshots_expect_status(const char *name, const char *status);
/* Polls until it says so. */
void snapshots_await_status(const char *name, const char *status);
uint32_t snapshots_events(const char *name);
/* Returns what the message returned. */
int snapshots_message(const char *name, const char *text);

/* The header of a COW device, and entry `nr` of its area 0 as they stand there. */
struct dmcore_cow_header snapshots_header(struct fault_disk *cow);
struct dmcore_cow_entry snapshots_entry(struct fault_disk *cow, unsigned int nr);
/* Writes both. */
void snapshots_put_header(struct fault_disk *cow, uint32_t valid, uint32_t version,
			  uint32_t chunk_sectors);
void snapshots_put_entry(struct fault_disk *cow, unsigned int nr, uint64_t old_chunk,
			 uint64_t new_chunk);
/* Polls until a disk holds so many requests. */
void snapshots_await_held(struct fault_disk *disk, unsigned int count);

#endif
