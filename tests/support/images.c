/* SPDX-License-Identifier: MIT */
/* Recorded images of disks; see images.h. */
#include "images.h"

#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/wait.h>

#include <dmcore.h>

#include <criterion/criterion.h>

#include "scratch.h"

/* The kernel's names for the leaves, in order. */
#define FIRST_MINOR 16
#define MINOR_STEP 16

static char folder[128];

static void run(const char *const *words)
{
	int status = -1;
	pid_t pid;

	cr_assert_eq(posix_spawnp(&pid, words[0], NULL, NULL, (char *const *)(uintptr_t)words,
				  environ),
		     0, "%s", words[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%s failed", words[0]);
}

void images_unpack(const char *name)
{
	const char *top = getenv("top_srcdir");
	const char *here = __FILE__;
	char pack[1024];
	const char *words[] = { "tar", "-xzf", pack, "-C", folder, NULL };

	if (top)
		snprintf(pack, sizeof(pack), "%s/tests/golden/%s", top, name);
	else
		snprintf(pack, sizeof(pack), "%.*s../golden/%s",
			 (int)(strrchr(here, '/') + 1 - here), here, name);
	snprintf(folder, sizeof(folder), "%s/dmcore-images-XXXXXX", scratch_dir());
	cr_assert_not_null(mkdtemp(folder));
	run(words);
}

void images_remove(void)
{
	const char *words[] = { "rm", "-rf", folder, NULL };

	if (folder[0])
		run(words);
	folder[0] = '\0';
}

/* A whole file, and a NUL behind it; to be freed. */
static char *load(const char *directory, const char *name, size_t *bytes)
{
	char path[512];
	FILE *file;
	long size = -1;
	char *data;

	snprintf(path, sizeof(path), "%s/%s%s%s", folder, directory, directory[0] ? "/" : "", name);
	file = fopen(path, "rb");
	cr_assert_not_null(file, "%s", path);
	cr_assert(fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0);
	rewind(file);
	data = calloc(1, (size_t)size + 1);
	cr_assert_not_null(data);
	cr_assert_eq(fread(data, 1, (size_t)size, file), (size_t)size);
	fclose(file);
	*bytes = (size_t)size;
	return data;
}

/* One line of `images`: a name, and how many sectors from which one on. */
static void build_image(struct images *images, char *line, const char *sectors,
			size_t sectors_bytes)
{
	struct image *image = &images->list[images->count++];
	char *cursor = strchr(line, ' ');
	size_t room = 16 << 20;

	cr_assert(cursor && images->count <= IMAGES_MAX);
	*cursor++ = '\0';
	snprintf(image->name, sizeof(image->name), "%s", line);
	image->bytes = malloc(room);
	cr_assert_not_null(image->bytes);
	image->size_bytes = 0;
	while (*cursor) {
		size_t bytes = strtoul(cursor, &cursor, 10) * DMCORE_SECTOR_BYTES;
		size_t from = strtoul(cursor, &cursor, 10) * DMCORE_SECTOR_BYTES;

		cr_assert(bytes > 0 && bytes <= room - image->size_bytes &&
			  bytes <= sectors_bytes && from <= sectors_bytes - bytes);
		memcpy(image->bytes + image->size_bytes, sectors + from, bytes);
		image->size_bytes += bytes;
	}
}

static void add_leaf(struct images *images, const char *name, int length)
{
	unsigned int i = images->num_leaves++;

	cr_assert_lt(i, IMAGES_LEAVES_MAX);
	snprintf(images->leaves[i], sizeof(images->leaves[i]), "%.*s", length, name);
	snprintf(images->paths[i], sizeof(images->paths[i]), "%s/%.*s", folder, length, name);
}

/* They were the disks of one machine in the order of its command line. */
static void name_leaves(struct images *images)
{
	for (unsigned int i = 0; i < images->num_leaves; i++) {
		unsigned int place = i;

		/* An origin comes before its COW device. */
		if (images->num_leaves == 2 && strcmp(images->leaves[1], "origin") == 0)
			place = 1 - i;
		snprintf(images->kernel_names[i], sizeof(images->kernel_names[i]), "254:%u",
			 FIRST_MINOR + place * MINOR_STEP);
	}
}

void images_load(struct images *images, const char *name)
{
	size_t sectors_bytes;
	size_t bytes;
	char *sectors = load("", "sectors", &sectors_bytes);
	char *lines = load(name, "images", &bytes);
	char *rest = lines;

	memset(images, 0, sizeof(*images));
	images->table = load(name, "table", &bytes);
	images->ops = load(name, "ops", &bytes);
	images->kernel_log = load(name, "kernel.log", &bytes);
	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n")) {
		char *dot;

		build_image(images, line, sectors, sectors_bytes);
		dot = strstr(line, ".pre");
		if (dot)
			add_leaf(images, line, (int)(dot - line));
	}
	name_leaves(images);
	free(lines);
	free(sectors);
}

void images_forget(struct images *images)
{
	for (unsigned int i = 0; i < images->count; i++)
		free(images->list[i].bytes);
	free(images->table);
	free(images->ops);
	free(images->kernel_log);
}

const struct image *images_find(const struct images *images, const char *leaf, const char *suffix)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%s", leaf, suffix);
	for (unsigned int i = 0; i < images->count; i++) {
		if (strcmp(images->list[i].name, name) == 0)
			return &images->list[i];
	}
	cr_assert_fail("no image %s", name);
	return NULL;
}

void images_write_leaves(const struct images *images, const char *suffix)
{
	for (unsigned int i = 0; i < images->num_leaves; i++) {
		const struct image *image = images_find(images, images->leaves[i], suffix);
		FILE *file = fopen(images->paths[i], "wb");

		cr_assert_not_null(file, "%s", images->paths[i]);
		cr_assert_eq(fwrite(image->bytes, 1, image->size_bytes, file), image->size_bytes);
		cr_assert_eq(fclose(file), 0);
	}
}

void images_expect_leaves(const struct images *images, const char *suffix)
{
	images_expect_leaves_but(images, suffix, "", 0, 0);
}

void images_expect_leaves_but(const struct images *images, const char *suffix, const char *leaf,
			      size_t first, size_t count)
{
	for (unsigned int i = 0; i < images->num_leaves; i++) {
		const struct image *image = images_find(images, images->leaves[i], suffix);
		size_t bytes;
		char *data = load("", images->leaves[i], &bytes);

		bool is_leaf = strcmp(leaf, images->leaves[i]) == 0;

		cr_assert_eq(bytes, image->size_bytes, "%s", image->name);
		for (size_t j = 0; j < bytes / DMCORE_SECTOR_BYTES; j++) {
			size_t at = j * DMCORE_SECTOR_BYTES;

			if (is_leaf && j >= first && j < first + count)
				continue;
			cr_assert_eq(memcmp(data + at, image->bytes + at, DMCORE_SECTOR_BYTES), 0,
				     "sector %zu differs from %s", j, image->name);
		}
		free(data);
	}
}

void images_translate(const char *text, const char (*from)[IMAGES_NAME_BYTES],
		      const char (*to)[IMAGES_NAME_BYTES], unsigned int count, char *out,
		      size_t bytes)
{
	size_t used = 0;

	out[0] = '\0';
	while (*text) {
		size_t length = strcspn(text, " \n");
		const char *word = text;
		int word_bytes = (int)length;

		for (unsigned int i = 0; i < count; i++) {
			if (strlen(from[i]) == length && strncmp(from[i], text, length) == 0) {
				word = to[i];
				word_bytes = (int)strlen(to[i]);
			}
		}
		used += (size_t)snprintf(out + used, bytes - used, "%.*s", word_bytes, word);
		cr_assert_lt(used + 2, bytes);
		text += length;
		if (*text)
			out[used++] = *text++;
		out[used] = '\0';
	}
}

void images_to_paths(const struct images *images, const char *text, char *out, size_t bytes)
{
	char names[IMAGES_LEAVES_MAX][IMAGES_NAME_BYTES];

	for (unsigned int i = 0; i < images->num_leaves; i++)
		snprintf(names[i], sizeof(names[i]), "%s", images->leaves[i]);
	images_translate(text, (const char (*)[IMAGES_NAME_BYTES])names, images->paths,
			 images->num_leaves, out, bytes);
}

void images_to_kernel(const struct images *images, const char *text, char *out, size_t bytes)
{
	images_translate(text, images->paths, images->kernel_names, images->num_leaves, out, bytes);
}
