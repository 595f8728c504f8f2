/* SPDX-License-Identifier: MIT */
/*
 * The memory of the log-writes target: what happens when it runs low and when there is none left,
 * that nothing is taken later, several threads at once, and a service that is polled by hand.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"
#include "support/heap.h"
#include "support/logread.h"
#include "support/stage.h"

#define SECTORS 512
#define LOG_SECTORS 65536
/* What a target of this length has: as many entries as pages. */
#define PAGES 256
#define END "m:dm-log-writes-end"

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_bdev *log_bdev;
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;
static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];

static void open_stage(unsigned int flags)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore_queue_options queue_options = DMCORE_QUEUE_OPTIONS_INIT;
	char text[128];

	options.flags = flags;
	queue_options.bios = 1024;
	heap_use(&options);
	stage_open(&stage, &options, &queue_options);
	disk = stage_disk(&stage, 1, SECTORS, "");
	stage_disk(&stage, 2, LOG_SECTORS, "");
	log_bdev = stage.bdevs[1];
	snprintf(text, sizeof(text), "0 %d log-writes %s %s", SECTORS,
		 stage_disk_spec(1, SECTORS, ""), stage_disk_spec(2, LOG_SECTORS, ""));
	bdev = stage_map(&stage, "t", text);
	device = stage.devices[0];
	pattern_fill(data, 0, SECTORS, 0);
}

static void open_threaded(void)
{
	open_stage(0);
}

static void open_manual(void)
{
	open_stage(DMCORE_SERVICE_MANUAL);
}

static void close_stage(void)
{
	stage_close(&stage);
	cr_assert_eq(heap.outstanding, 0);
}

TestSuite(log_writes_memory, .init = open_threaded, .fini = close_stage);
TestSuite(log_writes_manual, .init = open_manual, .fini = close_stage);

static void submit(enum dmcore_op op, uint64_t sector, uint64_t count, struct tally *tally)
{
	stage_submit(&stage, bdev, op, sector, op == DMCORE_OP_FLUSH ? 0 : count,
		     op <= DMCORE_OP_WRITE ? data + sector * DMCORE_SECTOR_BYTES : NULL, tally);
}

static void run(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	struct tally tally = { 0 };

	submit(op, sector, count, &tally);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

static void hold(unsigned int ops)
{
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .ops = ops });
}

/* How often a word that begins so is in the log. */
static unsigned int count_words(const char *text, const char *word)
{
	unsigned int num = 0;

	for (const char *at = text; (at = strstr(at, word)); at += strlen(word))
		num += at == text || at[-1] == ' ';
	return num;
}

static void serve(void)
{
	while (dmcore_service_poll(stage.core, 0, UINT32_MAX, 0) > 0)
		;
}

/* D-075 in docs/conformance.md. */
Test(log_writes_memory, many_writes_without_a_flush_are_all_logged_in_their_order)
{
	const char *text;
	char *expected = malloc(65536);
	size_t used = 0;

	for (unsigned int i = 0; i < 3 * PAGES; i++) {
		run(DMCORE_OP_WRITE, i % SECTORS, 1);
		used += (size_t)snprintf(expected + used, 65536 - used, "w%u ", i % SECTORS);
	}
	actor_suspend(device, 0);
	snprintf(expected + used, 65536 - used, END);
	text = logread_text(log_bdev);
	cr_assert_str_eq(text, expected);
	free(expected);
}

Test(log_writes_memory, requests_wait_for_memory_that_others_hold)
{
	struct tally tally = { 0 };
	const char *text;

	hold(0);
	for (unsigned int i = 0; i < PAGES; i++)
		submit(DMCORE_OP_WRITE, i, 1, &tally);
	stage_settle(&stage);
	cr_assert_eq(fault_num_held(disk), PAGES);
	submit(DMCORE_OP_WRITE, PAGES, 1, &tally);
	submit(DMCORE_OP_DISCARD, PAGES + 1, 1, &tally);
	submit(DMCORE_OP_FLUSH, 0, 0, &tally);
	stage_settle(&stage);
	cr_assert_eq(fault_num_held(disk), PAGES, "more than there is memory for");
	/* Reads need none. */
	fault_clear_rules(disk);
	run(DMCORE_OP_READ, 0, 1);
	fault_release_all(disk);
	stage_wait(&stage, &tally, PAGES + 3);
	cr_assert_eq(tally.failed, 0);
	actor_suspend(device, 0);
	text = logread_text(log_bdev);
	cr_assert_eq(count_words(text, "w"), PAGES + 1);
	cr_assert_eq(count_words(text, "d"), 1);
	cr_assert_eq(count_words(text, "F"), 1);
}

Test(log_writes_memory, large_write_that_waits_is_not_passed_by_small_ones)
{
	struct tally tally = { 0 };
	const char *text;

	hold(0);
	for (unsigned int i = 0; i < PAGES; i++)
		submit(DMCORE_OP_WRITE, i, 1, &tally);
	fault_clear_rules(disk);
	submit(DMCORE_OP_WRITE, 0, SECTORS, &tally);
	for (unsigned int i = 0; i < 10; i++)
		submit(DMCORE_OP_WRITE, 300 + i, 1, &tally);
	fault_release_all(disk);
	stage_wait(&stage, &tally, PAGES + 11);
	cr_assert_eq(tally.failed, 0);
	actor_suspend(device, 0);
	text = strstr(logread_text(log_bdev), "w0+512");
	cr_assert_not_null(text);
	cr_assert_eq(count_words(text, "w"), 11);
}

/* What completed behind the submission of a flush mustn't seem to be covered by it. */
Test(log_writes_memory, write_behind_a_flush_under_way_is_never_logged_before_it)
{
	struct tally writes = { 0 };
	struct tally tally = { 0 };
	const char *flush;

	run(DMCORE_OP_WRITE, 500, 1);
	hold(FAULT_FLUSH);
	submit(DMCORE_OP_FLUSH, 0, 0, &tally);
	stage_settle(&stage);
	/* More than there is memory for. */
	for (unsigned int i = 0; i < PAGES + 20; i++)
		submit(DMCORE_OP_WRITE, i, 1, &writes);
	while (writes.ended < PAGES - 2)
		cr_assert_geq(dmcore_queue_poll(stage.queue, 0, UINT32_MAX, 0), 0);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
	stage_wait(&stage, &writes, PAGES + 20);
	actor_suspend(device, 0);
	flush = strstr(logread_text(log_bdev), "F");
	cr_assert_not_null(flush);
	cr_assert_eq(count_words(flush, "w"), PAGES + 20);
	cr_assert_eq(strncmp(logread_text(log_bdev), "w500 F ", 7), 0);
}

Test(log_writes_memory, what_waits_when_the_log_fails_goes_on)
{
	struct fault_disk *log_disk = fault_disk_of(log_bdev);
	struct tally tally = { 0 };

	run(DMCORE_OP_WRITE, 0, 1);
	hold(FAULT_WRITE);
	for (unsigned int i = 0; i < PAGES + 40; i++)
		submit(DMCORE_OP_WRITE, i, 1, &tally);
	stage_settle(&stage);
	fault_add_rule(log_disk, &(struct fault_rule){ .action = FAULT_FAIL, .status = -EIO });
	fault_clear_rules(disk);
	fault_release_all(disk);
	stage_wait(&stage, &tally, PAGES + 40);
	cr_assert_eq(tally.failed, 0);
}

Test(log_writes_memory, nothing_is_allocated_once_it_runs)
{
	unsigned int outstanding;

	run(DMCORE_OP_WRITE, 0, 1);
	run(DMCORE_OP_FLUSH, 0, 0);
	outstanding = heap.outstanding;
	heap.left = 1;
	heap.for_good = true;
	for (unsigned int i = 0; i < 4 * PAGES; i++) {
		run(DMCORE_OP_WRITE, i % SECTORS, 1);
		if (i % 100 == 0)
			run(DMCORE_OP_FLUSH, 0, 0);
	}
	cr_assert_eq(heap.failed, 0);
	cr_assert_eq(heap.outstanding, outstanding);
	heap.left = 0;
	heap.for_good = false;
	actor_suspend(device, 0);
	cr_assert_eq(count_words(logread_text(log_bdev), "w"), 4 * PAGES + 1);
}

/* ---- a service that is polled by hand ---- */

Test(log_writes_manual, log_is_written_when_the_service_is_polled)
{
	run(DMCORE_OP_WRITE, 1, 1);
	run(DMCORE_OP_FLUSH, 0, 0);
	cr_assert_eq(logread_super(log_bdev).num_entries, UINT64_MAX);
	serve();
	cr_assert_eq(logread_super(log_bdev).num_entries, 0);
	cr_assert_eq(dmcore_device_message(device, 0, "mark x", NULL, 0), 0);
	cr_assert_eq(logread_super(log_bdev).num_entries, 0);
	serve();
	cr_assert_str_eq(logread_text(log_bdev), "w1 F m:x");
}

Test(log_writes_manual, suspension_writes_what_nobody_has_polled_for)
{
	run(DMCORE_OP_WRITE, 1, 1);
	run(DMCORE_OP_FLUSH, 0, 0);
	run(DMCORE_OP_WRITE, 2, 1);
	actor_suspend(device, 0);
	cr_assert_str_eq(logread_text(log_bdev), "w1 F w2 " END);
	actor_resume(device);
	run(DMCORE_OP_WRITE, 3, 1);
	run(DMCORE_OP_FLUSH, 0, 0);
	actor_suspend(device, 0);
	cr_assert_str_eq(logread_text(log_bdev), "w1 F w2 w3 F " END);
}

Test(log_writes_manual, suspension_lets_what_waits_for_memory_go_on)
{
	struct tally tally = { 0 };

	for (unsigned int i = 0; i < 2 * PAGES; i++)
		submit(DMCORE_OP_WRITE, i, 1, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, PAGES);
	actor_suspend(device, 0);
	stage_wait(&stage, &tally, 2 * PAGES);
	cr_assert_eq(count_words(logread_text(log_bdev), "w"), 2 * PAGES);
}

Test(log_writes_manual, removal_writes_what_nobody_has_polled_for)
{
	run(DMCORE_OP_WRITE, 1, 1);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_str_eq(logread_text(log_bdev), "w1 " END);
}

/* The upper one's log waits for memory of the lower one, which has its log from the service. */
Test(log_writes_manual, log_may_be_a_device_that_is_logged_itself)
{
	struct dmcore_bdev *top;
	struct dmcore_bdev *top_log;
	struct tally tally = { 0 };

	/* What is written to "t" is the log of "top". */
	top = stage_map(&stage, "top", "0 256 log-writes mem:256s t");
	for (unsigned int i = 0; i < 100; i++)
		stage_submit(&stage, top, DMCORE_OP_WRITE, i, 1,
			     data + i * DMCORE_SECTOR_BYTES, &tally);
	stage_wait(&stage, &tally, 100);
	actor_suspend(stage.devices[1], 0);
	top_log = bdev;
	cr_assert_eq(count_words(logread_text(top_log), "w"), 100);
	actor_resume(stage.devices[1]);
	serve();
	actor_suspend(stage.devices[1], 0);
	actor_suspend(device, 0);
	cr_assert_gt(count_words(logread_text(log_bdev), "w"), 2);
}

/* ---- threads ---- */

#define THREADS 3
#define ROUNDS 400

static _Atomic unsigned int num_failed;

static void *write_much(void *context)
{
	unsigned int nr = (unsigned int)(uintptr_t)context;
	struct dmcore_queue *queue;
	struct dmcore_bio *bio;

	actor_require(dmcore_queue_create(stage.core, NULL, &queue) == 0);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		bio = dmcore_bio_get(queue);
		bio->bdev = bdev;
		bio->op = i % 50 == 49 ? DMCORE_OP_FLUSH : DMCORE_OP_WRITE;
		bio->flags = i % 20 == 7 ? DMCORE_BIO_FUA : 0;
		bio->sector = nr * 100 + i % 100;
		if (bio->op == DMCORE_OP_WRITE)
			dmcore_bio_set_buffer(bio, data + bio->sector * DMCORE_SECTOR_BYTES,
					      DMCORE_SECTOR_BYTES);
		actor_require(dmcore_bio_submit(bio) == 0);
		/* Two are under way at a time. */
		if (i % 2 == 0)
			continue;
		for (unsigned int ended = 0; ended < 2;) {
			struct dmcore_bio *done[2];
			unsigned int num;

			actor_require(dmcore_queue_poll(queue, 1, 64, -1) >= 0);
			num = dmcore_queue_reap(queue, done, 2);
			for (unsigned int k = 0; k < num; k++) {
				num_failed += done[k]->status != 0;
				dmcore_bio_put(done[k]);
			}
			ended += num;
		}
	}
	actor_require(dmcore_queue_destroy(queue) == 0);
	return NULL;
}

/* Whatever their order: each is there once, and each thread's own flush behind its writes. */
Test(log_writes_memory, of_several_threads_has_every_entry_once)
{
	pthread_t threads[THREADS];
	const char *text;

	for (uintptr_t i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, write_much, (void *)i), 0);
	for (unsigned int i = 0; i < 20; i++) {
		/* It may be that there is no memory for one. */
		dmcore_device_message(device, 0, "mark x", NULL, 0);
		actor_suspend(device, 0);
		actor_resume(device);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_assert_eq(num_failed, 0);
	actor_suspend(device, 0);
	text = logread_text(log_bdev);
	cr_assert_eq(count_words(text, "w"), THREADS * (ROUNDS - ROUNDS / 50));
	cr_assert_eq(count_words(text, "wf"), THREADS * ROUNDS / 20);
	cr_assert_eq(count_words(text, "F"), THREADS * ROUNDS / 50);
	cr_assert_null(strchr(text, '?'), "an entry has other data than were written");
}
