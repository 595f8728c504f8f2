/* SPDX-License-Identifier: MIT */
/*
 * Calls that the service carries out while their caller waits. A call is handed back under the
 * service's lock, and not touched afterwards. Called by targets, from their hooks.
 */
#include <errno.h>
#include <limits.h>

#include "base/assert.h"
#include "base/compiler.h"
#include "base/error.h"
#include "base/wait.h"
#include "queue/queue.h"
#include "queue/service.h"

/* Longest wait for who runs a manual service before one does it oneself. */
#define TURN_NS 1000000

static bool has_returned(struct dmcore__service *service, const struct dmcore_call *call)
{
	bool returned;

	pthread_mutex_lock(&service->lock);
	returned = call->internal.returned;
	pthread_mutex_unlock(&service->lock);
	return returned;
}

void dmcore_service_return(struct dmcore_call *call, int result)
{
	struct dmcore__service *service = call->internal.core->service;

	pthread_mutex_lock(&service->lock);
	DMCORE__ASSERT(!call->internal.returned);
	call->result = result;
	call->internal.returned = true;
	pthread_cond_broadcast(&service->returned);
	pthread_mutex_unlock(&service->lock);
}

static void run(struct dmcore_work *work)
{
	struct dmcore_call *call =
		dmcore__container_of(work, struct dmcore_call, internal.work);

	call->fn(call);
}

/* Inside the poll of the service, by the thread that runs it. */
static bool is_service(struct dmcore *core)
{
	struct dmcore_queue *queue;

	dmcore__lock(core);
	queue = core->service->queue;
	dmcore__unlock(core);
	return queue && dmcore__queue_is_inside(queue);
}

static int run_here(struct dmcore__service *service, struct dmcore_call *call)
{
	if (!call->immediate)
		return dmcore__error(-EDEADLK, "the service can't wait for itself");
	call->fn(call);
	DMCORE__ASSERT(has_returned(service, call));
	return call->result;
}

/* The service has a thread: sleeps until the call is returned. */
static void wait_for_thread(struct dmcore *core, const struct dmcore_call *call)
{
	struct dmcore__service *service = core->service;
	const struct dmcore_options *options = &core->options;

	while (options->sleep && !has_returned(service, call))
		options->sleep(core, UINT64_MAX, options->sleep_context);
	pthread_mutex_lock(&service->lock);
	while (!call->internal.returned)
		pthread_cond_wait(&service->returned, &service->lock);
	pthread_mutex_unlock(&service->lock);
}

/* Somebody else runs the manual service: sleeps for a moment. */
static void wait_for_turn(struct dmcore *core, const struct dmcore_call *call)
{
	struct dmcore__service *service = core->service;
	const struct dmcore_options *options = &core->options;
	struct timespec until;

	if (options->sleep) {
		options->sleep(core, UINT64_MAX, options->sleep_context);
		return;
	}
	until = dmcore__deadline_in(TURN_NS);
	pthread_mutex_lock(&service->lock);
	if (!call->internal.returned)
		pthread_cond_timedwait(&service->returned, &service->lock, &until);
	pthread_mutex_unlock(&service->lock);
}

/* The service is manual: runs it. 0, or -EOWNERDEAD where something has called fork(). */
static int pump(struct dmcore *core, struct dmcore_call *call)
{
	struct dmcore__service *service = core->service;
	int ret = 0;

	while (ret != -EOWNERDEAD && !has_returned(service, call)) {
		if (!dmcore__service_pump_begin(service)) {
			wait_for_turn(core, call);
			continue;
		}
		/* It may have been returned by who has run it before. */
		ret = has_returned(service, call) ? 0 : dmcore_queue_claim(service->queue);
		if (ret == 0 && !has_returned(service, call))
			ret = dmcore_queue_poll(service->queue, 1, 1, -1);
		dmcore__service_pump_end(service);
	}
	return ret == -EOWNERDEAD ? ret : 0;
}

int dmcore_service_call(struct dmcore *core, struct dmcore_call *call)
{
	int ret;

	if (!core || !call || !call->fn)
		return dmcore__error(-EINVAL, "no core, no call, or nothing to be called");
	ret = dmcore__check_alive(core);
	if (ret)
		return ret;
	call->internal.core = core;
	call->internal.returned = false;
	if (is_service(core))
		return run_here(core->service, call);
	call->internal.work.fn = run;
	ret = dmcore__service_post_call(core, &call->internal.work);
	if (ret)
		return ret;
	if (dmcore__service_to_pump(core))
		ret = pump(core, call);
	else
		wait_for_thread(core, call);
	return ret ? ret : call->result;
}
