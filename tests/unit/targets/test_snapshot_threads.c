/* SPDX-License-Identifier: MIT */
/*
 * A snapshot and its origin, used by several threads with queues of their own while another one
 * suspends, reloads and merges them. The threads have sectors of their own, which share all chunks;
 * what a thread has written is what it reads, on either device.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"
#include "support/rng.h"
#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define PARAMS O " fault:2048,id=2 P 4"
#define SECTORS SNAPSHOTS_ORIGIN_SECTORS
#define THREADS 3u
#define ROUNDS 200u
#define DEVICES 2u

struct user {
	unsigned int index;
	pthread_t thread;
	struct dmcore_queue *queue;
	struct dmcore_bio bio;
	bool ended;
	struct rng rng;
	uint32_t versions[DEVICES][SECTORS]; /* of its own sectors */
	unsigned char data[DMCORE_SECTOR_BYTES];
};

static struct dmcore_bdev *bdevs[DEVICES]; /* snapshot, origin */
static unsigned int num_devices;           /* that the threads use */
static struct user users[THREADS];
static _Atomic bool over;
static _Atomic unsigned int num_requests;

/* ---- who reads and writes ------------------------------------------------------------------- */

static void note_end(struct dmcore_bio *bio)
{
	struct user *user = bio->context;

	user->ended = true;
}

static void run(struct user *user, struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector)
{
	struct dmcore_bio *bio = &user->bio;

	dmcore_bio_init(bio, user->queue);
	bio->bdev = bdev;
	bio->op = (uint8_t)op;
	bio->sector = sector;
	bio->done = note_end;
	bio->context = user;
	if (op != DMCORE_OP_FLUSH)
		dmcore_bio_set_buffer(bio, user->data, DMCORE_SECTOR_BYTES);
	user->ended = false;
	actor_require(dmcore_bio_submit(bio) == 0);
	while (!user->ended)
		actor_require(dmcore_queue_poll(user->queue, 1, UINT32_MAX, -1) >= 0);
	actor_require(bio->status == 0);
	atomic_fetch_add(&num_requests, 1);
}

static void use_once(struct user *user)
{
	unsigned int nr = (unsigned int)rng_below(&user->rng, num_devices);
	uint64_t sector = rng_below(&user->rng, SECTORS / THREADS) * THREADS + user->index;
	uint32_t *version = &user->versions[nr][sector];

	if (rng_one_in(&user->rng, 30)) {
		run(user, bdevs[nr], DMCORE_OP_FLUSH, 0);
	} else if (rng_one_in(&user->rng, 2)) {
		/* No sector of the two devices has the same version, but for 0. */
		*version = (*version / DEVICES + 1) * DEVICES + nr;
		pattern_fill(user->data, sector, 1, *version);
		run(user, bdevs[nr], DMCORE_OP_WRITE, sector);
	} else {
		run(user, bdevs[nr], DMCORE_OP_READ, sector);
		actor_require(pattern_differs(user->data, sector, 1, *version) < 0);
	}
}

static void *use(void *context)
{
	struct user *user = context;

	actor_require(dmcore_queue_create(snapshots.stage.core, NULL, &user->queue) == 0);
	rng_start(&user->rng, 1000 + user->index);
	while (!atomic_load(&over))
		use_once(user);
	actor_require(dmcore_queue_destroy(user->queue) == 0);
	return NULL;
}

static void start_users(unsigned int devices)
{
	num_devices = devices;
	memset(users, 0, sizeof(users));
	for (unsigned int i = 0; i < THREADS; i++) {
		users[i].index = i;
		cr_assert_eq(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
	}
}

/* Lets them do some more. */
static void let_them_work(unsigned int requests)
{
	actor_await(&num_requests, atomic_load(&num_requests) + requests);
}

static void stop_users(void)
{
	atomic_store(&over, true);
	for (unsigned int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_join(users[i].thread, NULL), 0);
}

static void expect_all(unsigned int nr)
{
	for (uint64_t sector = 0; sector < SECTORS / THREADS * THREADS; sector++)
		snapshots_expect(bdevs[nr], sector, 1,
				 users[sector % THREADS].versions[nr][sector]);
}

/* ---- who changes the tables ----------------------------------------------------------------- */

static void open_both(void)
{
	snapshots_open();
	stage_disk(&snapshots.stage, 2, 2048, "");
	bdevs[0] = snapshots_map("s", SECTORS, "snapshot " PARAMS);
	bdevs[1] = snapshots_map("o", SECTORS, "snapshot-origin " O);
}

TestSuite(snapshot_threads, .init = open_both, .fini = snapshots_close);

Test(snapshot_threads, see_what_they_wrote_while_tables_are_replaced)
{
	start_users(2);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		let_them_work(20);
		if (i % 3 == 0) {
			snapshots_reload("s", SECTORS, "snapshot " PARAMS);
		} else if (i % 3 == 1) {
			snapshots_suspend("o");
			cr_assert_eq(snapshots_resume("o"), 0);
		} else {
			snapshots_suspend("s");
			cr_assert_eq(snapshots_resume("s"), 0);
		}
	}
	stop_users();
	expect_all(0);
	expect_all(1);
	snapshots_remove("s");
	bdevs[0] = snapshots_map("s", SECTORS, "snapshot " PARAMS);
	expect_all(0);
}

Test(snapshot_threads, see_what_they_wrote_while_it_is_merged_and_is_a_snapshot_again)
{
	start_users(1);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		let_them_work(20);
		snapshots_reload("s", SECTORS, "snapshot-merge " PARAMS);
		let_them_work(20);
		if (i % 4 == 0)
			snapshots_reload("s", SECTORS, "snapshot-merge " PARAMS);
		snapshots_reload("s", SECTORS, "snapshot " PARAMS);
	}
	stop_users();
	expect_all(0);
	snapshots_reload("s", SECTORS, "snapshot-merge " PARAMS);
	snapshots_await_status("s", "8/2048 8");
	expect_all(0);
	snapshots_remove("s");
	bdevs[0] = bdevs[1];
	expect_all(0);
}
