/* SPDX-License-Identifier: MIT */
/*
 * A mirror in a simulated world: requests to it, a model of what it has promised, and a judge of
 * what a power cut may leave of its legs and its log.
 *
 * No two writes to a sector are under way at once, so the versions of each are in order. A state
 * is right if
 *  1. regions that the log has for clean are the same on all legs;
 *  2. leg 0, which is what a restart believes, holds of each sector what was promised last, or
 *     something newer;
 *  3. a mirror made of it reads the same twice, before and after recovery, and that is what leg 0
 *     held; recovered, it leaves legs that are the same and a log in which all is clean.
 * The third is seen of some states only, for it takes as long as a hundred of the others.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMMIR_H
#define DMCORE_TESTS_SUPPORT_SIMMIR_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>
#include <dmcore/sim.h>

#include "simworld.h"

#define SIMMIR_SECTORS_MAX 64u
#define SIMMIR_LEGS_MAX 4u
#define SIMMIR_LOG_SECTORS 8u
#define SIMMIR_AT_ONCE 6u
#define SIMMIR_MARKS_MAX 256u
#define SIMMIR_PROBE 250u
/* Longer than it takes until a region that nobody writes to is cleaned. */
#define SIMMIR_PAUSE_NS UINT64_C(1100000000)

struct simmir_options {
	unsigned int num_legs;
	uint32_t region_sectors;
	uint64_t num_sectors;
	uint64_t offset_sectors; /* of leg i: i times as much */
	uint32_t atomic_bytes;
	unsigned int disk_flags; /* DMCORE_SIM_* */
	uint64_t spread_ns;
	const char *features;    /* behind the legs, or NULL */
	bool differ;             /* the legs do at first, and the log knows nothing */
	uint32_t look_every;     /* see 3. above: of so many states one; 0: of none */
};

struct simmir_request {
	struct simmir *mir;
	bool busy;
	bool is_in_doubt;                    /* a flush failed meanwhile */
	enum dmcore_op op;
	unsigned int flags;
	uint64_t sector;
	uint64_t count;
	uint8_t covered[SIMMIR_SECTORS_MAX]; /* a flush's */
	uint8_t versions[SIMMIR_SECTORS_MAX];
	uint8_t least[SIMMIR_SECTORS_MAX];   /* a read's */
	struct dmcore_bio bio;
	unsigned char memory[SIMMIR_SECTORS_MAX * 512];
};

struct simmir {
	struct simmir_options options;
	struct simworld world;
	struct dmcore_device *device;
	struct simmir_request requests[SIMMIR_AT_ONCE];
	unsigned int num_busy;
	unsigned int num_failed;
	/* The model. */
	uint8_t latest[SIMMIR_SECTORS_MAX];   /* version that was given out */
	uint8_t ended[SIMMIR_SECTORS_MAX];    /* that was acknowledged */
	uint8_t sure[SIMMIR_SECTORS_MAX];     /* that the next flush covers */
	uint8_t promised[SIMMIR_SECTORS_MAX]; /* that is durable */
	unsigned int num_marks;
	uint8_t at_mark[SIMMIR_MARKS_MAX][SIMMIR_SECTORS_MAX];
	/* The judge. */
	struct dmcore_sim_states *states;
	uint64_t *hashes;                     /* of states that have been judged */
	uint64_t num_hashes;
	uint64_t num_states;                  /* judged, since it was opened */
	uint64_t num_looked;
	uint64_t num_broken;
	char broken[400];                     /* what is wrong with the first of them */
};

/* Whether fewer states will do, and whether each takes so long that a few will. */
bool simmir_brief(void);
bool simmir_slow(void);

/* A world with legs "sim:d0" and up and the log behind them; nothing is active. */
void simmir_open(struct simmir *mir, const struct simmir_options *options, uint64_t seed);
void simmir_close(struct simmir *mir);
/* Room for the hashes of so many states (a power of two), so that none is judged twice. */
void simmir_remember(struct simmir *mir, uint64_t *hashes, uint64_t num_hashes);

void simmir_activate(struct simmir *mir);
void simmir_deactivate(struct simmir *mir);
void simmir_suspend_and_resume(struct simmir *mir);
void simmir_pass(struct simmir *mir, uint64_t ns);
/* Legs fail these operations (bits), so often, from now on; or none does. */
void simmir_fail(struct simmir *mir, unsigned int leg, uint32_t ops, uint32_t times);
void simmir_mend(struct simmir *mir);
/* Until all is in sync. */
void simmir_recover(struct simmir *mir);
/* "3/8", as status has it. */
void simmir_progress(struct simmir *mir, unsigned int *in_sync, unsigned int *all);

/* Begins a history: what is promised is what has been so far. */
void simmir_record(struct simmir *mir);
/* Submits a request, as soon as no write is under way for any of its sectors. */
void simmir_submit(struct simmir *mir, enum dmcore_op op, unsigned int flags, uint64_t sector,
		   uint64_t count);
/* Until no more than so many are under way. */
void simmir_wait(struct simmir *mir, unsigned int num_busy);

/* Shows states of what was recorded, and judges each. Nothing is active. */
void simmir_judge(struct simmir *mir, enum dmcore_sim_cuts cuts, uint32_t per_cut);

#endif
