/* SPDX-License-Identifier: MIT */
/*
 * A table of each type of target, for tests that go through all of them: a new type gets a line in
 * samples.c, and is covered by them from then on. A test that finds a registered type without one
 * fails.
 */
#ifndef DMCORE_TESTS_SUPPORT_SAMPLES_H
#define DMCORE_TESTS_SUPPORT_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

/* Devices that a sample may stand on, and their size. */
#define SAMPLE_LEAVES_MAX 4
#define SAMPLE_LEAF_SECTORS 256u
/* Size of the mapped device of a sample. */
#define SAMPLE_SECTORS 96u
#define SAMPLE_MESSAGES_MAX 8
#define SAMPLE_TEXT_MAX 1024

/* What comes of data. */
enum sample_data {
	SAMPLE_STORES, /* what was written is read back, and fails if a device below does */
	SAMPLE_ZEROES, /* writes go nowhere, reads are zeroes */
	SAMPLE_FAILS,  /* what has a range fails */
};

struct sample {
	const char *type;
	enum sample_data data;
	unsigned int num_leaves;
	/* A table of SAMPLE_SECTORS, with "@0" to "@3" in place of the leaves' names. */
	const char *table;
	/* For the target at sector 0; they answer without an error whenever they are sent, in this
	 * order, and leave the data where they are. */
	const char *messages[SAMPLE_MESSAGES_MAX];
	/* A bit for each leaf that holds no data of the device: its content depends on how often
	 * something was done, and its failures may go unnoticed. It begins with zeroes. */
	unsigned int side_leaves;
	/* A failure below may end it: from then on requests may fail with EIO, also those that
	 * have nothing to do with it. */
	bool may_break;
	/* What fails below may be made good elsewhere, and its request succeed all the same; but
	 * a discard may be told not to be supported. */
	bool may_mend;
};

/* The samples, in no order; NULL behind the last one. A type may have several. */
const struct sample *sample_at(unsigned int index);

/* The same; where tests may be brief (rng.h), only the first one of each type. */
const struct sample *sample_next(unsigned int *index);

/* Fails the test if a type that is registered with the core has none. */
void samples_cover(struct dmcore *core);

/* The text of a sample's table on these leaves. */
const char *sample_text(const struct sample *sample, const char *const *leaves, char *text,
			size_t bytes);

#endif
