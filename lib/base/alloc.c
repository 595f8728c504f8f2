/* SPDX-License-Identifier: MIT */
/* Memory by the hooks of a core. Called by control-plane code of every layer. */
#include "base/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <dmcore/driver.h>

#include "base/assert.h"
#include "base/checked.h"

static void *allocate(const struct dmcore_options *options, size_t bytes)
{
	return options->alloc ? options->alloc(bytes, options->alloc_context) : malloc(bytes);
}

static void release(const struct dmcore_options *options, void *memory)
{
	if (options->release)
		options->release(memory, options->alloc_context);
	else
		free(memory);
}

struct dmcore *dmcore__core_alloc(const struct dmcore_options *options)
{
	struct dmcore *core = allocate(options, sizeof(*core));

	if (core) {
		memset(core, 0, sizeof(*core));
		core->options = *options;
	}
	return core;
}

void dmcore__core_free(struct dmcore *core)
{
	struct dmcore_options options = core->options;

	release(&options, core);
}

static void *counted(struct dmcore *core, void *memory)
{
	if (memory)
		atomic_fetch_add_explicit(&core->live_allocations, 1, memory_order_relaxed);
	return memory;
}

void *dmcore__zalloc(struct dmcore *core, size_t bytes)
{
	void *memory;

	/* What the kernel has just given is zeroed, and needn't be touched before it is used. */
	if (!core->options.alloc)
		return counted(core, calloc(1, bytes));
	memory = counted(core, allocate(&core->options, bytes));
	return memory ? memset(memory, 0, bytes) : NULL;
}

void *dmcore__zalloc_array(struct dmcore *core, size_t count, size_t bytes)
{
	uint64_t total;

	if (dmcore__mul_overflows(count, bytes, &total) || total > SIZE_MAX / 2)
		return NULL;
	return dmcore__zalloc(core, total);
}

void dmcore__free(struct dmcore *core, void *memory)
{
	if (!memory)
		return;
	atomic_fetch_sub_explicit(&core->live_allocations, 1, memory_order_relaxed);
	release(&core->options, memory);
}

/* With room for an aligned part, before which what malloc returned stands. */
static size_t room_for(size_t bytes, size_t align)
{
	DMCORE__ASSERT(dmcore__is_power_of_two(align) && align >= sizeof(void *));
	return bytes > SIZE_MAX / 2 ? 0 : bytes + align + sizeof(void *);
}

static void *aligned(void *raw, size_t align)
{
	char *memory = (char *)raw + sizeof(void *);

	if (!raw)
		return NULL;
	memory += -(uintptr_t)memory & (align - 1);
	((void **)(void *)memory)[-1] = raw;
	return memory;
}

void *dmcore__zalloc_aligned(struct dmcore *core, size_t bytes, size_t align)
{
	size_t room = room_for(bytes, align);

	return room ? aligned(dmcore__zalloc(core, room), align) : NULL;
}

void *dmcore__alloc_aligned(struct dmcore *core, size_t bytes, size_t align)
{
	size_t room = room_for(bytes, align);

	return room ? aligned(counted(core, allocate(&core->options, room)), align) : NULL;
}

void dmcore__free_aligned(struct dmcore *core, void *memory)
{
	if (memory)
		dmcore__free(core, ((void **)memory)[-1]);
}

void *dmcore__zrealloc(struct dmcore *core, void *old, size_t old_bytes, size_t bytes)
{
	void *memory = dmcore__zalloc(core, bytes);

	if (!memory)
		return NULL;
	if (old)
		memcpy(memory, old, old_bytes < bytes ? old_bytes : bytes);
	dmcore__free(core, old);
	return memory;
}

char *dmcore__strndup(struct dmcore *core, const char *text, size_t bytes)
{
	char *copy = dmcore__zalloc(core, bytes + 1);

	if (copy)
		memcpy(copy, text, bytes);
	return copy;
}

char *dmcore__strdup(struct dmcore *core, const char *text)
{
	return dmcore__strndup(core, text, strlen(text));
}

void *dmcore_zalloc(struct dmcore *core, size_t bytes)
{
	return dmcore__zalloc(core, bytes);
}

void dmcore_free(struct dmcore *core, void *memory)
{
	dmcore__free(core, memory);
}
