/* SPDX-License-Identifier: MIT */
/* Finds what is wrong with a COW device. Prints nothing. */
#ifndef DMCAT_COW_CHECK_H
#define DMCAT_COW_CHECK_H

#include "cow_read.h"

enum cow_kind {
	/* Of the header. */
	COW_NO_COW,
	COW_IS_NEW,
	COW_INVALIDATED,
	COW_ODD_VALIDITY,
	COW_OTHER_VERSION,
	COW_BAD_CHUNK_SIZE,
	COW_OTHER_CHUNK_SIZE,
	COW_TOO_SMALL,
	/* Of entries. */
	COW_NEW_BEHIND_END,
	COW_NEW_IS_METADATA,
	COW_NEW_TOO_EARLY,
	COW_OLD_BEHIND_END,
	COW_OLD_TWICE,
	COW_NEW_TWICE,
	/* Of areas. */
	COW_GARBAGE,
	COW_STALE,
	COW_NO_NEXT_AREA,
	COW_NUM_KINDS
};

/* Where a finding is. */
enum cow_scope { COW_IN_HEADER, COW_IN_AREA, COW_IN_ENTRY };

struct cow_kind_info {
	const char *name;
	enum cow_scope scope;
	bool is_error;       /* else a warning */
	const char *meaning;
};

extern const struct cow_kind_info cow_kinds[COW_NUM_KINDS];

struct cow_finding {
	enum cow_kind kind;
	struct cow_place place;
	struct dmcore_cow_entry entry; /* of COW_IN_ENTRY */
	char text[160];
};

typedef void (*cow_finding_fn)(void *context, const struct cow_finding *finding);

struct cow_check {
	/* In. */
	uint32_t chunk_sectors;  /* to go on by if the header has none that is good; 0: unknown */
	uint64_t origin_sectors; /* DMCORE_DEVICE_SECTORS_MAX: unknown */
	uint64_t limit;          /* findings of a kind that fn is called for */
	cow_finding_fn fn;
	void *context;
	/* Out. */
	bool has_list;           /* it has been read */
	struct cow_list list;
	uint64_t num_findings;
	uint64_t counts[COW_NUM_KINDS];
	/* For cow_check() itself. */
	struct cow_reader *reader;
	uint64_t num_bad;        /* entries of the area where one is that can't be any */
	struct cow_place last;
	uint64_t *keys;
	uint64_t num_keys;
	uint64_t *firsts;
	bool is_new;             /* keys are new chunks, else old ones */
};

/*
 * Looks at everything. Needs 8 bytes for each entry, 80 MB for 10 million, and when some are there
 * twice, up to half as much again. Returns 0, whatever has been found, or a negative errno.
 */
int cow_check(struct cow_check *check, struct cow_reader *reader);

#endif
