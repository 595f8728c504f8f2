/* SPDX-License-Identifier: MIT */
/* A mirror in a simulated world, and the model and the judge of it; see simmir.h. */
#include "simmir.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "rng.h"

#define LOG_BITS_OFFSET 1024u

bool simmir_slow(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return !rng_full();
#else
	return false;
#endif
}

bool simmir_brief(void)
{
#if !defined(__OPTIMIZE__)
	return !rng_full();
#else
	const char *preloaded = getenv("LD_PRELOAD");

	return rng_brief() || (preloaded && strstr(preloaded, "vgpreload"));
#endif
}

static void note(struct simmir *mir, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct simmir *mir, const char *format, ...)
{
	va_list args;
	int at;

	if (mir->num_broken++)
		return;
	va_start(args, format);
	at = vsnprintf(mir->broken, sizeof(mir->broken), format, args);
	va_end(args);
	if (!mir->states || at < 0 || (size_t)at + 2 >= sizeof(mir->broken))
		return;
	memcpy(mir->broken + at, ": ", 3);
	dmcore_sim_states_text(mir->states, mir->broken + at + 2,
			       sizeof(mir->broken) - (size_t)at - 2);
}

/* ---- contents ---- */

static void fill(unsigned char *sector, uint64_t number, uint8_t version)
{
	uint64_t word = UINT64_C(0x3199) << 48 | number << 8 | version;

	for (unsigned int i = 0; i < 512; i += 8)
		memcpy(sector + i, &word, 8);
}

/* -1: nothing that was ever written there. */
static int version_of(uint64_t number, const unsigned char *sector)
{
	uint64_t word;

	memcpy(&word, sector, 8);
	if (memcmp(sector, sector + 8, 504) != 0 ||
	    word >> 8 != (UINT64_C(0x3199) << 40 | number))
		return -1;
	return (int)(word & 0xff);
}

static uint64_t start_of(const struct simmir *mir, unsigned int leg)
{
	return leg * mir->options.offset_sectors;
}

/* Whole units of any size. */
static uint64_t leg_sectors(const struct simmir *mir, unsigned int leg)
{
	return (mir->options.num_sectors + start_of(mir, leg) + 7) / 8 * 8;
}

/* The mirror's sectors on a leg. */
static const unsigned char *leg_data(const struct simmir *mir, unsigned int leg)
{
	const unsigned char *data = dmcore_sim_disk_data(mir->world.disks[leg]);

	return data + start_of(mir, leg) * 512;
}

static const unsigned char *log_data(const struct simmir *mir)
{
	return dmcore_sim_disk_data(mir->world.disks[mir->options.num_legs]);
}

static uint64_t num_regions(const struct simmir *mir)
{
	return (mir->options.num_sectors + mir->options.region_sectors - 1) /
	       mir->options.region_sectors;
}

/* ---- worlds ---- */

static void add_disks(struct simmir *mir)
{
	const struct simmir_options *options = &mir->options;
	struct simworld *world = &mir->world;

	world->options.atomic_bytes = options->atomic_bytes;
	world->options.read_ns = 10000;
	world->options.write_ns = 20000;
	world->options.flush_ns = 30000;
	world->options.spread_ns = options->spread_ns;
	world->options.flags = options->disk_flags;
	for (unsigned int i = 0; i < options->num_legs; i++)
		simworld_add_disk(world, leg_sectors(mir, i));
	simworld_add_disk(world, SIMMIR_LOG_SECTORS);
}

static void load_legs(struct simmir *mir)
{
	static unsigned char data[(SIMMIR_SECTORS_MAX + SIMMIR_LEGS_MAX * 8) * 512];

	for (unsigned int leg = 0; leg < mir->options.num_legs; leg++) {
		for (uint64_t i = 0; i < mir->options.num_sectors; i++)
			fill(data + (start_of(mir, leg) + i) * 512,
			     i + (leg > 0 && mir->options.differ), 0);
		cr_assert_eq(dmcore_sim_disk_load(mir->world.disks[leg], data,
						  leg_sectors(mir, leg) * 512, 0),
			     0);
	}
}

/* Little endian: magic, version, regions; then a bit for each. */
static void load_log(struct simmir *mir)
{
	static const unsigned char head[] = { 0x72, 0x52, 0x69, 0x4d, 2, 0, 0, 0 };
	unsigned char log[SIMMIR_LOG_SECTORS * 512] = { 0 };
	uint64_t regions = num_regions(mir);

	if (!mir->options.differ) {
		memcpy(log, head, sizeof(head));
		log[8] = (unsigned char)regions;
		for (uint64_t i = 0; i < regions; i++)
			log[LOG_BITS_OFFSET + i / 8] |= (unsigned char)(1u << i % 8);
	}
	cr_assert_eq(dmcore_sim_disk_load(mir->world.disks[mir->options.num_legs], log,
					  sizeof(log), 0),
		     0);
}

void simmir_open(struct simmir *mir, const struct simmir_options *options, uint64_t seed)
{
	uint64_t *hashes = mir->hashes;
	uint64_t num_hashes = mir->num_hashes;

	memset(mir, 0, sizeof(*mir));
	mir->hashes = hashes;
	mir->num_hashes = num_hashes;
	mir->options = *options;
	cr_assert_leq(options->num_sectors, SIMMIR_SECTORS_MAX);
	cr_assert_leq(options->num_legs, SIMMIR_LEGS_MAX);
	/* What a state takes is taken again by the next one. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	simworld_open(&mir->world, seed);
	add_disks(mir);
	load_legs(mir);
	load_log(mir);
	for (unsigned int i = 0; i < SIMMIR_AT_ONCE; i++) {
		mir->requests[i].mir = mir;
		dmcore_bio_init(&mir->requests[i].bio, mir->world.queue);
	}
}

void simmir_close(struct simmir *mir)
{
	simworld_close(&mir->world);
}

void simmir_remember(struct simmir *mir, uint64_t *hashes, uint64_t num_hashes)
{
	mir->hashes = hashes;
	mir->num_hashes = num_hashes;
}

/* ---- the device ---- */

void simmir_activate(struct simmir *mir)
{
	const struct simmir_options *options = &mir->options;
	char text[200];
	int length = snprintf(text, sizeof(text), "0 %u mirror disk 2 sim:d%u %u %u",
			      (unsigned int)options->num_sectors, options->num_legs,
			      options->region_sectors, options->num_legs);

	for (unsigned int i = 0; i < options->num_legs; i++)
		length += snprintf(text + length, sizeof(text) - (size_t)length, " sim:d%u %u", i,
				   (unsigned int)start_of(mir, i));
	if (options->features)
		snprintf(text + length, sizeof(text) - (size_t)length, " %s", options->features);
	mir->device = simworld_map(&mir->world, "m", text);
}

void simmir_deactivate(struct simmir *mir)
{
	simmir_wait(mir, 0);
	if (mir->device)
		cr_assert_eq(dmcore_device_remove(mir->device), 0);
	mir->device = NULL;
}

void simmir_suspend_and_resume(struct simmir *mir)
{
	cr_assert_eq(dmcore_device_suspend(mir->device, 0, -1), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(mir->device), 0, "%s", dmcore_error_message());
}

/* The service has its turns while somebody polls. */
void simmir_pass(struct simmir *mir, uint64_t ns)
{
	uint64_t until_ns = dmcore_sim_now_ns(mir->world.sim) + ns;

	while (dmcore_sim_now_ns(mir->world.sim) < until_ns)
		cr_assert_geq(dmcore_queue_poll(mir->world.queue, 1, UINT32_MAX,
						(int64_t)(until_ns -
							  dmcore_sim_now_ns(mir->world.sim))),
			      0);
}

void simmir_fail(struct simmir *mir, unsigned int leg, uint32_t ops, uint32_t times)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = times % 2 ? DMCORE_SIM_FAIL : DMCORE_SIM_FAIL_DONE,
		.status = -5,
		.ops = ops,
		.times = times,
	};

	cr_assert_eq(dmcore_sim_rule_add(mir->world.disks[leg], &rule), 0);
}

void simmir_mend(struct simmir *mir)
{
	for (unsigned int i = 0; i < mir->options.num_legs; i++)
		dmcore_sim_rules_clear(mir->world.disks[i]);
}

void simmir_progress(struct simmir *mir, unsigned int *in_sync, unsigned int *all)
{
	char line[300];
	const char *at;

	cr_assert_gt(dmcore_device_text(mir->device, DMCORE_TEXT_STATUS, 0, line, sizeof(line)),
		     0);
	at = strchr(line, '/');
	cr_assert(at, "%s", line);
	while (at[-1] != ' ')
		at--;
	*in_sync = (unsigned int)strtoul(at, NULL, 10);
	*all = (unsigned int)strtoul(strchr(at, '/') + 1, NULL, 10);
	cr_assert_gt(*all, 0, "%s", line);
}

void simmir_recover(struct simmir *mir)
{
	unsigned int in_sync;
	unsigned int all;

	for (unsigned int i = 0; i < 1000; i++) {
		simmir_progress(mir, &in_sync, &all);
		if (in_sync == all)
			return;
		simmir_pass(mir, i < 100 ? 1000000 : SIMMIR_PAUSE_NS);
	}
	cr_assert_fail("%u of %u regions are in sync", in_sync, all);
}

/* ---- the model ---- */

static void mark_changed(struct simmir *mir)
{
	if (memcmp(mir->at_mark[mir->num_marks], mir->promised, sizeof(mir->promised)) == 0)
		return;
	cr_assert_lt(mir->num_marks + 1, SIMMIR_MARKS_MAX);
	memcpy(mir->at_mark[++mir->num_marks], mir->promised, sizeof(mir->promised));
	cr_assert_eq(dmcore_sim_mark(mir->world.sim, mir->num_marks), 0);
}

void simmir_record(struct simmir *mir)
{
	simmir_wait(mir, 0);
	mir->num_marks = 0;
	memcpy(mir->at_mark[0], mir->promised, sizeof(mir->promised));
	cr_assert_eq(dmcore_sim_record(mir->world.sim), 0);
}

static void raise_to(uint8_t *oldest, const uint8_t *other, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		if (oldest[i] < other[i])
			oldest[i] = other[i];
	}
}

/* A read sees nothing older than what was acknowledged before it came. */
static void check_read(const struct simmir *mir, const struct simmir_request *request)
{
	for (uint64_t i = 0; i < request->count; i++) {
		uint64_t sector = request->sector + i;
		int version = version_of(sector, request->memory + i * 512);

		cr_assert(version >= request->least[sector] && version <= mir->latest[sector],
			  "sector %u: version %d, not %u to %u", (unsigned int)sector, version,
			  request->least[sector], mir->latest[sector]);
	}
}

static void ended_well(struct simmir *mir, const struct simmir_request *request)
{
	if (request->op == DMCORE_OP_FLUSH || request->flags & DMCORE_BIO_PREFLUSH)
		raise_to(mir->promised, request->covered, mir->options.num_sectors);
	if (request->op == DMCORE_OP_READ)
		check_read(mir, request);
	if (request->op != DMCORE_OP_WRITE)
		return;
	raise_to(mir->ended + request->sector, request->versions, request->count);
	if (!request->is_in_doubt)
		raise_to(mir->sure + request->sector, request->versions, request->count);
	if (request->flags & DMCORE_BIO_FUA)
		raise_to(mir->promised + request->sector, request->versions, request->count);
}

/* What a flush that failed was to cover is covered by none that ends later; nor is what was under
 * way meanwhile, parts of which may have come before it. */
static void ended_badly(struct simmir *mir, const struct simmir_request *request)
{
	mir->num_failed++;
	if (request->op != DMCORE_OP_FLUSH &&
	    !(request->flags & (DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA)))
		return;
	memcpy(mir->sure, mir->promised, sizeof(mir->sure));
	for (unsigned int i = 0; i < SIMMIR_AT_ONCE; i++) {
		memcpy(mir->requests[i].covered, mir->promised, sizeof(mir->promised));
		mir->requests[i].is_in_doubt = true;
	}
}

static void note_end(struct dmcore_bio *bio)
{
	struct simmir_request *request = bio->context;
	struct simmir *mir = request->mir;

	request->busy = false;
	mir->num_busy--;
	if (bio->status)
		ended_badly(mir, request);
	else
		ended_well(mir, request);
	mark_changed(mir);
}

static bool is_free(const struct simmir *mir, uint64_t sector, uint64_t count)
{
	for (unsigned int i = 0; i < SIMMIR_AT_ONCE; i++) {
		const struct simmir_request *other = &mir->requests[i];

		if (other->busy && other->op == DMCORE_OP_WRITE &&
		    other->sector < sector + count && sector < other->sector + other->count)
			return false;
	}
	return true;
}

static struct simmir_request *idle_request(struct simmir *mir)
{
	simmir_wait(mir, SIMMIR_AT_ONCE - 1);
	for (unsigned int i = 0; i < SIMMIR_AT_ONCE; i++) {
		if (!mir->requests[i].busy)
			return &mir->requests[i];
	}
	return NULL;
}

static void begin_write(struct simmir *mir, struct simmir_request *request)
{
	for (uint64_t i = 0; i < request->count; i++) {
		uint8_t *latest = &mir->latest[request->sector + i];

		cr_assert_lt(*latest + 1, 256);
		request->versions[i] = ++*latest;
		fill(request->memory + i * 512, request->sector + i, *latest);
	}
}

void simmir_submit(struct simmir *mir, enum dmcore_op op, unsigned int flags, uint64_t sector,
		   uint64_t count)
{
	struct simmir_request *request;

	while (op == DMCORE_OP_WRITE && !is_free(mir, sector, count))
		simmir_wait(mir, mir->num_busy - 1);
	request = idle_request(mir);
	request->busy = true;
	request->is_in_doubt = false;
	request->op = op;
	request->flags = flags;
	request->sector = sector;
	request->count = count;
	memcpy(request->covered, mir->sure, sizeof(request->covered));
	memcpy(request->least, mir->ended, sizeof(request->least));
	request->bio.bdev = dmcore_device_bdev(mir->device);
	request->bio.op = (uint8_t)op;
	request->bio.flags = (uint16_t)flags;
	request->bio.sector = sector;
	request->bio.count = count;
	request->bio.done = note_end;
	request->bio.context = request;
	if (op == DMCORE_OP_WRITE)
		begin_write(mir, request);
	if (op <= DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(&request->bio, request->memory, count * 512);
	mir->num_busy++;
	cr_assert_eq(dmcore_bio_submit(&request->bio), 0);
}

void simmir_wait(struct simmir *mir, unsigned int num_busy)
{
	while (mir->num_busy > num_busy)
		cr_assert_geq(dmcore_queue_poll(mir->world.queue, 1, UINT32_MAX, -1), 0);
}

/* ---- the judge ---- */

static bool log_is_there(const struct simmir *mir)
{
	const unsigned char *log = log_data(mir);

	return log[0] == 0x72 && log[1] == 0x52 && log[2] == 0x69 && log[3] == 0x4d;
}

static bool is_clean(const struct simmir *mir, uint64_t region)
{
	return log_data(mir)[LOG_BITS_OFFSET + region / 8] >> region % 8 & 1;
}

/* Statement 1. */
static void judge_log(struct simmir *mir)
{
	uint64_t size = mir->options.region_sectors;

	if (!log_is_there(mir))
		return;
	for (uint64_t region = 0; region < num_regions(mir); region++) {
		uint64_t sector = region * size;
		uint64_t count = mir->options.num_sectors - sector;

		if (!is_clean(mir, region))
			continue;
		count = count < size ? count : size;
		for (unsigned int leg = 1; leg < mir->options.num_legs; leg++) {
			if (memcmp(leg_data(mir, 0) + sector * 512,
				   leg_data(mir, leg) + sector * 512, count * 512) != 0)
				note(mir, "region %u is clean, and leg %u differs",
				     (unsigned int)region, leg);
		}
	}
}

/* Statement 2. */
static void judge_data(struct simmir *mir, const uint8_t *promised)
{
	for (uint64_t i = 0; i < mir->options.num_sectors; i++) {
		int version = version_of(i, leg_data(mir, 0) + i * 512);

		if (version < promised[i] || version > mir->latest[i])
			note(mir, "sector %u: version %d, promised %u of %u", (unsigned int)i,
			     version, promised[i], mir->latest[i]);
	}
}

static void expect_read(struct simmir *mir, const unsigned char *expected, const char *when)
{
	static unsigned char data[SIMMIR_SECTORS_MAX * 512];
	size_t bytes = mir->options.num_sectors * 512;

	if (dmcore_pread(dmcore_device_bdev(mir->device), data, bytes, 0))
		note(mir, "can't be read %s", when);
	else if (memcmp(data, expected, bytes) != 0)
		note(mir, "reads otherwise %s", when);
}

/* Statement 3. */
static void judge_recovery(struct simmir *mir)
{
	static unsigned char expected[SIMMIR_SECTORS_MAX * 512];
	size_t bytes = mir->options.num_sectors * 512;

	mir->num_looked++;
	memcpy(expected, leg_data(mir, 0), bytes);
	simmir_activate(mir);
	expect_read(mir, expected, "at first");
	expect_read(mir, expected, "the second time");
	simmir_recover(mir);
	expect_read(mir, expected, "after recovery");
	simmir_deactivate(mir);
	for (unsigned int leg = 0; leg < mir->options.num_legs; leg++) {
		if (memcmp(leg_data(mir, leg), expected, bytes) != 0)
			note(mir, "leg %u differs after recovery", leg);
	}
	for (uint64_t region = 0; region < num_regions(mir); region++) {
		if (!is_clean(mir, region))
			note(mir, "region %u isn't clean after recovery", (unsigned int)region);
	}
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
	const unsigned char *at = bytes;

	for (; count >= 8; count -= 8, at += 8) {
		uint64_t word;

		memcpy(&word, at, 8);
		hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
	}
	return hash;
}

/* Whether the same was judged with the same promises; if not, it is remembered. */
static bool is_known(struct simmir *mir, const uint8_t *promised)
{
	uint64_t hash = 1;

	if (!mir->hashes)
		return false;
	for (unsigned int leg = 0; leg < mir->options.num_legs; leg++) {
		const unsigned char *data = leg_data(mir, leg);

		/* Sectors are full of one word. */
		for (uint64_t i = 0; i < mir->options.num_sectors; i++)
			hash = mix(hash, data + i * 512, 8);
	}
	hash = mix(hash, log_data(mir), 16);
	hash = mix(hash, log_data(mir) + LOG_BITS_OFFSET, 8);
	hash = mix(hash, promised, SIMMIR_SECTORS_MAX);
	hash += hash == 0;
	for (uint64_t i = hash; ; i++) {
		uint64_t *at = &mir->hashes[i & (mir->num_hashes - 1)];

		if (*at == hash)
			return true;
		if (*at == 0) {
			*at = hash;
			return false;
		}
	}
}

void simmir_judge(struct simmir *mir, enum dmcore_sim_cuts cuts, uint32_t per_cut)
{
	struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = cuts,
		.states_per_cut = per_cut,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	int ret;

	simmir_mend(mir);
	cr_assert_eq(dmcore_sim_states_open(mir->world.sim, &options, &mir->states), 0, "%s",
		     dmcore_error_message());
	while ((ret = dmcore_sim_states_next(mir->states)) == 1) {
		const uint8_t *promised;

		cr_assert_eq(dmcore_sim_states_info(mir->states, &state), 0);
		promised = mir->at_mark[state.mark];
		if (is_known(mir, promised))
			continue;
		mir->num_states++;
		judge_log(mir);
		judge_data(mir, promised);
		if (mir->options.look_every && mir->num_states % mir->options.look_every == 0)
			judge_recovery(mir);
	}
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_states_close(mir->states), 0);
	mir->states = NULL;
}
