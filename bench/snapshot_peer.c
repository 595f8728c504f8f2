/* SPDX-License-Identifier: MIT */
/* qemu-img's side of the case `snapshot`: a qcow2 overlay of the same file. See snapshot.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"
#include "snapshot.h"
#include "spawn.h"

#define ARGS_MAX 32u

/* Carries out `count` requests on an overlay. *elapsed_ns: by its own clock, in which neither
 * opening nor closing is. */
static int run_bench(const struct snap_row *row, const char *path, uint64_t count,
		     uint64_t *elapsed_ns)
{
	const char *args[ARGS_MAX] = { "qemu-img", "bench", "-f", "qcow2", "-t", "writeback", "-s",
				       "4096", "-i", row->aio };
	unsigned int num = 10;
	char counts[3][24];

	snprintf(counts[0], sizeof(counts[0]), "%llu", (unsigned long long)count);
	snprintf(counts[1], sizeof(counts[1]), "%u", row->depth);
	snprintf(counts[2], sizeof(counts[2]), "%llu",
		 (unsigned long long)(row->step_blocks * BENCH_BLOCK_BYTES));
	args[num++] = "-c";
	args[num++] = counts[0];
	args[num++] = "-d";
	args[num++] = counts[1];
	args[num++] = "-S";
	args[num++] = counts[2];
	if (row->kind == SNAP_FRESH || row->kind == SNAP_REWRITE)
		args[num++] = "-w";
	if (row->flushes)
		args[num++] = "--flush-interval=1";
	args[num] = path;
	return spawn_qemu_bench(args, elapsed_ns);
}

int snap_peer_overlay(const struct snap_files *files, const char *path, uint32_t chunk_sectors,
		      bool mapped)
{
	uint64_t chunk_blocks = chunk_sectors / BENCH_BLOCK_SECTORS;
	struct snap_row fill = { .files = files,
				 .aio = "threads",
				 .kind = SNAP_FRESH,
				 .chunk_sectors = chunk_sectors,
				 .depth = 32,
				 .step_blocks = chunk_blocks };
	char origin[SNAP_PATH_BYTES];
	char cluster[48];
	char output[1024];
	const char *args[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-o",
			       cluster, "-b", origin, path, NULL };
	uint64_t elapsed_ns;
	int ret;

	snap_path(files, "origin", 0, origin);
	snprintf(cluster, sizeof(cluster), "cluster_size=%u", chunk_sectors * DMCORE_SECTOR_BYTES);
	ret = spawn(args, output, sizeof(output));
	if (ret == 0 && mapped)
		ret = run_bench(&fill, path, files->bytes / BENCH_BLOCK_BYTES / chunk_blocks,
				&elapsed_ns);
	return ret;
}

bool snap_peer_works(const struct snap_files *files, const char *aio)
{
	struct snap_row row = { .files = files,
				.aio = aio,
				.kind = SNAP_FRESH,
				.chunk_sectors = 128,
				.depth = 1,
				.step_blocks = 16 };
	char path[SNAP_PATH_BYTES];
	uint64_t elapsed_ns;
	int ret;

	snap_path(files, "trial", 0, path);
	ret = snap_peer_overlay(files, path, row.chunk_sectors, false);
	if (ret == 0)
		ret = run_bench(&row, path, 4, &elapsed_ns);
	unlink(path);
	return ret == 0;
}

int snap_peer_run(void *context, struct bench_run *run)
{
	const struct snap_row *row = context;
	bool mapped = row->kind == SNAP_REWRITE || row->kind == SNAP_MAPPED;
	char path[SNAP_PATH_BYTES];
	int ret = 0;

	snap_path(row->files, mapped ? "qcow2" : "overlay", row->chunk_sectors, path);
	if (!mapped || access(path, F_OK))
		ret = snap_peer_overlay(row->files, path, row->chunk_sectors, mapped);
	snap_settle(row->files);
	if (ret == 0)
		ret = run_bench(row, path, run->count, &run->elapsed_ns);
	if (!mapped)
		unlink(path);
	run->completed = run->count;
	return ret;
}
