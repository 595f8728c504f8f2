/* SPDX-License-Identifier: MIT */
/*
 * The inside of random programs: simprogram.c runs them, simprogram_io.c has the requests,
 * simprogram_copy.c those that kcopyd makes, simprogram_control.c what is done to devices and
 * disks. One program at a time.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMPROGRAM_INNER_H
#define DMCORE_TESTS_SUPPORT_SIMPROGRAM_INNER_H

#include <setjmp.h>

#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "simchoice.h"
#include "simmodel.h"
#include "simprogram.h"
#include "simtable.h"

#define SLOTS 16
#define RANGE_SECTORS_MAX 64
#define RANGES_MAX 3
#define TIMERS 4
/* The longest that a step waits, and all that is left at the end. */
#define STEP_NS INT64_C(1000000000)
#define LIVENESS_NS INT64_C(60000000000)

struct range {
	unsigned int device;
	uint64_t sector;
	uint64_t count;
};

/* A sector of a request, and the value that it writes there. */
struct touched {
	struct simtable_place place;
	struct simmodel_version *version;
	bool moved; /* a swap has put it elsewhere meanwhile */
};

struct slot {
	bool is_running;
	bool is_dmio;  /* in parts, which don't wait for each other */
	bool is_copy;
	bool flushes;  /* a copy: all that it has written, before it ends */
	bool cancelled;
	struct kcopyd_job job; /* of a copy */
	bool may_fail;
	unsigned int op; /* enum dmcore_op */
	unsigned int flags;
	unsigned int nr;
	unsigned int disks;      /* that a flush surely reaches */
	unsigned int disks_ever; /* or may have */
	uint64_t begin_nr;
	uint64_t value; /* of the first sector */
	unsigned int num_ranges;
	struct range ranges[RANGES_MAX];
	struct touched touched[RANGES_MAX][RANGE_SECTORS_MAX];
	struct dmio_bvec vecs[3];
	unsigned char data[RANGE_SECTORS_MAX * 512];
};

struct clock_timer {
	struct dmcore_timer timer;
	uint64_t at_ns;
	bool is_running;
};

struct program {
	const struct simprogram_options *options;
	struct simprogram_result *result;
	struct simchoice choice; /* of this step */
	unsigned int step;
	jmp_buf give_up;         /* from a wait that can't end */
	struct dmcore_sim *sim;
	struct dmcore_sim_disk *disks[SIMTABLE_DISKS];
	struct dmcore_sim_disk_options disk_options[SIMTABLE_DISKS];
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmio_client *client;
	unsigned int copy_pages;
	struct kcopyd_client *copier;
	struct dmcore_bdev *copied; /* what copies come from: a place for each slot */
	struct dmcore_bdev *bdevs[SIMTABLE_DEVICES];
	struct dmcore_device *devices[SIMTABLE_DEVICES]; /* NULL for disks */
	bool is_suspended[SIMTABLE_DEVICES];
	bool has_next[SIMTABLE_DEVICES];
	struct simtable next[SIMTABLE_DEVICES];
	struct simtables tables;
	bool records;      /* for crash states */
	bool has_faults;   /* that end requests with an error */
	bool has_holds;    /* or keep them */
	unsigned int num_rules;
	unsigned int num_running;
	uint64_t next_value;
	struct clock_timer timers[TIMERS];
	uint64_t num_done;
	struct slot slots[SLOTS];
};

extern struct program program;
extern struct simmodel sectors;

/* Notes what is wrong, the first time. */
__attribute__((format(printf, 1, 2))) void program_fail(const char *format, ...);
#define PROGRAM_CHECK(condition, ...)                                                              \
	do {                                                                                       \
		if (!(condition))                                                                  \
			program_fail(__VA_ARGS__);                                                 \
	} while (0)
static inline bool program_failed(void)
{
	return program.result->failed;
}
__attribute__((format(printf, 1, 2))) void program_trace(const char *format, ...);
static inline uint32_t choose(uint64_t bound)
{
	return simchoose(&program.choice, bound);
}
static inline uint64_t now_nr(void)
{
	return dmcore_sim_num_events(program.sim);
}
static inline bool has_power(void)
{
	return dmcore_sim_has_power(program.sim);
}

/* ---- simprogram_io.c ---- */

/* One step with requests. */
void io_step(unsigned int kind);
/* Polls without waiting, until nothing ends any more. */
void io_settle(void);
/* Polls until no request is on its way, or nothing ends for so long. */
void io_drain(int64_t timeout_ns);
/* A suspended device has another table: requests to itself have waited, and go by the new one;
 * others on their way may have gone by either. */
void io_moved(unsigned int device);
/* All sectors of a device, read and compared; no request is on its way. */
void io_read_all(unsigned int device);
/* The parts of a request; NULL: there can't be one now. */
struct slot *io_choose_slot(unsigned int op);
unsigned int io_choose_device(void);
void io_choose_range(struct slot *slot, unsigned int device);
void io_fill(struct slot *slot, uint64_t count);
void io_begin(struct slot *slot);
void io_end_range(struct slot *slot, unsigned int r, int status);
/* Of a range of which nobody knows whether it has been written. */
void io_end_writes(const struct slot *slot, unsigned int r, int status);
void io_end(struct slot *slot, bool failed);

/* ---- simprogram_copy.c ---- */

/* Starts a copy, or stops one. */
void copy_step(void);
void copy_boot(void);
void copy_shut_down(void);

/* ---- simprogram_control.c ---- */

void control_step(unsigned int kind);
void control_create(unsigned int device);
void control_resume(unsigned int device);
/* No rule is left, and nothing is held. */
void control_clear_rules(void);
/* Whether some device is suspended. */
bool control_is_suspended(void);
void control_start_timer(void);

#endif
