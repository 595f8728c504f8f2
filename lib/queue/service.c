/* SPDX-License-Identifier: MIT */
/*
 * The service of a core: made with its queue and thread when it is first needed, so that programs
 * without background work have neither. Called by context.c and by whoever posts work.
 */
#include "queue/service.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/wait.h"
#include "queue/queue.h"

static bool manual(const struct dmcore *core)
{
	return core->options.flags & DMCORE_SERVICE_MANUAL;
}

static void *serve(void *context)
{
	struct dmcore__service *service = context;

	while (!service->stop) {
		dmcore_queue_poll(service->queue, 1, UINT_MAX, -1);
		if (!service->drains)
			continue;
		service->drains = false;
		dmcore__queue_drain(service->queue);
		pthread_mutex_lock(&service->lock);
		service->drained = true;
		pthread_cond_broadcast(&service->returned);
		pthread_mutex_unlock(&service->lock);
	}
	dmcore__queue_drain(service->queue);
	return NULL;
}

static void quit(struct dmcore_work *work)
{
	dmcore__container_of(work, struct dmcore__service, quit)->stop = true;
}

static void drain(struct dmcore_work *work)
{
	dmcore__container_of(work, struct dmcore__service, drain)->drains = true;
}

int dmcore__service_create(struct dmcore *core)
{
	core->service = dmcore__zalloc(core, sizeof(*core->service));
	if (!core->service)
		return -ENOMEM;
	core->service->quit.fn = quit;
	core->service->drain.fn = drain;
	pthread_mutex_init(&core->service->lock, NULL);
	dmcore__cond_init(&core->service->returned);
	return 0;
}

static void wait_until_drained(struct dmcore__service *service)
{
	dmcore_queue_post(service->queue, &service->drain);
	pthread_mutex_lock(&service->lock);
	while (!service->drained)
		pthread_cond_wait(&service->returned, &service->lock);
	pthread_mutex_unlock(&service->lock);
}

void dmcore__service_end(struct dmcore *core)
{
	struct dmcore__service *service = core->service;

	if (!service)
		return;
	if (service->running)
		wait_until_drained(service);
	else if (service->queue && dmcore_queue_claim(service->queue) == 0)
		dmcore__queue_drain(service->queue);
	service->ended = true;
}

void dmcore__service_destroy(struct dmcore *core)
{
	struct dmcore__service *service = core->service;

	if (!service)
		return;
	if (service->running) {
		dmcore_queue_post(service->queue, &service->quit);
		pthread_join(service->thread, NULL);
	} else if (service->queue && dmcore_queue_claim(service->queue) == 0) {
		dmcore__queue_drain(service->queue);
	}
	pthread_cond_destroy(&service->returned);
	pthread_mutex_destroy(&service->lock);
	/* The queue goes with the others of the core. */
	dmcore__free(core, service);
	core->service = NULL;
}

struct dmcore_queue *dmcore__service_to_pump(struct dmcore *core)
{
	return manual(core) && core->service ? core->service->queue : NULL;
}

static int start(struct dmcore *core, struct dmcore__service *service)
{
	sigset_t all;
	sigset_t old;
	int ret;

	if (service->running || manual(core))
		return 0;
	/* Signals are the application's own threads' business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&service->thread, NULL, serve, service);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return dmcore__error(-EAGAIN, "the service thread couldn't be started");
	service->running = true;
	return 0;
}

struct dmcore_queue *dmcore_service_queue(struct dmcore *core)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue *queue;

	if (dmcore__control_begin(core))
		return NULL;
	/* Who pumps a manual service may be another thread each time, and mustn't block. */
	options.flags = manual(core) ? DMCORE_QUEUE_MIGRATES : DMCORE_QUEUE_INLINE_WRITES;
	queue = core->service->queue;
	if (!queue && dmcore__queue_create(core, &options, true, &queue) == 0)
		core->service->queue = queue;
	dmcore__unlock(core);
	return queue;
}

static int post(struct dmcore *core, struct dmcore_work *work, bool has_ended)
{
	int ret = dmcore__control_begin(core);

	if (ret)
		return ret;
	if (core->service->ended && !has_ended)
		ret = dmcore__error(-ESHUTDOWN, "the core is being destroyed");
	else
		ret = dmcore_service_queue(core) ? start(core, core->service) : -EAGAIN;
	dmcore__unlock(core);
	if (ret)
		return ret;
	dmcore_queue_post(core->service->queue, work);
	return 0;
}

int dmcore_service_post(struct dmcore *core, struct dmcore_work *work)
{
	if (!work || !work->fn)
		return dmcore__error(-EINVAL, "no work");
	return post(core, work, false);
}

int dmcore__service_post_call(struct dmcore *core, struct dmcore_work *work)
{
	return post(core, work, true);
}

int dmcore_service_poll(struct dmcore *core, unsigned int min, unsigned int max, int64_t timeout_ns)
{
	struct dmcore_queue *queue;
	bool first;
	int ret;

	if (!core || !manual(core))
		return dmcore__error(-EINVAL, "the service of this core isn't manual");
	queue = dmcore_service_queue(core);
	if (!queue)
		return -ENOMEM;
	ret = dmcore_queue_claim(queue);
	if (ret)
		return ret;
	/* For those who wait for the service elsewhere to leave it to this thread. */
	first = dmcore__service_pump_begin(core->service);
	ret = dmcore_queue_poll(queue, min, max, timeout_ns);
	if (first)
		dmcore__service_pump_end(core->service);
	return ret;
}
