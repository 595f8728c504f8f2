/* SPDX-License-Identifier: MIT */
/*
 * A snapshot and its origin in a simulated world, for crash tests: requests with a model of what
 * they promise beside them, and a judge of what a power cut leaves. simsnap.c has the world and the
 * model, simsnap_judge.c the judge; both know the format of COW devices by dmcore/cow.h alone.
 *
 * The model: each sector of the origin and of the snapshot has versions, counted from 1. Version 0
 * is what the origin held when the snapshot was made. A cut leaves any version that isn't older
 * than the last one that was promised, by FUA or by a flush after its end.
 *
 * The judge, for each state: it activates (I1); each sector of the snapshot (I2) and of the origin
 * (I3) holds a version that it may hold; the exceptions are sane and no more than were placed, and
 * status counts them (I4); and one more write and a reload change that sector alone (I5).
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMSNAP_H
#define DMCORE_TESTS_SUPPORT_SIMSNAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

#include "simworld.h"

#define SIMSNAP_SECTORS_MAX 192
#define SIMSNAP_COW_SECTORS_MAX 512
#define SIMSNAP_AT_ONCE 4
#define SIMSNAP_MARKS_MAX 600
/* Versions from this one on are written by the judge, one for each depth. */
#define SIMSNAP_PROBE 250

enum simsnap_side {
	SIMSNAP_ORIGIN,
	SIMSNAP_SNAPSHOT,
	SIMSNAP_SIDES,
};

struct simsnap_options {
	uint32_t chunk_sectors;
	uint32_t origin_chunks;  /* the last 2 * probes are the judge's: nobody else writes there */
	uint32_t probes;         /* chunks that the judge writes to; 0: one */
	uint32_t cow_sectors;
	const char *store;       /* NULL: "P" */
	uint32_t atomic_bytes;
	unsigned int disk_flags;
	unsigned int origin_flags; /* besides */
	unsigned int cow_flags;
	uint64_t spread_ns;
	bool garbage;            /* fills the COW device, but for its first four bytes */
	bool is_new;             /* nobody has made a store on it */
	bool overflows;          /* it may be too small for what is written */
};

/* What holds from some mark on. */
struct simsnap_promise {
	uint8_t oldest[SIMSNAP_SIDES][SIMSNAP_SECTORS_MAX]; /* version that may be left; 0: any */
	uint32_t exceptions_max;
	bool may_be_invalid;
	bool must_be_invalid;
};

struct simsnap;

struct simsnap_request {
	struct simsnap *snap;
	bool busy;
	bool alone;          /* since it was submitted */
	bool was_invalid;    /* the snapshot then */
	enum simsnap_side side;
	enum dmcore_op op;
	unsigned int flags;
	uint64_t sector;
	uint64_t count;
	uint8_t covered[SIMSNAP_SECTORS_MAX]; /* a flush's */
	uint8_t versions[SIMSNAP_SECTORS_MAX];
	struct dmcore_bio bio;
	unsigned char memory[SIMSNAP_SECTORS_MAX * 512];
};

struct simsnap {
	struct simsnap_options options;
	struct simworld world;
	uint64_t num_sectors;
	struct dmcore_device *devices[SIMSNAP_SIDES];
	struct simsnap_request requests[SIMSNAP_AT_ONCE];
	unsigned int num_busy;
	unsigned int num_failed; /* requests */
	/* The model. */
	uint8_t latest[SIMSNAP_SIDES][SIMSNAP_SECTORS_MAX];
	uint8_t ended[SIMSNAP_SIDES][SIMSNAP_SECTORS_MAX];
	bool touched[SIMSNAP_SECTORS_MAX]; /* chunks that may have an exception */
	struct simsnap_promise now;
	unsigned int num_marks;
	struct simsnap_promise at_mark[SIMSNAP_MARKS_MAX];
	/* The judge. */
	struct dmcore_sim_states *states; /* the innermost */
	uint64_t *hashes;                 /* of states that have been judged; or NULL: all are */
	uint64_t num_hashes;
	uint64_t num_states;              /* judged, since it was opened */
	uint64_t num_broken;
	uint64_t num_invalid;
	char broken[400];                 /* what is wrong with the first of them */
};

/* What of the sides there may be. */
struct simsnap_expected {
	uint8_t base[SIMSNAP_SIDES][SIMSNAP_SECTORS_MAX];
	uint8_t first[SIMSNAP_SIDES][SIMSNAP_SECTORS_MAX]; /* or a version from here */
	uint8_t latest[SIMSNAP_SIDES][SIMSNAP_SECTORS_MAX]; /* to here */
	struct simsnap_promise promise;
};

/* ---- simsnap.c ---- */

/* Whether fewer states will do: as with rng_brief(), and where all takes many times as long. */
bool simsnap_brief(void);
/* Whether each state takes so long that a few will do. */
bool simsnap_slow(void);

/* A world with origin "sim:d0" and COW device "sim:d1", nothing active; asserts that all works. */
void simsnap_open(struct simsnap *snap, const struct simsnap_options *options, uint64_t seed);
void simsnap_close(struct simsnap *snap);
/* What is on the disks now is durable, and is what the model begins with. */
void simsnap_settle(struct simsnap *snap);

/* Begins a history: what is promised is what has been so far. */
void simsnap_record(struct simsnap *snap);

/* The table of one side, with another type or store than the options'. */
int simsnap_activate_as(struct simsnap *snap, enum simsnap_side side, const char *type);
/* Snapshot, then origin. */
int simsnap_activate(struct simsnap *snap);
void simsnap_deactivate(struct simsnap *snap);
/* The snapshot gets another table, of a type. */
void simsnap_reload(struct simsnap *snap, const char *type);
void simsnap_suspend_and_resume(struct simsnap *snap, enum simsnap_side side);
/* As `dmsetup status` has it behind the type. */
void simsnap_status(struct simsnap *snap, char *text, size_t bytes);
bool simsnap_is_invalid(struct simsnap *snap);

/* Submits a request, as soon as none is under way for any of its sectors. */
void simsnap_submit(struct simsnap *snap, enum simsnap_side side, enum dmcore_op op,
		    unsigned int flags, uint64_t sector, uint64_t count);
/* Until no more than so many are under way. */
void simsnap_wait(struct simsnap *snap, unsigned int num_busy);
/* Submits it and waits for it. */
void simsnap_do(struct simsnap *snap, enum simsnap_side side, enum dmcore_op op,
		unsigned int flags, uint64_t sector, uint64_t count);
/* What is promised has changed. */
void simsnap_mark(struct simsnap *snap);
void simsnap_mark_changed(struct simsnap *snap);

void simsnap_fill(unsigned char *sector, enum simsnap_side side, uint64_t number, uint8_t version);
/* The version that a sector holds, -1: nothing that was ever written there. */
int simsnap_version(enum simsnap_side side, uint64_t number, const unsigned char *sector);
const unsigned char *simsnap_disk(const struct simsnap *snap, enum simsnap_side side);

/* ---- simsnap_judge.c ---- */

/* Shows all states of what was recorded, and judges each; `depth` cuts in all, of what the judge
 * does, too. Nothing is active. */
void simsnap_judge(struct simsnap *snap, enum dmcore_sim_cuts cuts, uint32_t per_cut,
		   unsigned int depth);
/* Judges what the disks hold now. */
void simsnap_judge_now(struct simsnap *snap, const struct simsnap_promise *promise);
/* What may be there, by a promise. */
void simsnap_expect(const struct simsnap *snap, const struct simsnap_promise *promise,
		    struct simsnap_expected *expected);
/* Reads a side, of which the device is active; false, noted: it holds what it may not. */
bool simsnap_look(struct simsnap *snap, enum simsnap_side side,
		  const struct simsnap_expected *expected, uint8_t *seen);
/* Decodes the COW device; false, noted: it isn't sane. */
bool simsnap_check_cow(struct simsnap *snap, uint32_t exceptions_max, uint32_t *count,
		       uint64_t *next_free);
/* Something is wrong with the state. */
void simsnap_note(struct simsnap *snap, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Room for the hashes of so many states (a power of two), so that none is judged twice. */
void simsnap_remember(struct simsnap *snap, uint64_t *hashes, uint64_t num_hashes);

#endif
