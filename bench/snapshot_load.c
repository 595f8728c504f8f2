/* SPDX-License-Identifier: MIT */
/*
 * A store of very many exceptions, none of which continues another, is loaded: how long the resume
 * of its snapshot takes, and how much memory the core takes with it. See snapshot.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dmcore/cow.h>

#include "snapshot.h"

#define FULL_EXCEPTIONS 1000000u
#define SMOKE_EXCEPTIONS 2000u
#define CHUNK_SECTORS 8u
#define CHUNK_BYTES (CHUNK_SECTORS * DMCORE_SECTOR_BYTES)
/* Old chunks are below that, a power of 2. */
#define CHUNKS (UINT64_C(1) << 20)
#define STEP UINT64_C(647281) /* odd */
#define RUNS 7u

#define TIME_BAR_MS 200.0
#define MEMORY_BAR_MIB 48.0

/* ---- memory ---- */

/* In front of each piece: its size. */
#define HEAD_BYTES 16u

struct memory {
	atomic_ullong now_bytes;
	atomic_ullong peak_bytes;
};

static void *take(size_t bytes, void *context)
{
	struct memory *memory = context;
	unsigned char *piece = malloc(bytes + HEAD_BYTES);
	unsigned long long now;
	unsigned long long peak;

	if (!piece)
		return NULL;
	memcpy(piece, &bytes, sizeof(bytes));
	now = atomic_fetch_add(&memory->now_bytes, bytes) + bytes;
	peak = atomic_load(&memory->peak_bytes);
	while (now > peak && !atomic_compare_exchange_weak(&memory->peak_bytes, &peak, now))
		;
	return piece + HEAD_BYTES;
}

static void give_back(void *piece, void *context)
{
	struct memory *memory = context;
	size_t bytes;

	memcpy(&bytes, (unsigned char *)piece - HEAD_BYTES, sizeof(bytes));
	atomic_fetch_sub(&memory->now_bytes, bytes);
	free((unsigned char *)piece - HEAD_BYTES);
}

/* ---- the store ---- */

static int write_area(int fd, uint64_t area, uint64_t first, uint64_t count)
{
	unsigned char chunk[CHUNK_BYTES] = { 0 };
	uint64_t at = dmcore_cow_area_chunk(CHUNK_SECTORS, area);

	for (uint64_t i = 0; i < count; i++) {
		struct dmcore_cow_entry entry = { (first + i) * STEP % CHUNKS, at + 1 + i };

		dmcore_cow_entry_encode(&entry, chunk + i * DMCORE_COW_ENTRY_BYTES);
	}
	if (pwrite(fd, chunk, sizeof(chunk), (off_t)(at * CHUNK_BYTES)) != (ssize_t)sizeof(chunk))
		return errno ? -errno : -ENOSPC;
	return 0;
}

/* Its data are holes. */
static int make_store(const struct snap_files *files, const char *path, uint64_t exceptions)
{
	struct dmcore_cow_header header = { DMCORE_COW_MAGIC, 1, DMCORE_COW_VERSION,
					    CHUNK_SECTORS };
	uint64_t entries = dmcore_cow_area_entries(CHUNK_SECTORS);
	unsigned char chunk[CHUNK_BYTES] = { 0 };
	int ret = snap_make_file(files, path,
				 (exceptions + exceptions / entries + 4) * CHUNK_BYTES);
	int fd;

	if (ret)
		return ret;
	fd = open(path, O_RDWR | O_CLOEXEC);
	dmcore_cow_header_encode(&header, chunk);
	if (fd < 0 || pwrite(fd, chunk, sizeof(chunk), 0) != (ssize_t)sizeof(chunk))
		ret = -EIO;
	for (uint64_t area = 0; area * entries < exceptions && ret == 0; area++) {
		uint64_t left = exceptions - area * entries;

		ret = write_area(fd, area, area * entries, left < entries ? left : entries);
	}
	if (fd >= 0)
		close(fd);
	return ret ? bench_fail(files->bench, ret, "%s", path) : 0;
}

/* ---- loading ---- */

/* Loads the store once, in a core of its own. */
static int load_once(const struct snap_files *files, const char *path, double *ms, double *mib)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct rig rig = { .bench = files->bench };
	char table[SNAP_PATH_BYTES + 64];
	struct dmcore_device *device;
	struct dmcore_table *parsed;
	struct memory memory;
	uint64_t began_ns;
	int ret;

	atomic_init(&memory.now_bytes, 0);
	atomic_init(&memory.peak_bytes, 0);
	options.alloc = take;
	options.release = give_back;
	options.alloc_context = &memory;
	ret = dmcore_create(&options, &rig.core);
	if (ret)
		return bench_fail(files->bench, ret, "dmcore_create");
	snprintf(table, sizeof(table), "0 %llu zero",
		 (unsigned long long)(CHUNKS * CHUNK_SECTORS));
	ret = rig_map(&rig, "zeroes", table) ? 0 : -EIO;
	snprintf(table, sizeof(table), "0 %llu snapshot zeroes %s P %u",
		 (unsigned long long)(CHUNKS * CHUNK_SECTORS), path, CHUNK_SECTORS);
	if (ret == 0)
		ret = dmcore_table_parse(rig.core, table, 0, &parsed);
	if (ret == 0)
		ret = dmcore_device_create(rig.core, "snapshot", NULL, 0, &device);
	if (ret == 0)
		ret = dmcore_device_load(device, parsed);
	began_ns = bench_now_ns();
	if (ret == 0)
		ret = dmcore_device_resume(device);
	*ms = (double)(bench_now_ns() - began_ns) / 1e6;
	*mib = (double)atomic_load(&memory.peak_bytes) / (1 << 20);
	if (ret)
		bench_fail(files->bench, ret, "loading: %s", dmcore_error_message());
	if (dmcore_destroy(rig.core) && ret == 0)
		ret = -EIO;
	return ret;
}

int snap_measure_load(struct snap_files *files)
{
	uint64_t exceptions = bench_size(files->bench, FULL_EXCEPTIONS, SMOKE_EXCEPTIONS);
	unsigned int runs = files->bench->options.smoke ? 1 : RUNS;
	char path[SNAP_PATH_BYTES];
	double times_ms[RUNS];
	double sizes_mib[RUNS];
	double median;
	int ret;

	snap_path(files, "million", 0, path);
	ret = make_store(files, path, exceptions);
	for (unsigned int i = 0; i < runs && ret == 0; i++)
		ret = load_once(files, path, &times_ms[i], &sizes_mib[i]);
	if (ret)
		return ret;
	median = bench_median(times_ms, runs);
	bench_report_value(files->bench, "snapshot/load", "ms", times_ms[0], median, TIME_BAR_MS);
	median = bench_median(sizes_mib, runs);
	bench_report_value(files->bench, "snapshot/load-memory", "MiB", sizes_mib[0], median,
			   MEMORY_BAR_MIB);
	return 0;
}
