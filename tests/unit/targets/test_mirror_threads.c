/* SPDX-License-Identifier: MIT */
/*
 * A mirror, used by several threads with queues of their own while another one suspends it and
 * replaces its table, one more has it scrubbed and reads its status, and legs hold requests up for
 * a while. Whoever has sectors of his own reads there what he wrote last; in the end all legs hold
 * that, and so says the log. Regions are small and there are more than can be active, and most
 * requests go to a few of them that fight for the same places.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"
#include "support/rng.h"

/* 9,216 regions of 2 sectors; 18 of them share each of 512 sets of 8 places. */
#define REGION_SECTORS 2u
#define SECTORS 18432u
#define REGIONS (SECTORS / REGION_SECTORS)
#define SETS 512u
#define SETS_USED 3u
#define LEGS_MAX 3u
#define LOG_DISK LEGS_MAX
#define LOG_SECTORS 8u
#define LOG_BITS_OFFSET 1024u
#define TEXT_MAX 1024u
#define THREADS 3u
/* Requests of a thread at once. */
#define SLOTS 4u
/* Neighbouring sectors that are one owner's: a group lies in two regions, which others use too. */
#define GROUP_SECTORS 3u
#define OWNERS (THREADS * SLOTS)

/* What a sector may hold: any of these versions, and only one if it is known to have been written.
 * Each fourth version stands for zeroes. */
struct content {
	uint32_t least;
	uint32_t most;
	uint32_t last; /* that was used */
};

struct user;

/* Makes one request after the other. */
struct slot {
	struct user *user;
	unsigned int owner;
	bool busy;
	struct dmcore_bio bio;
	enum dmcore_op op;
	uint64_t sector;
	uint64_t count;
	uint32_t versions[GROUP_SECTORS];
	unsigned char data[GROUP_SECTORS * DMCORE_SECTOR_BYTES];
};

struct user {
	pthread_t thread;
	struct dmcore_queue *queue;
	struct rng rng;
	struct slot slots[SLOTS];
	unsigned int num_busy;
};

struct setting {
	unsigned int num_legs;
	bool disk;            /* the log */
	bool fails;           /* a leg now and then */
	const char *features; /* "1 handle_errors" or NULL */
};

static struct setting setting;
static struct stage stage;
static struct fault_disk *disks[LEGS_MAX + 1];
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;
static struct content contents[SECTORS]; /* each of one slot's */
static struct user users[THREADS];
static pthread_t watcher;
static pthread_t releaser;
static _Atomic bool over;
static _Atomic bool all_ended;
static _Atomic unsigned int num_requests;
static unsigned char all_data[SECTORS * DMCORE_SECTOR_BYTES];

/* ---- contents ------------------------------------------------------------------------------- */

static bool is_zeroes(uint32_t version)
{
	return version % 4 == 3;
}

static uint32_t next_version(const struct content *content, bool zeroes)
{
	uint32_t version = content->last + 1;

	if (!zeroes)
		return is_zeroes(version) ? version + 1 : version;
	while (!is_zeroes(version))
		version++;
	return version;
}

static bool is_version(const unsigned char *data, uint64_t sector, uint32_t version)
{
	if (!is_zeroes(version))
		return pattern_differs(data, sector, 1, version) < 0;
	for (unsigned int i = 0; i < DMCORE_SECTOR_BYTES; i++) {
		if (data[i] != 0)
			return false;
	}
	return true;
}

/* What two reads find is the same, unless another leg has become the first in between. */
static bool matches(struct content *content, const unsigned char *data, uint64_t sector)
{
	uint32_t version = content->most;

	while (!is_version(data, sector, version)) {
		if (version-- == content->least)
			return false;
	}
	if (!setting.features)
		content->least = content->most = version;
	return true;
}

/* ---- who reads and writes ------------------------------------------------------------------- */

/* In some set of places, regions that are further apart than there are sets. */
static uint64_t contended_region(struct rng *rng)
{
	uint64_t nr = rng_below(rng, REGIONS / SETS);

	return nr * SETS + (rng_below(rng, SETS_USED) ^ nr);
}

static uint64_t own_group(struct rng *rng, unsigned int owner)
{
	uint64_t group;

	do {
		uint64_t region = rng_one_in(rng, 4) ? rng_below(rng, REGIONS) :
						       contended_region(rng);

		group = region * REGION_SECTORS / GROUP_SECTORS;
	} while (group % OWNERS != owner);
	return group;
}

static enum dmcore_op choose_op(struct rng *rng)
{
	uint64_t choice = rng_below(rng, 30);

	if (choice == 0)
		return DMCORE_OP_FLUSH;
	if (choice == 1)
		return DMCORE_OP_DISCARD;
	if (choice == 2)
		return DMCORE_OP_WRITE_ZEROES;
	return choice % 3 == 0 ? DMCORE_OP_READ : DMCORE_OP_WRITE;
}

static void note_success(struct slot *slot)
{
	for (uint64_t i = 0; i < slot->count; i++) {
		struct content *content = &contents[slot->sector + i];
		const unsigned char *data = slot->data + i * DMCORE_SECTOR_BYTES;

		if (slot->op == DMCORE_OP_READ)
			actor_require(matches(content, data, slot->sector + i));
		else
			content->least = content->most = slot->versions[i];
	}
}

static void note_failure(struct slot *slot)
{
	int status = slot->bio.status;

	actor_require(setting.fails);
	/* A discard that was held ends as any other request. */
	actor_require(status == -EIO ||
		      (status == -EOPNOTSUPP && slot->op == DMCORE_OP_DISCARD));
	if (slot->op == DMCORE_OP_READ)
		return;
	for (uint64_t i = 0; i < slot->count; i++)
		contents[slot->sector + i].most = slot->versions[i];
}

static void note_end(struct dmcore_bio *bio)
{
	struct slot *slot = bio->context;

	if (bio->status == 0)
		note_success(slot);
	else
		note_failure(slot);
	slot->busy = false;
	slot->user->num_busy--;
	atomic_fetch_add(&num_requests, 1);
}

/* Neither a discard nor a zeroing has data. */
static void prepare_change(struct slot *slot)
{
	bool zeroes = slot->op != DMCORE_OP_WRITE;

	for (uint64_t i = 0; i < slot->count; i++) {
		struct content *content = &contents[slot->sector + i];

		content->last = slot->versions[i] = next_version(content, zeroes);
		if (!zeroes)
			pattern_fill(slot->data + i * DMCORE_SECTOR_BYTES, slot->sector + i, 1,
				     content->last);
	}
}

static void begin_request(struct slot *slot)
{
	static const uint16_t flags[] = { 0, 0, 0, DMCORE_BIO_FUA, DMCORE_BIO_PREFLUSH };
	struct user *user = slot->user;
	struct dmcore_bio *bio = &slot->bio;
	uint64_t first = rng_below(&user->rng, GROUP_SECTORS);

	slot->op = choose_op(&user->rng);
	slot->sector = own_group(&user->rng, slot->owner) * GROUP_SECTORS + first;
	slot->count = rng_between(&user->rng, 1, GROUP_SECTORS - first);
	dmcore_bio_init(bio, user->queue);
	if (slot->op == DMCORE_OP_FLUSH)
		slot->sector = slot->count = 0;
	else if (slot->op != DMCORE_OP_READ)
		prepare_change(slot);
	if (slot->op == DMCORE_OP_WRITE)
		bio->flags = flags[rng_below(&user->rng, 5)];
	bio->bdev = bdev;
	bio->op = (uint8_t)slot->op;
	bio->sector = slot->sector;
	bio->count = slot->count;
	bio->done = note_end;
	bio->context = slot;
	if (slot->op <= DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(bio, slot->data, slot->count * DMCORE_SECTOR_BYTES);
	slot->busy = true;
	user->num_busy++;
	actor_require(dmcore_bio_submit(bio) == 0);
}

static void *use(void *context)
{
	struct user *user = context;

	actor_require(dmcore_queue_create(stage.core, NULL, &user->queue) == 0);
	while (!atomic_load(&over) || user->num_busy > 0) {
		for (unsigned int i = 0; i < SLOTS && !atomic_load(&over); i++) {
			if (!user->slots[i].busy)
				begin_request(&user->slots[i]);
		}
		if (user->num_busy > 0)
			actor_require(dmcore_queue_poll(user->queue, 1, UINT32_MAX, -1) >= 0);
	}
	actor_require(dmcore_queue_destroy(user->queue) == 0);
	return NULL;
}

/* ---- who watches ---------------------------------------------------------------------------- */

static void send_message(const char *text, char *answer)
{
	int64_t ret = dmcore_device_message(device, 0, text, answer, TEXT_MAX);

	/* Another scrub is under way, or the mirror is suspended. */
	actor_require(ret >= 0 || ret == -EBUSY);
	actor_require(ret < (int64_t)TEXT_MAX);
}

static unsigned long next_number(const char **at)
{
	char *end;
	unsigned long number = strtoul(*at, &end, 10);

	actor_require(end != *at);
	*at = end;
	return number;
}

/* What the log has for in sync is the same on all legs, whenever somebody looks. */
static void require_no_difference(const char *answer)
{
	const char *at = strchr(answer, ' ');
	unsigned long num_compared;

	actor_require(strncmp(answer, "scrub ", 6) == 0);
	at = strchr(at + 1, ' ');
	actor_require(at != NULL);
	num_compared = next_number(&at);
	actor_require(next_number(&at) == REGIONS);
	actor_require(num_compared <= REGIONS);
	actor_require(next_number(&at) == 0);
}

static void *watch(void *context)
{
	static const char *const messages[] = {
		"scrub", "scrub repair", "scrub stop", "scrub status", "scrub status",
	};
	static char answer[TEXT_MAX];
	static char text[TEXT_MAX];
	struct rng rng;

	(void)context;
	rng_start(&rng, 2000);
	while (!atomic_load(&over)) {
		send_message(messages[rng_below(&rng, 5)], answer);
		send_message("scrub status", answer);
		require_no_difference(answer);
		actor_require(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text,
						 sizeof(text)) > 0);
		actor_require(strstr(text, setting.disk ? " 3 disk " : " 1 core") != NULL);
		stage_sleep_ns(500000);
	}
	return NULL;
}

/* ---- who lets go of what a leg holds -------------------------------------------------------- */

/* Makes no control call: one of those may wait for what is held. */
static void *let_go(void *context)
{
	(void)context;
	while (!atomic_load(&all_ended)) {
		for (unsigned int i = 0; i < setting.num_legs; i++)
			fault_release_all(disks[i]);
		stage_sleep_ns(300000);
	}
	return NULL;
}

/* ---- who changes the tables ----------------------------------------------------------------- */

static const char *table_text(void)
{
	static char text[TEXT_MAX];
	int at = snprintf(text, sizeof(text), "0 %u mirror %s %u %s %u %u", SECTORS,
			  setting.disk ? "disk" : "core", setting.disk ? 2u : 1u,
			  setting.disk ? stage_disk_spec(LOG_DISK, LOG_SECTORS, "") : "",
			  REGION_SECTORS, setting.num_legs);

	for (unsigned int i = 0; i < setting.num_legs; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " %s 0",
			       stage_disk_spec(i, SECTORS, ""));
	if (setting.features)
		snprintf(text + at, sizeof(text) - (size_t)at, " %s", setting.features);
	return text;
}

static void load(void)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(stage.core, table_text(), 0, &table), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s", dmcore_error_message());
}

/* Each with or without another table, and with or without a flush. */
static void change(struct rng *rng)
{
	/* With a log in memory a table that is new knows nothing of the one before. */
	if (rng_one_in(rng, setting.disk ? 2 : 6))
		load();
	actor_suspend(device, rng_one_in(rng, 2) ? DMCORE_SUSPEND_NOFLUSH : 0);
	actor_resume(device);
}

static void fail_at_random(struct rng *rng)
{
	static const unsigned int ops[] = {
		FAULT_WRITE, FAULT_WRITE, FAULT_READ, FAULT_FLUSH,
		FAULT_DISCARD | FAULT_WRITE_ZEROES, FAULT_WRITE | FAULT_READ,
	};
	static const enum fault_action actions[] = { FAULT_FAIL, FAULT_FAIL_AFTER, FAULT_TEAR };
	struct fault_rule rule = {
		.action = actions[rng_below(rng, 3)],
		.status = -EIO,
		.ops = ops[rng_below(rng, 6)],
		.skip = (unsigned int)rng_below(rng, 8),
		.times = 1 + (unsigned int)rng_below(rng, 3),
		.torn_sectors = 1,
	};

	fault_add_rule(disks[rng_below(rng, setting.num_legs)], &rule);
}

/* Some requests take a while on one leg, and are overtaken. */
static void hold_at_random(struct rng *rng)
{
	struct fault_rule rule = {
		.action = FAULT_HOLD,
		.ops = rng_one_in(rng, 4) ? 0 : FAULT_WRITE,
		.skip = (unsigned int)rng_below(rng, 8),
		.times = 1 + (unsigned int)rng_below(rng, 6),
	};

	fault_add_rule(disks[rng_below(rng, setting.num_legs)], &rule);
}

static void disturb(struct rng *rng)
{
	for (unsigned int i = 0; i < setting.num_legs; i++)
		fault_clear_rules(disks[i]);
	hold_at_random(rng);
	if (setting.fails)
		fail_at_random(rng);
}

/* Lets them do some more. Writes that a leg has failed may wait for what comes next. */
static void let_them_work(unsigned int requests)
{
	unsigned int wanted = atomic_load(&num_requests) + requests;

	if (!setting.features) {
		actor_await(&num_requests, wanted);
		return;
	}
	for (unsigned int i = 0; i < 20 && atomic_load(&num_requests) < wanted; i++)
		stage_sleep_ns(1000000);
}

static void start_users(void)
{
	for (unsigned int i = 0; i < THREADS; i++) {
		struct user *user = &users[i];

		rng_start(&user->rng, 1000 + i);
		for (unsigned int j = 0; j < SLOTS; j++) {
			user->slots[j].user = user;
			user->slots[j].owner = i * SLOTS + j;
		}
		cr_assert_eq(pthread_create(&user->thread, NULL, use, user), 0);
	}
	cr_assert_eq(pthread_create(&watcher, NULL, watch, NULL), 0);
	cr_assert_eq(pthread_create(&releaser, NULL, let_go, NULL), 0);
}

/* With a table that knows of no failed leg. */
static void stop_users(void)
{
	for (unsigned int i = 0; i < setting.num_legs; i++)
		fault_clear_rules(disks[i]);
	load();
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	actor_resume(device);
	atomic_store(&over, true);
	for (unsigned int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_join(users[i].thread, NULL), 0);
	cr_assert_eq(pthread_join(watcher, NULL), 0);
}

/* ---- what is there in the end --------------------------------------------------------------- */

static void await_in_sync(void)
{
	uint64_t until_ns = stage_now_ns() + (uint64_t)STAGE_PATIENCE_NS;
	char text[TEXT_MAX];
	char all[32];

	snprintf(all, sizeof(all), " %u/%u ", REGIONS, REGIONS);
	do {
		cr_assert_gt(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)),
			     0);
		cr_assert_lt(stage_now_ns(), until_ns, "%s", text);
		stage_sleep_ns(1000000);
	} while (!strstr(text, all));
}

static void expect_contents(void)
{
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, SECTORS, all_data), 0);
	for (uint64_t sector = 0; sector < SECTORS; sector++)
		cr_assert(matches(&contents[sector], all_data + sector * DMCORE_SECTOR_BYTES,
				  sector),
			  "sector %u is none of the versions %u to %u", (unsigned int)sector,
			  contents[sector].least, contents[sector].most);
}

static void expect_same_legs(void)
{
	for (unsigned int i = 0; i < setting.num_legs; i++)
		cr_assert_eq(memcmp(fault_data(disks[i]), all_data, sizeof(all_data)), 0,
			     "leg %u differs", i);
}

static void expect_clean_log(void)
{
	const unsigned char *log = fault_data(disks[LOG_DISK]);

	if (!setting.disk)
		return;
	for (unsigned int region = 0; region < REGIONS; region++)
		cr_assert(log[LOG_BITS_OFFSET + region / 8] >> region % 8 & 1,
			  "region %u isn't clean", region);
}

/* Legs but the first hold zeroes, and the log nothing. */
static void open_mirror(void)
{
	stage_open(&stage, NULL, NULL);
	for (unsigned int i = 0; i < setting.num_legs; i++)
		disks[i] = stage_disk(&stage, i, SECTORS, "");
	disks[LOG_DISK] = stage_disk(&stage, LOG_DISK, LOG_SECTORS, "");
	pattern_fill(fault_data(disks[0]), 0, SECTORS, 0);
	bdev = stage_map(&stage, "m", table_text());
	device = dmcore_device_find(stage.core, "m");
}

static void run_all(const struct setting *wanted)
{
	unsigned int rounds = wanted->features || rng_brief() ? 60 : 200;
	unsigned int num_acted = 0;
	struct rng rng;

	setting = *wanted;
	rng_start(&rng, 1);
	open_mirror();
	start_users();
	for (unsigned int i = 0; i < rounds; i++) {
		let_them_work(60);
		disturb(&rng);
		if (!setting.fails || rng_one_in(&rng, 3))
			change(&rng);
	}
	stop_users();
	await_in_sync();
	atomic_store(&all_ended, true);
	cr_assert_eq(pthread_join(releaser, NULL), 0);
	expect_contents();
	expect_same_legs();
	actor_suspend(device, 0);
	expect_clean_log();
	expect_same_legs();
	for (unsigned int i = 0; i < setting.num_legs; i++)
		num_acted += fault_num_failed(disks[i]);
	cr_assert_eq(num_acted > 0, setting.fails);
	actor_resume(device);
	stage_close(&stage);
}

Test(mirror_threads, see_what_they_wrote_to_2_legs_with_a_log_on_disk)
{
	run_all(&(struct setting){ .num_legs = 2, .disk = true });
}

Test(mirror_threads, see_what_they_wrote_to_3_legs_with_a_log_in_memory)
{
	run_all(&(struct setting){ .num_legs = 3 });
}

Test(mirror_threads, lose_nothing_when_a_leg_of_3_with_a_log_on_disk_fails_now_and_then)
{
	run_all(&(struct setting){ .num_legs = 3, .disk = true, .fails = true });
}

Test(mirror_threads, lose_nothing_when_a_leg_of_2_with_a_log_in_memory_fails_now_and_then)
{
	run_all(&(struct setting){ .num_legs = 2, .fails = true });
}

Test(mirror_threads, lose_nothing_when_writes_that_a_leg_failed_wait_for_another_table)
{
	run_all(&(struct setting){ .num_legs = 2, .disk = true, .fails = true,
				   .features = "1 handle_errors" });
}
