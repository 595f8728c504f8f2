/* SPDX-License-Identifier: MIT */
/*
 * A program under way, for the fuzzer of programs: program.c decodes its steps, program_requests.c
 * has its disks and requests.
 */
#ifndef DMCORE_TESTS_FUZZ_PROGRAM_H
#define DMCORE_TESTS_FUZZ_PROGRAM_H

#include "fuzz.h"
#include "support/fault_driver.h"
#include "support/model.h"

#define DISKS 3
#define DISK_SECTORS 192
#define SLOTS 6
#define COUNT_MAX 48
#define STATUSES_MAX 8

enum slot_state {
	SLOT_FREE,
	SLOT_WAITING, /* for a resume */
	SLOT_RUNNING,
};

/* What a request is about. */
struct range {
	enum dmcore_op op;
	uint64_t sector; /* of the device that has the model's table */
	uint64_t count;
};

/* A request. */
struct slot {
	struct dmcore_bio bio;
	struct dmio_bvec vecs[2];
	enum slot_state state;
	struct range range;
	uint64_t tag;
	bool is_upper;       /* submitted to the upper device */
	bool is_outside;     /* behind the end of a device */
	bool has_preflush;
	bool has_waited;     /* so it is sent by a poll */
	bool is_alone;       /* nothing else has been on its way meanwhile */
	bool is_refused;     /* NOWAIT or RAHEAD, on a suspended device */
	unsigned int errors; /* what the model allows */
	uint64_t *places[COUNT_MAX];
	uint64_t old[COUNT_MAX]; /* tags before it began */
	uint64_t set[COUNT_MAX]; /* and after */
	unsigned char data[COUNT_MAX * DMCORE_SECTOR_BYTES];
};

/* One program. */
struct world {
	struct fuzz_bytes bytes;
	struct dmcore *core;
	struct dmcore_queue *queue;
	unsigned int unit;         /* sectors of a block */
	unsigned int caps;         /* those that all disks have */
	struct fault_disk *disks[DISKS];
	const char *specs[DISKS];
	unsigned int num_rules[DISKS];
	bool may_hold;             /* a rule holds requests back */
	struct model model;        /* the live table */
	struct model next;         /* the inactive one, if has_next */
	bool has_next;
	bool is_suspended;
	struct dmcore_device *device;
	struct dmcore_device *upper; /* on the device; NULL: none */
	uint64_t upper_start;
	uint64_t upper_end;  /* in sectors of the device below */
	bool upper_is_suspended;
	uint64_t next_tag;
	unsigned int num_running;
	unsigned int num_statuses; /* that faults can have */
	int statuses[STATUSES_MAX];
	struct slot slots[SLOTS];
};

extern struct world world;

/* Opens all disks that there can be, once: their logs are large. */
void open_disks(struct dmcore *core);
/* Takes those of this program, zeroed. */
void choose_disks(void);

/* Takes note of a status that faults can have. */
void add_status(int status);

/* Submits a request of the program's choice, unless one that it would meet is on its way. */
void do_request(enum dmcore_op op);
/* Whether a request to this device waits for a resume. */
bool must_wait(bool is_upper);
/* The model carries a request out: it is on its way to the disks. */
void begin(struct slot *slot);
void poll_queue(unsigned int max);
/* Lets everything end that doesn't wait for a resume. */
void drain(void);

#endif
