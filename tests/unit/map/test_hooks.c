/* SPDX-License-Identifier: MIT */
/* Which functions of its targets a device calls when it changes, in which order, and what they
 * may do. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"

#define SECTORS 64

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_device *device;
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];

static const char two[] = "0 32 actor 1 fault:64,id=0 0\n32 32 actor 2 fault:64,id=0 32";
static const char other[] = "0 64 actor 3 fault:64,id=0 0";

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	disk = stage_disk(&stage, 0, SECTORS, "");
	device = actor_mapped(&stage, "m", two);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(hooks, .init = set_up, .fini = tear_down);

static void expect_log(const char *expected)
{
	const char *log = actor_log();

	cr_assert_str_eq(log, expected, "%s", log);
}

/* ---- order ---- */

Test(hooks, of_a_first_resume)
{
	expect_log("ctr 1, ctr 2, preresume 1, preresume 2, resume 1, resume 2");
}

Test(hooks, of_a_suspend_and_a_resume)
{
	actor_log();
	actor_suspend(device, 0);
	expect_log("presuspend 1, presuspend 2, postsuspend 1, postsuspend 2");
	actor_resume(device);
	expect_log("preresume 1, preresume 2, resume 1, resume 2");
}

/* The flag is gone when no bio is left: postsuspend doesn't see it. */
Test(hooks, of_a_noflush_suspend_see_the_flag_until_it_is_done)
{
	actor_log();
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_log("presuspend-noflush 1, presuspend-noflush 2, postsuspend 1, postsuspend 2");
	actor_resume(device);
	actor_log();
	actor_suspend(device, 0);
	expect_log("presuspend 1, presuspend 2, postsuspend 1, postsuspend 2");
	actor_resume(device);
}

/* Assertion 27, as the kernel's ioctl has it: a second time does nothing. */
Test(hooks, second_suspend_and_second_resume_do_nothing)
{
	actor_suspend(device, 0);
	actor_log();
	actor_suspend(device, 0);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	cr_assert_eq(dmcore_device_suspend(device, 0, 0), 0);
	expect_log("");
	cr_assert(actor_info(device).suspended);
	actor_resume(device);
	actor_log();
	actor_resume(device);
	expect_log("");
	cr_assert_not(actor_info(device).suspended);
}

/* Assertion 30: the new constructor runs before the old destructor, and that one last of all. */
Test(hooks, of_a_table_that_replaces_a_running_one)
{
	actor_log();
	actor_reload(device, other);
	expect_log("ctr 3, presuspend 1, presuspend 2, postsuspend 1, postsuspend 2, preresume 3, "
		   "resume 3, dtr 1, dtr 2");
}

Test(hooks, of_a_table_that_replaces_a_suspended_one)
{
	actor_suspend(device, 0);
	actor_log();
	actor_load(device, other);
	actor_resume(device);
	expect_log("ctr 3, preresume 3, resume 3, dtr 1, dtr 2");
}

Test(hooks, of_an_inactive_table_are_not_called)
{
	actor_load(device, other);
	actor_log();
	actor_suspend(device, 0);
	expect_log("presuspend 1, presuspend 2, postsuspend 1, postsuspend 2");
	cr_assert_eq(dmcore_device_clear(device), 0);
	expect_log("dtr 3");
	actor_resume(device);
	expect_log("preresume 1, preresume 2, resume 1, resume 2");
}

Test(hooks, of_a_running_device_that_is_removed)
{
	actor_log();
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	expect_log("presuspend 1, presuspend 2, postsuspend 1, postsuspend 2, dtr 1, dtr 2");
}

Test(hooks, of_a_suspended_device_that_is_removed)
{
	actor_suspend(device, 0);
	actor_log();
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	expect_log("dtr 1, dtr 2");
}

Test(hooks, of_a_suspend_that_is_given_up)
{
	struct tally tally = { 0 };

	actors[1].map = ACTOR_KEEP;
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	actor_log();
	cr_assert_eq(dmcore_device_suspend(device, 0, 1), -ETIMEDOUT);
	expect_log("presuspend 1, presuspend 2, undo 1, undo 2");
	cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, 1), -ETIMEDOUT);
	expect_log("presuspend-noflush 1, presuspend-noflush 2, undo 1, undo 2");
	cr_assert_not(dmcore_target_noflush(actors[1].target));
	cr_assert_not(actor_info(device).suspended);
	actors[1].map = ACTOR_PASS;
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 0, 8,
			       buffer), 0);
	actor_let_go(1, 0);
	stage_wait(&stage, &tally, 1);
	actor_suspend(device, 0);
	expect_log("presuspend 1, presuspend 2, postsuspend 1, postsuspend 2");
}

/* A table that can't go live is refused before anything is stopped. */
Test(hooks, table_that_no_longer_fits_stops_nothing)
{
	struct dmcore_device *lower =
		actor_mapped(&stage, "lower", "0 64 linear fault:64,id=0 0");

	actor_load(device, "0 64 actor 3 /dev/mapper/lower 0");
	actor_reload(lower, "0 32 linear fault:64,id=0 0");
	actor_log();
	cr_assert_eq(dmcore_device_resume(device), -EINVAL);
	expect_log("");
	cr_assert_not(actor_info(device).suspended);
	cr_assert_eq(dmcore_device_clear(device), 0);
}

static struct dmcore_device *shrunk;

static void shrink_another(unsigned int nr, const char *hook)
{
	(void)nr;
	if (strcmp(hook, "postsuspend") == 0)
		actor_reload(shrunk, "0 32 linear fault:64,id=0 0");
}

Test(hooks, table_that_no_longer_fits_once_it_is_stopped_lets_the_old_one_run_on)
{
	shrunk = actor_mapped(&stage, "lower", "0 64 linear fault:64,id=0 0");
	actor_load(device, "0 64 actor 3 /dev/mapper/lower 0");
	actors[1].in_hook = shrink_another;
	cr_assert_eq(dmcore_device_resume(device), -EINVAL);
	actors[1].in_hook = NULL;
	cr_assert_str_eq(dmcore_error_message(),
			 "m: table line 1: lower too small for target: start=0, len=64, "
			 "dev_size=32");
	cr_assert_not(actor_info(device).suspended);
	cr_assert(actor_info(device).inactive_table);
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 0, 8,
			       buffer), 0);
	cr_assert_eq(dmcore_device_clear(device), 0);
}

/* ---- preresume ---- */

/* Assertion 28. */
Test(hooks, failing_preresume_leaves_it_suspended_and_can_be_tried_again)
{
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	actors[1].preresume_error = -ENOTBLK;
	actor_log();
	cr_assert_eq(dmcore_device_resume(device), -ENOTBLK);
	cr_assert_str_eq(dmcore_error_message(),
			 "m: actor: preresume failed, error = -15");
	/* The first error ends it. */
	expect_log("preresume 1");
	cr_assert(actor_info(device).suspended);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(actor_info(device).num_deferred, 1);
	actors[1].preresume_error = 0;
	actors[2].preresume_error = -EAGAIN;
	cr_assert_eq(dmcore_device_resume(device), -EAGAIN);
	expect_log("preresume 1, preresume 2");
	actors[2].preresume_error = 0;
	actor_resume(device);
	expect_log("preresume 1, preresume 2, resume 1, resume 2");
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

Test(hooks, failing_preresume_of_a_new_table_leaves_it_in_place)
{
	struct tally tally = { 0 };
	struct dmcore_device_info info;

	actors[3].preresume_error = -EIO;
	actor_load(device, other);
	actor_log();
	cr_assert_eq(dmcore_device_resume(device), -EIO);
	info = actor_info(device);
	cr_assert(info.suspended);
	cr_assert(info.live_table);
	cr_assert_not(info.inactive_table);
	cr_assert_eq(info.num_targets, 1);
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	actors[3].preresume_error = 0;
	actor_resume(device);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(actors[3].maps, 1);
	cr_assert_eq(actors[1].maps, 0);
}

Test(hooks, table_whose_preresume_fails_can_be_replaced)
{
	actor_suspend(device, 0);
	actors[1].preresume_error = -EIO;
	cr_assert_eq(dmcore_device_resume(device), -EIO);
	actor_reload(device, other);
	cr_assert_not(actor_info(device).suspended);
}

Test(hooks, first_resume_may_fail_and_be_tried_again)
{
	struct dmcore_device *fresh = actor_device(&stage, "fresh");

	actors[4].preresume_error = -ENODATA;
	actor_load(fresh, "0 8 actor 4");
	cr_assert_eq(dmcore_device_resume(fresh), -ENODATA);
	cr_assert(actor_info(fresh).suspended);
	actors[4].preresume_error = 0;
	actor_resume(fresh);
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(fresh), DMCORE_OP_READ, 0, 0, 8, buffer),
		     0);
}

/* ---- what they may do ---- */

static _Atomic unsigned int helped;

/* Control calls of all kinds, on this device and on others. */
static void *do_control_calls(void *context)
{
	struct dmcore_device *passing;
	char text[256];

	(void)context;
	if (device) {
		actor_require(dmcore_device_find(stage.core, "m") == device);
		actor_require(actor_info(device).changing);
		actor_require(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text,
						 sizeof(text)) > 0);
		actor_require(dmcore_device_message(device, 0, "hello", text, sizeof(text)) > 0);
	}
	actor_require(dmcore_device_create_concise(stage.core, "p,,,rw,0 8 zero", 0, &passing) ==
		      0);
	actor_require(dmcore_device_suspend(passing, 0, -1) == 0);
	actor_require(dmcore_device_remove(passing) == 0);
	return NULL;
}

static void have_others_call(unsigned int nr, const char *hook)
{
	pthread_t thread;

	(void)nr;
	if (strcmp(hook, "message") == 0 || strcmp(hook, "ctr") == 0 || strcmp(hook, "dtr") == 0)
		return;
	cr_assert_eq(pthread_create(&thread, NULL, do_control_calls, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	helped++;
}

Test(hooks, other_threads_may_call_meanwhile)
{
	actors[1].in_hook = have_others_call;
	actor_suspend(device, 0);
	actor_resume(device);
	cr_assert_eq(helped, 4);
	actors[3].in_hook = have_others_call;
	actor_reload(device, other);
	cr_assert_eq(helped, 8);
	actors[3].in_hook = NULL;
}

Test(hooks, other_threads_may_call_while_a_suspend_is_given_up)
{
	struct tally tally = { 0 };

	actors[1].map = ACTOR_KEEP;
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	actors[1].in_hook = have_others_call;
	cr_assert_eq(dmcore_device_suspend(device, 0, 1), -ETIMEDOUT);
	cr_assert_eq(helped, 2);
	actor_let_go(1, 0);
	stage_wait(&stage, &tally, 1);
	actors[1].in_hook = NULL;
}

Test(hooks, other_threads_may_call_while_it_is_removed)
{
	struct dmcore_device *gone = device;

	actors[1].in_hook = have_others_call;
	actor_forget(&stage, gone);
	device = NULL;
	cr_assert_eq(dmcore_device_remove(gone), 0);
	cr_assert_eq(helped, 2);
}

static struct dmcore_bdev *below;
static _Atomic unsigned int num_reads;

static void read_below(unsigned int nr, const char *hook)
{
	unsigned char sector[DMCORE_SECTOR_BYTES];

	(void)nr;
	if (strcmp(hook, "ctr") == 0 || strcmp(hook, "dtr") == 0)
		return;
	cr_assert_geq(dmcore_pread(below, sector, sizeof(sector), 0), 0, "%s", hook);
	/* What is above still passes until presuspend has returned. */
	if (strcmp(hook, "presuspend") == 0)
		cr_assert_geq(dmcore_pread(dmcore_device_bdev(device), sector, sizeof(sector), 0),
			      0);
	num_reads++;
}

Test(hooks, may_do_io_to_the_devices_below)
{
	below = stage.bdevs[0];
	actors[1].in_hook = read_below;
	actor_suspend(device, 0);
	actor_resume(device);
	cr_assert_eq(num_reads, 4);
	cr_assert_eq(fault_count(disk, FAULT_READ), 5);
	actors[1].in_hook = NULL;
}

/* An event that a hook raises is none of the control lock's business. */
static void raise_event(unsigned int nr, const char *hook)
{
	if (strcmp(hook, "ctr") != 0 && strcmp(hook, "dtr") != 0)
		dmcore_target_event(actors[nr].target);
}

Test(hooks, may_raise_events)
{
	actors[1].in_hook = raise_event;
	actor_suspend(device, 0);
	actor_resume(device);
	cr_assert_eq(dmcore_device_event_nr(device), 4);
	actors[1].in_hook = NULL;
}

static unsigned int num_refused;

static void change_the_device_itself(unsigned int nr, const char *hook)
{
	(void)nr;
	if (strcmp(hook, "ctr") == 0 || strcmp(hook, "dtr") == 0)
		return;
	num_refused += dmcore_device_suspend(device, 0, -1) == -EDEADLK;
	num_refused += dmcore_device_resume(device) == -EDEADLK;
	num_refused += dmcore_device_remove(device) == -EBUSY;
}

Test(hooks, can_not_change_the_device_that_calls_them)
{
	actors[1].in_hook = change_the_device_itself;
	actor_suspend(device, 0);
	actor_resume(device);
	cr_assert_eq(num_refused, 4 * 3);
	actors[1].in_hook = NULL;
}
