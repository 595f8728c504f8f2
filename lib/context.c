/* SPDX-License-Identifier: MIT */
/* struct dmcore: made from the layers from the bottom up, and taken down the other way. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <dmcore/context.h>
#include <dmcore/version.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/core.h"
#include "base/error.h"
#include "base/options.h"
#include "base/random.h"
#include "bdev/bdev.h"
#include "map/map.h"
#include "queue/queue.h"
#include "queue/service.h"

static uint64_t monotonic_ns(void *context)
{
	struct timespec now;

	(void)context;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int read_options(const struct dmcore_options *from, struct dmcore_options *to)
{
	memset(to, 0, sizeof(*to));
	if (from && !dmcore__struct_take(to, sizeof(*to), from))
		return dmcore__error(-EINVAL, "core options: struct_size isn't set");
	if (to->flags & ~(DMCORE_SERVICE_MANUAL | DMCORE_NO_MODULES))
		return dmcore__error(-EINVAL, "core options: unknown flag");
	if (to->backend > DMCORE_BACKEND_PREAD)
		return dmcore__error(-EINVAL, "core options: unknown backend");
	if (to->bdevs_max > DMCORE_BDEVS_MAX)
		return dmcore__error(-EINVAL, "core options: bdevs_max %u is above %d",
				     to->bdevs_max, DMCORE_BDEVS_MAX);
	if (!to->alloc != !to->release)
		return dmcore__error(-EINVAL, "core options: alloc and release go together");
	if (to->bdevs_max == 0)
		to->bdevs_max = DMCORE_BDEVS_DEFAULT;
	if (!to->clock_ns)
		to->clock_ns = monotonic_ns;
	return 0;
}

/* A page that tells parent from child. */
static int make_alive(struct dmcore *core)
{
	size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
	struct dmcore **self = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (self == MAP_FAILED)
		return -ENOMEM;
	if (madvise(self, bytes, MADV_WIPEONFORK) < 0) {
		munmap(self, bytes);
		return dmcore__error(-ENOSYS, "this kernel has no MADV_WIPEONFORK");
	}
	*self = core;
	core->alive = self;
	return 0;
}

static void make_lock(struct dmcore *core)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&core->control, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

static void release(struct dmcore *core)
{
	if (core->alive)
		munmap((void *)(uintptr_t)core->alive, (size_t)sysconf(_SC_PAGESIZE));
	pthread_mutex_destroy(&core->control);
	dmcore__core_free(core);
}

static void take_down(struct dmcore *core)
{
	dmcore__service_end(core);
	if (core->map)
		dmcore__map_destroy(core);
	dmcore__service_destroy(core);
	dmcore__queues_destroy(core);
	dmcore__bdevs_destroy(core);
	release(core);
}

int dmcore_create(const struct dmcore_options *options, struct dmcore **result)
{
	struct dmcore_options own;
	struct dmcore *core;
	int ret;

	if (!result)
		return -EINVAL;
	*result = NULL;
	ret = read_options(options, &own);
	if (ret)
		return ret;
	core = dmcore__core_alloc(&own);
	if (!core)
		return dmcore__error(-ENOMEM, "no memory for a core");
	core->own_clock = own.clock_ns != monotonic_ns;
	make_lock(core);
	ret = make_alive(core);
	if (ret == 0)
		ret = dmcore__queues_create(core, own.bdevs_max + 1);
	if (ret == 0)
		ret = dmcore__service_create(core);
	if (ret == 0)
		ret = dmcore__bdevs_create(core);
	if (ret == 0)
		ret = dmcore__map_create(core);
	if (ret) {
		if (ret == -ENOMEM)
			dmcore__error(ret, "no memory for a core");
		take_down(core);
		return ret;
	}
	*result = core;
	return 0;
}

/* What the application still holds, as a message; 0: nothing. */
static int check_unused(struct dmcore *core)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (core->queues->user_count)
		return dmcore__error(-EBUSY, "%u queues of the core haven't been destroyed",
				     core->queues->user_count);
	dmcore__list_for_each(node, spare, &core->map->tables) {
		if (!dmcore__container_of(node, struct dmcore_table, link)->device)
			return dmcore__error(-EBUSY, "a table hasn't been loaded or destroyed");
	}
	dmcore__list_for_each(node, spare, &core->bdevs->list) {
		struct dmcore_bdev *bdev = dmcore__container_of(node, struct dmcore_bdev, link);

		if (bdev->open_count > bdev->table_opens)
			return dmcore__error(-EBUSY, "%s is still open", bdev->name);
		if (atomic_load(&bdev->num_deferred))
			return dmcore__error(-EBUSY, "requests wait for %s to be resumed",
					     bdev->name);
	}
	if (core->map->num_watches)
		return dmcore__error(-EBUSY, "%u watches haven't been destroyed",
				     core->map->num_watches);
	return 0;
}

int dmcore_destroy(struct dmcore *core)
{
	int ret;

	if (!core)
		return 0;
	ret = dmcore__check_alive(core);
	if (ret)
		return ret;
	dmcore__lock(core);
	ret = check_unused(core);
	dmcore__unlock(core);
	if (ret)
		return ret;
	take_down(core);
	return 0;
}

uint64_t dmcore_clock_ns(const struct dmcore *core)
{
	return dmcore__now_ns(core);
}

uint64_t dmcore_random(struct dmcore *core)
{
	uint64_t number = atomic_fetch_add_explicit(&core->num_randoms, 1, memory_order_relaxed);
	struct dmcore__random random;

	dmcore__random_start(&random, core->options.seed, number);
	return dmcore__random_next(&random);
}

const char *dmcore_version(void)
{
	return DMCORE_VERSION_STRING;
}
