/* SPDX-License-Identifier: MIT */
/*
 * Simulated disks, and the driver `sim:NAME` that opens them. A request is noted when it arrives,
 * and carried out when the world's clock has come to its end. Called by the core through the
 * driver's functions, by world.c, and by programs.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/options.h"
#include "sim/sim.h"

_Static_assert(sizeof(struct dmcore__sim_request) <= DMCORE_BIO_DRIVER_BYTES,
	       "a request lives in its bio");

/* ---- making one ---- */

static int read_options(const struct dmcore_sim_disk_options *from,
			struct dmcore_sim_disk_options *to)
{
	const unsigned int known = DMCORE_SIM_NO_CACHE | DMCORE_SIM_NO_FUA | DMCORE_SIM_NO_DISCARD |
				   DMCORE_SIM_NO_WRITE_ZEROES | DMCORE_SIM_LIES;
	uint64_t bytes;

	memset(to, 0, sizeof(*to));
	if (!from || !dmcore__struct_take(to, sizeof(*to), from))
		return dmcore__error(-EINVAL, "sim disk: struct_size isn't set");
	if (to->logical_block_bytes == 0)
		to->logical_block_bytes = DMCORE_SECTOR_BYTES;
	if (to->atomic_bytes == 0)
		to->atomic_bytes = DMCORE_SECTOR_BYTES;
	if (to->cache_units == 0)
		to->cache_units = DMCORE_SIM_CACHE_UNITS_MAX;
	if (to->flags & ~known || to->discard > DMCORE_SIM_DISCARD_RANDOM)
		return dmcore__error(-EINVAL, "sim disk: unknown flag or kind of discard");
	if (to->sectors == 0 || to->sectors > DMCORE_SIM_DISK_SECTORS_MAX)
		return dmcore__error(-EINVAL, "sim disk: 1 to %llu sectors",
				     (unsigned long long)DMCORE_SIM_DISK_SECTORS_MAX);
	bytes = dmcore__sectors_to_bytes(to->sectors);
	if (!dmcore__is_power_of_two(to->logical_block_bytes) ||
	    to->logical_block_bytes < DMCORE_SECTOR_BYTES ||
	    to->logical_block_bytes > DMCORE_BLOCK_BYTES_MAX || bytes % to->logical_block_bytes)
		return dmcore__error(-EINVAL, "sim disk: bad logical_block_bytes");
	if (!dmcore__is_power_of_two(to->atomic_bytes) || to->atomic_bytes < 16 ||
	    to->atomic_bytes > DMCORE_BLOCK_BYTES_MAX || bytes % to->atomic_bytes ||
	    bytes / to->atomic_bytes >= UINT32_MAX)
		return dmcore__error(-EINVAL, "sim disk: bad atomic_bytes");
	if (to->cache_units > DMCORE_SIM_CACHE_UNITS_MAX)
		return dmcore__error(-EINVAL, "sim disk: cache_units is above %u",
				     DMCORE_SIM_CACHE_UNITS_MAX);
	return 0;
}

static struct dmcore_sim_disk *find_disk(const struct dmcore_sim *sim, const char *name)
{
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		if (strcmp(sim->disks[i]->name, name) == 0)
			return sim->disks[i];
	}
	return NULL;
}

int dmcore_sim_disk_create(struct dmcore_sim *sim, const char *name,
			   const struct dmcore_sim_disk_options *options,
			   struct dmcore_sim_disk **result)
{
	struct dmcore_sim_disk_options own;
	struct dmcore_sim_disk *disk;
	int ret;

	if (!sim || !name || !result)
		return dmcore__error(-EINVAL, "no world, name or result");
	*result = NULL;
	ret = read_options(options, &own);
	if (ret)
		return ret;
	if (!name[0] || strlen(name) > DMCORE_SIM_NAME_MAX || strpbrk(name, ", \t\n"))
		return dmcore__error(-EINVAL, "sim disk: a name has 1 to %d characters, none of "
				     "them a comma or a space", DMCORE_SIM_NAME_MAX);
	if (find_disk(sim, name))
		return dmcore__error(-EEXIST, "sim disk: there is a disk %s", name);
	if (sim->num_disks == DMCORE_SIM_DISKS_MAX)
		return dmcore__error(-ENOSPC, "the world has %d disks", DMCORE_SIM_DISKS_MAX);
	if (sim->depth)
		return dmcore__error(-EBUSY, "states are open");
	disk = dmcore__sim_reserve(sizeof(*disk));
	if (!disk)
		return dmcore__error(-ENOMEM, "no memory for a disk");
	disk->sim = sim;
	disk->options = own;
	disk->cache = &disk->caches[0];
	memcpy(disk->name, name, strlen(name));
	ret = dmcore__sim_cache_create(disk->cache, dmcore__sectors_to_bytes(own.sectors),
				       own.atomic_bytes, own.cache_units, false);
	if (ret) {
		dmcore__sim_unreserve(disk, sizeof(*disk));
		return dmcore__error(ret, "no memory for a disk");
	}
	disk->cache->keeps = dmcore__sim_history(sim)->recording;
	sim->disks[sim->num_disks++] = disk;
	*result = disk;
	return 0;
}

void dmcore__sim_disk_destroy(struct dmcore_sim_disk *disk)
{
	dmcore__sim_cache_destroy(&disk->caches[0]);
	dmcore__sim_unreserve(disk, sizeof(*disk));
}

const void *dmcore_sim_disk_data(const struct dmcore_sim_disk *disk)
{
	return disk->cache->image;
}

int dmcore_sim_disk_load(struct dmcore_sim_disk *disk, const void *data, size_t len_bytes,
			 uint64_t offset_bytes)
{
	struct dmcore__sim_cache *cache = disk->cache;
	uint64_t bytes = dmcore__sectors_to_bytes(disk->options.sectors);
	const unsigned char *from = data;

	if (len_bytes > bytes || offset_bytes > bytes - len_bytes ||
	    (len_bytes | offset_bytes) % cache->unit_bytes)
		return dmcore__error(-EINVAL, "sim disk: bad range");
	if (cache->num_inflight || cache->keeps)
		return dmcore__error(-EBUSY, "sim disk: writes are in flight, or recorded");
	for (size_t at = 0; at < len_bytes; at += cache->unit_bytes)
		dmcore__sim_unit_load(cache, (uint32_t)((offset_bytes + at) / cache->unit_bytes),
				      from + at);
	return 0;
}

/* ---- chains of requests ---- */

static void append(struct dmcore__sim_chain *chain, struct dmcore__sim_request *request)
{
	request->next = NULL;
	if (chain->head)
		chain->tail->next = request;
	else
		chain->head = request;
	chain->tail = request;
}

static struct dmcore__sim_request *take_first(struct dmcore__sim_chain *chain)
{
	struct dmcore__sim_request *request = chain->head;

	if (request)
		chain->head = request->next;
	return request;
}

/* ---- requests on their way ---- */

static uint64_t time_of(struct dmcore_sim_disk *disk, const struct dmcore__sim_request *request)
{
	const struct dmcore_sim_disk_options *options = &disk->options;
	uint64_t ns = request->count * options->sector_ns;

	if (request->bio->op == DMCORE_OP_READ)
		ns += options->read_ns;
	else if (request->bio->op == DMCORE_OP_FLUSH)
		ns += options->flush_ns;
	else
		ns += options->write_ns;
	if (options->spread_ns)
		ns += dmcore__random_below(&disk->sim->random, options->spread_ns + 1);
	return dmcore__sim_later_ns(ns, request->delay_ns);
}

static void start(struct dmcore_sim_disk *disk, struct dmcore__sim_request *request)
{
	struct dmcore_sim *sim = disk->sim;

	if (disk->options.depth && disk->num_active >= disk->options.depth) {
		append(&disk->waiting, request);
		return;
	}
	disk->num_active++;
	request->timer.at_ns = dmcore__sim_later_ns(sim->now_ns, time_of(disk, request));
	request->timer.order = ++sim->timer_order;
	dmcore__heap_add(&sim->timers, &request->timer);
}

unsigned int dmcore_sim_release(struct dmcore_sim_disk *disk)
{
	struct dmcore__sim_chain held = disk->held;
	struct dmcore__sim_request *request;
	unsigned int count = 0;

	disk->held.head = NULL;
	while ((request = take_first(&held))) {
		start(disk, request);
		count++;
	}
	return count;
}

static uint64_t hash_of(const struct dmcore_bio *bio)
{
	uint64_t left_bytes = dmcore__sectors_to_bytes(bio->count);
	uint64_t skip_bytes = bio->vec_offset_bytes;
	uint64_t hash = 1;

	for (uint32_t i = 0; i < bio->num_vecs && left_bytes; i++) {
		uint64_t bytes = dmcore__min_u64(bio->vecs[i].len_bytes - skip_bytes, left_bytes);

		hash = dmcore__sim_hash(hash, (char *)bio->vecs[i].base + skip_bytes, bytes);
		left_bytes -= bytes;
		skip_bytes = 0;
	}
	return hash;
}

/* Logs a request's beginning or end. */
static uint64_t note(struct dmcore_sim_disk *disk, uint32_t kind, const struct dmcore_bio *bio,
		     int status, uint64_t value)
{
	bool is_flush = bio->op == DMCORE_OP_FLUSH;
	struct dmcore_sim_event event = {
		.kind = kind,
		.op = bio->op,
		.flags = bio->flags,
		.disk = disk->name,
		.sector = is_flush ? 0 : bio->sector,
		.count = is_flush ? 0 : bio->count,
		.status = status,
		.value = value,
	};

	return dmcore__sim_event(disk->sim, &event);
}

/* The bytes that a write puts on the disk. */
static void fill(struct dmcore_sim_disk *disk, struct dmcore__sim_request *request,
		 unsigned char *data)
{
	struct dmcore_bio *bio = request->bio;
	uint64_t bytes = dmcore__sectors_to_bytes(request->count);
	uint64_t count = bio->count;

	if (bio->op == DMCORE_OP_WRITE) {
		bio->count = request->count;
		dmcore_bio_copy(bio, data);
		bio->count = count;
	} else if (bio->op == DMCORE_OP_DISCARD &&
		   disk->options.discard == DMCORE_SIM_DISCARD_RANDOM) {
		for (uint64_t i = 0; i < bytes; i += sizeof(uint64_t)) {
			uint64_t word = dmcore__random_next(&disk->sim->random);

			memcpy(data + i, &word, sizeof(word));
		}
	} else {
		memset(data, 0, bytes);
		disk->cache->writes[request->write].zeroes = true;
	}
	if (request->action == DMCORE_SIM_CORRUPT) {
		uint64_t bit = dmcore__random_below(&disk->sim->random, bytes * 8);

		data[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
}

static bool writes_nothing(const struct dmcore_sim_disk *disk,
			   const struct dmcore__sim_request *request)
{
	if (request->bio->op == DMCORE_OP_READ || request->bio->op == DMCORE_OP_FLUSH ||
	    request->action == DMCORE_SIM_FAIL || request->action == DMCORE_SIM_LOSE)
		return true;
	return request->count == 0 || (request->bio->op == DMCORE_OP_DISCARD &&
				       disk->options.discard == DMCORE_SIM_DISCARD_KEEPS);
}

/* From now on a cut may leave what it writes. */
static int begin_write(struct dmcore_sim_disk *disk, struct dmcore__sim_request *request)
{
	unsigned char *data;

	if (writes_nothing(disk, request))
		return 0;
	request->write = dmcore__sim_write_begin(disk->cache, request->submit_nr,
						 dmcore__sectors_to_bytes(request->sector),
						 dmcore__sectors_to_bytes(request->count), &data);
	if (request->write < 0)
		return -ENOMEM;
	fill(disk, request, data);
	return 0;
}

static void apply_rule(struct dmcore_sim_disk *disk, struct dmcore__sim_request *request,
		       const struct dmcore_sim_rule *rule)
{
	request->action = rule->action;
	switch (rule->action) {
	case DMCORE_SIM_FAIL:
	case DMCORE_SIM_FAIL_DONE:
		request->status = rule->status;
		break;
	case DMCORE_SIM_TEAR:
		request->status = rule->status;
		request->count = dmcore__min_u64(request->count, rule->sectors);
		break;
	case DMCORE_SIM_DELAY:
		request->delay_ns = rule->delay_ns;
		break;
	case DMCORE_SIM_MISDIRECT:
		request->sector = dmcore__min_u64(rule->sector_to, disk->options.sectors);
		request->count = dmcore__min_u64(request->count,
						 disk->options.sectors - request->sector);
		break;
	default:
		break;
	}
}

static void sim_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	struct dmcore_sim_disk *disk = dmcore_bdev_private(bdev);
	struct dmcore__sim_request *request = dmcore_bio_driver_data(bio);
	struct dmcore_sim *sim = disk->sim;
	const struct dmcore_sim_rule *rule;

	if (sim->off) {
		dmcore_bio_complete(bio, -ENODEV);
		return;
	}
	memset(request, 0, sizeof(*request));
	request->disk = disk;
	request->bio = bio;
	request->sector = bio->sector;
	request->count = bio->op == DMCORE_OP_FLUSH ? 0 : bio->count;
	request->write = -1;
	request->action = DMCORE__SIM_NONE;
	rule = disk->num_rules ? dmcore__sim_rule_for(disk, bio) : NULL;
	if (rule)
		apply_rule(disk, request, rule);
	request->submit_nr = note(disk, DMCORE_SIM_SUBMIT, bio, 0,
				  bio->op == DMCORE_OP_WRITE ? hash_of(bio) : 0);
	if (begin_write(disk, request)) {
		request->action = DMCORE_SIM_FAIL;
		request->status = -ENOMEM;
	}
	if (request->action == DMCORE_SIM_HOLD)
		append(&disk->held, request);
	else
		start(disk, request);
	dmcore__sim_cut_if_due(sim);
}

/* ---- their end ---- */

static void end_read(struct dmcore_sim_disk *disk, struct dmcore__sim_request *request)
{
	uint64_t bytes = dmcore__sectors_to_bytes(request->count);
	unsigned char *data = disk->cache->image + dmcore__sectors_to_bytes(request->sector);
	struct dmcore_bio *bio = request->bio;
	uint64_t count = bio->count;
	uint64_t bit = 0;
	int ret;

	if (request->action == DMCORE_SIM_FAIL || request->action == DMCORE_SIM_LOSE || !bytes)
		return;
	if (request->action == DMCORE_SIM_CORRUPT) {
		bit = dmcore__random_below(&disk->sim->random, bytes * 8);
		data[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	bio->count = request->count;
	ret = dmcore_bio_copy(bio, data);
	bio->count = count;
	if (request->action == DMCORE_SIM_CORRUPT)
		data[bit / 8] ^= (unsigned char)(1u << bit % 8);
	if (ret && !request->status)
		request->status = ret;
}

/* Returns whether it has made anything durable. */
static bool end_flush(struct dmcore_sim_disk *disk, struct dmcore__sim_request *request,
		      uint64_t nr)
{
	bool fails = request->action == DMCORE_SIM_FAIL || request->action == DMCORE_SIM_TEAR;

	if (request->action == DMCORE_SIM_LOSE || disk->options.flags & DMCORE_SIM_LIES)
		return false;
	return dmcore__sim_cache_cover(disk->cache, request->submit_nr, nr, fails) && !fails;
}

static bool end_write(struct dmcore_sim_disk *disk, struct dmcore__sim_request *request,
		      uint64_t nr)
{
	bool failed = request->action == DMCORE_SIM_FAIL_DONE ||
		      request->action == DMCORE_SIM_TEAR;
	/* What a disk hasn't, it doesn't do when it is asked to all the same. */
	bool fua = request->bio->flags & DMCORE_BIO_FUA &&
		   !(disk->options.flags & DMCORE_SIM_NO_FUA);
	bool durable = (fua || disk->options.flags & DMCORE_SIM_NO_CACHE) &&
		       !(disk->options.flags & DMCORE_SIM_LIES) && !failed;

	if (request->write < 0)
		return false;
	dmcore__sim_write_end(disk->cache, (uint32_t)request->write, nr, durable, failed);
	return durable;
}

void dmcore__sim_request_end(struct dmcore__sim_request *request)
{
	struct dmcore_sim_disk *disk = request->disk;
	struct dmcore_bio *bio = request->bio;
	struct dmcore_sim *sim = disk->sim;
	uint64_t nr = sim->event_nr + 1;
	struct dmcore__sim_request *next;
	bool durable = false;

	disk->num_active--;
	if (bio->op == DMCORE_OP_READ)
		end_read(disk, request);
	else if (bio->op == DMCORE_OP_FLUSH)
		durable = end_flush(disk, request, nr);
	else
		durable = end_write(disk, request, nr);
	note(disk, DMCORE_SIM_COMPLETE, bio, request->status,
	     bio->op == DMCORE_OP_READ ? hash_of(bio) : 0);
	if (durable)
		dmcore__sim_note_durable(sim);
	next = take_first(&disk->waiting);
	if (next)
		start(disk, next);
	dmcore_bio_complete(bio, request->status);
	dmcore__sim_cut_if_due(sim);
}

static void fail(struct dmcore__sim_request *request)
{
	note(request->disk, DMCORE_SIM_COMPLETE, request->bio, -ENODEV, 0);
	dmcore_bio_complete(request->bio, -ENODEV);
}

void dmcore__sim_fail_all(struct dmcore_sim *sim)
{
	struct dmcore__sim_request *request;

	while (sim->timers) {
		request = (struct dmcore__sim_request *)sim->timers;
		dmcore__heap_remove(&sim->timers, sim->timers);
		fail(request);
	}
	for (unsigned int i = 0; i < sim->num_disks; i++) {
		struct dmcore_sim_disk *disk = sim->disks[i];

		disk->num_active = 0;
		while ((request = take_first(&disk->waiting)))
			fail(request);
		while ((request = take_first(&disk->held)))
			fail(request);
	}
}

bool dmcore__sim_disk_idle(const struct dmcore_sim_disk *disk)
{
	return !disk->num_active && !disk->waiting.head && !disk->held.head;
}

/* ---- the driver ---- */

static int sim_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	if (strlen(args) < bytes)
		memcpy(key, args, strlen(args) + 1);
	return 0;
}

static struct dmcore_limits limits_of(const struct dmcore_sim_disk_options *options)
{
	struct dmcore_limits limits = {
		.struct_size = sizeof(limits),
		.logical_block_bytes = options->logical_block_bytes,
		.physical_block_bytes = options->logical_block_bytes,
		.max_io_sectors = options->max_io_sectors,
		.memory_align_bytes = 1,
	};

	if (!(options->flags & DMCORE_SIM_NO_CACHE))
		limits.caps |= DMCORE_CAP_VOLATILE_CACHE;
	if (!(options->flags & DMCORE_SIM_NO_FUA))
		limits.caps |= DMCORE_CAP_FUA;
	if (!(options->flags & DMCORE_SIM_NO_WRITE_ZEROES))
		limits.caps |= DMCORE_CAP_WRITE_ZEROES;
	if (!(options->flags & DMCORE_SIM_NO_DISCARD)) {
		limits.caps |= DMCORE_CAP_DISCARD;
		limits.discard_granularity_bytes = options->logical_block_bytes;
		if (options->discard == DMCORE_SIM_DISCARD_ZEROES)
			limits.caps |= DMCORE_CAP_DISCARD_ZEROES;
	}
	return limits;
}

static int sim_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	/* The driver is the first thing in its world. */
	const struct dmcore_sim *sim = (const struct dmcore_sim *)dmcore_bdev_driver(bdev);
	struct dmcore_sim_disk *disk = find_disk(sim, args);
	struct dmcore_limits limits;
	int ret;

	(void)flags;
	if (!disk)
		return dmcore_bdev_open_error(bdev, -ENOENT, "the world has no such disk");
	limits = limits_of(&disk->options);
	ret = dmcore_bdev_set_limits(bdev, &limits);
	if (ret)
		return ret;
	dmcore_bdev_set_size(bdev, disk->options.sectors);
	dmcore_bdev_set_private(bdev, disk);
	disk->num_open++;
	return 0;
}

static void sim_close(struct dmcore_bdev *bdev)
{
	struct dmcore_sim_disk *disk = dmcore_bdev_private(bdev);

	disk->num_open--;
}

const struct dmcore_driver dmcore__sim_driver = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "sim",
	.version = { 1, 0, 0 },
	.identify = sim_identify,
	.open = sim_open,
	.close = sim_close,
	.submit = sim_submit,
	.extent = dmcore__sim_extent,
};
