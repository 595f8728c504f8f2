/* SPDX-License-Identifier: MIT */
/*
 * What the sectors of simulated disks may hold, worked out from the contract of the block layer
 * alone: for each sector the values that a read may see, and those that a power cut may leave.
 * Called by simprogram.c and by crash tests; needs neither Criterion nor anything of the library.
 *
 * Times are numbers of the world's events, read before a request is submitted, and when its end is
 * known: what seems to have happened before something has done so.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMMODEL_H
#define DMCORE_TESTS_SUPPORT_SIMMODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIMMODEL_DISKS_MAX 4
#define SIMMODEL_SECTORS_MAX 512
#define SIMMODEL_VERSIONS_MAX 16384

#define SIMMODEL_NEVER UINT64_MAX
/* Values: zeroes, anything at all, or a number that fills a sector with words of its own. */
#define SIMMODEL_ZEROES 0
#define SIMMODEL_ANYTHING UINT64_MAX

/* What makes a write durable when it ends. */
enum simmodel_cover {
	SIMMODEL_PLAIN,      /* nothing */
	SIMMODEL_BY_FLUSH,   /* a flush that followed it: FUA on a disk without that */
	SIMMODEL_BY_ITSELF,
};

/* A value that was written to a sector. */
struct simmodel_version {
	uint64_t value;
	uint64_t begin_nr;
	uint64_t end_nr;     /* NEVER: under way */
	uint64_t durable_nr; /* known to be so since; NEVER: not yet */
	uint32_t next;       /* of the same sector, plus 1; or of those that are free */
	uint16_t sector;
	uint8_t disk;
	bool failed;         /* it may have been written or not */
	bool has_fua;        /* durable by itself */
	bool is_uncovered;   /* by a flush that failed: none covers it any more */
};

struct simmodel {
	unsigned int num_disks;
	uint32_t num_sectors[SIMMODEL_DISKS_MAX];
	uint32_t num_free;
	uint32_t first_free;
	uint32_t num_fresh; /* versions from this one on were never used */
	uint32_t heads[SIMMODEL_DISKS_MAX][SIMMODEL_SECTORS_MAX];
	/* What the sectors held before their versions; and whether no cut leaves that any more. */
	bool base_is_lost[SIMMODEL_DISKS_MAX][SIMMODEL_SECTORS_MAX];
	unsigned char base[SIMMODEL_DISKS_MAX][SIMMODEL_SECTORS_MAX][512];
	struct simmodel_version versions[SIMMODEL_VERSIONS_MAX];
};

/* Forgets all. */
void simmodel_reset(struct simmodel *model);
/* Adds a disk that is zeroed; returns its number. */
unsigned int simmodel_add_disk(struct simmodel *model, uint32_t sectors);
/* Writes a value as it is in memory. */
void simmodel_fill(unsigned char *sector, uint64_t value);

/* A write begins; the version, or NULL: there are too many. */
struct simmodel_version *simmodel_begin(struct simmodel *model, unsigned int disk, uint64_t sector,
					uint64_t value, uint64_t now_nr);
/* It has ended. */
void simmodel_end(struct simmodel_version *version, uint64_t now_nr, bool failed,
		  enum simmodel_cover cover);
/* A flush of these disks (bits) that was submitted at `begin_nr` has ended. */
void simmodel_flushed(struct simmodel *model, unsigned int disks, uint64_t begin_nr,
		      uint64_t now_nr);
/* One has failed: what it covered may have lost that. */
void simmodel_flush_failed(struct simmodel *model, unsigned int disks, uint64_t begin_nr,
			   uint64_t now_nr);

/* Whether a read that began and ended then may see this in a sector. */
bool simmodel_may_read(const struct simmodel *model, unsigned int disk, uint64_t sector,
		       const unsigned char *bytes, uint64_t begin_nr, uint64_t end_nr);
/* Whether a cut after this event may leave it, on a disk with atomic units of so many bytes. */
bool simmodel_may_be_left(const struct simmodel *model, unsigned int disk, uint64_t sector,
			  const unsigned char *bytes, uint64_t cut_nr, uint32_t atomic_bytes);

/* Drops what can't matter any more. No write is under way. */
void simmodel_settle(struct simmodel *model);
/* A disk holds this from now on, all of it durable. No write is under way. */
void simmodel_load(struct simmodel *model, unsigned int disk, const unsigned char *bytes);

#endif
