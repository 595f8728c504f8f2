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
#include "queue/queue.h"

struct dmcore__service {
	struct dmcore_queue *queue;
	pthread_t thread;
	bool running;
	bool ended;              /* the core goes: no more work is taken */
	bool stop;               /* the thread's, set by the work below */
	struct dmcore_work quit;
};

static bool manual(const struct dmcore *core)
{
	return core->options.flags & DMCORE_SERVICE_MANUAL;
}

static void *serve(void *context)
{
	struct dmcore__service *service = context;

	while (!service->stop)
		dmcore_queue_poll(service->queue, 1, UINT_MAX, -1);
	dmcore__queue_drain(service->queue);
	return NULL;
}

static void quit(struct dmcore_work *work)
{
	dmcore__container_of(work, struct dmcore__service, quit)->stop = true;
}

int dmcore__service_create(struct dmcore *core)
{
	core->service = dmcore__zalloc(core, sizeof(*core->service));
	if (!core->service)
		return -ENOMEM;
	core->service->quit.fn = quit;
	return 0;
}

void dmcore__service_end(struct dmcore *core)
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
	service->ended = true;
}

void dmcore__service_destroy(struct dmcore *core)
{
	/* The queue goes with the others of the core. */
	dmcore__free(core, core->service);
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
	/* Who pumps a manual service may be another thread each time. */
	options.flags = manual(core) ? DMCORE_QUEUE_MIGRATES : 0;
	queue = core->service->queue;
	if (!queue && dmcore__queue_create(core, &options, true, &queue) == 0)
		core->service->queue = queue;
	dmcore__unlock(core);
	return queue;
}

int dmcore_service_post(struct dmcore *core, struct dmcore_work *work)
{
	int ret;

	if (!work || !work->fn)
		return dmcore__error(-EINVAL, "no work");
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	if (core->service->ended)
		ret = dmcore__error(-ESHUTDOWN, "the core is being destroyed");
	else
		ret = dmcore_service_queue(core) ? start(core, core->service) : -EAGAIN;
	dmcore__unlock(core);
	if (ret)
		return ret;
	dmcore_queue_post(core->service->queue, work);
	return 0;
}

int dmcore_service_poll(struct dmcore *core, unsigned int min, unsigned int max, int64_t timeout_ns)
{
	struct dmcore_queue *queue;
	int ret;

	if (!core || !manual(core))
		return dmcore__error(-EINVAL, "the service of this core isn't manual");
	queue = dmcore_service_queue(core);
	if (!queue)
		return -ENOMEM;
	ret = dmcore_queue_claim(queue);
	if (ret)
		return ret;
	return dmcore_queue_poll(queue, min, max, timeout_ns);
}
