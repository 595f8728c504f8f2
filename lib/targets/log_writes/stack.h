/* SPDX-License-Identifier: MIT */
/*
 * Numbers 0 to n - 1, taken and given back on any thread without locks: which pages, entries and
 * stand-ins of a log-writes target are free. Used by targets/log_writes/.
 *
 * Who wants several takes permits for all of them first, by one compare-and-swap, or none. Behind a
 * permit there is always a number: it is put back before its permit is. The head carries a tag that
 * grows with each change, so that a number which has left and come back isn't taken for unmoved.
 */
#ifndef DMCORE_TARGETS_LOG_WRITES_STACK_H
#define DMCORE_TARGETS_LOG_WRITES_STACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct stack {
	_Atomic uint64_t head;     /* tag, and 1 + the uppermost number; 0: none */
	_Atomic uint32_t permits;
	_Atomic uint32_t *below;   /* [number]: 1 + the one below it */
	uint32_t size;
};

static inline void dmcore__stack_push(struct stack *stack, uint32_t number)
{
	uint64_t head = atomic_load_explicit(&stack->head, memory_order_relaxed);
	uint64_t next;

	do {
		atomic_store_explicit(&stack->below[number], (uint32_t)head, memory_order_relaxed);
		next = ((head >> 32) + 1) << 32 | (number + 1);
	} while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, next,
							memory_order_release,
							memory_order_relaxed));
}

/* With a permit. */
static inline uint32_t dmcore__stack_pop(struct stack *stack)
{
	uint64_t head = atomic_load_explicit(&stack->head, memory_order_acquire);
	uint64_t next;

	do {
		uint32_t below = atomic_load_explicit(&stack->below[(uint32_t)head - 1],
						      memory_order_relaxed);

		next = ((head >> 32) + 1) << 32 | below;
	} while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, next,
							memory_order_acquire,
							memory_order_acquire));
	return (uint32_t)head - 1;
}

static inline bool dmcore__stack_permit(struct stack *stack, uint32_t count)
{
	uint32_t permits = atomic_load_explicit(&stack->permits, memory_order_relaxed);

	do {
		if (permits < count)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&stack->permits, &permits, permits - count,
							memory_order_acquire,
							memory_order_relaxed));
	return true;
}

/* Behind as many calls of push. */
static inline void dmcore__stack_return(struct stack *stack, uint32_t count)
{
	atomic_fetch_add_explicit(&stack->permits, count, memory_order_release);
}

static inline uint32_t dmcore__stack_left(const struct stack *stack)
{
	return atomic_load_explicit(&stack->permits, memory_order_relaxed);
}

/* All numbers are there; `below` has room for so many. */
static inline void dmcore__stack_init(struct stack *stack, _Atomic uint32_t *below, uint32_t size)
{
	stack->below = below;
	stack->size = size;
	atomic_store(&stack->head, 0);
	for (uint32_t i = size; i > 0; i--)
		dmcore__stack_push(stack, i - 1);
	atomic_store(&stack->permits, size);
}

#endif
