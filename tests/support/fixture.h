/* SPDX-License-Identifier: MIT */
/*
 * What the tests of tables, mapped devices and targets stand on: one core and one queue for each
 * test, and short ways to make and use what a test is not about. Everything here asserts that it
 * worked.
 *
 *	TestSuite(linear, .init = fixture_open, .fini = fixture_close);
 *
 *	Test(linear, adds_its_offset)
 *	{
 *		struct dmcore_bdev *bdev = fixture_device("d", "0 8 linear fault:64,id=a 16");
 *		…
 */
#ifndef DMCORE_TESTS_SUPPORT_FIXTURE_H
#define DMCORE_TESTS_SUPPORT_FIXTURE_H

#include <stdint.h>

#include <dmcore.h>

#include "fault_driver.h"

/* Devices that fixture_bdev() keeps open at the most. */
#define FIXTURE_BDEVS_MAX 64

struct fixture {
	struct dmcore *core; /* knows the driver "fault" */
	struct dmcore_queue *queue;
	struct dmcore_bdev *bdevs[FIXTURE_BDEVS_MAX];
	unsigned int num_bdevs;
};

extern struct fixture fixture;

/* Before and after each test. The latter closes what fixture_bdev() opened, and asserts that no
 * table was left over. */
void fixture_open(void);
void fixture_close(void);

/* Opens a device until the end of the test. */
struct dmcore_bdev *fixture_bdev(const char *spec);
/* The same, for one of the driver "fault". */
struct fault_disk *fixture_disk(const char *spec);

/* A complete table from a text, to be destroyed or loaded by the test. */
struct dmcore_table *fixture_table(const char *text);
/* That a text is refused with this error and exactly this message. */
void fixture_expect_refused(const char *text, int error, const char *message);

/* A running device with a table of this text. */
struct dmcore_device *fixture_device(const char *name, const char *text);
/* And the bdev that it is. */
struct dmcore_bdev *fixture_mapped(const char *name, const char *text);

/* The text of a table or of a device's live table, good until the next call. */
const char *fixture_table_text(struct dmcore_table *table, enum dmcore_text_kind kind);
const char *fixture_device_text(struct dmcore_device *device, enum dmcore_text_kind kind);

/* Sends one request and waits for it; returns its status. `buffer` may be NULL for operations
 * without memory. */
struct fixture_io {
	struct dmcore_bdev *bdev;
	enum dmcore_op op;
	unsigned int flags; /* DMCORE_BIO_* */
	uint64_t sector;
	uint64_t count;
	void *buffer;
};

int fixture_run(const struct fixture_io *io);

#endif
