/* SPDX-License-Identifier: MIT */
/* dm-io on devices that fail: which bits are set, what is written, what is read, in any order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/dmio_world.h"
#include "../../support/rng.h"

static struct world world;

/* ---- every subset of eight regions ---------------------------------------------------------- */

#define LEGS 8
#define LEG_SECTORS 24
#define LEG_BYTES (LEG_SECTORS * DMCORE_SECTOR_BYTES)

static unsigned char data[LEG_BYTES];

static void expect_leg(unsigned int leg, bool failed)
{
	unsigned char *disk = world_bytes(&world, leg, 0);

	cr_assert(is_zero(disk, (size_t)leg * DMCORE_SECTOR_BYTES));
	disk += (size_t)leg * DMCORE_SECTOR_BYTES;
	if (failed)
		cr_assert(is_zero(disk, LEG_BYTES));
	else
		cr_assert_arr_eq(disk, data, LEG_BYTES);
	cr_assert(is_zero(disk + LEG_BYTES, LEG_BYTES));
	memset(disk, 0, LEG_BYTES);
}

static void write_subset(const struct pages *pages, unsigned int subset, int flags)
{
	unsigned int flush_ops = flags & DMIO_PREFLUSH ? FAULT_FLUSH : FAULT_WRITE;
	struct fault_rule rule = { .action = FAULT_FAIL, .status = -EIO, .ops = flush_ops };
	struct pending pending = { 0 };
	struct dmio_region where[LEGS];

	for (unsigned int leg = 0; leg < LEGS; leg++) {
		where[leg] = world_region(&world, leg, leg, LEG_SECTORS);
		if (subset >> leg & 1)
			fault_add_rule(world.disk[leg], &rule);
	}
	cr_assert_eq(dmio_async(world.client, LEGS, where, DMIO_WRITE | flags, pages->list, 33,
				pending_done, &pending),
		     0);
	cr_assert_eq(world_wait(&world, &pending), subset);
	for (unsigned int leg = 0; leg < LEGS; leg++) {
		expect_leg(leg, subset >> leg & 1);
		fault_clear_rules(world.disk[leg]);
	}
}

static void write_all_subsets(int flags)
{
	struct pages pages;

	world_open(&world, LEGS, "128", 4);
	world_fill(&world, data, sizeof(data));
	pages_create(&pages, 4, 2);
	pages_copy_in(&pages, 33, data, sizeof(data));
	for (unsigned int subset = 0; subset < 1u << LEGS; subset++)
		write_subset(&pages, subset, flags);
	pages_destroy(&pages);
	world_close(&world);
}

Test(failures, error_bits_are_the_subset_of_eight_regions_that_failed)
{
	write_all_subsets(0);
}

Test(failures, error_bits_are_the_subset_of_eight_flushes_that_failed)
{
	write_all_subsets(DMIO_PREFLUSH | DMIO_FUA);
}

Test(failures, bit_63_is_the_last_region)
{
	struct dmio_region where[DMIO_REGIONS_MAX];
	struct fault_rule rule = { .action = FAULT_FAIL, .status = -EIO };
	unsigned int last = DMIO_REGIONS_MAX - 1;
	unsigned long bits = 0;

	world_open(&world, DMIO_REGIONS_MAX, "128", 4);
	for (unsigned int i = 0; i <= last; i++)
		where[i] = world_region(&world, i, 0, LEG_SECTORS);
	fault_add_rule(world.disk[last], &rule);
	cr_assert_eq(dmio_sync_vm(world.client, DMIO_REGIONS_MAX, where, DMIO_WRITE, data, &bits),
		     -EIO);
	cr_assert_eq(bits, 1ul << last);
	for (unsigned int i = 0; i <= last; i++)
		fault_add_rule(world.disk[i], &rule);
	cr_assert_eq(dmio_sync_vm(world.client, DMIO_REGIONS_MAX, where, DMIO_WRITE, data, &bits),
		     -EIO);
	cr_assert_eq(bits, ~0ul);
	world_close(&world);
}

/* ---- one region in n pieces, ended in every order -------------------------------------------- */

/* All orders of so many pieces. */
#define PIECES_ALL 5
/* Some orders of so many. */
#define PIECES_MAX 8
#define ORDERS_SOME 200
#define PIECE_PAGES 64
#define PIECE_BYTES ((size_t)PIECE_PAGES * DMIO_PAGE_BYTES)
#define PIECE_SECTORS (PIECE_BYTES / DMCORE_SECTOR_BYTES)

struct orders {
	struct pages pages;
	unsigned int num_pieces;
	int op;
	unsigned char *expected; /* READ: what the disk holds */
	unsigned char *got;
};

static void expect_piece(const struct orders *orders, unsigned int piece, bool failed)
{
	size_t at = piece * PIECE_BYTES;

	if (orders->op == DMIO_WRITE) {
		unsigned char *disk = world_bytes(&world, 0, piece * PIECE_SECTORS);

		cr_assert_eq(*disk, failed ? 0 : piece + 1);
		cr_assert_eq(disk[PIECE_BYTES - 1], failed ? 0 : piece + 1);
		memset(disk, 0, PIECE_BYTES);
	} else if (failed) {
		cr_assert(is_zero(orders->got + at, PIECE_BYTES));
	} else {
		cr_assert_eq(memcmp(orders->got + at, orders->expected + at, PIECE_BYTES), 0);
	}
}

/* Ends the pieces in the order that the number `order` (of n!) stands for; piece `bad` fails. */
static void run_order(struct orders *orders, unsigned int order, unsigned int bad)
{
	struct dmio_region where = world_region(&world, 0, 0, orders->num_pieces * PIECE_SECTORS);
	struct pending pending = { 0 };

	cr_assert_eq(dmio_async(world.client, 1, &where, orders->op, orders->pages.list, 0,
				pending_done, &pending),
		     0);
	cr_assert_eq(fault_num_held(world.disk[0]), orders->num_pieces);
	for (unsigned int left = orders->num_pieces; left > 0; left--) {
		unsigned int index = order % left;
		uint64_t sector = fault_held(world.disk[0], index).sector;

		order /= left;
		cr_assert_eq(pending.calls, 0);
		fault_release(world.disk[0], index, sector / PIECE_SECTORS == bad ? -EIO : 0);
		world_settle(&world);
	}
	cr_assert_eq(pending.calls, 1);
	cr_assert_eq(pending.error_bits, bad < orders->num_pieces);
	if (orders->op == DMIO_READ)
		pages_copy_out(&orders->pages, 0, orders->got, orders->num_pieces * PIECE_BYTES);
	for (unsigned int piece = 0; piece < orders->num_pieces; piece++)
		expect_piece(orders, piece, piece == bad);
}

static void run_all_orders(int op)
{
	struct fault_rule hold = { .action = FAULT_HOLD };
	unsigned int num_orders = 1;
	struct orders orders = { .op = op };

	world_open(&world, 1, "8192", 0);
	fault_add_rule(world.disk[0], &hold);
	orders.expected = calloc(PIECES_MAX, PIECE_BYTES);
	orders.got = calloc(PIECES_MAX, PIECE_BYTES);
	pages_create(&orders.pages, PIECES_MAX * PIECE_PAGES, 2);
	for (unsigned int i = 0; i < PIECES_MAX; i++)
		memset(orders.expected + i * PIECE_BYTES, (int)i + 1, PIECE_BYTES);
	if (op == DMIO_READ)
		memcpy(world_bytes(&world, 0, 0), orders.expected, PIECES_MAX * PIECE_BYTES);
	else
		pages_copy_in(&orders.pages, 0, orders.expected, PIECES_MAX * PIECE_BYTES);

	for (unsigned int n = 1; n <= PIECES_ALL; n++) {
		num_orders *= n;
		orders.num_pieces = n;
		for (unsigned int order = 0; order < num_orders; order++) {
			for (unsigned int bad = 0; bad <= n; bad++)
				run_order(&orders, order, bad);
		}
	}
	for (unsigned int n = PIECES_ALL + 1; n <= PIECES_MAX; n++) {
		num_orders *= n;
		orders.num_pieces = n;
		for (unsigned int i = 0; i < ORDERS_SOME; i++)
			run_order(&orders, (unsigned int)world_random(&world, num_orders),
				  (unsigned int)world_random(&world, n + 1));
	}
	pages_destroy(&orders.pages);
	free(orders.expected);
	free(orders.got);
	world_close(&world);
}

Test(failures, a_failed_piece_counts_in_whatever_order_writes_end, .timeout = 120)
{
	run_all_orders(DMIO_WRITE);
}

Test(failures, a_failed_piece_counts_in_whatever_order_reads_end, .timeout = 120)
{
	run_all_orders(DMIO_READ);
}

/* ---- a long random run ----------------------------------------------------------------------- */

#define SLOTS 40
#define SLOT_SECTORS 32
#define SLOT_BYTES (SLOT_SECTORS * DMCORE_SECTOR_BYTES)
#define MIX_DISKS 4
#define MIX_OPERATIONS 50000
#define MIX_OPERATIONS_FULL 1000000

/* Slot i has its own sectors on every disk, and one request at a time. */
struct slot {
	bool busy;
	int op;
	unsigned int first_disk;
	unsigned int num_regions;
	unsigned int calls;
	unsigned char data[SLOT_BYTES];
	unsigned char on_disk[MIX_DISKS][SLOT_BYTES];
	bool known[MIX_DISKS]; /* on_disk is what the disk holds */
};

static struct slot slots[SLOTS];
static unsigned int operations;
static unsigned int started;
static unsigned int ended;

static void start_slot(struct slot *slot);

static void note_end(struct slot *slot, unsigned int region, bool failed)
{
	unsigned int disk = slot->first_disk + region;

	if (slot->op == DMIO_READ) {
		if (failed)
			cr_assert(is_zero(slot->data, SLOT_BYTES));
		else if (slot->known[disk])
			cr_assert_arr_eq(slot->data, slot->on_disk[disk], SLOT_BYTES);
	} else if (slot->op == DMIO_WRITE) {
		slot->known[disk] = !failed;
		memcpy(slot->on_disk[disk], slot->data, SLOT_BYTES);
	} else if (slot->op != DMIO_FLUSH) {
		slot->known[disk] = !failed;
		memset(slot->on_disk[disk], 0, SLOT_BYTES);
	}
}

static void slot_done(unsigned long error, void *context)
{
	struct slot *slot = context;

	cr_assert(slot->busy);
	cr_assert_eq(error >> slot->num_regions, 0);
	slot->busy = false;
	slot->calls++;
	ended++;
	for (unsigned int i = 0; i < slot->num_regions; i++)
		note_end(slot, i, error >> i & 1);
	/* Half of the time the next one starts in here. */
	if (world_random(&world, 2))
		start_slot(slot);
}

static void start_slot(struct slot *slot)
{
	uint64_t sector = (uint64_t)(slot - slots) * SLOT_SECTORS;
	struct dmio_region where[MIX_DISKS];
	int flags = 0;

	if (slot->busy || started == operations)
		return;
	slot->op = (int)world_random(&world, DMIO_WRITE_ZEROES + 1);
	slot->first_disk = (unsigned int)world_random(&world, MIX_DISKS);
	slot->num_regions = 1 + (unsigned int)world_random(&world, MIX_DISKS - slot->first_disk);
	if (slot->op == DMIO_READ)
		slot->num_regions = 1;
	if (slot->op == DMIO_WRITE) {
		world_fill(&world, slot->data, SLOT_BYTES);
		flags |= world_random(&world, 2) ? DMIO_FUA : 0;
		flags |= world_random(&world, 4) ? 0 : DMIO_PREFLUSH;
	}
	for (unsigned int i = 0; i < slot->num_regions; i++)
		where[i] = world_region(&world, slot->first_disk + i, sector, SLOT_SECTORS);
	slot->busy = true;
	if (dmio_async_vm(world.client, slot->num_regions, where, slot->op | flags, slot->data,
			  slot_done, slot) == 0)
		started++;
	else
		slot->busy = false;
}

/* Ends a request that some disk holds, now and then with an error. */
static bool release_one(void)
{
	unsigned int disk = (unsigned int)world_random(&world, MIX_DISKS);

	for (unsigned int i = 0; i < MIX_DISKS; i++, disk = (disk + 1) % MIX_DISKS) {
		unsigned int num_held = fault_num_held(world.disk[disk]);
		int status = world_random(&world, 8) ? 0 : -EIO;

		if (num_held > 0) {
			fault_release(world.disk[disk],
				      (unsigned int)world_random(&world, num_held), status);
			return true;
		}
	}
	return false;
}

Test(failures, mixed_operations_in_random_order_end_once_and_leave_what_they_said, .timeout = 36000)
{
	struct fault_rule hold = { .action = FAULT_HOLD };
	unsigned int calls = 0;

	/* More slots than requests: the client is used up all the time. */
	world_open(&world, MIX_DISKS, "4096", 0);
	for (unsigned int i = 0; i < MIX_DISKS; i++)
		fault_add_rule(world.disk[i], &hold);
	memset(slots, 0, sizeof(slots));
	operations = rng_full() ? MIX_OPERATIONS_FULL : MIX_OPERATIONS;
	started = 0;
	ended = 0;
	do {
		start_slot(&slots[world_random(&world, SLOTS)]);
		if (world_random(&world, 3) || started == operations)
			release_one();
		if (world_random(&world, 2))
			world_settle(&world);
	} while (ended < operations);
	for (unsigned int i = 0; i < SLOTS; i++) {
		calls += slots[i].calls;
		cr_assert(!slots[i].busy);
	}
	cr_assert_eq(calls, operations);
	cr_assert(!release_one());
	world_close(&world);
	cr_assert_eq(ended, operations, "called back by what is gone");
}
