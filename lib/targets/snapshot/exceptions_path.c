/* SPDX-License-Identifier: MIT */
/* Ways to the entries of the tree below a table of exceptions. Called by exceptions.c. */
#include "targets/snapshot/exceptions_tree.h"

/* From the place at a level down to the first or the last entry below. */
static bool descend(const struct tree *tree, struct tree_path *path, unsigned int level, bool last)
{
	for (; level > 0; level--) {
		struct tree_node *node = tree_node(tree, tree_value(&path->at[level]));
		unsigned int count = node ? tree_count(node) : 0;

		if (count == 0)
			return false;
		path->at[level - 1].node = node;
		path->at[level - 1].pos = last ? count - 1 : 0;
	}
	return true;
}

bool dmcore__tree_find(const struct tree *tree, uint64_t key, struct tree_path *path)
{
	uint64_t root = tree_get(&tree->root);
	struct tree_node *node = tree_node(tree, root);
	unsigned int level = (unsigned int)(root >> 32);

	path->levels = level + 1;
	for (; level > 0 && node; level--) {
		path->at[level].node = node;
		path->at[level].pos = tree_upper(node, 1, key) - 1;
		node = tree_node(tree, tree_value(&path->at[level]));
		if (node)
			tree_prefetch(node);
	}
	if (!node)
		return false;
	path->at[0].node = node;
	path->at[0].pos = tree_upper(node, 0, key);
	return true;
}

bool dmcore__tree_settle(const struct tree *tree, struct tree_path *path)
{
	unsigned int level = 1;

	if (path->at[0].pos < tree_count(path->at[0].node))
		return true;
	while (level < path->levels &&
	       path->at[level].pos + 1 >= tree_count(path->at[level].node))
		level++;
	if (level == path->levels)
		return false;
	path->at[level].pos++;
	return descend(tree, path, level, false);
}

bool dmcore__tree_back(const struct tree *tree, struct tree_path *path)
{
	unsigned int level = 0;

	while (level < path->levels && path->at[level].pos == 0)
		level++;
	if (level == path->levels)
		return false;
	path->at[level].pos--;
	return descend(tree, path, level, true);
}

static bool is_rightmost(const struct tree_path *path)
{
	for (unsigned int level = 1; level < path->levels; level++) {
		if (path->at[level].pos + 1 < tree_count(path->at[level].node))
			return false;
	}
	return true;
}

/* Whether a way that was good for another key is for this one: its leaf has keys on both sides. */
static bool leads_to(const struct tree_path *path, uint64_t key)
{
	const struct tree_node *leaf = path->at[0].node;
	unsigned int count = tree_count(leaf);

	return count > 0 && tree_get(&leaf->keys[0]) <= key &&
	       (key < tree_get(&leaf->keys[count - 1]) || is_rightmost(path));
}

void dmcore__tree_seek(struct tree *tree, uint64_t key, struct tree_path *path)
{
	struct tree_path *last = &tree->last;

	if (tree->last_shape == tree->shape && leads_to(last, key)) {
		last->at[0].pos = tree_upper(last->at[0].node, 0, key);
	} else {
		dmcore__tree_find(tree, key, last);
		tree->last_shape = tree->shape;
	}
	tree_copy_path(path, last);
}
