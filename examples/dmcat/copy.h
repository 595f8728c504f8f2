/* SPDX-License-Identifier: MIT */
/* Copies a device, or a part of it, to one or more others. */
#ifndef DMCAT_COPY_H
#define DMCAT_COPY_H

#include "copy_options.h"
#include "copy_state.h"
#include "session.h"

/* The source, or a destination. */
struct copy_end {
	char *name;               /* as it was given */
	struct dmcore_bdev *bdev;
	uint64_t sector;          /* where the copied range begins */
	const char *path;         /* in `name`: of what is, or may become, a file; else NULL */
	struct stat st;           /* of the path */
	bool exists;              /* there was something at the path */
	bool to_grow;             /* a file to be made or lengthened first */
	bool is_made;             /* the file has been made */
};

/* A copy that is ready to be carried out. */
struct copy {
	struct copy_options options;
	struct copy_end from;
	struct copy_end dests[KCOPYD_DESTS_MAX];
	unsigned int num_dests;
	uint64_t count;           /* sectors */
	bool is_range;            /* sectors were named: not all of the source */
	bool dests_zeroed;        /* the destinations are new files */
	struct copy_state state;  /* without a path: none is kept */
	struct copy_place start;  /* where the state says to go on */
	char *sums;               /* what there is to print when it has ended; or NULL */
};

/* `SRC DEST…` or `SRC SECTOR COUNT DEST SECTOR…`. */
#define COPY_WORDS_MAX (3 + 2 * KCOPYD_DESTS_MAX)

/*
 * Opens what a copy needs, and refuses what can be known to fail before anything is written. If the
 * copy is to wait for a suspended device, as in the background, may_wait is true.
 */
enum exit_status copy_open(struct session *session, const struct copy_options *options,
			   char **words, unsigned int num_words, bool may_wait,
			   struct copy **result);

/* Carries it out, and says what went wrong. */
enum exit_status copy_run(struct session *session, struct copy *copy);

/* Prints the sums to standard output, if there are any, closes and frees. NULL is a no-op. */
void copy_close(struct copy *copy);

#endif
