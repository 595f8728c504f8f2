/* SPDX-License-Identifier: MIT */
/* What a flakey target does while it is down: the words of its table line behind the intervals. */
#ifndef DMCORE_LIB_TARGETS_FLAKEY_FEATURES_H
#define DMCORE_LIB_TARGETS_FLAKEY_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/target.h>

/* Probabilities are parts of this. */
#define FLAKEY_CERTAIN 1000000000

struct flakey_features {
	bool error_reads;
	bool drop_writes;
	bool error_writes;
	bool corrupts_writes; /* direction of corrupt_byte */
	uint8_t corrupt_value;
	uint32_t corrupt_byte; /* counted from 1; 0: none */
	uint32_t corrupt_mask;
	uint32_t random_read_corrupt;
	uint32_t random_write_corrupt;
};

/* Takes all words that are left; without any that changes something reads and writes fail. 0, or
 * what dmcore_args_fail() returned. */
int dmcore__flakey_parse_features(struct dmcore_args *args, struct flakey_features *features);

/* Appends them as a table has them: a space, their number, the words. */
void dmcore__flakey_print_features(const struct flakey_features *features,
				   struct dmcore_text *text);

/* Whether corrupt_byte is meant for a bio of this operation and these flags. */
bool dmcore__flakey_mask_fits(const struct flakey_features *features, const struct dmcore_bio *bio);

#endif
