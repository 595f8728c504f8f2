/* SPDX-License-Identifier: MIT */
/*
 * A simulated world: its clock, its log of events, its power, and the cores that live in it. Called
 * by programs, and by the sleep hook of those cores.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/heap.h"
#include "base/options.h"
#include "queue/queue.h"
#include "queue/service.h"
#include "sim/sim.h"

/* Cuts of a history that are noted. */
#define CUTS_MAX (1u << 22)

/* ---- the log ---- */

static uint64_t rotate(uint64_t x, unsigned int bits)
{
	return x << bits | x >> (64 - bits);
}

static uint64_t fold(uint64_t hash, uint64_t word)
{
	return rotate(hash ^ word * UINT64_C(0x9e3779b97f4a7c15), 29) *
	       UINT64_C(0xbf58476d1ce4e5b9);
}

static uint64_t load_le64(const unsigned char *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	word = __builtin_bswap64(word);
#endif
	return word;
}

/* The halves of a product, folded: every bit of the factors reaches every bit of it. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* In four lanes, which don't wait for each other. */
uint64_t dmcore__sim_hash(uint64_t hash, const void *data, uint64_t bytes)
{
	const unsigned char *at = data;
	uint64_t lanes[4] = { hash, hash + 1, hash + 2, hash + 3 };
	uint64_t left = bytes;

	for (; left >= 64; left -= 64, at += 64) {
		for (unsigned int i = 0; i < 4; i++)
			lanes[i] = mix(load_le64(at + (size_t)16 * i) ^
					       UINT64_C(0x9e3779b97f4a7c15),
				       load_le64(at + (size_t)16 * i + 8) ^ lanes[i]) +
				   UINT64_C(0xbf58476d1ce4e5b9);
	}
	for (; left; left--, at++)
		lanes[0] = fold(lanes[0], *at);
	for (unsigned int i = 1; i < 4; i++)
		lanes[0] = fold(lanes[0], lanes[i]);
	return fold(lanes[0], bytes);
}

uint64_t dmcore__sim_event(struct dmcore_sim *sim, struct dmcore_sim_event *event)
{
	uint64_t hash = sim->log_hash;

	event->nr = ++sim->event_nr;
	event->time_ns = sim->now_ns;
	if (!event->disk)
		event->disk = "";
	hash = fold(hash, event->nr);
	hash = fold(hash, event->time_ns);
	hash = fold(hash, (uint64_t)event->kind << 32 | (uint64_t)event->op << 16 | event->flags);
	for (const char *c = event->disk; *c; c++)
		hash = fold(hash, (unsigned char)*c);
	hash = fold(hash, event->sector);
	hash = fold(hash, event->count);
	hash = fold(hash, (uint64_t)(int64_t)event->status);
	sim->log_hash = fold(hash, event->value);
	if (sim->options.event)
		sim->options.event(event, sim->options.event_context);
	return event->nr;
}

int dmcore_sim_event_text(const struct dmcore_sim_event *event, char *text, size_t bytes)
{
	static const char *const kinds[] = { "submit", "complete", "mark", "cut", "power on" };
	static const char *const ops[DMCORE_OP_COUNT] = { "read", "write", "flush", "discard",
							  "write-zeroes" };
	const char *kind = event->kind <= DMCORE_SIM_POWER_ON ? kinds[event->kind] : "?";

	if (event->kind == DMCORE_SIM_MARK)
		return snprintf(text, bytes, "%" PRIu64 " %" PRIu64 " mark %" PRIu64, event->nr,
				event->time_ns, event->value);
	if (event->kind > DMCORE_SIM_COMPLETE)
		return snprintf(text, bytes, "%" PRIu64 " %" PRIu64 " %s", event->nr,
				event->time_ns, kind);
	return snprintf(text, bytes,
			"%" PRIu64 " %" PRIu64 " %s %s %s %" PRIu64 "+%" PRIu64
			"%s%s %d %016" PRIx64,
			event->nr, event->time_ns, event->disk, kind,
			event->op < DMCORE_OP_COUNT ? ops[event->op] : "?", event->sector,
			event->count, event->flags & DMCORE_BIO_FUA ? " fua" : "",
			event->flags & DMCORE_BIO_PREFLUSH ? " preflush" : "", event->status,
			event->value);
}

uint64_t dmcore_sim_num_events(const struct dmcore_sim *sim)
{
	return sim->event_nr;
}

uint64_t dmcore_sim_log_hash(const struct dmcore_sim *sim)
{
	return sim->log_hash;
}

/* ---- time ---- */

uint64_t dmcore_sim_now_ns(const struct dmcore_sim *sim)
{
	return sim->now_ns;
}

bool dmcore_sim_step(struct dmcore_sim *sim)
{
	struct dmcore_timer *timer = sim->timers;

	if (!timer)
		return false;
	dmcore__heap_remove(&sim->timers, timer);
	if (timer->at_ns > sim->now_ns)
		sim->now_ns = timer->at_ns;
	dmcore__sim_request_end((struct dmcore__sim_request *)timer);
	return true;
}

void dmcore_sim_pass(struct dmcore_sim *sim, uint64_t ns)
{
	uint64_t until_ns = dmcore__sim_later_ns(sim->now_ns, ns);

	while (sim->timers && sim->timers->at_ns <= until_ns)
		dmcore_sim_step(sim);
	if (sim->now_ns < until_ns)
		sim->now_ns = until_ns;
}

static uint64_t read_clock(void *context)
{
	return ((const struct dmcore_sim *)context)->now_ns;
}

/* The sleep hook of the world's cores. */
static int let_time_pass(struct dmcore *core, uint64_t until_ns, void *context)
{
	struct dmcore_sim *sim = context;
	struct dmcore_queue *service = dmcore__service_to_pump(core);
	uint64_t next_ns = until_ns;

	/* If it is the service itself that waits, it runs nothing meanwhile. */
	if (service && !dmcore__queue_polling(service)) {
		if (dmcore_service_poll(core, 0, UINT_MAX, 0) > 0)
			return 0;
		if (dmcore_timer_next_ns(service) < next_ns)
			next_ns = dmcore_timer_next_ns(service);
	}
	if (sim->timers && sim->timers->at_ns <= next_ns) {
		dmcore_sim_step(sim);
		return 0;
	}
	if (next_ns == UINT64_MAX) {
		if (sim->options.stuck)
			sim->options.stuck(sim, sim->options.stuck_context);
		return -EDEADLK;
	}
	if (sim->now_ns < next_ns)
		sim->now_ns = next_ns;
	return 0;
}

uint64_t dmcore_sim_choose(struct dmcore_sim *sim, uint64_t bound)
{
	return dmcore__random_below(&sim->random, bound);
}

int dmcore_sim_set_phase(struct dmcore_sim *sim, unsigned int phase)
{
	if (phase > 31)
		return dmcore__error(-EINVAL, "sim: phases are 0 to 31");
	sim->phase = phase;
	return 0;
}

/* ---- worlds and their cores ---- */

static int make_histories(struct dmcore_sim *sim)
{
	for (unsigned int i = 0; i <= DMCORE_SIM_NESTED_MAX; i++) {
		struct dmcore__sim_history *history = &sim->histories[i];

		history->marks =
			dmcore__sim_reserve(DMCORE_SIM_MARKS_MAX * sizeof(*history->marks));
		history->cuts = dmcore__sim_reserve(CUTS_MAX * sizeof(*history->cuts));
		if (!history->marks || !history->cuts)
			return -ENOMEM;
	}
	return 0;
}

static void free_world(struct dmcore_sim *sim)
{
	for (unsigned int i = 0; i <= DMCORE_SIM_NESTED_MAX; i++) {
		struct dmcore__sim_history *history = &sim->histories[i];

		dmcore__sim_unreserve(history->marks,
				      DMCORE_SIM_MARKS_MAX * sizeof(*history->marks));
		dmcore__sim_unreserve(history->cuts, CUTS_MAX * sizeof(*history->cuts));
	}
	for (unsigned int i = 0; i < sim->num_disks; i++)
		dmcore__sim_disk_destroy(sim->disks[i]);
	dmcore__sim_unreserve(sim, sizeof(*sim));
}

int dmcore_sim_create(const struct dmcore_sim_options *options, struct dmcore_sim **result)
{
	struct dmcore_sim_options own = { .struct_size = 0 };
	struct dmcore_sim *sim;

	if (!result)
		return -EINVAL;
	*result = NULL;
	if (options && !dmcore__struct_take(&own, sizeof(own), options))
		return dmcore__error(-EINVAL, "sim options: struct_size isn't set");
	sim = dmcore__sim_reserve(sizeof(*sim));
	if (!sim)
		return dmcore__error(-ENOMEM, "no memory for a world");
	sim->options = own;
	sim->driver = dmcore__sim_driver;
	dmcore__random_start(&sim->random, sim->options.seed, 0);
	sim->log_hash = sim->options.seed;
	if (make_histories(sim)) {
		free_world(sim);
		return dmcore__error(-ENOMEM, "no memory for a world");
	}
	*result = sim;
	return 0;
}

int dmcore_sim_destroy(struct dmcore_sim *sim)
{
	if (!sim)
		return 0;
	if (sim->depth)
		return dmcore__error(-EBUSY, "states are open");
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		if (sim->disks[i]->num_open)
			return dmcore__error(-EBUSY, "disk %s is open", sim->disks[i]->name);
	}
	free_world(sim);
	return 0;
}

int dmcore_sim_core(struct dmcore_sim *sim, const struct dmcore_options *options,
		    struct dmcore **result)
{
	struct dmcore_options own = DMCORE_OPTIONS_INIT;
	int ret;

	if (!sim || !result)
		return dmcore__error(-EINVAL, "no world, or no result");
	*result = NULL;
	if (options && !dmcore__struct_take(&own, sizeof(own), options))
		return dmcore__error(-EINVAL, "core options: struct_size isn't set");
	own.struct_size = sizeof(own);
	own.flags |= DMCORE_SERVICE_MANUAL;
	own.seed = dmcore__random_next(&sim->random);
	own.clock_ns = read_clock;
	own.clock_context = sim;
	own.sleep = let_time_pass;
	own.sleep_context = sim;
	if (own.backend == DMCORE_BACKEND_AUTO)
		own.backend = DMCORE_BACKEND_PREAD;
	ret = dmcore_create(&own, result);
	if (ret)
		return ret;
	ret = dmcore_driver_register(*result, &sim->driver);
	if (ret) {
		dmcore_destroy(*result);
		*result = NULL;
	}
	return ret;
}

/* ---- histories ---- */

void dmcore__sim_history_end(struct dmcore_sim *sim)
{
	struct dmcore__sim_history *history = dmcore__sim_history(sim);

	history->recording = false;
	history->num_marks = 0;
	history->num_cuts = 0;
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		dmcore__sim_cache_fold(sim->disks[i]->cache);
		sim->disks[i]->cache->overflowed = false;
	}
}

int dmcore_sim_record(struct dmcore_sim *sim)
{
	struct dmcore__sim_history *history = dmcore__sim_history(sim);

	if (sim->off)
		return dmcore__error(-ENODEV, "the power is off");
	dmcore__sim_history_end(sim);
	history->recording = true;
	history->begin_nr = sim->event_nr;
	for (unsigned int i = 0; i < sim->num_disks; i++)
		sim->disks[i]->cache->keeps = true;
	return 0;
}

int dmcore_sim_mark(struct dmcore_sim *sim, uint64_t value)
{
	struct dmcore__sim_history *history = dmcore__sim_history(sim);
	struct dmcore_sim_event event = { .kind = DMCORE_SIM_MARK, .value = value };

	if (history->num_marks == DMCORE_SIM_MARKS_MAX)
		return dmcore__error(-ENOSPC, "the history has %u marks", DMCORE_SIM_MARKS_MAX);
	event.nr = dmcore__sim_event(sim, &event);
	if (history->recording)
		history->marks[history->num_marks++] =
			(struct dmcore__sim_mark){ .nr = event.nr, .value = value };
	dmcore__sim_cut_if_due(sim);
	return 0;
}

void dmcore__sim_note_durable(struct dmcore_sim *sim)
{
	struct dmcore__sim_history *history = dmcore__sim_history(sim);

	if (!history->recording)
		return;
	if (history->num_cuts < CUTS_MAX)
		history->cuts[history->num_cuts++] = sim->event_nr - 1;
	else
		sim->disks[0]->cache->overflowed = true;
}

/* ---- power ---- */

/* Gives each uncertain unit something that may be left there, from the newest on: each is taken
 * with a probability of `bias` quarters. */
static void choose_content(struct dmcore_sim *sim, struct dmcore_sim_disk *disk, uint64_t bias)
{
	struct dmcore__sim_cache *cache = disk->cache;
	uint64_t cut_nr = sim->event_nr;

	while (cache->num_dirty) {
		uint32_t unit = cache->dirty[cache->num_dirty - 1];
		uint64_t floor_nr = dmcore__sim_floor(cache, unit, cut_nr);
		uint32_t chosen = 0;
		uint32_t v;

		for (v = cache->heads[unit]; v; v = cache->versions[v].older) {
			const struct dmcore__sim_write *write = dmcore__sim_write_of(cache, v);

			if (!dmcore__sim_may_be_left(write, floor_nr, cut_nr))
				continue;
			chosen = v;
			if (dmcore__random_below(&sim->random, 4) < bias)
				break;
		}
		/* Past the oldest that may be left: the base, if nothing rules it out. */
		if (!v && floor_nr == 0)
			chosen = 0;
		dmcore__sim_unit_load(cache, unit, dmcore__sim_left(cache, unit, chosen, cut_nr));
	}
	dmcore__sim_cache_forget(cache);
}

void dmcore_sim_cut(struct dmcore_sim *sim)
{
	struct dmcore_sim_event event = { .kind = DMCORE_SIM_CUT };

	if (sim->off)
		return;
	sim->cut_at = 0;
	for (unsigned int i = 0; i < sim->num_disks; i++)
		choose_content(sim, sim->disks[i], dmcore__random_below(&sim->random, 5));
	dmcore__sim_history_end(sim);
	dmcore__sim_event(sim, &event);
	sim->off = true;
	dmcore__sim_fail_all(sim);
}

void dmcore_sim_cut_after(struct dmcore_sim *sim, uint64_t events)
{
	sim->cut_at = events ? sim->event_nr + events : 0;
}

void dmcore__sim_cut_if_due(struct dmcore_sim *sim)
{
	if (sim->cut_at && sim->event_nr >= sim->cut_at)
		dmcore_sim_cut(sim);
}

void dmcore_sim_power_on(struct dmcore_sim *sim)
{
	struct dmcore_sim_event event = { .kind = DMCORE_SIM_POWER_ON };

	if (!sim->off)
		return;
	sim->off = false;
	dmcore__sim_event(sim, &event);
}

bool dmcore_sim_has_power(const struct dmcore_sim *sim)
{
	return !sim->off;
}
