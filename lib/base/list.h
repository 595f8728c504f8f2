/* SPDX-License-Identifier: MIT */
/* Intrusive doubly linked list with a head of the same type. Control plane only. */
#ifndef DMCORE_LIB_BASE_LIST_H
#define DMCORE_LIB_BASE_LIST_H

#include <stdbool.h>

#include "base/compiler.h"

struct dmcore__list {
	struct dmcore__list *next;
	struct dmcore__list *prev;
};

static inline void dmcore__list_init(struct dmcore__list *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool dmcore__list_empty(const struct dmcore__list *head)
{
	return head->next == head;
}

static inline void dmcore__list_append(struct dmcore__list *head, struct dmcore__list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

static inline void dmcore__list_remove(struct dmcore__list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	dmcore__list_init(node);
}

/* `node` may be removed in the body. */
#define dmcore__list_for_each(node, spare, head)                                                   \
	for ((node) = (head)->next, (spare) = (node)->next; (node) != (head);                      \
	     (node) = (spare), (spare) = (node)->next)

#endif
