/* SPDX-License-Identifier: MIT */
/* Making a failing run short: delta debugging on a list of numbers. Called by programs. */
#include <string.h>

#include <dmcore/sim.h>

/* Moves [first, first + count) behind the rest of the `num` numbers. */
static void rotate(uint32_t *ops, size_t num, size_t first, size_t count)
{
	/* By three reversals, which need no memory. */
	const size_t middle = first + count;
	const size_t bounds[3][2] = { { first, middle }, { middle, num }, { first, num } };

	for (unsigned int i = 0; i < 3; i++) {
		size_t low = bounds[i][0];
		size_t high = bounds[i][1];

		while (low + 1 < high) {
			uint32_t op = ops[low];

			ops[low++] = ops[--high];
			ops[high] = op;
		}
	}
}

/* Tries to do without each part of `part` operations; returns how many are left. */
static size_t without_parts(uint32_t *ops, size_t num, size_t part, dmcore_sim_fails_fn fails,
			    void *context, unsigned int *runs_left)
{
	/* From the end: what comes last is least likely to be needed by the rest. */
	size_t end = num;

	while (end > 0 && *runs_left) {
		size_t first = end > part ? end - part : 0;
		size_t count = end - first;

		rotate(ops, num, first, count);
		(*runs_left)--;
		if (fails(ops, num - count, context))
			num -= count;
		else
			rotate(ops, num, first, num - first - count);
		end = first;
	}
	return num;
}

size_t dmcore_sim_shrink(uint32_t *ops, size_t num_ops, dmcore_sim_fails_fn fails, void *context,
			 unsigned int runs_max)
{
	unsigned int runs_left = runs_max;
	size_t num = num_ops;
	size_t part;

	if (!ops || !fails || num_ops == 0 || runs_left == 0)
		return num_ops;
	runs_left--;
	if (!fails(ops, num_ops, context))
		return num_ops;
	part = num;
	while (num && runs_left) {
		size_t before = num;

		num = without_parts(ops, num, part, fails, context, &runs_left);
		if (part > 1)
			part /= 2;
		else if (num == before)
			break;
	}
	return num;
}
