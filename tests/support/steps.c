/* SPDX-License-Identifier: MIT */
/* Steps of recorded programs; see steps.h. */
#include "steps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dmcore.h>
#include <dmcore/cow.h>

#include <criterion/criterion.h>

#include "golden/programs.h"
#include "scratch.h"
#include "stage.h"

#define DEVICES_MAX 8
#define BUFFER_SECTORS 2048
#define WORDS_MAX 16
/* A sum is made piece by piece, as the recording was. */
#define SUM_SECTORS 64

/* A device of a program: a disk, or a mapped device. */
struct named {
	char name[16];
	struct dmcore_device *device;
	struct dmcore_bdev *bdev;
	struct scratch file;
	bool is_file;
};

static struct stage stage;
static struct named all[DEVICES_MAX];
static unsigned int num_named;
static char watched[16];
static bool on_files;
static FILE *images;
static bool leaves_images;
static char answer[PROGRAM_LINE_BYTES];
static _Alignas(4096) unsigned char buffer[BUFFER_SECTORS * DMCORE_SECTOR_BYTES];

/* ---- devices -------------------------------------------------------------------------------- */

static struct named *find(const char *name)
{
	for (unsigned int i = 0; i < num_named; i++) {
		if (strcmp(all[i].name, name) == 0)
			return &all[i];
	}
	return NULL;
}

static struct named *add(const char *name)
{
	struct named *named = &all[num_named++];

	cr_assert_leq(num_named, DEVICES_MAX);
	memset(named, 0, sizeof(*named));
	snprintf(named->name, sizeof(named->name), "%s", name);
	return named;
}

static int drop(struct named *named)
{
	int ret;

	if (named->device) {
		ret = dmcore_device_remove(named->device);
		if (ret)
			return ret;
	} else {
		cr_assert_eq(dmcore_bdev_close(named->bdev), 0);
		if (named->is_file)
			scratch_close(&named->file);
	}
	memmove(named, named + 1, (size_t)(all + num_named - named - 1) * sizeof(*named));
	num_named--;
	return 0;
}

void steps_exchange_images(const char *path, bool leave)
{
	images = fopen(path, "r+");
	cr_assert_not_null(images, "%s: %s", path, strerror(errno));
	leaves_images = leave;
}

void steps_begin(bool with_files)
{
	on_files = with_files;
	watched[0] = '\0';
	stage_open(&stage, NULL, NULL);
}

void steps_end(void)
{
	while (num_named > 0)
		cr_assert_eq(drop(&all[num_named - 1]), 0, "%s: %s", all[num_named - 1].name,
			     dmcore_error_message());
	if (stage.core)
		stage_close(&stage);
	stage.core = NULL;
}

static void stamp(uint64_t sector, uint64_t count, uint64_t seed)
{
	for (uint64_t i = 0; i < count; i++)
		program_stamp((uint64_t *)(void *)(buffer + i * DMCORE_SECTOR_BYTES), seed,
			      sector + i);
}

static void add_disk(const char *name, uint64_t sectors, const char *content, uint64_t seed)
{
	struct named *named = add(name);
	char spec[64];

	named->is_file = on_files;
	if (on_files) {
		scratch_create(&named->file, NULL, sectors * DMCORE_SECTOR_BYTES);
		snprintf(spec, sizeof(spec), "%s", named->file.path);
	} else {
		snprintf(spec, sizeof(spec), "mem:%llus,name=%s", (unsigned long long)sectors,
			 name);
	}
	cr_assert_eq(dmcore_bdev_open(stage.core, spec, 0, &named->bdev), 0, "%s: %s", spec,
		     dmcore_error_message());
	for (uint64_t done = 0; done < sectors && strcmp(content, "stamp") == 0;) {
		uint64_t step = sectors - done < BUFFER_SECTORS ? sectors - done : BUFFER_SECTORS;

		stamp(done, step, seed);
		cr_assert_eq(dmcore_pwrite(named->bdev, buffer, step * DMCORE_SECTOR_BYTES,
					   done * DMCORE_SECTOR_BYTES),
			     0);
		done += step;
	}
}

/* Replaces the letters of disks by their names, or their names by letters. */
static void translate(char *out, size_t bytes, const char *text, bool to_ours)
{
	size_t used = 0;

	out[0] = '\0';
	while (*text) {
		size_t length = strcspn(text, " \n");
		const char *word = text;
		int word_bytes = (int)length;

		for (unsigned int i = 0; i < num_named && length; i++) {
			const char *ours = dmcore_bdev_name(all[i].bdev);
			const char *from = to_ours ? all[i].name : ours;
			const char *to = to_ours ? ours : all[i].name;

			if (all[i].device || strlen(from) != length ||
			    strncmp(from, text, length) != 0)
				continue;
			word = to;
			word_bytes = (int)strlen(to);
		}
		used += (size_t)snprintf(out + used, bytes - used, "%.*s", word_bytes, word);
		text += length;
		if (*text)
			out[used++] = *text++;
		out[used] = '\0';
		cr_assert_lt(used + 1, bytes);
	}
}

/* ---- tables --------------------------------------------------------------------------------- */

/* ERRNO: TEXT, the text as the kernel would tell it, behind a word. */
static void tell_refusal(const char *stage_word, int error)
{
	char text[1024];
	const char *message = dmcore_error_message();

	if (strncmp(message, "table line ", strlen("table line ")) == 0)
		message = strchr(message, ':') + 2;
	translate(text, sizeof(text), message, false);
	snprintf(answer, sizeof(answer), "%s%s: %s", stage_word, dmcore_error_name(error), text);
}

/* The lines of a table. */
static int parse(const char *words, struct dmcore_table **table)
{
	static char text[PROGRAM_LINE_BYTES];
	char *end;

	translate(text, sizeof(text), words, true);
	while ((end = strstr(text, PROGRAM_LINE_END))) {
		end[0] = '\n';
		memmove(end + 1, end + strlen(PROGRAM_LINE_END),
			strlen(end + strlen(PROGRAM_LINE_END)) + 1);
	}
	return dmcore_table_parse(stage.core, text, 0, table);
}

static int load(struct named *named, const char *words)
{
	struct dmcore_table *table;
	int ret = parse(words, &table);

	if (ret)
		return ret;
	ret = dmcore_device_load(named->device, table);
	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

/* The lines of a text, with PROGRAM_LINE_END between and no space at their ends. */
static void join_lines(const char *raw, char *out, size_t bytes)
{
	static char text[PROGRAM_LINE_BYTES];
	size_t used = 0;

	translate(text, sizeof(text), raw, false);
	out[0] = '\0';
	for (char *rest = text, *line; (line = strsep(&rest, "\n")) && *line;) {
		for (size_t length = strlen(line); line[length - 1] == ' '; length--)
			line[length - 1] = '\0';
		used += (size_t)snprintf(out + used, bytes - used, "%s%s",
					 used ? PROGRAM_LINE_END : "", line);
	}
}

static void all_lines(const char *name, enum dmcore_text_kind kind)
{
	static char raw[PROGRAM_LINE_BYTES];
	struct named *named = find(name);

	cr_assert(named && named->device);
	cr_assert_gt(dmcore_device_text(named->device, kind, 0, raw, sizeof(raw)), 0);
	join_lines(raw, answer, sizeof(answer));
}

/* What TABLE prints of a table that is never loaded, or why there is none. */
static void try_table(const char *words)
{
	static char raw[PROGRAM_LINE_BYTES];
	struct dmcore_table *table;
	int ret;

	memset(buffer, 0, DMCORE_SECTOR_BYTES);
	for (unsigned int i = 0; i < num_named; i++) {
		if (!all[i].device)
			cr_assert_eq(dmcore_pwrite(all[i].bdev, buffer, DMCORE_SECTOR_BYTES, 0), 0);
	}
	ret = parse(words, &table);
	if (ret) {
		tell_refusal("", ret);
		return;
	}
	cr_assert_gt(dmcore_table_text(table, DMCORE_TEXT_TABLE, raw, sizeof(raw)), 0);
	dmcore_table_destroy(table);
	snprintf(answer, sizeof(answer), "ok: ");
	join_lines(raw, answer + 4, sizeof(answer) - 4);
}

static int create(const char *name, const char *words)
{
	struct named *named;
	struct dmcore_device *device;
	const char *where = "load ";
	int ret = dmcore_device_create(stage.core, name, NULL, 0, &device);

	if (ret)
		return ret;
	named = add(name);
	named->device = device;
	named->bdev = dmcore_device_bdev(device);
	ret = load(named, words);
	if (!ret) {
		where = "resume ";
		ret = dmcore_device_resume(device);
	}
	if (!ret)
		return 0;
	tell_refusal(where, ret);
	cr_assert_eq(drop(named), 0);
	return 1;
}

/* What stands behind the type of the one target. */
static void tell_text(const char *name, enum dmcore_text_kind kind, char *out, size_t bytes)
{
	static char raw[PROGRAM_LINE_BYTES];
	struct named *named = find(name);
	const char *at = raw;

	out[0] = '\0';
	if (!named || !named->device ||
	    dmcore_device_text(named->device, kind, 0, raw, sizeof(raw)) <= 0)
		return;
	raw[strcspn(raw, "\n")] = '\0';
	for (unsigned int i = 0; i < 3 && at; i++) {
		at = strchr(at, ' ');
		at += at ? 1 : 0;
	}
	if (!at)
		return;
	translate(out, bytes, at, false);
	for (size_t length = strlen(out); length && out[length - 1] == ' '; length--)
		out[length - 1] = '\0';
}

/* ---- I/O ------------------------------------------------------------------------------------ */

static int transfer(const char *name, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	struct named *named = find(name);
	bool with_memory = op == DMCORE_OP_READ || op == DMCORE_OP_WRITE;

	if (!named)
		return -ENODEV;
	cr_assert(!with_memory || count <= BUFFER_SECTORS);
	return stage_run(&stage, named->bdev, op, 0, sector, count, with_memory ? buffer : NULL);
}

static int sum_of(const char *name, uint64_t first, uint64_t count, uint32_t *sum)
{
	*sum = PROGRAM_SUM_BEGIN;
	for (uint64_t done = 0; done < count;) {
		uint64_t step = count - done < SUM_SECTORS ? count - done : SUM_SECTORS;
		int ret = transfer(name, DMCORE_OP_READ, first + done, step);

		if (ret)
			return ret;
		*sum = program_sum(*sum, buffer, step * DMCORE_SECTOR_BYTES);
		done += step;
	}
	return find(name) ? 0 : -ENODEV;
}

static uint64_t size_of(const char *name)
{
	struct named *named = find(name);

	return named ? dmcore_bdev_size_sectors(named->bdev) : 0;
}

/* ---- COW devices ---------------------------------------------------------------------------- */

static void tell_header(const char *name)
{
	struct dmcore_cow_header header;

	cr_assert_eq(transfer(name, DMCORE_OP_READ, 0, 1), 0);
	dmcore_cow_header_decode(buffer, &header);
	if (header.magic == 0)
		snprintf(answer, sizeof(answer), "new");
	else if (header.magic != DMCORE_COW_MAGIC)
		snprintf(answer, sizeof(answer), "no store");
	else
		snprintf(answer, sizeof(answer), "%u %u %u", header.valid, header.version,
			 header.chunk_sectors);
}

static void tell_entries(const char *name)
{
	struct dmcore_cow_header header;
	uint64_t sectors = size_of(name);
	size_t used = 0;

	cr_assert_eq(transfer(name, DMCORE_OP_READ, 0, 1), 0);
	dmcore_cow_header_decode(buffer, &header);
	if (header.magic != DMCORE_COW_MAGIC || header.chunk_sectors == 0)
		return;
	if (header.valid == 0) {
		snprintf(answer, sizeof(answer), "invalid");
		return;
	}
	for (uint64_t area = 0;; area++) {
		uint32_t chunk = header.chunk_sectors;
		uint64_t first = dmcore_cow_area_chunk(chunk, area) * chunk;
		uint32_t i;

		if (first + chunk > sectors || transfer(name, DMCORE_OP_READ, first, chunk))
			break;
		for (i = 0; i < dmcore_cow_area_entries(chunk); i++) {
			struct dmcore_cow_entry entry;

			dmcore_cow_entry_decode(buffer + i * DMCORE_COW_ENTRY_BYTES, &entry);
			if (entry.new_chunk == 0)
				break;
			used += (size_t)snprintf(answer + used, sizeof(answer) - used,
						 "%s%llu>%llu", used ? " " : "",
						 (unsigned long long)entry.old_chunk,
						 (unsigned long long)entry.new_chunk);
		}
		if (i < dmcore_cow_area_entries(chunk))
			break;
		used += (size_t)snprintf(answer + used, sizeof(answer) - used, " |");
	}
}

/* ---- steps ---------------------------------------------------------------------------------- */

static void settle(const char *name)
{
	uint64_t until_ns = stage_now_ns() + (uint64_t)STAGE_PATIENCE_NS;

	for (;;) {
		char *at;
		unsigned long long allocated;

		tell_text(name, DMCORE_TEXT_STATUS, answer, sizeof(answer));
		allocated = strtoull(answer, NULL, 10);
		at = strchr(answer, ' ');
		if (!strchr(answer, '/') || !at || allocated == strtoull(at, NULL, 10))
			return;
		cr_assert_lt(stage_now_ns(), until_ns, "%s doesn't end", name);
		stage_settle(&stage);
		stage_sleep_ns(200000);
	}
}

/* Whether all mirrors of a status are: "… 3/8 1 AA 1 core" isn't. No name there has a slash. */
static bool is_in_sync(const char *status)
{
	for (const char *at = status; (at = strstr(at, " mirror "));) {
		const char *slash = strchr(at, '/');
		const char *digits = slash;

		cr_assert(slash, "%s", status);
		while (digits[-1] != ' ')
			digits--;
		if (strtoul(digits, NULL, 10) != strtoul(slash + 1, NULL, 10))
			return false;
		at = slash;
	}
	return true;
}

static void insync(const char *name)
{
	uint64_t until_ns = stage_now_ns() + (uint64_t)STAGE_PATIENCE_NS;

	for (all_lines(name, DMCORE_TEXT_STATUS); !is_in_sync(answer);
	     all_lines(name, DMCORE_TEXT_STATUS)) {
		cr_assert_lt(stage_now_ns(), until_ns, "%s doesn't end", name);
		stage_settle(&stage);
		stage_sleep_ns(200000);
	}
}

static uint64_t number(char **words, unsigned int index)
{
	return strtoull(words[index], NULL, 10);
}

static void poke(char **words)
{
	uint64_t sector = number(words, 2);
	uint64_t offset = number(words, 3);

	cr_assert_eq(transfer(words[1], DMCORE_OP_READ, sector, 1), 0);
	for (const char *hex = words[4]; hex[0] && hex[1]; hex += 2)
		buffer[offset++] = (unsigned char)strtoul((char[]){ hex[0], hex[1], 0 }, NULL, 16);
	cr_assert_eq(transfer(words[1], DMCORE_OP_WRITE, sector, 1), 0);
}

/* Leaves a disk's content in the file of images at first; takes what the kernel has left later. */
static void exchange(char **words)
{
	bool is_ours = strcmp(words[0], "ours") == 0;
	struct named *named = find(words[1]);
	size_t bytes = (size_t)size_of(words[1]) * DMCORE_SECTOR_BYTES;
	unsigned char *content;

	if (is_ours != leaves_images)
		return;
	content = malloc(bytes);
	cr_assert(images && content);
	cr_assert_eq(fseeko(images, (off_t)(number(words, 2) * DMCORE_SECTOR_BYTES), SEEK_SET), 0);
	if (is_ours) {
		cr_assert_eq(dmcore_pread(named->bdev, content, bytes, 0), 0);
		cr_assert_eq(fwrite(content, 1, bytes, images), bytes);
		cr_assert_eq(fflush(images), 0);
	} else {
		cr_assert_eq(fread(content, 1, bytes, images), bytes);
		cr_assert_eq(dmcore_pwrite(named->bdev, content, bytes, 0), 0);
	}
	free(content);
}

/* Steps without an answer. */
static bool prepare(char **words)
{
	if (strcmp(words[0], "watch") == 0) {
		snprintf(watched, sizeof(watched), "%s", words[1]);
	} else if (strcmp(words[0], "disk") == 0) {
		add_disk(words[1], number(words, 2), words[3], number(words, 4));
	} else if (strcmp(words[0], "poke") == 0) {
		poke(words);
	} else if (strcmp(words[0], "ours") == 0 || strcmp(words[0], "theirs") == 0) {
		exchange(words);
	} else if (strcmp(words[0], "wipe") == 0) {
		memset(buffer, 0, number(words, 3) * DMCORE_SECTOR_BYTES);
		cr_assert_eq(transfer(words[1], DMCORE_OP_WRITE, number(words, 2),
				      number(words, 3)),
			     0);
	} else {
		return false;
	}
	return true;
}

/* Steps that are answered by a text of their own. */
static bool ask(char **words, const char *line)
{
	if (strcmp(words[0], "status") == 0) {
		tell_text(words[1], DMCORE_TEXT_STATUS, answer, sizeof(answer));
	} else if (strcmp(words[0], "table") == 0) {
		tell_text(words[1], DMCORE_TEXT_TABLE, answer, sizeof(answer));
	} else if (strcmp(words[0], "events") == 0) {
		struct dmcore_device_info info = { .struct_size = sizeof(info) };

		if (find(words[1]))
			cr_assert_eq(dmcore_device_info(find(words[1])->device, &info), 0);
		snprintf(answer, sizeof(answer), "%u", info.event_nr);
	} else if (strcmp(words[0], "try") == 0) {
		try_table(line + strlen("try "));
	} else if (strcmp(words[0], "settle") == 0) {
		settle(words[1]);
	} else if (strcmp(words[0], "lines") == 0) {
		all_lines(words[1], DMCORE_TEXT_TABLE);
	} else if (strcmp(words[0], "insync") == 0) {
		insync(words[1]);
	} else if (strcmp(words[0], "size") == 0) {
		snprintf(answer, sizeof(answer), "%llu", (unsigned long long)size_of(words[1]));
	} else if (strcmp(words[0], "header") == 0) {
		tell_header(words[1]);
	} else if (strcmp(words[0], "entries") == 0) {
		tell_entries(words[1]);
	} else {
		return false;
	}
	return true;
}

/* Reads and sums: 1 if told already. */
static int look(char **words)
{
	uint32_t sum;
	int ret;

	if (strcmp(words[0], "sum") == 0)
		ret = sum_of(words[1], 0, size_of(words[1]), &sum);
	else
		ret = sum_of(words[1], number(words, 2), number(words, 3), &sum);
	if (ret)
		return ret;
	snprintf(answer, sizeof(answer), "%08x", sum);
	return 1;
}

static int act(char **words, const char *table)
{
	const char *op = words[0];
	struct named *named = find(words[1]);

	if (strcmp(op, "create") == 0)
		return create(words[1], table);
	if (!named)
		return -ENODEV;
	if (strcmp(op, "load") == 0) {
		int ret = load(named, table);

		if (ret)
			tell_refusal("", ret);
		return ret ? 1 : 0;
	}
	if (strcmp(op, "resume") == 0)
		return dmcore_device_resume(named->device);
	if (strcmp(op, "suspend") == 0)
		return dmcore_device_suspend(named->device, 0, STAGE_PATIENCE_NS);
	if (strcmp(op, "remove") == 0)
		return drop(named);
	if (strcmp(op, "message") == 0)
		return (int)dmcore_device_message(named->device, number(words, 2),
						  strchr(table, ' ') + 1, NULL, 0);
	if (strcmp(op, "flush") == 0)
		return transfer(words[1], DMCORE_OP_FLUSH, 0, 0);
	if (strcmp(op, "discard") == 0)
		return transfer(words[1], DMCORE_OP_DISCARD, number(words, 2), number(words, 3));
	if (strcmp(op, "zeroes") == 0)
		return transfer(words[1], DMCORE_OP_WRITE_ZEROES, number(words, 2),
				number(words, 3));
	if (strcmp(op, "write") == 0) {
		stamp(number(words, 2), number(words, 3), number(words, 4));
		return transfer(words[1], DMCORE_OP_WRITE, number(words, 2), number(words, 3));
	}
	return look(words);
}

const char *steps_carry_out(const char *line)
{
	char copy[PROGRAM_LINE_BYTES];
	char *words[WORDS_MAX] = { NULL };
	const char *table = line;
	unsigned int count = 0;
	char *rest = copy;
	int ret;

	snprintf(copy, sizeof(copy), "%s", line);
	while (count < WORDS_MAX && (words[count] = strsep(&rest, " ")))
		count++;
	while (count < WORDS_MAX)
		words[count++] = copy + strlen(copy);
	for (unsigned int i = 0; i < 2 && table; i++) {
		table = strchr(table, ' ');
		table += table ? 1 : 0;
	}
	answer[0] = '\0';
	if (prepare(words))
		return NULL;
	if (ask(words, line))
		return answer;
	ret = act(words, table);
	if (ret <= 0)
		snprintf(answer, sizeof(answer), "%s", ret ? dmcore_error_name(ret) : "ok");
	if (watched[0] && find(watched)) {
		size_t used = strlen(answer);

		snprintf(answer + used, sizeof(answer) - used, "; ");
		tell_text(watched, DMCORE_TEXT_STATUS, answer + used + 2,
			  sizeof(answer) - used - 2);
	}
	return answer;
}
