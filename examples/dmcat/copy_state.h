/* SPDX-License-Identifier: MIT */
/* The file in which copy --resume keeps how far it is. */
#ifndef DMCAT_COPY_STATE_H
#define DMCAT_COPY_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "report.h"

/* How far a copy is. */
struct copy_place {
	uint64_t position; /* in sectors: so many are in all destinations, and durable */
	uint64_t failed;   /* sectors of these that were given up */
};

struct copy_state {
	char *path;
	char *header; /* lines that say which copy it is; for free() */
};

/*
 * Reads the file if there is one, else *found is false. An error if it is damaged, no such file at
 * all, or another copy's.
 */
enum exit_status copy_state_load(const struct copy_state *state, struct report *report,
				 struct copy_place *place, bool *found);

/*
 * Replaces the file, so that at any time there is the old one or the new one. Whoever calls has
 * made durable what `place` says. Returns 0 or a negative errno.
 */
int copy_state_save(const struct copy_state *state, const struct copy_place *place);

/* Removes the file. Returns 0 or a negative errno. */
int copy_state_remove(const struct copy_state *state);

/* Makes durable that there is a file `path`, or that there is none. 0 or a negative errno. */
int copy_state_sync_folder(const char *path);

#endif
