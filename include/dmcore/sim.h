/* SPDX-License-Identifier: MIT */
/**
 * @file sim.h
 * @defgroup sim Simulation
 * A world to test in: disks that lose what no flush covers, a clock that moves only when somebody
 * waits, and choices that repeat from a seed.
 *
 * @code
 * dmcore_sim_create(&(struct dmcore_sim_options){ .struct_size = sizeof(...), .seed = 7 }, &sim);
 * dmcore_sim_disk_create(sim, "a", &disk_options, &disk);
 * dmcore_sim_core(sim, NULL, &core);
 * dmcore_bdev_open(core, "sim:a", 0, &bdev);
 * dmcore_sim_record(sim);
 * …                                          // the program under test writes, and flushes
 * dmcore_sim_mark(sim, 1);                   // "from now on, this must survive"
 * …
 * dmcore_sim_states_open(sim, NULL, &states);
 * while (dmcore_sim_states_next(states) > 0)
 *         …                                  // the disks hold what a cut may have left: check
 * dmcore_sim_states_close(states);
 * @endcode
 *
 * A world belongs to one thread, and so do the cores that are made in it. What the program under
 * test does must follow from the seed alone; then the same seed gives the same run, event by event.
 *
 * What a disk promises is what the block layer promises, and no more. It keeps its content in units
 * of `atomic_bytes`.
 *  1. A write that has completed may be lost, unit by unit, until it is covered: by a flush that
 *     was submitted after the write had completed and that has completed without an error, or by
 *     its own FUA.
 *  2. A write in flight at the cut, or one that has failed, may have reached any of its units.
 *  3. A unit holds one write's content, never a mixture. The rest of a unit of which a write covers
 *     a part is what reads see: those of the moment at which it completes, or of the cut.
 *  4. Once a write is durable, no write that had completed before it did comes back in its units.
 *  5. What a failed flush covered is covered by no later one: it has to be written again.
 *  6. Disks have caches of their own. A flush of one says nothing about another.
 * @{
 */
#ifndef DMCORE_SIM_H
#define DMCORE_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/context.h>

DMCORE_BEGIN_DECLS

struct dmcore_sim;
struct dmcore_sim_disk;
struct dmcore_sim_states;

/** @name The world
 * @{ */

/** Kinds of events. */
enum dmcore_sim_event_kind {
	DMCORE_SIM_SUBMIT,   /**< A request has reached a disk. */
	DMCORE_SIM_COMPLETE, /**< It has ended. */
	DMCORE_SIM_MARK,     /**< dmcore_sim_mark(). */
	DMCORE_SIM_CUT,      /**< The power has gone. */
	DMCORE_SIM_POWER_ON, /**< It is back. */
};

/** Something that happened in a world. */
struct dmcore_sim_event {
	uint64_t nr;      /**< From 1, without gaps. */
	uint64_t time_ns; /**< When, by the world's clock. */
	uint32_t kind;    /**< enum dmcore_sim_event_kind. */
	uint8_t op;       /**< SUBMIT, COMPLETE: enum dmcore_op. */
	uint8_t unused;   /**< Zero. */
	uint16_t flags;   /**< SUBMIT, COMPLETE: DMCORE_BIO_* as they reached the disk. */
	const char *disk; /**< SUBMIT, COMPLETE: its name; else "". */
	uint64_t sector;  /**< SUBMIT, COMPLETE: first sector. */
	uint64_t count;   /**< SUBMIT, COMPLETE: sectors; 0 for a flush. */
	int32_t status;   /**< COMPLETE: as the bio's. */
	uint32_t unused2; /**< Zero. */
	uint64_t value;   /**< SUBMIT of a write, COMPLETE of a read: a hash of the data. MARK: the
			       mark. */
};

/** Is told of each event, when it happens; must not call the world or the library. */
typedef void (*dmcore_sim_event_fn)(const struct dmcore_sim_event *event, void *context);
/** Somebody waits, and nothing will ever happen. */
typedef void (*dmcore_sim_stuck_fn)(struct dmcore_sim *sim, void *context);

/** What a world is made with. Zero means the default in each field. */
struct dmcore_sim_options {
	size_t struct_size;        /**< sizeof(struct dmcore_sim_options) of the caller. */
	uint64_t seed;             /**< Of all that is random in it. */
	dmcore_sim_event_fn event; /**< NULL: nobody is told; the hash is kept all the same. */
	void *event_context;       /**< Handed to event. */
	dmcore_sim_stuck_fn stuck; /**< Called before a wait that can't end returns -EDEADLK. Plain
				        calls such as dmcore_pread() can't return: they ask again
				        and again, so a test that may hang there ends itself
				        here. NULL: nothing. */
	void *stuck_context;       /**< Handed to stuck. */
};

/**
 * Makes a world: without disks, at time 0, with the power on.
 *
 * @param[in]  options  NULL for the defaults; copied.
 * @param[out] result   The world, owned by the caller; NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  struct_size isn't set.
 * @retval -ENOMEM  No memory.
 * @threads   any
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_sim_create(const struct dmcore_sim_options *options,
						   struct dmcore_sim **result);

/**
 * Takes a world down, and its disks. Its cores must have been destroyed before.
 *
 * @param[in] sim  NULL is a no-op.
 * @retval 0       Gone.
 * @retval -EBUSY  A disk is open, or states are; the world is unchanged.
 * @threads   the world's
 */
DMCORE_API int dmcore_sim_destroy(struct dmcore_sim *sim);

/**
 * Makes a core in a world: its clock is the world's, its waits let the world's time pass and run
 * its service, its seed comes from the world's, and the driver `sim:NAME` opens the world's disks.
 *
 * @param[in]  sim      The world; must outlive the core.
 * @param[in]  options  NULL for the defaults. The fields clock_ns, sleep and their contexts, the
 *                      seed and DMCORE_SERVICE_MANUAL are the world's; AUTO means pread here.
 * @param[out] result   The core, to be destroyed by dmcore_destroy(); NULL on failure.
 * @retval 0        Made; otherwise the errors of dmcore_create().
 * @threads   the world's
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_sim_core(struct dmcore_sim *sim,
						 const struct dmcore_options *options,
						 struct dmcore **result);

/**
 * The time.
 *
 * @param[in] sim  The world.
 * @return  Nanoseconds since it was made.
 * @threads the world's
 */
DMCORE_API uint64_t dmcore_sim_now_ns(const struct dmcore_sim *sim);

/**
 * Lets time pass until the next request of a disk ends, for programs that poll without waiting.
 * Ends it: its bio completes in the next poll of its queue.
 *
 * @param[in] sim  The world.
 * @return  True if one has ended; false: none is under way.
 * @threads the world's; not from a callback of the world
 */
DMCORE_API bool dmcore_sim_step(struct dmcore_sim *sim);

/**
 * Lets time pass, and ends the requests that end in it.
 *
 * @param[in] sim  The world.
 * @param[in] ns   How long.
 * @threads the world's; not from a callback of the world
 */
DMCORE_API void dmcore_sim_pass(struct dmcore_sim *sim, uint64_t ns);

/**
 * A choice that follows from the seed.
 *
 * @param[in] sim    The world.
 * @param[in] bound  How many there are to choose from.
 * @return  0 to @p bound - 1; 0 for a bound of 0.
 * @threads the world's
 */
DMCORE_API uint64_t dmcore_sim_choose(struct dmcore_sim *sim, uint64_t bound);

/**
 * How many events there have been.
 *
 * @param[in] sim  The world.
 * @return  The number of the latest.
 * @threads the world's
 */
DMCORE_API uint64_t dmcore_sim_num_events(const struct dmcore_sim *sim);

/**
 * A hash over every field of every event, in order: two runs with the same hash were the same.
 *
 * @param[in] sim  The world.
 * @return  The hash; the same on every machine and with every compiler.
 * @threads the world's
 */
DMCORE_API uint64_t dmcore_sim_log_hash(const struct dmcore_sim *sim);

/**
 * Writes an event as a line of text, without the newline:
 * `12 350000 a complete write 64+8 fua 0 9c5e1d…`.
 *
 * @param[in]  event  The event.
 * @param[out] text   NUL-terminated, cut if need be.
 * @param[in]  bytes  Size of @p text.
 * @return  The length of the whole line, as snprintf().
 * @threads any
 */
DMCORE_API int dmcore_sim_event_text(const struct dmcore_sim_event *event, char *text,
				     size_t bytes);

/** @} */
/** @name Disks
 * @{ */

/** Every write is durable when it completes, as with FUA. */
#define DMCORE_SIM_NO_CACHE (1u << 0)
/** No FUA of its own: the library flushes after such writes. */
#define DMCORE_SIM_NO_FUA (1u << 1)
/** No DISCARD. */
#define DMCORE_SIM_NO_DISCARD (1u << 2)
/** No WRITE_ZEROES of its own: the library writes zeroes. */
#define DMCORE_SIM_NO_WRITE_ZEROES (1u << 3)
/** Flushes and FUA succeed, and make nothing durable: to see a test fail. */
#define DMCORE_SIM_LIES (1u << 4)

/** What a discarded range holds. */
enum dmcore_sim_discard {
	DMCORE_SIM_DISCARD_ZEROES, /**< Zeroes. */
	DMCORE_SIM_DISCARD_KEEPS,  /**< What it held. */
	DMCORE_SIM_DISCARD_RANDOM, /**< Anything. */
};

/** What a disk is. Zero means the default in each field but sectors. */
struct dmcore_sim_disk_options {
	size_t struct_size;           /**< sizeof(struct dmcore_sim_disk_options) of the caller. */
	uint64_t sectors;             /**< Size, at most DMCORE_SIM_DISK_SECTORS_MAX. */
	unsigned int flags;           /**< DMCORE_SIM_*. */
	uint32_t logical_block_bytes; /**< 512 by default. */
	uint32_t atomic_bytes;        /**< What a cut leaves whole: a power of two from 16 to 65536;
				           512 by default. */
	enum dmcore_sim_discard discard; /**< ZEROES by default. */
	uint32_t max_io_sectors;      /**< As dmcore_limits::max_io_sectors; 0: no maximum. */
	uint32_t depth;               /**< Requests at work at once, more wait; 0: no maximum. */
	uint64_t read_ns;             /**< How long a read takes. */
	uint64_t write_ns;            /**< A write, a discard, zeroes. */
	uint64_t flush_ns;            /**< A flush. */
	uint64_t sector_ns;           /**< And for each sector. */
	uint64_t spread_ns;           /**< And a random time up to this: with it, requests overtake
				           each other. */
	uint64_t cache_units;         /**< Above so many units the disk writes the oldest back by
				           itself; at most DMCORE_SIM_CACHE_UNITS_MAX, the
				           default. While a history is recorded that ends it. A
				           write for which the oldest in flight leaves no room
				           ends with -ENOMEM, as does a longer one than that. */
};

/**
 * Adds a disk to a world: zeroed, all of it durable.
 *
 * @param[in]  sim      The world.
 * @param[in]  name     Without commas and blanks; 1 to DMCORE_SIM_NAME_MAX characters.
 * @param[in]  options  struct_size and sectors set; copied.
 * @param[out] result   The disk, the world's; NULL on failure.
 * @retval 0        Added.
 * @retval -EINVAL  An option is out of its range, or unknown.
 * @retval -EEXIST  The name is taken.
 * @retval -ENOSPC  The world has DMCORE_SIM_DISKS_MAX disks.
 * @retval -ENOMEM  No memory.
 * @retval -EBUSY   States are open.
 * @threads   the world's
 */
DMCORE_API DMCORE_MUST_CHECK int
dmcore_sim_disk_create(struct dmcore_sim *sim, const char *name,
		       const struct dmcore_sim_disk_options *options,
		       struct dmcore_sim_disk **result);

/**
 * The content of a disk, as reads see it now.
 *
 * @param[in] disk  The disk.
 * @return  All its bytes. Borrowed; changes as the disk does, and may move when states are opened
 *          or closed.
 * @threads the world's
 */
DMCORE_API const void *dmcore_sim_disk_data(const struct dmcore_sim_disk *disk);

/**
 * Puts content onto a disk: durable, at once, and without an event. What was written to it before
 * is forgotten where the range covers it.
 *
 * @param[in] disk          The disk.
 * @param[in] data          Copied.
 * @param[in] len_bytes     Together with the offset no more than the disk.
 * @param[in] offset_bytes  Both are multiples of the disk's atomic unit.
 * @retval 0        Done.
 * @retval -EINVAL  A bad range.
 * @retval -EBUSY   A write to it is in flight, or a history is recorded.
 * @threads   the world's
 */
DMCORE_API int dmcore_sim_disk_load(struct dmcore_sim_disk *disk, const void *data,
				    size_t len_bytes, uint64_t offset_bytes);

/** @} */
/** @name Faults
 * @{ */

/** What a rule does with a request. */
enum dmcore_sim_action {
	DMCORE_SIM_FAIL,      /**< It isn't carried out, and ends with `status`. A flush that fails
			           leaves what it covered uncovered for good. */
	DMCORE_SIM_FAIL_DONE, /**< It is carried out, and ends with `status` all the same. */
	DMCORE_SIM_TEAR,      /**< Its first `sectors` are done, and it ends with `status`. For a
			           flush, as FAIL. */
	DMCORE_SIM_DELAY,     /**< It takes `delay_ns` longer. */
	DMCORE_SIM_HOLD,      /**< It waits for dmcore_sim_release(). */
	DMCORE_SIM_LOSE,      /**< It isn't carried out, and ends with 0; a read leaves the memory
			           as it was, a flush makes nothing durable. */
	DMCORE_SIM_MISDIRECT, /**< It goes to `sector_to` instead, and ends with 0. */
	DMCORE_SIM_CORRUPT,   /**< A random bit of what it reads or writes flips. READ, WRITE. */
};

/** When a disk does what. A request that no rule wants is carried out. */
struct dmcore_sim_rule {
	size_t struct_size;  /**< sizeof(struct dmcore_sim_rule) of the caller. */
	enum dmcore_sim_action action; /**< What happens. */
	int status;          /**< FAIL, FAIL_DONE, TEAR: a negative errno. */
	uint32_t ops;        /**< Bits 1 << enum dmcore_op; 0: any. */
	uint32_t phases;     /**< Bits 1 << phase, see dmcore_sim_set_phase(); 0: any. */
	uint64_t sector;     /**< Only requests that touch one of these; a flush does always. */
	uint64_t count;      /**< How many sectors; 0: anywhere. */
	uint32_t skip;       /**< Let so many matching requests pass first. */
	uint32_t times;      /**< Then act on so many; 0: on all. */
	uint32_t per_million; /**< On a matching request act with this probability; 0: always. */
	uint32_t unused;     /**< Zero. */
	uint64_t delay_ns;   /**< DELAY. */
	uint64_t sectors;    /**< TEAR. */
	uint64_t sector_to;  /**< MISDIRECT: cut to what the disk has there. */
};

/**
 * Adds a rule to a disk. Of the rules that want a request the oldest decides.
 *
 * @param[in] disk  The disk.
 * @param[in] rule  Copied.
 * @retval 0        Added.
 * @retval -EINVAL  An unknown action or operation, a status that isn't negative, or struct_size
 *                  isn't set.
 * @retval -ENOSPC  The disk has DMCORE_SIM_RULES_MAX rules.
 * @threads   the world's
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_sim_rule_add(struct dmcore_sim_disk *disk,
						     const struct dmcore_sim_rule *rule);

/**
 * Takes all rules off a disk. What they hold stays held.
 *
 * @param[in] disk  The disk.
 * @threads the world's
 */
DMCORE_API void dmcore_sim_rules_clear(struct dmcore_sim_disk *disk);

/**
 * How often the rules of a disk have acted.
 *
 * @param[in] disk  The disk.
 * @return  Since it was made.
 * @threads the world's
 */
DMCORE_API uint64_t dmcore_sim_rules_acted(const struct dmcore_sim_disk *disk);

/**
 * Lets go of the requests that a disk holds, in their order: each takes the time of its kind from
 * now.
 *
 * @param[in] disk  The disk.
 * @return  How many there were.
 * @threads the world's
 */
DMCORE_API unsigned int dmcore_sim_release(struct dmcore_sim_disk *disk);

/**
 * Says in which phase the program under test is, for rules that hold in some phases only.
 *
 * @param[in] sim    The world.
 * @param[in] phase  0 to 31; 0 at first.
 * @retval 0        Set.
 * @retval -EINVAL  Above 31.
 * @threads   the world's
 */
DMCORE_API int dmcore_sim_set_phase(struct dmcore_sim *sim, unsigned int phase);

/** @} */
/** @name Power cuts
 * A cut now, of which one outcome is seen: the way to test a whole program with many seeds.
 * @{ */

/**
 * The power goes off: each disk is left with one of the contents that it may have, chosen by the
 * seed. Requests in flight end with -ENODEV, as do all others until dmcore_sim_power_on(). A
 * history that is recorded ends.
 *
 * @param[in] sim  The world.
 * @threads the world's; not from a callback of the world
 */
DMCORE_API void dmcore_sim_cut(struct dmcore_sim *sim);

/**
 * Has the power go off when so many more events have happened.
 *
 * @param[in] sim     The world.
 * @param[in] events  0: not at all.
 * @threads the world's
 */
DMCORE_API void dmcore_sim_cut_after(struct dmcore_sim *sim, uint64_t events);

/**
 * The power comes back: the disks work again, with empty caches.
 *
 * @param[in] sim  The world.
 * @threads the world's
 */
DMCORE_API void dmcore_sim_power_on(struct dmcore_sim *sim);

/**
 * Whether the power is on.
 *
 * @param[in] sim  The world.
 * @return  False after a cut.
 * @threads the world's
 */
DMCORE_API bool dmcore_sim_has_power(const struct dmcore_sim *sim);

/** @} */
/** @name Crash states
 * Every content that a power cut at any moment of a recorded run may leave behind, one after the
 * other on the same disks.
 * @{ */

/**
 * Begins to record: from now on the disks keep everything that is written to them. A history that
 * was recorded before is dropped.
 *
 * @param[in] sim  The world.
 * @retval 0       Recording, until the next cut or the end of the states around.
 * @retval -ENODEV The power is off.
 * @threads   the world's
 */
DMCORE_API int dmcore_sim_record(struct dmcore_sim *sim);

/**
 * Notes that something has been promised: each state of a later cut comes with it. While nothing
 * is recorded it is an event and no more.
 *
 * @param[in] sim    The world.
 * @param[in] value  Anything.
 * @retval 0        Noted, as an event.
 * @retval -ENOSPC  The history has DMCORE_SIM_MARKS_MAX marks.
 * @threads   the world's
 */
DMCORE_API int dmcore_sim_mark(struct dmcore_sim *sim, uint64_t value);

/** At which moments the power is cut. */
enum dmcore_sim_cuts {
	/** Right before anything becomes durable, and at the end: until then what may be left only
	 *  grows, and so do promises; so this is as good as every moment, unless a promise is taken
	 *  back, or writes to parts of one unit are in flight together. */
	DMCORE_SIM_CUTS_EPOCHS,
	DMCORE_SIM_CUTS_EVENTS, /**< Before the first event, and after each. */
	DMCORE_SIM_CUTS_END,    /**< At the end only. */
};

/** A write in flight may leave garbage in one of its units: behind the other states of a cut there
 *  are some, 64 at the most, with all that is new and garbage in one such unit. */
#define DMCORE_SIM_GARBAGE (1u << 0)

/** Which states are wanted. Zero means the default in each field. */
struct dmcore_sim_states_options {
	size_t struct_size;        /**< sizeof(struct dmcore_sim_states_options) of the caller. */
	enum dmcore_sim_cuts cuts; /**< EPOCHS by default. */
	unsigned int flags;        /**< DMCORE_SIM_GARBAGE or 0. */
	uint32_t states_per_cut;   /**< Of a cut with no more states than this, at most 2^20, all
				        are shown, else a choice of so many: none of what is
				        uncertain, all, each alone, all but one, in order of
				        submission and of completion, and random ones. 1024 by
				        default. */
	uint32_t unused;           /**< Zero. */
};

/** The state that the disks hold. */
struct dmcore_sim_state {
	size_t struct_size;     /**< In: sizeof(struct dmcore_sim_state) of the caller. */
	uint64_t nr;            /**< Of all states of this iteration, from 0. */
	uint64_t cut_nr;        /**< The last event before the cut. */
	uint64_t num_marks;     /**< Marks before it. */
	uint64_t mark;          /**< The last of them; 0: none. */
	uint64_t num_uncertain; /**< Units of which the cut may leave one thing or another. */
	bool all;               /**< Every state of this cut is shown, but for garbage. */
};

/**
 * Stops recording, and begins to show states. What the program under test then does to the disks is
 * undone by the next state; it may be recorded and cut in turn, up to DMCORE_SIM_NESTED_MAX deep.
 *
 * @param[in]  sim      The world, with no request in flight.
 * @param[in]  options  NULL for the defaults; copied.
 * @param[out] result   The states, to be closed; NULL on failure.
 * @retval 0         Open; the disks are unchanged until dmcore_sim_states_next().
 * @retval -EINVAL   An option is out of its range.
 * @retval -EBUSY    Requests are in flight.
 * @retval -ENODATA  Nothing has been recorded.
 * @retval -ENOBUFS  More was written than a disk keeps, or became durable too often: the history
 *                   isn't whole.
 * @retval -ENOSPC   Too deep.
 * @retval -ENOMEM   No memory.
 * @threads   the world's
 */
DMCORE_API DMCORE_MUST_CHECK int
dmcore_sim_states_open(struct dmcore_sim *sim, const struct dmcore_sim_states_options *options,
		       struct dmcore_sim_states **result);

/**
 * Undoes what has been done to the disks, and puts the next state onto them: all of it durable, the
 * power on, the rules as they are.
 *
 * @param[in] states  The states that were opened last.
 * @retval 1       The disks hold a state.
 * @retval 0       There are no more; the disks hold what they held before the opening.
 * @retval -EBUSY  Requests are in flight, or states were opened on top of these.
 * @threads   the world's
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_sim_states_next(struct dmcore_sim_states *states);

/**
 * Tells which state it is.
 *
 * @param[in]     states  The states, after a dmcore_sim_states_next() that returned 1.
 * @param[in,out] state   struct_size set by the caller; the rest is filled in as far as that goes.
 * @retval 0        Filled in.
 * @retval -EINVAL  There is no state, or struct_size isn't set.
 * @threads   the world's
 */
DMCORE_API int dmcore_sim_states_info(const struct dmcore_sim_states *states,
				      struct dmcore_sim_state *state);

/**
 * Names the state for people: the cut, and what of the uncertain is there,
 * `cut after event 41: a: 8 of 41, 9 old` (unit 8 as written by the request of event 41).
 *
 * @param[in]  states  As above.
 * @param[out] text    NUL-terminated, cut if need be.
 * @param[in]  bytes   Size of @p text.
 * @return  The length of the whole text, as snprintf().
 * @threads the world's
 */
DMCORE_API int dmcore_sim_states_text(const struct dmcore_sim_states *states, char *text,
				      size_t bytes);

/**
 * Ends it: the disks hold again what they held before, and the history is gone.
 *
 * @param[in] states  The states that were opened last; NULL is a no-op.
 * @retval 0       Closed.
 * @retval -EBUSY  Requests are in flight, or states were opened on top of these.
 * @threads   the world's
 */
DMCORE_API int dmcore_sim_states_close(struct dmcore_sim_states *states);

/** @} */
/** @name Failing runs
 * @{ */

/** Whether a run of these operations fails. */
typedef bool (*dmcore_sim_fails_fn)(const uint32_t *ops, size_t num_ops, void *context);

/**
 * Takes operations away from a failing run as long as it still fails: first in halves, then in ever
 * smaller parts, until no single one can be spared.
 *
 * @param[in,out] ops      Numbers that mean operations to the caller, in order. Those that are left
 *                         come to stand at the front.
 * @param[in]     num_ops  How many.
 * @param[in]     fails    Carries out a run of some of them, from the same beginning each time.
 *                         Called at most @p runs_max times.
 * @param[in]     context  Handed to fails.
 * @param[in]     runs_max A bound on the work.
 * @return  How many are left; @p num_ops if the run doesn't fail at all.
 * @threads the caller's
 */
DMCORE_API size_t dmcore_sim_shrink(uint32_t *ops, size_t num_ops, dmcore_sim_fails_fn fails,
				    void *context, unsigned int runs_max);

/** @} */

DMCORE_END_DECLS

/** @} */
#endif
