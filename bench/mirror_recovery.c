/* SPDX-License-Identifier: MIT */
/*
 * Recovery of a whole mirror that nobody uses, beside kcopyd alone, which copies one file to the
 * other by one job. Both are work of the core's service, for where the scheduler puts a thread
 * decides whether what copies and the kernel's own thread get a CPU each.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"
#include "mirror.h"
#include "rig.h"

#define MIB (UINT64_C(1) << 20)
#define FULL_BYTES (256 * MIB)
#define SMOKE_BYTES (2 * MIB)
/* A run takes some tenths of a second, not a millisecond. */
#define RUNS 21u
#define SPOIL_BYTES (UINT64_C(64) << 10)
/* At least 90 % of kcopyd's speed. */
#define BAR_RATIO (1 / 0.90)

struct recovery {
	const struct mirror_files *files;
	struct rig *rig;
	struct kcopyd_client *client; /* of the service */
	bool direct;
};

/* What the service is to do about kcopyd. */
struct errand {
	struct dmcore_call call; /* first: the service gets it */
	struct recovery *recovery;
	struct dmio_region regions[MIRROR_LEGS];
};

/* So that nothing but the run makes the legs the same again. */
static int spoil(const struct recovery *recovery)
{
	const struct mirror_files *files = recovery->files;

	for (uint64_t at = 0; at < files->bytes; at += SPOIL_BYTES) {
		if (pwrite(files->fds[1], "spoiled", 7, (off_t)at) != 7)
			return errno ? -errno : -ENOSPC;
	}
	/* Nothing is timed with small sizes. */
	if (!files->bench->options.smoke && fdatasync(files->fds[1]) < 0)
		return -errno;
	for (unsigned int leg = 0; leg < MIRROR_LEGS && recovery->direct; leg++)
		posix_fadvise(files->fds[leg], 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

static int check(const struct recovery *recovery, struct bench_run *run)
{
	run->completed = recovery->files->bytes / MIB;
	run->hash = run->completed;
	return mirror_files_compare(recovery->files);
}

static int wait_for_event(const struct rig *rig)
{
	struct dmcore_device *device = dmcore_device_find(rig->core, "recovered");
	uint32_t event_nr = 0;

	/* Of a mirror whose legs are well there is one: all is in sync. */
	return dmcore_device_wait(device, &event_nr, -1);
}

static int run_recovery(void *context, struct bench_run *run)
{
	const struct recovery *recovery = context;
	const struct mirror_files *files = recovery->files;
	uint64_t began_ns;
	char table[160];
	int ret = spoil(recovery);

	if (ret)
		return ret;
	snprintf(table, sizeof(table),
		 "0 %llu mirror core 2 %u sync 2 /proc/self/fd/%d 0 /proc/self/fd/%d 0",
		 (unsigned long long)(files->bytes / DMCORE_SECTOR_BYTES), MIRROR_REGION_SECTORS,
		 files->fds[0], files->fds[1]);
	began_ns = bench_now_ns();
	if (!rig_map_with(recovery->rig, "recovered", table,
			  recovery->direct ? DMCORE_TABLE_DIRECT : 0))
		return -EIO;
	ret = wait_for_event(recovery->rig);
	run->elapsed_ns = bench_now_ns() - began_ns;
	if (dmcore_device_remove(dmcore_device_find(recovery->rig->core, "recovered")) && ret == 0)
		ret = -EBUSY;
	return ret ? ret : check(recovery, run);
}

static void create_client(struct dmcore_call *call)
{
	struct recovery *recovery = ((struct errand *)call)->recovery;
	struct copy_parameters parameters = COPY_PARAMETERS_INIT;
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;

	if (recovery->direct)
		copy_parameters_direct(&parameters);
	options.subjob_sectors = parameters.subjob_sectors;
	dmcore_service_return(call, kcopyd_client_create_with(
					    dmcore_service_queue(recovery->rig->core),
					    parameters.pages, &options, &recovery->client));
}

static void destroy_client(struct dmcore_call *call)
{
	struct recovery *recovery = ((struct errand *)call)->recovery;

	dmcore_service_return(call, kcopyd_client_destroy(recovery->client));
}

static void copied(int read_err, unsigned int write_err, void *context)
{
	dmcore_service_return(context, read_err || write_err ? -EIO : 0);
}

static void copy(struct dmcore_call *call)
{
	struct errand *errand = (struct errand *)call;
	int ret = kcopyd_copy(errand->recovery->client, &errand->regions[0], 1,
			      &errand->regions[1], 0, copied, call);

	if (ret)
		dmcore_service_return(call, ret);
}

static int send(struct recovery *recovery, struct errand *errand,
		void (*fn)(struct dmcore_call *call))
{
	errand->recovery = recovery;
	errand->call.fn = fn;
	return dmcore_service_call(recovery->rig->core, &errand->call);
}

/* As the mirror opens its legs. */
static int copy_legs(struct recovery *recovery)
{
	unsigned int flags = recovery->direct ? DMCORE_OPEN_DIRECT : 0;
	struct errand errand;
	char spec[40];
	int ret = 0;

	memset(&errand, 0, sizeof(errand));
	for (unsigned int leg = 0; leg < MIRROR_LEGS && ret == 0; leg++) {
		snprintf(spec, sizeof(spec), "/proc/self/fd/%d", recovery->files->fds[leg]);
		ret = dmcore_bdev_open(recovery->rig->core, spec, flags, &errand.regions[leg].bdev);
		errand.regions[leg].count = recovery->files->bytes / DMCORE_SECTOR_BYTES;
	}
	if (ret == 0)
		ret = send(recovery, &errand, copy);
	for (unsigned int leg = 0; leg < MIRROR_LEGS; leg++) {
		int closed = dmcore_bdev_close(errand.regions[leg].bdev);

		if (ret == 0)
			ret = closed;
	}
	return ret;
}

static int run_kcopyd(void *context, struct bench_run *run)
{
	struct recovery *recovery = context;
	uint64_t began_ns;
	int ret = spoil(recovery);

	began_ns = bench_now_ns();
	if (ret == 0)
		ret = copy_legs(recovery);
	run->elapsed_ns = bench_now_ns() - began_ns;
	return ret ? ret : check(recovery, run);
}

static void name_row(struct bench_row *row, const char *mode, const char *what)
{
	snprintf(row->name, sizeof(row->name), "mirror-recovery/%s%s", mode, what);
}

/* Row `mode`, and kcopyd by itself as its floor. */
static int measure(struct rig *rig, const struct mirror_files *files, bool direct)
{
	struct recovery recovery = { files, rig, NULL, direct };
	struct bench_row rows[2];
	struct errand errand;
	int ret;

	memset(rows, 0, sizeof(rows));
	memset(&errand, 0, sizeof(errand));
	name_row(&rows[0], direct ? "direct" : "cache", "");
	name_row(&rows[1], direct ? "direct" : "cache", "-kcopyd");
	rows[0].fn = run_recovery;
	rows[0].floor = &rows[1];
	rows[0].same_work = true;
	rows[0].max_ratio = BAR_RATIO;
	rows[1].fn = run_kcopyd;
	for (unsigned int i = 0; i < 2; i++) {
		rows[i].context = &recovery;
		rows[i].count = files->bytes / MIB;
		rows[i].unit = "us/MiB";
		rows[i].unit_ns = 1000;
	}
	ret = send(&recovery, &errand, create_client);
	if (ret)
		return bench_fail(rig->bench, ret, "a client of kcopyd");
	ret = bench_measure(rig->bench, rows, 2);
	memset(&errand, 0, sizeof(errand));
	if (send(&recovery, &errand, destroy_client) && ret == 0)
		ret = -EIO;
	return ret;
}

static int measure_all(struct bench *bench, const struct mirror_files *files)
{
	struct rig rig;
	int ret = rig_open(&rig, bench, DMCORE_BACKEND_AUTO, 0, BENCH_BLOCK_SECTORS);

	if (ret == 0)
		ret = measure(&rig, files, false);
	if (ret == 0 && files->direct_fds[0] >= 0 && files->direct_fds[1] >= 0)
		ret = measure(&rig, files, true);
	else if (ret == 0)
		bench_report_skip(bench, "mirror-recovery/direct", "no O_DIRECT here");
	rig_close(&rig);
	return ret;
}

static int run_case(struct bench *bench)
{
	unsigned int runs = bench->options.runs;
	struct mirror_files files;
	int ret;

	/* The service is a thread of its own. */
	bench_unpin();
	if (!bench->options.smoke && !bench->options.runs_given)
		bench->options.runs = RUNS;
	ret = mirror_files_open(&files, bench, bench_size(bench, FULL_BYTES, SMOKE_BYTES));
	if (ret == 0)
		ret = measure_all(bench, &files);
	mirror_files_close(&files);
	bench->options.runs = runs;
	bench_pin(0);
	return ret;
}

const struct bench_case bench_case_mirror_recovery = {
	"mirror-recovery", "two files of 256 MiB made the same by a mirror, beside kcopyd alone",
	run_case
};
