/* SPDX-License-Identifier: MIT */
/* The driver "file" when syncs and durable writes are under way at the same time. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"
#include "../../support/scratch.h"
#include "base/core.h"

#define FILE_BYTES (64u << 10)

static struct rig rig;
static struct scratch scratch;
static unsigned char data[4096] __attribute__((aligned(4096)));

#define OPENINGS_MAX 4
#define BIOS_MAX 64

/*
 * A kernel that tells of a failed write once for each opening of the file. What happens while the
 * result of a sync is on its way, as when its queue isn't polled, `meanwhile` does.
 */
static struct {
	unsigned int failures;
	struct dmcore_file *files[OPENINGS_MAX + 1];
	unsigned int told[OPENINGS_MAX + 1]; /* of so many failures */
	unsigned int num_files;              /* that were synced */
	unsigned int syncs;
	unsigned int durable_writes;
	void (*meanwhile)(void);
} kernel;

static int tell(struct dmcore_file *file)
{
	unsigned int i = 0;
	bool fails;

	while (i < kernel.num_files && kernel.files[i] != file)
		i++;
	cr_assert_leq(i, OPENINGS_MAX);
	kernel.files[i] = file;
	if (i == kernel.num_files)
		kernel.num_files++;
	fails = kernel.told[i] < kernel.failures;
	kernel.told[i] = kernel.failures;
	return fails ? -EIO : 0;
}

static int run_kernel(void *context, struct dmcore_fileio *io, int64_t *result)
{
	void (*meanwhile)(void) = kernel.meanwhile;
	bool durable = io->op == DMCORE_FILEIO_WRITE && io->flags & RWF_DSYNC;
	int error;

	(void)context;
	if (!durable && io->op != DMCORE_FILEIO_DATASYNC)
		return 0;
	kernel.syncs += !durable;
	kernel.durable_writes += durable;
	error = tell(io->file);
	*result = error || !durable ? error : (int64_t)io->len_bytes;
	kernel.meanwhile = NULL;
	if (meanwhile)
		meanwhile();
	return 1;
}

/* Queues, of which none is polled before finish(); requests that are waited for there. */
static struct dmcore_queue *queues[OPENINGS_MAX + 1];
static struct dmcore_bio *bios[BIOS_MAX];
static bool ended[BIOS_MAX];
static unsigned int num_bios;

static void set_up(void)
{
	memset(&kernel, 0, sizeof(kernel));
	num_bios = 0;
	rig_create(&rig);
	for (unsigned int i = 0; i <= OPENINGS_MAX; i++)
		cr_assert_eq(dmcore_queue_create(rig.core, NULL, &queues[i]), 0);
	scratch_create(&scratch, NULL, FILE_BYTES);
	rig_open(&rig, scratch.path, 0);
	rig.core->fault_fileio = run_kernel;
}

static void tear_down(void)
{
	for (unsigned int i = 0; i <= OPENINGS_MAX; i++)
		cr_assert_eq(dmcore_queue_destroy(queues[i]), 0);
	rig_destroy(&rig);
	scratch_close(&scratch);
}

TestSuite(file_openings, .init = set_up, .fini = tear_down);

static void start(struct dmcore_queue *queue, enum dmcore_op op, unsigned int flags)
{
	static const struct dmio_bvec vec = { .base = data, .len_bytes = 4096 };
	struct dmcore_bio *bio = dmcore_bio_get(queue);

	cr_assert_not_null(bio);
	cr_assert_lt(num_bios, BIOS_MAX);
	ended[num_bios] = false;
	bio->bdev = rig.bdev;
	bio->op = (uint8_t)op;
	bio->flags = (uint16_t)flags;
	bio->vecs = op == DMCORE_OP_WRITE ? &vec : NULL;
	bio->num_vecs = op == DMCORE_OP_WRITE;
	bio->count = op == DMCORE_OP_WRITE ? 8 : 0;
	bio->done = rig_done;
	bio->context = &ended[num_bios];
	bios[num_bios++] = bio;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

/* Waits for all, and compares how they have ended. */
static void finish(int status)
{
	for (unsigned int i = 0; i < num_bios; i++) {
		for (unsigned int polls = 0; !ended[i]; polls++) {
			cr_assert_lt(polls, 100000, "request %u never ends", i);
			for (unsigned int j = 0; j <= OPENINGS_MAX; j++)
				dmcore_queue_poll(queues[j], 0, 1000, 0);
			if (!ended[i])
				usleep(100);
		}
		cr_assert_eq(bios[i]->status, status, "request %u: %s", i,
			     dmcore_error_name(bios[i]->status));
		dmcore_bio_put(bios[i]);
	}
	num_bios = 0;
}

static void write_and_flush(void)
{
	start(queues[1], DMCORE_OP_WRITE, 0);
	while (!ended[num_bios - 1])
		dmcore_queue_poll(queues[1], 1, 1000, 1000000);
	cr_assert_eq(bios[num_bios - 1]->status, 0);
	dmcore_bio_put(bios[--num_bios]);
	start(queues[1], DMCORE_OP_FLUSH, 0);
}

static void write_durably(void)
{
	start(queues[1], DMCORE_OP_WRITE, DMCORE_BIO_FUA);
}

Test(file_openings, a_flush_is_told_of_a_failure_that_another_has_not_yet_noted)
{
	kernel.failures = 1;
	kernel.meanwhile = write_and_flush;
	start(queues[0], DMCORE_OP_FLUSH, 0);
	cr_assert_eq(kernel.syncs, 2);
	cr_assert_eq(kernel.num_files, 2);
	finish(-EIO);
}

Test(file_openings, a_durable_write_is_told_of_a_failure_that_another_has_not_yet_noted)
{
	kernel.failures = 1;
	kernel.meanwhile = write_durably;
	start(queues[0], DMCORE_OP_WRITE, DMCORE_BIO_FUA);
	finish(-EIO);
	cr_assert_eq(kernel.durable_writes, 1);
	cr_assert_eq(kernel.num_files, 2);
}

Test(file_openings, a_durable_write_beside_another_is_a_write_and_a_sync)
{
	kernel.meanwhile = write_durably;
	start(queues[0], DMCORE_OP_WRITE, DMCORE_BIO_FUA);
	finish(0);
	cr_assert_eq(kernel.durable_writes, 1);
	cr_assert_eq(kernel.syncs, 1);
	/* One by one they are what they were. */
	for (unsigned int i = 0; i < 3; i++) {
		start(queues[1], DMCORE_OP_WRITE, DMCORE_BIO_FUA);
		finish(0);
	}
	cr_assert_eq(kernel.durable_writes, 4);
	cr_assert_eq(kernel.syncs, 1);
}

/* Each flush starts the next while it is on its way, until no opening is left; then some more. */
static void flush_deeper(void)
{
	if (kernel.num_files < OPENINGS_MAX) {
		kernel.meanwhile = flush_deeper;
		start(queues[kernel.num_files], DMCORE_OP_FLUSH, 0);
		return;
	}
	for (unsigned int i = 0; i < 15; i++) {
		start(queues[OPENINGS_MAX], DMCORE_OP_FLUSH, 0);
		start(queues[OPENINGS_MAX], DMCORE_OP_WRITE, DMCORE_BIO_FUA);
	}
	for (unsigned int i = 0; i < 100; i++)
		dmcore_queue_poll(queues[OPENINGS_MAX], 0, 1000, 0);
	cr_assert_eq(kernel.syncs, OPENINGS_MAX);
	cr_assert_eq(kernel.durable_writes, 0);
}

static void flush_too_much(int status)
{
	kernel.num_files = 0;
	kernel.syncs = 0;
	memset(kernel.told, 0, sizeof(kernel.told));
	kernel.meanwhile = flush_deeper;
	start(queues[0], DMCORE_OP_FLUSH, 0);
	cr_assert_eq(kernel.num_files, OPENINGS_MAX);
	finish(status);
	cr_assert_eq(kernel.syncs, OPENINGS_MAX + 30);
}

Test(file_openings, more_syncs_than_openings_wait_for_those_before)
{
	/* Twice: all openings have come back. */
	flush_too_much(0);
	flush_too_much(0);
	kernel.failures = 1;
	flush_too_much(-EIO);
}

static void flush_from_the_other(void)
{
	start(queues[1], DMCORE_OP_FLUSH, 0);
	dmcore_queue_poll(queues[1], 0, 1000, 0);
	cr_assert_eq(kernel.syncs, 1);
}

/* Nor does opening take the program's last descriptors. */
Test(file_openings, without_descriptors_syncs_go_one_by_one)
{
	struct rlimit before;
	struct rlimit few;
	int lowest;

	rig_close(&rig);
	lowest = dup(0);
	cr_assert_geq(lowest, 0);
	close(lowest);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = (rlim_t)lowest + OPENINGS_MAX / 2;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(dup(0), lowest + 1);
	close(lowest + 1);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	kernel.failures = 1;
	kernel.meanwhile = flush_from_the_other;
	start(queues[0], DMCORE_OP_FLUSH, 0);
	finish(-EIO);
	cr_assert_eq(kernel.num_files, 1);
}

#define THREADS 3
#define ROUNDS 20
#define BATCH 12

/* Flushes and durable writes, more than there are openings; returns NULL if all went well. */
static void *sync_often(void *unused)
{
	static const struct dmio_bvec vec = { .base = data, .len_bytes = 4096 };
	struct dmcore_bio *mine[BATCH];
	struct dmcore_queue *queue;
	bool is_done[BATCH];
	void *result = NULL;

	(void)unused;
	if (dmcore_queue_create(rig.core, NULL, &queue))
		return data;
	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (unsigned int i = 0; i < BATCH; i++) {
			mine[i] = dmcore_bio_get(queue);
			is_done[i] = false;
			mine[i]->bdev = rig.bdev;
			mine[i]->op = i % 3 ? DMCORE_OP_FLUSH : DMCORE_OP_WRITE;
			mine[i]->flags = i % 3 ? 0 : DMCORE_BIO_FUA;
			mine[i]->count = i % 3 ? 0 : 8;
			mine[i]->vecs = i % 3 ? NULL : &vec;
			mine[i]->num_vecs = i % 3 ? 0 : 1;
			mine[i]->done = rig_done;
			mine[i]->context = &is_done[i];
			if (dmcore_bio_submit(mine[i]))
				result = data;
		}
		for (unsigned int i = 0; i < BATCH; i++) {
			while (!is_done[i])
				dmcore_queue_poll(queue, 1, 1000, -1);
			if (mine[i]->status)
				result = data;
			dmcore_bio_put(mine[i]);
		}
	}
	return dmcore_queue_destroy(queue) ? data : result;
}

Test(file_openings, many_syncs_of_many_threads_all_end)
{
	pthread_t threads[THREADS];
	void *result;

	rig.core->fault_fileio = NULL;
	for (unsigned int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, sync_often, NULL), 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		cr_assert_eq(pthread_join(threads[i], &result), 0);
		cr_assert_null(result);
	}
	cr_assert_eq(rig_flush(&rig), 0);
}
