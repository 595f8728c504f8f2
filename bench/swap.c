/* SPDX-License-Identifier: MIT */
/*
 * How long requests are held up when a device's table is replaced under load: threads with a queue
 * each keep requests in flight on memory, while this one swaps the table, or suspends the device
 * and resumes it. The target is a linear that notes when it is told of the suspend and the resume:
 * in between, nothing passes. Also the longest gap between completions that any of the threads saw
 * meanwhile, and, to tell what of it is the scheduler's, the same without a swap.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "rig.h"

#define MEMBERS 4u
#define DEPTH 32u
#define LEAF_SECTORS 32768u
#define SIZE_SECTORS 16384u
#define STEPS_MAX 20000u
#define STRETCHES 8u
/* Of each kind of step. */
#define FULL_NS 2000000000u
#define SMOKE_NS 100000000u
/* Between two steps: what one gets back on its way. */
#define REST_NS 300000
#define PAUSE_BAR_US 1000

enum step { STEP_SWAP, STEP_SUSPEND, STEP_NOTHING };

struct crew;

struct member {
	struct crew *crew;
	unsigned int index;
	struct dmcore_queue *queue;
	pthread_t thread;
	struct bench_random random;
	unsigned char buffer[BENCH_BLOCK_BYTES] __attribute__((aligned(64)));
	unsigned int inflight;
	uint64_t last_ns;
	_Atomic uint64_t ended;
	_Atomic uint64_t gap_ns; /* the longest since it was set to 0 */
	_Atomic int error;
};

struct crew {
	struct rig *rig;
	struct dmcore_device *device;
	struct dmcore_bdev *bdev;
	unsigned int num_swaps;
	_Atomic bool stop;
	struct member members[MEMBERS];
	double pause_us[STEPS_MAX];
	double call_us[STEPS_MAX];
	double gap_us[STEPS_MAX];
};

/* ---- the target ---- */

struct timed {
	struct dmcore_bdev *bdev;
	uint64_t start;
};

/* Written on the thread of the control call, by the old table's target and by the new one's. */
static uint64_t suspended_ns;
static uint64_t resumed_ns;

static int timed_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct timed *timed = dmcore_target_alloc(target, sizeof(*timed));
	int ret;

	if (!timed)
		return dmcore_args_fail(args, -ENOMEM, "no memory");
	ret = dmcore_target_device(target, dmcore_args_next(args), &timed->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "no device");
	target->private_data = timed;
	return dmcore_args_u64(args, 0, UINT64_MAX, "no sector", &timed->start);
}

static enum dmcore_map_result timed_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct timed *timed = target->private_data;

	bio->bdev = timed->bdev;
	bio->sector = timed->start + (bio->sector - target->begin);
	return DMCORE_MAP_REMAPPED;
}

static int timed_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct timed *timed = target->private_data;

	return fn(target, timed->bdev, timed->start, dmcore_target_len(target), context);
}

static void timed_presuspend(struct dmcore_target *target)
{
	(void)target;
	suspended_ns = bench_now_ns();
}

static void timed_resume(struct dmcore_target *target)
{
	(void)target;
	resumed_ns = bench_now_ns();
}

static const struct dmcore_target_type timed_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "timed",
	.version = { 1, 0, 0 },
	.ctr = timed_ctr,
	.map = timed_map,
	.iterate_devices = timed_iterate_devices,
	.presuspend = timed_presuspend,
	.resume = timed_resume,
};

/* ---- load ---- */

static int send(struct member *member, struct dmcore_bio *bio)
{
	/* Each has blocks of its own: memory that two write at once is a race. */
	uint64_t own = SIZE_SECTORS / BENCH_BLOCK_SECTORS / MEMBERS;
	uint64_t position = member->index * own + bench_random_position(&member->random, own);

	bio->bdev = member->crew->bdev;
	bio->op = position % 2 ? DMCORE_OP_READ : DMCORE_OP_WRITE;
	bio->sector = position * BENCH_BLOCK_SECTORS;
	dmcore_bio_set_buffer(bio, member->buffer, BENCH_BLOCK_BYTES);
	member->inflight++;
	return dmcore_bio_submit(bio);
}

static void ended(struct dmcore_bio *bio)
{
	struct member *member = bio->context;
	int ret = bio->status;

	member->inflight--;
	atomic_store_explicit(&member->ended, member->ended + 1, memory_order_relaxed);
	if (ret == 0 && !atomic_load_explicit(&member->crew->stop, memory_order_relaxed))
		ret = send(member, bio);
	else
		dmcore_bio_put(bio);
	if (ret)
		atomic_store(&member->error, ret);
}

static void note_gap(struct member *member)
{
	uint64_t now_ns = bench_now_ns();
	uint64_t gap_ns = now_ns - member->last_ns;

	member->last_ns = now_ns;
	if (gap_ns > atomic_load_explicit(&member->gap_ns, memory_order_relaxed))
		atomic_store_explicit(&member->gap_ns, gap_ns, memory_order_relaxed);
}

static void *member_main(void *argument)
{
	struct member *member = argument;
	int ret = 0;

	bench_pin(member->index % bench_cpus());
	member->last_ns = bench_now_ns();
	for (unsigned int i = 0; i < DEPTH && ret == 0; i++) {
		struct dmcore_bio *bio = dmcore_bio_get(member->queue);

		bio->done = ended;
		bio->context = member;
		ret = send(member, bio);
	}
	while (member->inflight && ret >= 0) {
		ret = dmcore_queue_poll(member->queue, 1, DEPTH, -1);
		note_gap(member);
		ret = ret == -EINTR ? 0 : ret;
	}
	if (ret < 0)
		atomic_store(&member->error, ret);
	return NULL;
}

/* ---- steps ---- */

/* Each table on other memory than the one before. */
static int load_next(struct crew *crew)
{
	unsigned int n = crew->num_swaps++;
	struct dmcore_table *table;
	char text[64];
	int ret;

	snprintf(text, sizeof(text), "0 %u timed mem:%us,name=%c %u", SIZE_SECTORS, LEAF_SECTORS,
		 n % 2 ? 'b' : 'a', n % 3 * 64);
	ret = dmcore_table_parse(crew->rig->core, text, 0, &table);
	if (ret)
		return ret;
	ret = dmcore_device_load(crew->device, table);
	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

static uint64_t num_ended(const struct crew *crew)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < MEMBERS; i++)
		sum += atomic_load(&crew->members[i].ended);
	return sum;
}

/* Until as many requests as are in flight have ended since. */
static int wait_for_progress(const struct crew *crew)
{
	const struct timespec rest = { .tv_nsec = REST_NS };
	uint64_t before = num_ended(crew);

	do {
		nanosleep(&rest, NULL);
		for (unsigned int i = 0; i < MEMBERS; i++) {
			if (atomic_load(&crew->members[i].error))
				return atomic_load(&crew->members[i].error);
		}
	} while (num_ended(crew) - before < MEMBERS * DEPTH);
	return 0;
}

/* The call itself is timed; what leads up to it and follows is not. */
static int time_call(struct crew *crew, enum step step, uint64_t *elapsed_ns)
{
	uint64_t begin_ns;
	int ret = step == STEP_SWAP ? load_next(crew) : 0;

	if (ret)
		return ret;
	begin_ns = bench_now_ns();
	if (step == STEP_SWAP)
		ret = dmcore_device_resume(crew->device);
	else if (step == STEP_SUSPEND)
		ret = dmcore_device_suspend(crew->device, 0, -1);
	*elapsed_ns = bench_now_ns() - begin_ns;
	if (ret == 0 && step == STEP_SUSPEND)
		ret = dmcore_device_resume(crew->device);
	return ret;
}

static int do_step(struct crew *crew, enum step step, unsigned int i)
{
	uint64_t elapsed_ns = 0;
	uint64_t gap_ns = 0;
	int ret;

	for (unsigned int k = 0; k < MEMBERS; k++)
		atomic_store(&crew->members[k].gap_ns, 0);
	ret = time_call(crew, step, &elapsed_ns);
	if (ret == 0)
		ret = wait_for_progress(crew);
	for (unsigned int k = 0; k < MEMBERS; k++) {
		uint64_t one_ns = atomic_load(&crew->members[k].gap_ns);

		gap_ns = one_ns > gap_ns ? one_ns : gap_ns;
	}
	crew->pause_us[i] = (double)(resumed_ns - suspended_ns) / 1000;
	crew->call_us[i] = (double)elapsed_ns / 1000;
	crew->gap_us[i] = (double)gap_ns / 1000;
	return ret;
}

/* What a part of the values lies below. Sorts them. */
static double quantile(double *values, unsigned int count, double part)
{
	unsigned int place = (unsigned int)(part * count);

	bench_median(values, count);
	return values[place < count ? place : count - 1];
}

/*
 * Each quantile of every stretch of the run by itself, so that some stretch has the machine for
 * itself: the best of them, and the middle one. Rare events are looked for in the whole.
 */
static void report(struct bench *bench, const char *name, double *us, unsigned int count,
		   double bar_us)
{
	static const struct {
		const char *name;
		double part;
		bool whole;
	} parts[] = { { "p50", 0.5, false }, { "p90", 0.9, false }, { "p99", 0.99, false },
		      { "p99.9", 0.999, true }, { "max", 1, true } };

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		unsigned int stretches = parts[i].whole || count < 2 * STRETCHES ? 1 : STRETCHES;
		unsigned int length = count / stretches;
		double values[STRETCHES];
		double median;
		char row[BENCH_NAME_BYTES];

		for (unsigned int k = 0; k < stretches; k++)
			values[k] = quantile(us + (size_t)k * length, length, parts[i].part);
		median = bench_median(values, stretches);
		snprintf(row, sizeof(row), "swap/%s-%s", name, parts[i].name);
		bench_report_value(bench, row, "us", values[0], median,
				   i == 2 ? bar_us : 0);
	}
}

/* As many as there is time for. */
static int run_steps(struct crew *crew, enum step step, unsigned int *count)
{
	struct bench *bench = crew->rig->bench;
	uint64_t end_ns = bench_now_ns() + bench_size(bench, FULL_NS, SMOKE_NS);

	*count = 0;
	while (*count < STEPS_MAX && (*count < 2 || bench_now_ns() < end_ns)) {
		int ret = do_step(crew, step, *count);

		if (ret)
			return bench_fail(bench, ret, "swap: %s", dmcore_error_message());
		++*count;
	}
	return 0;
}

static int measure_all(struct crew *crew)
{
	struct bench *bench = crew->rig->bench;
	uint64_t begin_ns;
	unsigned int count;
	double rate;
	int ret = run_steps(crew, STEP_NOTHING, &count);

	if (ret)
		return ret;
	report(bench, "none-gap", crew->gap_us, count, 0);
	begin_ns = bench_now_ns();
	ret = run_steps(crew, STEP_SWAP, &count);
	if (ret)
		return ret;
	rate = count / ((double)(bench_now_ns() - begin_ns) / 1e9);
	report(bench, "pause", crew->pause_us, count, PAUSE_BAR_US);
	report(bench, "call", crew->call_us, count, 0);
	report(bench, "gap", crew->gap_us, count, 0);
	bench_report_value(bench, "swap/rate", "swaps/s", rate, rate, 0);
	ret = run_steps(crew, STEP_SUSPEND, &count);
	if (ret)
		return ret;
	report(bench, "suspend", crew->call_us, count, PAUSE_BAR_US);
	report(bench, "suspend-gap", crew->gap_us, count, 0);
	return 0;
}

/* ---- the case ---- */

static int start_member(struct crew *crew, unsigned int i)
{
	struct member *member = &crew->members[i];
	int ret;

	member->crew = crew;
	member->index = i;
	member->random = bench_random_start(crew->rig->bench->options.seed + i);
	ret = dmcore_queue_create(crew->rig->core, NULL, &member->queue);
	if (ret)
		return ret;
	ret = -pthread_create(&member->thread, NULL, member_main, member);
	if (ret) {
		dmcore_queue_destroy(member->queue);
		member->queue = NULL;
	}
	return ret;
}

/* With requests lost, a member's queue never becomes empty, and this doesn't return. */
static int stop_member(struct member *member)
{
	int ret;

	pthread_join(member->thread, NULL);
	ret = dmcore_queue_destroy(member->queue);
	return atomic_load(&member->error) ? atomic_load(&member->error) : ret;
}

static int run_crew(struct crew *crew)
{
	unsigned int started = 0;
	int ret = 0;

	while (started < MEMBERS && ret == 0) {
		ret = start_member(crew, started);
		started += ret == 0;
	}
	if (ret)
		bench_fail(crew->rig->bench, ret, "swap: a thread: %s", dmcore_error_message());
	else
		ret = measure_all(crew);
	atomic_store(&crew->stop, true);
	while (started > 0) {
		int error = stop_member(&crew->members[--started]);

		if (error)
			ret = bench_fail(crew->rig->bench, error, "swap: a request");
	}
	return ret;
}

/* The leaves stay when the tables above them go. */
static int make_device(struct crew *crew, struct dmcore_bdev **leaves)
{
	struct dmcore *core = crew->rig->core;
	int ret = dmcore_target_register(core, &timed_type);

	for (unsigned int i = 0; i < 2 && ret == 0; i++) {
		char spec[32];

		snprintf(spec, sizeof(spec), "mem:%us,name=%c", LEAF_SECTORS, i ? 'b' : 'a');
		ret = dmcore_bdev_open(core, spec, 0, &leaves[i]);
	}
	if (ret == 0)
		ret = dmcore_device_create(core, "set", NULL, 0, &crew->device);
	if (ret == 0)
		ret = load_next(crew);
	if (ret == 0)
		ret = dmcore_device_resume(crew->device);
	if (ret)
		return bench_fail(crew->rig->bench, ret, "swap: %s", dmcore_error_message());
	crew->bdev = dmcore_device_bdev(crew->device);
	return 0;
}

static int run_swap(struct bench *bench)
{
	static struct crew crew;
	struct dmcore_bdev *leaves[2] = { NULL, NULL };
	struct rig rig;
	int ret;

	if (bench->options.work_row)
		return 0;
	ret = rig_open(&rig, bench, DMCORE_BACKEND_PREAD, 0, BENCH_BLOCK_SECTORS);
	crew.rig = &rig;
	if (ret == 0)
		ret = make_device(&crew, leaves);
	if (ret == 0)
		ret = run_crew(&crew);
	dmcore_device_remove(crew.device);
	for (unsigned int i = 0; i < 2; i++)
		dmcore_bdev_close(leaves[i]);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_swap = {
	"swap", "pause of requests while their device's table is replaced, or it is suspended",
	run_swap
};
