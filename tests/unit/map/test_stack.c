/* SPDX-License-Identifier: MIT */
/* How much of a thread's stack requests through a high stack of devices take (map/submit.c). */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <sys/mman.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/stage.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEASURES 0 /* a sanitizer's frames are larger */
#define STACK_BYTES (1024u << 10)
#else
#define MEASURES 1
#define STACK_BYTES (64u << 10)
#endif
#define STACK_USED_MAX (32u << 10)
#define PAINT 0xa5
#define SECTORS 64u
#define AT_ONCE 8

static struct stage stage;

/* What a thread does; it can't assert, so it says where it went wrong. */
struct job {
	struct dmcore_bdev *bdev;
	int status;
	int line;
	unsigned int used; /* bytes of stack, at the end of its requests */
	unsigned char *stack;
	unsigned int ended;
	unsigned char memory[AT_ONCE][8 * DMCORE_SECTOR_BYTES];
};

static struct job job;

#define STEP(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			job.line = __LINE__;                                                       \
			return false;                                                              \
		}                                                                                  \
	} while (0)

static void note_end(struct dmcore_bio *bio)
{
	if (bio->status)
		job.status = bio->status;
	job.ended++;
	dmcore_bio_put(bio);
}

/* Several requests of one kind at once. */
static bool run(enum dmcore_op op, unsigned int flags)
{
	job.ended = 0;
	for (unsigned int i = 0; i < AT_ONCE; i++) {
		struct dmcore_bio *bio = dmcore_bio_get(stage.queue);

		STEP(bio);
		bio->bdev = job.bdev;
		bio->op = (uint8_t)op;
		bio->flags = (uint16_t)flags;
		bio->sector = i * 8;
		if (op <= DMCORE_OP_WRITE)
			dmcore_bio_set_buffer(bio, job.memory[i], sizeof(job.memory[i]));
		bio->count = 8;
		bio->done = note_end;
		STEP(dmcore_bio_submit(bio) == 0);
	}
	while (job.ended < AT_ONCE)
		STEP(dmcore_queue_poll(stage.queue, 1, UINT32_MAX, STAGE_PATIENCE_NS) > 0);
	STEP(job.status == 0);
	return true;
}

static bool run_all(void)
{
	for (unsigned int i = 0; i < AT_ONCE; i++)
		pattern_fill(job.memory[i], i * 8, 8, 7);
	STEP(run(DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA));
	memset(job.memory, 0, sizeof(job.memory));
	STEP(run(DMCORE_OP_READ, 0));
	for (unsigned int i = 0; i < AT_ONCE; i++)
		STEP(pattern_differs(job.memory[i], i * 8, 8, 7) < 0);
	STEP(run(DMCORE_OP_FLUSH, 0));
	STEP(run(DMCORE_OP_DISCARD, 0));
	STEP(run(DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA));
	return true;
}

static void *run_thread(void *unused)
{
	(void)unused;
	if (run_all()) {
		unsigned int left = 0;

		while (left < STACK_BYTES && job.stack[left] == PAINT)
			left++;
		job.used = STACK_BYTES - left;
	}
	/* Its owner is this thread. */
	if (dmcore_queue_destroy(stage.queue) == 0)
		stage.queue = NULL;
	return NULL;
}

static void run_on_small_stack(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	job.stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	cr_assert_neq(job.stack, MAP_FAILED);
	memset(job.stack, PAINT, STACK_BYTES);
	pthread_attr_init(&attributes);
	cr_assert_eq(pthread_attr_setstack(&attributes, job.stack, STACK_BYTES), 0);
	cr_assert_eq(pthread_create(&thread, &attributes, run_thread, NULL), 0);
	pthread_attr_destroy(&attributes);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(job.line, 0, "line %d, status %d", job.line, job.status);
	cr_assert_null(stage.queue);
	if (MEASURES)
		cr_assert_lt(job.used, STACK_USED_MAX, "%u bytes", job.used);
	munmap(job.stack, STACK_BYTES);
	stage_close(&stage);
}

/* As many devices on each other as are allowed, on the leaf `bottom`. */
static void stack_up(const char *bottom, const char *format)
{
	char below[64];
	char text[256];
	unsigned int height;

	stage_open(&stage, NULL, NULL);
	snprintf(below, sizeof(below), "%s", bottom);
	for (height = 0; height < DMCORE_STACK_DEPTH_MAX && height < STAGE_DEVICES_MAX; height++) {
		struct dmcore_table *table;

		snprintf(text, sizeof(text), format, below, below);
		if (dmcore_table_parse(stage.core, text, 0, &table))
			break;
		dmcore_table_destroy(table);
		snprintf(below, sizeof(below), "d%u", height);
		job.bdev = stage_map(&stage, below, text);
	}
	cr_assert_geq(height, 8);
	run_on_small_stack();
}

Test(stack, requests_through_64_devices_need_little_of_it)
{
	cr_assert_eq(DMCORE_STACK_DEPTH_MAX, 64);
	stack_up("mem:64s,name=leaf", "0 64 linear %s 0");
}

Test(stack, requests_split_at_every_device_need_little_of_it)
{
	stack_up("mem:64s,name=leaf", "0 33 linear %s 0\n33 31 linear %s 33");
}

Test(stack, requests_that_fan_out_below_need_little_of_it)
{
	stack_up("fault:64,id=a,caps=5,max_io=2", "0 64 linear %s 0");
}
