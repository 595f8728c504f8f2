/* SPDX-License-Identifier: MIT */
/*
 * Making and destroying queues, and what the core keeps of all of them: the list, slots of
 * devices, files known to the backends. Called by applications and by context.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"
#include "base/log.h"
#include "base/options.h"
#include "queue/drain.h"
#include "queue/inbox.h"

/* How often a drain looks whether anything is left that doesn't count as a completion. */
#define DRAIN_STEP_NS 1000000

int dmcore__queues_create(struct dmcore *core, uint32_t num_slots)
{
	struct dmcore__queues *queues = dmcore__zalloc(core, sizeof(*queues));

	if (!queues)
		return -ENOMEM;
	queues->free_file_slots = dmcore__zalloc_array(core, DMCORE__FILE_SLOTS, sizeof(uint32_t));
	if (!queues->free_file_slots) {
		dmcore__free(core, queues);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < DMCORE__FILE_SLOTS; i++)
		queues->free_file_slots[i] = DMCORE__FILE_SLOTS - 1 - i;
	queues->num_free_file_slots = DMCORE__FILE_SLOTS;
	queues->num_slots = num_slots;
	dmcore__list_init(&queues->list);
	dmcore__list_init(&queues->idle);
	pthread_mutex_init(&queues->sync_lock, NULL);
	pthread_cond_init(&queues->sync_returned, NULL);
	core->queues = queues;
	/* What is there is taken down by dmcore__queues_destroy(). */
	return dmcore__drain_create(core);
}

static void free_queue(struct dmcore_queue *queue)
{
	struct dmcore *core = queue->core;

	/* Whose bio or work came last may still be about to wake the owner. */
	while (atomic_load(&queue->posting))
		sched_yield();
	if (queue->backend)
		queue->backend->ops->destroy(queue->backend);
	if (queue->bounce)
		munmap(queue->bounce, (size_t)DMCORE_BOUNCE_BUFFERS * DMCORE_BOUNCE_BYTES);
	if (queue->epoll_fd >= 0)
		close(queue->epoll_fd);
	if (queue->timer_fd >= 0)
		close(queue->timer_fd);
	if (queue->wake_fd >= 0)
		close(queue->wake_fd);
	dmcore__free_aligned(core, queue->split_bios);
	dmcore__free_aligned(core, queue->bios);
	dmcore__free_aligned(core, queue->slots);
	dmcore__free_aligned(core, queue);
}

void dmcore__queues_destroy(struct dmcore *core)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (!core->queues)
		return;
	dmcore__list_for_each(node, spare, &core->queues->list) {
		struct dmcore_queue *queue =
			dmcore__container_of(node, struct dmcore_queue, link);

		DMCORE__ASSERT(queue->internal && queue->inflight == 0);
		dmcore__list_remove(node);
		free_queue(queue);
	}
	dmcore__drain_destroy(core);
	pthread_cond_destroy(&core->queues->sync_returned);
	pthread_mutex_destroy(&core->queues->sync_lock);
	dmcore__free(core, core->queues->free_file_slots);
	dmcore__free(core, core->queues);
	core->queues = NULL;
}

/* A chain of `count` free bios, or NULL. */
static struct dmcore_bio *make_pool(struct dmcore *core, unsigned int count)
{
	struct dmcore_bio *bios;

	bios = dmcore__zalloc_aligned(core, (size_t)count * sizeof(*bios), 64);
	if (!bios)
		return NULL;
	for (unsigned int i = 0; i + 1 < count; i++)
		bios[i].next = &bios[i + 1];
	return bios;
}

static int make_bounce(struct dmcore_queue *queue)
{
	size_t bytes = (size_t)DMCORE_BOUNCE_BUFFERS * DMCORE_BOUNCE_BYTES;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	/* Pages come with the first use of a buffer. */
	if (memory == MAP_FAILED)
		return -ENOMEM;
	queue->bounce = memory;
	for (unsigned int i = 0; i < DMCORE_BOUNCE_BUFFERS; i++) {
		void *buffer = queue->bounce + (size_t)i * DMCORE_BOUNCE_BYTES;

		*(void **)buffer = queue->bounce_free;
		queue->bounce_free = buffer;
	}
	return 0;
}

static int make_pools(struct dmcore_queue *queue)
{
	struct dmcore *core = queue->core;

	queue->slots = dmcore__zalloc_aligned(
		core, core->queues->num_slots * sizeof(struct dmcore__slot), 64);
	queue->bios = make_pool(core, queue->num_bios);
	queue->split_bios = make_pool(core, queue->num_splits);
	if (!queue->slots || !queue->bios || !queue->split_bios)
		return -ENOMEM;
	queue->free_bios = queue->bios;
	queue->free_splits = queue->split_bios;
	return make_bounce(queue);
}

static int make_backend(struct dmcore_queue *queue, const struct dmcore_queue_options *options)
{
	enum dmcore_backend kind = options->backend;
	struct dmcore__backend_config config = {
		.core = queue->core,
		.depth = options->depth,
		.workers = options->workers,
		.migrates = queue->migrates,
		.inline_writes = options->flags & DMCORE_QUEUE_INLINE_WRITES,
		.queue = queue,
		.wake = dmcore__inbox_wake,
	};
	int ret;

	queue->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->wake_fd < 0)
		return dmcore__error(-errno, "eventfd: %s", strerror(errno));
	config.wake_fd = queue->wake_fd;
	if (kind == DMCORE_BACKEND_AUTO)
		kind = queue->core->options.backend;
	ret = dmcore__backend_create(kind, &config, queue->reason, sizeof(queue->reason),
				     &queue->backend);
	return ret == -ENOMEM ? dmcore__error(ret, "no memory for the backend of a queue") : ret;
}

static unsigned int default_if_0(unsigned int value, unsigned int otherwise)
{
	return value ? value : otherwise;
}

/* The caller's options with the defaults filled in. */
static int read_options(const struct dmcore_queue_options *from, struct dmcore_queue_options *to)
{
	memset(to, 0, sizeof(*to));
	if (from && !dmcore__struct_take(to, sizeof(*to), from))
		return dmcore__error(-EINVAL, "queue options: struct_size isn't set");
	to->depth = default_if_0(to->depth, DMCORE_QUEUE_DEPTH_DEFAULT);
	to->bios = default_if_0(to->bios, DMCORE_QUEUE_BIOS_DEFAULT);
	to->splits = default_if_0(to->splits, DMCORE_QUEUE_SPLITS_DEFAULT);
	if (to->flags & ~(DMCORE_QUEUE_MIGRATES | DMCORE_QUEUE_INLINE_WRITES))
		return dmcore__error(-EINVAL, "queue options: unknown flag");
	if (to->backend > DMCORE_BACKEND_PREAD)
		return dmcore__error(-EINVAL, "queue options: unknown backend");
	if (to->depth > DMCORE_QUEUE_DEPTH_MAX)
		return dmcore__error(-EINVAL, "queue options: depth %u is above %d", to->depth,
				     DMCORE_QUEUE_DEPTH_MAX);
	if (to->bios > DMCORE_QUEUE_BIOS_MAX || to->splits > DMCORE_QUEUE_BIOS_MAX)
		return dmcore__error(-EINVAL, "queue options: more than %d bios",
				     DMCORE_QUEUE_BIOS_MAX);
	if (to->workers > DMCORE_QUEUE_WORKERS_MAX)
		return dmcore__error(-EINVAL, "queue options: more than %d workers",
				     DMCORE_QUEUE_WORKERS_MAX);
	return 0;
}

static int take_index(struct dmcore_queue *queue)
{
	uint64_t *indices = queue->core->queues->indices;

	for (uint32_t i = 0; i < DMCORE__QUEUE_INDICES; i++) {
		if (indices[i / 64] >> i % 64 & 1)
			continue;
		indices[i / 64] |= UINT64_C(1) << i % 64;
		queue->index = i;
		return 0;
	}
	return dmcore__error(-ENFILE, "the core has %u queues", DMCORE__QUEUE_INDICES);
}

static void give_index(const struct dmcore_queue *queue)
{
	queue->core->queues->indices[queue->index / 64] &= ~(UINT64_C(1) << queue->index % 64);
}

/* Gives a queue its index, and tells who watches. */
static int announce(struct dmcore_queue *queue)
{
	const struct dmcore__queue_watch *watch = queue->core->queues->watch;
	int ret = take_index(queue);

	if (ret || !watch)
		return ret;
	ret = watch->added(queue);
	if (ret)
		give_index(queue);
	return ret;
}

/* Control lock held. */
static int create_locked(struct dmcore *core, const struct dmcore_queue_options *options,
			 bool internal, struct dmcore_queue **result)
{
	struct dmcore_queue *queue;
	int ret;

	if (!internal && core->queues->user_count >= DMCORE_QUEUES_MAX)
		return dmcore__error(-ENFILE, "the core has %d queues", DMCORE_QUEUES_MAX);
	queue = dmcore__zalloc_aligned(core, sizeof(*queue), 64);
	if (!queue)
		return dmcore__error(-ENOMEM, "no memory for a queue");
	queue->core = core;
	queue->hooks = &dmcore__bio_hooks;
	queue->epoll_fd = -1;
	queue->timer_fd = -1;
	queue->wake_fd = -1;
	queue->internal = internal;
	/* For the first submission to look for an owner, at no cost to the others. */
	dmcore__queue_set_submitting(queue, true);
	queue->migrates = options->flags & DMCORE_QUEUE_MIGRATES;
	queue->num_bios = options->bios;
	queue->num_splits = options->splits;
	dmcore__list_init(&queue->link);
	dmcore__list_init(&queue->idle_link);
	ret = make_pools(queue);
	if (ret)
		dmcore__error(ret, "no memory for the pools of a queue");
	else
		ret = make_backend(queue, options);
	if (ret == 0)
		ret = announce(queue);
	if (ret) {
		free_queue(queue);
		return ret;
	}
	dmcore__log(core, DMCORE_LOG_INFO, "queue: %s", queue->reason);
	dmcore__list_append(&core->queues->list, &queue->link);
	dmcore__drain_add_queue(queue);
	core->queues->user_count += !internal;
	*result = queue;
	return 0;
}

int dmcore__queue_create(struct dmcore *core, const struct dmcore_queue_options *options,
			 bool internal, struct dmcore_queue **result)
{
	struct dmcore_queue_options own;
	int ret;

	*result = NULL;
	ret = dmcore__check_alive(core);
	if (ret)
		return ret;
	ret = read_options(options, &own);
	if (ret)
		return ret;
	dmcore__lock(core);
	ret = create_locked(core, &own, internal, result);
	dmcore__unlock(core);
	return ret;
}

int dmcore_queue_create(struct dmcore *core, const struct dmcore_queue_options *options,
			struct dmcore_queue **result)
{
	if (!core || !result)
		return -EINVAL;
	return dmcore__queue_create(core, options, false, result);
}

int dmcore__queue_drain(struct dmcore_queue *queue)
{
	struct dmcore__backend *backend = queue->backend;

	while (queue->inflight || backend->inflight || dmcore__inbox_full(queue)) {
		/* Bios that wait for a resume would have it wait as long. */
		if (queue->num_deferred && !dmcore__inbox_full(queue))
			return -EBUSY;
		/* A driver's file I/O may outlive its bio: what counts then is that it ends. */
		int64_t timeout_ns = queue->inflight ? -1 : DRAIN_STEP_NS;
		int ret = dmcore_queue_poll(queue, dmcore__inbox_full(queue) ? 0 : 1, UINT_MAX,
					    timeout_ns);

		if (ret < 0 && ret != -EINTR)
			return ret;
	}
	return 0;
}

int dmcore_queue_destroy(struct dmcore_queue *queue)
{
	struct dmcore *core;
	int ret;

	if (!queue)
		return 0;
	core = queue->core;
	if (!dmcore__alive(core))
		return dmcore__error(-EOWNERDEAD, "the queue was made before fork()");
	if (queue->internal)
		return dmcore__error(-EINVAL, "the queue is the core's own");
	if (dmcore__queue_polling(queue))
		return dmcore__error(-EBUSY, "a queue can't be destroyed from its own callback");
	ret = dmcore__queue_drain(queue);
	if (ret == -EBUSY)
		return dmcore__error(-EBUSY, "%u requests of the queue wait for a suspended device",
				     queue->num_deferred);
	if (ret)
		return ret;
	if (queue->bios_out > 0)
		return dmcore__error(-EBUSY, "%u bios of the queue haven't been put back",
				     queue->bios_out);
	if (queue->timers)
		return dmcore__error(-EBUSY, "timers of the queue are running");
	dmcore__lock(core);
	dmcore__list_remove(&queue->link);
	if (core->queues->watch)
		core->queues->watch->removed(queue);
	give_index(queue);
	core->queues->user_count--;
	dmcore__unlock(core);
	free_queue(queue);
	return 0;
}

int dmcore_file_attach(struct dmcore *core, int fd, struct dmcore_file **result)
{
	struct dmcore_file *file;
	int ret;

	if (!result || fd < 0)
		return -EINVAL;
	*result = NULL;
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	file = dmcore__zalloc(core, sizeof(*file));
	if (!file) {
		dmcore__unlock(core);
		return dmcore__error(-ENOMEM, "no memory for a file");
	}
	file->core = core;
	file->fd = fd;
	file->cached = !(fcntl(fd, F_GETFL) & O_DIRECT);
	file->id = ++core->queues->last_file_id;
	file->slot = UINT32_MAX;
	if (core->queues->num_free_file_slots)
		file->slot = core->queues->free_file_slots[--core->queues->num_free_file_slots];
	dmcore__unlock(core);
	*result = file;
	return 0;
}

/*
 * Rings keep a registered file open: their owners give it up, this thread at once where it is the
 * owner, others at their next poll.
 */
static void forget_everywhere(struct dmcore__queues *queues, uint32_t slot)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &queues->list) {
		struct dmcore_queue *queue =
			dmcore__container_of(node, struct dmcore_queue, link);

		if (queue->backend->ops->forget && !queue->migrates)
			dmcore__inbox_forget(queue, slot);
	}
}

void dmcore_file_detach(struct dmcore_file *file)
{
	struct dmcore__queues *queues;

	if (!file)
		return;
	queues = file->core->queues;
	if (dmcore__control_begin(file->core))
		return;
	if (file->slot != UINT32_MAX) {
		forget_everywhere(queues, file->slot);
		queues->free_file_slots[queues->num_free_file_slots++] = file->slot;
	}
	dmcore__unlock(file->core);
	dmcore__free(file->core, file);
}
