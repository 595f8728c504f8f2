/* SPDX-License-Identifier: MIT */
/* The B+ tree below a table of exceptions. Called by exceptions.c. */
#include "targets/snapshot/exceptions_tree.h"

#include <errno.h>

#include <dmcore/driver.h>

/* A node takes part in sharing with so much room or more: else each insert would move a node. */
#define SHARE_ROOM_MIN 4
/* Two siblings with no more entries become one. */
#define MERGE_MAX (TREE_ENTRIES * 3 / 4)

_Static_assert(sizeof(struct tree_node) == 1024, "whole cache lines, no gaps");
_Static_assert(SHARE_ROOM_MIN >= 2, "there is room left after sharing");

static void put(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

static void set_count(struct tree_node *node, unsigned int count)
{
	put(&node->count, count);
}

static unsigned int root_level(const struct tree *tree)
{
	return (unsigned int)(tree_get(&tree->root) >> 32);
}

static void set_root(struct tree *tree, unsigned int level, uint64_t number)
{
	put(&tree->root, (uint64_t)level << 32 | number);
}

/* ---- nodes ---- */

/* One that is there: whoever changes the tree sees it whole, and has reserved before. */
static struct tree_node *node_of(const struct tree *tree, uint64_t number)
{
	struct tree_node *node = tree_node(tree, number);

	if (!node)
		__builtin_trap();
	return node;
}

static size_t slab_nodes(uint32_t slab)
{
	return (size_t)1 << (TREE_FIRST_SHIFT + (slab >> TREE_SLABS_SHIFT));
}

static int add_slab(struct tree *tree)
{
	size_t nodes = tree->num_slabs < TREE_SLABS ? slab_nodes(tree->num_slabs) : 0;
	size_t bytes = nodes * sizeof(struct tree_node) + TREE_LINE_BYTES + sizeof(void *);
	char *raw = nodes ? dmcore_zalloc(tree->core, bytes) : NULL;
	char *slab;

	if (!raw)
		return -ENOMEM;
	slab = raw + sizeof(void *);
	slab += -(uintptr_t)slab & (TREE_LINE_BYTES - 1);
	((void **)(void *)slab)[-1] = raw;
	atomic_store_explicit(&tree->slabs[tree->num_slabs], (struct tree_node *)(void *)slab,
			      memory_order_release);
	tree->num_slabs++;
	tree->capacity += (uint32_t)nodes;
	put(&tree->bytes, tree_get(&tree->bytes) + bytes);
	return 0;
}

static uint32_t take_node(struct tree *tree, unsigned int level)
{
	uint32_t number = tree->first_free;

	tree->num_nodes[level]++;
	tree->shape++;
	if (tree->num_free == 0)
		return tree->num_fresh++;
	tree->first_free = (uint32_t)tree_get(&node_of(tree, number)->keys[0]);
	tree->num_free--;
	return number;
}

static void free_node(struct tree *tree, unsigned int level, uint32_t number)
{
	put(&node_of(tree, number)->keys[0], tree->first_free);
	tree->first_free = number;
	tree->num_free++;
	tree->num_nodes[level]--;
	tree->shape++;
}

int dmcore__tree_init(struct tree *tree, struct dmcore *core)
{
	tree->core = core;
	if (add_slab(tree))
		return -ENOMEM;
	set_root(tree, 0, take_node(tree, 0));
	return 0;
}

void dmcore__tree_fini(struct tree *tree)
{
	for (uint32_t i = 0; i < tree->num_slabs; i++) {
		void *slab = atomic_load_explicit(&tree->slabs[i], memory_order_relaxed);

		dmcore_free(tree->core, ((void **)slab)[-1]);
	}
}

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/*
 * A level gets a node for each cut in it, and each of those is an insert into the level above. Of n
 * nodes each may be full: then the first insert into it cuts it. Each further cut takes a third of
 * a node's entries as inserts at least, since cut nodes are half empty: an eighth of the inserts is
 * more than enough. Above the root there may come a level for the cut root, and others above that.
 */
static uint64_t nodes_for(const struct tree *tree, uint64_t inserts)
{
	unsigned int level = root_level(tree);
	uint64_t nodes = 0;

	for (unsigned int i = 0; i <= level; i++) {
		uint64_t full = tree->num_nodes[i];

		inserts = min(inserts, full + full / 8 + inserts / 8 + 2);
		nodes += inserts;
	}
	for (; inserts > 0; inserts /= 8)
		nodes += 1 + inserts / 8;
	return nodes;
}

int dmcore__tree_reserve(struct tree *tree, unsigned int inserts)
{
	uint64_t nodes = nodes_for(tree, inserts);

	while ((uint64_t)tree->capacity - tree->num_fresh + tree->num_free < nodes) {
		if (add_slab(tree))
			return -ENOMEM;
	}
	return 0;
}

/* ---- ways ---- */

static bool is_first(const struct tree_path *path, unsigned int level)
{
	/* What is put into a node above leaves goes behind the child that was cut. */
	unsigned int first = level == 0 ? 0 : 1;

	if (path->at[level].pos > first)
		return false;
	while (++level < path->levels) {
		if (path->at[level].pos > 0)
			return false;
	}
	return true;
}

static bool is_last(const struct tree_path *path, unsigned int level)
{
	if (path->at[level].pos < TREE_ENTRIES)
		return false;
	while (++level < path->levels) {
		if (path->at[level].pos + 1 < tree_count(path->at[level].node))
			return false;
	}
	return true;
}

/* ---- entries ---- */

void dmcore__tree_change(const struct tree_place *place, uint64_t key, uint64_t value)
{
	put(&place->node->keys[place->pos], key);
	put(&place->node->values[place->pos], value);
}

static void copy_entry(struct tree_node *to, unsigned int to_pos, const struct tree_node *from,
		       unsigned int from_pos)
{
	put(&to->keys[to_pos], tree_get(&from->keys[from_pos]));
	put(&to->values[to_pos], tree_get(&from->values[from_pos]));
}

static void copy(struct tree_node *to, unsigned int to_pos, const struct tree_node *from,
		 unsigned int from_pos, unsigned int count)
{
	if (to == from && to_pos > from_pos) {
		for (unsigned int i = count; i-- > 0;)
			copy_entry(to, to_pos + i, from, from_pos + i);
	} else {
		for (unsigned int i = 0; i < count; i++)
			copy_entry(to, to_pos + i, from, from_pos + i);
	}
}

static void put_in(const struct tree_place *place, uint64_t key, uint64_t value)
{
	unsigned int count = tree_count(place->node);

	copy(place->node, place->pos + 1, place->node, place->pos, count - place->pos);
	dmcore__tree_change(place, key, value);
	set_count(place->node, count + 1);
}

static void take_out(const struct tree_place *place)
{
	unsigned int count = tree_count(place->node);

	copy(place->node, place->pos, place->node, place->pos + 1, count - place->pos - 1);
	set_count(place->node, count - 1);
}

/* ---- siblings ---- */

static struct tree_node *child_at(const struct tree *tree, const struct tree_node *parent,
				  unsigned int pos)
{
	return node_of(tree, tree_get(&parent->values[pos]));
}

/* The key that a parent has for its node. */
static uint64_t lower_bound(const struct tree_node *node)
{
	return tree_get(&node->keys[0]) & ~TREE_FREE_MASK;
}

void dmcore__tree_bound(const struct tree_path *path, uint64_t key)
{
	for (unsigned int level = 1; level < path->levels; level++) {
		const struct tree_place *place = &path->at[level];

		if (place->pos > 0) {
			put(&place->node->keys[place->pos], key & ~TREE_FREE_MASK);
			return;
		}
	}
}

/* Before the first child of a node gets neighbours on its left: its key is the parent's. */
static void fetch_first_key(struct tree_node *node, unsigned int level,
			    const struct tree_node *parent, unsigned int pos)
{
	if (level > 0)
		put(&node->keys[0], tree_get(&parent->keys[pos]));
}

static void share_left(struct tree_place *place, unsigned int level,
		       const struct tree_place *parent, struct tree_node *left)
{
	struct tree_node *node = place->node;
	unsigned int count = tree_count(left);
	unsigned int moved = (TREE_ENTRIES - count) / 2;

	fetch_first_key(node, level, parent->node, parent->pos);
	copy(left, count, node, 0, moved);
	set_count(left, count + moved);
	copy(node, 0, node, moved, TREE_ENTRIES - moved);
	set_count(node, TREE_ENTRIES - moved);
	put(&parent->node->keys[parent->pos], lower_bound(node));
	if (place->pos <= moved) {
		place->node = left;
		place->pos += count;
	} else {
		place->pos -= moved;
	}
}

static void share_right(struct tree_place *place, unsigned int level,
			const struct tree_place *parent, struct tree_node *right)
{
	unsigned int count = tree_count(right);
	unsigned int moved = (TREE_ENTRIES - count) / 2;
	unsigned int kept = TREE_ENTRIES - moved;

	fetch_first_key(right, level, parent->node, parent->pos + 1);
	copy(right, moved, right, 0, count);
	copy(right, 0, place->node, kept, moved);
	set_count(right, count + moved);
	set_count(place->node, kept);
	put(&parent->node->keys[parent->pos + 1], lower_bound(right));
	if (place->pos > kept) {
		place->node = right;
		place->pos -= kept;
	}
}

/* Makes room in a full node by moving entries to a sibling. */
static bool share(const struct tree *tree, struct tree_path *path, unsigned int level)
{
	struct tree_place *place = &path->at[level];
	const struct tree_place *parent = &path->at[level + 1];
	struct tree_node *left = NULL;
	struct tree_node *right = NULL;
	unsigned int left_room = 0;
	unsigned int right_room = 0;

	if (level + 1 == path->levels)
		return false;
	if (parent->pos > 0) {
		left = child_at(tree, parent->node, parent->pos - 1);
		left_room = TREE_ENTRIES - tree_count(left);
	}
	if (parent->pos + 1 < tree_count(parent->node)) {
		right = child_at(tree, parent->node, parent->pos + 1);
		right_room = TREE_ENTRIES - tree_count(right);
	}
	if (left_room < SHARE_ROOM_MIN && right_room < SHARE_ROOM_MIN)
		return false;
	if (left_room >= right_room)
		share_left(place, level, parent, left);
	else
		share_right(place, level, parent, right);
	return true;
}

/* Cuts a full node; the place is in one of the two then. Returns the right one's number. */
static uint32_t split(struct tree *tree, struct tree_path *path, unsigned int level)
{
	struct tree_place *place = &path->at[level];
	uint32_t number = take_node(tree, level);
	struct tree_node *right = node_of(tree, number);
	unsigned int kept = TREE_ENTRIES / 2;

	if (is_last(path, level))
		kept = TREE_ENTRIES;
	else if (is_first(path, level))
		kept = place->pos;
	copy(right, 0, place->node, kept, TREE_ENTRIES - kept);
	set_count(right, TREE_ENTRIES - kept);
	set_count(place->node, kept);
	if (place->pos > kept || kept == TREE_ENTRIES) {
		place->node = right;
		place->pos -= kept;
	}
	return number;
}

/* A root above the old one and what was cut off that. */
static void grow(struct tree *tree, uint64_t key, uint64_t right)
{
	unsigned int level = root_level(tree) + 1;
	uint32_t number = take_node(tree, level);
	struct tree_place place = { .node = node_of(tree, number), .pos = 0 };

	dmcore__tree_change(&place, 0, (uint32_t)tree_get(&tree->root));
	place.pos = 1;
	dmcore__tree_change(&place, key, right);
	set_count(place.node, 2);
	set_root(tree, level, number);
}

void dmcore__tree_insert(struct tree *tree, struct tree_path *path, uint64_t key, uint64_t value)
{
	for (unsigned int level = 0; level < path->levels; level++) {
		struct tree_place *place = &path->at[level];
		uint32_t right;

		if (tree_count(place->node) < TREE_ENTRIES || share(tree, path, level)) {
			put_in(place, key, value);
			return;
		}
		right = split(tree, path, level);
		put_in(place, key, value);
		key = lower_bound(node_of(tree, right));
		value = right;
		if (level + 1 < path->levels)
			path->at[level + 1].pos++;
	}
	grow(tree, key, value);
}

/* The node at a place of a parent goes into the one before it, which has room. */
static void merge(struct tree *tree, unsigned int level, const struct tree_place *parent)
{
	uint32_t number = (uint32_t)tree_value(parent);
	struct tree_node *left = child_at(tree, parent->node, parent->pos - 1);
	struct tree_node *right = node_of(tree, number);
	unsigned int count = tree_count(left);

	fetch_first_key(right, level, parent->node, parent->pos);
	copy(left, count, right, 0, tree_count(right));
	set_count(left, count + tree_count(right));
	take_out(parent);
	free_node(tree, level, number);
}

/* After an entry went. Returns whether one of the parent did, too. */
static bool tidy_up(struct tree *tree, const struct tree_path *path, unsigned int level)
{
	struct tree_place parent = path->at[level + 1];
	unsigned int count = tree_count(path->at[level].node);
	unsigned int siblings = tree_count(parent.node);

	if (count == 0) {
		uint32_t number = (uint32_t)tree_value(&parent);

		take_out(&parent);
		free_node(tree, level, number);
		return true;
	}
	if (parent.pos > 0 &&
	    tree_count(child_at(tree, parent.node, parent.pos - 1)) + count <= MERGE_MAX) {
		merge(tree, level, &parent);
		return true;
	}
	parent.pos++;
	if (parent.pos < siblings &&
	    tree_count(child_at(tree, parent.node, parent.pos)) + count <= MERGE_MAX) {
		merge(tree, level, &parent);
		return true;
	}
	return false;
}

void dmcore__tree_delete(struct tree *tree, struct tree_path *path)
{
	unsigned int level = 0;

	take_out(&path->at[0]);
	while (level + 1 < path->levels && tidy_up(tree, path, level))
		level++;
	for (level = root_level(tree); level > 0; level--) {
		uint32_t number = (uint32_t)tree_get(&tree->root);
		struct tree_node *root = node_of(tree, number);

		if (tree_count(root) > 1)
			return;
		set_root(tree, level - 1, tree_get(&root->values[0]));
		free_node(tree, level, number);
	}
}
