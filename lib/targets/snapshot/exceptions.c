/* SPDX-License-Identifier: MIT */
/*
 * The table of a snapshot's exceptions: runs in a tree, and the counter by which readers find out
 * that they were disturbed. It is odd while a change is under way. Called by the other files here.
 */
#include "targets/snapshot/exceptions.h"

#include <errno.h>

#include <dmcore/driver.h>

#include "targets/snapshot/exceptions_tree.h"

/* A key is an old chunk, its value the new one. Both have spare bits: of the run's length. */
#define RUN_MAX (UINT64_C(1) << (2 * TREE_FREE_BITS))

_Static_assert(EXCEPTIONS_CHUNKS_MAX <= UINT64_C(1) << (64 - TREE_FREE_BITS), "chunks fit");

/* How often a reader looks, and for how long it waits before for the end of a change. */
#define LOOKS_MAX 4
#define SPINS_MAX 64

struct exceptions {
	_Atomic uint64_t version;
	_Atomic uint64_t chunks;
	struct tree tree;
};

/* ---- runs ---- */

static uint64_t key_of(uint64_t old_chunk)
{
	return old_chunk << TREE_FREE_BITS;
}

static struct exceptions_run make_run(uint64_t key, uint64_t value)
{
	return (struct exceptions_run){
		.old_chunk = key >> TREE_FREE_BITS,
		.new_chunk = value >> TREE_FREE_BITS,
		.count = (key & TREE_FREE_MASK) + ((value & TREE_FREE_MASK) << TREE_FREE_BITS) + 1,
	};
}

static struct exceptions_run run_at(const struct tree_place *place)
{
	return make_run(tree_key(place), tree_value(place));
}

static uint64_t run_key(const struct exceptions_run *run)
{
	return key_of(run->old_chunk) | ((run->count - 1) & TREE_FREE_MASK);
}

static uint64_t run_value(const struct exceptions_run *run)
{
	return run->new_chunk << TREE_FREE_BITS | (run->count - 1) >> TREE_FREE_BITS;
}

static void change(const struct tree_place *place, const struct exceptions_run *run)
{
	dmcore__tree_change(place, run_key(run), run_value(run));
}

static bool holds(const struct exceptions_run *run, uint64_t old_chunk)
{
	return old_chunk - run->old_chunk < run->count;
}

/* Whether the second one continues the first, and there is a length for both. */
static bool continues(const struct exceptions_run *first, const struct exceptions_run *second)
{
	return first->old_chunk + first->count == second->old_chunk &&
	       first->new_chunk + first->count == second->new_chunk &&
	       first->count + second->count <= RUN_MAX;
}

/* ---- life ---- */

struct exceptions *dmcore__exceptions_create(struct dmcore *core)
{
	struct exceptions *table = dmcore_zalloc(core, sizeof(*table));

	if (table && dmcore__tree_init(&table->tree, core)) {
		dmcore_free(core, table);
		table = NULL;
	}
	return table;
}

void dmcore__exceptions_destroy(struct exceptions *table)
{
	if (!table)
		return;
	dmcore__tree_fini(&table->tree);
	dmcore_free(table->tree.core, table);
}

/* ---- any thread ---- */

/* False: a change has been under way for long. */
static bool begin_look(const struct exceptions *table, uint64_t *version)
{
	for (unsigned int i = 0; i < SPINS_MAX; i++) {
		*version = tree_get(&table->version);
		if (*version % 2 == 0)
			return true;
	}
	return false;
}

/* Whether what was read since begin_look() belongs together: those loads acquire, so this one comes
 * after them. */
static bool end_look(const struct exceptions *table, uint64_t version)
{
	return atomic_load_explicit(&table->version, memory_order_relaxed) == version;
}

static bool look(const struct tree *tree, uint64_t old_chunk, struct exceptions_run *run)
{
	const struct tree_node *leaf = tree_leaf(tree, key_of(old_chunk));
	unsigned int pos = leaf ? tree_upper(leaf, 0, key_of(old_chunk)) : 0;

	if (pos == 0)
		return false;
	*run = make_run(tree_get(&leaf->keys[pos - 1]), tree_get(&leaf->values[pos - 1]));
	return holds(run, old_chunk);
}

enum exceptions_result dmcore__exceptions_find(const struct exceptions *table, uint64_t old_chunk,
					       uint64_t *new_chunk, uint64_t *version)
{
	struct exceptions_run run;

	for (unsigned int i = 0; i < LOOKS_MAX; i++) {
		uint64_t before;
		bool found;

		if (!begin_look(table, &before))
			continue;
		found = old_chunk < EXCEPTIONS_CHUNKS_MAX && look(&table->tree, old_chunk, &run);
		if (!end_look(table, before))
			continue;
		*version = before;
		if (!found)
			return EXCEPTIONS_NONE;
		*new_chunk = run.new_chunk + (old_chunk - run.old_chunk);
		return EXCEPTIONS_FOUND;
	}
	return EXCEPTIONS_BUSY;
}

static bool look_ahead(const struct tree *tree, uint64_t old_chunk, struct exceptions_run *run)
{
	struct tree_path path;
	uint64_t skipped;

	if (!dmcore__tree_find(tree, key_of(old_chunk), &path))
		return false;
	if (path.at[0].pos > 0) {
		path.at[0].pos--;
		*run = run_at(&path.at[0]);
		if (holds(run, old_chunk)) {
			skipped = old_chunk - run->old_chunk;
			run->old_chunk += skipped;
			run->new_chunk += skipped;
			run->count -= skipped;
			return true;
		}
		path.at[0].pos++;
	}
	if (!dmcore__tree_settle(tree, &path))
		return false;
	*run = run_at(&path.at[0]);
	return true;
}

enum exceptions_result dmcore__exceptions_next(const struct exceptions *table, uint64_t old_chunk,
					       struct exceptions_run *run)
{
	for (unsigned int i = 0; i < LOOKS_MAX; i++) {
		uint64_t before;
		bool found;

		if (!begin_look(table, &before))
			continue;
		found = old_chunk < EXCEPTIONS_CHUNKS_MAX &&
			look_ahead(&table->tree, old_chunk, run);
		if (end_look(table, before))
			return found ? EXCEPTIONS_FOUND : EXCEPTIONS_NONE;
	}
	return EXCEPTIONS_BUSY;
}

uint64_t dmcore__exceptions_version(const struct exceptions *table)
{
	/* After the data that the caller has read. */
	atomic_thread_fence(memory_order_acquire);
	return tree_get(&table->version);
}

uint64_t dmcore__exceptions_count(const struct exceptions *table)
{
	return tree_get(&table->chunks);
}

uint64_t dmcore__exceptions_bytes(const struct exceptions *table)
{
	return sizeof(*table) + tree_get(&table->tree.bytes);
}

/* ---- the thread that changes it ---- */

static void begin_change(struct exceptions *table)
{
	/* What is changed is stored with release, so nobody sees it without this. */
	atomic_store_explicit(&table->version, tree_get(&table->version) + 1,
			      memory_order_relaxed);
}

static void end_change(struct exceptions *table, uint64_t chunks)
{
	atomic_store_explicit(&table->chunks, chunks, memory_order_relaxed);
	atomic_store_explicit(&table->version, tree_get(&table->version) + 1,
			      memory_order_release);
}

int dmcore__exceptions_reserve(struct exceptions *table, unsigned int count)
{
	return dmcore__tree_reserve(&table->tree, count);
}

/* A chunk that is new, and the runs before and behind it (node NULL: there is none). */
struct insertion {
	struct tree_path path;
	struct tree_path other; /* to the one that isn't in the same leaf */
	struct tree_place before;
	struct tree_place behind;
};

static void find_place(struct tree *tree, uint64_t old_chunk, struct insertion *insertion)
{
	struct tree_path *path = &insertion->path;
	struct tree_path *other = &insertion->other;
	const struct tree_place *place = &path->at[0];

	dmcore__tree_seek(tree, key_of(old_chunk), path);
	insertion->before = *place;
	insertion->behind = *place;
	if (place->pos > 0) {
		insertion->before.pos--;
	} else {
		tree_copy_path(other, path);
		insertion->before.node = NULL;
		if (dmcore__tree_back(tree, other))
			insertion->before = other->at[0];
	}
	if (place->pos == tree_count(place->node)) {
		tree_copy_path(other, path);
		insertion->behind.node = NULL;
		if (dmcore__tree_settle(tree, other))
			insertion->behind = other->at[0];
	}
}

static struct tree_path *path_behind(struct insertion *insertion)
{
	bool is_here = insertion->behind.node == insertion->path.at[0].node;

	return is_here ? &insertion->path : &insertion->other;
}

/* Where the runs before and behind are in different leaves, the border between those moves with
 * the end that was moved. */
static void move_border(struct insertion *insertion, uint64_t old_chunk)
{
	if (insertion->before.node && insertion->behind.node &&
	    insertion->before.node != insertion->behind.node)
		dmcore__tree_bound(path_behind(insertion), key_of(old_chunk));
}

/* Whether the chunk became part of a run that there is. */
static bool join(struct tree *tree, struct insertion *insertion, struct exceptions_run run)
{
	struct exceptions_run other;
	bool joined = false;

	if (insertion->before.node) {
		other = run_at(&insertion->before);
		if (continues(&other, &run)) {
			other.count++;
			run = other;
			joined = true;
		}
	}
	if (insertion->behind.node) {
		other = run_at(&insertion->behind);
		if (continues(&run, &other)) {
			run.count += other.count;
			if (!joined) {
				change(&insertion->behind, &run);
				move_border(insertion, run.old_chunk);
				return true;
			}
			change(&insertion->before, &run);
			move_border(insertion, run.old_chunk + run.count);
			dmcore__tree_delete(tree, path_behind(insertion));
			return true;
		}
	}
	if (joined) {
		change(&insertion->before, &run);
		move_border(insertion, run.old_chunk + run.count);
	}
	return joined;
}

bool dmcore__exceptions_insert(struct exceptions *table, uint64_t old_chunk, uint64_t new_chunk)
{
	struct exceptions_run run = { old_chunk, new_chunk, 1 };
	struct insertion insertion;

	find_place(&table->tree, old_chunk, &insertion);
	if (insertion.before.node) {
		struct exceptions_run before = run_at(&insertion.before);

		if (holds(&before, old_chunk))
			return false;
	}
	begin_change(table);
	if (!join(&table->tree, &insertion, run))
		dmcore__tree_insert(&table->tree, &insertion.path, run_key(&run), run_value(&run));
	end_change(table, dmcore__exceptions_count(table) + 1);
	return true;
}

static void remove_from(struct tree *tree, struct tree_path *path, uint64_t old_chunk)
{
	struct exceptions_run run = run_at(&path->at[0]);
	struct exceptions_run rest = run;
	uint64_t index = old_chunk - run.old_chunk;

	if (run.count == 1) {
		dmcore__tree_delete(tree, path);
		return;
	}
	run.count = index;
	rest.old_chunk += index + 1;
	rest.new_chunk += index + 1;
	rest.count -= index + 1;
	change(&path->at[0], index > 0 ? &run : &rest);
	if (index > 0 && rest.count > 0) {
		path->at[0].pos++;
		dmcore__tree_insert(tree, path, run_key(&rest), run_value(&rest));
	}
}

bool dmcore__exceptions_remove(struct exceptions *table, uint64_t old_chunk)
{
	struct tree_path path;
	struct exceptions_run run;

	dmcore__tree_find(&table->tree, key_of(old_chunk), &path);
	if (path.at[0].pos == 0)
		return false;
	path.at[0].pos--;
	run = run_at(&path.at[0]);
	if (!holds(&run, old_chunk))
		return false;
	begin_change(table);
	remove_from(&table->tree, &path, old_chunk);
	end_change(table, dmcore__exceptions_count(table) - 1);
	return true;
}

void dmcore__exceptions_touch(struct exceptions *table)
{
	begin_change(table);
	end_change(table, dmcore__exceptions_count(table));
}
