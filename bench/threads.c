/* SPDX-License-Identifier: MIT */
/*
 * Two threads, each with a queue of its own, on one mapped null device. Nothing that the data path
 * writes is shared, so together they should do twice what one does.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "rig.h"

#define THREADS_MAX 2u
#define FULL_COUNT 65536u
#define SMOKE_COUNT 8192u
#define SPEEDUP_BAR 1.9

struct crew {
	struct rig *rig;
	unsigned int num_threads;
	struct bench_run *run;
	_Atomic unsigned int waiting; /* members that are ready to start */
};

struct member {
	struct crew *crew;
	unsigned int index;
	struct bench_run run;
	uint64_t begin_ns;
	uint64_t end_ns;
	int error;
};

/* Spins: members must start together, and waking takes longer than the start may differ. */
static void wait_for_all(struct crew *crew)
{
	atomic_fetch_add(&crew->waiting, 1);
	while (atomic_load(&crew->waiting) < crew->num_threads)
		;
}

static int work(struct member *member, struct load *load)
{
	struct bench_run warm_up = { .seed = member->run.seed, .count = member->run.count / 8 };
	int ret = load_run(load, &warm_up);

	wait_for_all(member->crew);
	member->begin_ns = bench_now_ns();
	if (ret == 0)
		ret = load_run(load, &member->run);
	member->end_ns = bench_now_ns();
	return ret;
}

/* A queue belongs to the thread that first uses it, so each member makes its own. */
static void *member_main(void *argument)
{
	struct member *member = argument;
	struct rig mine = *member->crew->rig;
	struct load load;

	bench_pin(member->index);
	member->error = dmcore_queue_create(mine.core, NULL, &mine.queue);
	if (member->error == 0) {
		load = rig_load(&mine, mine.zero, 32);
		member->error = load_open(&load);
	}
	if (member->error) {
		wait_for_all(member->crew);
	} else {
		member->error = work(member, &load);
		load_close(&load);
	}
	if (dmcore_queue_destroy(mine.queue) && !member->error)
		member->error = -EBUSY;
	return NULL;
}

/* Adds up what the members have done. Their time is from the first start to the last end. */
static int gather(struct crew *crew, const struct member *members)
{
	uint64_t begin = UINT64_MAX;
	uint64_t end = 0;

	for (unsigned int i = 0; i < crew->num_threads; i++) {
		const struct member *member = &members[i];

		if (member->error)
			return member->error;
		begin = member->begin_ns < begin ? member->begin_ns : begin;
		end = member->end_ns > end ? member->end_ns : end;
		crew->run->completed += member->run.completed;
		crew->run->hash += member->run.hash;
	}
	crew->run->elapsed_ns = end - begin;
	return 0;
}

static int crew_run(void *context, struct bench_run *run)
{
	struct crew *crew = context;
	struct member members[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	int ret;

	memset(members, 0, sizeof(members));
	crew->run = run;
	atomic_store(&crew->waiting, 0);
	for (unsigned int i = 0; i < crew->num_threads; i++) {
		members[i].crew = crew;
		members[i].index = i;
		members[i].run.seed = run->seed + i;
		members[i].run.count = run->count;
		ret = pthread_create(&threads[i], NULL, member_main, &members[i]);
		if (ret) {
			/* Those that run already wait for the rest. */
			atomic_store(&crew->waiting, THREADS_MAX);
			while (i > 0)
				pthread_join(threads[--i], NULL);
			return -ret;
		}
	}
	for (unsigned int i = 0; i < crew->num_threads; i++)
		pthread_join(threads[i], NULL);
	return gather(crew, members);
}

static int measure_threads(struct rig *rig, struct bench_row *rows)
{
	struct crew crews[2] = { { .rig = rig, .num_threads = 1 },
				 { .rig = rig, .num_threads = 2 } };

	for (unsigned int i = 0; i < 2; i++) {
		rows[i].fn = crew_run;
		rows[i].context = &crews[i];
		rows[i].count = bench_size(rig->bench, FULL_COUNT, SMOKE_COUNT);
	}
	return bench_measure(rig->bench, rows, 2);
}

static int run_threads(struct bench *bench)
{
	struct bench_row rows[2] = { { .name = "threads/1" },
				     { .name = "threads/2",
				       .floor = &rows[0],
				       .max_ratio = 1 / SPEEDUP_BAR } };
	struct rig rig;
	int ret;

	if (bench_cpus() < 2) {
		bench_report_skip(bench, "threads/2", "only one CPU to run on");
		return 0;
	}
	ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);
	if (ret == 0)
		ret = measure_threads(&rig, rows);
	if (ret == 0)
		bench_report_value(bench, "threads/speedup", "x", rows[0].best_ns / rows[1].best_ns,
				   rows[0].median_ns / rows[1].median_ns, 0);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_threads = {
	"threads", "two threads with a queue each on one null device, against one thread",
	run_threads
};
