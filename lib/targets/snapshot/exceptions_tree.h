/* SPDX-License-Identifier: MIT */
/*
 * A B+ tree of pairs of 64-bit words, for the table of exceptions: one thread changes it, others
 * look at it meanwhile. Used by exceptions.c alone.
 *
 * A reader may see anything while a change is under way, and finds out afterwards (exceptions.c has
 * the counter for that). So that it comes to no harm until then, each word is atomic, nodes are
 * never given back before the tree is, and what is read is bounded before it is used.
 *
 * Loads acquire and stores release, so that who reads a word of a change also sees, at the end, the
 * counter that was raised before it.
 *
 * A full node first shares with a sibling; it is cut in two if both siblings are (nearly) full, or
 * at its end if it is the first or the last of the tree. So nodes are well filled at any order, and
 * full if what comes is in order.
 */
#ifndef DMCORE_TARGETS_SNAPSHOT_EXCEPTIONS_TREE_H
#define DMCORE_TARGETS_SNAPSHOT_EXCEPTIONS_TREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dmcore;

/* The low bits of a key are the user's: they don't count in the order. */
#define TREE_FREE_BITS 10
#define TREE_FREE_MASK ((UINT64_C(1) << TREE_FREE_BITS) - 1)

#define TREE_ENTRIES 63

#define TREE_LINE_BYTES 64

/* With a third of the entries in each node, which is less than there are on average, 2^31 leaves
 * have 9 levels. */
#define TREE_LEVELS_MAX 10

/*
 * Nodes have numbers, and are in slabs: 8 of 4 nodes, 8 of 8, 8 of 16 and so on. So an eighth of
 * the memory is unused at the most, and one array of slabs is enough.
 */
#define TREE_SLABS_SHIFT 3
#define TREE_FIRST_SHIFT 2
#define TREE_SLABS (26 << TREE_SLABS_SHIFT)

struct tree_node {
	_Atomic uint64_t count;
	/* In a leaf: of the entries. Above: the least key that belongs to the child; but the first
	 * one says nothing, it is the parent's that counts. */
	_Atomic uint64_t keys[TREE_ENTRIES];
	/* In a leaf: of the entries. Above: the child's number. */
	_Atomic uint64_t values[TREE_ENTRIES];
	_Atomic uint64_t unused;
};

struct tree_place {
	struct tree_node *node;
	unsigned int pos;
};

/* The way to an entry of a leaf, or to the place behind the last one. */
struct tree_path {
	unsigned int levels;
	struct tree_place at[TREE_LEVELS_MAX]; /* [0]: the leaf */
};

struct tree {
	_Atomic uint64_t root; /* its level (leaves have 0), and in the low half its number */
	struct tree_node *_Atomic slabs[TREE_SLABS];
	_Atomic uint64_t bytes;
	/* The rest is the changing thread's. */
	struct dmcore *core;
	uint32_t num_slabs;
	uint32_t capacity;   /* nodes in the slabs */
	uint32_t num_fresh;  /* nodes from the first on that were in use once */
	uint32_t num_free;   /* of them; a list by their first key */
	uint32_t first_free;
	uint32_t num_nodes[TREE_LEVELS_MAX]; /* in use */
	uint64_t shape;         /* differs after nodes came or went */
	uint64_t last_shape;    /* as it was for: */
	struct tree_path last;  /* of dmcore__tree_seek() */
};

/* ---- words, places: any thread ---- */

static inline uint64_t tree_get(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static inline unsigned int tree_count(const struct tree_node *node)
{
	uint64_t count = tree_get(&node->count);

	return count < TREE_ENTRIES ? (unsigned int)count : TREE_ENTRIES;
}

static inline uint64_t tree_key(const struct tree_place *place)
{
	return tree_get(&place->node->keys[place->pos]);
}

static inline uint64_t tree_value(const struct tree_place *place)
{
	return tree_get(&place->node->values[place->pos]);
}

/* NULL: no such node; told to readers that were disturbed alone. */
static inline struct tree_node *tree_node(const struct tree *tree, uint64_t number)
{
	uint64_t n = (uint32_t)number + (UINT64_C(1) << (TREE_SLABS_SHIFT + TREE_FIRST_SHIFT));
	unsigned int shift = 63u - (unsigned int)__builtin_clzll(n) - TREE_SLABS_SHIFT;
	uint64_t slab = ((uint64_t)(shift - TREE_FIRST_SHIFT) << TREE_SLABS_SHIFT) + (n >> shift) -
			(1u << TREE_SLABS_SHIFT);
	struct tree_node *nodes = NULL;

	if (slab < TREE_SLABS)
		nodes = atomic_load_explicit(&tree->slabs[slab], memory_order_acquire);
	return nodes ? &nodes[n & ((UINT64_C(1) << shift) - 1)] : NULL;
}

/* How many of the keys from `first` on aren't behind `key`, and `first`. */
static inline unsigned int tree_upper(const struct tree_node *node, unsigned int first,
				      uint64_t key)
{
	unsigned int count = tree_count(node);
	unsigned int left = count > first ? count - first : 0;
	unsigned int pos = first;

	key |= TREE_FREE_MASK;
	while (left > 1) {
		unsigned int half = left / 2;

		pos += tree_get(&node->keys[pos + half - 1]) <= key ? half : 0;
		left -= half;
	}
	if (left == 1 && tree_get(&node->keys[pos]) <= key)
		pos++;
	return pos;
}

/* All of a node at once, where a search would wait for one line after the other. */
static inline void tree_prefetch(const struct tree_node *node)
{
	for (size_t i = 0; i < sizeof(*node); i += TREE_LINE_BYTES)
		__builtin_prefetch((const char *)node + i);
}

/* The leaf that a key belongs to. NULL as for tree_node(). */
static inline struct tree_node *tree_leaf(const struct tree *tree, uint64_t key)
{
	uint64_t root = tree_get(&tree->root);
	struct tree_node *node = tree_node(tree, root);

	for (uint64_t level = root >> 32; level > 0 && node; level--) {
		node = tree_node(tree, tree_get(&node->values[tree_upper(node, 1, key) - 1]));
		if (node)
			tree_prefetch(node);
	}
	return node;
}

static inline void tree_copy_path(struct tree_path *to, const struct tree_path *from)
{
	to->levels = from->levels;
	for (unsigned int i = 0; i < from->levels; i++)
		to->at[i] = from->at[i];
}

/* The place behind the last entry whose key isn't behind `key`. False as NULL for tree_node(). */
bool dmcore__tree_find(const struct tree *tree, uint64_t key, struct tree_path *path);
/* From the end of a leaf to the first entry of the next. False: there is none. */
bool dmcore__tree_settle(const struct tree *tree, struct tree_path *path);
/* To the entry before. False: there is none. */
bool dmcore__tree_back(const struct tree *tree, struct tree_path *path);

/* ---- the thread that changes it ---- */

int dmcore__tree_init(struct tree *tree, struct dmcore *core);
/* Frees the memory. */
void dmcore__tree_fini(struct tree *tree);
/* Makes sure that there are nodes for so many inserts. */
int dmcore__tree_reserve(struct tree *tree, unsigned int inserts);
/* As dmcore__tree_find(), and quick for keys that follow one another. */
void dmcore__tree_seek(struct tree *tree, uint64_t key, struct tree_path *path);
/* Puts an entry before the one at the place. The path is of no use afterwards. */
void dmcore__tree_insert(struct tree *tree, struct tree_path *path, uint64_t key, uint64_t value);
/* Takes the entry at the place away. Likewise. */
void dmcore__tree_delete(struct tree *tree, struct tree_path *path);
/* Changes an entry, in the order that they have. */
void dmcore__tree_change(const struct tree_place *place, uint64_t key, uint64_t value);
/* Sets where the leaf begins: `key` is behind all before it, and not behind its first entry. */
void dmcore__tree_bound(const struct tree_path *path, uint64_t key);

#endif
