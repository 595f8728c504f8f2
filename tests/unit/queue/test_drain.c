/* SPDX-License-Identifier: MIT */
/* Waiting for bios to leave a device (queue/drain.c), with membarrier() and without. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <criterion/criterion.h>

#include "map/map.h"
#include "queue/drain.h"
#include "support/actor.h"

#define SECTORS 64
#define NUM_THREADS 3
#define NUM_SWAPS 60

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_device *device;
static bool forbidden;

/* For this process alone: each test is one. */
static bool forbid_membarrier(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	disk = stage_disk(&stage, 0, SECTORS, "");
	device = actor_mapped(&stage, "m", "0 64 linear fault:64,id=0 0");
}

static void set_up_forbidden(void)
{
	forbidden = forbid_membarrier();
	set_up();
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(drain, .init = set_up, .fini = tear_down);
TestSuite(fenced, .init = set_up_forbidden, .fini = tear_down);

static uint32_t slot(void)
{
	return dmcore_device_bdev(device)->slot;
}

static int wait_until(uint64_t deadline_ns)
{
	int ret;

	dmcore__lock(stage.core);
	ret = dmcore__drain_wait(stage.core, slot(), deadline_ns);
	dmcore__unlock(stage.core);
	return ret;
}

/* ---- one thread ---- */

Test(drain, of_what_is_empty_needs_no_time)
{
	cr_assert_eq(wait_until(0), 0);
	cr_assert_eq(wait_until(DMCORE__NO_DEADLINE), 0);
}

Test(drain, runs_the_callers_queues)
{
	static unsigned char bytes[512];
	struct tally tally = { 0 };

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_READ, 0, 1, bytes, &tally);
	fault_release_all(disk);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(wait_until(DMCORE__NO_DEADLINE), 0);
	cr_assert_eq(tally.ended, 1);
}

Test(drain, ends_at_the_deadline)
{
	static unsigned char bytes[512];
	struct tally tally = { 0 };
	uint64_t inside;

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_READ, 0, 1, bytes, &tally);
	cr_assert_eq(wait_until(0), -ETIMEDOUT);
	cr_assert_eq(wait_until(dmcore__now_ns(stage.core) + 5000000), -ETIMEDOUT);
	dmcore__lock(stage.core);
	inside = dmcore__slot_inflight(stage.core, slot());
	dmcore__unlock(stage.core);
	cr_assert_eq(inside, 1);
	fault_release_all(disk);
	cr_assert_eq(wait_until(DMCORE__NO_DEADLINE), 0);
	cr_assert_eq(tally.ended, 1);
}

static int seen;

static void look(struct dmcore_bio *bio)
{
	seen = dmcore__drain_in_callback(stage.core);
	tally_done(bio);
}

Test(drain, knows_whether_it_is_inside_a_completion)
{
	static unsigned char bytes[512];
	struct tally tally = { 0 };
	struct dmcore_bio *bio = stage_bio(&stage, dmcore_device_bdev(device), DMCORE_OP_READ, 0,
					   1, bytes, &tally);

	cr_assert_not(dmcore__drain_in_callback(stage.core));
	bio->done = look;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_not(dmcore__drain_in_callback(stage.core));
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(seen, 1);
	cr_assert_not(dmcore__drain_in_callback(stage.core));
}

/* ---- several ---- */

static _Atomic unsigned int stop;
static _Atomic unsigned int num_writes;
static _Atomic unsigned int num_failed;

static void *write_until_stopped(void *context)
{
	unsigned char bytes[512] = { 0 };

	(void)context;
	while (!stop) {
		num_failed += dmcore_pwrite(dmcore_device_bdev(device), bytes, sizeof(bytes), 0) <
			      0;
		num_writes++;
	}
	return NULL;
}

/* Nothing reaches the disk between a suspend and a resume, and nothing is lost by either. */
static void replace_tables_under_load(void)
{
	pthread_t threads[NUM_THREADS];
	unsigned int reached;

	for (unsigned int i = 0; i < NUM_THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, write_until_stopped, NULL), 0);
	for (unsigned int i = 0; i < NUM_SWAPS; i++) {
		actor_reload(device, "0 64 actor 1 fault:64,id=0 0");
		actor_suspend(device, 0);
		/* Who comes now is inside until he has seen that he must wait. */
		cr_assert_eq(wait_until(dmcore__now_ns(stage.core) + STAGE_PATIENCE_NS), 0);
		reached = fault_count(disk, FAULT_WRITE);
		sched_yield();
		cr_assert_eq(fault_count(disk, FAULT_WRITE), reached, "one came through");
		actor_resume(device);
	}
	stop = 1;
	for (unsigned int i = 0; i < NUM_THREADS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_assert_eq(num_failed, 0);
	cr_assert_eq(fault_count(disk, FAULT_WRITE), num_writes);
}

Test(drain, lets_nothing_through_under_load)
{
	replace_tables_under_load();
}

Test(fenced, requests_are_where_membarrier_is_forbidden)
{
	if (!forbidden)
		cr_skip("this system does not let it forbid");
	cr_assert(dmcore__drain_needs_fences(stage.core));
	cr_assert_eq(dmcore_device_bdev(device)->route, dmcore__map_route_fenced);
}

Test(fenced, drain_lets_nothing_through_under_load)
{
	if (!forbidden)
		cr_skip("this system does not let it forbid");
	replace_tables_under_load();
}

Test(fenced, requests_wait_and_go_on)
{
	static unsigned char bytes[512];
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 1, bytes, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	actor_resume(device);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}
