/* SPDX-License-Identifier: MIT */
/*
 * The threads of a pread backend. Requests reach them through a list under a lock, one batch at a
 * time; results come back through a stack without one.
 */
#include "backend/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/error.h"

struct dmcore__workers {
	struct dmcore__backend_config config;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct dmcore_fileio *head;
	struct dmcore_fileio *tail;
	bool stop;
	unsigned int count;
	_Atomic(struct dmcore_fileio *) ended;
	pthread_t threads[];
};

static void deliver(struct dmcore__workers *workers, struct dmcore_fileio *io)
{
	struct dmcore_fileio *head = atomic_load_explicit(&workers->ended, memory_order_relaxed);

	do {
		io->next = head;
	} while (!atomic_compare_exchange_weak(&workers->ended, &head, io));
	workers->config.wake(workers->config.queue);
}

static void *work(void *context)
{
	struct dmcore__workers *workers = context;

	pthread_mutex_lock(&workers->lock);
	for (;;) {
		struct dmcore_fileio *io;

		while (!workers->head && !workers->stop)
			pthread_cond_wait(&workers->more, &workers->lock);
		io = workers->head;
		if (!io)
			break;
		workers->head = io->next;
		pthread_mutex_unlock(&workers->lock);
		io->result = dmcore__fileio_run(io);
		deliver(workers, io);
		pthread_mutex_lock(&workers->lock);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

static void stop(struct dmcore__workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	workers->stop = true;
	pthread_cond_broadcast(&workers->more);
	pthread_mutex_unlock(&workers->lock);
	for (unsigned int i = 0; i < workers->count; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->more);
	pthread_mutex_destroy(&workers->lock);
}

int dmcore__workers_create(const struct dmcore__backend_config *config,
			   struct dmcore__workers **result)
{
	unsigned int count = config->workers;
	struct dmcore__workers *workers =
		dmcore__zalloc(config->core, sizeof(*workers) + count * sizeof(pthread_t));
	sigset_t all;
	sigset_t old;
	int ret = 0;

	if (!workers)
		return -ENOMEM;
	workers->config = *config;
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->more, NULL);
	/* Signals are the application's own threads' business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (workers->count < count && ret == 0) {
		ret = pthread_create(&workers->threads[workers->count], NULL, work, workers);
		if (ret == 0)
			workers->count++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret) {
		stop(workers);
		dmcore__free(config->core, workers);
		return dmcore__error(-ret, "a worker thread couldn't be started");
	}
	*result = workers;
	return 0;
}

void dmcore__workers_destroy(struct dmcore__workers *workers)
{
	if (!workers)
		return;
	stop(workers);
	dmcore__free(workers->config.core, workers);
}

void dmcore__workers_submit(struct dmcore__workers *workers, struct dmcore_fileio *first,
			    struct dmcore_fileio *last)
{
	bool several = first != last;

	last->next = NULL;
	pthread_mutex_lock(&workers->lock);
	if (workers->head)
		workers->tail->next = first;
	else
		workers->head = first;
	workers->tail = last;
	if (several)
		pthread_cond_broadcast(&workers->more);
	else
		pthread_cond_signal(&workers->more);
	pthread_mutex_unlock(&workers->lock);
}

bool dmcore__workers_ended(struct dmcore__workers *workers)
{
	return atomic_load(&workers->ended) != NULL;
}

struct dmcore_fileio *dmcore__workers_take(struct dmcore__workers *workers)
{
	struct dmcore_fileio *stack = atomic_exchange(&workers->ended, NULL);
	struct dmcore_fileio *oldest = NULL;

	while (stack) {
		struct dmcore_fileio *next = stack->next;

		stack->next = oldest;
		oldest = stack;
		stack = next;
	}
	return oldest;
}
