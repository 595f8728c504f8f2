/* SPDX-License-Identifier: MIT */
/*
 * A simulated world from inside. world.c has the clock and the events, disk.c the driver, rules.c
 * the faults, cache.c what a disk keeps of each unit, extent.c where that is zero,
 * states.c the crash states.
 */
#ifndef DMCORE_LIB_SIM_SIM_H
#define DMCORE_LIB_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bio.h>
#include <dmcore/driver.h>
#include <dmcore/limits.h>
#include <dmcore/queue.h>
#include <dmcore/sim.h>

#include "base/checked.h"
#include "base/random.h"

/* As an event's number: not yet. */
#define DMCORE__SIM_NEVER UINT64_MAX

/* ---- what a disk keeps ---- */

/* A write to a range of units, from its submission until nothing needs it any more. */
struct dmcore__sim_write {
	uint64_t submit_nr;
	uint64_t end_nr;     /* NEVER: in flight */
	uint64_t durable_nr; /* NEVER: no promise yet */
	uint32_t first_unit;
	uint32_t num_units;
	uint32_t skip_bytes;    /* of the first unit, which the write leaves as they are */
	uint64_t len_bytes;     /* that it writes */
	uint32_t first_version; /* of num_units in a row */
	uint32_t num_taken;     /* versions of the ring, those skipped at its end included */
	uint32_t num_live;      /* of them, those that are in the units' lists */
	bool failed;            /* it ended with an error, or a flush that covered it has failed */
	bool zeroes;            /* and nothing else */
};

/* What a write has put, or may have put, into one unit. Number 0 is none. */
struct dmcore__sim_version {
	uint32_t older; /* of the same unit */
	uint32_t write; /* index into writes */
};

/*
 * The content of a disk: durable, as reads see it, and all that a cut may leave. Versions and
 * writes are rings: taken at the head, and given back at the tail when the oldest is no longer
 * needed.
 */
struct dmcore__sim_cache {
	uint32_t unit_bytes;
	uint32_t num_units;
	unsigned char *base;   /* durable; while a history is kept, what was so when it began */
	unsigned char *image;  /* as reads see it */
	uint32_t *heads;       /* newest version of each unit */
	uint32_t *places;      /* of each unit in `dirty`, plus 1 */
	uint32_t *dirty;       /* units with a version */
	uint32_t num_dirty;
	uint32_t room;
	struct dmcore__sim_version *versions; /* 1..room */
	unsigned char *data;                  /* of version v at (v - 1) * unit_bytes; one more
						 for dmcore__sim_left() */
	uint32_t next_version;                /* to be taken, less 1 */
	uint32_t num_versions;                /* taken */
	struct dmcore__sim_write *writes;     /* 0..room - 1 */
	uint32_t first_write;                 /* the oldest */
	uint32_t num_writes;
	uint32_t num_settled; /* of them, from the oldest: no flush can cover them any more */
	uint32_t num_inflight;
	bool keeps;            /* a history: nothing is folded into base */
	bool overflowed;       /* it had to be, all the same */
	/* For what is undone by the next state: units that were changed since the last. */
	bool tracks;
	uint32_t *touched;
	uint32_t num_touched;
	uint64_t *touched_bits;
	uint64_t *data_bits; /* units of the image that may hold something else than zeroes */
};

int dmcore__sim_cache_create(struct dmcore__sim_cache *cache, uint64_t bytes, uint32_t unit_bytes,
			     uint64_t room, bool tracks);
void dmcore__sim_cache_destroy(struct dmcore__sim_cache *cache);
/* The content of one that has just been made. Of what is zero no memory is taken. */
void dmcore__sim_cache_fill(struct dmcore__sim_cache *cache, const unsigned char *content);

/* Takes versions for a write, submitted by event `nr`; *data is where its bytes are to be put.
 * Returns its index, or -ENOBUFS: all that there is is needed by writes in flight. */
int64_t dmcore__sim_write_begin(struct dmcore__sim_cache *cache, uint64_t nr, uint64_t offset_bytes,
				uint64_t len_bytes, unsigned char **data);
/* It has ended, and reads see it. */
void dmcore__sim_write_end(struct dmcore__sim_cache *cache, uint32_t index, uint64_t nr,
			   bool durable, bool failed);
/* What had ended before event `before_nr` is durable from `nr` on, or has lost its cover. Returns
 * whether there was any. */
bool dmcore__sim_cache_cover(struct dmcore__sim_cache *cache, uint64_t before_nr, uint64_t nr,
			     bool failed);
/* The content of a unit, durable and at once; no version is left. None of it is in flight. */
void dmcore__sim_unit_load(struct dmcore__sim_cache *cache, uint32_t unit,
			   const unsigned char *content);
/* The same, and the next state needn't undo it. */
void dmcore__sim_unit_set(struct dmcore__sim_cache *cache, uint32_t unit,
			  const unsigned char *content);
/* Keeps no history any more. */
void dmcore__sim_cache_fold(struct dmcore__sim_cache *cache);
/* Forgets all versions; what is durable and seen is left as it is. Nothing is in flight. */
void dmcore__sim_cache_forget(struct dmcore__sim_cache *cache);

/*
 * What ended before this event is never left by a cut after event `cut_nr`; 0: not even the base is
 * ruled out.
 */
uint64_t dmcore__sim_floor(const struct dmcore__sim_cache *cache, uint32_t unit, uint64_t cut_nr);

/* Whether such a cut may leave the version. */
static inline bool dmcore__sim_may_be_left(const struct dmcore__sim_write *write, uint64_t floor_nr,
					   uint64_t cut_nr)
{
	return write->submit_nr <= cut_nr &&
	       (write->end_nr > cut_nr || write->end_nr >= floor_nr);
}

static inline const struct dmcore__sim_write *
dmcore__sim_write_of(const struct dmcore__sim_cache *cache, uint32_t version)
{
	return &cache->writes[cache->versions[version].write];
}

/* The content of a version of a unit, or of its base if 0. */
static inline const unsigned char *dmcore__sim_content(const struct dmcore__sim_cache *cache,
						       uint32_t unit, uint32_t version)
{
	if (version)
		return cache->data + (uint64_t)(version - 1) * cache->unit_bytes;
	return cache->base + (uint64_t)unit * cache->unit_bytes;
}

/*
 * What a cut after event `cut_nr` leaves if it leaves this version, or the base if 0: of a write in
 * flight to a part of the unit its bytes, and around them what reads saw then. Valid until the next
 * call.
 */
const unsigned char *dmcore__sim_left(const struct dmcore__sim_cache *cache, uint32_t unit,
				      uint32_t version, uint64_t cut_nr);

/* Zeroed memory that is taken as it is touched, or NULL. */
void *dmcore__sim_reserve(uint64_t bytes);
void dmcore__sim_unreserve(void *memory, uint64_t bytes);

/* extent.c: reads see something new in a unit, or what a write has put there. */
void dmcore__sim_unit_note(struct dmcore__sim_cache *cache, uint32_t unit);
void dmcore__sim_write_note(struct dmcore__sim_cache *cache, const struct dmcore__sim_write *write);
/* As dmcore_driver::extent. */
int dmcore__sim_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		       struct dmcore_extent *extent);

/* ---- disks ---- */

struct dmcore__sim_rule {
	struct dmcore_sim_rule rule;
	uint64_t num_matched;
	uint64_t num_acted;
};

/* A request while a disk has it: in the bio's driver data. */
struct dmcore__sim_request {
	struct dmcore_timer timer; /* first; when it ends */
	struct dmcore_sim_disk *disk;
	struct dmcore_bio *bio;
	struct dmcore__sim_request *next; /* of those that wait or are held */
	uint64_t submit_nr;
	uint64_t sector;   /* where it really goes */
	uint64_t count;
	uint64_t delay_ns;
	int64_t write;     /* index of its versions, or -1 */
	int status;        /* of the rule, or 0 */
	unsigned int action; /* of the rule; or DMCORE__SIM_NONE */
};

#define DMCORE__SIM_NONE 255u

struct dmcore__sim_chain {
	struct dmcore__sim_request *head;
	struct dmcore__sim_request *tail;
};

struct dmcore_sim_disk {
	struct dmcore_sim *sim;
	struct dmcore_sim_disk_options options;
	char name[DMCORE_SIM_NAME_MAX + 1];
	unsigned int num_open;
	uint32_t num_active;
	struct dmcore__sim_chain waiting; /* for the depth */
	struct dmcore__sim_chain held;    /* by a rule */
	unsigned int num_rules;
	uint64_t num_acted;
	struct dmcore__sim_rule rules[DMCORE_SIM_RULES_MAX];
	struct dmcore__sim_cache *cache; /* the innermost */
	struct dmcore__sim_cache caches[DMCORE_SIM_NESTED_MAX + 1];
};

/* Ends the request whose turn it is. Called by world.c with the clock set. */
void dmcore__sim_request_end(struct dmcore__sim_request *request);
/* Ends all that the disks have with -ENODEV. */
void dmcore__sim_fail_all(struct dmcore_sim *sim);
void dmcore__sim_disk_destroy(struct dmcore_sim_disk *disk);
bool dmcore__sim_disk_idle(const struct dmcore_sim_disk *disk);
extern const struct dmcore_driver dmcore__sim_driver;

/* The rule that wants a request, counted as having acted; or NULL. */
const struct dmcore_sim_rule *dmcore__sim_rule_for(struct dmcore_sim_disk *disk,
						    const struct dmcore_bio *bio);

/* ---- the world ---- */

struct dmcore__sim_mark {
	uint64_t nr;
	uint64_t value;
};

struct dmcore_sim {
	struct dmcore_driver driver; /* first: a core's disks find their world by it */
	struct dmcore_sim_options options;
	struct dmcore__random random;
	uint64_t now_ns;
	uint64_t event_nr;
	uint64_t log_hash;
	uint64_t timer_order;
	struct dmcore_timer *timers; /* of requests */
	uint64_t cut_at;             /* event number; 0: never */
	bool off;
	unsigned int phase;
	unsigned int num_disks;
	struct dmcore_sim_disk *disks[DMCORE_SIM_DISKS_MAX];

	/* The history of each depth, 0 the outermost. */
	struct dmcore__sim_history {
		bool recording;
		struct dmcore__sim_mark *marks;
		uint32_t num_marks;
		uint64_t *cuts;            /* events before which to cut */
		uint32_t num_cuts;
		uint64_t begin_nr;
		struct dmcore_sim_states *states; /* open on it, or NULL */
	} histories[DMCORE_SIM_NESTED_MAX + 1];
	unsigned int depth; /* the innermost */
};

static inline struct dmcore__sim_history *dmcore__sim_history(struct dmcore_sim *sim)
{
	return &sim->histories[sim->depth];
}

/* A time that lies so much later, or the end of all time. */
static inline uint64_t dmcore__sim_later_ns(uint64_t at_ns, uint64_t by_ns)
{
	uint64_t later_ns;

	return dmcore__add_overflows(at_ns, by_ns, &later_ns) ? UINT64_MAX : later_ns;
}

/* Cuts the power if this was the event. */
void dmcore__sim_cut_if_due(struct dmcore_sim *sim);
/* Something became durable at the present event: a good moment for a cut is the one before. */
void dmcore__sim_note_durable(struct dmcore_sim *sim);
/* Counts and logs an event; returns its number. */
uint64_t dmcore__sim_event(struct dmcore_sim *sim, struct dmcore_sim_event *event);
/* Forgets the history of the present depth. */
void dmcore__sim_history_end(struct dmcore_sim *sim);

/* A hash of memory, the same everywhere. */
uint64_t dmcore__sim_hash(uint64_t hash, const void *data, uint64_t bytes);

#endif
