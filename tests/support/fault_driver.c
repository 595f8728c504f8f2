/* SPDX-License-Identifier: MIT */
/* The driver "fault" of fault_driver.h: a RAM disk with rules and a log. Called by tests. */
#include "fault_driver.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CAPS_ALL                                                                                   \
	(DMCORE_CAP_VOLATILE_CACHE | DMCORE_CAP_FUA | DMCORE_CAP_DISCARD |                         \
	 DMCORE_CAP_WRITE_ZEROES | DMCORE_CAP_DISCARD_ZEROES)

struct rule_state {
	struct fault_rule rule;
	unsigned int matches;
};

struct held {
	struct dmcore_bio *bio;
	struct fault_entry entry;
	int logged; /* index, or -1 */
};

struct fault_disk {
	pthread_mutex_t lock; /* everything below, and data */
	unsigned char *data;
	struct rule_state rules[FAULT_RULES_MAX];
	unsigned int num_rules;
	struct held held[FAULT_HELD_MAX];
	unsigned int num_held;
	struct fault_entry *log;
	unsigned int num_logged;
	unsigned int num_failed;
	unsigned int seen[DMCORE_OP_COUNT];
};

/* Numbers events on all disks, so that a test can tell what came before what. */
static _Atomic uint64_t event_clock;

static uint64_t next_event(void)
{
	return atomic_fetch_add(&event_clock, 1) + 1;
}

static size_t to_bytes(uint64_t sectors)
{
	return (size_t)sectors * DMCORE_SECTOR_BYTES;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* "key=NUMBER" up to a comma or the end. */
static bool read_number(const char **args, const char *key, uint64_t *value)
{
	size_t length = strlen(key);
	char *end;

	if (strncmp(*args, key, length) != 0)
		return false;
	*value = strtoull(*args + length, &end, 0);
	if (end == *args + length || (*end != ',' && *end != '\0'))
		return false;
	*args = end;
	return true;
}

static int read_args(const char *args, uint64_t *sectors, struct dmcore_limits *limits)
{
	uint64_t value;

	if (!read_number(&args, "", sectors) || *sectors == 0)
		return -EINVAL;
	while (*args == ',') {
		args++;
		if (strncmp(args, "id=", 3) == 0) {
			args += strcspn(args, ",");
		} else if (read_number(&args, "block=", &value)) {
			limits->logical_block_bytes = (uint32_t)value;
			limits->physical_block_bytes = (uint32_t)value;
		} else if (read_number(&args, "caps=", &value)) {
			limits->caps = (unsigned int)value;
		} else if (read_number(&args, "align=", &value)) {
			limits->memory_align_bytes = (uint32_t)value;
		} else if (read_number(&args, "max_io=", &value)) {
			limits->max_io_sectors = value;
		} else if (read_number(&args, "chunk=", &value)) {
			limits->chunk_sectors = value;
		} else if (read_number(&args, "max_discard=", &value)) {
			limits->max_discard_sectors = value;
		} else if (read_number(&args, "max_zeroes=", &value)) {
			limits->max_write_zeroes_sectors = value;
		} else {
			return -EINVAL;
		}
	}
	return *args == '\0' ? 0 : -EINVAL;
}

static int fault_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	size_t length = strlen(args);

	(void)core;
	if (length >= bytes)
		return -EINVAL;
	memcpy(key, args, length + 1);
	return 0;
}

static void fault_free(struct fault_disk *disk)
{
	pthread_mutex_destroy(&disk->lock);
	free(disk->log);
	free(disk->data);
	free(disk);
}

static int fault_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	struct dmcore_limits limits = {
		.struct_size = sizeof(limits),
		.caps = CAPS_ALL,
		.logical_block_bytes = DMCORE_SECTOR_BYTES,
		.physical_block_bytes = DMCORE_SECTOR_BYTES,
		.memory_align_bytes = 1,
	};
	struct fault_disk *disk;
	uint64_t sectors;

	(void)flags;
	if (read_args(args, &sectors, &limits) || dmcore_bdev_set_limits(bdev, &limits))
		return dmcore_bdev_open_error(bdev, -EINVAL, "expected SECTORS[,KEY=VALUE...]");
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return -ENOMEM;
	pthread_mutex_init(&disk->lock, NULL);
	disk->data = calloc(sectors, DMCORE_SECTOR_BYTES);
	disk->log = calloc(FAULT_LOG_MAX, sizeof(*disk->log));
	if (!disk->data || !disk->log) {
		fault_free(disk);
		return -ENOMEM;
	}
	dmcore_bdev_set_size(bdev, sectors);
	dmcore_bdev_set_private(bdev, disk);
	return 0;
}

static void fault_close(struct dmcore_bdev *bdev)
{
	fault_free(dmcore_bdev_private(bdev));
}

/* ---- requests. The disk is locked in all of these ------------------------------------------- */

/* Carries out the first sectors of a bio. */
static int carry_out(struct fault_disk *disk, struct dmcore_bio *bio, uint64_t sectors)
{
	unsigned char *data = disk->data + to_bytes(bio->sector);
	uint64_t count = bio->count;
	int ret = 0;

	switch (bio->op) {
	case DMCORE_OP_READ:
	case DMCORE_OP_WRITE:
		bio->count = sectors;
		ret = dmcore_bio_copy(bio, data);
		bio->count = count;
		break;
	case DMCORE_OP_DISCARD:
	case DMCORE_OP_WRITE_ZEROES:
		memset(data, 0, to_bytes(sectors));
		break;
	default:
		break;
	}
	return ret;
}

static bool matches(const struct fault_rule *rule, const struct dmcore_bio *bio)
{
	if (rule->ops && !(rule->ops >> bio->op & 1))
		return false;
	if (rule->count == 0 || bio->op == DMCORE_OP_FLUSH)
		return true;
	return bio->sector < rule->sector + rule->count &&
	       rule->sector < bio->sector + bio->count;
}

/* The rule that decides, or NULL. Every rule that matches takes note of the request. */
static const struct fault_rule *find_rule(struct fault_disk *disk, const struct dmcore_bio *bio)
{
	const struct fault_rule *found = NULL;

	for (unsigned int i = 0; i < disk->num_rules; i++) {
		struct rule_state *state = &disk->rules[i];
		unsigned int nr;

		if (!matches(&state->rule, bio))
			continue;
		nr = state->matches++;
		if (found || nr < state->rule.skip)
			continue;
		if (state->rule.times == 0 || nr < state->rule.skip + state->rule.times)
			found = &state->rule;
	}
	return found;
}

static int log_bio(struct fault_disk *disk, const struct dmcore_bio *bio, struct fault_entry *entry)
{
	bool has_range = bio->op != DMCORE_OP_FLUSH;

	*entry = (struct fault_entry){
		.op = (enum dmcore_op)bio->op,
		.flags = bio->flags,
		.sector = has_range ? bio->sector : 0,
		.count = has_range ? bio->count : 0,
		.begun = next_event(),
	};
	disk->seen[bio->op]++;
	if (disk->num_logged == FAULT_LOG_MAX)
		return -1;
	disk->log[disk->num_logged] = *entry;
	return (int)disk->num_logged++;
}

static void log_end(struct fault_disk *disk, int logged, int status)
{
	if (logged < 0)
		return;
	disk->log[logged].ended = next_event();
	disk->log[logged].status = status;
}

static bool hold(struct fault_disk *disk, struct dmcore_bio *bio, int logged,
		 const struct fault_entry *entry)
{
	if (disk->num_held == FAULT_HELD_MAX)
		return false;
	disk->held[disk->num_held++] = (struct held){ bio, *entry, logged };
	return true;
}

/* What becomes of a request that isn't held: its status. */
static int decide(struct fault_disk *disk, struct dmcore_bio *bio, const struct fault_rule *rule)
{
	uint64_t sectors = bio->count;
	int ret;

	if (!rule || rule->action == FAULT_HOLD)
		return carry_out(disk, bio, sectors);
	disk->num_failed++;
	if (rule->action == FAULT_FAIL)
		return rule->status;
	if (rule->action == FAULT_TEAR && rule->torn_sectors < sectors)
		sectors = rule->torn_sectors;
	ret = carry_out(disk, bio, sectors);
	return ret ? ret : rule->status;
}

static void fault_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	struct fault_disk *disk = dmcore_bdev_private(bdev);
	const struct fault_rule *rule;
	struct fault_entry entry;
	bool held = false;
	int status = 0;
	int logged;

	pthread_mutex_lock(&disk->lock);
	logged = log_bio(disk, bio, &entry);
	rule = find_rule(disk, bio);
	if (rule && rule->action == FAULT_HOLD)
		held = hold(disk, bio, logged, &entry);
	if (!held) {
		status = decide(disk, bio, rule);
		log_end(disk, logged, status);
	}
	pthread_mutex_unlock(&disk->lock);
	if (!held)
		dmcore_bio_complete(bio, status);
}

static const struct dmcore_driver fault_driver = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "fault",
	.version = { 1, 0, 0 },
	.features = DMCORE_DRIVER_ONE_OBJECT,
	.identify = fault_identify,
	.open = fault_open,
	.close = fault_close,
	.submit = fault_submit,
};

/* ---- what tests call ------------------------------------------------------------------------ */

int fault_register(struct dmcore *core)
{
	return dmcore_driver_register(core, &fault_driver);
}

struct fault_disk *fault_disk_of(const struct dmcore_bdev *bdev)
{
	return dmcore_bdev_private(bdev);
}

unsigned char *fault_data(struct fault_disk *disk)
{
	return disk->data;
}

void fault_add_rule(struct fault_disk *disk, const struct fault_rule *rule)
{
	pthread_mutex_lock(&disk->lock);
	if (disk->num_rules == FAULT_RULES_MAX)
		abort();
	disk->rules[disk->num_rules++] = (struct rule_state){ .rule = *rule };
	pthread_mutex_unlock(&disk->lock);
}

void fault_clear_rules(struct fault_disk *disk)
{
	pthread_mutex_lock(&disk->lock);
	disk->num_rules = 0;
	pthread_mutex_unlock(&disk->lock);
}

unsigned int fault_num_held(struct fault_disk *disk)
{
	unsigned int num_held;

	pthread_mutex_lock(&disk->lock);
	num_held = disk->num_held;
	pthread_mutex_unlock(&disk->lock);
	return num_held;
}

struct fault_entry fault_held(struct fault_disk *disk, unsigned int index)
{
	struct fault_entry entry;

	pthread_mutex_lock(&disk->lock);
	if (index >= disk->num_held)
		abort();
	entry = disk->held[index].entry;
	pthread_mutex_unlock(&disk->lock);
	return entry;
}

void fault_release(struct fault_disk *disk, unsigned int index, int status)
{
	struct held held;

	pthread_mutex_lock(&disk->lock);
	if (index >= disk->num_held)
		abort();
	held = disk->held[index];
	disk->num_held--;
	memmove(&disk->held[index], &disk->held[index + 1],
		(disk->num_held - index) * sizeof(disk->held[0]));
	if (status == 0)
		status = carry_out(disk, held.bio, held.bio->count);
	log_end(disk, held.logged, status);
	pthread_mutex_unlock(&disk->lock);
	dmcore_bio_complete_remote(held.bio, status);
}

void fault_release_all(struct fault_disk *disk)
{
	while (fault_num_held(disk) > 0)
		fault_release(disk, 0, 0);
}

unsigned int fault_num_logged(struct fault_disk *disk)
{
	unsigned int num_logged;

	pthread_mutex_lock(&disk->lock);
	num_logged = disk->num_logged;
	pthread_mutex_unlock(&disk->lock);
	return num_logged;
}

struct fault_entry fault_logged(struct fault_disk *disk, unsigned int index)
{
	struct fault_entry entry;

	pthread_mutex_lock(&disk->lock);
	if (index >= disk->num_logged)
		abort();
	entry = disk->log[index];
	pthread_mutex_unlock(&disk->lock);
	return entry;
}

unsigned int fault_count(struct fault_disk *disk, unsigned int ops)
{
	unsigned int count = 0;

	pthread_mutex_lock(&disk->lock);
	for (unsigned int op = 0; op < DMCORE_OP_COUNT; op++) {
		if (ops == 0 || (ops >> op & 1))
			count += disk->seen[op];
	}
	pthread_mutex_unlock(&disk->lock);
	return count;
}

unsigned int fault_num_failed(struct fault_disk *disk)
{
	unsigned int num_failed;

	pthread_mutex_lock(&disk->lock);
	num_failed = disk->num_failed;
	pthread_mutex_unlock(&disk->lock);
	return num_failed;
}

void fault_clear_log(struct fault_disk *disk)
{
	pthread_mutex_lock(&disk->lock);
	disk->num_logged = 0;
	memset(disk->seen, 0, sizeof(disk->seen));
	for (unsigned int i = 0; i < disk->num_held; i++)
		disk->held[i].logged = -1;
	pthread_mutex_unlock(&disk->lock);
}
