/* SPDX-License-Identifier: MIT */
/*
 * Tables are swapped under load: threads keep requests in flight on a device, while another one
 * replaces its table again and again. Each table maps to places of its own, so that a request can
 * prove which of them served it: one that was live between its submission and its end, and all of
 * the request. None fails, none is lost, none ends twice.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   a million swaps in all
 *	DMCORE_PROP_VERBOSE  says how many swaps and requests there were
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/rng.h"
#include "support/stage.h"
#include "support/stamp.h"

#define MEMBERS 4u
#define PLAIN_MEMBERS 8u
#define DEPTH 32u
#define SIZE UINT64_C(1024)
#define SPAN UINT64_C(4096) /* of a leaf, for each table */
#define COUNT_MAX UINT64_C(24)
#define CHUNK UINT64_C(8)
#define NUM_VARIANTS 12u
#define FULL_SWAPS 1000000u
/* Where the swaps of a run are timed out, it has done as many as it could. */
#define QUICK_SWAPS 20000u
#define QUICK_NS UINT64_C(800000000)
#define FEW_NS UINT64_C(150000000)

enum layout { LINEAR, STRIPED, SEVERAL, CHANGING_SIZE };

struct variant {
	enum layout layout;
	bool stacked;         /* requests go to a device on the one that is swapped */
	bool explicit;        /* suspend, then load and resume */
	bool pushing;         /* targets that push back, and suspends without flush */
	bool late;            /* another thread ends what the leaves are given */
	bool plain;           /* threads do plain I/O */
	bool mixed;           /* flushes and discards, too, and writes with flags */
	bool by_descriptor;   /* threads wait for their queue's descriptor */
	bool busy_swapper;    /* it has requests in flight itself, and does plain I/O */
};

struct member;

struct request {
	struct member *member;
	bool inflight;
	enum dmcore_op op;
	uint64_t sector;
	uint64_t count;
	uint64_t oldest; /* table that may serve it */
	unsigned char data[COUNT_MAX * DMCORE_SECTOR_BYTES] __attribute__((aligned(8)));
};

struct member {
	struct dmcore_queue *queue;
	struct rng rng;
	unsigned int inflight;
	_Atomic uint64_t ended;
	uint64_t waited; /* of them, those that saw a swap */
	pthread_t thread;
	struct request requests[DEPTH];
};

static struct {
	const struct variant *variant;
	struct stage stage;
	struct dmcore_device *device; /* that is swapped */
	struct dmcore_bdev *top;      /* that requests go to */
	_Atomic uint64_t begun;       /* table whose resume has been called */
	_Atomic uint64_t done;        /* table whose resume has returned */
	_Atomic bool stop;
	_Atomic bool failed;
	char why[256];
	struct member members[PLAIN_MEMBERS + 1];
} world;

/* Remembers the first thing that went wrong; the test's own thread tells. */
static void __attribute__((format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list args;

	if (atomic_exchange(&world.stop, true) && atomic_load(&world.failed))
		return;
	va_start(args, format);
	vsnprintf(world.why, sizeof(world.why), format, args);
	va_end(args);
	atomic_store(&world.failed, true);
}

/* ---- tables --------------------------------------------------------------------------------- */

static uint64_t size_of(uint64_t n)
{
	return world.variant->layout == CHANGING_SIZE && n % 2 ? SIZE / 2 : SIZE;
}

/* Where the targets of table `n` meet. */
static uint64_t border_of(uint64_t n)
{
	return 100 + n * 7 % 300;
}

/* Where a sector of table `n` must go: the leaf, and the sector on it. */
static struct stamp_mark place(uint64_t n, uint64_t sector)
{
	struct stamp_mark at = { .sector = n * SPAN + sector, .leaf = (uint32_t)(n % 2) };

	switch (world.variant->layout) {
	case STRIPED:
		at.leaf = (uint32_t)(sector / CHUNK % 2);
		at.sector = n * SPAN + sector / CHUNK / 2 * CHUNK + sector % CHUNK;
		break;
	case SEVERAL:
		if (sector >= border_of(n))
			at.leaf = 1 - at.leaf;
		break;
	default:
		break;
	}
	return at;
}

static struct dmcore_table *make_table(uint64_t n)
{
	const char *late = world.variant->late ? ",late" : "";
	const char *type = world.variant->pushing ? "pushing" : "linear";
	unsigned int leaf = n % 2;
	uint64_t border = border_of(n);
	struct dmcore_table *table;
	char text[256];
	int ret;

	if (world.variant->layout == STRIPED)
		snprintf(text, sizeof(text),
			 "0 %" PRIu64 " striped 2 %" PRIu64 " stamp:0%s %" PRIu64
			 " stamp:1%s %" PRIu64,
			 SIZE, CHUNK, late, n * SPAN, late, n * SPAN);
	else if (world.variant->layout == SEVERAL)
		snprintf(text, sizeof(text),
			 "0 %" PRIu64 " %s stamp:%u%s %" PRIu64 "\n"
			 "%" PRIu64 " %" PRIu64 " %s stamp:%u%s %" PRIu64,
			 border, type, leaf, late, n * SPAN, border, SIZE - border, type,
			 1 - leaf, late, n * SPAN + border);
	else
		snprintf(text, sizeof(text), "0 %" PRIu64 " %s stamp:%u%s %" PRIu64, size_of(n),
			 type, leaf, late, n * SPAN);
	ret = dmcore_table_parse(world.stage.core, text, 0, &table);
	cr_assert_eq(ret, 0, "%s: %d: %s", text, ret, dmcore_error_message());
	return table;
}

/* ---- a target that pushes back -------------------------------------------------------------- */

struct pushing {
	struct dmcore_bdev *bdev;
	uint64_t start;
};

static int pushing_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct pushing *pushing = dmcore_target_alloc(target, sizeof(*pushing));
	int ret;

	if (!pushing)
		return dmcore_args_fail(args, -ENOMEM, "no memory");
	ret = dmcore_target_device(target, dmcore_args_next(args), &pushing->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "no device");
	target->private_data = pushing;
	return dmcore_args_u64(args, 0, UINT64_MAX, "no sector", &pushing->start);
}

static enum dmcore_map_result pushing_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct pushing *pushing = target->private_data;

	if (bio->count % 2 && dmcore_target_noflush(target))
		return DMCORE_MAP_REQUEUE;
	bio->bdev = pushing->bdev;
	bio->sector = pushing->start + bio->sector - target->begin;
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_end_result pushing_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					     int *status)
{
	(void)bio;
	(void)status;
	return dmcore_target_noflush(target) ? DMCORE_END_REQUEUE : DMCORE_END_DONE;
}

static unsigned int pushing_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

static int pushing_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				   void *context)
{
	const struct pushing *pushing = target->private_data;

	return fn(target, pushing->bdev, pushing->start, dmcore_target_len(target), context);
}

static const struct dmcore_target_type pushing_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "pushing",
	.version = { 1, 0, 0 },
	.features = DMCORE_TARGET_TYPE_REQUEUES,
	.ctr = pushing_ctr,
	.map = pushing_map,
	.end_io = pushing_end_io,
	.num_bios = pushing_num_bios,
	.iterate_devices = pushing_iterate_devices,
};

/* ---- requests ------------------------------------------------------------------------------- */

static void choose(struct member *member, struct request *request)
{
	static const uint64_t starts = SIZE - COUNT_MAX + 1;
	struct rng *rng = &member->rng;
	bool mixed = world.variant->mixed;

	request->count = rng_between(rng, 1, COUNT_MAX);
	request->sector = rng_below(rng, starts);
	request->op = rng_one_in(rng, 2) ? DMCORE_OP_READ : DMCORE_OP_WRITE;
	if (mixed && rng_one_in(rng, 6))
		request->op = rng_one_in(rng, 2) ? DMCORE_OP_FLUSH : DMCORE_OP_DISCARD;
	for (uint64_t i = 0; i < request->count; i++) {
		void *sector = request->data + i * DMCORE_SECTOR_BYTES;

		memset(sector, 0, sizeof(struct stamp_mark));
	}
	request->oldest = atomic_load(&world.done);
}

/* Whether table `n` served all of a request, and once. */
static bool served(const struct request *request, uint64_t n)
{
	for (uint64_t i = 0; i < request->count; i++) {
		const void *sector = request->data + i * DMCORE_SECTOR_BYTES;
		const struct stamp_mark *mark = sector;
		struct stamp_mark at = place(n, request->sector + i);
		bool once = world.variant->pushing ? mark->times > 0 : mark->times == 1;

		if (mark->sector != at.sector || mark->leaf != at.leaf || !once)
			return false;
	}
	return true;
}

/* Which table a request reached, going by where it is now: one that isn't split says so. */
static bool reached(const struct request *request, const struct dmcore_bio *bio, uint64_t n)
{
	struct stamp_mark at = place(n, request->sector);

	if (world.variant->layout == STRIPED || world.variant->layout == SEVERAL)
		return true;
	return stamp_leaf(bio->bdev) == at.leaf &&
	       (request->op == DMCORE_OP_FLUSH || bio->sector == at.sector);
}

/* Checks a request that has ended; bio is NULL of plain I/O. */
static void check(struct request *request, const struct dmcore_bio *bio, int status)
{
	const struct stamp_mark *first = (const void *)request->data;
	struct member *member = request->member;
	uint64_t newest = atomic_load(&world.begun);
	bool ranged = request->op != DMCORE_OP_FLUSH;

	atomic_store_explicit(&member->ended, member->ended + 1, memory_order_relaxed);
	member->waited += newest > request->oldest;
	for (uint64_t n = request->oldest; n <= newest; n++) {
		if (ranged && request->sector + request->count > size_of(n)) {
			if (status == -EIO)
				return;
		} else if (status == 0) {
			if (request->op <= DMCORE_OP_WRITE ? served(request, n)
							   : !bio || reached(request, bio, n))
				return;
		}
	}
	fail("request %d of %" PRIu64 " sectors at %" PRIu64 " ended with %d; tables %" PRIu64
	     " to %" PRIu64 " were live; its first mark is leaf %u, table %" PRIu64 ", %u times",
	     (int)request->op, request->count, request->sector, status, request->oldest, newest,
	     first->leaf, first->sector / SPAN, first->times);
}

static void send(struct request *request);

static void ended(struct dmcore_bio *bio)
{
	struct request *request = bio->context;
	struct member *member = request->member;

	if (!request->inflight)
		fail("a request ended twice");
	request->inflight = false;
	member->inflight--;
	check(request, bio, bio->status);
	dmcore_bio_put(bio);
	if (!atomic_load(&world.stop))
		send(request);
}

static void send(struct request *request)
{
	struct member *member = request->member;
	struct dmcore_bio *bio = dmcore_bio_get(member->queue);
	int ret;

	if (!bio) {
		fail("no bio");
		return;
	}
	choose(member, request);
	dmcore_bio_set_buffer(bio, request->data, request->count * DMCORE_SECTOR_BYTES);
	bio->bdev = world.top;
	bio->op = (uint8_t)request->op;
	bio->sector = request->sector;
	if (world.variant->mixed && request->op == DMCORE_OP_WRITE)
		bio->flags = (uint16_t)rng_below(&member->rng, 4); /* FUA, PREFLUSH */
	bio->done = ended;
	bio->context = request;
	request->inflight = true;
	member->inflight++;
	ret = dmcore_bio_submit(bio);
	if (ret)
		fail("submit: %d", ret);
}

/* As dmcore_queue_poll() with a wait for one completion at least. */
static int wait_by_descriptor(struct dmcore_queue *queue)
{
	struct pollfd fd = { .fd = dmcore_queue_fd(queue), .events = POLLIN };
	int ret = dmcore_queue_kick(queue);

	while (ret == 0) {
		ret = poll(&fd, 1, (int)(STAGE_PATIENCE_NS / 1000000));
		if (ret == 0)
			return 0;
		ret = dmcore_queue_poll(queue, 0, UINT32_MAX, 0);
		if (ret == 0)
			ret = dmcore_queue_kick(queue);
	}
	return ret;
}

/* Polls until no request is in flight. */
static void drain(struct member *member)
{
	while (member->inflight) {
		int ret = world.variant->by_descriptor
				  ? wait_by_descriptor(member->queue)
				  : dmcore_queue_poll(member->queue, 1, UINT32_MAX,
						      STAGE_PATIENCE_NS);

		if (ret == 0 || (ret < 0 && ret != -EINTR)) {
			fail("poll: %d, and %u requests are lost", ret, member->inflight);
			return;
		}
	}
}

static void *member_main(void *argument)
{
	struct member *member = argument;

	for (unsigned int i = 0; i < DEPTH; i++)
		send(&member->requests[i]);
	drain(member);
	return NULL;
}

static void do_plain(struct member *member)
{
	struct request *request = &member->requests[0];
	uint64_t bytes;
	int ret;

	choose(member, request);
	bytes = request->count * DMCORE_SECTOR_BYTES;
	if (request->op == DMCORE_OP_READ)
		ret = dmcore_pread(world.top, request->data, bytes,
				   request->sector * DMCORE_SECTOR_BYTES);
	else if (request->op == DMCORE_OP_WRITE)
		ret = dmcore_pwrite(world.top, request->data, bytes,
				    request->sector * DMCORE_SECTOR_BYTES);
	else if (request->op == DMCORE_OP_FLUSH)
		ret = dmcore_flush(world.top);
	else
		ret = dmcore_discard(world.top, bytes, request->sector * DMCORE_SECTOR_BYTES);
	check(request, NULL, ret);
}

static void *plain_main(void *argument)
{
	while (!atomic_load(&world.stop))
		do_plain(argument);
	return NULL;
}

/* ---- swaps ---------------------------------------------------------------------------------- */

static void swap(uint64_t n)
{
	const struct variant *variant = world.variant;
	unsigned int flags = variant->pushing ? DMCORE_SUSPEND_NOFLUSH : 0;
	struct dmcore_table *table = make_table(n);
	int ret = 0;

	/* One that is given up as a rule leaves all as it was. */
	if (variant->pushing)
		ret = dmcore_device_suspend(world.device, flags, 0);
	if (variant->explicit && (ret == 0 || ret == -ETIMEDOUT))
		ret = dmcore_device_suspend(world.device, flags, -1);
	cr_assert_eq(ret, 0, "suspend %" PRIu64 ": %d: %s", n, ret, dmcore_error_message());
	ret = dmcore_device_load(world.device, table);
	cr_assert_eq(ret, 0, "load %" PRIu64 ": %d: %s", n, ret, dmcore_error_message());
	atomic_store(&world.begun, n);
	ret = dmcore_device_resume(world.device);
	cr_assert_eq(ret, 0, "resume %" PRIu64 ": %d: %s", n, ret, dmcore_error_message());
	atomic_store(&world.done, n);
}

static unsigned int num_members(void)
{
	return world.variant->plain ? PLAIN_MEMBERS : MEMBERS;
}

static uint64_t num_ended(void)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < num_members(); i++)
		sum += atomic_load_explicit(&world.members[i].ended, memory_order_relaxed);
	return sum;
}

/* Most swaps follow each other at once, others find every request on its way again. */
static void let_requests_pass(struct rng *rng)
{
	uint64_t enough = num_ended() + rng_below(rng, 2 * MEMBERS * DEPTH);

	if (!rng_one_in(rng, rng_full() ? 64 : 4))
		return;
	while (num_ended() < enough && !atomic_load(&world.stop))
		sched_yield();
}

/* The leaves touch no backend: one mode of make check is enough for many swaps. */
static uint64_t longest_ns(void)
{
	const char *backend = getenv("DMCORE_BACKEND");

	if (rng_full())
		return UINT64_MAX;
	return backend && strcmp(backend, "pread") == 0 ? QUICK_NS : FEW_NS;
}

static void run_swaps(struct member *swapper)
{
	uint64_t count = rng_full() ? FULL_SWAPS / NUM_VARIANTS + 1 : QUICK_SWAPS;
	uint64_t longest = longest_ns();
	uint64_t begun_ns = stage_now_ns();

	/* Two, however slow the machine is. */
	for (uint64_t n = 1; n <= count && !atomic_load(&world.failed); n++) {
		swap(n);
		let_requests_pass(&swapper->rng);
		if (world.variant->busy_swapper)
			do_plain(swapper);
		if (n > 1 && stage_now_ns() - begun_ns > longest)
			break;
	}
	if (getenv("DMCORE_PROP_VERBOSE"))
		fprintf(stderr, "%" PRIu64 " swaps, %" PRIu64 " requests in %.2f s\n",
			atomic_load(&world.done), num_ended(),
			(double)(stage_now_ns() - begun_ns) / 1e9);
}

static void open_world(const struct variant *variant)
{
	memset(&world, 0, sizeof(world));
	world.variant = variant;
	stage_open(&world.stage, NULL, NULL);
	cr_assert_eq(stamp_register(world.stage.core), 0);
	cr_assert_eq(dmcore_target_register(world.stage.core, &pushing_type), 0);
	for (unsigned int i = 0; i < 2; i++) {
		char spec[32];

		snprintf(spec, sizeof(spec), "stamp:%u%s", i, variant->late ? ",late" : "");
		stage_bdev(&world.stage, spec, 0);
	}
	cr_assert_eq(dmcore_device_create(world.stage.core, "set", NULL, 0, &world.device), 0);
	world.stage.devices[world.stage.num_devices++] = world.device;
	swap(0);
	world.top = dmcore_device_bdev(world.device);
	if (variant->stacked)
		world.top = stage_map(&world.stage, "top", "0 1024 linear set 0");
}

static void start_member(unsigned int i)
{
	struct member *member = &world.members[i];
	void *(*entry)(void *) = world.variant->plain ? plain_main : member_main;

	rng_start(&member->rng, i);
	for (unsigned int k = 0; k < DEPTH; k++)
		member->requests[k].member = member;
	if (i == PLAIN_MEMBERS)
		return;
	if (!world.variant->plain)
		cr_assert_eq(dmcore_queue_create(world.stage.core, NULL, &member->queue), 0);
	cr_assert_eq(pthread_create(&member->thread, NULL, entry, member), 0);
}

/* Until requests of all are on their way: a loaded machine may start a thread late. */
static void await_members(void)
{
	for (unsigned int i = 0; i < num_members(); i++) {
		while (atomic_load_explicit(&world.members[i].ended, memory_order_relaxed) == 0 &&
		       !atomic_load(&world.failed))
			sched_yield();
	}
}

static void run_variant(const struct variant *variant)
{
	struct member *swapper = &world.members[PLAIN_MEMBERS];
	uint64_t waited = 0;

	open_world(variant);
	if (variant->late)
		stamp_late_start();
	for (unsigned int i = 0; i < num_members(); i++)
		start_member(i);
	start_member(PLAIN_MEMBERS);
	swapper->queue = world.stage.queue;
	/* The first one serves its plain I/O. */
	for (unsigned int i = 1; variant->busy_swapper && i < DEPTH; i++)
		send(&swapper->requests[i]);
	await_members();
	run_swaps(swapper);
	atomic_store(&world.stop, true);
	drain(swapper);
	for (unsigned int i = 0; i < num_members(); i++) {
		struct member *member = &world.members[i];

		cr_assert_eq(pthread_join(member->thread, NULL), 0);
		waited += member->waited;
	}
	cr_assert_not(atomic_load(&world.failed), "%s; seed %" PRIu64, world.why, rng_seed());
	for (unsigned int i = 0; i < num_members(); i++) {
		cr_assert_gt(world.members[i].ended, 0);
		cr_assert_eq(dmcore_queue_destroy(world.members[i].queue), 0);
	}
	cr_assert_gt(waited, 0, "no request met a swap");
	if (variant->late)
		stamp_late_end();
	stage_close(&world.stage);
}

#define SWAPS(name, ...)                                                                           \
	Test(swaps, name, .timeout = 36000)                                                        \
	{                                                                                          \
		static const struct variant variant = { __VA_ARGS__ };                             \
                                                                                                   \
		run_variant(&variant);                                                             \
	}

SWAPS(of_a_linear, .layout = LINEAR)
SWAPS(of_a_stripe_that_splits, .layout = STRIPED)
SWAPS(of_several_targets_whose_border_moves, .layout = SEVERAL)
SWAPS(of_the_lower_one_of_two_devices, .layout = STRIPED, .stacked = true)
SWAPS(by_suspend_load_and_resume, .layout = SEVERAL, .explicit = true)
SWAPS(with_requests_pushed_back, .layout = SEVERAL, .explicit = true, .pushing = true)
SWAPS(below_plain_io, .layout = SEVERAL, .plain = true, .mixed = true, .busy_swapper = true)
SWAPS(among_flushes_and_discards, .layout = LINEAR, .mixed = true)
SWAPS(to_other_sizes, .layout = CHANGING_SIZE, .mixed = true)
SWAPS(of_leaves_that_end_requests_later, .layout = STRIPED, .late = true, .mixed = true)
SWAPS(above_threads_that_wait_for_descriptors, .layout = SEVERAL, .late = true,
      .by_descriptor = true)
SWAPS(by_a_thread_with_requests_of_its_own, .layout = SEVERAL, .busy_swapper = true)
