/* SPDX-License-Identifier: MIT */
/*
 * What the files of the mirror target share.
 *
 * A mirror has legs that hold the same, and a log that says of each region whether they do. A write
 * finds its region among those that are active, or has the service make it so, and stays inside
 * until all its copies have ended. A region is active from its first write until it is cleaned,
 * some time after its last one: while it is, the log on disk says that its legs may differ.
 *
 * Regions and log are worked on by the service of the core alone. Other threads enter and leave
 * active regions, and read what is _Atomic; all else they post to the service.
 *
 *   arguments.c  the words of a table line, and status
 *   regions.c    active regions
 *   log.c        which regions are in sync, in memory and on disk
 *   clean.c      regions that nobody writes to any more
 *   behind.c     writes that one leg gets later
 *   writes.c     writes that their own thread can't send on, and those that failed
 *   recovery.c   regions that are copied from one leg to the others
 *   scrub.c      regions whose legs are compared
 */
#ifndef DMCORE_TARGETS_MIRROR_MIRROR_H
#define DMCORE_TARGETS_MIRROR_MIRROR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bdev.h>
#include <dmcore/bio.h>
#include <dmcore/context.h>
#include <dmcore/driver.h>
#include <dmcore/kcopyd.h>
#include <dmcore/queue.h>
#include <dmcore/target.h>

#define MIRROR_LEGS_MAX (KCOPYD_DESTS_MAX + 1u)
/* Active regions: sets of as many as fit in a cache line. */
#define MIRROR_SETS 512u
#define MIRROR_WAYS 8u
/* Pages of recovery: 1 MiB. */
#define MIRROR_PAGES 256u
/* Runs of regions that are recovered at once, and how long they are: see recovery.c. */
#define MIRROR_RUNS 2u
#define MIRROR_NO_LEG UINT32_MAX
/* Writes that a leg hasn't got yet: how many, the pages of their data, and of those of one. */
#define BEHIND_WRITES_MAX 256u
#define BEHIND_SECTORS_MIN 8u
#define BEHIND_SECTORS_MAX 131072u
#define BEHIND_PAGE_BYTES 4096u
#define BEHIND_WRITE_PAGES_MAX 32u
/* Regions that a scrub takes at once, and how many runs of differing ones it keeps. */
#define SCRUB_REGIONS_MAX 64u
#define SCRUB_RUNS_MAX 32u

struct mirror;

/* ---- legs ---- */

/* What a leg has failed to do, in the order in which status looks. */
enum mirror_failure {
	MIRROR_FLUSH_FAILED = 1 << 0,
	MIRROR_WRITE_FAILED = 1 << 1,
	MIRROR_SYNC_FAILED = 1 << 2,
	MIRROR_READ_FAILED = 1 << 3,
};

struct mirror_leg {
	struct dmcore_bdev *bdev;
	uint64_t offset_sectors;
	_Atomic uint32_t failures; /* of enum mirror_failure */
};

/* How many reads it has: in a cache line of its own. */
struct mirror_load {
	_Atomic uint32_t num_reads;
	unsigned char unused[60];
};

/* ---- requests ---- */

/* Per bio. */
struct mirror_request {
	struct dmcore_work work;      /* to the service, and back to the request's queue */
	struct mirror_request *next;  /* in a list of those that wait */
	struct mirror *mirror;
	struct dmcore_bio *bio;
	uint64_t sector;              /* of the bio, from the start of the target */
	uint64_t count;
	const struct dmio_bvec *vecs;
	uint32_t num_vecs;
	uint32_t vec_offset_bytes;
	uint64_t region;
	uint64_t ticket;              /* of the flush of the log that it waits for */
	uint32_t num_told;            /* mirror.num_told when the flush came */
	uint32_t leg;                 /* that is read */
	uint32_t sent;                /* bit for each leg that a copy went to */
	uint32_t failed;              /* and that it failed on */
	bool torn;                    /* some leg may have done a part of what it failed */
	int32_t status;               /* of the first of them */
	uint16_t flags;               /* DMCORE_BIO_* */
	uint8_t op;
	uint8_t stage;                /* enum mirror_stage */
	bool again;                   /* it has been held, and was run again */
};

enum mirror_stage {
	MIRROR_READ,
	MIRROR_OUTSIDE, /* it isn't in its region */
	MIRROR_TO_ALL,  /* in its region, which is in sync */
	MIRROR_TO_ONE,  /* in its region, which isn't: the first leg alone */
	MIRROR_FLUSH,
};

struct mirror_list {
	struct mirror_request *head;
	struct mirror_request **tail;
};

static inline void dmcore__mirror_list_init(struct mirror_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static inline void dmcore__mirror_list_add(struct mirror_list *list,
					   struct mirror_request *request)
{
	request->next = NULL;
	*list->tail = request;
	list->tail = &request->next;
}

static inline struct mirror_request *dmcore__mirror_list_take(struct mirror_list *list)
{
	struct mirror_request *request = list->head;

	if (request) {
		list->head = request->next;
		if (!list->head)
			list->tail = &list->head;
	}
	return request;
}

/* ---- active regions ---- */

enum region_state {
	REGION_ABSENT,     /* none such is active */
	REGION_MARKING,    /* its mark in the log isn't durable yet */
	REGION_DIRTY,      /* it is: writes go to all legs */
	REGION_NOSYNC,     /* its legs differ: writes go to one */
	REGION_RECOVERING, /* is being copied or compared, or will be when those inside have left */
};

/*
 * One word for each: number + 1, state, whether somebody has come since the last sweep, and how
 * many are inside. Those that aren't the service enter, and that only while the state is DIRTY or
 * NOSYNC; or leave.
 */
struct regions {
	_Atomic uint64_t words[MIRROR_SETS * MIRROR_WAYS];
	uint64_t tickets[MIRROR_SETS * MIRROR_WAYS]; /* MARKING: of the mark; the service's */
	uint32_t num_active;  /* the service's */
	_Atomic bool wanted;  /* somebody waits for a place */
};

/* ---- the log ---- */

enum mirror_sync {
	MIRROR_SYNC_DEFAULT, /* as the log on disk has it; all differ if there is none */
	MIRROR_SYNC_FORCED,  /* all differ */
	MIRROR_SYNC_NONE,    /* none does */
};

enum log_state {
	LOG_IDLE,
	LOG_WRITING,
	LOG_FLUSHING,
};

struct mirror_log {
	struct dmcore_bdev *bdev;       /* NULL: in memory alone */
	enum mirror_sync sync;
	uint32_t region_shift;          /* log2 of sectors */
	uint64_t num_regions;
	_Atomic uint64_t *sync_words;   /* bit set: in sync */
	_Atomic uint64_t num_in_sync;
	unsigned char *clean;           /* bit set: neither differs nor is written to */
	/* On disk: header and `clean`. */
	unsigned char *buffer;
	unsigned char *io_buffer;
	size_t buffer_bytes;
	uint32_t block_bytes;
	/* Bytes of the buffer that the disk hasn't. */
	size_t stale_begin;
	size_t stale_end;
	bool has_marked;                /* bits cleared since the last flush */
	bool has_header;                /* what stands on the disk could be read, and is ours */
	bool tries_again;               /* it has failed, and is written once more */
	_Atomic char health;            /* A, D or F, as status has it */
	/* Flushes. */
	enum log_state state;
	bool wanted;
	bool flushes_marks;             /* the one under way has marks */
	uint64_t ticket;                /* of the next one */
	uint64_t done_ticket;           /* of the last that has ended */
	struct dmcore_bio bio;
	struct mirror_list waiters;     /* oldest first */
	struct dmcore_call *idle_call;  /* returned when no flush is under way or wanted */
};

/* ---- cleaning ---- */

struct mirror_cleaning {
	struct dmcore_timer timer;      /* until regions that nobody writes to are looked for */
	uint64_t *words;                /* bit set: clean when the legs have been flushed */
	uint64_t begin;                 /* of these words that may have bits */
	uint64_t end;
	bool has_missed;                /* others are to be cleaned, too */
	unsigned int legs_left;         /* of the flush that is under way; 0: none is */
	struct dmcore_bio bios[MIRROR_LEGS_MAX];
};

/* ---- write-behind ---- */

/* What the others have, and one leg has yet to get. */
struct behind_write {
	struct dmcore_bio bio;
	struct behind_write *next;      /* in the order in which they came; or unused */
	uint64_t sector;                /* from the start of the target */
	uint64_t count;
	uint64_t region;                /* it is inside */
	uint32_t num_pages;
	bool is_sent;
	struct dmio_bvec pages[BEHIND_WRITE_PAGES_MAX];
};

struct mirror_behind {
	uint32_t leg;                   /* 0: none */
	uint32_t limit_sectors;
	_Atomic uint32_t num_writes;
	_Atomic uint32_t used_sectors;  /* of the limit */
	uint32_t num_unsent;            /* they wait for others that they overlap */
	struct behind_write *head;
	struct behind_write **tail;
	/* Memory that isn't in use. */
	struct behind_write *idle;
	uint32_t num_pages;
	void **pages;
	/* All of it. */
	struct behind_write *writes;
	unsigned char *memory;
	/* Who waits for room, or for what he overlaps; and who for all of them. */
	struct mirror_list writers;
	struct mirror_list others;
	bool lets_go;                   /* writers are being run */
	bool has_room;                  /* and more may be */
	bool is_stuck;                  /* or not, for one of them has to wait on */
	struct dmcore_call *idle_call;  /* made again when there are none */
};

/* ---- recovery ---- */

/* Neighbouring regions that are copied in one go. */
struct mirror_run {
	struct kcopyd_job job;
	struct mirror *mirror;
	uint64_t region;                /* the first */
	uint32_t num_regions;           /* 0: idle */
	bool copies;                    /* the job is under way; before, some are inside */
	bool with_first;                /* among the destinations */
	uint64_t started_ns;
	uint64_t num_flush_failures;    /* when it started */
};

struct mirror_recovery {
	struct kcopyd_client *kc;
	struct mirror_run runs[MIRROR_RUNS];
	struct dmcore_timer timer;      /* until it goes on */
	uint64_t cursor;                /* region to look at next */
	uint64_t single_end;            /* regions before it are tried one by one */
	uint32_t num_failed;            /* runs, since one succeeded */
	uint64_t retry_ns;
	uint32_t num_busy;              /* runs */
	_Atomic bool running;           /* between resume and presuspend */
	bool paced;                     /* others want the legs too */
	bool busy;                      /* runs are being begun */
	struct mirror_list waiters;     /* writes to regions that are RECOVERING */
	struct dmcore_call *idle_call;  /* returned when no run is busy */
};

/* ---- scrub ---- */

enum scrub_state {
	SCRUB_IDLE,
	SCRUB_BETWEEN, /* pieces: it pauses, or takes the next one */
	SCRUB_TAKEN,   /* some may still be inside */
	SCRUB_READING,
	SCRUB_MARKING, /* what is to be repaired */
};

/* What it has found, of regions: written by the service, and read by messages. */
struct scrub_result {
	_Atomic uint64_t num_compared;
	_Atomic uint64_t num_differing;
	_Atomic uint64_t num_skipped;    /* not in sync */
	_Atomic uint64_t num_failed;     /* some leg couldn't be read */
	_Atomic uint64_t first_sector;   /* that differs, from the start of the target */
	_Atomic uint32_t num_runs;
	struct {
		_Atomic uint64_t region;
		_Atomic uint64_t count;
	} runs[SCRUB_RUNS_MAX];          /* of differing ones */
};

struct scrub_memory;

/* A piece is what is read at once: neighbouring regions, or a part of one. */
struct mirror_scrub {
	/* Of messages. */
	struct dmcore_work work;
	_Atomic bool posted;     /* the work */
	_Atomic bool active;     /* one is to begin, or has begun, and hasn't ended */
	_Atomic bool unwanted;   /* it is to end */
	_Atomic bool ended;      /* the last one came to its end */
	bool next_repair;        /* of the one that is to begin */
	struct scrub_memory *next_memory;
	struct scrub_result result;
	/* The service's. */
	enum scrub_state state;
	bool repair;
	bool stopping;
	bool busy;               /* steps are being taken */
	bool paced;
	struct dmcore_timer timer;
	struct scrub_memory *memory;
	uint64_t cursor;         /* sector to go on from */
	uint64_t single_end;     /* sectors before it are read region by region */
	/* The piece. */
	uint64_t sector;
	uint64_t count;
	uint64_t region;
	uint32_t num_regions;
	uint8_t before[SCRUB_REGIONS_MAX]; /* enum region_state, when they were taken */
	uint64_t repairs;        /* bit for each of them */
	uint64_t ticket;         /* of the flush of their marks */
	uint64_t started_ns;
	uint32_t reads_left;
	bool read_failed;
};

/* ---- the mirror ---- */

/* Who looks whether others use it. */
enum mirror_looker {
	MIRROR_RECOVERY_LOOKS = 1 << 0,
	MIRROR_SCRUB_LOOKS = 1 << 1,
	MIRROR_IN_USE = 3,
};

struct mirror {
	struct dmcore_target *target;
	struct dmcore *core;
	struct dmcore_queue *service;
	uint32_t num_legs;
	bool handle_errors;
	bool keep_log;
	bool balances_reads;
	struct mirror_leg legs[MIRROR_LEGS_MAX];
	struct mirror_load loads[MIRROR_LEGS_MAX];
	_Atomic uint32_t first_leg;     /* that is read, and recovered from */
	_Atomic bool leg_failed;        /* some leg isn't well */
	_Atomic uint32_t num_lost;      /* flushes that leg 0 has failed, whoever asked for them */
	_Atomic uint32_t num_told;      /* of these, whose users have seen a flush fail for it */
	_Atomic bool first_failed;      /* the first one isn't, and may be replaced */
	_Atomic uint32_t in_use;        /* bit for each who hasn't looked since a request came */
	_Atomic bool posted;            /* the work below */
	struct dmcore_work work;        /* somebody has left a region that others wait for */
	uint64_t num_flush_failures;    /* of legs */
	bool first_may_lose;            /* what it reads as: recovery writes that to it, too */
	bool keeps_marks;               /* or else, nothing is cleaned any more */
	bool suspending;
	struct mirror_list held;        /* failed, until a suspension */
	struct mirror_list no_place;    /* wait for a place among the active regions */
	struct regions *regions;
	struct mirror_log log;
	struct mirror_cleaning cleaning;
	struct mirror_behind behind;
	struct mirror_recovery recovery;
	struct mirror_scrub scrub;
};

/* Where a sector of a leg stands. */
static inline uint64_t dmcore__mirror_leg_sector(const struct mirror_leg *leg, uint64_t sector)
{
	return leg->offset_sectors + sector;
}

static inline bool dmcore__mirror_leg_is_well(const struct mirror_leg *leg)
{
	return atomic_load_explicit(&leg->failures, memory_order_acquire) == 0;
}

/* Whether it has what was written to it, as far as is known. */
static inline bool dmcore__mirror_leg_reads(const struct mirror_leg *leg)
{
	uint32_t failures = atomic_load_explicit(&leg->failures, memory_order_acquire);

	return (failures & ~(uint32_t)MIRROR_FLUSH_FAILED) == 0;
}

/* Whether it may not have got yet what the others have. */
static inline bool dmcore__mirror_lags(const struct mirror *mirror, uint32_t leg)
{
	return leg == mirror->behind.leg && leg != 0;
}

/* Whether a request has come since the same looked last. */
static inline bool dmcore__mirror_in_use(struct mirror *mirror, enum mirror_looker looker)
{
	return atomic_fetch_and(&mirror->in_use, ~(uint32_t)looker) & (uint32_t)looker;
}

/* A request is to be read from a leg. */
static inline void dmcore__mirror_count_read(struct mirror *mirror, struct mirror_request *request,
					     uint32_t leg)
{
	request->leg = leg;
	request->stage = MIRROR_READ;
	if (mirror->balances_reads)
		atomic_fetch_add_explicit(&mirror->loads[leg].num_reads, 1, memory_order_relaxed);
}

/* ---- arguments.c ---- */

int dmcore__mirror_construct(struct dmcore_target *target, struct dmcore_args *args);
void dmcore__mirror_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			   struct dmcore_text *text);

/* ---- regions.c ---- */

/* Any thread: enters a region whose state is DIRTY or NOSYNC, and returns that; or else why not. */
enum region_state dmcore__region_enter(struct regions *regions, uint64_t region);
/* Any thread. True: somebody may wait for it. */
bool dmcore__region_leave(struct regions *regions, uint64_t region);
/* The service's, from here on. */
enum region_state dmcore__region_state(const struct regions *regions, uint64_t region);
/* How many are inside. */
uint32_t dmcore__region_inside(const struct regions *regions, uint64_t region);
/* Whether somebody is inside any of so many neighbours. */
bool dmcore__regions_are_entered(const struct regions *regions, uint64_t region, uint32_t count);
/* Makes a region active that isn't. False: there is no place now, and who leaves one is told to
 * wake the service. *evicted: a DIRTY one that has made room and is clean now, or UINT64_MAX. */
bool dmcore__region_add(struct regions *regions, uint64_t region, enum region_state state,
			uint64_t *evicted);
/* Of an active one. */
void dmcore__region_set(struct regions *regions, uint64_t region, enum region_state state);
/* Enters for a request, whatever its state. */
void dmcore__region_enter_for(struct regions *regions, uint64_t region);
/* Of one in which nobody is. */
void dmcore__region_remove(struct regions *regions, uint64_t region);
uint64_t *dmcore__region_ticket(struct regions *regions, uint64_t region);
/* Removes DIRTY and NOSYNC ones that nobody is in, nor has been since the last sweep if there is
 * one; returns the next DIRTY one, now clean, or UINT64_MAX. */
uint64_t dmcore__region_take_clean(struct regions *regions, uint32_t *cursor, bool sweep);
/* The number of the active region at a place, or UINT64_MAX. */
uint64_t dmcore__region_at(const struct regions *regions, uint32_t place);
bool dmcore__regions_are_absent(const struct regions *regions);

/* ---- log.c ---- */

/* How much a target of so many sectors needs, and the memory for it. */
int dmcore__log_measure(struct mirror *mirror, uint64_t sectors);
int dmcore__log_allocate(struct mirror *mirror);
void dmcore__log_destroy(struct mirror *mirror);
/* Reads it, or begins anew: before the first resume and each later one. Blocks. */
int dmcore__log_load(struct mirror *mirror);
/* Any thread. */
bool dmcore__log_in_sync(const struct mirror_log *log, uint64_t region);
uint64_t dmcore__log_num_words(const struct mirror_log *log);
/* The service's. A region is being written to. */
void dmcore__log_mark(struct mirror *mirror, uint64_t region);
/* What the next flush writes of it. */
bool dmcore__log_is_clean(const struct mirror_log *log, uint64_t region);
void dmcore__log_set_clean(struct mirror_log *log, uint64_t region, bool clean);
void dmcore__log_set_sync(struct mirror *mirror, uint64_t region, bool in_sync);
/* A leg may lack what hasn't been flushed: that isn't in sync. */
void dmcore__log_unsync_unflushed(struct mirror *mirror);
/* The first region from `from` on that isn't in sync, or UINT64_MAX. */
uint64_t dmcore__log_next_unsynced(const struct mirror_log *log, uint64_t from);
/* The first that is. */
uint64_t dmcore__log_next_synced(const struct mirror_log *log, uint64_t from);
/* The request is run again when all that is marked by now is durable, or has failed to be. */
void dmcore__log_wait(struct mirror *mirror, struct mirror_request *request);
/* Begins a flush, if one is wanted and none is under way. */
void dmcore__log_flush(struct mirror *mirror);
/* Nobody writes any more. Returns the call when the disk has all. */
void dmcore__log_finish(struct mirror *mirror, struct dmcore_call *call);
/* Submits a bio whose context is the mirror; what is refused ends at once. */
void dmcore__mirror_send(struct mirror *mirror, struct dmcore_bio *bio);
/* Whether marks are durable. */
static inline bool dmcore__log_is_well(const struct mirror_log *log)
{
	return atomic_load(&log->health) == 'A';
}

/* ---- clean.c ---- */

int dmcore__clean_allocate(struct mirror *mirror);
/* Nobody writes to a region any more, or somebody does again. */
void dmcore__clean_region(struct mirror *mirror, uint64_t region);
void dmcore__clean_not(struct mirror *mirror, uint64_t region);
/* Nobody writes to any any more: none is active, and all are to be cleaned. */
void dmcore__clean_all(struct mirror *mirror);
/* Has idle regions looked for, from time to time, while there are any. */
void dmcore__clean_later(struct mirror *mirror);
/* Begins a flush of the legs if there is need. False: there isn't, and none is under way. */
bool dmcore__clean_go_on(struct mirror *mirror);

/* ---- behind.c ---- */

int dmcore__behind_allocate(struct mirror *mirror);
void dmcore__behind_free(struct mirror *mirror);
/* How long a request may be. */
uint32_t dmcore__behind_io_sectors(const struct mirror *mirror);
/* Before a write is sent to legs: perhaps to all but one. False: it waits, and is run again. */
bool dmcore__behind_admit(struct mirror_request *request);
/* Of a work that is posted to the service: when nothing is behind, dmcore__mirror_run_behind(). */
void dmcore__behind_await(struct dmcore_work *work);
/* True: the call is made again when nothing is behind. */
bool dmcore__behind_delays(struct mirror *mirror, struct dmcore_call *call);

/* ---- writes.c ---- */

/* Of works that are posted to the service. */
void dmcore__mirror_write(struct dmcore_work *work);
void dmcore__mirror_failed(struct dmcore_work *work);
/* Runs a write again. */
void dmcore__mirror_run(struct mirror_request *request);
/* Tells that a leg has failed. */
void dmcore__mirror_fail_leg(struct mirror *mirror, uint32_t leg, enum mirror_failure failure);
/* Any thread: that it has failed to read. The service replaces it, if it is the first one. */
void dmcore__mirror_fail_read(struct mirror *mirror, uint32_t leg);
/* A leg couldn't be flushed: it may lack whatever was written to it since it last was. */
void dmcore__mirror_fail_flush(struct mirror *mirror, uint32_t leg);
/* Any thread: somebody has left what others wait for. */
void dmcore__mirror_wake(struct mirror *mirror);
/* Lets go of those that are held. */
void dmcore__mirror_release(struct mirror *mirror);
/* Runs them again, once: every leg is well. */
void dmcore__mirror_run_held(struct mirror *mirror);
/* A leg without failures: the first one, or from there downwards, and last the one that lags; or
 * MIRROR_NO_LEG. */
uint32_t dmcore__mirror_choose_leg(const struct mirror *mirror);
/* No leg lags any more: the one that does otherwise may take the place of the first. */
void dmcore__mirror_review_first(struct mirror *mirror);
/* Any thread: the one that a region is read from, or MIRROR_NO_LEG. */
uint32_t dmcore__mirror_read_leg(const struct mirror *mirror, uint64_t region);
/* Runs a read or a flush that has waited until no leg lags. */
void dmcore__mirror_run_behind(struct mirror_request *request);
/* A region's legs differ. */
void dmcore__mirror_unsync(struct mirror *mirror, uint64_t region);
static inline uint32_t dmcore__mirror_all_legs(const struct mirror *mirror)
{
	return (1u << mirror->num_legs) - 1;
}

/* ---- recovery.c ---- */

int dmcore__recovery_create(struct mirror *mirror);
void dmcore__recovery_destroy(struct mirror *mirror);
void dmcore__recovery_start(struct mirror *mirror);
/* Returns the call when nothing is under way any more. */
void dmcore__recovery_stop(struct mirror *mirror, struct dmcore_call *call);
/* Something may have changed for it. */
void dmcore__recovery_go_on(struct mirror *mirror);
/* The next run is to fail, too, as it seems: not at once. */
void dmcore__recovery_put_off(struct mirror *mirror);
/* Nobody enters a region from now on: it is RECOVERING. False: there is no place for it. */
bool dmcore__recovery_take(struct mirror *mirror, uint64_t region);
/* Runs writes again that waited for regions. */
void dmcore__recovery_let_waiters_go(struct mirror *mirror);

/* ---- scrub.c ---- */

/* The message `scrub` and its words; any thread, one at a time. */
int dmcore__scrub_message(struct mirror *mirror, struct dmcore_args *args,
			  struct dmcore_text *reply);
/* Something may have changed for it. */
void dmcore__scrub_go_on(struct mirror *mirror);
/* What it has under way ends, and nothing follows. */
void dmcore__scrub_stop(struct mirror *mirror);
static inline bool dmcore__scrub_is_idle(const struct mirror *mirror)
{
	return mirror->scrub.state == SCRUB_IDLE;
}

#endif
