/* SPDX-License-Identifier: MIT */
/* Jobs whose data are looked at, and changed, between being read and being written. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 4096
#define COUNT 1000u
#define SLICE 64u

static struct copy copy;
static unsigned int seen[COUNT];
static bool changes;

static void open_disks(void)
{
	copies_open(3, SECTORS, "");
	copies_client(64, SLICE, 0);
}

TestSuite(data, .init = open_disks, .fini = copies_close);

static void look(struct kcopyd_job *job, uint64_t offset, void *data, uint64_t count)
{
	cr_assert_eq(job, &copy.job);
	cr_assert_leq(count, SLICE);
	cr_assert_leq(offset + count, job->from.count);
	if (!job->read_err)
		cr_assert_lt(pattern_differs(data, job->from.sector + offset, count, 1), 0);
	for (uint64_t i = offset; i < offset + count; i++)
		seen[i]++;
	if (changes)
		pattern_fill(data, job->dests[0].sector + offset, count, 77);
}

static void expect_seen(unsigned int times)
{
	for (unsigned int i = 0; i < COUNT; i++)
		cr_assert_eq(seen[i], times, "sector %u: %u times", i, seen[i]);
}

Test(data, is_seen_once_each)
{
	copies_set(&copy, 0, 100, COUNT, 2, 0);
	copy.job.data = look;
	copies_run(&copy);
	copies_expect_copied(&copy, COUNT);
	expect_seen(1);
}

Test(data, is_written_as_it_was_changed)
{
	changes = true;
	copies_set(&copy, 0, 100, COUNT, 2, KCOPYD_WRITE_SEQ);
	copy.job.dests[1].sector = 100;
	copy.job.data = look;
	copies_run(&copy);
	expect_seen(1);
	for (unsigned int disk = 1; disk <= 2; disk++)
		cr_assert_lt(pattern_differs(copies_bytes(disk, 100), 100, COUNT, 77), 0);
	copies_expect_own(0, 0, SECTORS);
	copies_expect_own(1, 0, 100);
	copies_expect_own(1, 100 + COUNT, SECTORS - 100 - COUNT);
}

Test(data, that_cannot_be_read_is_not_shown)
{
	copies_fail(0, FAULT_READ, 100, COUNT);
	copies_set(&copy, 0, 100, 10, 1, 0);
	copy.job.data = look;
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	expect_seen(0);
}

static void expect_refused(unsigned int flags)
{
	copies_set(&copy, 0, 100, COUNT, 1, flags);
	copy.job.data = look;
	cr_assert_eq(copies_try(&copy), -EINVAL, "flags %#x", flags);
	copy.job.data = NULL;
}

Test(data, is_refused_where_some_is_not_read_or_is_compared)
{
	expect_refused(KCOPYD_SPARSE);
	expect_refused(KCOPYD_SHARE);
	expect_refused(KCOPYD_VERIFY);
	copies_set(&copy, 0, 100, COUNT, 1, 0);
	copy.job.from.bdev = NULL;
	copy.job.data = look;
	cr_assert_eq(copies_try(&copy), -EINVAL);
	copy.job.data = NULL;
	copies_set(&copy, 0, 100, COUNT, 1, 0);
	copies_run(&copy);
}
