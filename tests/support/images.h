/* SPDX-License-Identifier: MIT */
/*
 * Recorded images of disks, as tests/golden/pack-images packs them: unpacked into a folder, and a
 * case of them at a time in memory and, as the leaves of a table, in files. Asserts that all works.
 */
#ifndef DMCORE_TESTS_SUPPORT_IMAGES_H
#define DMCORE_TESTS_SUPPORT_IMAGES_H

#include <stddef.h>

#define IMAGES_MAX 32
#define IMAGES_LEAVES_MAX 8
#define IMAGES_NAME_BYTES 256

struct image {
	char name[32];
	unsigned char *bytes;
	size_t size_bytes;
};

/* A case. */
struct images {
	char *table;
	char *ops;
	char *kernel_log;
	struct image list[IMAGES_MAX];
	unsigned int count;
	char leaves[IMAGES_LEAVES_MAX][16]; /* as the table names them */
	unsigned int num_leaves;
	char paths[IMAGES_LEAVES_MAX][IMAGES_NAME_BYTES];        /* of their files */
	char kernel_names[IMAGES_LEAVES_MAX][IMAGES_NAME_BYTES]; /* MAJOR:MINOR in its texts */
};

/* Unpacks tests/golden/NAME, into a folder that images_remove() removes, also after a failure. */
void images_unpack(const char *name);
void images_remove(void);

void images_load(struct images *images, const char *name);
void images_forget(struct images *images);

/* The image of a leaf with this suffix, ".pre" or ".post"; or of "expect" or "data" with "". */
const struct image *images_find(const struct images *images, const char *leaf, const char *suffix);

/* Writes the leaves' files, and compares them sector by sector. */
void images_write_leaves(const struct images *images, const char *suffix);
void images_expect_leaves(const struct images *images, const char *suffix);
/* But for some sectors of this leaf. */
void images_expect_leaves_but(const struct images *images, const char *suffix, const char *leaf,
			      size_t first, size_t count);

/* Copies a text, with each word that is `from[i]` given as `to[i]`. */
void images_translate(const char *text, const char (*from)[IMAGES_NAME_BYTES],
		      const char (*to)[IMAGES_NAME_BYTES], unsigned int count, char *out,
		      size_t bytes);
/* A text with the leaves by their paths instead of as the table names them, and with the kernel's
 * names instead of the paths. */
void images_to_paths(const struct images *images, const char *text, char *out, size_t bytes);
void images_to_kernel(const struct images *images, const char *text, char *out, size_t bytes);

#endif
