/* SPDX-License-Identifier: MIT */
/*
 * The library and QEMU's block layer, both without data, in one run: requests to what moves
 * nothing, and what one more layer costs.
 */
#include <stdio.h>
#include <string.h>

#include "copy.h"
#include "rig.h"
#include "spawn.h"

/* Ours is to be so many times as fast as theirs, and a layer so many times as cheap. */
#define NULL_TIMES 20.0
#define LAYER_TIMES 10.0
/* A run of qemu-img takes some tenths of a second. */
#define RUNS 11u
#define OFFSET_SECTORS 64u

struct peer {
	const char *image; /* --image-opts */
	unsigned int depth;
};

static int run_peer(void *context, struct bench_run *run)
{
	const struct peer *peer = context;
	char count[24];
	char depth[16];
	const char *args[] = { "qemu-img", "bench", "-c", count, "-d", depth, "-s", "4096",
			       "--image-opts", peer->image, NULL };

	snprintf(count, sizeof(count), "%llu", (unsigned long long)run->count);
	snprintf(depth, sizeof(depth), "%u", peer->depth);
	run->completed = run->count;
	return spawn_qemu_bench(args, &run->elapsed_ns);
}

enum {
	OUR_NULL_1,
	OUR_NULL_32,
	OUR_LAYER_32,
	OURS,
	THEIR_NULL_1 = OURS,
	THEIR_NULL_32,
	THEIR_LAYER_32,
	ROWS,
};

static const char null_image[] = "driver=null-co,size=1G";
static const char layer_image[] = "driver=raw,file.driver=null-co,file.size=1G";

static const struct peer peers[ROWS - OURS] = {
	{ null_image, 1 },
	{ null_image, 32 },
	{ layer_image, 32 },
};

static const char *const names[ROWS] = {
	"peers/null-1",	     "peers/null-32",	   "peers/linear-32",
	"peers/qemu-null-1", "peers/qemu-null-32", "peers/qemu-raw-32",
};

/* What a layer adds. */
struct layer {
	double best_ns;
	double median_ns;
};

static struct layer layer_of(const struct bench_row *rows)
{
	struct layer layer = { rows[OUR_LAYER_32].best_ns - rows[OUR_NULL_32].best_ns,
			       rows[OUR_LAYER_32].median_ns - rows[OUR_NULL_32].median_ns };

	return layer;
}

/* A bar is a part of theirs, in percent. */
static void report(struct bench *bench, const struct bench_row *rows)
{
	const struct bench_row *ours = rows;
	const struct bench_row *theirs = rows + OURS;
	const struct layer our_layer = layer_of(ours);
	const struct layer their_layer = layer_of(theirs);

	for (unsigned int i = OUR_NULL_1; i <= OUR_NULL_32; i++) {
		char name[BENCH_NAME_BYTES];

		snprintf(name, sizeof(name), "%.24s-of-qemu", ours[i].name);
		bench_report_value(bench, name, "%", 100 * ours[i].best_ns / theirs[i].best_ns,
				   100 * ours[i].median_ns / theirs[i].median_ns, 100 / NULL_TIMES);
	}
	if (their_layer.best_ns <= 0 || their_layer.median_ns <= 0)
		bench_report_skip(bench, "peers/layer-of-qemu", "theirs is lost in the noise");
	else
		bench_report_value(bench, "peers/layer-of-qemu", "%",
				   100 * our_layer.best_ns / their_layer.best_ns,
				   100 * our_layer.median_ns / their_layer.median_ns,
				   100 / LAYER_TIMES);
}

static int measure(struct rig *rig, struct bench_row *rows)
{
	struct dmcore_bdev *bdevs[OURS] = { rig->zero, rig->zero, NULL };
	struct load loads[OURS];
	unsigned int opened = 0;
	char table[96];
	int ret = 0;

	snprintf(table, sizeof(table), "0 %llu linear /dev/mapper/zero %u",
		 (unsigned long long)RIG_TOP_SECTORS, OFFSET_SECTORS);
	bdevs[OUR_LAYER_32] = rig_map(rig, "linear", table);
	if (!bdevs[OUR_LAYER_32])
		return -1;
	for (unsigned int i = 0; i < ROWS; i++) {
		snprintf(rows[i].name, sizeof(rows[i].name), "%s", names[i]);
		rows[i].fn = i < OURS ? load_run : run_peer;
		rows[i].context = &loads[i < OURS ? i : 0];
		if (i >= OURS)
			rows[i].context = (void *)(uintptr_t)&peers[i - OURS];
		rows[i].count = bench_size(rig->bench, i < OURS ? 32768 : 200000, 4096);
	}
	for (; opened < OURS && ret == 0; opened += ret == 0) {
		loads[opened] = rig_load(rig, bdevs[opened], opened == OUR_NULL_1 ? 1 : 32);
		ret = load_open(&loads[opened]);
	}
	if (ret)
		bench_fail(rig->bench, ret, "no bios");
	else
		ret = bench_measure(rig->bench, rows, ROWS);
	while (opened > 0)
		load_close(&loads[--opened]);
	return ret;
}

static int run_peers(struct bench *bench)
{
	unsigned int runs = bench->options.runs;
	struct bench_row rows[ROWS];
	struct rig rig;
	int ret;

	if (!copy_peer_found("qemu-img")) {
		bench_report_skip(bench, "peers/qemu", "qemu-img isn't on PATH");
		return 0;
	}
	memset(rows, 0, sizeof(rows));
	if (!bench->options.smoke && !bench->options.runs_given)
		bench->options.runs = RUNS;
	ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);
	if (ret == 0)
		ret = measure(&rig, rows);
	if (ret == 0 && !bench->options.smoke && !bench->options.work_row)
		report(bench, rows);
	rig_close(&rig);
	bench->options.runs = runs;
	return ret;
}

const struct bench_case bench_case_peers = {
	"peers", "requests that move no data, and a layer more, beside qemu-img bench", run_peers
};
