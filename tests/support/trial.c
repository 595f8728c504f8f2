/* SPDX-License-Identifier: MIT */
/* Random operations on a random table, and what must come of them; see trial.h. */
#include "trial.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define TEXT_BYTES (1u << 20)

_Static_assert(sizeof(trial.names[0]) >= sizeof(trial.files[0].path), "a path is a name");

struct trial trial;
static char text[TEXT_BYTES];

/* What a failure needs to be had again. */
#define check(condition, ...)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			report();                                                                  \
			cr_assert_fail(__VA_ARGS__);                                               \
		}                                                                                  \
	} while (0)

static void report(void)
{
	fprintf(stderr, "again: DMCORE_SEED=%llu DMCORE_PROP_ONLY=%u; operation %u of\n%.2000s",
		(unsigned long long)rng_seed(), trial.nr, trial.op_nr, text);
}

/* ---- operations ----------------------------------------------------------------------------- */

static void slot_done(struct dmcore_bio *bio)
{
	struct trial_slot *slot = bio->context;

	slot->ends++;
	trial.num_ended++;
}

static bool moves(const struct trial_slot *slot)
{
	return slot->op == DMCORE_OP_READ || slot->op == DMCORE_OP_WRITE;
}

/* Cuts the memory anywhere, and lays the pieces out from the last to the first. */
static void scatter(struct trial_slot *slot)
{
	size_t left = slot->count * DMCORE_SECTOR_BYTES;
	unsigned char *end = slot->scattered + sizeof(slot->scattered);

	slot->num_vecs = 0;
	if (rng_below(&trial.rng, 3) > 0)
		return;
	while (left > 0) {
		bool last = slot->num_vecs == TRIAL_VECS_MAX - 1 || left == 1;
		size_t bytes = last ? left : rng_between(&trial.rng, 1, left);

		end -= bytes + rng_below(&trial.rng, 8);
		slot->vecs[slot->num_vecs++] = (struct dmio_bvec){ end, bytes };
		left -= bytes;
	}
}

static void copy_scattered(struct trial_slot *slot, bool out)
{
	unsigned char *flat = slot->flat;

	for (uint32_t i = 0; i < slot->num_vecs; i++) {
		struct dmio_bvec *vec = &slot->vecs[i];

		memcpy(out ? vec->base : flat, out ? flat : vec->base, vec->len_bytes);
		flat += vec->len_bytes;
	}
}

static enum dmcore_op choose_op(void)
{
	static const enum dmcore_op ops[] = { DMCORE_OP_READ,  DMCORE_OP_READ,  DMCORE_OP_READ,
					      DMCORE_OP_READ,  DMCORE_OP_READ,  DMCORE_OP_WRITE,
					      DMCORE_OP_WRITE, DMCORE_OP_WRITE, DMCORE_OP_WRITE,
					      DMCORE_OP_DISCARD };

	if (rng_one_in(&trial.rng, 50))
		return DMCORE_OP_FLUSH;
	if (rng_one_in(&trial.rng, 20))
		return DMCORE_OP_WRITE_ZEROES;
	return ops[rng_below(&trial.rng, sizeof(ops) / sizeof(ops[0]))];
}

static void choose(struct trial_slot *slot)
{
	uint64_t size = trial.model.size_sectors;
	uint64_t max = rng_one_in(&trial.rng, 16) ? TRIAL_COUNT_MAX : 32;

	slot->op = choose_op();
	slot->sector = rng_below(&trial.rng, size);
	slot->count = rng_between(&trial.rng, 1, max);
	if (slot->count > size - slot->sector)
		slot->count = size - slot->sector;
}

/* Operations that run at once and touch the same sectors have no defined outcome. */
static bool conflicts(const struct trial_slot *slot)
{
	for (unsigned int i = 0; i < trial.num_slots; i++) {
		const struct trial_slot *other = &trial.slots[i];
		bool both_read = slot->op == DMCORE_OP_READ && other->op == DMCORE_OP_READ;

		if (slot->op == DMCORE_OP_FLUSH || other->op == DMCORE_OP_FLUSH || both_read)
			continue;
		if (slot->sector < other->sector + other->count &&
		    other->sector < slot->sector + slot->count)
			return true;
	}
	return false;
}

static void fill(struct trial_slot *slot)
{
	slot->errors = model_run(&trial.model, slot->op, slot->sector, slot->count,
				 trial.next_tag);
	scatter(slot);
	if (slot->op == DMCORE_OP_WRITE) {
		model_fill(slot->flat, slot->count, trial.next_tag);
		trial.next_tag += slot->count;
		copy_scattered(slot, true);
	} else if (slot->op == DMCORE_OP_READ) {
		memset(slot->flat, 0x5a, slot->count * DMCORE_SECTOR_BYTES);
		copy_scattered(slot, true);
	}
}

static unsigned int choose_flags(enum dmcore_op op)
{
	unsigned int flags = 0;

	if (op != DMCORE_OP_WRITE && op != DMCORE_OP_WRITE_ZEROES)
		return 0;
	if (rng_one_in(&trial.rng, 16))
		flags |= DMCORE_BIO_FUA;
	if (rng_one_in(&trial.rng, 32))
		flags |= DMCORE_BIO_PREFLUSH;
	return flags;
}

static void submit(struct trial_slot *slot)
{
	struct dmcore_bio *bio = &slot->bio;
	int ret;

	dmcore_bio_init(bio, trial.stage.queue);
	bio->bdev = trial.bdev;
	bio->op = (uint8_t)slot->op;
	bio->flags = (uint16_t)choose_flags(slot->op);
	bio->sector = slot->sector;
	bio->done = slot_done;
	bio->context = slot;
	if (moves(slot))
		dmcore_bio_set_buffer(bio, slot->flat, slot->count * DMCORE_SECTOR_BYTES);
	if (slot->num_vecs) {
		bio->vecs = slot->vecs;
		bio->num_vecs = slot->num_vecs;
	}
	bio->count = slot->count;
	slot->ends = 0;
	ret = dmcore_bio_submit(bio);
	check(ret == 0, "submit: %d", ret);
}

static void check_result(struct trial_slot *slot, int status)
{
	int64_t wrong;

	check(model_allows(slot->errors, status), "op %d at %llu + %llu: status %d", (int)slot->op,
	      (unsigned long long)slot->sector, (unsigned long long)slot->count, status);
	if (slot->op != DMCORE_OP_READ)
		return;
	copy_scattered(slot, false);
	wrong = model_differs(&trial.model, slot->sector, slot->count, slot->flat);
	check(wrong < 0, "read of %llu + %llu: sector %lld is wrong",
	      (unsigned long long)slot->sector, (unsigned long long)slot->count, (long long)wrong);
}

/* Several operations at once. Returns how many. */
static unsigned int run_batch(void)
{
	unsigned int wanted = (unsigned int)rng_between(&trial.rng, 1, TRIAL_AT_ONCE_MAX);

	trial.num_slots = 0;
	trial.num_ended = 0;
	for (unsigned int i = 0; i < wanted; i++) {
		struct trial_slot *slot = &trial.slots[trial.num_slots];

		choose(slot);
		if (conflicts(slot))
			continue;
		fill(slot);
		trial.num_slots++;
	}
	for (unsigned int i = 0; i < trial.num_slots; i++)
		submit(&trial.slots[i]);
	while (trial.num_ended < trial.num_slots) {
		/* What a driver does for its own sake counts as well: no more than one is sure. */
		unsigned int max = (unsigned int)rng_between(&trial.rng, 1, trial.num_slots);
		unsigned int min = (unsigned int)rng_below(&trial.rng, 2);
		int ret = dmcore_queue_poll(trial.stage.queue, min, max, STAGE_PATIENCE_NS);

		check(ret >= (int)min && ret <= (int)max, "poll: %d", ret);
	}
	for (unsigned int i = 0; i < trial.num_slots; i++) {
		struct trial_slot *slot = &trial.slots[i];

		check(slot->ends == 1, "%u completions", slot->ends);
		check_result(slot, slot->bio.status);
	}
	return trial.num_slots;
}

/* One operation by a blocking call. */
static void run_plain(void)
{
	struct trial_slot *slot = &trial.slots[0];
	uint64_t offset;
	uint64_t bytes;
	int ret = 0;

	choose(slot);
	fill(slot);
	if (slot->num_vecs) {
		copy_scattered(slot, false);
		slot->num_vecs = 0;
	}
	offset = slot->sector * DMCORE_SECTOR_BYTES;
	bytes = slot->count * DMCORE_SECTOR_BYTES;
	switch (slot->op) {
	case DMCORE_OP_READ:
		ret = dmcore_pread(trial.bdev, slot->flat, bytes, offset);
		break;
	case DMCORE_OP_WRITE:
		ret = dmcore_pwrite(trial.bdev, slot->flat, bytes, offset);
		break;
	case DMCORE_OP_FLUSH:
		ret = dmcore_flush(trial.bdev);
		break;
	case DMCORE_OP_DISCARD:
		ret = dmcore_discard(trial.bdev, bytes, offset);
		break;
	default:
		ret = dmcore_write_zeroes(trial.bdev, bytes, offset);
		break;
	}
	check_result(slot, ret);
}

void trial_run(unsigned int count)
{
	for (trial.op_nr = 0; trial.op_nr < count;) {
		if (rng_one_in(&trial.rng, 20)) {
			run_plain();
			trial.op_nr++;
		} else {
			trial.op_nr += run_batch();
		}
	}
}

/* ---- the device ----------------------------------------------------------------------------- */

static void open_stage(void)
{
	/* Of everything much, of everything little, and what else goes a way of its own. */
	static const struct dmcore_queue_options variants[] = {
		{ .flags = 0 },
		{ .splits = 1 },
		{ .splits = 3, .depth = 2 },
		{ .workers = 2 },
		{ .flags = DMCORE_QUEUE_MIGRATES },
		{ .depth = 1, .workers = 1 },
	};
	struct dmcore_queue_options options = variants[trial.nr % 6];

	options.struct_size = sizeof(options);
	options.bios = 1;
	stage_open(&trial.stage, NULL, &options);
}

static const char *leaf_dir(void)
{
	/* In memory: the disk of the machine is not what is tested. */
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL;
}

static void open_leaves(void)
{
	for (unsigned int i = 0; i < trial.model.num_leaves; i++) {
		uint64_t bytes = trial.model.leaf_sectors * DMCORE_SECTOR_BYTES;

		if (trial.on_files) {
			scratch_create(&trial.files[i], leaf_dir(), bytes);
			memcpy(trial.names[i], trial.files[i].path, sizeof(trial.files[i].path));
		} else {
			snprintf(trial.names[i], sizeof(trial.names[i]), "mem:%llus,name=leaf%u",
				 (unsigned long long)trial.model.leaf_sectors, i);
		}
		trial.leaves[i] = stage_bdev(&trial.stage, trial.names[i], 0);
	}
}

void trial_start(unsigned int nr, bool on_files, unsigned int num_leaves, uint64_t leaf_sectors)
{
	trial.nr = nr;
	trial.on_files = on_files;
	text[0] = '\0';
	rng_start(&trial.rng, nr);
	model_create(&trial.model, num_leaves, leaf_sectors);
	open_stage();
	open_leaves();
}

void trial_open(void)
{
	const char *names[MODEL_LEAVES_MAX];
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	size_t bytes;

	for (unsigned int i = 0; i < trial.model.num_leaves; i++)
		names[i] = trial.names[i];
	bytes = model_text(&trial.model, names, text, sizeof(text));
	cr_assert_lt(bytes, sizeof(text));
	trial.bdev = stage_map(&trial.stage, "m", text);
	check(dmcore_bdev_size_sectors(trial.bdev) == trial.model.size_sectors, "the size");
	cr_assert_eq(dmcore_bdev_limits(trial.bdev, &limits), 0);
	trial.model.discard_zeroes = limits.caps & DMCORE_CAP_DISCARD_ZEROES;
	trial.next_tag = 1;
}

/* Every sector of every leaf; of files behind the library's back. */
static void compare_leaves(void)
{
	static unsigned char bytes[1 << 18];

	for (unsigned int i = 0; i < trial.model.num_leaves; i++) {
		uint64_t step = sizeof(bytes) / DMCORE_SECTOR_BYTES;
		uint64_t size = trial.model.leaf_sectors;

		for (uint64_t sector = 0; sector < size; sector += step) {
			uint64_t count = size - sector < step ? size - sector : step;
			uint64_t offset = sector * DMCORE_SECTOR_BYTES;
			size_t length = count * DMCORE_SECTOR_BYTES;
			int64_t wrong;

			if (trial.on_files) {
				lseek(trial.files[i].fd, (off_t)offset, SEEK_SET);
				check(read(trial.files[i].fd, bytes, length) == (ssize_t)length,
				      "leaf %u can't be read", i);
			} else {
				check(dmcore_pread(trial.leaves[i], bytes, length, offset) == 0,
				      "leaf %u can't be read", i);
			}
			wrong = model_leaf_differs(&trial.model, i, sector, count, bytes);
			check(wrong < 0, "leaf %u: sector %lld is wrong", i, (long long)wrong);
		}
	}
}

void trial_end(void)
{
	compare_leaves();
	stage_close(&trial.stage);
	for (unsigned int i = 0; i < trial.model.num_leaves && trial.on_files; i++)
		scratch_close(&trial.files[i]);
	model_destroy(&trial.model);
}
