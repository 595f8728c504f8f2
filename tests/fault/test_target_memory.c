/* SPDX-License-Identifier: MIT */
/*
 * The whole life of a mapped device, call by call, with each allocation failing in turn, once and
 * from then on: the call says so and changes nothing, I/O goes on by the table that was live, and
 * the same call succeeds when there is memory again. For every type of target that there is.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/heap.h"
#include "support/hurry.h"
#include "support/nth.h"
#include "support/samples.h"
#include "support/stage.h"
#include "support/workload.h"

#define HOME_ID 9
#define PROBE_SECTOR 40
#define PROBE_COUNT 24

/* The table that must be live. */
enum live {
	NOTHING, /* or suspended: I/O would wait */
	HOME,    /* a plain one */
	FIRST,   /* the sample's, on disks of the stage */
	SECOND,  /* the sample's, on devices that are opened with it */
};

static struct stage stage;
static const struct sample *sample;
static struct fault_disk *home;
static struct fault_disk *disks[SAMPLE_LEAVES_MAX];
static char first_text[SAMPLE_TEXT_MAX];
static char second_text[SAMPLE_TEXT_MAX];
static char concise_text[2 * SAMPLE_TEXT_MAX];

static struct dmcore_device *device;
static struct dmcore_watch *watch;

/* ---- the steps of a life: 0 or an error, after which nothing has changed -------------------- */

static int create(void)
{
	return dmcore_device_create(stage.core, "m", NULL, 0, &device);
}

static int set_uuid(void)
{
	return dmcore_device_set_uuid(device, "u");
}

static int load(const char *text)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(stage.core, text, 0, &table);

	if (ret)
		return ret;
	ret = dmcore_device_load(device, table);
	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

static int load_home(void)
{
	char text[64];

	snprintf(text, sizeof(text), "0 96 linear %s 8",
		 stage_disk_spec(HOME_ID, SAMPLE_LEAF_SECTORS, ""));
	return load(text);
}

static int load_first(void)
{
	return load(first_text);
}

static int load_second(void)
{
	return load(second_text);
}

static int clear(void)
{
	return dmcore_device_clear(device);
}

static int suspend(void)
{
	return dmcore_device_suspend(device, 0, -1);
}

static int suspend_noflush(void)
{
	return dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, -1);
}

static int resume(void)
{
	return dmcore_device_resume(device);
}

/* After a failure it goes on with the one that failed, which has done nothing. */
static int send_messages(void)
{
	static unsigned int next;
	char reply[256];

	for (; next < SAMPLE_MESSAGES_MAX && sample->messages[next]; next++) {
		int64_t ret = dmcore_device_message(device, 0, sample->messages[next], reply,
						    sizeof(reply));

		if (ret < 0)
			return (int)ret;
	}
	next = 0;
	return 0;
}

static int print(void)
{
	char text[SAMPLE_TEXT_MAX];

	for (int kind = DMCORE_TEXT_TABLE; kind <= DMCORE_TEXT_DEPS; kind++) {
		int64_t ret = dmcore_device_text(device, (enum dmcore_text_kind)kind, 0, text,
						 sizeof(text));

		if (ret < 0)
			return (int)ret;
	}
	return 0;
}

static int look(void)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_device_find(stage.core, "m"), device);
	return dmcore_device_info(device, &info);
}

static int make_watch(void)
{
	return dmcore_watch_create(device, 0, NULL, NULL, NULL, &watch);
}

static int destroy_watch(void)
{
	dmcore_watch_destroy(watch);
	return 0;
}

static int make_region(void)
{
	int64_t ret = dmcore_device_message(device, 0, "@stats_create - /4 1 histogram:1,2 me you",
					    NULL, 0);

	return ret < 0 ? (int)ret : 0;
}

static int make_precise_region(void)
{
	static const uint64_t bounds[] = { 100, 1000 };
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int ret;

	options.flags = DMCORE_STATS_PRECISE | DMCORE_STATS_BY_TARGET;
	options.bounds = bounds;
	options.num_bounds = 2;
	ret = dmcore_stats_create(device, &options);
	return ret < 0 ? ret : dmcore_stats_delete(device, ret);
}

static int print_region(void)
{
	char text[16];
	int64_t ret = dmcore_device_message(device, 0, "@stats_print_clear 0", text, sizeof(text));

	return ret < 0 ? (int)ret : 0;
}

static int delete_region(void)
{
	return dmcore_stats_delete(device, 0);
}

static int rename_it(void)
{
	return dmcore_device_rename(device, "another");
}

/* Its queue is made by the first call of a core, and stays. */
static int plain_read(void)
{
	static unsigned char sector[DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev;
	int ret = dmcore_bdev_open(stage.core, "another", 0, &bdev);

	if (ret)
		return ret;
	ret = dmcore_pread(bdev, sector, sizeof(sector), 0);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	return ret == -EIO && sample->data == SAMPLE_FAILS ? 0 : ret;
}

static int make_concise(void)
{
	struct dmcore_device *concise;
	int ret = dmcore_device_create_concise(stage.core, concise_text, 0, &concise);

	if (ret)
		cr_assert_null(dmcore_device_find(stage.core, "c"));
	else
		cr_assert_eq(dmcore_device_remove(concise), 0);
	return ret;
}

static int remove_it(void)
{
	return dmcore_device_remove(device);
}

struct step {
	const char *name;
	int (*run)(void);
	enum live live; /* from then on; a step that fails leaves the one before */
};

static const struct step steps[] = {
	{ "create", create, NOTHING },
	{ "set uuid", set_uuid, NOTHING },
	{ "load a first table", load_home, NOTHING },
	{ "resume", resume, HOME },
	{ "load into the running device", load_first, HOME },
	{ "swap", resume, FIRST },
	{ "messages", send_messages, FIRST },
	{ "texts", print, FIRST },
	{ "info", look, FIRST },
	{ "watch", make_watch, FIRST },
	{ "statistics", make_region, FIRST },
	{ "print statistics", print_region, FIRST },
	{ "more statistics", make_precise_region, FIRST },
	{ "load another", load_second, FIRST },
	{ "clear", clear, FIRST },
	{ "load another again", load_second, FIRST },
	{ "suspend", suspend, NOTHING },
	{ "messages while suspended", send_messages, NOTHING },
	{ "swap while suspended", resume, SECOND },
	{ "suspend without flush", suspend_noflush, NOTHING },
	{ "resume as it is", resume, SECOND },
	{ "rename", rename_it, SECOND },
	{ "plain read", plain_read, SECOND },
	{ "delete statistics", delete_region, SECOND },
	{ "load the first again", load_first, SECOND },
	{ "swap back", resume, FIRST },
	{ "unwatch", destroy_watch, FIRST },
	{ "remove", remove_it, NOTHING },
	{ "concise form", make_concise, NOTHING },
};

#define NUM_STEPS (sizeof(steps) / sizeof(steps[0]))

/* ---- what serves ---------------------------------------------------------------------------- */

static unsigned int io_to_first(void)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < sample->num_leaves; i++)
		count += fault_count(disks[i], 0);
	return count;
}

/* That I/O goes by this table, and as it should; without memory too. */
static void serves(enum live live, const char *when)
{
	static unsigned char bytes[PROBE_COUNT * DMCORE_SECTOR_BYTES];
	enum sample_data data = live == HOME ? SAMPLE_STORES : sample->data;
	struct dmcore_bdev *bdev = dmcore_device_bdev(device);
	unsigned int before_home = fault_count(home, 0);
	unsigned int before_first = io_to_first();
	int status = data == SAMPLE_FAILS ? -EIO : 0;

	pattern_fill(bytes, PROBE_SECTOR, PROBE_COUNT, 1);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, PROBE_SECTOR, PROBE_COUNT, bytes),
		     status, "%s: the write failed", when);
	memset(bytes, 0x11, sizeof(bytes));
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, PROBE_SECTOR, PROBE_COUNT, bytes),
		     status, "%s: the read failed", when);
	if (data == SAMPLE_STORES)
		cr_assert_lt(pattern_differs(bytes, PROBE_SECTOR, PROBE_COUNT, 1), 0, "%s", when);
	cr_assert_eq(fault_count(home, 0) > before_home, live == HOME, "%s: the wrong table", when);
	cr_assert_eq(io_to_first() > before_first,
		     live == FIRST && data == SAMPLE_STORES && sample->num_leaves > 0,
		     "%s: the wrong table", when);
}

/* ---- lives ---------------------------------------------------------------------------------- */

/* Types that prepare themselves when they are resumed may fail there: then the table has been
 * swapped, and the device waits for the next try. */
static bool stands_still(void)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_device_info(device, &info), 0);
	return sample->may_break && info.suspended;
}

static void run_step(const struct step *step, enum live live, struct nth *nth)
{
	char when[SAMPLE_TEXT_MAX + 128];
	int ret;

	snprintf(when, sizeof(when), "%s: %s: %s", first_text, nth_name(nth), step->name);
	cr_assert_eq(dmcore_flush(NULL), -EINVAL);
	ret = step->run();
	if (ret) {
		bool was_armed = nth->armed;

		nth_end(nth);
		cr_assert(was_armed && nth->failed > 0, "%s: %d: %s", when, ret,
			  dmcore_error_message());
		cr_assert_eq(ret, -ENOMEM, "%s: %d: %s", when, ret, dmcore_error_message());
		cr_assert_neq(strcmp(dmcore_error_message(), "no device"), 0, "%s: no message",
			      when);
		if (live != NOTHING && !stands_still())
			serves(live, when);
		ret = step->run();
		cr_assert_eq(ret, 0, "%s, again: %d: %s", when, ret, dmcore_error_message());
	}
	if (step->live != NOTHING)
		serves(step->live, when);
}

static void run_life(struct nth *nth)
{
	enum live live = NOTHING;

	for (unsigned int i = 0; i < NUM_STEPS; i++) {
		run_step(&steps[i], live, nth);
		live = steps[i].live;
	}
}

static void open_stage(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	const char *first[SAMPLE_LEAVES_MAX];
	const char *second[SAMPLE_LEAVES_MAX];
	char first_specs[SAMPLE_LEAVES_MAX][64];
	char second_specs[SAMPLE_LEAVES_MAX][64];
	size_t used;

	heap_use(&options);
	hurry_use(&options);
	stage_open(&stage, &options, NULL);
	home = stage_disk(&stage, HOME_ID, SAMPLE_LEAF_SECTORS, "");
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		disks[i] = stage_disk(&stage, i, SAMPLE_LEAF_SECTORS, "");
		snprintf(first_specs[i], sizeof(first_specs[i]), "%s",
			 stage_disk_spec(i, SAMPLE_LEAF_SECTORS, ""));
		snprintf(second_specs[i], sizeof(second_specs[i]), "mem:%us,name=s%u",
			 SAMPLE_LEAF_SECTORS, i);
		first[i] = first_specs[i];
		second[i] = second_specs[i];
	}
	sample_text(sample, first, first_text, sizeof(first_text));
	sample_text(sample, second, second_text, sizeof(second_text));
	used = (size_t)snprintf(concise_text, sizeof(concise_text), "c,,,rw,");
	for (const char *from = second_text; *from; from++) {
		if (*from == ',')
			concise_text[used++] = '\\';
		concise_text[used++] = *from == '\n' ? ',' : *from;
	}
	concise_text[used] = '\0';
}

/* What disks hold at the end of a life, however it went. */
static void check_disks(bool learn)
{
	static unsigned char learned[SAMPLE_LEAVES_MAX][WORKLOAD_LEAF_BYTES];

	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		if (learn)
			memcpy(learned[i], fault_data(disks[i]), WORKLOAD_LEAF_BYTES);
		cr_assert(sample->side_leaves >> i & 1 ||
			  memcmp(learned[i], fault_data(disks[i]), WORKLOAD_LEAF_BYTES) == 0,
			  "%s: leaf %u isn't what it is without a fault", first_text, i);
		workload_fill_leaf(sample, i, fault_data(disks[i]));
		fault_clear_log(disks[i]);
	}
	fault_clear_log(home);
}

static void fail_each_allocation(bool for_good)
{
	struct nth nth = nth_of(&heap_nth, NULL, for_good);
	struct nth none = nth;

	open_stage();
	for (unsigned int i = 0; i < sample->num_leaves; i++)
		workload_fill_leaf(sample, i, fault_data(disks[i]));
	/* Some memory stays for the next time. */
	run_life(&none);
	check_disks(true);
	while (nth_begin(&nth)) {
		unsigned int before = heap.outstanding;

		run_life(&nth);
		nth_end(&nth);
		check_disks(false);
		cr_assert_eq(heap.outstanding, before, "%s: %s: %d leaked", first_text,
			     nth_name(&nth), (int)(heap.outstanding - before));
	}
	stage_close(&stage);
	cr_assert_eq(heap.outstanding, 0);
}

Test(target_memory, every_type_has_a_sample)
{
	stage_open(&stage, NULL, NULL);
	samples_cover(stage.core);
	stage_close(&stage);
}

/* In two halves, each well within a test's time. */
static void run_every_second(bool second, bool for_good)
{
	unsigned int i = 0;
	unsigned int nr = 0;

	while ((sample = sample_next(&i)) != NULL) {
		if (nr++ % 2 == second)
			fail_each_allocation(for_good);
	}
}

Test(target_memory, life_of_a_device_survives_every_single_failure)
{
	run_every_second(false, false);
}

Test(target_memory, life_of_a_device_survives_every_single_failure_2)
{
	run_every_second(true, false);
}

Test(target_memory, life_of_a_device_survives_every_lasting_failure)
{
	run_every_second(false, true);
}

Test(target_memory, life_of_a_device_survives_every_lasting_failure_2)
{
	run_every_second(true, true);
}
