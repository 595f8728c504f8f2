/* SPDX-License-Identifier: MIT */
/*
 * Fuzzer of power cuts: the bytes of an input are disks of a simulated world, a table over them,
 * requests and faults. Then each state that a cut may have left is read through the table: every
 * sector holds what had been promised by then, or what was written to it later.
 *
 * Each sector counts what is written to it. Requests that would meet aren't on their way together,
 * so that there is one order; nor is what flushes, so that it is clear what a failure takes back.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <dmcore/sim.h>

#include "fuzz.h"

#define SECTORS 48
#define DISK_SECTORS 64
#define DISKS 2
#define AT_ONCE 4
#define COUNT_MAX 8
#define STEPS_MAX 48
#define MARKS_MAX 128
#define STATES_MAX 96
#define VERSIONS_MAX 64
#define WORDS (DMCORE_SECTOR_BYTES / sizeof(uint64_t))

static const char *const tables[] = {
	"0 48 linear sim:a 8",
	"0 20 linear sim:a 0\n20 28 linear sim:b 16",
	"0 48 striped 2 4 sim:a 0 sim:b 8",
	"0 24 striped 2 3 sim:a 0 sim:b 4\n24 24 linear sim:b 30",
	"0 48 switch 2 8 0 sim:a 0 sim:a 0",
	"0 48 dust sim:a 8 512",
};
#define NUM_TABLES (sizeof(tables) / sizeof(tables[0]))

typedef uint8_t versions[SECTORS];

struct request {
	struct dmcore_bio bio;
	bool is_busy;
	bool flushes_first; /* a flush, or a PREFLUSH */
	bool is_fua;
	enum dmcore_op op;
	uint64_t sector;
	uint64_t count;
	versions covered;   /* what a flush of it covers */
	unsigned char data[COUNT_MAX * DMCORE_SECTOR_BYTES];
};

static struct {
	struct fuzz_bytes bytes;
	struct dmcore_sim *sim;
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmcore_device *device;
	struct dmcore_sim_disk *disks[DISKS];
	bool has_cache;
	unsigned int num_busy;
	bool grew;            /* promises, since the last mark */
	unsigned int num_marks;
	versions submitted;
	versions ended;
	versions promised;
	versions lost;        /* what a failed flush covered: no later one does */
	versions at_mark[MARKS_MAX + 1];
	bool zeroes[SECTORS][VERSIONS_MAX]; /* versions that are zeroes */
	struct request requests[AT_ONCE];
} run;

/* ---- content -------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t sector, uint64_t version, uint64_t i)
{
	return (sector << 32 | version << 16 | i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static void fill(unsigned char *bytes, uint64_t sector, uint64_t version)
{
	uint64_t words[WORDS];

	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = word_of(sector, version, i);
	memcpy(bytes, words, sizeof(words));
}

static bool holds(const unsigned char *bytes, uint64_t sector, uint64_t version)
{
	unsigned char expected[DMCORE_SECTOR_BYTES] = "";

	if (version > 0 && !run.zeroes[sector][version])
		fill(expected, sector, version);
	return memcmp(bytes, expected, sizeof(expected)) == 0;
}

/* ---- promises ------------------------------------------------------------------------------- */

static void promise(uint64_t sector, unsigned int version)
{
	if (version <= run.promised[sector] || version <= run.lost[sector])
		return;
	run.promised[sector] = (uint8_t)version;
	run.grew = true;
}

static void request_failed(const struct request *request)
{
	if (request->flushes_first || request->is_fua)
		memcpy(run.lost, run.ended, sizeof(run.lost));
}

static void request_done(struct dmcore_bio *bio)
{
	struct request *request = bio->context;
	bool is_data = request->op != DMCORE_OP_FLUSH && request->op != DMCORE_OP_READ;

	FUZZ_CHECK(request->is_busy, "a request ends twice");
	request->is_busy = false;
	run.num_busy--;
	if (bio->status) {
		request_failed(request);
		return;
	}
	for (uint64_t s = 0; s < SECTORS && request->flushes_first; s++)
		promise(s, request->covered[s]);
	for (uint64_t i = 0; i < request->count && is_data; i++) {
		uint64_t s = request->sector + i;

		run.ended[s] = run.submitted[s];
		if (request->is_fua || !run.has_cache)
			promise(s, run.ended[s]);
	}
}

static void mark(void)
{
	if (!run.grew || run.num_marks == MARKS_MAX)
		return;
	run.grew = false;
	run.num_marks++;
	memcpy(run.at_mark[run.num_marks], run.promised, sizeof(run.promised));
	FUZZ_CHECK(dmcore_sim_mark(run.sim, run.num_marks) == 0, "%s", dmcore_error_message());
}

/* ---- requests ------------------------------------------------------------------------------- */

static void poll_once(void)
{
	FUZZ_CHECK(dmcore_queue_poll(run.queue, 0, 1, 0) >= 0, "the queue");
	mark();
}

static void wait_all(void)
{
	for (unsigned int turns = 0; run.num_busy > 0; turns++) {
		FUZZ_CHECK(turns < 10000, "%u requests don't end", run.num_busy);
		poll_once();
		dmcore_sim_step(run.sim);
	}
}

static bool meets(const struct request *request, uint64_t sector, uint64_t count)
{
	return request->is_busy && (request->flushes_first || request->is_fua ||
		(request->sector < sector + count && sector < request->sector + request->count));
}

/* A request that is free, when none is on its way that this one mustn't meet. */
static struct request *make_way(uint64_t sector, uint64_t count, bool is_flush)
{
	bool waits = is_flush || run.num_busy == AT_ONCE;
	unsigned int i;

	for (i = 0; i < AT_ONCE; i++)
		waits |= meets(&run.requests[i], sector, count);
	if (waits)
		wait_all();
	for (i = 0; run.requests[i].is_busy;)
		i++;
	return &run.requests[i];
}

/* The sectors' next versions. False: one has had its last. */
static bool prepare(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		if (run.submitted[sector + i] == VERSIONS_MAX - 1)
			return false;
	}
	for (uint64_t s = sector; s < sector + count; s++) {
		run.submitted[s]++;
		run.zeroes[s][run.submitted[s]] = op != DMCORE_OP_WRITE;
	}
	return true;
}

static void do_request(enum dmcore_op op)
{
	uint64_t sector = fuzz_below(&run.bytes, SECTORS);
	unsigned int shape = fuzz_u8(&run.bytes);
	uint64_t count = op == DMCORE_OP_FLUSH ? 0 : 1 + shape % COUNT_MAX;
	uint16_t flags = 0;
	struct request *request;
	struct dmcore_bio *bio;

	if (sector + count > SECTORS)
		count = SECTORS - sector;
	if (op == DMCORE_OP_WRITE || op == DMCORE_OP_WRITE_ZEROES)
		flags = shape >> 4 & (DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH);
	request = make_way(sector, count, flags || op == DMCORE_OP_FLUSH);
	if (op != DMCORE_OP_READ && !prepare(op, sector, count))
		return;
	request->op = op;
	request->sector = sector;
	request->count = count;
	request->flushes_first = op == DMCORE_OP_FLUSH || flags & DMCORE_BIO_PREFLUSH;
	request->is_fua = flags & DMCORE_BIO_FUA;
	memcpy(request->covered, run.ended, sizeof(run.ended));
	bio = &request->bio;
	dmcore_bio_init(bio, run.queue);
	bio->bdev = dmcore_device_bdev(run.device);
	bio->op = (uint8_t)op;
	bio->sector = sector;
	bio->count = count;
	bio->flags = flags;
	bio->done = request_done;
	bio->context = request;
	for (uint64_t i = 0; i < count && op == DMCORE_OP_WRITE; i++)
		fill(request->data + i * DMCORE_SECTOR_BYTES, sector + i,
		     run.submitted[sector + i]);
	if (op == DMCORE_OP_WRITE || op == DMCORE_OP_READ)
		dmcore_bio_set_buffer(bio, request->data, (size_t)count * DMCORE_SECTOR_BYTES);
	request->is_busy = true;
	run.num_busy++;
	FUZZ_CHECK(dmcore_bio_submit(bio) == 0, "%s", dmcore_error_message());
}

static void add_rule(void)
{
	static const enum dmcore_sim_action actions[] = {
		DMCORE_SIM_FAIL, DMCORE_SIM_FAIL_DONE, DMCORE_SIM_TEAR, DMCORE_SIM_DELAY,
	};
	unsigned int choice = fuzz_u8(&run.bytes);
	struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = actions[choice % 4],
		.status = -EIO,
		.ops = fuzz_below(&run.bytes, 32),
		.skip = choice >> 2 & 3,
		.times = 1 + (choice >> 4 & 3),
		.delay_ns = 100000,
		.sectors = choice >> 6,
	};
	int ret = dmcore_sim_rule_add(run.disks[choice >> 7], &rule);

	FUZZ_CHECK(ret == 0 || ret == -ENOSPC, "%s", dmcore_error_message());
}

static void suspend_and_resume(void)
{
	int ret = dmcore_device_suspend(run.device, 0, -1);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_resume(run.device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	mark();
}

static void step(unsigned int choice)
{
	switch (choice % 12) {
	case 0:
		do_request(DMCORE_OP_FLUSH);
		break;
	case 1:
		do_request(DMCORE_OP_DISCARD);
		break;
	case 2:
		do_request(DMCORE_OP_WRITE_ZEROES);
		break;
	case 3:
		add_rule();
		break;
	case 4:
		dmcore_sim_step(run.sim);
		poll_once();
		break;
	case 5:
		wait_all();
		break;
	case 6:
		suspend_and_resume();
		break;
	case 7:
		do_request(DMCORE_OP_READ);
		break;
	default:
		do_request(DMCORE_OP_WRITE);
		break;
	}
}

/* ---- states --------------------------------------------------------------------------------- */

/* A sector holds a version from what was promised to what was written last. */
static void check_sector(const unsigned char *bytes, uint64_t sector, unsigned int promised,
			 const struct dmcore_sim_states *states)
{
	char text[512];

	for (unsigned int version = promised; version <= run.submitted[sector]; version++) {
		if (holds(bytes, sector, version))
			return;
	}
	dmcore_sim_states_text(states, text, sizeof(text));
	fuzz_fail(__FILE__, __LINE__, "a promise", "sector %llu: version %u was promised; %s",
		  (unsigned long long)sector, promised, text);
}

static void check_states(void)
{
	static unsigned char content[SECTORS * DMCORE_SECTOR_BYTES];
	unsigned int choice = fuzz_u8(&run.bytes);
	const struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = choice & 1 ? DMCORE_SIM_CUTS_EVENTS : DMCORE_SIM_CUTS_EPOCHS,
		.states_per_cut = 12,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_bdev *bdev = dmcore_device_bdev(run.device);
	struct dmcore_sim_states *states;
	unsigned int num_states = 0;
	int ret = dmcore_sim_states_open(run.sim, &options, &states);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	while (num_states++ < STATES_MAX && (ret = dmcore_sim_states_next(states)) > 0) {
		FUZZ_CHECK(dmcore_sim_states_info(states, &state) == 0, "no state");
		FUZZ_CHECK(state.mark <= run.num_marks, "mark %llu",
			   (unsigned long long)state.mark);
		ret = dmcore_pread(bdev, content, sizeof(content), 0);
		FUZZ_CHECK(ret == 0, "reading a state: %d", ret);
		for (uint64_t s = 0; s < SECTORS; s++)
			check_sector(content + s * DMCORE_SECTOR_BYTES, s,
				     run.at_mark[state.mark][s], states);
	}
	FUZZ_CHECK(ret >= 0, "%s", dmcore_error_message());
	FUZZ_CHECK(dmcore_sim_states_close(states) == 0, "%s", dmcore_error_message());
}

/* ---- a world -------------------------------------------------------------------------------- */

static void add_disk(unsigned int index)
{
	unsigned int choice = fuzz_u8(&run.bytes);
	struct dmcore_sim_disk_options options = {
		.struct_size = sizeof(options),
		.sectors = DISK_SECTORS,
		.flags = choice & (DMCORE_SIM_NO_FUA | DMCORE_SIM_NO_DISCARD |
				   DMCORE_SIM_NO_WRITE_ZEROES),
		.atomic_bytes = choice & 0x40 ? 4096 : 512,
		.max_io_sectors = choice & 0x20 ? 3 : 0,
		.write_ns = 1000,
		.read_ns = 1000,
		.flush_ns = 3000,
		.spread_ns = choice & 0x10 ? 10000 : 0,
	};
	int ret;

	if ((choice & 0x81) == 0x81)
		options.flags |= DMCORE_SIM_NO_CACHE;
	else
		run.has_cache = true;
	ret = dmcore_sim_disk_create(run.sim, index ? "b" : "a", &options, &run.disks[index]);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
}

static void begin_world(void)
{
	const struct dmcore_queue_options small = {
		.struct_size = sizeof(small), .depth = 4, .bios = 1, .splits = 8,
	};
	struct dmcore_sim_options options = { .struct_size = sizeof(options) };
	struct dmcore_table *table;
	int ret;

	options.seed = fuzz_u8(&run.bytes);
	ret = dmcore_sim_create(&options, &run.sim);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_sim_core(run.sim, NULL, &run.core);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_queue_create(run.core, &small, &run.queue);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	for (unsigned int i = 0; i < DISKS; i++)
		add_disk(i);
	ret = dmcore_device_create(run.core, "fuzz", NULL, 0, &run.device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_table_parse(run.core, tables[fuzz_below(&run.bytes, NUM_TABLES)], 0, &table);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_load(run.device, table);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_resume(run.device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	FUZZ_CHECK(dmcore_sim_record(run.sim) == 0, "%s", dmcore_error_message());
}

static void end_world(void)
{
	int ret = dmcore_device_remove(run.device);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_queue_destroy(run.queue);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_destroy(run.core);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_sim_destroy(run.sim);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	fuzz_heap_check();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&run, 0, sizeof(run));
	run.bytes = (struct fuzz_bytes){ data, size };
	fuzz_enter();
	begin_world();
	for (unsigned int i = 0; i < STEPS_MAX && run.bytes.left > 0; i++)
		step(fuzz_u8(&run.bytes));
	wait_all();
	for (unsigned int i = 0; i < DISKS; i++)
		dmcore_sim_rules_clear(run.disks[i]);
	check_states();
	end_world();
	fuzz_leave();
	return 0;
}
