/* SPDX-License-Identifier: MIT */
/*
 * Images that the real kernel's linear and striped targets have written, both ways: what it left
 * reads as it read it, and what is written here leaves the same images. See pack-images for the
 * form of the pack.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/wait.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define IMAGES_MAX 32
#define TEXT_BYTES 8192
#define LEAVES_MAX 8
#define NAME_BYTES 256
/* The kernel's names for the leaves, in order. */
#define FIRST_MINOR 16
#define MINOR_STEP 16

struct image {
	char name[32];
	unsigned char *bytes;
	size_t size_bytes;
};

/* A case, unpacked. */
static struct {
	char table[TEXT_BYTES];
	char ops[TEXT_BYTES];
	char kernel_log[TEXT_BYTES];
	struct image images[IMAGES_MAX];
	unsigned int num_images;
	char leaves[LEAVES_MAX][16]; /* as the table names them */
	unsigned int num_leaves;
} recorded;

static char folder[128];
static struct stage stage;
static struct dmcore_bdev *bdev;

/* ---- the pack ------------------------------------------------------------------------------- */

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

static void unpack(void)
{
	const char *top = getenv("top_srcdir");
	const char *here = __FILE__;
	char pack[1024];
	const char *words[] = { "tar", "-xzf", pack, "-C", folder, NULL };

	if (top)
		snprintf(pack, sizeof(pack), "%s/tests/golden/images.tar.gz", top);
	else
		snprintf(pack, sizeof(pack), "%.*simages.tar.gz",
			 (int)(strrchr(here, '/') + 1 - here), here);
	snprintf(folder, sizeof(folder), "%s/dmcore-images-XXXXXX", scratch_dir());
	cr_assert_not_null(mkdtemp(folder));
	run(words);
}

/* Also after a failure. */
static void remove_folder(void)
{
	const char *words[] = { "rm", "-rf", folder, NULL };

	if (folder[0])
		run(words);
}

TestSuite(golden_images, .fini = remove_folder);

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

static void load_text(const char *directory, const char *name, char *text)
{
	size_t bytes;
	char *data = load(directory, name, &bytes);

	cr_assert_lt(bytes, TEXT_BYTES);
	memcpy(text, data, bytes + 1);
	free(data);
}

/* One line of `images`: a name, and how many sectors from which one on. */
static void build_image(char *line, const char *sectors, size_t sectors_bytes)
{
	struct image *image = &recorded.images[recorded.num_images++];
	char *cursor = strchr(line, ' ');
	size_t room = 16 << 20;

	cr_assert(cursor && recorded.num_images <= IMAGES_MAX);
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

static void load_case(const char *name)
{
	size_t sectors_bytes;
	size_t bytes;
	char *sectors = load("", "sectors", &sectors_bytes);
	char *lines = load(name, "images", &bytes);
	char *rest = lines;

	memset(&recorded, 0, sizeof(recorded));
	load_text(name, "table", recorded.table);
	load_text(name, "ops", recorded.ops);
	load_text(name, "kernel.log", recorded.kernel_log);
	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n")) {
		char *dot;

		build_image(line, sectors, sectors_bytes);
		dot = strstr(line, ".pre");
		if (dot)
			snprintf(recorded.leaves[recorded.num_leaves++], sizeof(recorded.leaves[0]),
				 "%.*s", (int)(dot - line), line);
	}
	free(lines);
	free(sectors);
}

static void forget_case(void)
{
	for (unsigned int i = 0; i < recorded.num_images; i++)
		free(recorded.images[i].bytes);
}

static const struct image *image_of(const char *leaf, const char *suffix)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%s", leaf, suffix);
	for (unsigned int i = 0; i < recorded.num_images; i++) {
		if (strcmp(recorded.images[i].name, name) == 0)
			return &recorded.images[i];
	}
	cr_assert_fail("no image %s", name);
	return NULL;
}

/* ---- leaves and the device ------------------------------------------------------------------ */

static void leaf_path(const char *leaf, char *path, size_t bytes)
{
	snprintf(path, bytes, "%s/%s", folder, leaf);
}

static void write_leaves(const char *suffix)
{
	for (unsigned int i = 0; i < recorded.num_leaves; i++) {
		const struct image *image = image_of(recorded.leaves[i], suffix);
		char path[NAME_BYTES];
		FILE *file;

		leaf_path(recorded.leaves[i], path, sizeof(path));
		file = fopen(path, "wb");
		cr_assert_not_null(file, "%s", path);
		cr_assert_eq(fwrite(image->bytes, 1, image->size_bytes, file), image->size_bytes);
		cr_assert_eq(fclose(file), 0);
	}
}

static void expect_leaves(const char *suffix)
{
	for (unsigned int i = 0; i < recorded.num_leaves; i++) {
		const struct image *image = image_of(recorded.leaves[i], suffix);
		size_t bytes;
		char *data = load("", recorded.leaves[i], &bytes);

		cr_assert_eq(bytes, image->size_bytes, "%s", image->name);
		for (size_t j = 0; j < bytes; j += DMCORE_SECTOR_BYTES)
			cr_assert_eq(memcmp(data + j, image->bytes + j, DMCORE_SECTOR_BYTES), 0,
				     "sector %zu differs from %s", j / DMCORE_SECTOR_BYTES,
				     image->name);
		free(data);
	}
}

/* Copies a text, with each word that `from` names given as `to` names it. */
static void translate(const char *text, char (*from)[NAME_BYTES], char (*to)[NAME_BYTES],
		      unsigned int count, char *out, size_t bytes)
{
	size_t used = 0;

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

static char leaf_names[LEAVES_MAX][NAME_BYTES];
static char kernel_names[LEAVES_MAX][NAME_BYTES];
static char path_names[LEAVES_MAX][NAME_BYTES];

static void name_leaves(void)
{
	for (unsigned int i = 0; i < recorded.num_leaves; i++) {
		snprintf(leaf_names[i], sizeof(leaf_names[0]), "%s", recorded.leaves[i]);
		snprintf(kernel_names[i], sizeof(kernel_names[0]), "254:%u",
			 FIRST_MINOR + i * MINOR_STEP);
		leaf_path(recorded.leaves[i], path_names[i], sizeof(path_names[0]));
	}
}

static void open_device(void)
{
	static char text[TEXT_BYTES];

	name_leaves();
	translate(recorded.table, leaf_names, path_names, recorded.num_leaves, text, sizeof(text));
	stage_open(&stage, NULL, NULL);
	bdev = stage_map(&stage, "m", text);
}

static void expect_content(void)
{
	const struct image *expect = image_of("expect", "");
	unsigned char *bytes = malloc(expect->size_bytes);

	cr_assert_not_null(bytes);
	cr_assert_eq(dmcore_bdev_size_sectors(bdev) * DMCORE_SECTOR_BYTES, expect->size_bytes);
	/* In one request, and in many of an odd size. */
	memset(bytes, 0xff, expect->size_bytes);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0,
			       expect->size_bytes / DMCORE_SECTOR_BYTES, bytes),
		     0);
	cr_assert_eq(memcmp(bytes, expect->bytes, expect->size_bytes), 0);
	memset(bytes, 0xff, expect->size_bytes);
	for (size_t offset = 0; offset < expect->size_bytes; offset += 37 * DMCORE_SECTOR_BYTES) {
		size_t left = expect->size_bytes - offset;
		size_t step = left < 37 * DMCORE_SECTOR_BYTES ? left : 37 * DMCORE_SECTOR_BYTES;

		cr_assert_eq(dmcore_pread(bdev, bytes + offset, step, offset), 0);
	}
	cr_assert_eq(memcmp(bytes, expect->bytes, expect->size_bytes), 0);
	free(bytes);
}

/* Every line of `ops`: "write DEVICE sector N count N from data N". */
static void write_ops(void)
{
	const struct image *data = image_of("data", "");
	unsigned int num_ops = 0;
	char *rest = recorded.ops;

	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n")) {
		char *sector_text = strstr(line, " sector ");
		char *count_text = strstr(line, " count ");
		char *from_text = strstr(line, " from data ");
		uint64_t sector;
		uint64_t count;
		uint64_t from;

		cr_assert(strncmp(line, "write ", 6) == 0 && sector_text && count_text && from_text,
			  "%s", line);
		sector = strtoull(sector_text + strlen(" sector "), NULL, 10);
		count = strtoull(count_text + strlen(" count "), NULL, 10);
		from = strtoull(from_text + strlen(" from data "), NULL, 10);
		cr_assert_leq((from + count) * DMCORE_SECTOR_BYTES, data->size_bytes);
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, sector, count,
				       data->bytes + from * DMCORE_SECTOR_BYTES),
			     0, "%s", line);
		num_ops++;
	}
	cr_assert_gt(num_ops, 20);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
}

/* Appends a text line by line as dmsetup prints it: behind the name of the device. */
static void append_lines(char *out, size_t bytes, const char *name, char *text)
{
	char *rest = text;

	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n")) {
		size_t used = strlen(out);
		size_t length = strlen(line);

		/* A status without a word of its target's ends with a space there. */
		while (length > 0 && line[length - 1] == ' ')
			length--;
		snprintf(out + used, bytes - used, "%s: %.*s\n", name, (int)length, line);
	}
}

static void expect_texts(void)
{
	static const enum dmcore_text_kind kinds[] = { DMCORE_TEXT_STATUS, DMCORE_TEXT_TABLE };
	static char raw[TEXT_BYTES];
	static char text[TEXT_BYTES];
	static char ours[TEXT_BYTES];
	static char theirs[TEXT_BYTES];
	const char *colon = strchr(recorded.kernel_log, ':');
	char *rest = recorded.kernel_log;
	char name[32];

	cr_assert_not_null(colon);
	snprintf(name, sizeof(name), "%.*s", (int)(colon - recorded.kernel_log),
		 recorded.kernel_log);
	ours[0] = '\0';
	for (unsigned int i = 0; i < 2; i++) {
		int64_t length = dmcore_device_text(stage.devices[0], kinds[i], 0, raw, sizeof(raw));

		cr_assert(length > 0 && length < TEXT_BYTES);
		translate(raw, path_names, kernel_names, recorded.num_leaves, text, sizeof(text));
		append_lines(ours, sizeof(ours), name, text);
	}
	theirs[0] = '\0';
	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n"))
		append_lines(theirs, sizeof(theirs), name, line + strlen(name) + 2);
	cr_assert_str_eq(ours, theirs, "'%s' instead of '%s'", ours, theirs);
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void run_case(const char *name)
{
	unpack();
	load_case(name);
	cr_assert_gt(recorded.num_leaves, 0);

	write_leaves(".post");
	open_device();
	expect_content();
	expect_texts();
	stage_close(&stage);

	write_leaves(".pre");
	open_device();
	write_ops();
	expect_content();
	stage_close(&stage);
	expect_leaves(".post");

	forget_case();
}

Test(golden_images, linear_reverse)
{
	run_case("linear-reverse");
}

Test(golden_images, striped_2_8)
{
	run_case("striped-2-8");
}

Test(golden_images, striped_3_16)
{
	run_case("striped-3-16");
}

Test(golden_images, striped_5_128)
{
	run_case("striped-5-128");
}
