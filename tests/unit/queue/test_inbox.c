/* SPDX-License-Identifier: MIT */
/* What other threads hand to a queue: work, completed bios, and files that go away. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "queue/queue.h"
#include "support/scratch.h"
#include "support/stage.h"

#define THREADS 4
#define POSTS 5000
#define MS UINT64_C(1000000)

static struct stage stage;

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(inbox, .init = set_up, .fini = tear_down);

/* ---- work ----------------------------------------------------------------------------------- */

struct job {
	struct dmcore_work work; /* first */
	unsigned int thread;
	unsigned int nr;
	unsigned int runs;
};

static struct job jobs[THREADS][POSTS];
static unsigned int next_nr[THREADS];
static unsigned int jobs_run;
static pthread_t owner;

static void run_job(struct dmcore_work *work)
{
	struct job *job = (struct job *)(void *)work;

	cr_assert(pthread_equal(pthread_self(), owner), "on the owner's thread");
	cr_assert_eq(job->nr, next_nr[job->thread], "in the order of its thread");
	next_nr[job->thread]++;
	job->runs++;
	jobs_run++;
}

static void count_work(struct dmcore_work *work)
{
	(void)work;
	jobs_run++;
}

static void *post_jobs(void *context)
{
	struct job *own = context;

	for (unsigned int i = 0; i < POSTS; i++)
		dmcore_queue_post(stage.queue, &own[i].work);
	return NULL;
}

static void make_jobs(void)
{
	owner = pthread_self();
	for (unsigned int t = 0; t < THREADS; t++) {
		for (unsigned int i = 0; i < POSTS; i++)
			jobs[t][i] = (struct job){ { .fn = run_job }, t, i, 0 };
	}
}

/* Sleeping in poll all the while, so that every lost wake-up shows as a time-out. */
Test(inbox, runs_posts_of_all_threads_once_and_in_order)
{
	pthread_t threads[THREADS];

	make_jobs();
	for (unsigned int t = 0; t < THREADS; t++)
		cr_assert_eq(pthread_create(&threads[t], NULL, post_jobs, jobs[t]), 0);
	while (jobs_run < THREADS * POSTS)
		cr_assert_gt(dmcore_queue_poll(stage.queue, 1, 7, STAGE_PATIENCE_NS), 0);
	for (unsigned int t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	for (unsigned int t = 0; t < THREADS; t++) {
		for (unsigned int i = 0; i < POSTS; i++)
			cr_assert_eq(jobs[t][i].runs, 1, "thread %u, job %u", t, i);
	}
}

Test(inbox, runs_posts_beside_requests)
{
	struct tally tally = { 0 };
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev;
	pthread_t threads[THREADS];
	struct scratch scratch;
	unsigned int submitted = 0;

	scratch_create(&scratch, NULL, 1 << 20);
	bdev = stage_bdev(&stage, scratch.path, 0);
	make_jobs();
	for (unsigned int t = 0; t < THREADS; t++)
		cr_assert_eq(pthread_create(&threads[t], NULL, post_jobs, jobs[t]), 0);
	while (jobs_run < THREADS * POSTS || tally.ended < 5000) {
		for (; submitted < 5000 && submitted - tally.ended < 16; submitted++)
			stage_submit(&stage, bdev, DMCORE_OP_READ, submitted % 2048, 1, buffer,
				     &tally);
		cr_assert_gt(dmcore_queue_poll(stage.queue, 1, 5, STAGE_PATIENCE_NS), 0);
	}
	for (unsigned int t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	cr_assert_eq(jobs_run, THREADS * POSTS);
	cr_assert_eq(tally.failed, 0);
	scratch_close(&scratch);
}

static void *post_late(void *context)
{
	stage_sleep_ns(30 * MS);
	dmcore_queue_post(stage.queue, context);
	return NULL;
}

Test(inbox, a_post_wakes_a_sleeping_poll)
{
	uint64_t begun = stage_now_ns();
	pthread_t thread;

	make_jobs();
	cr_assert_eq(pthread_create(&thread, NULL, post_late, &jobs[0][0].work), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_lt(stage_now_ns() - begun, 5000 * MS);
	pthread_join(thread, NULL);
}

#define ROUNDS 20000

static _Atomic unsigned int round_nr;

/* One post a round, at any moment of the owner's way into its sleep. */
static void *post_in_time(void *context)
{
	struct dmcore_work *work = context;

	for (unsigned int round = 1; round <= ROUNDS; round++) {
		while (atomic_load(&round_nr) < round)
			sched_yield();
		for (volatile unsigned int i = 0; i < round * 7 % 1000; i++)
			continue;
		dmcore_queue_post(stage.queue, work);
	}
	return NULL;
}

Test(inbox, no_post_comes_too_late_to_wake_and_too_early_to_be_seen)
{
	pthread_t thread;

	make_jobs();
	jobs[0][0].work.fn = count_work;
	cr_assert_eq(pthread_create(&thread, NULL, post_in_time, &jobs[0][0].work), 0);
	for (unsigned int round = 1; round <= ROUNDS; round++) {
		atomic_store(&round_nr, round);
		cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1,
			     "asleep in round %u", round);
	}
	pthread_join(thread, NULL);
	cr_assert_eq(jobs_run, ROUNDS);
}

static void note_run(struct dmcore_work *work)
{
	(void)work;
	jobs_run++;
}

/* Its descriptor is readable then, whatever is written to it. */
Test(inbox, a_full_wake_up_counter_loses_no_work)
{
	static struct dmcore_work work = { .fn = note_run };
	uint64_t most = UINT64_MAX - 1;
	struct pollfd entry = { .fd = dmcore_queue_fd(stage.queue), .events = POLLIN };

	cr_assert_geq(entry.fd, 0);
	cr_assert_eq(write(stage.queue->wake_fd, &most, sizeof(most)), (ssize_t)sizeof(most));
	dmcore_queue_post(stage.queue, &work);
	cr_assert_eq(poll(&entry, 1, 0), 1);
	while (jobs_run == 0)
		cr_assert_geq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(jobs_run, 1);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 0);
	cr_assert_eq(poll(&entry, 1, 0), 0);
}

Test(inbox, work_counts_towards_max)
{
	make_jobs();
	for (unsigned int i = 0; i < 10; i++)
		dmcore_queue_post(stage.queue, &jobs[0][i].work);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 3, 0), 3);
	cr_assert_eq(jobs_run, 3);
	/* Later ones don't overtake what is left. */
	for (unsigned int i = 10; i < 15; i++)
		dmcore_queue_post(stage.queue, &jobs[0][i].work);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 5, 5, -1), 5);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 7, 7, -1), 7);
	cr_assert_eq(jobs_run, 15);
}

static unsigned int rounds;

static void post_again(struct dmcore_work *work)
{
	if (++rounds < 1000)
		dmcore_queue_post(stage.queue, work);
}

Test(inbox, work_may_post_itself_again)
{
	struct dmcore_work work = { .fn = post_again };

	dmcore_queue_post(stage.queue, &work);
	cr_assert_eq(rounds, 0, "not inside post");
	cr_assert_leq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 2, "poll comes back");
	while (rounds < 1000)
		cr_assert_gt(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 0);
}

/* ---- bios that another thread completes ----------------------------------------------------- */

/* A device whose bios end on a thread of its own. Its private data: */
struct ender {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct dmcore_bio *head;
	bool stop;
	pthread_t thread;
};

static void *end_bios(void *context)
{
	struct ender *ender = context;

	pthread_mutex_lock(&ender->lock);
	for (;;) {
		struct dmcore_bio *bio;

		while (!ender->head && !ender->stop)
			pthread_cond_wait(&ender->more, &ender->lock);
		bio = ender->head;
		if (!bio)
			break;
		ender->head = bio->next;
		pthread_mutex_unlock(&ender->lock);
		dmcore_bio_complete_remote(bio, bio->sector % 3 ? 0 : -EIO);
		pthread_mutex_lock(&ender->lock);
	}
	pthread_mutex_unlock(&ender->lock);
	return NULL;
}

static int remote_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	struct ender *ender = calloc(1, sizeof(*ender));

	(void)args;
	(void)flags;
	cr_assert_not_null(ender);
	pthread_mutex_init(&ender->lock, NULL);
	pthread_cond_init(&ender->more, NULL);
	cr_assert_eq(pthread_create(&ender->thread, NULL, end_bios, ender), 0);
	dmcore_bdev_set_size(bdev, 1 << 20);
	dmcore_bdev_set_private(bdev, ender);
	return 0;
}

static void remote_close(struct dmcore_bdev *bdev)
{
	struct ender *ender = dmcore_bdev_private(bdev);

	pthread_mutex_lock(&ender->lock);
	ender->stop = true;
	pthread_cond_signal(&ender->more);
	pthread_mutex_unlock(&ender->lock);
	pthread_join(ender->thread, NULL);
	pthread_cond_destroy(&ender->more);
	pthread_mutex_destroy(&ender->lock);
	free(ender);
}

static void remote_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	struct ender *ender = dmcore_bdev_private(bdev);

	pthread_mutex_lock(&ender->lock);
	bio->next = ender->head;
	ender->head = bio;
	pthread_cond_signal(&ender->more);
	pthread_mutex_unlock(&ender->lock);
}

static const struct dmcore_driver remote = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "remote",
	.open = remote_open,
	.close = remote_close,
	.submit = remote_submit,
};

Test(inbox, bios_completed_by_another_thread_end_once_on_the_owner)
{
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;
	unsigned int submitted = 0;

	cr_assert_eq(dmcore_driver_register(stage.core, &remote), 0);
	bdev = stage_bdev(&stage, "remote:", 0);
	while (tally.ended < 6000) {
		for (; submitted < 6000 && submitted - tally.ended < 64; submitted++)
			stage_submit(&stage, bdev, DMCORE_OP_READ, submitted, 1, buffer, &tally);
		cr_assert_gt(dmcore_queue_poll(stage.queue, 1, 5, STAGE_PATIENCE_NS), 0);
	}
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	cr_assert_eq(tally.ended, 6000);
	cr_assert_eq(tally.failed, 2000);
}

/* The other thread may still be inside its call when the bio is back. */
Test(inbox, a_queue_may_go_as_soon_as_its_last_bio_is_back)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct dmcore_queue *first = stage.queue;
	struct dmcore_bdev *bdev;

	cr_assert_eq(dmcore_driver_register(stage.core, &remote), 0);
	bdev = stage_bdev(&stage, "remote:", 0);
	options.backend = DMCORE_BACKEND_PREAD;
	options.bios = 4;
	options.splits = 1;
	for (unsigned int i = 0; i < 500; i++) {
		struct tally tally = { 0 };

		cr_assert_eq(dmcore_queue_create(stage.core, &options, &stage.queue), 0);
		for (unsigned int j = 0; j < 4; j++)
			stage_submit(&stage, bdev, DMCORE_OP_READ, 1, 1, buffer, &tally);
		cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
		cr_assert_eq(tally.ended, 4);
	}
	stage.queue = first;
}

/* ---- files that go away --------------------------------------------------------------------- */

struct churn {
	struct scratch scratch;
	_Atomic bool stop;
	unsigned int rounds;
};

/* Opens and closes a file while the queue of another thread is at work on one beside it. */
static void *open_and_close(void *context)
{
	struct churn *churn = context;

	while (!atomic_load(&churn->stop)) {
		struct dmcore_bdev *bdev;

		cr_assert_eq(dmcore_bdev_open(stage.core, churn->scratch.path, 0, &bdev), 0);
		cr_assert_eq(dmcore_bdev_close(bdev), 0);
		churn->rounds++;
	}
	return NULL;
}

Test(inbox, files_that_others_close_disturb_no_request)
{
	struct churn churn = { .rounds = 0 };
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct scratch scratch;
	pthread_t thread;

	scratch_create(&scratch, NULL, 1 << 20);
	scratch_create(&churn.scratch, NULL, 1 << 20);
	cr_assert_eq(pthread_create(&thread, NULL, open_and_close, &churn), 0);
	for (unsigned int i = 0; i < 2000; i++) {
		struct tally tally = { 0 };
		struct dmcore_bdev *bdev;

		/* Opened anew, it has the place of one that has just been closed. */
		cr_assert_eq(dmcore_bdev_open(stage.core, scratch.path, 0, &bdev), 0);
		for (unsigned int j = 0; j < 4; j++)
			stage_submit(&stage, bdev, DMCORE_OP_READ, j, 1, buffer, &tally);
		stage_wait(&stage, &tally, 4);
		cr_assert_eq(tally.failed, 0, "round %u: %d", i, tally.status);
		cr_assert_eq(dmcore_bdev_close(bdev), 0);
	}
	atomic_store(&churn.stop, true);
	pthread_join(thread, NULL);
	cr_assert_gt(churn.rounds, 0);
	scratch_close(&churn.scratch);
	scratch_close(&scratch);
}

static struct dmcore_bdev *other_file;
static char other_path[64];
static unsigned char other_buffer[DMCORE_SECTOR_BYTES];
static struct tally other_tally;

/* In a callback: one file is closed, the next one takes its place, and a request goes to it. */
static void swap_files(struct dmcore_bio *bio)
{
	cr_assert_eq(bio->status, 0);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_bdev_close(other_file), 0);
	cr_assert_eq(dmcore_bdev_open(stage.core, other_path, 0, &other_file), 0);
	stage_submit(&stage, other_file, DMCORE_OP_READ, 0, 1, other_buffer, &other_tally);
}

Test(inbox, a_file_may_take_the_place_of_another_in_a_callback)
{
	struct dmcore_bio *bio;
	struct scratch a;
	struct scratch b;

	scratch_create(&a, NULL, 4096);
	scratch_create(&b, NULL, 4096);
	memcpy(other_path, b.path, sizeof(b.path));
	for (unsigned int i = 0; i < 50; i++) {
		cr_assert_eq(dmcore_bdev_open(stage.core, a.path, 0, &other_file), 0);
		bio = stage_bio(&stage, other_file, DMCORE_OP_READ, 0, 1, other_buffer, NULL);
		bio->done = swap_files;
		cr_assert_eq(dmcore_bio_submit(bio), 0);
		/* The second one's file is registered and the first one's forgotten in one poll. */
		cr_assert_eq(dmcore_queue_poll(stage.queue, 2, 2, STAGE_PATIENCE_NS), 2);
		stage_wait(&stage, &other_tally, i + 1);
		cr_assert_eq(other_tally.failed, 0, "%d", other_tally.status);
		cr_assert_eq(dmcore_bdev_close(other_file), 0);
	}
	scratch_close(&a);
	scratch_close(&b);
}
