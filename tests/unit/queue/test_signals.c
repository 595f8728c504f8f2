/* SPDX-License-Identifier: MIT */
/* Signals: they end a wait, and neither lose nor double a request. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define SECTORS 4096
#define REQUESTS 30000
#define AT_ONCE 32
#define MS INT64_C(1000000)

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file;
static timer_t timer;
static volatile sig_atomic_t alarms;

static void open_with(const struct dmcore_queue_options *options)
{
	stage_open(&stage, NULL, options);
	scratch_create(&scratch, NULL, SECTORS * DMCORE_SECTOR_BYTES);
	file = stage_bdev(&stage, scratch.path, 0);
}

static void set_up(void)
{
	open_with(NULL);
}

static void tear_down(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

TestSuite(signals, .init = set_up, .fini = tear_down);

static void on_alarm(int signal)
{
	(void)signal;
	alarms++;
}

/* A timer of our own, for the test's runner may have the process's. interval_ns 0: once. */
static void start_alarms(int64_t first_ns, int64_t interval_ns)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec when = {
		.it_value = { .tv_sec = first_ns / 1000000000, .tv_nsec = first_ns % 1000000000 },
		.it_interval = { .tv_nsec = interval_ns },
	};

	alarms = 0;
	cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
	cr_assert_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	cr_assert_eq(timer_settime(timer, 0, &when, NULL), 0);
}

static void stop_alarms(void)
{
	timer_delete(timer);
}

Test(signals, end_a_wait_for_nothing)
{
	/* The first wait of a queue, and later ones. */
	for (unsigned int i = 0; i < 3; i++) {
		start_alarms(30 * MS, 0);
		cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), -EINTR,
			     "wait %u", i);
		cr_assert_eq(alarms, 1);
		stop_alarms();
	}
	start_alarms(30 * MS, 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, -1), -EINTR);
	stop_alarms();
}

Test(signals, leave_what_has_run_to_be_told)
{
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };

	start_alarms(30 * MS, 0);
	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, buffer, &tally);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 2, 2, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(alarms, 1);
	stop_alarms();
}

/* Each request counts its own completions. */
struct request {
	struct dmcore_bio bio;
	unsigned char data[DMCORE_SECTOR_BYTES];
	unsigned int ends;
	unsigned int nr;
};

static struct request *requests;
static unsigned int ended;

static void request_done(struct dmcore_bio *bio)
{
	struct request *request = bio->context;

	cr_assert_eq(bio->status, 0, "request %u: %d", request->nr, bio->status);
	request->ends++;
	ended++;
}

static void submit_request(struct request *request, unsigned int nr)
{
	struct dmcore_bio *bio = &request->bio;

	request->nr = nr;
	request->ends = 0;
	dmcore_bio_init(bio, stage.queue);
	bio->bdev = file;
	bio->op = DMCORE_OP_WRITE;
	bio->sector = nr % SECTORS;
	bio->done = request_done;
	bio->context = request;
	pattern_fill(request->data, bio->sector, 1, nr / SECTORS);
	dmcore_bio_set_buffer(bio, request->data, sizeof(request->data));
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

/* Batches of writes, each waited for, under thousands of signals a second. */
static void run_in_a_storm(void)
{
	unsigned char found[DMCORE_SECTOR_BYTES];
	unsigned int interrupted = 0;

	requests = calloc(AT_ONCE, sizeof(*requests));
	cr_assert_not_null(requests);
	start_alarms(MS / 5, MS / 5);
	for (unsigned int first = 0; first < REQUESTS; first += AT_ONCE) {
		ended = 0;
		for (unsigned int i = 0; i < AT_ONCE; i++)
			submit_request(&requests[i], first + i);
		while (ended < AT_ONCE) {
			int ret = dmcore_queue_poll(stage.queue, 1, 5, STAGE_PATIENCE_NS);

			cr_assert(ret > 0 || ret == -EINTR, "%d", ret);
			interrupted += ret == -EINTR;
		}
		for (unsigned int i = 0; i < AT_ONCE; i++)
			cr_assert_eq(requests[i].ends, 1, "request %u", first + i);
	}
	stop_alarms();
	cr_assert_gt(alarms, 10, "hardly a storm");
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	free(requests);
	for (unsigned int sector = 0; sector < SECTORS; sector++) {
		/* The last request that wrote it. */
		unsigned int last = REQUESTS / AT_ONCE * AT_ONCE + AT_ONCE - 1;
		unsigned int version = last / SECTORS - (sector > last % SECTORS);

		cr_assert_eq(dmcore_pread(file, found, sizeof(found),
					  (uint64_t)sector * DMCORE_SECTOR_BYTES), 0);
		cr_assert_eq(pattern_differs(found, sector, 1, version), -1, "sector %u", sector);
	}
	cr_log_info("%d signals, %u waits interrupted", (int)alarms, interrupted);
}

Test(signals, in_a_storm_lose_and_double_nothing)
{
	run_in_a_storm();
}

Test(signals_options, in_a_storm_lose_and_double_nothing_with_workers, .fini = tear_down)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.backend = DMCORE_BACKEND_PREAD;
	options.workers = 2;
	open_with(&options);
	run_in_a_storm();
}

Test(signals, in_a_storm_leave_plain_io_whole)
{
	unsigned char buffer[8 * DMCORE_SECTOR_BYTES];

	start_alarms(MS / 5, MS / 5);
	for (unsigned int i = 0; i < 3000; i++) {
		uint64_t sector = i * 8 % SECTORS;

		pattern_fill(buffer, sector, 8, i);
		cr_assert_eq(dmcore_pwrite(file, buffer, sizeof(buffer),
					   sector * DMCORE_SECTOR_BYTES), 0,
			     "round %u: %s", i, dmcore_error_message());
		if (i % 100 == 0)
			cr_assert_eq(dmcore_flush(file), 0);
		memset(buffer, 0, sizeof(buffer));
		cr_assert_eq(dmcore_pread(file, buffer, sizeof(buffer),
					  sector * DMCORE_SECTOR_BYTES), 0);
		cr_assert_eq(pattern_differs(buffer, sector, 8, i), -1);
	}
	stop_alarms();
}

/* A request that makes the kernel start a thread is cancelled when a signal comes just then. */
Test(signals, in_a_storm_cancel_no_first_request)
{
	static unsigned char sector[DMCORE_SECTOR_BYTES];

	start_alarms(MS / 20, MS / 20);
	for (unsigned int i = 0; i < 200; i++) {
		struct dmcore *core;
		struct dmcore_bdev *bdev;

		cr_assert_eq(dmcore_create(NULL, &core), 0);
		cr_assert_eq(dmcore_bdev_open(core, scratch.path, 0, &bdev), 0);
		cr_assert_eq(dmcore_pwrite(bdev, sector, sizeof(sector), 0), 0, "round %u: %s", i,
			     dmcore_error_message());
		cr_assert_eq(dmcore_flush(bdev), 0, "round %u: %s", i, dmcore_error_message());
		cr_assert_eq(dmcore_bdev_close(bdev), 0);
		cr_assert_eq(dmcore_destroy(core), 0);
	}
	stop_alarms();
}
