/* SPDX-License-Identifier: MIT */
/* What the files of the case `snapshot` share: its files, its rows, and who carries them out. */
#ifndef DMCORE_BENCH_SNAPSHOT_H
#define DMCORE_BENCH_SNAPSHOT_H

#include "rig.h"

#define SNAP_PATH_BYTES 512
#define SNAP_CHUNK_SIZES 2u

enum snap_kind {
	SNAP_FRESH,    /* writes, each the first of its chunk */
	SNAP_REWRITE,  /* writes to chunks that the COW device has */
	SNAP_MAPPED,   /* reads of such */
	SNAP_UNMAPPED, /* reads of chunks that it hasn't */
	SNAP_KINDS,
};

/* The files of a case, in a folder of their own. */
struct snap_files {
	struct bench *bench;
	char folder[SNAP_PATH_BYTES - 32];
	uint64_t bytes; /* of the origin */
};

/* A row: what is done, and by whom. */
struct snap_row {
	const struct snap_files *files;
	struct rig *rig;       /* NULL: by qemu-img */
	const char *aio;       /* of qemu-img */
	enum snap_kind kind;
	uint32_t chunk_sectors;
	unsigned int depth;
	bool flushes;          /* after each write */
	uint64_t step_blocks;  /* of 4 KiB, from one request to the next */
	uint64_t num_commits;  /* out, by snap_count_commits() */
};

/* ---- snapshot_files.c ---- */

/* Makes the folder and the origin. snap_files_close() in any case. */
int snap_files_open(struct snap_files *files, struct bench *bench);
void snap_files_close(struct snap_files *files);
/* The path of a file of the case: "origin", "cow-8" and so on. */
void snap_path(const struct snap_files *files, const char *name, uint32_t chunk_sectors,
	       char path[SNAP_PATH_BYTES]);
/* Makes a file of zeroes anew. */
int snap_make_file(const struct snap_files *files, const char *path, uint64_t bytes);
/* Waits for the disk, lest it be busy within a run. */
void snap_settle(const struct snap_files *files);

/* ---- snapshot_engine.c ---- */

/* As bench_run_fn; the context is a snap_row. */
int snap_run(void *context, struct bench_run *run);
/* Carries out a row once more, and counts the commits of the COW device. */
int snap_count_commits(struct snap_row *row, uint64_t count);

/* ---- snapshot_peer.c ---- */

/* Whether qemu-img does what the rows need; with -i `aio`. */
bool snap_peer_works(const struct snap_files *files, const char *aio);
/* As bench_run_fn; the context is a snap_row. */
int snap_peer_run(void *context, struct bench_run *run);
/* Makes a qcow2 overlay of the origin; mapped: all of its clusters are there. */
int snap_peer_overlay(const struct snap_files *files, const char *path, uint32_t chunk_sectors,
		      bool mapped);

/* ---- snapshot_load.c ---- */

/* Loads a store of very many exceptions, and reports time and memory. */
int snap_measure_load(struct snap_files *files);

#endif
