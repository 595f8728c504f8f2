/* SPDX-License-Identifier: MIT */
/* The switch target. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"
#include "support/rng.h"

#define DISK_SECTORS 512
#define PATHS_MAX 300
#define REGIONS_MAX 64

TestSuite(switch_target, .init = fixture_open, .fini = fixture_close);

static unsigned char buffer[DISK_SECTORS * DMCORE_SECTOR_BYTES];

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return fixture_run(&(struct fixture_io){
		.bdev = bdev, .op = op, .sector = sector, .count = count, .buffer = buffer });
}

static struct fault_disk *disk(char letter)
{
	char spec[32];

	snprintf(spec, sizeof(spec), "fault:512,id=%c", letter);
	return fixture_disk(spec);
}

/* The disks a, b and c, which hold their own letters. */
static void fill_disks(void)
{
	for (char letter = 'a'; letter <= 'c'; letter++)
		memset(fault_data(disk(letter)), letter, sizeof(buffer));
}

#define THREE_PATHS "fault:512,id=a 0 fault:512,id=b 0 fault:512,id=c 0"
/* Behind another target, so that neither its begin nor a sector count from the table's start. */
#define TABLE "0 5 zero\n5 128 switch 3 8 0 " THREE_PATHS

/* The paths of the regions of TABLE. */
static const char *mappings(struct dmcore_device *device)
{
	static char letters[17];

	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 5, 128), 0);
	for (size_t i = 0; i < 16; i++) {
		const unsigned char *region = buffer + i * 8 * DMCORE_SECTOR_BYTES;

		letters[i] = (char)region[0];
		cr_assert_eq(region[8 * DMCORE_SECTOR_BYTES - 1], region[0]);
	}
	return letters;
}

/* ---- messages: what the kernel does with each was asked of it ---- */

#define NONE "abcabcabcabcabca"
#define SYNTAX "invalid set_region_mappings argument"
#define REGION "invalid set_region_mappings region number"
#define DEVICE "invalid set_region_mappings device"
#define CYCLE "invalid set_region_mappings cycle length"

static const struct message {
	const char *words;
	const char *error; /* NULL: it is carried out */
	const char *after; /* the mappings, also when it fails */
} messages[] = {
	{ "", NULL, NONE },
	{ "0:2", NULL, "cbcabcabcabcabca" },
	{ "f:1", NULL, "abcabcabcabcabcb" },
	{ "F:1", NULL, "abcabcabcabcabcb" },
	{ "00000000000000000003:00000000000000002", NULL, "abccbcabcabcabca" },
	{ ":2", NULL, "accabcabcabcabca" }, /* region 1 */
	{ "0:2 :2 :0", NULL, "ccaabcabcabcabca" },
	{ "3:2 R1,4", NULL, "abcccccccabcabca" },
	{ "3:2 r1,4", NULL, "abcccccccabcabca" },
	{ "0:0 1:0 2:0 R3,2", NULL, "aaaaacabcabcabca" },
	{ ":2 :1 R2,4 8:2 R8,4", NULL, "acbcbcbbccbcbbca" },
	{ ":2 R2,3", NULL, "acacacabcabcabca" },
	{ "4:2 R5,b", NULL, "abcacabcacabcaca" },
	{ "4:2 R1,3 :0", NULL, "abcaccccaabcabca" },
	{ "4:2 R1,0 :0", NULL, "abcacaabcabcabca" },
	{ "R1,3", NULL, "aaaabcabcabcabca" },
	{ "R1,f", NULL, "aaaaaaaaaaaaaaaa" },
	{ "f:0 R1,0", NULL, NONE },
	{ ":", SYNTAX, NONE },
	{ "1", SYNTAX, NONE },
	{ "1:", SYNTAX, NONE },
	{ "x:1", SYNTAX, NONE },
	{ "1:2x", SYNTAX, NONE },
	{ "1:2,", SYNTAX, NONE },
	{ "1:2:1", SYNTAX, NONE },
	{ ":2:", SYNTAX, NONE },
	{ "0x1:1", SYNTAX, NONE },
	{ "+1:1", SYNTAX, NONE },
	{ "\\ 1:1", SYNTAX, NONE },
	{ "R", SYNTAX, NONE },
	{ "R1", SYNTAX, NONE },
	{ "R1,", SYNTAX, NONE },
	{ "R,3", SYNTAX, NONE },
	{ "R1,3x", SYNTAX, NONE },
	{ "R1,3,4", SYNTAX, NONE },
	{ "10:0", REGION, NONE },
	{ "10:9", REGION, NONE },
	{ "100000003:2", REGION, NONE },
	{ "ffffffffffffffff:1 :2", REGION, NONE },
	{ "R1,10", REGION, NONE },
	{ "0:3", DEVICE, NONE },
	{ "0:100000002", DEVICE, NONE },
	{ "R0,3", CYCLE, NONE },
	{ "R0,20", CYCLE, NONE },
	{ "R2,3", CYCLE, NONE },
	/* What stands before the wrong word is done. */
	{ "0:2 1:2 2:9 3:2", DEVICE, "cccabcabcabcabca" },
	{ "f:2 :1", REGION, "abcabcabcabcabcc" },
	{ ":2 R3,3", CYCLE, "accabcabcabcabca" },
	{ "4:2 R5,c", REGION, "abcaccabcabcabca" },
	{ "4:2 R1,ffffffffffffffff", REGION, "abcaccabcabcabca" },
	{ "4:2 R1", SYNTAX, "abcaccabcabcabca" },
	/* D-056 in docs/conformance.md: the kernel wraps at 64 bits. */
	{ "10000000000000003:2", SYNTAX, NONE },
	{ "0:10000000000000002", SYNTAX, NONE },
	{ "4:2 R10000000000000001,2", SYNTAX, "abcaccabcabcabca" },
	{ "4:2 R1,10000000000000002", SYNTAX, "abcaccabcabcabca" },
};

static void check_message(const struct message *message)
{
	struct dmcore_device *device = fixture_device("d", TABLE);
	char text[128];
	char whole[128];
	int64_t ret;

	snprintf(text, sizeof(text), "set_region_mappings %s", message->words);
	ret = dmcore_device_message(device, 5, text, NULL, 0);
	cr_assert_eq(ret, message->error ? -EINVAL : 0, "%s: %lld", text, (long long)ret);
	if (message->error) {
		snprintf(whole, sizeof(whole), "d: switch: %s", message->error);
		cr_assert_str_eq(dmcore_error_message(), whole, "%s", text);
	}
	cr_assert_str_eq(mappings(device), message->after, "%s", text);
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(switch_target, does_as_its_messages_say)
{
	fill_disks();
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(messages); i++)
		check_message(&messages[i]);
}

Test(switch_target, knows_one_message_in_any_case)
{
	struct dmcore_device *device;

	fill_disks();
	device = fixture_device("d", TABLE);
	cr_assert_eq(dmcore_device_message(device, 5, "SET_Region_Mappings 1:2", NULL, 0), 0);
	cr_assert_str_eq(mappings(device), "accabcabcabcabca");
	cr_assert_eq(dmcore_device_message(device, 5, "set_region_mapping 1:0", NULL, 0), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), "d: switch: Unrecognised message received.");
	cr_assert_str_eq(mappings(device), "accabcabcabcabca");
}

Test(switch_target, keeps_its_mappings_over_a_suspend_and_takes_messages_in_it)
{
	struct dmcore_device *device;

	fill_disks();
	device = fixture_device("d", TABLE);
	cr_assert_eq(dmcore_device_message(device, 5, "set_region_mappings 1:2", NULL, 0), 0);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	cr_assert_eq(dmcore_device_message(device, 5, "set_region_mappings 0:1", NULL, 0), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_str_eq(mappings(device), "bccabcabcabcabca");
	/* A table that is loaded anew has the first ones. */
	cr_assert_eq(dmcore_device_load(device, fixture_table(TABLE)), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_str_eq(mappings(device), NONE);
}

/* Random mappings, one by one and in runs, against an array of them. */
static void check_random(struct rng *rng, unsigned int paths, uint64_t region, uint64_t regions)
{
	unsigned int expected[REGIONS_MAX];
	size_t room = 64 + (size_t)paths * 32;
	char *text = malloc(room);
	struct dmcore_device *device;
	size_t at;

	cr_assert_not_null(text);
	at = (size_t)snprintf(text, room, "0 %llu switch %u %llu 0",
			      (unsigned long long)((regions - 1) * region + 1), paths,
			      (unsigned long long)region);
	for (unsigned int i = 0; i < paths; i++)
		at += (size_t)snprintf(text + at, room - at, " mem:9000s,name=a %u", 20 * i);
	device = fixture_device("d", text);
	for (unsigned int i = 0; i < regions; i++)
		expected[i] = i % paths;
	for (unsigned int turn = 0; turn < 40; turn++) {
		uint64_t index = rng_below(rng, regions);
		uint64_t path = rng_below(rng, paths);
		uint64_t cycle = 1 + rng_below(rng, index + 1);
		uint64_t count = rng_below(rng, regions - index);

		snprintf(text, room, "set_region_mappings %llx:%llx R%llx,%llx",
			 (unsigned long long)index, (unsigned long long)path,
			 (unsigned long long)cycle, (unsigned long long)count);
		cr_assert_eq(dmcore_device_message(device, 0, text, NULL, 0), 0, "%s", text);
		expected[index] = (unsigned int)path;
		for (uint64_t i = 1; i <= count; i++)
			expected[index + i] = expected[index + i - cycle];
	}
	for (uint64_t i = 0; i < regions; i++) {
		uint64_t found;

		cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, i * region, 1), 0);
		memcpy(&found, buffer, sizeof(found));
		cr_assert_eq(found, 20 * expected[i] + i * region,
			     "region %llu of %u paths; DMCORE_SEED=%llu", (unsigned long long)i,
			     paths, (unsigned long long)rng_seed());
	}
	cr_assert_eq(dmcore_device_remove(device), 0);
	free(text);
}

/* Numbers the sectors of the disk that check_random() uses. */
static void number_sectors(void)
{
	struct dmcore_bdev *bdev = fixture_bdev("mem:9000s,name=a");

	for (uint64_t sector = 0; sector < 9000; sector++) {
		memcpy(buffer, &sector, sizeof(sector));
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, sector, 1), 0);
	}
}

Test(switch_target, random_messages_do_what_they_say_for_any_number_of_paths)
{
	static const unsigned int paths[] = { 1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, PATHS_MAX };
	struct rng rng;

	rng_start(&rng, 1);
	number_sectors();
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(paths); i++) {
		check_random(&rng, paths[i], 8, REGIONS_MAX);
		check_random(&rng, paths[i], 1 + rng_below(&rng, 40),
			     1 + rng_below(&rng, REGIONS_MAX));
	}
}

/* ---- messages while others read ---- */

/* Outlives the test's own frame. */
static struct {
	struct dmcore_bdev *bdev;
	_Atomic bool over;
	_Atomic unsigned int reads;
	unsigned int wrong;
	unsigned char data[16 * DMCORE_SECTOR_BYTES];
} reader;

static void count_wrong(void)
{
	for (size_t i = 0; i < 16; i++) {
		unsigned char letter = reader.data[i * DMCORE_SECTOR_BYTES];

		if (letter < 'a' || letter > 'c')
			reader.wrong++;
	}
}

static void *reader_main(void *context)
{
	(void)context;
	while (!atomic_load(&reader.over)) {
		for (uint64_t region = 0; region < 15; region++) {
			memset(reader.data, 0, sizeof(reader.data));
			if (dmcore_pread(reader.bdev, reader.data, sizeof(reader.data),
					 (5 + region * 8) * DMCORE_SECTOR_BYTES))
				reader.wrong++;
			count_wrong();
		}
		atomic_fetch_add(&reader.reads, 1);
	}
	return NULL;
}

Test(switch_target, mappings_change_while_others_read)
{
	struct dmcore_device *device;
	pthread_t thread;

	fill_disks();
	device = fixture_device("d", TABLE);
	reader.bdev = dmcore_device_bdev(device);
	cr_assert_eq(pthread_create(&thread, NULL, reader_main, NULL), 0);
	for (unsigned int i = 0; i < 300 || atomic_load(&reader.reads) < 3; i++) {
		char text[64];

		snprintf(text, sizeof(text), "set_region_mappings 0:%x R1,f", i % 3);
		cr_assert_eq(dmcore_device_message(device, 5, text, NULL, 0), 0);
	}
	atomic_store(&reader.over, true);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(reader.wrong, 0);
}

/* ---- the way of a request ---- */

Test(switch_target, every_path_has_its_start_and_the_same_offset)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 8 zero\n8 40 switch 2 16 0 "
						       "fault:512,id=a 100 fault:512,id=b 200");

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 23, 1), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 24, 1), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 39, 1), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 40, 8), 0);
	cr_assert_eq(fault_logged(disk('a'), 0).sector, 115);
	cr_assert_eq(fault_logged(disk('b'), 0).sector, 216);
	cr_assert_eq(fault_logged(disk('b'), 1).sector, 231);
	cr_assert_eq(fault_logged(disk('a'), 1).sector, 132);
	cr_assert_eq(fault_logged(disk('a'), 1).count, 8);
}

static void check_splits(unsigned int region)
{
	char text[128];
	struct dmcore_device *device;
	struct fault_disk *a = disk('a');
	struct fault_disk *b = disk('b');

	snprintf(text, sizeof(text),
		 "0 5 zero\n5 100 switch 2 %u 0 fault:512,id=a 0 "
		 "fault:512,id=b 0",
		 region);
	device = fixture_device("d", text);
	fault_clear_log(a);
	fault_clear_log(b);
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 5 + region - 1, 2), 0);
	cr_assert_eq(fault_num_logged(a), 1);
	cr_assert_eq(fault_logged(a, 0).sector, region - 1);
	cr_assert_eq(fault_logged(a, 0).count, 1);
	cr_assert_eq(fault_num_logged(b), 1);
	cr_assert_eq(fault_logged(b, 0).sector, region);
	cr_assert_eq(fault_logged(b, 0).count, 1);
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(switch_target, splits_at_regions_counted_from_its_own_start)
{
	check_splits(1);
	check_splits(7);
	check_splits(8);
	check_splits(24);
}

Test(switch_target, discard_goes_whole_by_the_path_of_its_first_region)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", TABLE);

	cr_assert_eq(run(bdev, DMCORE_OP_DISCARD, 5 + 12, 100), 0);
	cr_assert_eq(fault_num_logged(disk('a')), 0);
	cr_assert_eq(fault_num_logged(disk('c')), 0);
	cr_assert_eq(fault_num_logged(disk('b')), 1);
	cr_assert_eq(fault_logged(disk('b'), 0).op, DMCORE_OP_DISCARD);
	cr_assert_eq(fault_logged(disk('b'), 0).sector, 12);
	cr_assert_eq(fault_logged(disk('b'), 0).count, 100);
}

Test(switch_target, flush_reaches_each_device_once)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", TABLE);

	cr_assert_eq(run(bdev, DMCORE_OP_FLUSH, 0, 0), 0);
	for (char letter = 'a'; letter <= 'c'; letter++) {
		cr_assert_eq(fault_num_logged(disk(letter)), 1);
		cr_assert_eq(fault_logged(disk(letter), 0).op, DMCORE_OP_FLUSH);
	}
}

Test(switch_target, has_no_write_zeroes)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", TABLE);

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE_ZEROES, 5, 8), -EOPNOTSUPP);
	for (char letter = 'a'; letter <= 'c'; letter++)
		cr_assert_eq(fault_num_logged(disk(letter)), 0);
}

Test(switch_target, passes_errors_up)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", TABLE);

	fault_add_rule(disk('b'), &(struct fault_rule){ .status = -ENOSPC });
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 5, 8), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 5, 16), -ENOSPC);
}

/* The paths of a volume are devices of their own here, as multipath has them. */
Test(switch_target, stands_on_mapped_devices)
{
	struct dmcore_device *device;

	fill_disks();
	fixture_device("low", "0 64 linear fault:512,id=c 100");
	device = fixture_device("d", "0 64 switch 2 32 0 fault:512,id=a 0 low 0");
	cr_assert_eq(dmcore_device_message(device, 0, "set_region_mappings 0:1 :0", NULL, 0), 0);
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 31, 2), 0);
	cr_assert_eq(buffer[0], 'c');
	cr_assert_eq(buffer[DMCORE_SECTOR_BYTES], 'a');
}

/* ---- table line ---- */

static void expect_refused(const char *params, int error, const char *message)
{
	char text[256];
	char whole[256];

	snprintf(text, sizeof(text), "0 48 switch %s", params);
	snprintf(whole, sizeof(whole), "table line 1: switch: %s", message);
	fixture_expect_refused(text, error, whole);
}

Test(switch_target, names_what_is_wrong_in_the_kernels_order)
{
	expect_refused("", -EINVAL, "Invalid number of paths");
	expect_refused("x x x x x", -EINVAL, "Invalid number of paths");
	expect_refused("0 x x x x", -EINVAL, "Invalid number of paths");
	expect_refused("262142 x x x x", -EINVAL, "Invalid number of paths");
	expect_refused("2", -EINVAL, "Invalid region size");
	expect_refused("2 x x x x", -EINVAL, "Invalid region size");
	expect_refused("2 0 x x x", -EINVAL, "Invalid region size");
	expect_refused("2 8", -EINVAL, "Invalid number of optional args");
	expect_refused("2 8 x x x", -EINVAL, "Invalid number of optional args");
	expect_refused("2 8 1 x x", -EINVAL, "Invalid number of optional args");
	expect_refused("2 8 0", -EINVAL, "Incorrect number of path arguments");
	expect_refused("262141 8 0 x x", -EINVAL, "Incorrect number of path arguments");
	expect_refused("2 8 0 mem:64s 0", -EINVAL, "Incorrect number of path arguments");
	expect_refused("2 8 0 mem:64s 0 mem:64s", -EINVAL, "Incorrect number of path arguments");
	expect_refused("2 8 0 a 0 b 0 c 0", -EINVAL, "Incorrect number of path arguments");
	expect_refused("2 8 0 /nonexistent x mem:64s 0", -ENOENT,
		       "Device lookup failed: /nonexistent: No such file or directory (ENOENT)");
	expect_refused("2 8 0 mem:64s x /nonexistent 0", -EINVAL, "Invalid device starting offset");
}

/* D-004, D-052 and D-055 in docs/conformance.md: the kernel takes, skips or wraps some of them. */
Test(switch_target, refuses_what_is_no_plain_number)
{
	expect_refused("4294967297 8 0 mem:64s 0", -EINVAL, "Invalid number of paths");
	expect_refused("+1 8 0 mem:64s 0", -EINVAL, "Invalid number of paths");
	expect_refused("1 4294967304 0 mem:64s 0", -EINVAL, "Invalid region size");
	expect_refused("1 \\ 8 0 mem:64s 0", -EINVAL, "Invalid region size");
	expect_refused("1 8 4294967296 mem:64s 0", -EINVAL, "Invalid number of optional args");
	expect_refused("1 8 0 mem:64s +1", -EINVAL, "Invalid device starting offset");
	expect_refused("1 8 0 mem:64s 18446744073709551616", -EINVAL,
		       "Invalid device starting offset");
}

/* D-057 in docs/conformance.md */
Test(switch_target, region_table_is_bounded)
{
	fixture_expect_refused("0 2147483649 switch 2 1 0 mem:64s 0 mem:64s 0", -EINVAL,
			       "table line 1: switch: Region table too large");
	/* The longest that a table may be. */
	fixture_expect_refused("0 18014398509481983 switch 1 1 0 mem:64s 0", -EINVAL,
			       "table line 1: switch: Region table too large");
}

Test(switch_target, every_path_must_be_long_enough)
{
	fixture_expect_refused("0 48 switch 2 8 0 mem:64s 0 mem:64s 17", -EINVAL,
			       "table line 1: mem:64s too small for target: start=17, len=48, "
			       "dev_size=64");
}

Test(switch_target, region_may_be_longer_than_the_target)
{
	struct dmcore_device *device;

	fill_disks();
	device =
		fixture_device("d", "0 48 switch 2 4294967295 0 fault:512,id=a 0 fault:512,id=b 0");
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 47, 1), 0);
	cr_assert_eq(buffer[0], 'a');
	cr_assert_eq(dmcore_device_message(device, 0, "set_region_mappings :1", NULL, 0), -EINVAL);
	cr_assert_eq(dmcore_device_message(device, 0, "set_region_mappings 0:1", NULL, 0), 0);
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 47, 1), 0);
	cr_assert_eq(buffer[0], 'b');
}

Test(switch_target, prints_a_table_line_that_it_takes_and_no_mappings)
{
	static const char text[] = "0 48 switch 3 7 0 mem:64s,name=a 0 mem:64s,name=b 7 "
				   "mem:64s,name=a 16\n";
	struct dmcore_device *device = fixture_device("d", text);

	cr_assert_eq(dmcore_device_message(device, 0, "set_region_mappings 0:2", NULL, 0), 0);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), text);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS), "0 48 switch \n");
}

Test(switch_target, has_no_limits_of_its_own)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_bdev *bdev = fixture_mapped("d", TABLE);

	cr_assert_eq(dmcore_bdev_limits(bdev, &limits), 0);
	cr_assert_eq(limits.chunk_sectors, 0);
	cr_assert_eq(limits.io_min_bytes, 512);
	cr_assert_eq(limits.io_opt_bytes, 0);
}
