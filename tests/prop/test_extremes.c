/* SPDX-License-Identifier: MIT */
/*
 * Tables whose numbers are replaced by extreme ones, one and two at a time, for every type of
 * target: what is taken means what it says, lies on its devices and works, and the rest is refused
 * with a message. Run with the sanitizers, nothing overflows.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/samples.h"
#include "support/stage.h"

#define NUMBERS_MAX 16

static const char *const extremes[] = {
	"0", "1", "7", "255", "256", "257", "65536",
	"2147483647", "2147483648", "4294967295", "4294967296", "4294967297",
	"9007199254740991", "36028797018963967", "36028797018963968",
	"9223372036854775807", "9223372036854775808",
	"18446744073709551359", "18446744073709551360", "18446744073709551608",
	"18446744073709551614", "18446744073709551615", "18446744073709551616",
	"36893488147419103240", "100000000000000000000000000000000",
};

#define NUM_EXTREMES (sizeof(extremes) / sizeof(extremes[0]))

static struct stage stage;
static struct fault_disk *disks[SAMPLE_LEAVES_MAX];
static char text[SAMPLE_TEXT_MAX];
static unsigned int num_taken;
static unsigned int num_refused;

/* Where the numbers of a text stand: words of digits only. */
struct numbers {
	unsigned int count;
	const char *at[NUMBERS_MAX];
	size_t length[NUMBERS_MAX];
};

static void find_numbers(struct numbers *numbers)
{
	const char *word = text;

	numbers->count = 0;
	while (*word) {
		size_t length = strcspn(word, " \n");

		if (length > 0 && strspn(word, "0123456789") == length) {
			cr_assert_lt(numbers->count, NUMBERS_MAX);
			numbers->at[numbers->count] = word;
			numbers->length[numbers->count++] = length;
		}
		word += length;
		word += strspn(word, " \n");
	}
}

/* The text with extreme `a` for number i, and `b` for number k. */
static const char *replace(const struct numbers *numbers, unsigned int i, const char *a,
			   unsigned int k, const char *b)
{
	static char replaced[2 * SAMPLE_TEXT_MAX];
	const char *from = text;
	size_t used = 0;

	for (unsigned int nr = 0; nr < numbers->count; nr++) {
		const char *value = nr == i ? a : nr == k ? b : NULL;

		if (!value)
			continue;
		used += (size_t)snprintf(replaced + used, sizeof(replaced) - used, "%.*s%s",
					 (int)(numbers->at[nr] - from), from, value);
		from = numbers->at[nr] + numbers->length[nr];
	}
	used += (size_t)snprintf(replaced + used, sizeof(replaced) - used, "%s", from);
	cr_assert_lt(used, sizeof(replaced));
	return replaced;
}

/*
 * Reads at both ends of a device end as they should. Those that the target holds back, for years
 * perhaps, it lets go when the device is suspended.
 */
static void use(const char *line)
{
	static unsigned char sectors[4][DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev = stage_map(&stage, "m", line);
	struct dmcore_device *device = stage.devices[--stage.num_devices];
	uint64_t size = dmcore_bdev_size_sectors(bdev);
	const uint64_t places[] = { 0, size / 2, size - 1, size };
	struct tally tallies[4] = { { 0 } };

	for (unsigned int i = 0; i < 4; i++)
		stage_submit(&stage, bdev, DMCORE_OP_READ, places[i], 1, sectors[i], &tallies[i]);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	stage_settle(&stage);
	for (unsigned int i = 0; i < 4; i++) {
		int status = tallies[i].status;

		cr_assert_eq(tallies[i].ended, 1, "%s", line);
		cr_assert(status == -EIO || (status == 0 && i < 3), "%s: %d", line, status);
	}
	cr_assert_eq(dmcore_device_remove(device), 0);
}

/* Takes a table and prints it; false: it was refused, with a message. */
static bool parse_and_print(const char *line, char *printed, size_t bytes)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(stage.core, line, 0, &table);

	if (ret) {
		cr_assert(ret == -EINVAL || ret == -ENOMEM || ret == -E2BIG || ret == -EOVERFLOW,
			  "%s: %d", line, ret);
		cr_assert(dmcore_error_message()[0], "%s", line);
		return false;
	}
	cr_assert_gt(dmcore_table_text(table, DMCORE_TEXT_TABLE, printed, bytes), 0);
	dmcore_table_destroy(table);
	return true;
}

/* Whether a type prints something else than it is given. */
static bool prints_otherwise(const struct sample *sample)
{
	/* error leaves its words out, and a snapshot those behind its features; flakey tells what
	 * it does without features. */
	return strcmp(sample->type, "error") == 0 || strcmp(sample->type, "flakey") == 0 ||
	       strcmp(sample->type, "snapshot") == 0;
}

static void try(const struct sample *sample, const char *line)
{
	static char printed[2 * SAMPLE_TEXT_MAX];
	static char again[2 * SAMPLE_TEXT_MAX];

	if (!parse_and_print(line, printed, sizeof(printed))) {
		num_refused++;
		return;
	}
	if (!prints_otherwise(sample))
		cr_assert_eq(strncmp(printed, line, strlen(line)), 0, "%s became %s", line,
			     printed);
	cr_assert(parse_and_print(printed, again, sizeof(again)), "%s", printed);
	cr_assert_str_eq(printed, again);
	num_taken++;
	use(line);
}

/* Region tables of switch take a while to fill. */
static bool is_slow(const struct sample *sample, const char *value)
{
	uint64_t number = strtoull(value, NULL, 10);

	return strcmp(sample->type, "switch") == 0 && number > 1 << 20 &&
	       number < UINT64_C(1) << 40;
}

static void try_all(const struct sample *sample, bool in_pairs)
{
	struct numbers numbers;

	find_numbers(&numbers);
	for (unsigned int i = 0; i < numbers.count; i++) {
		for (unsigned int a = 0; a < NUM_EXTREMES; a++) {
			if (is_slow(sample, extremes[a]))
				continue;
			try(sample, replace(&numbers, i, extremes[a], i, NULL));
			for (unsigned int k = i + 1; in_pairs && k < numbers.count; k++) {
				for (unsigned int b = 0; b < NUM_EXTREMES; b++)
					try(sample,
					    replace(&numbers, i, extremes[a], k, extremes[b]));
			}
		}
	}
}

/* ---- time: weeks are over at once ---- */

static uint64_t now_ns;

static uint64_t test_clock(void *context)
{
	(void)context;
	return now_ns;
}

static int test_sleep(struct dmcore *core, uint64_t until_ns, void *context)
{
	uint64_t next_ns = dmcore_timer_next_ns(stage.queue);

	(void)context;
	if (dmcore_service_poll(core, 0, UINT32_MAX, 0) > 0)
		return 0;
	if (next_ns == UINT64_MAX && until_ns == UINT64_MAX)
		return -EDEADLK;
	/* Beyond the test's patience, if it must be. */
	now_ns = next_ns == UINT64_MAX ? until_ns : next_ns;
	return 0;
}

static void open_sample(const struct sample *sample)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	const char *names[SAMPLE_LEAVES_MAX];
	char specs[SAMPLE_LEAVES_MAX][64];

	/* One thread only: time moves when it waits. */
	options.flags = DMCORE_SERVICE_MANUAL;
	options.clock_ns = test_clock;
	options.sleep = test_sleep;
	stage_open(&stage, &options, NULL);
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		disks[i] = stage_disk(&stage, i, SAMPLE_LEAF_SECTORS, "");
		snprintf(specs[i], sizeof(specs[i]), "%s",
			 stage_disk_spec(i, SAMPLE_LEAF_SECTORS, ""));
		names[i] = specs[i];
	}
	sample_text(sample, names, text, sizeof(text));
}

/* No request ever reached beyond a disk. */
static void close_sample(const struct sample *sample)
{
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		for (unsigned int k = 0; k < fault_num_logged(disks[i]); k++) {
			struct fault_entry entry = fault_logged(disks[i], k);

			cr_assert_leq(entry.sector + entry.count, SAMPLE_LEAF_SECTORS);
		}
	}
	stage_close(&stage);
}

Test(extremes, numbers_of_every_type_are_refused_or_mean_what_they_say)
{
	for (unsigned int i = 0; sample_at(i); i++) {
		const struct sample *sample = sample_at(i);

		open_sample(sample);
		num_refused = 0;
		num_taken = 0;
		try_all(sample, !rng_brief() && strcmp(sample->type, "switch") != 0);
		cr_assert_gt(num_refused, 20, "%s", text);
		cr_assert_gt(num_taken, 0, "%s", text);
		close_sample(sample);
	}
}
