/* SPDX-License-Identifier: MIT */
/* Polling, kicking, reaping and destroying a queue: when callbacks run and what a poll returns. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define SECTORS 1024
#define MS UINT64_C(1000000)

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file; /* requests go through the backend */
static struct dmcore_bdev *mem;  /* requests are ready inside submit */
static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	scratch_create(&scratch, NULL, SECTORS * DMCORE_SECTOR_BYTES);
	file = stage_bdev(&stage, scratch.path, 0);
	mem = stage_bdev(&stage, "mem:1M", 0);
}

static void tear_down(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

TestSuite(queue, .init = set_up, .fini = tear_down);

static void submit_reads(struct dmcore_bdev *bdev, unsigned int count, struct tally *tally)
{
	for (unsigned int i = 0; i < count; i++)
		stage_submit(&stage, bdev, DMCORE_OP_READ, i, 1, buffer, tally);
}

Test(queue, runs_no_callback_inside_submit)
{
	struct dmcore_bdev *bdevs[] = { file, mem };

	for (unsigned int i = 0; i < 2; i++) {
		struct tally tally = { 0 };

		submit_reads(bdevs[i], 5, &tally);
		usleep(1000);
		cr_assert_eq(tally.ended, 0);
		stage_wait(&stage, &tally, 5);
		cr_assert_eq(tally.failed, 0);
	}
}

Test(queue, runs_no_callback_inside_kick)
{
	struct tally tally = { 0 };

	submit_reads(file, 5, &tally);
	submit_reads(mem, 5, &tally);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	usleep(1000);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	cr_assert_eq(tally.ended, 0);
	stage_wait(&stage, &tally, 10);
}

Test(queue, poll_refuses_bounds_without_sense)
{
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 0, 0), -EINVAL);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 3, 2, 0), -EINVAL);
	cr_assert_eq(dmcore_queue_poll(NULL, 0, 1, 0), -EINVAL);
	cr_assert_eq(dmcore_queue_kick(NULL), -EINVAL);
}

Test(queue, poll_runs_at_most_max)
{
	struct tally tally = { 0 };

	submit_reads(mem, 10, &tally);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 3, 0), 3);
	cr_assert_eq(tally.ended, 3);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 4, 4, -1), 4);
	cr_assert_eq(tally.ended, 7);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 3);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	cr_assert_eq(tally.ended, 10);
}

Test(queue, poll_waits_for_min)
{
	struct tally tally = { 0 };

	submit_reads(file, 32, &tally);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 32, 32, -1), 32);
	cr_assert_eq(tally.ended, 32);
}

Test(queue, poll_without_min_does_not_wait)
{
	struct fault_disk *disk = stage_disk(&stage, 0, 64, "");
	uint64_t begun = stage_now_ns();
	struct tally tally = { 0 };

	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, -1), 0);
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&stage, stage.bdevs[2], DMCORE_OP_READ, 0, 1, buffer, &tally);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, -1), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 0), 0);
	cr_assert_lt(stage_now_ns() - begun, 1000 * MS);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
}

Test(queue, poll_gives_up_after_its_time)
{
	uint64_t begun = stage_now_ns();
	struct tally tally = { 0 };
	uint64_t took;

	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, (int64_t)(20 * MS)), 0);
	took = stage_now_ns() - begun;
	cr_assert(took >= 20 * MS && took < 2000 * MS, "%llu ns", (unsigned long long)took);

	submit_reads(mem, 2, &tally);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 3, 9, (int64_t)(20 * MS)), 2);
	took = stage_now_ns() - begun;
	cr_assert(took >= 40 * MS && took < 2000 * MS, "%llu ns", (unsigned long long)took);
}

/* Also without ever waiting, and also what the kernel doesn't finish at once. */
Test(queue, poll_in_a_spin_finds_every_completion)
{
	static unsigned char page[4096] __attribute__((aligned(4096)));
	struct dmcore_bdev *bdev = file;
	struct tally tally = { 0 };
	uint64_t begun = stage_now_ns();

	/* Not every file system has direct I/O. */
	if (dmcore_bdev_open(stage.core, scratch.path, DMCORE_OPEN_DIRECT, &bdev) == 0)
		stage.bdevs[stage.num_bdevs++] = bdev;
	for (unsigned int i = 0; i < 20; i++) {
		stage_submit(&stage, bdev, DMCORE_OP_WRITE, i * 8, 8, page, &tally);
		stage_submit(&stage, file, DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	}
	while (tally.ended < 40) {
		cr_assert_geq(dmcore_queue_poll(stage.queue, 0, 64, 0), 0);
		cr_assert_lt(stage_now_ns() - begun, (uint64_t)STAGE_PATIENCE_NS);
	}
	cr_assert_eq(tally.failed, 0);
}

static int nested_result;

static void poll_inside(struct dmcore_bio *bio)
{
	nested_result = dmcore_queue_poll(bio->queue, 0, 1, 0);
	tally_done(bio);
}

Test(queue, poll_in_a_callback_is_refused)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio;

	bio = stage_bio(&stage, mem, DMCORE_OP_READ, 0, 1, buffer, &tally);
	bio->done = poll_inside;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	submit_reads(mem, 2, &tally);
	stage_wait(&stage, &tally, 3);
	cr_assert_eq(nested_result, -EDEADLK);
}

Test(queue, kick_hands_requests_to_the_backend)
{
	struct tally tally = { 0 };
	unsigned char found[DMCORE_SECTOR_BYTES];
	uint64_t begun = stage_now_ns();

	pattern_fill(buffer, 7, 1, 1);
	stage_submit(&stage, file, DMCORE_OP_WRITE, 7, 1, buffer, &tally);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	do {
		cr_assert_eq(lseek(scratch.fd, 7 * DMCORE_SECTOR_BYTES, SEEK_SET),
			     7 * DMCORE_SECTOR_BYTES);
		cr_assert_eq(read(scratch.fd, found, sizeof(found)), (ssize_t)sizeof(found));
		cr_assert_lt(stage_now_ns() - begun, (uint64_t)STAGE_PATIENCE_NS);
	} while (pattern_differs(found, 7, 1, 1) >= 0);
	cr_assert_eq(tally.ended, 0);
	stage_wait(&stage, &tally, 1);
}

Test(queue, reap_returns_what_has_no_callback_oldest_first)
{
	struct dmcore_bio *submitted[6];
	struct dmcore_bio *reaped[8];

	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped, 8), 0);
	for (unsigned int i = 0; i < 6; i++) {
		/* The fourth fails: it is behind the end. */
		uint64_t sector = i == 3 ? SECTORS * 2 : i;

		submitted[i] = stage_bio(&stage, mem, DMCORE_OP_READ, sector, 1, buffer, NULL);
		submitted[i]->done = NULL;
		cr_assert_eq(dmcore_bio_submit(submitted[i]), 0);
	}
	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped, 8), 0, "only a poll completes");
	cr_assert_eq(dmcore_queue_poll(stage.queue, 6, 6, -1), 6);
	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped, 2), 2);
	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped + 2, 6), 4);
	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped + 6, 2), 0);
	for (unsigned int i = 0; i < 6; i++) {
		cr_assert_eq(reaped[i], submitted[i]);
		cr_assert_eq(reaped[i]->status, i == 3 ? -EIO : 0);
		dmcore_bio_put(reaped[i]);
	}
}

Test(queue, what_waits_to_be_reaped_is_not_yet_the_submitter_s)
{
	struct dmcore_bio *bio = stage_bio(&stage, mem, DMCORE_OP_READ, 0, 1, buffer, NULL);
	struct dmcore_bio *reaped;

	bio->done = NULL;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, -1), 1);
	cr_assert_eq(dmcore_bio_submit(bio), -EBUSY);
	dmcore_bio_put(bio);
	cr_assert_eq(stage.num_logged, 1, "it was ignored");
	cr_assert_eq(dmcore_queue_reap(stage.queue, &reaped, 1), 1);
	cr_assert_eq(reaped, bio);
	dmcore_bio_put(bio);
	cr_assert_eq(stage.num_logged, 1);
}

static unsigned int rounds_left;

static void submit_again(struct dmcore_bio *bio)
{
	struct dmcore_bdev *bdev = bio->context;

	cr_assert_eq(bio->status, 0);
	if (rounds_left == 0) {
		dmcore_bio_put(bio);
		return;
	}
	rounds_left--;
	bio->bdev = bdev;
	bio->sector = rounds_left % SECTORS;
	dmcore_bio_set_buffer(bio, buffer, DMCORE_SECTOR_BYTES);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static void start_chain(struct dmcore_bdev *bdev, unsigned int rounds)
{
	struct dmcore_bio *bio = stage_bio(&stage, bdev, DMCORE_OP_READ, 0, 1, buffer, NULL);

	rounds_left = rounds - 1;
	bio->done = submit_again;
	bio->context = bdev;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

Test(queue, a_callback_may_submit_its_bio_again)
{
	struct dmcore_bdev *bdevs[] = { file, mem };

	for (unsigned int i = 0; i < 2; i++) {
		unsigned int ended = 0;

		start_chain(bdevs[i], 1000);
		while (ended < 1000) {
			int ret = dmcore_queue_poll(stage.queue, 1, 10, STAGE_PATIENCE_NS);

			cr_assert_gt(ret, 0);
			ended += (unsigned int)ret;
		}
		cr_assert_eq(ended, 1000);
	}
}

/* Otherwise a device that answers at once would keep the poll of its user for ever. */
Test(queue, poll_ends_though_every_callback_submits_again)
{
	start_chain(mem, UINT_MAX);
	for (unsigned int i = 0; i < 100; i++) {
		int ret = dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0);

		cr_assert(ret >= 1 && ret <= 2, "%d", ret);
	}
	rounds_left = 0;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, UINT_MAX, -1), 1);
}

Test(queue, destroy_completes_what_is_in_flight)
{
	struct tally tally = { 0 };

	submit_reads(file, 64, &tally);
	submit_reads(mem, 64, &tally);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	stage.queue = NULL;
	cr_assert_eq(tally.ended, 128);
	cr_assert_eq(tally.failed, 0);
}

Test(queue, destroy_with_bios_out_is_refused)
{
	struct dmcore_bio *bio = dmcore_bio_get(stage.queue);

	cr_assert_eq(dmcore_queue_destroy(stage.queue), -EBUSY);
	cr_assert_not_null(strstr(dmcore_error_message(), "1 bios"), "%s",
			   dmcore_error_message());
	/* The queue works as before. */
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, 1, buffer), 0);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	stage.queue = NULL;
}

Test(queue, destroy_leaves_time_to_reap)
{
	struct dmcore_bio *bios[10];

	for (unsigned int i = 0; i < 10; i++) {
		bios[i] = stage_bio(&stage, i % 2 ? file : mem, DMCORE_OP_READ, i, 1, buffer, NULL);
		bios[i]->done = NULL;
		cr_assert_eq(dmcore_bio_submit(bios[i]), 0);
	}
	cr_assert_eq(dmcore_queue_destroy(stage.queue), -EBUSY);
	cr_assert_eq(dmcore_queue_reap(stage.queue, bios, 10), 10, "they have been completed");
	for (unsigned int i = 0; i < 10; i++) {
		cr_assert_eq(bios[i]->status, 0);
		dmcore_bio_put(bios[i]);
	}
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0, "%s", dmcore_error_message());
	stage.queue = NULL;
}

static void destroy_inside(struct dmcore_bio *bio)
{
	nested_result = dmcore_queue_destroy(bio->queue);
	tally_done(bio);
}

Test(queue, destroy_in_a_callback_is_refused)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio;

	bio = stage_bio(&stage, mem, DMCORE_OP_READ, 0, 1, buffer, &tally);
	bio->done = destroy_inside;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(nested_result, -EBUSY);
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, 1, buffer), 0);
}

static unsigned int works_run;

static void count_work(struct dmcore_work *work)
{
	(void)work;
	works_run++;
}

Test(queue, destroy_runs_the_work_that_was_posted)
{
	struct dmcore_work works[3] = { { .fn = count_work }, { .fn = count_work },
					{ .fn = count_work } };

	for (unsigned int i = 0; i < 3; i++)
		dmcore_queue_post(stage.queue, &works[i]);
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	stage.queue = NULL;
	cr_assert_eq(works_run, 3);
}

Test(queue, bios_of_the_pool_run_out_and_come_back)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue *queue;
	struct dmcore_bio *bios[5];

	options.bios = 4;
	cr_assert_eq(dmcore_queue_create(stage.core, &options, &queue), 0);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_not_null(bios[i] = dmcore_bio_get(queue));
	cr_assert_null(dmcore_bio_get(queue));
	dmcore_bio_put(bios[2]);
	cr_assert_not_null(bios[2] = dmcore_bio_get(queue));
	cr_assert_null(dmcore_bio_get(queue));
	for (unsigned int i = 0; i < 4; i++)
		dmcore_bio_put(bios[i]);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
}

Test(queue, knows_its_core)
{
	cr_assert_eq(dmcore_queue_core(stage.queue), stage.core);
}

/* A caller's clock may be a simulated one that stands still: waiting is still real. */
static uint64_t stopped_clock(void *context)
{
	(void)context;
	return 12345;
}

Test(queue, poll_times_out_under_a_clock_that_stands_still)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct stage other;

	options.clock_ns = stopped_clock;
	stage_open(&other, &options, NULL);
	cr_assert_eq(dmcore_queue_poll(other.queue, 1, 1, (int64_t)(10 * MS)), 0);
	stage_close(&other);
}
