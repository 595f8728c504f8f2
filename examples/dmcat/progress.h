/* SPDX-License-Identifier: MIT */
/* A progress bar on standard error, for what takes longer than a second. */
#ifndef DMCAT_PROGRESS_H
#define DMCAT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool is_wanted;
	bool is_shown;
	const char *label;
	uint64_t base_bytes;   /* done before the beginning: no part of the rate */
	uint64_t done_bytes;
	uint64_t total_bytes;  /* 0: unknown */
	uint64_t started_ns;
	uint64_t next_ns;      /* when it is to be drawn again */
};

/* Nothing is ever shown unless `is_wanted` and standard error is a terminal. */
void progress_begin(struct progress *progress, bool is_wanted, const char *label,
		    uint64_t total_bytes);
void progress_add(struct progress *progress, uint64_t bytes);
/* Takes the bar away. Harmless when there is none. */
void progress_end(struct progress *progress);

#endif
