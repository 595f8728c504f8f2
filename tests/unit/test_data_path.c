/* SPDX-License-Identifier: MIT */
/*
 * After the first requests nothing on the way of a request takes memory or a lock: the C library's
 * functions for both are replaced here by such that count.
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/syscall.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define REQUESTS 100000u
#define WARM_UP 2000u
#define AT_ONCE 16u
#define SECTORS 8192u

/* ---- the functions that count --------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS 0 /* a sanitizer has replaced them already */
#else
#define COUNTS 1
#endif

static _Thread_local bool counting;
static _Thread_local unsigned int allocations;
static _Thread_local unsigned int locks;
static _Thread_local const char *last_call;

#if COUNTS

/* What the C library's own names stand for. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);
extern void __libc_free(void *memory);

/* Not declared by any header in this form. */
void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);

static void count_allocation(const char *name)
{
	if (counting) {
		allocations++;
		last_call = name;
	}
}

static void count_lock(const char *name)
{
	if (counting) {
		locks++;
		last_call = name;
	}
}

void *malloc(size_t bytes)
{
	count_allocation("malloc");
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	count_allocation("calloc");
	return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
	count_allocation("realloc");
	return __libc_realloc(memory, bytes);
}

void free(void *memory)
{
	count_allocation("free");
	__libc_free(memory);
}

void *aligned_alloc(size_t align, size_t bytes)
{
	count_allocation("aligned_alloc");
	return __libc_memalign(align, bytes);
}

int posix_memalign(void **result, size_t align, size_t bytes)
{
	count_allocation("posix_memalign");
	*result = __libc_memalign(align, bytes);
	return *result ? 0 : ENOMEM;
}

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	count_allocation("mmap");
	return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

int munmap(void *address, size_t bytes)
{
	count_allocation("munmap");
	return (int)syscall(SYS_munmap, address, bytes);
}

/* Finds the function behind ours. Racing threads find the same. */
static void *next_function(void **cache, const char *name)
{
	if (!*cache)
		*cache = dlsym(RTLD_NEXT, name);
	return *cache;
}

#define COUNTED_LOCK(name, parameters, arguments)                                                  \
	int name parameters                                                                        \
	{                                                                                          \
		static void *cache;                                                                \
		int(*next) parameters = (int(*) parameters)next_function(&cache, #name);           \
                                                                                                   \
		count_lock(#name);                                                                 \
		return next arguments;                                                             \
	}

COUNTED_LOCK(pthread_mutex_lock, (pthread_mutex_t *mutex), (mutex))
COUNTED_LOCK(pthread_mutex_trylock, (pthread_mutex_t *mutex), (mutex))
COUNTED_LOCK(pthread_rwlock_rdlock, (pthread_rwlock_t *lock), (lock))
COUNTED_LOCK(pthread_rwlock_wrlock, (pthread_rwlock_t *lock), (lock))
COUNTED_LOCK(pthread_spin_lock, (pthread_spinlock_t *lock), (lock))
COUNTED_LOCK(pthread_cond_wait, (pthread_cond_t *cond, pthread_mutex_t *mutex), (cond, mutex))
COUNTED_LOCK(pthread_cond_signal, (pthread_cond_t *cond), (cond))
COUNTED_LOCK(pthread_cond_broadcast, (pthread_cond_t *cond), (cond))

#endif

/* ---- the stage ------------------------------------------------------------------------------ */

static struct stage stage;
static struct scratch scratch;
static unsigned char buffers[AT_ONCE][8 * DMCORE_SECTOR_BYTES];

static void set_up(void)
{
	if (!COUNTS)
		cr_skip("a sanitizer has functions of its own for memory and locks");
	stage_open(&stage, NULL, NULL);
	scratch_create(&scratch, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL,
		       SECTORS * DMCORE_SECTOR_BYTES);
}

static void tear_down(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

TestSuite(data_path, .init = set_up, .fini = tear_down);

static void start_counting(void)
{
	allocations = 0;
	locks = 0;
	counting = true;
}

static void stop_counting(void)
{
	counting = false;
	cr_assert_eq(allocations, 0, "%u calls to take or give memory, the last one %s",
		     allocations, last_call);
}

Test(data_path, what_counts_is_counted)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	void *volatile memory;

	start_counting();
	memory = malloc(100);
	free(memory);
	pthread_mutex_lock(&mutex);
	pthread_mutex_unlock(&mutex);
	counting = false;
	cr_assert_eq(allocations, 2);
	cr_assert_eq(locks, 1);
}

static struct dmcore_bdev *map(const char *name, const char *format)
{
	char table[512];

	snprintf(table, sizeof(table), format, scratch.path, scratch.path, scratch.path,
		 scratch.path);
	return stage_map(&stage, name, table);
}

/* ---- bios ----------------------------------------------------------------------------------- */

static unsigned int ended;
static unsigned int failed;

static void bio_done(struct dmcore_bio *bio)
{
	ended++;
	failed += bio->status != 0;
	dmcore_bio_put(bio);
}

/* Without an assertion: that would count. False: it wasn't accepted. */
static bool submit(struct dmcore_bdev *bdev, unsigned int nr, enum dmcore_op op)
{
	struct dmcore_bio *bio = dmcore_bio_get(stage.queue);

	if (!bio)
		return false;
	bio->bdev = bdev;
	bio->op = (uint8_t)op;
	bio->sector = nr * 5 % 4000;
	bio->done = bio_done;
	if (op <= DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(bio, buffers[nr % AT_ONCE], sizeof(buffers[0]));
	bio->count = 8;
	return dmcore_bio_submit(bio) == 0;
}

static enum dmcore_op op_of(unsigned int nr, bool with_ranges)
{
	if (nr % 1000 == 999)
		return DMCORE_OP_FLUSH;
	if (with_ranges && nr % 50 == 49)
		return nr % 100 == 99 ? DMCORE_OP_DISCARD : DMCORE_OP_WRITE_ZEROES;
	return nr % 3 ? DMCORE_OP_READ : DMCORE_OP_WRITE;
}

static bool run_bios(struct dmcore_bdev *bdev, unsigned int count, bool with_ranges)
{
	unsigned int submitted = 0;

	ended = 0;
	failed = 0;
	while (ended < count) {
		for (; submitted < count && submitted - ended < AT_ONCE; submitted++) {
			if (!submit(bdev, submitted, op_of(submitted, with_ranges)))
				return false;
		}
		if (dmcore_queue_poll(stage.queue, 1, UINT_MAX, STAGE_PATIENCE_NS) <= 0)
			return false;
	}
	return failed == 0;
}

static void bios_take_nothing(struct dmcore_bdev *bdev, bool with_ranges)
{
	bool fine;

	cr_assert(run_bios(bdev, WARM_UP, with_ranges));
	start_counting();
	fine = run_bios(bdev, REQUESTS, with_ranges);
	stop_counting();
	cr_assert(fine, "%u ended, %u failed", ended, failed);
	cr_assert_eq(locks, 0, "%u locks, the last one by %s", locks, last_call);
}

Test(data_path, zero_target)
{
	bios_take_nothing(stage_map(&stage, "m", "0 8192 zero"), false);
}

Test(data_path, ram_disk_and_stacks_on_it)
{
	bios_take_nothing(stage_bdev(&stage, "mem:8M,name=disk", 0), true);
	bios_take_nothing(stage_map(&stage, "low", "0 4096 linear mem:8M,name=disk 0\n"
				    "4096 4096 linear mem:8M,name=disk 8192\n"), true);
	bios_take_nothing(stage_map(&stage, "high", "0 8192 linear low 0"), true);
	bios_take_nothing(stage_map(&stage, "striped", "0 8188 striped 4 23 low 0 high 2047 "
				    "low 4094 high 6141"), true);
}

/* With a list that is looked at, and a block on it that no request meets. */
Test(data_path, dust)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "m", "0 8192 dust mem:8M,name=disk 0 4096");

	cr_assert_eq(dmcore_device_message(stage.devices[0], 0, "addbadblock 2000", NULL, 0), 0);
	cr_assert_eq(dmcore_device_message(stage.devices[0], 0, "enable", NULL, 0), 0);
	bios_take_nothing(bdev, false);
}

/* Its log is written by the service meanwhile. */
Test(data_path, log_writes)
{
	bios_take_nothing(stage_map(&stage, "m",
				    "0 8192 log-writes mem:8M,name=disk mem:256M,name=log"),
			  false);
}

Test(data_path, statistics)
{
	static const uint64_t bounds[] = { 1, 10, 100 };
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct dmcore_bdev *bdev = stage_map(&stage, "m", "0 4096 zero\n4096 4096 zero");

	cr_assert_eq(dmcore_stats_create(stage.devices[0], &options), 0);
	bios_take_nothing(bdev, false);
	options.flags = DMCORE_STATS_PRECISE;
	options.step_sectors = 100;
	options.bounds = bounds;
	options.num_bounds = 3;
	cr_assert_eq(dmcore_stats_create(stage.devices[0], &options), 1);
	bios_take_nothing(bdev, false);
}

Test(data_path, file)
{
	bios_take_nothing(stage_bdev(&stage, scratch.path, 0), false);
}

Test(data_path, linear_on_a_file)
{
	bios_take_nothing(map("m", "0 4096 linear %s 0\n4096 4096 linear %s 4096\n"), false);
}

Test(data_path, striped_on_files)
{
	bios_take_nothing(map("m", "0 8192 striped 4 4 %s 0 %s 2048 %s 4096 %s 6144\n"), true);
}

/* ---- dm-io ---------------------------------------------------------------------------------- */

static struct dmio_client *client;
static struct dmio_page_list pages[4];

static void make_client(void)
{
	cr_assert_eq(dmio_client_create(stage.queue, 64, &client), 0);
	for (unsigned int i = 0; i < 4; i++) {
		pages[i].page = buffers[i];
		pages[i].next = i < 3 ? &pages[i + 1] : NULL;
	}
}

static void dmio_done(unsigned long error, void *context)
{
	(void)context;
	ended++;
	failed += error != 0;
}

static int start_dmio(struct dmcore_bdev *bdev, unsigned int nr)
{
	struct dmio_bvec vec = { buffers[nr % AT_ONCE], sizeof(buffers[0]) };
	struct dmio_region where[2] = { { bdev, nr * 5 % 4000, 8 }, { bdev, 4096, 8 } };
	int rw = nr % 2 ? DMIO_READ : DMIO_WRITE;
	unsigned int regions = nr % 2 ? 1 : 2;

	/* The vector of a call is borrowed: one that outlives it. */
	static struct dmio_bvec vecs[AT_ONCE];

	vecs[nr % AT_ONCE] = vec;
	switch (nr % 3) {
	case 0:
		return dmio_async_vm(client, regions, where, rw, vec.base, dmio_done, NULL);
	case 1:
		return dmio_async_bvec(client, regions, where, rw, &vecs[nr % AT_ONCE], dmio_done,
				       NULL);
	default:
		return dmio_async(client, regions, where, rw, pages, 0, dmio_done, NULL);
	}
}

static bool run_async(struct dmcore_bdev *bdev, unsigned int count)
{
	unsigned int submitted = 0;

	ended = 0;
	failed = 0;
	while (ended < count) {
		for (; submitted < count && submitted - ended < AT_ONCE; submitted++) {
			int ret = start_dmio(bdev, submitted);

			if (ret == -EAGAIN)
				break;
			if (ret)
				return false;
		}
		if (dmcore_queue_poll(stage.queue, 1, UINT_MAX, STAGE_PATIENCE_NS) <= 0)
			return false;
	}
	return failed == 0;
}

static bool run_sync(struct dmcore_bdev *bdev, unsigned int count)
{
	for (unsigned int nr = 0; nr < count; nr++) {
		struct dmio_region where = { bdev, nr * 5 % 4000, 8 };
		unsigned long error_bits;

		if (dmio_sync_vm(client, 1, &where, nr % 2 ? DMIO_READ : DMIO_WRITE,
				 buffers[nr % AT_ONCE], &error_bits) || error_bits)
			return false;
		if (nr % 1000 == 0 &&
		    dmio_sync(client, 1, &where, DMIO_READ, pages, 100, &error_bits))
			return false;
	}
	return true;
}

static void dmio_takes_nothing(struct dmcore_bdev *bdev,
			       bool (*run)(struct dmcore_bdev *bdev, unsigned int count))
{
	bool fine;

	make_client();
	cr_assert(run(bdev, WARM_UP));
	start_counting();
	fine = run(bdev, REQUESTS);
	stop_counting();
	cr_assert(fine);
	cr_assert_eq(locks, 0, "%u locks, the last one by %s", locks, last_call);
	cr_assert_eq(dmio_client_destroy(client), 0);
}

Test(data_path, dmio_async_on_a_file)
{
	dmio_takes_nothing(stage_bdev(&stage, scratch.path, 0), run_async);
}

Test(data_path, dmio_async_on_stripes)
{
	dmio_takes_nothing(map("m", "0 8192 striped 4 4 %s 0 %s 2048 %s 4096 %s 6144\n"),
			   run_async);
}

Test(data_path, dmio_sync_on_a_file)
{
	dmio_takes_nothing(stage_bdev(&stage, scratch.path, 0), run_sync);
}

/* ---- plain I/O ------------------------------------------------------------------------------ */

/* Any thread may call, so there are locks; memory is only taken by the first. */
Test(data_path, plain_io_takes_no_memory)
{
	struct dmcore_bdev *bdev = stage_bdev(&stage, scratch.path, 0);
	bool fine = true;

	cr_assert_eq(dmcore_pread(bdev, buffers[0], sizeof(buffers[0]), 0), 0);
	start_counting();
	for (unsigned int nr = 0; nr < REQUESTS / 4 && fine; nr++) {
		uint64_t offset = nr * 5 % 4000 * (uint64_t)DMCORE_SECTOR_BYTES;

		fine = dmcore_pread(bdev, buffers[0], sizeof(buffers[0]), offset) == 0 &&
		       dmcore_pwrite(bdev, buffers[0], sizeof(buffers[0]), offset) == 0;
	}
	stop_counting();
	cr_assert(fine);
}
