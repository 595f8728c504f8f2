/* SPDX-License-Identifier: MIT */
/*
 * What a snapshot costs for chunks that it has already, without data: its store is a device whose
 * metadata are in memory and whose chunks are a zero target.
 */
#include <stdio.h>
#include <string.h>

#include "rig.h"

#define CHUNK_SECTORS 8u
/* The header, and the one area of exceptions: so many chunks, one of which ends the area. */
#define METADATA_CHUNKS 2u
#define CHUNKS 128u
#define ROWS 3u

static struct dmcore_bdev *make_snapshot(struct rig *rig)
{
	char table[160];

	snprintf(table, sizeof(table), "0 %u linear mem:%us 0\n%u %u zero",
		 METADATA_CHUNKS * CHUNK_SECTORS, METADATA_CHUNKS * CHUNK_SECTORS,
		 METADATA_CHUNKS * CHUNK_SECTORS, 2 * CHUNKS * CHUNK_SECTORS);
	if (!rig_map(rig, "store", table))
		return NULL;
	snprintf(table, sizeof(table), "0 %u snapshot /dev/mapper/zero /dev/mapper/store P %u",
		 CHUNKS * CHUNK_SECTORS, CHUNK_SECTORS);
	return rig_map(rig, "snapshot", table);
}

/* Rows: the store's chunks by themselves, and the snapshot one at a time and 32. */
static int measure(struct rig *rig, struct bench_row *rows)
{
	static const unsigned int batches[ROWS] = { 32, 1, 32 };
	struct dmcore_bdev *snapshot = make_snapshot(rig);
	struct load loads[ROWS];
	unsigned int opened = 0;
	int ret = snapshot ? 0 : -1;

	while (opened < ROWS && ret == 0) {
		struct load *load = &loads[opened];

		*load = rig_load(rig, opened ? snapshot : rig->zero, batches[opened]);
		load->positions = CHUNKS;
		load->hash_by = LOAD_HASH_COUNT;
		rows[opened].fn = load_run;
		rows[opened].context = load;
		rows[opened].count = bench_size(rig->bench, 32768, 8192);
		rows[opened].floor = opened ? &rows[0] : NULL;
		rows[opened].same_work = opened != 0;
		ret = load_open(load);
		if (ret)
			bench_fail(rig->bench, ret, "%s: no bios", rows[opened].name);
		else
			opened++;
	}
	/* Not timed: each chunk gets its place in the store. */
	for (uint64_t i = 0; i < CHUNKS && ret == 0; i++)
		ret = dmcore_pwrite(snapshot, rig->buffers, CHUNK_SECTORS * DMCORE_SECTOR_BYTES,
				    i * CHUNK_SECTORS * DMCORE_SECTOR_BYTES);
	if (ret == 0)
		ret = bench_measure(rig->bench, rows, ROWS);
	while (opened > 0)
		load_close(&loads[--opened]);
	return ret;
}

static int run_mapped(struct bench *bench)
{
	struct bench_row rows[ROWS] = { { .name = "mapped/none" },
					{ .name = "mapped/snapshot-1" },
					{ .name = "mapped/snapshot-32" } };
	struct rig rig;
	int ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);

	if (ret == 0)
		ret = measure(&rig, rows);
	if (ret == 0)
		bench_report_value(bench, "mapped/each", "ns/layer",
				   rows[2].best_ns - rows[0].best_ns,
				   rows[2].median_ns - rows[0].median_ns, 0);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_mapped = {
	"mapped", "4 KiB writes to chunks that a snapshot has, on a store without data", run_mapped
};
