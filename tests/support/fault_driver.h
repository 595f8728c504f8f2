/* SPDX-License-Identifier: MIT */
/*
 * The driver "fault": a RAM disk whose requests fail, tear, wait or end in a chosen order by rules
 * that a test sets, and that keeps a log of what reached it. Registered by the application, as any
 * program's own driver would be.
 *
 *	cr_assert_eq(fault_register(core), 0);
 *	cr_assert_eq(dmcore_bdev_open(core, "fault:2048,id=a", 0, &bdev), 0);
 *	disk = fault_disk_of(bdev);
 *	fault_add_rule(disk, &(struct fault_rule){ .ops = FAULT_WRITE, .status = -EIO });
 *
 * The specification is fault:SECTORS and, behind commas, any of:
 *	id=NAME             two openings of the very same words are one disk; tells disks apart
 *	block=BYTES         logical and physical block                                 (512)
 *	caps=NUMBER         DMCORE_CAP_*                                               (all)
 *	align=BYTES         memory_align_bytes                                         (1)
 *	max_io=SECTORS      max_io_sectors                                             (none)
 *	chunk=SECTORS       chunk_sectors                                              (none)
 *	max_discard=SECTORS, max_zeroes=SECTORS                                        (none)
 *
 * A disk may be used by several queues and threads at once. Neither requests nor rules allocate.
 */
#ifndef DMCORE_TESTS_SUPPORT_FAULT_DRIVER_H
#define DMCORE_TESTS_SUPPORT_FAULT_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>

/* Rules of a disk. */
#define FAULT_RULES_MAX 16
/* Entries of a disk's log; what comes later is counted and not kept. */
#define FAULT_LOG_MAX 65536
/* Requests that a disk can hold at once; what comes later is carried out at once. */
#define FAULT_HELD_MAX 4096

/* Bits of fault_rule::ops. */
#define FAULT_READ (1u << DMCORE_OP_READ)
#define FAULT_WRITE (1u << DMCORE_OP_WRITE)
#define FAULT_FLUSH (1u << DMCORE_OP_FLUSH)
#define FAULT_DISCARD (1u << DMCORE_OP_DISCARD)
#define FAULT_WRITE_ZEROES (1u << DMCORE_OP_WRITE_ZEROES)

enum fault_action {
	FAULT_FAIL,       /* nothing is done, and it ends with status */
	FAULT_FAIL_AFTER, /* it is carried out, and ends with status all the same */
	FAULT_TEAR,       /* its first torn_sectors are carried out, and it ends with status */
	FAULT_HOLD,       /* it waits for fault_release() */
};

struct fault_rule {
	enum fault_action action;
	int status;            /* negative errno; not for FAULT_HOLD */
	unsigned int ops;      /* FAULT_READ | …; 0: any */
	uint64_t sector;       /* only requests that touch one of these; flushes match always */
	uint64_t count;        /* 0: anywhere */
	unsigned int skip;     /* let so many matching requests pass first */
	unsigned int times;    /* then act on so many; 0: on all */
	uint64_t torn_sectors; /* FAULT_TEAR */
};

/* One request as it reached the disk. */
struct fault_entry {
	enum dmcore_op op;
	unsigned int flags; /* DMCORE_BIO_* */
	uint64_t sector;
	uint64_t count;
	uint64_t begun;     /* a number that grows with every event on any disk of the process */
	uint64_t ended;     /* likewise, when it was completed; 0: not yet */
	int status;         /* once ended */
};

struct fault_disk;

/* As dmcore_driver_register(). */
int fault_register(struct dmcore *core);

/* The disk behind a bdev of this driver. */
struct fault_disk *fault_disk_of(const struct dmcore_bdev *bdev);

/* The content: size_sectors * 512 bytes, zeroes at first. */
unsigned char *fault_data(struct fault_disk *disk);

/*
 * Of the rules that match a request, the oldest that has let enough pass and has not acted often
 * enough decides; without one it is carried out and ends with 0.
 */
void fault_add_rule(struct fault_disk *disk, const struct fault_rule *rule);
void fault_clear_rules(struct fault_disk *disk);

/*
 * Requests that wait, oldest first. Releasing one, by its place in that order, carries it out (with
 * status 0) or fails it, from any thread; its callback runs in a later poll of its queue.
 */
unsigned int fault_num_held(struct fault_disk *disk);
struct fault_entry fault_held(struct fault_disk *disk, unsigned int index);
void fault_release(struct fault_disk *disk, unsigned int index, int status);
void fault_release_all(struct fault_disk *disk);

/* The log, in the order in which requests reached the disk. */
unsigned int fault_num_logged(struct fault_disk *disk);
struct fault_entry fault_logged(struct fault_disk *disk, unsigned int index);
/* How many requests of these operations (0: any) the log saw, those that it did not keep too. */
unsigned int fault_count(struct fault_disk *disk, unsigned int ops);
void fault_clear_log(struct fault_disk *disk);
/* How many requests rules have failed or torn, ever. */
unsigned int fault_num_failed(struct fault_disk *disk);

#endif
