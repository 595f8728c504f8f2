/* SPDX-License-Identifier: MIT */
/* The driver "file" on regular files: opening, sizes, content, direct I/O, limits. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"
#include "../../support/scratch.h"
#include "../../support/trace.h"

#define KIB 1024u
#define FILE_BYTES (256 * KIB)

static struct rig rig;
static struct scratch scratch;

static void set_up(void)
{
	rig_create(&rig);
	scratch_create(&scratch, NULL, FILE_BYTES);
}

static void tear_down(void)
{
	rig_destroy(&rig);
	scratch_close(&scratch);
}

TestSuite(file, .init = set_up, .fini = tear_down);

/* Opens a file in `dir` past the page cache, or skips the test. */
static void open_direct(const char *dir)
{
	int ret;

	scratch_close(&scratch);
	if (access(dir, W_OK) < 0)
		cr_skip("%s isn't writable", dir);
	scratch_create(&scratch, dir, FILE_BYTES);
	ret = dmcore_bdev_open(rig.core, scratch.path, DMCORE_OPEN_DIRECT, &rig.bdev);
	if (ret == -EINVAL)
		cr_skip("%s: %s", dir, dmcore_error_message());
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
}

/* ---- opening --------------------------------------------------------------------------------- */

static uint64_t sectors_of(uint64_t size_bytes)
{
	uint64_t sectors;

	cr_assert_eq(ftruncate(scratch.fd, (off_t)size_bytes), 0);
	rig_open(&rig, scratch.path, 0);
	sectors = dmcore_bdev_size_sectors(rig.bdev);
	rig_close(&rig);
	return sectors;
}

Test(file, size_counts_whole_sectors)
{
	cr_assert_eq(sectors_of(0), 0);
	cr_assert_eq(sectors_of(511), 0);
	cr_assert_eq(sectors_of(512), 1);
	cr_assert_eq(sectors_of(1023), 1);
	cr_assert_eq(sectors_of(UINT64_C(5) << 30), UINT64_C(5) << 21);
}

Test(file, empty_file_refuses_io)
{
	char sector[DMCORE_SECTOR_BYTES];

	cr_assert_eq(ftruncate(scratch.fd, 0), 0);
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(rig_read(&rig, 0, sector, sizeof(sector)), -EIO);
	cr_assert_eq(rig_write(&rig, 0, sector, sizeof(sector)), -EIO);
	cr_assert_eq(rig_flush(&rig), 0);
}

Test(file, opening_what_is_no_file_says_what_it_is)
{
	char dir[] = "/tmp/dmcore-XXXXXX";
	char fifo[64];

	rig_open_fails(&rig, "/no/such/file", 0, -ENOENT, "No such file or directory (ENOENT)");
	rig_open_fails(&rig, "/dev/null/x", 0, -ENOTDIR, "Not a directory (ENOTDIR)");
	rig_open_fails(&rig, "/dev/null", 0, -EINVAL,
		       "is a character device: neither a regular file nor a block device");
	rig_open_fails(&rig, "file:", 0, -ENOENT, "No such file or directory (ENOENT)");
	cr_assert_not_null(mkdtemp(dir));
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	rig_open_fails(&rig, dir, 0, -EINVAL,
		       "is a directory: neither a regular file nor a block device");
	/* Without a writer, and it doesn't wait for one. */
	rig_open_fails(&rig, fifo, DMCORE_OPEN_READ_ONLY, -EINVAL,
		       "is a FIFO: neither a regular file nor a block device");
	unlink(fifo);
	rmdir(dir);
}

Test(file, opening_without_permission_fails)
{
	char path[] = "/tmp/dmcore-XXXXXX";
	int fd = mkstemp(path);

	cr_assert(fd >= 0);
	cr_assert_eq(fchmod(fd, 0444), 0);
	close(fd);
	if (geteuid() == 0 && seteuid(65534) < 0)
		cr_skip("root can't become somebody else");
	rig_open_fails(&rig, path, 0, -EACCES, "Permission denied (EACCES)");
	rig_open(&rig, path, DMCORE_OPEN_READ_ONLY);
	rig_close(&rig);
	if (getuid() == 0)
		cr_assert_eq(seteuid(0), 0);
	unlink(path);
}

Test(file, opening_read_only_refuses_writes)
{
	char sector[DMCORE_SECTOR_BYTES] = { 1 };

	rig_open(&rig, scratch.path, DMCORE_OPEN_READ_ONLY);
	cr_assert(dmcore_bdev_is_read_only(rig.bdev));
	cr_assert_eq(rig_write(&rig, 0, sector, sizeof(sector)), -EROFS);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, 1), -EROFS);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, 1), -EROFS);
	cr_assert_eq(rig_flush(&rig), 0);
	cr_assert_eq(rig_read(&rig, 0, sector, sizeof(sector)), 0);
	cr_assert_eq(sector[0], 0);
}

Test(file, the_same_file_is_one_device_whatever_its_path)
{
	struct dmcore_bdev *again;
	struct dmcore_bdev *read_only;
	char path[64];

	rig_open(&rig, scratch.path, 0);
	snprintf(path, sizeof(path), "file:/proc/%d/fd/%d", (int)getpid(), scratch.fd);
	cr_assert_eq(dmcore_bdev_open(rig.core, path, 0, &again), 0);
	cr_assert_eq(again, rig.bdev);
	cr_assert_eq(dmcore_bdev_open(rig.core, path, DMCORE_OPEN_READ_ONLY, &read_only), 0);
	cr_assert_neq(read_only, rig.bdev);
	cr_assert_eq(dmcore_bdev_close(read_only), 0);
	cr_assert_eq(dmcore_bdev_close(again), 0);
}

Test(file, opening_it_once_more_sees_that_it_has_grown)
{
	struct dmcore_bdev *again;

	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(ftruncate(scratch.fd, 2 * FILE_BYTES), 0);
	cr_assert_eq(dmcore_bdev_size_sectors(rig.bdev), FILE_BYTES / DMCORE_SECTOR_BYTES);
	cr_assert_eq(dmcore_bdev_open(rig.core, scratch.path, 0, &again), 0);
	cr_assert_eq(again, rig.bdev);
	cr_assert_eq(dmcore_bdev_size_sectors(rig.bdev), 2 * FILE_BYTES / DMCORE_SECTOR_BYTES);
	cr_assert_eq(dmcore_bdev_close(again), 0);
}

Test(file, opening_changes_nothing_of_the_file)
{
	struct stat before;
	struct stat after;

	cr_assert_eq(fstat(scratch.fd, &before), 0);
	rig_open(&rig, scratch.path, 0);
	rig_close(&rig);
	cr_assert_eq(fstat(scratch.fd, &after), 0);
	cr_assert_eq(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)), 0);
	cr_assert_eq(before.st_blocks, after.st_blocks);
	cr_assert_eq(before.st_size, after.st_size);
}

Test(file, buffered_takes_any_memory_and_sector)
{
	struct dmcore_limits limits;

	rig_open(&rig, scratch.path, 0);
	limits = rig_limits(&rig);
	cr_assert_eq(limits.logical_block_bytes, 512);
	cr_assert_eq(limits.memory_align_bytes, 1);
	cr_assert(limits.caps & DMCORE_CAP_VOLATILE_CACHE);
	cr_assert(limits.caps & DMCORE_CAP_FUA);
	cr_assert(limits.caps & DMCORE_CAP_WRITE_ZEROES);
}

/* ---- content --------------------------------------------------------------------------------- */

Test(file, reads_back_what_random_requests_left)
{
	rig_open(&rig, scratch.path, 0);
	trace_run(&rig, scratch.fd, FILE_BYTES, 128);
}

Test(file, reads_back_what_random_requests_left_in_odd_memory)
{
	rig_open(&rig, scratch.path, 0);
	trace_run(&rig, scratch.fd, FILE_BYTES, 1);
}

Test(file, keeps_the_tail_behind_the_last_sector)
{
	static const char tail[] = "tail";
	char sector[DMCORE_SECTOR_BYTES] = { 1 };
	char copy[sizeof(tail)];

	cr_assert_eq(ftruncate(scratch.fd, 512), 0);
	cr_assert_eq(pwrite(scratch.fd, tail, sizeof(tail), 512), (ssize_t)sizeof(tail));
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(rig_write(&rig, 0, sector, sizeof(sector)), 0);
	cr_assert_eq(rig_read(&rig, 1, sector, sizeof(sector)), -EIO);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, 1), 0);
	cr_assert_eq(pread(scratch.fd, copy, sizeof(copy), 512), (ssize_t)sizeof(tail));
	cr_assert_str_eq(copy, tail);
}

Test(file, discard_frees_the_file_system_s_blocks)
{
	static char data[FILE_BYTES];
	struct stat st;
	blkcnt_t full;

	rig_open(&rig, scratch.path, 0);
	if (!(rig_limits(&rig).caps & DMCORE_CAP_DISCARD))
		cr_skip("no holes on the file system of %s", scratch_dir());
	memset(data, 1, sizeof(data));
	cr_assert_eq(rig_write(&rig, 0, data, sizeof(data)), 0);
	cr_assert_eq(rig_flush(&rig), 0);
	cr_assert_eq(fstat(scratch.fd, &st), 0);
	full = st.st_blocks;
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, FILE_BYTES / 512), 0);
	cr_assert_eq(fstat(scratch.fd, &st), 0);
	cr_assert_lt(st.st_blocks, full);
	cr_assert_eq(st.st_size, FILE_BYTES);
}

Test(file, read_of_a_file_that_has_shrunk_fails)
{
	char data[4096];

	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(ftruncate(scratch.fd, 10000), 0);
	cr_assert_eq(rig_read(&rig, 0, data, sizeof(data)), 0);
	cr_assert_eq(rig_read(&rig, 16, data, sizeof(data)), -EIO);
	cr_assert_eq(rig_read(&rig, 64, data, sizeof(data)), -EIO);
	/* A write makes it grow again. */
	cr_assert_eq(rig_write(&rig, 64, data, sizeof(data)), 0);
	cr_assert_eq(rig_read(&rig, 64, data, sizeof(data)), 0);
}

Test(file, too_little_memory_is_refused_untouched)
{
	unsigned char memory[1024];
	struct dmio_bvec vecs[2] = { { memory, 512 }, { memory + 512, 512 } };
	struct dmio_bvec hollow[3] = { vecs[0], { memory, 0 }, vecs[1] };

	rig_open(&rig, scratch.path, 0);
	memset(memory, 7, sizeof(memory));
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_READ, 0, 0, 3, vecs, 2, 0), -EFAULT);
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_READ, 0, 0, 2, vecs, 2, 1), -EFAULT);
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_WRITE, DMCORE_BIO_FUA, 0, 2, vecs, 1, 0), -EFAULT);
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_READ, 0, 0, 2, hollow, 3, 0), -EFAULT);
	for (size_t i = 0; i < sizeof(memory); i++)
		cr_assert_eq(memory[i], 7);
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_READ, 0, 0, 2, vecs, 2, 0), 0);
}

Test(file, memory_that_is_not_mapped_is_a_status)
{
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(rig_write(&rig, 0, (void *)16, 512), -EFAULT);
	cr_assert_eq(rig_write_fua(&rig, 0, (void *)16, 512), -EFAULT);
	/* Nothing was lost by that. */
	cr_assert_eq(rig_flush(&rig), 0);
}

Test(file, a_file_size_limit_is_a_status)
{
	struct rlimit limit = { 65536, 65536 };
	char data[4096] = { 0 };

	rig_open(&rig, scratch.path, 0);
	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(rig_write(&rig, 128, data, sizeof(data)), -EFBIG);
	cr_assert_eq(rig_write_fua(&rig, 128, data, sizeof(data)), -EFBIG);
	/* Half of it fits. */
	cr_assert_eq(rig_write(&rig, 124, data, sizeof(data)), -EFBIG);
	cr_assert_eq(rig_write(&rig, 0, data, sizeof(data)), 0);
	cr_assert_eq(rig_flush(&rig), 0);
}

struct worker {
	pthread_t thread;
	struct dmcore_queue *queue;
	unsigned int index;
	int status;
};

/* Writes, syncs and reads back its own part of the file, some sectors at a time. */
static void *work(void *context)
{
	enum { BYTES = FILE_BYTES / 4, RUN_BYTES = 4096 };
	struct worker *worker = context;
	unsigned char buffer[RUN_BYTES];
	struct rig own = rig;

	own.queue = worker->queue;
	own.random = worker->index;
	for (uint64_t at = 0; at < BYTES && !worker->status; at += RUN_BYTES) {
		uint64_t sector = (worker->index * BYTES + at) / DMCORE_SECTOR_BYTES;
		unsigned char copy[RUN_BYTES];

		rig_fill(&own, buffer, RUN_BYTES);
		worker->status = rig_write(&own, sector, buffer, RUN_BYTES);
		if (!worker->status)
			worker->status = rig_flush(&own);
		if (!worker->status)
			worker->status = rig_read(&own, sector, copy, RUN_BYTES);
		if (!worker->status && memcmp(buffer, copy, RUN_BYTES) != 0)
			worker->status = -EILSEQ;
	}
	return NULL;
}

static void run_threads(unsigned int workers)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct worker threads[4];

	options.workers = workers;
	rig_open(&rig, scratch.path, 0);
	for (unsigned int i = 0; i < 4; i++) {
		threads[i] = (struct worker){ .index = i };
		cr_assert_eq(dmcore_queue_create(rig.core, &options, &threads[i].queue), 0);
		cr_assert_eq(pthread_create(&threads[i].thread, NULL, work, &threads[i]), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		cr_assert_eq(pthread_join(threads[i].thread, NULL), 0);
		cr_assert_eq(threads[i].status, 0);
		cr_assert_eq(dmcore_queue_destroy(threads[i].queue), 0);
	}
}

Test(file, threads_with_their_own_queues_share_a_device)
{
	run_threads(0);
}

Test(file, threads_whose_queues_have_workers_share_a_device)
{
	run_threads(2);
}

/* ---- direct I/O ------------------------------------------------------------------------------ */

/* Memory that fits, and memory that doesn't. */
static void run_direct_trace(const char *dir, bool fits)
{
	struct dmcore_limits limits;
	size_t unit;

	open_direct(dir);
	limits = rig_limits(&rig);
	unit = limits.memory_align_bytes > limits.logical_block_bytes ? limits.memory_align_bytes
								      : limits.logical_block_bytes;
	trace_run(&rig, scratch.fd, FILE_BYTES, fits ? unit : 4);
}

Test(file, direct_io_reads_back_what_random_requests_left)
{
	run_direct_trace(scratch_dir(), true);
}

Test(file, direct_io_bounces_memory_that_does_not_fit)
{
	run_direct_trace(scratch_dir(), false);
}

Test(file, direct_io_in_shared_memory_reads_back_what_random_requests_left)
{
	run_direct_trace("/dev/shm", true);
}

Test(file, direct_io_in_shared_memory_bounces_memory_that_does_not_fit)
{
	run_direct_trace("/dev/shm", false);
}

Test(file, direct_io_counts_whole_blocks)
{
	uint32_t block;

	open_direct(scratch_dir());
	block = rig_limits(&rig).logical_block_bytes;
	rig_close(&rig);
	cr_assert_eq(ftruncate(scratch.fd, FILE_BYTES + block - 1), 0);
	rig_open(&rig, scratch.path, DMCORE_OPEN_DIRECT);
	cr_assert_eq(dmcore_bdev_size_sectors(rig.bdev), FILE_BYTES / DMCORE_SECTOR_BYTES);
}

Test(file, direct_io_of_a_file_that_has_shrunk_fails)
{
	static char data[8192];

	open_direct(scratch_dir());
	cr_assert_eq(ftruncate(scratch.fd, 100), 0);
	cr_assert_eq(rig_read(&rig, 0, data, sizeof(data)), -EIO);
	cr_assert_eq(rig_read(&rig, 64, data, sizeof(data)), -EIO);
}

Test(file, many_bounced_requests_at_once_all_end)
{
	enum { REQUESTS = 64, BYTES = FILE_BYTES / REQUESTS };
	struct dmcore_bio *bios[REQUESTS];
	static unsigned char memory[2][FILE_BYTES + 1];
	bool ended[REQUESTS];

	open_direct(scratch_dir());
	rig_fill(&rig, memory[0], sizeof(memory[0]));
	for (unsigned int pass = 0; pass < 2; pass++) {
		for (unsigned int i = 0; i < REQUESTS; i++) {
			struct dmcore_bio *bio = bios[i] = dmcore_bio_get(rig.queue);

			ended[i] = false;
			bio->bdev = rig.bdev;
			bio->op = pass == 0 ? DMCORE_OP_WRITE : DMCORE_OP_READ;
			bio->sector = i * BYTES / DMCORE_SECTOR_BYTES;
			dmcore_bio_set_buffer(bio, memory[pass] + 1 + i * BYTES, BYTES);
			bio->done = rig_done;
			bio->context = &ended[i];
			cr_assert_eq(dmcore_bio_submit(bio), 0);
		}
		for (unsigned int i = 0; i < REQUESTS; i++) {
			cr_assert_eq(rig_wait(&rig, bios[i]), 0);
			dmcore_bio_put(bios[i]);
		}
	}
	cr_assert(memcmp(memory[0] + 1, memory[1] + 1, FILE_BYTES) == 0);
}
