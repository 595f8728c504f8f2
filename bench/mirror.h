/* SPDX-License-Identifier: MIT */
/*
 * What the cases `mirror` and `mirror-recovery` consist of: rows over files (mirror.c), rows over
 * devices that cost little (mirror_layer.c), recovery (mirror_recovery.c), and files
 * (mirror_files.c).
 */
#ifndef DMCORE_BENCH_MIRROR_H
#define DMCORE_BENCH_MIRROR_H

#include "bench.h"

#define MIRROR_LEGS 2u
#define MIRROR_REGION_SECTORS 1024u

/* Two legs and a log, without names. */
struct mirror_files {
	struct bench *bench;
	uint64_t bytes;         /* of a leg */
	int fds[MIRROR_LEGS];   /* -1: not open */
	int direct_fds[MIRROR_LEGS]; /* past the page cache; -1: the file system refuses */
	int log_fd;
};

/*
 * Makes files that hold the same, durable: each block begins with a word that tells it from the
 * others. Says why it can't. Closed by mirror_files_close() in any case.
 */
int mirror_files_open(struct mirror_files *files, struct bench *bench, uint64_t bytes);
void mirror_files_close(struct mirror_files *files);
/* 0, or -EILSEQ: the legs differ. */
int mirror_files_compare(const struct mirror_files *files);

/* Rows that show what the target itself costs. */
int mirror_measure_layer(struct bench *bench);

#endif
