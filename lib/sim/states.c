/* SPDX-License-Identifier: MIT */
/*
 * Crash states: what the disks of a world may hold after a power cut at any moment of a recorded
 * run, put onto them one after the other. While they are open each disk has a second cache on top
 * of the recorded one, in which the program under test works; what it changes there is undone by
 * the next state. Called by programs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/options.h"
#include "sim/sim.h"

#define STATES_PER_CUT_DEFAULT 1024u
#define STATES_PER_CUT_MAX (1u << 20)
#define GARBAGE_PER_CUT_MAX 64u

/* With the version that a unit holds: as this cut leaves it, another one leaves it otherwise. */
#define JOINED (UINT32_C(1) << 31)

/* A unit of which a cut may leave one version or another. */
struct item {
	uint32_t disk;
	uint32_t unit;
	uint32_t first; /* of its choices */
	uint32_t num;
	uint32_t now;   /* which of them the disk holds */
	bool downwards; /* Gray code: the way it goes next */
	bool inflight;  /* its last choice was in flight */
};

struct dmcore_sim_states {
	struct dmcore_sim *sim;
	struct dmcore_sim_states_options options;
	struct dmcore__sim_history *history;
	unsigned int depth; /* of the history */
	uint64_t end_nr;    /* last event of the history */
	uint64_t bytes;     /* of the memory that this lives in */
	bool over;          /* the second caches are gone */
	bool shown;         /* the disks hold a state */
	struct dmcore_sim_state state;
	uint64_t next_cut;  /* index of the next one to be shown */
	uint64_t num_here;  /* states of this cut that were shown */
	struct dmcore__random random; /* of this cut */
	uint32_t num_items;
	uint32_t num_inflight_items;
	uint32_t garbage_item; /* plus 1; 0: none */
	uint32_t max_items;
	uint32_t max_choices;
	struct item *items;
	uint32_t *choices;   /* versions, oldest first */
	uint64_t *numbers;   /* events by which the versions were submitted, or ended; sorted */
	uint32_t num_numbers;
	/* Of each disk, the version that each of its dirty units holds now, by its place. */
	uint32_t *now[DMCORE_SIM_DISKS_MAX];
	unsigned char *garbage;
};

static struct dmcore__sim_cache *recorded(const struct dmcore_sim_states *states, uint32_t disk)
{
	return &states->sim->disks[disk]->caches[states->depth];
}

static struct dmcore__sim_cache *working(const struct dmcore_sim_states *states, uint32_t disk)
{
	return &states->sim->disks[disk]->caches[states->depth + 1];
}

/* ---- the content of a unit ---- */

static void put(struct dmcore_sim_states *states, uint32_t disk, uint32_t unit, uint32_t version)
{
	struct dmcore__sim_cache *cache = recorded(states, disk);
	uint32_t *now = &states->now[disk][cache->places[unit] - 1];
	const unsigned char *content;

	if (*now == version)
		return;
	content = dmcore__sim_left(cache, unit, version, states->state.cut_nr);
	*now = content == dmcore__sim_content(cache, unit, version) ? version : version | JOINED;
	dmcore__sim_unit_set(working(states, disk), unit, content);
}

static void put_choice(struct dmcore_sim_states *states, struct item *item, uint32_t choice)
{
	item->now = choice;
	put(states, item->disk, item->unit, states->choices[item->first + choice]);
}

/* What the program under test has done since the last state. */
static void undo(struct dmcore_sim_states *states, uint32_t disk)
{
	struct dmcore__sim_cache *from = recorded(states, disk);
	struct dmcore__sim_cache *cache = working(states, disk);

	for (uint32_t i = 0; i < cache->num_touched; i++) {
		uint32_t unit = cache->touched[i];
		uint32_t place = from->places[unit];
		uint32_t version = place ? states->now[disk][place - 1] & ~JOINED : 0;

		dmcore__sim_unit_set(cache, unit, dmcore__sim_left(from, unit, version,
								   states->state.cut_nr));
		cache->touched_bits[unit / 64] &= ~(UINT64_C(1) << unit % 64);
	}
	cache->num_touched = 0;
	dmcore__sim_cache_forget(cache);
}

static void put_garbage(struct dmcore_sim_states *states, struct item *item)
{
	struct dmcore__sim_cache *cache = working(states, item->disk);

	for (uint32_t i = 0; i < cache->unit_bytes; i += 8) {
		uint64_t word = dmcore__random_next(&states->random);

		memcpy(states->garbage + i, &word, sizeof(word));
	}
	/* As if the program had written it: the next state undoes it. */
	dmcore__sim_unit_load(cache, item->unit, states->garbage);
}

/* ---- a cut ---- */

/* When a version counts as having come: those in flight after all others. */
static uint64_t order_of(const struct dmcore__sim_write *write, uint64_t cut_nr)
{
	return write->end_nr <= cut_nr ? write->end_nr : DMCORE__SIM_NEVER - 1;
}

static bool comes_before(const struct dmcore__sim_cache *cache, uint32_t a, uint32_t b,
			 uint64_t cut_nr)
{
	const struct dmcore__sim_write *left = dmcore__sim_write_of(cache, a);
	const struct dmcore__sim_write *right = dmcore__sim_write_of(cache, b);
	uint64_t left_nr = order_of(left, cut_nr);
	uint64_t right_nr = order_of(right, cut_nr);

	return left_nr != right_nr ? left_nr < right_nr : left->submit_nr < right->submit_nr;
}

/* Collects what a cut may leave in a unit, oldest first; returns how many there are. */
static uint32_t collect(struct dmcore_sim_states *states, const struct dmcore__sim_cache *cache,
			uint32_t unit, uint32_t first, bool *inflight)
{
	uint64_t cut_nr = states->state.cut_nr;
	uint64_t floor_nr = dmcore__sim_floor(cache, unit, cut_nr);
	uint32_t *choices = states->choices + first;
	uint32_t num = 0;

	*inflight = false;
	if (floor_nr == 0)
		choices[num++] = 0;
	for (uint32_t v = cache->heads[unit]; v; v = cache->versions[v].older) {
		const struct dmcore__sim_write *write = dmcore__sim_write_of(cache, v);
		uint32_t at = num;

		if (!dmcore__sim_may_be_left(write, floor_nr, cut_nr))
			continue;
		*inflight |= write->end_nr > cut_nr;
		for (; at > 0 && choices[at - 1]; at--) {
			if (!comes_before(cache, v, choices[at - 1], cut_nr))
				break;
			choices[at] = choices[at - 1];
		}
		choices[at] = v;
		num++;
	}
	return num;
}

/* Finds the uncertain units of the cut, and puts its oldest state onto the disks. */
static void find_items(struct dmcore_sim_states *states)
{
	uint32_t used = 0;

	states->num_items = 0;
	states->num_inflight_items = 0;
	for (uint32_t d = 0; d < states->sim->num_disks; d++) {
		struct dmcore__sim_cache *cache = recorded(states, d);

		for (uint32_t place = 0; place < cache->num_dirty; place++) {
			struct item *item = &states->items[states->num_items];
			uint32_t unit = cache->dirty[place];
			uint32_t num = collect(states, cache, unit, used, &item->inflight);

			put(states, d, unit, states->choices[used]);
			if (num < 2)
				continue;
			item->disk = d;
			item->unit = unit;
			item->first = used;
			item->num = num;
			item->now = 0;
			item->downwards = false;
			states->num_inflight_items += item->inflight;
			states->num_items++;
			used += num;
		}
	}
}

/* How many states the cut has, up to `most` + 1. */
static uint64_t count_states(const struct dmcore_sim_states *states, uint64_t most)
{
	uint64_t count = 1;

	for (uint32_t i = 0; i < states->num_items && count <= most; i++)
		count *= states->items[i].num;
	return count;
}

/* Moves to the next cut; false: there is none. */
static bool next_cut(struct dmcore_sim_states *states)
{
	const struct dmcore__sim_history *history = states->history;
	uint64_t index = states->next_cut++;
	uint64_t nr = states->end_nr;
	uint64_t marks = states->state.num_marks;

	if (states->options.cuts == DMCORE_SIM_CUTS_EVENTS)
		nr = dmcore__min_u64(history->begin_nr + index, states->end_nr);
	else if (states->options.cuts == DMCORE_SIM_CUTS_EPOCHS && index < history->num_cuts)
		nr = history->cuts[index];
	/* The end comes once. */
	if (index && states->state.cut_nr == states->end_nr)
		return false;
	states->state.cut_nr = nr;
	while (marks < history->num_marks && history->marks[marks].nr <= nr)
		marks++;
	states->state.num_marks = marks;
	states->state.mark = marks ? history->marks[marks - 1].value : 0;
	dmcore__random_start(&states->random, states->sim->options.seed, nr);
	find_items(states);
	states->state.num_uncertain = states->num_items;
	states->state.all = count_states(states, states->options.states_per_cut) <=
			    states->options.states_per_cut;
	states->num_here = 0;
	states->garbage_item = 0;
	return true;
}

/* ---- all states of a cut: each differs from the one before in one unit ---- */

static bool step_gray(struct dmcore_sim_states *states)
{
	for (uint32_t i = 0; i < states->num_items; i++) {
		struct item *item = &states->items[i];

		if (!item->downwards && item->now + 1 < item->num) {
			put_choice(states, item, item->now + 1);
			return true;
		}
		if (item->downwards && item->now > 0) {
			put_choice(states, item, item->now - 1);
			return true;
		}
		item->downwards = !item->downwards;
	}
	return false;
}

/* ---- a choice of them ---- */

static int compare_numbers(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static uint64_t number_of(const struct dmcore_sim_states *states, const struct item *item,
			  uint32_t choice, bool by_end)
{
	uint32_t version = states->choices[item->first + choice];
	const struct dmcore__sim_write *write;

	if (version == 0)
		return 0;
	write = dmcore__sim_write_of(recorded(states, item->disk), version);
	return by_end ? order_of(write, states->state.cut_nr) : write->submit_nr;
}

/* Collects when the choices were submitted, or ended. */
static void collect_numbers(struct dmcore_sim_states *states, bool by_end)
{
	uint32_t num = 0;
	uint32_t unique = 0;

	for (uint32_t i = 0; i < states->num_items; i++) {
		for (uint32_t c = 0; c < states->items[i].num; c++)
			states->numbers[num++] = number_of(states, &states->items[i], c, by_end);
	}
	qsort(states->numbers, num, sizeof(*states->numbers), compare_numbers);
	for (uint32_t i = 0; i < num; i++) {
		if (i == 0 || states->numbers[i] != states->numbers[i - 1])
			states->numbers[unique++] = states->numbers[i];
	}
	states->num_numbers = unique;
}

/* All that had been submitted, or had ended, by the `nth` of `of` moments. */
static void put_prefix(struct dmcore_sim_states *states, uint64_t nth, uint64_t of, bool by_end)
{
	uint64_t until;

	if (nth == 0)
		collect_numbers(states, by_end);
	until = states->numbers[nth * states->num_numbers / of];
	for (uint32_t i = 0; i < states->num_items; i++) {
		struct item *item = &states->items[i];
		uint32_t choice = 0;

		for (uint32_t c = 1; c < item->num; c++) {
			if (number_of(states, item, c, by_end) <= until)
				choice = c;
		}
		put_choice(states, item, choice);
	}
}

/* The newest in one unit alone, or in all but one. */
static void put_single(struct dmcore_sim_states *states, uint64_t nth, uint64_t of, bool all_but)
{
	uint32_t single = (uint32_t)(nth * states->num_items / of);

	for (uint32_t i = 0; i < states->num_items; i++) {
		struct item *item = &states->items[i];

		put_choice(states, item, (i == single) != all_but ? item->num - 1 : 0);
	}
}

static void put_all(struct dmcore_sim_states *states, bool newest)
{
	for (uint32_t i = 0; i < states->num_items; i++)
		put_choice(states, &states->items[i], newest ? states->items[i].num - 1 : 0);
}

static void put_random(struct dmcore_sim_states *states)
{
	for (uint32_t i = 0; i < states->num_items; i++) {
		struct item *item = &states->items[i];

		put_choice(states, item,
			   (uint32_t)dmcore__random_below(&states->random, item->num));
	}
}

/* State `nr` of those that are shown of a cut with too many. */
static bool step_sample(struct dmcore_sim_states *states, uint64_t nr)
{
	uint64_t share = dmcore__max_u64(states->options.states_per_cut / 6, 1);
	uint64_t singles = dmcore__min_u64(states->num_items, share);

	if (nr >= states->options.states_per_cut)
		return false;
	if (nr < 2)
		put_all(states, nr == 1);
	else if (nr - 2 < singles)
		put_single(states, nr - 2, singles, false);
	else if (nr - 2 < 2 * singles)
		put_single(states, nr - 2 - singles, singles, true);
	else if (nr - 2 < 2 * singles + share)
		put_prefix(states, nr - 2 - 2 * singles, share, false);
	else if (nr - 2 < 2 * singles + 2 * share)
		put_prefix(states, nr - 2 - 2 * singles - share, share, true);
	else
		put_random(states);
	return true;
}

/* After the others: everything new, but for garbage in one unit that was being written. */
static bool step_garbage(struct dmcore_sim_states *states, uint64_t nr)
{
	if (!(states->options.flags & DMCORE_SIM_GARBAGE) || nr >= GARBAGE_PER_CUT_MAX)
		return false;
	while (states->garbage_item < states->num_items &&
	       !states->items[states->garbage_item].inflight)
		states->garbage_item++;
	if (states->garbage_item >= states->num_items)
		return false;
	put_all(states, true);
	put_garbage(states, &states->items[states->garbage_item]);
	states->garbage_item++;
	return true;
}

/* The next state of this cut; false: there is none. */
static bool step(struct dmcore_sim_states *states)
{
	uint64_t nr = states->num_here++;

	if (states->garbage_item == 0) {
		if (nr == 0 || (states->state.all ? step_gray(states) : step_sample(states, nr)))
			return true;
		states->num_here = 1;
		nr = 0;
	}
	return step_garbage(states, nr);
}

/* ---- opening and closing ---- */

static int read_options(const struct dmcore_sim_states_options *from,
			struct dmcore_sim_states_options *to)
{
	memset(to, 0, sizeof(*to));
	if (from && !dmcore__struct_take(to, sizeof(*to), from))
		return dmcore__error(-EINVAL, "states options: struct_size isn't set");
	if (to->states_per_cut == 0)
		to->states_per_cut = STATES_PER_CUT_DEFAULT;
	if (to->cuts > DMCORE_SIM_CUTS_END || to->flags & ~DMCORE_SIM_GARBAGE ||
	    to->states_per_cut > STATES_PER_CUT_MAX)
		return dmcore__error(-EINVAL, "states options: unknown, or too many");
	return 0;
}

static int check_may_open(struct dmcore_sim *sim)
{
	if (!dmcore__sim_history(sim)->recording)
		return dmcore__error(-ENODATA, "sim: nothing has been recorded");
	if (sim->depth == DMCORE_SIM_NESTED_MAX)
		return dmcore__error(-ENOSPC, "sim: states of states of states, %d deep",
				     DMCORE_SIM_NESTED_MAX);
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		if (!dmcore__sim_disk_idle(sim->disks[i]))
			return dmcore__error(-EBUSY, "sim: disk %s has requests in flight",
					     sim->disks[i]->name);
		if (sim->disks[i]->cache->overflowed)
			return dmcore__error(-ENOBUFS, "sim: more was written to disk %s than it "
					     "keeps: the history isn't whole", sim->disks[i]->name);
	}
	return 0;
}

/* Lays out the states in one piece of memory. */
static struct dmcore_sim_states *allocate(struct dmcore_sim *sim)
{
	struct dmcore_sim_states *states;
	uint64_t num_dirty = 1;
	uint64_t num_choices = 1;
	uint64_t bytes;
	char *at;

	for (unsigned int i = 0; i < sim->num_disks; i++) {
		num_dirty += sim->disks[i]->cache->num_dirty;
		num_choices += sim->disks[i]->cache->num_versions +
			       sim->disks[i]->cache->num_dirty;
	}
	bytes = sizeof(*states) + num_dirty * (sizeof(struct item) + sizeof(uint32_t)) +
		num_choices * (sizeof(uint64_t) + sizeof(uint32_t)) + DMCORE_BLOCK_BYTES_MAX;
	states = dmcore__sim_reserve(bytes);
	if (!states)
		return NULL;
	states->bytes = bytes;
	at = (char *)(states + 1);
	states->numbers = (uint64_t *)(void *)at;
	at += num_choices * sizeof(uint64_t);
	states->items = (struct item *)(void *)at;
	at += num_dirty * sizeof(struct item);
	states->choices = (uint32_t *)(void *)at;
	at += num_choices * sizeof(uint32_t);
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		states->now[i] = (uint32_t *)(void *)at;
		at += sim->disks[i]->cache->num_dirty * sizeof(uint32_t);
	}
	states->garbage = (unsigned char *)at;
	return states;
}

/* The second caches go, and the recorded run goes on. */
static void pop(struct dmcore_sim_states *states)
{
	struct dmcore_sim *sim = states->sim;

	if (states->over)
		return;
	dmcore__sim_history_end(sim);
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		sim->disks[i]->cache = recorded(states, i);
		dmcore__sim_cache_destroy(working(states, i));
	}
	sim->depth = states->depth;
	states->over = true;
	states->shown = false;
	states->history->states = NULL;
	dmcore__sim_history_end(sim);
}

/* A second cache on top of each disk's, which holds what is durable. */
static int push(struct dmcore_sim_states *states)
{
	struct dmcore_sim *sim = states->sim;

	for (unsigned int i = 0; i < sim->num_disks; i++) {
		struct dmcore_sim_disk *disk = sim->disks[i];
		struct dmcore__sim_cache *from = disk->cache;
		struct dmcore__sim_cache *cache = from + 1;
		uint64_t bytes = (uint64_t)from->num_units * from->unit_bytes;
		int ret = dmcore__sim_cache_create(cache, bytes, from->unit_bytes,
						   disk->options.cache_units, true);

		if (ret) {
			while (i-- > 0) {
				sim->disks[i]->cache--;
				dmcore__sim_cache_destroy(sim->disks[i]->cache + 1);
			}
			return ret;
		}
		dmcore__sim_cache_fill(cache, from->base);
		disk->cache = cache;
	}
	states->history->recording = false;
	states->history->states = states;
	sim->depth++;
	return 0;
}

int dmcore_sim_states_open(struct dmcore_sim *sim, const struct dmcore_sim_states_options *options,
			   struct dmcore_sim_states **result)
{
	struct dmcore_sim_states_options own;
	struct dmcore_sim_states *states;
	int ret;

	if (!sim || !result)
		return dmcore__error(-EINVAL, "no world, or no result");
	*result = NULL;
	ret = read_options(options, &own);
	if (ret == 0)
		ret = check_may_open(sim);
	if (ret)
		return ret;
	states = allocate(sim);
	if (!states)
		return dmcore__error(-ENOMEM, "no memory for states");
	states->sim = sim;
	states->options = own;
	states->history = dmcore__sim_history(sim);
	states->depth = sim->depth;
	states->end_nr = sim->event_nr;
	ret = push(states);
	if (ret) {
		dmcore__sim_unreserve(states, states->bytes);
		return dmcore__error(ret, "no memory for states");
	}
	*result = states;
	return 0;
}

/* Whether these are the innermost, and nothing is in flight. */
static int check_quiet(const struct dmcore_sim_states *states)
{
	const struct dmcore_sim *sim = states->sim;

	if (sim->depth != states->depth + 1)
		return dmcore__error(-EBUSY, "sim: states were opened on top of these");
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		if (!dmcore__sim_disk_idle(sim->disks[i]))
			return dmcore__error(-EBUSY, "sim: disk %s has requests in flight",
					     sim->disks[i]->name);
	}
	return 0;
}

int dmcore_sim_states_next(struct dmcore_sim_states *states)
{
	struct dmcore_sim *sim;
	int ret;

	if (!states)
		return dmcore__error(-EINVAL, "no states");
	if (states->over)
		return 0;
	ret = check_quiet(states);
	if (ret)
		return ret;
	sim = states->sim;
	dmcore__sim_history_end(sim);
	for (uint32_t i = 0; i < sim->num_disks; i++)
		undo(states, i);
	dmcore_sim_power_on(sim);
	sim->cut_at = 0;
	if (states->shown)
		states->state.nr++;
	if (states->next_cut == 0 && !next_cut(states))
		return 0;
	while (!step(states)) {
		if (!next_cut(states)) {
			pop(states);
			return 0;
		}
	}
	states->shown = true;
	return 1;
}

int dmcore_sim_states_info(const struct dmcore_sim_states *states, struct dmcore_sim_state *state)
{
	struct dmcore_sim_state now;
	size_t size;

	if (!states || !states->shown || !state || state->struct_size < sizeof(size_t))
		return dmcore__error(-EINVAL, "no state, or struct_size isn't set");
	size = state->struct_size;
	now = states->state;
	now.struct_size = size;
	memcpy(state, &now, size < sizeof(now) ? size : sizeof(now));
	return 0;
}

int dmcore_sim_states_text(const struct dmcore_sim_states *states, char *text, size_t bytes)
{
	size_t used = 0;
	int ret = snprintf(text, bytes, "cut after event %" PRIu64 ":", states->state.cut_nr);

	for (uint32_t i = 0; i < states->num_items && ret >= 0; i++) {
		const struct item *item = &states->items[i];
		uint32_t version = states->choices[item->first + item->now];
		char what[32] = "old";

		used += (size_t)ret;
		if (states->garbage_item == i + 1)
			snprintf(what, sizeof(what), "garbage");
		else if (version)
			snprintf(what, sizeof(what), "of %" PRIu64,
				 number_of(states, item, item->now, false));
		ret = snprintf(used < bytes ? text + used : NULL, used < bytes ? bytes - used : 0,
			       "%s %s: %" PRIu32 " %s", i ? "," : "",
			       states->sim->disks[item->disk]->name, item->unit, what);
	}
	return ret < 0 ? ret : (int)used + ret;
}

int dmcore_sim_states_close(struct dmcore_sim_states *states)
{
	int ret;

	if (!states)
		return 0;
	if (!states->over) {
		ret = check_quiet(states);
		if (ret)
			return ret;
		dmcore_sim_power_on(states->sim);
		pop(states);
	}
	dmcore__sim_unreserve(states, states->bytes);
	return 0;
}
