/* SPDX-License-Identifier: MIT */
/* Requests with faults below them; see workload.h. */
#include "workload.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#define INITIAL_BYTE 0xee
/* Versions of a sector: bits of workload::allowed. Between them, those of the writes. */
#define ZEROES 0u
#define INITIAL 31u
#define AT_ONCE_MAX 12

struct request {
	enum dmcore_op op;
	unsigned int flags;
	uint64_t sector;
	uint64_t count;
};

static const struct request one_by_one[] = {
	{ DMCORE_OP_WRITE, 0, 0, 20 },
	{ DMCORE_OP_WRITE, DMCORE_BIO_FUA, 12, 16 },
	{ DMCORE_OP_FLUSH, 0, 0, 0 },
	{ DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 60, 30 },
	{ DMCORE_OP_READ, 0, 0, 40 },
	{ DMCORE_OP_DISCARD, 0, 8, 32 },
	{ DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA, 50, 20 },
	{ DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 30, 12 },
	{ DMCORE_OP_READ, 0, 0, SAMPLE_SECTORS },
	{ DMCORE_OP_FLUSH, 0, 0, 0 },
};

/* No two of them touch. */
static const struct request at_once[] = {
	{ DMCORE_OP_WRITE, 0, 0, 8 },
	{ DMCORE_OP_WRITE, DMCORE_BIO_FUA, 8, 12 },
	{ DMCORE_OP_READ, 0, 20, 20 },
	{ DMCORE_OP_FLUSH, 0, 0, 0 },
	{ DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 40, 8 },
	{ DMCORE_OP_WRITE_ZEROES, 0, 48, 8 },
	{ DMCORE_OP_DISCARD, 0, 56, 8 },
	{ DMCORE_OP_WRITE, 0, 64, 24 },
	{ DMCORE_OP_READ, 0, 88, 8 },
};

#define NUM_ONE_BY_ONE (sizeof(one_by_one) / sizeof(one_by_one[0]))
#define NUM_AT_ONCE (sizeof(at_once) / sizeof(at_once[0]))

_Static_assert(NUM_ONE_BY_ONE + NUM_AT_ONCE < WORKLOAD_REQUESTS_MAX, "room for what is learned");
_Static_assert(NUM_AT_ONCE <= AT_ONCE_MAX, "room for requests at once");

static unsigned char buffers[AT_ONCE_MAX][SAMPLE_SECTORS * DMCORE_SECTOR_BYTES];

/* ---- what sectors may hold ------------------------------------------------------------------ */

static bool is_filled(const unsigned char *sector, unsigned char byte)
{
	return sector[0] == byte && memcmp(sector, sector + 1, DMCORE_SECTOR_BYTES - 1) == 0;
}

static bool holds(const unsigned char *bytes, uint64_t sector, unsigned int version)
{
	if (version == ZEROES || version == INITIAL)
		return is_filled(bytes, version == ZEROES ? 0 : INITIAL_BYTE);
	return pattern_differs(bytes, sector, 1, version) < 0;
}

/* What was read is what may be there. */
static void check_data(const struct workload *workload, const struct request *request,
		       const unsigned char *bytes)
{
	for (uint64_t i = 0; i < request->count; i++) {
		uint64_t sector = request->sector + i;
		uint32_t allowed = workload->allowed[sector];
		bool found = false;

		if (workload->sample->data == SAMPLE_ZEROES)
			allowed = 1u << ZEROES;
		for (unsigned int version = 0; version <= INITIAL && !found; version++)
			found = allowed >> version & 1 &&
				holds(bytes + i * DMCORE_SECTOR_BYTES, sector, version);
		cr_assert(found, "%s: sector %llu holds none of 0x%x", workload->name,
			  (unsigned long long)sector, allowed);
	}
}

/* A request has ended, and might have changed something. */
static void note_data(struct workload *workload, const struct request *request, unsigned int nr,
		      int status)
{
	uint32_t now = 1u << (request->op == DMCORE_OP_WRITE ? nr + 1 : ZEROES);

	if (request->op == DMCORE_OP_READ || request->op == DMCORE_OP_FLUSH)
		return;
	for (uint64_t i = 0; i < request->count; i++) {
		uint32_t *allowed = &workload->allowed[request->sector + i];

		/* What is discarded may stay, and what failed may have been done in part. */
		if (status == 0 && request->op != DMCORE_OP_DISCARD)
			*allowed = now;
		else
			*allowed |= now;
	}
}

/* ---- what requests may end with ------------------------------------------------------------- */

/* `failed`: how much I/O below failed meanwhile that may have been for this request. */
static bool may_end(const struct workload *workload, const struct request *request,
		    unsigned int nr, int status, unsigned int failed)
{
	if (status && workload->is_aftermath &&
	    workload->is_aftermath(workload->context, request->op, request->flags, status))
		return true;
	if (workload->sample->may_mend &&
	    (status == workload->expected[nr] ||
	     (request->op == DMCORE_OP_DISCARD && status == -EOPNOTSUPP)))
		return true;
	if (failed)
		return status == workload->status;
	return status == workload->expected[nr];
}

static void judge(struct workload *workload, const struct request *request, int status,
		  unsigned int failed, const unsigned char *bytes)
{
	unsigned int nr = workload->next++;

	if (!workload->learned)
		workload->expected[nr] = status;
	cr_assert(may_end(workload, request, nr, status, failed),
		  "%s: request %u ended with %d; %u failed below, and without it is %d",
		  workload->name, nr, status, failed, workload->expected[nr]);
	if (request->op == DMCORE_OP_READ && status == 0)
		check_data(workload, request, bytes);
	note_data(workload, request, nr, status);
}

static void fill(const struct request *request, unsigned int nr, unsigned char *bytes)
{
	if (request->op == DMCORE_OP_WRITE)
		pattern_fill(bytes, request->sector, request->count, nr + 1);
	else if (request->op == DMCORE_OP_READ)
		memset(bytes, 0x11, request->count * DMCORE_SECTOR_BYTES);
}

static void *memory_of(const struct request *request, unsigned char *bytes)
{
	return request->op <= DMCORE_OP_WRITE ? bytes : NULL;
}

static void run_one(struct workload *workload, const struct request *request)
{
	unsigned int before = workload->num_failed(workload->context);
	unsigned char *bytes = buffers[0];
	int status;

	fill(request, workload->next, bytes);
	status = stage_run(workload->stage, workload->bdev, request->op, request->flags,
			   request->sector, request->count, memory_of(request, bytes));
	judge(workload, request, status, workload->num_failed(workload->context) - before, bytes);
}

/* ---- several at once ------------------------------------------------------------------------ */

struct end {
	unsigned int times;
	int status;
};

static void note_end(struct dmcore_bio *bio)
{
	struct end *end = bio->context;

	end->times++;
	end->status = bio->status;
	dmcore_bio_put(bio);
}

static void submit(struct workload *workload, const struct request *request, unsigned char *bytes,
		   struct end *end)
{
	struct dmcore_bio *bio = stage_bio(workload->stage, workload->bdev, request->op,
					   request->sector, request->count,
					   memory_of(request, bytes), NULL);

	bio->flags = (uint16_t)request->flags;
	bio->done = note_end;
	bio->context = end;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static unsigned int num_ended(const struct end *ends)
{
	unsigned int num = 0;

	for (unsigned int i = 0; i < NUM_AT_ONCE; i++)
		num += ends[i].times;
	return num;
}

static void run_at_once(struct workload *workload)
{
	unsigned int before = workload->num_failed(workload->context);
	struct end ends[NUM_AT_ONCE] = { { 0 } };
	unsigned int num_bad = 0;
	unsigned int failed;

	for (unsigned int i = 0; i < NUM_AT_ONCE; i++) {
		fill(&at_once[i], workload->next + i, buffers[i]);
		submit(workload, &at_once[i], buffers[i], &ends[i]);
	}
	while (num_ended(ends) < NUM_AT_ONCE)
		cr_assert_geq(dmcore_queue_poll(workload->stage->queue, 1, UINT32_MAX,
						STAGE_PATIENCE_NS), 0);
	stage_settle(workload->stage);
	failed = workload->num_failed(workload->context) - before;
	for (unsigned int i = 0; i < NUM_AT_ONCE; i++) {
		bool bad = workload->learned &&
			   ends[i].status != workload->expected[workload->next];

		cr_assert_eq(ends[i].times, 1, "%s: request %u of several ended %u times",
			     workload->name, i, ends[i].times);
		num_bad += bad;
		judge(workload, &at_once[i], ends[i].status, bad ? failed : 0, buffers[i]);
	}
	/* What failed below is some request's, and not that of more. */
	cr_assert(num_bad > 0 || failed == 0 || workload->sample->may_mend,
		  "%s: %u failed below and none above",
		  workload->name, failed);
	cr_assert(num_bad <= failed || workload->is_aftermath, "%s: %u failed below, %u above",
		  workload->name, failed, num_bad);
}

/* ---- runs ----------------------------------------------------------------------------------- */

void workload_fill_leaf(const struct sample *sample, unsigned int leaf, unsigned char *bytes)
{
	memset(bytes, sample->side_leaves >> leaf & 1 ? 0 : INITIAL_BYTE, WORKLOAD_LEAF_BYTES);
}

void workload_run(struct workload *workload)
{
	workload->next = 0;
	for (unsigned int i = 0; i < SAMPLE_SECTORS; i++)
		workload->allowed[i] = 1u << INITIAL;
	for (unsigned int i = 0; i < NUM_ONE_BY_ONE; i++)
		run_one(workload, &one_by_one[i]);
	run_at_once(workload);
}

void workload_check(struct workload *workload)
{
	static const struct request whole[] = {
		{ DMCORE_OP_READ, 0, 0, SAMPLE_SECTORS },
		{ DMCORE_OP_WRITE, 0, 0, SAMPLE_SECTORS },
		{ DMCORE_OP_READ, 0, 0, SAMPLE_SECTORS },
	};

	workload->next = NUM_ONE_BY_ONE + NUM_AT_ONCE;
	for (unsigned int i = 0; i < 3; i++)
		run_one(workload, &whole[i]);
}

void workload_check_leaf(struct workload *workload, unsigned int leaf, const unsigned char *bytes)
{
	if (workload->sample->side_leaves >> leaf & 1)
		return;
	for (unsigned int i = 0; i < SAMPLE_LEAF_SECTORS; i++) {
		bool changed = !is_filled(bytes + (size_t)i * DMCORE_SECTOR_BYTES, INITIAL_BYTE);

		if (!workload->learned)
			workload->changes[leaf][i] = changed;
		cr_assert(!changed || workload->changes[leaf][i],
			  "%s: sector %u of leaf %u was changed", workload->name, i, leaf);
	}
}

void workload_learned(struct workload *workload)
{
	workload->learned = true;
}
