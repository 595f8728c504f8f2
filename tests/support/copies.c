/* SPDX-License-Identifier: MIT */
/* Disks, a client and watched jobs for tests of kcopyd; see copies.h. */
#include "copies.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

struct copies copies;

/* ---- around a test -------------------------------------------------------------------------- */

void copies_refill(unsigned int disk)
{
	pattern_fill(fault_data(copies.disk[disk]), 0, copies.sectors, disk + 1);
}

unsigned int copies_add_disk(const char *args)
{
	unsigned int disk = copies.num_disks++;

	cr_assert_lt(disk, COPIES_DISKS_MAX);
	copies.disk[disk] = stage_disk(&copies.stage, disk, copies.sectors, args);
	copies.bdev[disk] = copies.stage.bdevs[copies.stage.num_bdevs - 1];
	copies_refill(disk);
	return disk;
}

void copies_open_on(unsigned int num_disks, uint64_t sectors, const char *args,
		    const struct dmcore_options *options)
{
	memset(&copies, 0, sizeof(copies));
	stage_open(&copies.stage, options, NULL);
	copies.thread = pthread_self();
	copies.sectors = sectors;
	for (unsigned int i = 0; i < num_disks; i++)
		copies_add_disk(args);
}

void copies_open(unsigned int num_disks, uint64_t sectors, const char *args)
{
	copies_open_on(num_disks, sectors, args, NULL);
}

void copies_client(unsigned int num_pages, unsigned int subjob_sectors, unsigned int jobs)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	int ret;

	options.subjob_sectors = subjob_sectors;
	options.jobs = jobs;
	ret = kcopyd_client_create_with(copies.stage.queue, num_pages, &options, &copies.kc);
	cr_assert_eq(ret, 0, "client: %d: %s", ret, dmcore_error_message());
}

void copies_close(void)
{
	int ret;

	for (unsigned int i = 0; i < copies.num_disks; i++)
		copies_let_go(i);
	ret = kcopyd_client_destroy(copies.kc);
	cr_assert_eq(ret, 0, "client: %d: %s", ret, dmcore_error_message());
	copies.kc = NULL;
	stage_close(&copies.stage);
}

unsigned char *copies_bytes(unsigned int disk, uint64_t sector)
{
	return fault_data(copies.disk[disk]) + sector * DMCORE_SECTOR_BYTES;
}

struct dmio_region copies_region(unsigned int disk, uint64_t sector, uint64_t count)
{
	return (struct dmio_region){ copies.bdev[disk], sector, count };
}

/* ---- jobs ----------------------------------------------------------------------------------- */

void copies_note(struct copies_end *end, int read_err, unsigned int write_err)
{
	cr_assert(pthread_equal(pthread_self(), copies.thread), "a callback on another thread");
	cr_assert_eq(copies.calling, 0, "a callback inside a call of kcopyd");
	end->calls++;
	end->nr = ++copies.num_ends;
	end->read_err = read_err;
	end->write_err = write_err;
	cr_assert_eq(end->calls, 1, "%u callbacks", end->calls);
}

void copies_notify(int read_err, unsigned int write_err, void *context)
{
	copies_note(context, read_err, write_err);
}

void copies_done(struct kcopyd_job *job)
{
	struct copy *copy = (struct copy *)job;

	cr_assert_eq(job->context, copy);
	copies_note(&copy->end, job->read_err, job->write_err);
}

void copies_set(struct copy *copy, unsigned int disk, uint64_t sector, uint64_t count,
		unsigned int num_dests, unsigned int flags)
{
	memset(copy, 0, sizeof(*copy));
	copy->job.from = copies_region(disk, sector, count);
	for (unsigned int i = 0; i < num_dests; i++)
		copy->job.dests[i] = copies_region(disk + 1 + i, sector, count);
	copy->job.num_dests = num_dests;
	copy->job.flags = flags;
	copy->job.done = copies_done;
	copy->job.context = copy;
}

int copies_try(struct copy *copy)
{
	int ret;

	copies.calling++;
	ret = kcopyd_submit(copies.kc, &copy->job);
	copies.calling--;
	return ret;
}

void copies_start(struct copy *copy)
{
	int ret;

	memset(&copy->end, 0, sizeof(copy->end));
	ret = copies_try(copy);
	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
}

int copies_copy(const struct dmio_region *from, unsigned int num_dests,
		const struct dmio_region *dests, unsigned int flags, struct copies_end *end)
{
	int ret;

	memset(end, 0, sizeof(*end));
	copies.calling++;
	ret = kcopyd_copy(copies.kc, from, num_dests, dests, flags, copies_notify, end);
	copies.calling--;
	return ret;
}

int copies_zero(unsigned int num_dests, const struct dmio_region *dests, unsigned int flags,
		struct copies_end *end)
{
	int ret;

	memset(end, 0, sizeof(*end));
	copies.calling++;
	ret = kcopyd_zero(copies.kc, num_dests, dests, flags, copies_notify, end);
	copies.calling--;
	return ret;
}

void copies_settle(void)
{
	stage_settle(&copies.stage);
}

static void poll_once(void)
{
	int ret = dmcore_queue_poll(copies.stage.queue, 1, UINT32_MAX, STAGE_PATIENCE_NS);

	cr_assert(ret > 0 || ret == -EINTR, "poll: %d", ret);
}

void copies_wait(const struct copies_end *end)
{
	while (end->calls == 0)
		poll_once();
	copies_settle();
	cr_assert_eq(end->calls, 1);
}

void copies_succeed(struct copy *copy)
{
	copies_wait(&copy->end);
	cr_assert_eq(copy->job.status, 0, "status %d, read %d, write %#x, verify %#x",
		     copy->job.status, copy->job.read_err, copy->job.write_err,
		     copy->job.verify_err);
	cr_assert_eq(copy->job.read_err, 0);
	cr_assert_eq(copy->job.write_err, 0);
	cr_assert_eq(copy->job.verify_err, 0);
}

void copies_run(struct copy *copy)
{
	copies_start(copy);
	copies_succeed(copy);
}

/* Lets go one of all requests that disks hold; false: there is none. */
static bool let_one_go(struct rng *rng)
{
	unsigned int held = 0;
	uint64_t which;

	for (unsigned int i = 0; i < copies.num_disks; i++)
		held += fault_num_held(copies.disk[i]);
	if (held == 0)
		return false;
	which = rng_below(rng, held);
	for (unsigned int i = 0; i < copies.num_disks; i++) {
		held = fault_num_held(copies.disk[i]);
		if (which < held) {
			fault_release(copies.disk[i], (unsigned int)which, 0);
			return true;
		}
		which -= held;
	}
	return false;
}

void copies_scramble(struct rng *rng, struct copy *copy, unsigned int num_copies)
{
	for (unsigned int i = 0; i < num_copies; i++) {
		while (copy[i].end.calls == 0) {
			copies_settle();
			if (copy[i].end.calls == 0 && !let_one_go(rng))
				poll_once();
		}
	}
	copies_settle();
}

struct kcopyd_progress copies_progress(const struct copy *copy)
{
	struct kcopyd_progress progress = { .struct_size = sizeof(progress) };

	cr_assert_eq(kcopyd_progress(&copy->job, &progress), 0, "%s", dmcore_error_message());
	return progress;
}

/* ---- disks ---------------------------------------------------------------------------------- */

void copies_hold(unsigned int disk, unsigned int ops)
{
	fault_add_rule(copies.disk[disk],
		       &(struct fault_rule){ .action = FAULT_HOLD, .ops = ops });
}

void copies_fail(unsigned int disk, unsigned int ops, uint64_t sector, uint64_t count)
{
	fault_add_rule(copies.disk[disk], &(struct fault_rule){ .action = FAULT_FAIL,
								.status = -EIO,
								.ops = ops,
								.sector = sector,
								.count = count });
}

void copies_let_go(unsigned int disk)
{
	fault_clear_rules(copies.disk[disk]);
	fault_release_all(copies.disk[disk]);
}

unsigned int copies_held(unsigned int disk)
{
	return fault_num_held(copies.disk[disk]);
}

unsigned int copies_count(unsigned int disk, unsigned int ops)
{
	return fault_count(copies.disk[disk], ops);
}

void copies_expect_touched(unsigned int disk, enum dmcore_op op, uint64_t sector, uint64_t count,
			   unsigned int times)
{
	unsigned int logged = fault_num_logged(copies.disk[disk]);

	for (uint64_t s = 0; s < copies.sectors; s++) {
		unsigned int expected = s >= sector && s - sector < count ? times : 0;
		unsigned int found = 0;

		for (unsigned int i = 0; i < logged; i++) {
			struct fault_entry entry = fault_logged(copies.disk[disk], i);

			if (entry.op == op && s >= entry.sector && s - entry.sector < entry.count)
				found++;
		}
		cr_assert_eq(found, expected, "disk %u, sector %llu: operation %u came %u times",
			     disk, (unsigned long long)s, op, found);
	}
}

static void expect_pattern(unsigned int disk, uint64_t sector, uint64_t count, uint64_t as_sector,
			   uint32_t version)
{
	int64_t at = pattern_differs(copies_bytes(disk, sector), as_sector, count, version);

	cr_assert_eq(at, -1, "disk %u: of %llu sectors from %llu on, number %lld differs", disk,
		     (unsigned long long)count, (unsigned long long)sector,
		     (long long)(at - (int64_t)as_sector));
}

void copies_expect_own(unsigned int disk, uint64_t sector, uint64_t count)
{
	expect_pattern(disk, sector, count, sector, disk + 1);
}

void copies_expect_zero(unsigned int disk, uint64_t sector, uint64_t count)
{
	const unsigned char *bytes = copies_bytes(disk, sector);

	for (uint64_t i = 0; i < count * DMCORE_SECTOR_BYTES; i++)
		cr_assert_eq(bytes[i], 0, "disk %u, sector %llu isn't zero", disk,
			     (unsigned long long)(sector + i / DMCORE_SECTOR_BYTES));
}

static unsigned int disk_of(const struct dmcore_bdev *bdev)
{
	unsigned int disk = 0;

	while (disk < copies.num_disks && copies.bdev[disk] != bdev)
		disk++;
	cr_assert_lt(disk, copies.num_disks);
	return disk;
}

void copies_expect_copied(const struct copy *copy, uint64_t sectors)
{
	const struct dmio_region *from = &copy->job.from;
	unsigned int source = disk_of(from->bdev);

	for (unsigned int i = 0; i < copy->job.num_dests; i++) {
		const struct dmio_region *dest = &copy->job.dests[i];
		unsigned int disk = disk_of(dest->bdev);
		uint64_t end = dest->sector + from->count;

		expect_pattern(disk, dest->sector, sectors, from->sector, source + 1);
		if (disk == source)
			continue;
		copies_expect_own(disk, 0, dest->sector);
		copies_expect_own(disk, end, copies.sectors - end);
	}
}
