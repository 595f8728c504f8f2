/* SPDX-License-Identifier: MIT */
/*
 * The only way to memory: the application's allocator, or malloc. Control plane only; the data
 * path lives on what was allocated when its queue, client or table was made.
 */
#ifndef DMCORE_LIB_BASE_ALLOC_H
#define DMCORE_LIB_BASE_ALLOC_H

#include <stddef.h>

#include "base/core.h"

/* Zeroed memory aligned to 16, or NULL. An array of `count` when the product doesn't overflow. */
void *dmcore__zalloc(struct dmcore *core, size_t bytes);
void *dmcore__zalloc_array(struct dmcore *core, size_t count, size_t bytes);

/* Zeroed memory aligned to a cache line or, with `align`, to any power of two up to a page. */
void *dmcore__zalloc_aligned(struct dmcore *core, size_t bytes, size_t align);
/* The same, but not zeroed: for data. */
void *dmcore__alloc_aligned(struct dmcore *core, size_t bytes, size_t align);
void dmcore__free_aligned(struct dmcore *core, void *memory);

/* A larger copy of `old` (of `old_bytes`), the rest zeroed; `old` is freed. NULL: `old` stays. */
void *dmcore__zrealloc(struct dmcore *core, void *old, size_t old_bytes, size_t bytes);

/* A copy of a string. */
char *dmcore__strdup(struct dmcore *core, const char *text);
char *dmcore__strndup(struct dmcore *core, const char *text, size_t bytes);

/* NULL is a no-op. */
void dmcore__free(struct dmcore *core, void *memory);

/* The core itself, zeroed but for its options. */
struct dmcore *dmcore__core_alloc(const struct dmcore_options *options);
void dmcore__core_free(struct dmcore *core);

#endif
