/* SPDX-License-Identifier: MIT */
/* The features of a flakey target, read and printed. Called by targets/flakey.c. */
#include "targets/flakey/features.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <strings.h>

#define WORDS_MAX 11

static const char random_text[] = "Invalid random corrupt argument";

/* A feature word: where it is kept, and what is told if it doesn't fit the others. */
struct flag {
	const char *name;
	size_t offset;
	const char *duplicated;
	size_t opposite_offset; /* its own: none */
	const char *conflicts;
};

static const struct flag flags[] = {
	{ "error_reads", offsetof(struct flakey_features, error_reads),
	  "Feature error_reads duplicated", offsetof(struct flakey_features, error_reads), NULL },
	{ "drop_writes", offsetof(struct flakey_features, drop_writes),
	  "Feature drop_writes duplicated", offsetof(struct flakey_features, error_writes),
	  "Feature drop_writes conflicts with feature error_writes" },
	{ "error_writes", offsetof(struct flakey_features, error_writes),
	  "Feature error_writes duplicated", offsetof(struct flakey_features, drop_writes),
	  "Feature error_writes conflicts with feature drop_writes" },
};

#define NUM_FLAGS (sizeof(flags) / sizeof(flags[0]))

static const struct flag *find_flag(const char *word)
{
	for (size_t i = 0; i < NUM_FLAGS; i++) {
		if (strcasecmp(word, flags[i].name) == 0)
			return &flags[i];
	}
	return NULL;
}

static bool *flag_at(struct flakey_features *features, size_t offset)
{
	return (bool *)(void *)((char *)features + offset);
}

static int set_flag(struct dmcore_args *args, const struct flag *flag,
		    struct flakey_features *features)
{
	bool *value = flag_at(features, flag->offset);

	if (*value)
		return dmcore_args_fail(args, -EINVAL, flag->duplicated);
	if (*flag_at(features, flag->opposite_offset))
		return dmcore_args_fail(args, -EINVAL, flag->conflicts);
	*value = true;
	return 0;
}

static int parse_u32(struct dmcore_args *args, uint32_t min, uint32_t max, const char *text,
		     uint32_t *value)
{
	uint64_t number;
	int ret = dmcore_args_u64(args, min, max, text, &number);

	if (ret == 0)
		*value = (uint32_t)number;
	return ret;
}

static int parse_corrupt_byte(struct dmcore_args *args, struct flakey_features *features)
{
	const char *direction;
	uint32_t value;
	int ret;

	ret = parse_u32(args, 1, UINT32_MAX, "Invalid corrupt bio byte", &features->corrupt_byte);
	if (ret)
		return ret;
	direction = dmcore_args_next(args);
	if (!direction || (strcasecmp(direction, "r") != 0 && strcasecmp(direction, "w") != 0))
		return dmcore_args_fail(args, -EINVAL, "Invalid corrupt bio direction (r or w)");
	features->corrupts_writes = strcasecmp(direction, "w") == 0;
	ret = parse_u32(args, 0, UINT8_MAX,
			"Invalid corrupt value to write into bio byte (0-255)", &value);
	if (ret)
		return ret;
	features->corrupt_value = (uint8_t)value;
	return parse_u32(args, 0, UINT32_MAX, "Invalid corrupt bio flags mask",
			 &features->corrupt_mask);
}

static int parse_random_read(struct dmcore_args *args, struct flakey_features *features)
{
	return parse_u32(args, 0, FLAKEY_CERTAIN, random_text, &features->random_read_corrupt);
}

static int parse_random_write(struct dmcore_args *args, struct flakey_features *features)
{
	return parse_u32(args, 0, FLAKEY_CERTAIN, random_text, &features->random_write_corrupt);
}

/* The features with parameters. */
static const struct option {
	const char *name;
	unsigned int words; /* of its parameters */
	const char *missing;
	int (*parse)(struct dmcore_args *args, struct flakey_features *features);
} options[] = {
	{ "corrupt_bio_byte", 4, "Feature corrupt_bio_byte requires parameters",
	  parse_corrupt_byte },
	{ "random_read_corrupt", 1, "Feature random_read_corrupt requires a parameter",
	  parse_random_read },
	{ "random_write_corrupt", 1, "Feature random_write_corrupt requires a parameter",
	  parse_random_write },
};

static int parse_option(struct dmcore_args *args, const char *word, unsigned int *left,
			struct flakey_features *features)
{
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		const struct option *option = &options[i];
		int ret;

		if (strcasecmp(word, option->name) != 0)
			continue;
		if (*left == 0)
			return dmcore_args_fail(args, -EINVAL, option->missing);
		ret = option->parse(args, features);
		if (ret)
			return ret;
		/* Words behind those that were announced aren't parameters. */
		if (*left < option->words)
			return dmcore_args_fail(args, -EINVAL, "Insufficient feature arguments");
		*left -= option->words;
		return 0;
	}
	return dmcore_args_fail(args, -EINVAL, "Unrecognised flakey feature requested");
}

/* Takes one feature; `left` counts the words that still belong to them. */
static int parse_feature(struct dmcore_args *args, unsigned int *left,
			 struct flakey_features *features)
{
	const char *word = dmcore_args_next(args);
	const struct flag *flag = find_flag(word);

	*left -= 1;
	if (flag)
		return set_flag(args, flag, features);
	return parse_option(args, word, left, features);
}

static int check_directions(struct dmcore_args *args, const struct flakey_features *features)
{
	if (!features->corrupt_byte || !features->corrupts_writes)
		return 0;
	if (features->drop_writes)
		return dmcore_args_fail(args, -EINVAL,
					"drop_writes is incompatible with corrupt_bio_byte with "
					"the WRITE flag set");
	if (features->error_writes)
		return dmcore_args_fail(args, -EINVAL,
					"error_writes is incompatible with corrupt_bio_byte with "
					"the WRITE flag set");
	return 0;
}

static bool has_any(const struct flakey_features *features)
{
	return features->error_reads || features->drop_writes || features->error_writes ||
	       features->corrupt_byte || features->random_read_corrupt ||
	       features->random_write_corrupt;
}

int dmcore__flakey_parse_features(struct dmcore_args *args, struct flakey_features *features)
{
	static const char count_text[] = "Invalid number of feature args";
	uint32_t left = 0;
	int ret = 0;

	*features = (struct flakey_features){ 0 };
	if (dmcore_args_left(args))
		ret = parse_u32(args, 0, WORDS_MAX, count_text, &left);
	if (ret == 0 && left > dmcore_args_left(args))
		ret = dmcore_args_fail(args, -EINVAL, count_text);
	while (ret == 0 && left > 0)
		ret = parse_feature(args, &left, features);
	if (ret == 0)
		ret = check_directions(args, features);
	if (ret == 0 && !has_any(features)) {
		features->error_reads = true;
		features->error_writes = true;
	}
	return ret;
}

void dmcore__flakey_print_features(const struct flakey_features *features,
				   struct dmcore_text *text)
{
	unsigned int words = (unsigned int)features->error_reads + features->drop_writes +
			     features->error_writes + (features->corrupt_byte ? 5 : 0) +
			     (features->random_read_corrupt ? 2 : 0) +
			     (features->random_write_corrupt ? 2 : 0);

	dmcore_text_printf(text, " %u", words);
	if (features->error_reads)
		dmcore_text_printf(text, " error_reads");
	if (features->drop_writes)
		dmcore_text_printf(text, " drop_writes");
	if (features->error_writes)
		dmcore_text_printf(text, " error_writes");
	if (features->corrupt_byte)
		dmcore_text_printf(text, " corrupt_bio_byte %" PRIu32 " %c %u %" PRIu32,
				   features->corrupt_byte, features->corrupts_writes ? 'w' : 'r',
				   features->corrupt_value, features->corrupt_mask);
	if (features->random_read_corrupt)
		dmcore_text_printf(text, " random_read_corrupt %" PRIu32,
				   features->random_read_corrupt);
	if (features->random_write_corrupt)
		dmcore_text_printf(text, " random_write_corrupt %" PRIu32,
				   features->random_write_corrupt);
}

/* The kernel's bits of those flags that bios have. */
#define KERNEL_WRITE (UINT32_C(1) << 0)
#define KERNEL_FUA (UINT32_C(1) << 17)
#define KERNEL_RAHEAD (UINT32_C(1) << 19)
#define KERNEL_NOWAIT (UINT32_C(1) << 21)

bool dmcore__flakey_mask_fits(const struct flakey_features *features, const struct dmcore_bio *bio)
{
	uint32_t bits = bio->op == DMCORE_OP_WRITE ? KERNEL_WRITE : 0;

	if (bio->flags & DMCORE_BIO_FUA)
		bits |= KERNEL_FUA;
	if (bio->flags & DMCORE_BIO_RAHEAD)
		bits |= KERNEL_RAHEAD;
	if (bio->flags & DMCORE_BIO_NOWAIT)
		bits |= KERNEL_NOWAIT;
	return (features->corrupt_mask & ~bits) == 0;
}
