/* SPDX-License-Identifier: MIT */
/*
 * A pairing heap of timers: the next one is on top. Each has its first child, and its siblings in a
 * list; `previous` of a first child is its parent, and of the top itself. Used by queue/ and sim/.
 */
#ifndef DMCORE_LIB_BASE_HEAP_H
#define DMCORE_LIB_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>

#include <dmcore/queue.h>

static inline bool dmcore__heap_earlier(const struct dmcore_timer *a, const struct dmcore_timer *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

/* Two heaps as one; either may be NULL. */
static inline struct dmcore_timer *dmcore__heap_meld(struct dmcore_timer *a, struct dmcore_timer *b)
{
	if (!a || !b)
		return a ? a : b;
	if (dmcore__heap_earlier(b, a)) {
		struct dmcore_timer *top = b;

		b = a;
		a = top;
	}
	b->next = a->child;
	if (a->child)
		a->child->previous = b;
	b->previous = a;
	a->child = b;
	a->next = NULL;
	return a;
}

/* Makes one heap of siblings: in pairs, then all pairs from the last to the first. */
static inline struct dmcore_timer *dmcore__heap_join(struct dmcore_timer *timer)
{
	struct dmcore_timer *pairs = NULL;
	struct dmcore_timer *top = NULL;

	while (timer) {
		struct dmcore_timer *second = timer->next;
		struct dmcore_timer *rest = second ? second->next : NULL;
		struct dmcore_timer *pair;

		timer->next = NULL;
		if (second)
			second->next = NULL;
		pair = dmcore__heap_meld(timer, second);
		pair->next = pairs;
		pairs = pair;
		timer = rest;
	}
	while (pairs) {
		struct dmcore_timer *rest = pairs->next;

		pairs->next = NULL;
		top = dmcore__heap_meld(top, pairs);
		pairs = rest;
	}
	return top;
}

static inline void dmcore__heap_set_top(struct dmcore_timer **top, struct dmcore_timer *timer)
{
	*top = timer;
	if (timer) {
		timer->next = NULL;
		timer->previous = timer;
	}
}

static inline void dmcore__heap_add(struct dmcore_timer **top, struct dmcore_timer *timer)
{
	timer->child = NULL;
	timer->next = NULL;
	dmcore__heap_set_top(top, dmcore__heap_meld(*top, timer));
}

static inline void dmcore__heap_remove(struct dmcore_timer **top, struct dmcore_timer *timer)
{
	struct dmcore_timer *below = dmcore__heap_join(timer->child);

	if (timer == *top) {
		dmcore__heap_set_top(top, below);
	} else {
		if (timer->previous->child == timer)
			timer->previous->child = timer->next;
		else
			timer->previous->next = timer->next;
		if (timer->next)
			timer->next->previous = timer->previous;
		dmcore__heap_set_top(top, dmcore__heap_meld(*top, below));
	}
	timer->child = NULL;
	timer->next = NULL;
	timer->previous = NULL;
}

#endif
