/* SPDX-License-Identifier: MIT */
/*
 * Events of a device: counted, waited for in a call, told to queues and to descriptors. Raised by
 * targets from any thread, also from a completion. A lock of their own, for a target that raises
 * one mustn't wait for control calls.
 */
#include <dmcore/event.h>

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/wait.h"
#include "map/map.h"
#include "queue/queue.h"

/* Longest sleep: a clock of the application's own may move meanwhile. */
#define SLEEP_MAX_NS 100000000

struct dmcore_watch {
	struct dmcore_work work;      /* at the queue while `posted` */
	struct dmcore__list link;     /* device->watches, while there is a device */
	struct dmcore *core;
	struct dmcore_device *device; /* NULL: it has been removed */
	struct dmcore_queue *queue;
	dmcore_watch_fn fn;
	void *context;
	uint32_t last_event_nr;       /* of a removed device */
	int fd;
	bool posted;
	bool destroyed;               /* by its owner, with the work still at the queue */
};

void dmcore__events_create(struct dmcore__map *map)
{
	pthread_mutex_init(&map->events_lock, NULL);
	dmcore__cond_init(&map->event);
}

void dmcore__events_destroy(struct dmcore__map *map)
{
	pthread_cond_destroy(&map->event);
	pthread_mutex_destroy(&map->events_lock);
}

/* ---- raising ---- */

/* Lock held. */
static void tell(struct dmcore_watch *watch)
{
	uint64_t one = 1;

	/* It fails only when the counter is full, and then it is readable anyway. */
	if (write(watch->fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		return;
	if (watch->queue && !watch->posted) {
		watch->posted = true;
		dmcore_queue_post(watch->queue, &watch->work);
	}
}

static void tell_all(struct dmcore_device *device)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &device->watches)
		tell(dmcore__container_of(node, struct dmcore_watch, link));
	pthread_cond_broadcast(&device->core->map->event);
}

void dmcore__device_raise_event(struct dmcore_device *device)
{
	struct dmcore__map *map = device->core->map;

	pthread_mutex_lock(&map->events_lock);
	atomic_fetch_add(&device->event_nr, 1);
	tell_all(device);
	pthread_mutex_unlock(&map->events_lock);
}

void dmcore_target_event(struct dmcore_target *target)
{
	struct dmcore_device *device = target->table->device;

	if (device)
		dmcore__device_raise_event(device);
}

void dmcore__events_end(struct dmcore_device *device)
{
	struct dmcore__map *map = device->core->map;
	struct dmcore__list *node;
	struct dmcore__list *spare;

	pthread_mutex_lock(&map->events_lock);
	device->gone = true;
	tell_all(device);
	dmcore__list_for_each(node, spare, &device->watches) {
		struct dmcore_watch *watch = dmcore__container_of(node, struct dmcore_watch, link);

		watch->last_event_nr = atomic_load(&device->event_nr);
		watch->device = NULL;
		dmcore__list_remove(node);
	}
	while (device->num_event_waiters)
		pthread_cond_wait(&map->event, &map->events_lock);
	pthread_mutex_unlock(&map->events_lock);
}

uint32_t dmcore_device_event_nr(const struct dmcore_device *device)
{
	return device ? atomic_load(&device->event_nr) : 0;
}

/* ---- waiting ---- */

/* Waits for the next event of any device, or a little. Lock held. 0, or what the hook returned. */
static int sleep_for_event(struct dmcore *core, uint64_t left_ns)
{
	const struct dmcore_options *options = &core->options;
	struct dmcore__map *map = core->map;
	struct timespec until;
	int ret;

	if (options->sleep) {
		pthread_mutex_unlock(&map->events_lock);
		ret = options->sleep(core, left_ns == UINT64_MAX ? UINT64_MAX :
				     dmcore__now_ns(core) + left_ns, options->sleep_context);
		pthread_mutex_lock(&map->events_lock);
		return ret;
	}
	until = dmcore__deadline_in(dmcore__min_u64(left_ns, SLEEP_MAX_NS));
	pthread_cond_timedwait(&map->event, &map->events_lock, &until);
	return 0;
}

static uint64_t time_left(const struct dmcore *core, uint64_t begun_ns, int64_t timeout_ns)
{
	uint64_t passed_ns;

	if (timeout_ns <= 0)
		return timeout_ns ? UINT64_MAX : 0;
	passed_ns = dmcore__now_ns(core) - begun_ns;
	return passed_ns < (uint64_t)timeout_ns ? (uint64_t)timeout_ns - passed_ns : 0;
}

static int wait_for_event(struct dmcore_device *device, uint32_t *event_nr, int64_t timeout_ns)
{
	uint64_t begun_ns = timeout_ns > 0 ? dmcore__now_ns(device->core) : 0;
	uint32_t seen = *event_nr;

	for (;;) {
		uint64_t left_ns;
		int ret;

		*event_nr = atomic_load(&device->event_nr);
		if (*event_nr != seen)
			return 0;
		if (device->gone)
			return dmcore__error(-ENODEV, "the device has been removed");
		left_ns = time_left(device->core, begun_ns, timeout_ns);
		if (left_ns == 0)
			return dmcore__error(-ETIMEDOUT, "no event in that time");
		ret = sleep_for_event(device->core, left_ns);
		if (ret)
			return dmcore__error(ret, "nothing will happen to the device");
	}
}

int dmcore_device_wait(struct dmcore_device *device, uint32_t *event_nr, int64_t timeout_ns)
{
	struct dmcore__map *map;
	int ret;

	if (!device || !event_nr)
		return dmcore__error(-EINVAL, "no device, or no number of events");
	ret = dmcore__check_alive(device->core);
	if (ret)
		return ret;
	map = device->core->map;
	pthread_mutex_lock(&map->events_lock);
	device->num_event_waiters++;
	ret = wait_for_event(device, event_nr, timeout_ns);
	device->num_event_waiters--;
	if (device->gone)
		pthread_cond_broadcast(&map->event);
	pthread_mutex_unlock(&map->events_lock);
	return ret;
}

/* ---- watches ---- */

static void free_watch(struct dmcore_watch *watch)
{
	close(watch->fd);
	dmcore__free(watch->core, watch);
}

static void run_watch(struct dmcore_work *work)
{
	struct dmcore_watch *watch = dmcore__container_of(work, struct dmcore_watch, work);
	struct dmcore__map *map = watch->core->map;
	bool destroyed;

	pthread_mutex_lock(&map->events_lock);
	watch->posted = false;
	destroyed = watch->destroyed;
	pthread_mutex_unlock(&map->events_lock);
	if (destroyed)
		free_watch(watch);
	else
		watch->fn(watch, watch->context);
}

static int create_watch(struct dmcore_device *device, uint32_t event_nr,
			const struct dmcore_watch *like, struct dmcore_watch **result)
{
	struct dmcore *core = device->core;
	struct dmcore_watch *watch = dmcore__zalloc(core, sizeof(*watch));
	int ret;

	if (!watch)
		return dmcore__error(-ENOMEM, "no memory for a watch");
	*watch = *like;
	watch->core = core;
	watch->device = device;
	watch->work.fn = run_watch;
	watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (watch->fd < 0) {
		ret = -errno;
		dmcore__free(core, watch);
		return dmcore__error(ret, "eventfd: %s", strerror(-ret));
	}
	core->map->num_watches++;
	pthread_mutex_lock(&core->map->events_lock);
	dmcore__list_append(&device->watches, &watch->link);
	if (atomic_load(&device->event_nr) != event_nr)
		tell(watch);
	pthread_mutex_unlock(&core->map->events_lock);
	*result = watch;
	return 0;
}

int dmcore_watch_create(struct dmcore_device *device, uint32_t event_nr,
			struct dmcore_queue *queue, dmcore_watch_fn fn, void *context,
			struct dmcore_watch **result)
{
	struct dmcore_watch like = { .queue = queue, .fn = fn, .context = context };
	int ret;

	if (!result)
		return dmcore__error(-EINVAL, "no place for the result");
	*result = NULL;
	if (!device || !queue != !fn || (queue && queue->core != device->core))
		return dmcore__error(-EINVAL, "no device, only one of queue and function, or a "
					      "queue of another core");
	ret = dmcore__control_begin(device->core);
	if (ret)
		return ret;
	ret = create_watch(device, event_nr, &like, result);
	dmcore__unlock(device->core);
	return ret;
}

int dmcore_watch_fd(struct dmcore_watch *watch)
{
	return watch ? watch->fd : -EINVAL;
}

int dmcore_watch_event_nr(struct dmcore_watch *watch, uint32_t *event_nr)
{
	struct dmcore__map *map;
	uint64_t count;
	int ret = 0;

	if (!watch || !event_nr)
		return dmcore__error(-EINVAL, "no watch, or no place for the number");
	/* In a child of fork() the descriptor is the parent's too, and the lock may be held. */
	ret = dmcore__check_alive(watch->core);
	if (ret)
		return ret;
	map = watch->core->map;
	pthread_mutex_lock(&map->events_lock);
	/* Under the lock, so that no event comes between the two. */
	if (read(watch->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		ret = -errno;
	*event_nr = watch->device ? atomic_load(&watch->device->event_nr) : watch->last_event_nr;
	if (!watch->device)
		ret = dmcore__error(-ENODEV, "the device has been removed");
	pthread_mutex_unlock(&map->events_lock);
	return ret;
}

void dmcore_watch_destroy(struct dmcore_watch *watch)
{
	struct dmcore *core;
	bool posted;

	if (!watch || dmcore__control_begin(watch->core))
		return;
	core = watch->core;
	core->map->num_watches--;
	pthread_mutex_lock(&core->map->events_lock);
	if (watch->device)
		dmcore__list_remove(&watch->link);
	watch->device = NULL;
	posted = watch->posted;
	watch->destroyed = true;
	pthread_mutex_unlock(&core->map->events_lock);
	/* The work that is under way gives it free. */
	if (!posted)
		free_watch(watch);
	dmcore__unlock(core);
}
