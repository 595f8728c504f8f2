/* SPDX-License-Identifier: MIT */
/* A target that does as it is told, and short ways to change devices; see actor.h. */
#include "actor.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#define LOG_BYTES 4096

struct actor actors[ACTORS_MAX];

/* Of a target. */
struct role {
	unsigned int nr;
	struct dmcore_bdev *bdev; /* or NULL */
	uint64_t start;
};

struct kept {
	pthread_mutex_t lock;
	struct dmcore_bio *bios[ACTOR_KEPT_MAX];
	unsigned int count;
};

static struct kept kept[ACTORS_MAX];
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[LOG_BYTES];
static char log_taken[LOG_BYTES];

static void note(const struct dmcore_target *target, const char *hook)
{
	const struct role *role = target->private_data;
	size_t used;

	pthread_mutex_lock(&log_lock);
	used = strlen(log_text);
	snprintf(log_text + used, sizeof(log_text) - used, "%s%s %u", used ? ", " : "", hook,
		 role->nr);
	pthread_mutex_unlock(&log_lock);
	if (actors[role->nr].in_hook)
		actors[role->nr].in_hook(role->nr, hook);
}

const char *actor_log(void)
{
	pthread_mutex_lock(&log_lock);
	memcpy(log_taken, log_text, sizeof(log_taken));
	log_text[0] = '\0';
	pthread_mutex_unlock(&log_lock);
	return log_taken;
}

/* ---- what is kept ---- */

static void keep(unsigned int nr, struct dmcore_bio *bio)
{
	struct kept *own = &kept[nr];

	pthread_mutex_lock(&own->lock);
	actor_require(own->count < ACTOR_KEPT_MAX);
	own->bios[own->count++] = bio;
	pthread_mutex_unlock(&own->lock);
}

static struct dmcore_bio *take(unsigned int nr)
{
	struct kept *own = &kept[nr];
	struct dmcore_bio *bio = NULL;

	pthread_mutex_lock(&own->lock);
	if (own->count > 0) {
		bio = own->bios[0];
		own->count--;
		memmove(own->bios, own->bios + 1, own->count * sizeof(own->bios[0]));
	}
	pthread_mutex_unlock(&own->lock);
	return bio;
}

void actor_let_go(unsigned int nr, int status)
{
	unsigned int left = actor_num_kept(nr);
	struct dmcore_bio *bio;

	while (left-- > 0 && (bio = take(nr)))
		dmcore_bio_complete_remote(bio, status);
}

unsigned int actor_num_kept(unsigned int nr)
{
	unsigned int count;

	pthread_mutex_lock(&kept[nr].lock);
	count = kept[nr].count;
	pthread_mutex_unlock(&kept[nr].lock);
	return count;
}

/* ---- the target ---- */

static int actor_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct role *role = dmcore_target_alloc(target, sizeof(*role));
	uint64_t nr;

	if (!role)
		return dmcore_args_fail(args, -ENOMEM, "no memory");
	if (dmcore_args_u64(args, 0, ACTORS_MAX - 1, "Invalid number", &nr))
		return -EINVAL;
	role->nr = (unsigned int)nr;
	if (dmcore_args_left(args) > 0 &&
	    dmcore_target_device(target, dmcore_args_next(args), &role->bdev))
		return dmcore_args_fail(args, -EINVAL, "Device lookup failed");
	if (role->bdev && dmcore_args_u64(args, 0, UINT64_MAX, "Invalid sector", &role->start))
		return -EINVAL;
	target->private_data = role;
	target->flags |= DMCORE_TARGET_DISCARDS;
	actors[nr].target = target;
	note(target, "ctr");
	return 0;
}

static void actor_dtr(struct dmcore_target *target)
{
	const struct role *role = target->private_data;
	struct dmcore_target *expected = target;

	note(target, "dtr");
	atomic_compare_exchange_strong(&actors[role->nr].target, &expected, NULL);
}

static enum dmcore_map_result actor_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct role *role = target->private_data;
	struct actor *actor = &actors[role->nr];
	int what = actor->map;

	actor->maps++;
	if (what != ACTOR_PASS && actor->map_times > 0 && --actor->map_times == 0)
		actor->map = ACTOR_PASS;
	switch (what) {
	case ACTOR_KEEP:
		keep(role->nr, bio);
		return DMCORE_MAP_SUBMITTED;
	case ACTOR_REQUEUE:
		return DMCORE_MAP_REQUEUE;
	case ACTOR_KILL:
		return DMCORE_MAP_KILL;
	default:
		break;
	}
	if (!role->bdev) {
		dmcore_bio_complete(bio, 0);
		return DMCORE_MAP_SUBMITTED;
	}
	bio->bdev = role->bdev;
	bio->sector = bio->sector - target->begin + role->start;
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_end_result actor_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					   int *status)
{
	const struct role *role = target->private_data;
	struct actor *actor = &actors[role->nr];

	(void)status;
	actor->ends++;
	if (actor->end_requeues)
		return DMCORE_END_REQUEUE;
	if (!actor->end_keeps)
		return DMCORE_END_DONE;
	keep(role->nr, bio);
	return DMCORE_END_INCOMPLETE;
}

static unsigned int actor_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	const struct role *role = target->private_data;
	unsigned int copies = actors[role->nr].copies;

	(void)op;
	return copies ? copies : 1;
}

static int actor_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct role *role = target->private_data;

	if (!role->bdev)
		return 0;
	return fn(target, role->bdev, role->start, dmcore_target_len(target), context);
}

static void actor_presuspend(struct dmcore_target *target)
{
	const struct role *role = target->private_data;

	note(target, dmcore_target_noflush(target) ? "presuspend-noflush" : "presuspend");
	if (actors[role->nr].frees_in_presuspend)
		actor_let_go(role->nr, DMCORE_STATUS_REQUEUE);
}

static void actor_presuspend_undo(struct dmcore_target *target)
{
	note(target, "undo");
}

static void actor_postsuspend(struct dmcore_target *target)
{
	note(target, dmcore_target_noflush(target) ? "postsuspend-noflush" : "postsuspend");
}

static int actor_preresume(struct dmcore_target *target)
{
	const struct role *role = target->private_data;

	note(target, "preresume");
	return actors[role->nr].preresume_error;
}

static void actor_hook_resume(struct dmcore_target *target)
{
	note(target, "resume");
}

/* Answers with its number and the words, each in brackets; `fail` fails. */
static int actor_message(struct dmcore_target *target, struct dmcore_args *args,
			 struct dmcore_text *reply)
{
	const struct role *role = target->private_data;
	const char *word = dmcore_args_next(args);

	note(target, "message");
	if (strcmp(word, "fail") == 0)
		return dmcore_args_fail(args, -EPERM, "as it was told");
	if (strcmp(word, "fail-silently") == 0)
		return -ENOSPC;
	if (strcmp(word, "quiet") == 0)
		return 0;
	dmcore_text_printf(reply, "%u:", role->nr);
	for (; word; word = dmcore_args_next(args))
		dmcore_text_printf(reply, "[%s]", word);
	return 0;
}

#define ACTOR_FIELDS                                                                               \
	.struct_size = sizeof(struct dmcore_target_type), .version = { 1, 0, 0 },                  \
	.ctr = actor_ctr, .dtr = actor_dtr, .map = actor_map, .end_io = actor_end_io,              \
	.num_bios = actor_num_bios, .iterate_devices = actor_iterate_devices,                      \
	.presuspend = actor_presuspend, .presuspend_undo = actor_presuspend_undo,                  \
	.postsuspend = actor_postsuspend, .preresume = actor_preresume,                            \
	.resume = actor_hook_resume, .message = actor_message

static const struct dmcore_target_type actor_type = {
	ACTOR_FIELDS,
	.name = "actor",
	.features = DMCORE_TARGET_TYPE_REQUEUES,
};

static const struct dmcore_target_type mute_type = {
	ACTOR_FIELDS,
	.name = "mute",
};

void actor_register(struct dmcore *core)
{
	for (unsigned int i = 0; i < ACTORS_MAX; i++)
		pthread_mutex_init(&kept[i].lock, NULL);
	cr_assert_eq(dmcore_target_register(core, &actor_type), 0);
	cr_assert_eq(dmcore_target_register(core, &mute_type), 0);
}

/* ---- devices ---- */

struct dmcore_device *actor_device(struct stage *stage, const char *name)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(stage->core, name, NULL, 0, &device), 0, "%s",
		     dmcore_error_message());
	cr_assert_lt(stage->num_devices, STAGE_DEVICES_MAX);
	stage->devices[stage->num_devices++] = device;
	return device;
}

struct dmcore_device *actor_mapped(struct stage *stage, const char *name, const char *text)
{
	stage_map(stage, name, text);
	return stage->devices[stage->num_devices - 1];
}

void actor_load(struct dmcore_device *device, const char *text)
{
	struct dmcore *core = dmcore_bdev_core(dmcore_device_bdev(device));
	struct dmcore_table *table;
	int ret = dmcore_table_parse(core, text, 0, &table);

	cr_assert_eq(ret, 0, "%s: %d: %s", text, ret, dmcore_error_message());
	ret = dmcore_device_load(device, table);
	cr_assert_eq(ret, 0, "%s: %d: %s", text, ret, dmcore_error_message());
}

void actor_reload(struct dmcore_device *device, const char *text)
{
	actor_load(device, text);
	actor_resume(device);
}

void actor_suspend(struct dmcore_device *device, unsigned int flags)
{
	int ret = dmcore_device_suspend(device, flags, STAGE_PATIENCE_NS);

	cr_assert_eq(ret, 0, "suspend: %d: %s", ret, dmcore_error_message());
}

void actor_resume(struct dmcore_device *device)
{
	int ret = dmcore_device_resume(device);

	cr_assert_eq(ret, 0, "resume: %d: %s", ret, dmcore_error_message());
}

struct dmcore_device_info actor_info(struct dmcore_device *device)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	actor_require(dmcore_device_info(device, &info) == 0);
	return info;
}

void actor_forget(struct stage *stage, struct dmcore_device *device)
{
	unsigned int i = 0;

	while (i < stage->num_devices && stage->devices[i] != device)
		i++;
	cr_assert_lt(i, stage->num_devices);
	stage->num_devices--;
	memmove(&stage->devices[i], &stage->devices[i + 1],
		(stage->num_devices - i) * sizeof(stage->devices[0]));
}

/* ---- threads ---- */

void actor_die(const char *condition, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s: %s\n", file, line, condition, dmcore_error_message());
	abort();
}

static void nap(uint64_t begun_ns)
{
	actor_require(stage_now_ns() - begun_ns < (uint64_t)STAGE_PATIENCE_NS);
	stage_sleep_ns(200000);
}

void actor_await(_Atomic unsigned int *word, unsigned int value)
{
	uint64_t begun_ns = stage_now_ns();

	while (atomic_load(word) < value)
		nap(begun_ns);
}

void actor_await_deferred(struct dmcore_device *device, uint64_t count)
{
	uint64_t begun_ns = stage_now_ns();

	while (actor_info(device).num_deferred < count)
		nap(begun_ns);
}

void actor_await_changing(struct dmcore_device *device)
{
	uint64_t begun_ns = stage_now_ns();

	while (!actor_info(device).changing)
		nap(begun_ns);
}
