/* SPDX-License-Identifier: MIT */
/*
 * Each I/O to each device below a target fails in turn, once and from then on, untouched, torn or
 * carried out all the same: a request above fails if and only if something of it did, the rest has
 * its data, and the device works when it is over. For every type of target that there is.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/fault_driver.h"
#include "support/hurry.h"
#include "support/nth.h"
#include "support/samples.h"
#include "support/stage.h"
#include "support/workload.h"

/* What stands below the target. */
enum below {
	RICH,   /* disks that can do everything */
	POOR,   /* small requests only, and nothing that can be done by others */
	MAPPED, /* mapped devices of two targets, on such disks */
};

static struct stage stage;
static struct fault_disk *disks[SAMPLE_LEAVES_MAX];
static unsigned int num_failed_before[SAMPLE_LEAVES_MAX];
static char text[SAMPLE_TEXT_MAX];

static void open_leaves(const struct sample *sample, enum below below)
{
	const char *args = below == POOR ? ",caps=1,max_io=4" : "";
	const char *names[SAMPLE_LEAVES_MAX];
	char specs[SAMPLE_LEAVES_MAX][64];
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	hurry_use(&options);
	stage_open(&stage, &options, NULL);
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		snprintf(specs[i], sizeof(specs[i]), "%s",
			 stage_disk_spec(i, SAMPLE_LEAF_SECTORS, args));
		disks[i] = stage_disk(&stage, i, SAMPLE_LEAF_SECTORS, args);
		if (below == MAPPED) {
			char lower[192];

			snprintf(lower, sizeof(lower), "0 37 linear %s 0\n37 219 linear %s 37",
				 specs[i], specs[i]);
			snprintf(specs[i], sizeof(specs[i]), "leaf%u", i);
			stage_map(&stage, specs[i], lower);
		}
		names[i] = specs[i];
	}
	sample_text(sample, names, text, sizeof(text));
}

/* ---- faults --------------------------------------------------------------------------------- */

struct fault {
	struct fault_disk *disk;
	struct fault_rule rule;
	unsigned int before;
};

static void arm(void *context, unsigned int n, bool for_good)
{
	struct fault *fault = context;

	fault->before = fault_num_failed(fault->disk);
	fault->rule.skip = n - 1;
	fault->rule.times = for_good ? 0 : 1;
	fault_add_rule(fault->disk, &fault->rule);
}

static unsigned int disarm(void *context)
{
	struct fault *fault = context;

	fault_clear_rules(fault->disk);
	return fault_num_failed(fault->disk) - fault->before;
}

static const struct nth_kind leaf_io = { "I/O", arm, disarm };

static unsigned int num_failed(void *context)
{
	const struct sample *sample = context;
	unsigned int num = 0;

	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		if (!(sample->side_leaves >> i & 1))
			num += fault_num_failed(disks[i]);
	}
	return num;
}

static bool flush_has_failed(const struct sample *sample)
{
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		for (unsigned int k = 0; k < fault_num_logged(disks[i]); k++) {
			struct fault_entry entry = fault_logged(disks[i], k);

			if (entry.op == DMCORE_OP_FLUSH && entry.status)
				return true;
		}
	}
	return false;
}

/* A write that is made durable by a flush fails with any other flush that fails meanwhile. */
static bool is_aftermath_of_flush(void *context, enum dmcore_op op, unsigned int flags, int status)
{
	(void)op;
	return status == -EIO && flags & DMCORE_BIO_FUA && flush_has_failed(context);
}

/* Whatever has failed below since the device was made may have broken it. */
static bool is_aftermath_of_any(void *context, enum dmcore_op op, unsigned int flags, int status)
{
	const struct sample *sample = context;
	bool failed = false;

	(void)op;
	(void)flags;
	for (unsigned int i = 0; i < sample->num_leaves; i++)
		failed |= fault_num_failed(disks[i]) != num_failed_before[i];
	return failed && (status == -EIO || status == -ENOSPC);
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* Makes the device, from its table to its first I/O; NULL and *error if that fails. */
static struct dmcore_device *make_device(const struct sample *sample, int *error)
{
	struct dmcore_device *device;
	struct dmcore_table *table;

	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		workload_fill_leaf(sample, i, fault_data(disks[i]));
		num_failed_before[i] = fault_num_failed(disks[i]);
		fault_clear_log(disks[i]);
	}
	cr_assert_eq(dmcore_device_create(stage.core, "upper", NULL, 0, &device), 0);
	*error = dmcore_table_parse(stage.core, text, 0, &table);
	if (*error == 0) {
		*error = dmcore_device_load(device, table);
		if (*error)
			dmcore_table_destroy(table);
	}
	if (*error == 0)
		*error = dmcore_device_resume(device);
	if (*error == 0)
		return device;
	cr_assert(dmcore_error_message()[0]);
	cr_assert_eq(dmcore_device_remove(device), 0);
	return NULL;
}

/* From its first I/O to its end. `nth`, if not NULL, ends before what is done is looked at. */
static void use_device(struct workload *workload, struct dmcore_device *device, struct nth *nth)
{
	workload->bdev = dmcore_device_bdev(device);
	workload_run(workload);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	if (nth)
		nth_end(nth);
	cr_assert_eq(dmcore_device_resume(device), 0);
	workload_check(workload);
	cr_assert_eq(dmcore_device_remove(device), 0);
	for (unsigned int i = 0; i < workload->sample->num_leaves; i++)
		workload_check_leaf(workload, i, fault_data(disks[i]));
}

static void fail_each_io(struct workload *workload, struct fault *fault, bool for_good)
{
	struct nth nth = nth_of(&leaf_io, fault, for_good);

	while (nth_begin(&nth)) {
		char name[SAMPLE_TEXT_MAX + 128];
		struct dmcore_device *device;
		int error;

		snprintf(name, sizeof(name), "%s: %s", text, nth_name(&nth));
		workload->name = name;
		device = make_device(workload->sample, &error);
		if (device) {
			use_device(workload, device, &nth);
			continue;
		}
		nth_end(&nth);
		cr_assert_gt(nth.failed, 0, "%s: %d: %s", name, error, dmcore_error_message());
		cr_assert_eq(error, fault->rule.status, "%s: %d", name, error);
	}
}

static void run_sample(const struct sample *sample, enum below below, enum fault_action action,
		       int status)
{
	static struct workload workload;
	struct fault fault = {
		.rule = { .action = action, .status = status, .torn_sectors = 1 },
	};
	struct dmcore_device *device;
	int error;

	open_leaves(sample, below);
	workload = (struct workload){
		.stage = &stage,
		.sample = sample,
		.name = text,
		.num_failed = num_failed,
		.is_aftermath = sample->may_break ? is_aftermath_of_any :
				below == POOR ? is_aftermath_of_flush : NULL,
		.context = (void *)(uintptr_t)sample,
		.status = status,
	};
	device = make_device(sample, &error);
	cr_assert_not_null(device, "%s: %d: %s", text, error, dmcore_error_message());
	use_device(&workload, device, NULL);
	workload_learned(&workload);
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		fault.disk = disks[i];
		/* It may be there for its limits only. */
		if (fault_count(disks[i], 0) == 0)
			continue;
		fail_each_io(&workload, &fault, false);
		fail_each_io(&workload, &fault, true);
	}
	stage_close(&stage);
}

static void run_all(enum below below, enum fault_action action, int status)
{
	const struct sample *sample;
	unsigned int i = 0;

	while ((sample = sample_next(&i)) != NULL)
		run_sample(sample, below, action, status);
}

Test(target_io, every_type_has_a_sample)
{
	stage_open(&stage, NULL, NULL);
	samples_cover(stage.core);
	stage_close(&stage);
}

Test(target_io, failing_io_fails_its_request_alone)
{
	run_all(RICH, FAULT_FAIL, -EIO);
}

Test(target_io, io_that_fails_though_it_is_carried_out_fails_its_request_alone)
{
	run_all(RICH, FAULT_FAIL_AFTER, -EIO);
}

Test(target_io, torn_io_fails_its_request_alone)
{
	run_all(RICH, FAULT_TEAR, -ENOSPC);
}

Test(target_io, failing_io_of_disks_that_can_do_little_fails_its_request_alone)
{
	run_all(POOR, FAULT_FAIL, -EIO);
}

Test(target_io, failing_io_below_mapped_devices_fails_its_request_alone)
{
	run_all(MAPPED, FAULT_FAIL, -EIO);
}
