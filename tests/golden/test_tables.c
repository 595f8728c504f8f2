/* SPDX-License-Identifier: MIT */
/*
 * What the real kernel said to each table of tables.txt, against what this library says: verdict,
 * error text, printed table and status. A difference must be in the list below under its number in
 * docs/conformance.md, and one that is in the list must still be there.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"

#define TEXT_BYTES 4096
#define CASES 99

/* The disks of the recording, 8192 sectors each: as the tables name them, and as the kernel does. */
static const struct {
	char letter;
	const char *kernel;
	const char *ours;
} disks[] = {
	{ 'A', "vdb ", "mem:8192s,name=A" },
	{ 'B', "vdc ", "mem:8192s,name=B" },
	{ 'C', "vdd ", "mem:8192s,name=C" },
};

static const struct difference {
	unsigned int number;
	const char *table;
	const char *ours; /* the text of our refusal, without the line that it names */
} differences[] = {
	{ 1, "0 1 linear A 18446744073709551616\n", "linear: Invalid device sector" },
	{ 2, "0 +8 zero\n", "Invalid format on line 1 of table" },
	{ 2, "-0 8 zero\n", "Invalid format on line 1 of table" },
	{ 2, "0 -8 zero\n", "Invalid format on line 1 of table" },
	{ 50, "0 4096 unstriped 2 8 2 A 0\n",
	  "unstriped: Please provide stripe between [0, # of stripes]" },
};

/* A case of the file, or what we make of it. */
struct verdict {
	bool accepts;
	int error;
	char text[TEXT_BYTES]; /* of the refusal, up to a colon that adds a reason */
	char table[TEXT_BYTES];
	char status[TEXT_BYTES];
};

struct golden {
	char table[TEXT_BYTES];
	struct verdict kernel;
};

TestSuite(golden_tables, .init = fixture_open, .fini = fixture_close);

/* ---- reading the file ---- */

static FILE *open_golden(void)
{
	const char *top = getenv("top_srcdir");
	char path[PATH_MAX];
	const char *here = __FILE__;
	FILE *file;

	if (top)
		snprintf(path, sizeof(path), "%s/tests/golden/tables.txt", top);
	else
		snprintf(path, sizeof(path), "%.*stables.txt", (int)(strrchr(here, '/') + 1 - here),
			 here);
	file = fopen(path, "r");
	cr_assert_not_null(file, "%s: %s", path, strerror(errno));
	return file;
}

static void append(char *to, const char *text)
{
	size_t used = strlen(to);

	cr_assert_lt(used + strlen(text), TEXT_BYTES);
	memcpy(to + used, text, strlen(text) + 1);
}

/* Whether the next word is the state of a mirror's log, "disk C A", and no disk. */
static bool is_state_of_log(const char *text)
{
	size_t length = strlen(text);

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(disks); i++) {
		char words[64];
		size_t count = (size_t)snprintf(words, sizeof(words), " disk %s ", disks[i].ours);

		if (length >= count && strcmp(text + length - count, words) == 0)
			return true;
	}
	return false;
}

/* Appends, with the disks by our names: single letters, or the kernel's names. */
static void append_renamed(char *to, const char *from)
{
	while (*from) {
		bool at_word = (!*to || strchr(" \t\n", to[strlen(to) - 1])) &&
			       !is_state_of_log(to);
		char one[2] = { *from, '\0' };
		const char *found = one;
		size_t taken = 1;

		for (size_t i = 0; at_word && i < DMCORE__ARRAY_SIZE(disks); i++) {
			if (*from == disks[i].letter && strchr(" \n", from[1]))
				found = disks[i].ours;
			if (strncmp(from, disks[i].kernel, 4) != 0)
				continue;
			found = disks[i].ours;
			taken = 3;
		}
		append(to, found);
		from += taken;
	}
}

/* One line of the kernel's refusal. The first that speaks of the table counts. */
static void read_refusal(struct verdict *verdict, const char *line)
{
	static const char prefix[] = "device-mapper: table: 253:0: ";
	char reason[TEXT_BYTES] = "";
	char *error;

	if (verdict->text[0])
		return;
	/* What the kernel finds while it cleans up isn't the reason. */
	if (strstr(line, " not in table devices list"))
		return;
	if (strncmp(line, prefix, sizeof(prefix) - 1) == 0)
		line += sizeof(prefix) - 1;
	else if (strncmp(line, "Invalid format", strlen("Invalid format")) != 0)
		return;
	append(reason, line);
	reason[strcspn(reason, "\n")] = '\0';
	if (strstr(reason, " on stdin."))
		*strstr(reason, " on stdin.") = '\0';
	verdict->error = -EINVAL;
	error = strrchr(reason, '(');
	if (error && strncmp(error, "(-E", 3) == 0) {
		if (strcmp(error, "(-ENOENT)") == 0)
			verdict->error = -ENOENT;
		else
			cr_assert_str_eq(error, "(-EINVAL)");
		error[-1] = '\0';
	}
	append_renamed(verdict->text, reason);
}

/* The next case; false at the end. */
static bool read_case(FILE *file, struct golden *golden)
{
	char line[TEXT_BYTES];
	char *part = NULL;

	*golden = (struct golden){ 0 };
	while (fgets(line, sizeof(line), file)) {
		if (strcmp(line, "table:\n") == 0) {
			part = golden->table;
		} else if (strncmp(line, "kernel: ", 8) == 0) {
			golden->kernel.accepts = strcmp(line, "kernel: accepts\n") == 0;
			part = golden->kernel.accepts ? golden->kernel.table : NULL;
		} else if (strcmp(line, "  @status\n") == 0) {
			part = golden->kernel.status;
		} else if (strncmp(line, "  ", 2) == 0) {
			if (part == golden->table)
				append(part, line + 2);
			else if (part)
				append_renamed(part, line + 2);
			else
				read_refusal(&golden->kernel, line + 2);
		} else {
			break;
		}
	}
	return golden->table[0];
}

/* ---- asking the library ---- */

/* A table that the kernel accepts must also go live. It has its status then: a snapshot has none
 * before (D-102). */
static void go_live(struct dmcore_table *table, struct verdict *verdict)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(fixture.core, "golden", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
	append(verdict->status, fixture_device_text(device, DMCORE_TEXT_STATUS));
	cr_assert_eq(dmcore_device_remove(device), 0);
}

/* No case finds what another left. */
static void wipe_disks(void)
{
	static const unsigned char zeroes[DMCORE_SECTOR_BYTES];

	for (unsigned int i = 0; i < fixture.num_bdevs; i++)
		cr_assert_eq(dmcore_pwrite(fixture.bdevs[i], zeroes, sizeof(zeroes), 0), 0);
}

static void ask(const char *text, struct verdict *verdict)
{
	char renamed[TEXT_BYTES] = "";
	struct dmcore_table *table;
	const char *reason;

	*verdict = (struct verdict){ 0 };
	wipe_disks();
	append_renamed(renamed, text);
	verdict->error = dmcore_table_parse(fixture.core, renamed, 0, &table);
	verdict->accepts = verdict->error == 0;
	if (verdict->accepts) {
		append(verdict->table, fixture_table_text(table, DMCORE_TEXT_TABLE));
		go_live(table, verdict);
		return;
	}
	reason = dmcore_error_message();
	cr_assert_eq(strncmp(reason, "table line ", strlen("table line ")), 0, "%s", reason);
	append(verdict->text, strchr(reason, ':') + 2);
}

/* Whether our text is this one, or this one and a reason behind a colon. */
static bool text_is(const char *ours, const char *text)
{
	size_t length = strlen(text);

	return strncmp(ours, text, length) == 0 && (!ours[length] || ours[length] == ':');
}

/* How far a mirror's recovery has got, "77/128", is a matter of moments: where its words begin. */
static const char *progress(const char *status)
{
	const char *words = strstr(status, " mirror ") ? strchr(status, '/') : NULL;

	/* Devices have names without slashes here. */
	while (words && words > status && words[-1] != ' ')
		words--;
	return words;
}

static bool same_status(const char *kernel, const char *ours)
{
	const char *theirs = progress(kernel);
	const char *mine = progress(ours);

	if (!theirs || !mine)
		return strcmp(kernel, ours) == 0;
	return theirs - kernel == mine - ours &&
	       strncmp(kernel, ours, (size_t)(mine - ours)) == 0 &&
	       strcmp(strchr(theirs, '/'), strchr(mine, '/')) == 0;
}

static bool same(const struct verdict *kernel, const struct verdict *ours)
{
	if (kernel->accepts != ours->accepts || kernel->error != ours->error)
		return false;
	if (!kernel->accepts)
		return text_is(ours->text, kernel->text);
	return strcmp(kernel->table, ours->table) == 0 &&
	       same_status(kernel->status, ours->status);
}

/* ---- comparing ---- */

static const struct difference *find_difference(const char *table)
{
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(differences); i++) {
		if (strcmp(differences[i].table, table) == 0)
			return &differences[i];
	}
	return NULL;
}

static void show(const char *who, const struct verdict *verdict)
{
	if (verdict->accepts)
		cr_log_error("%s accepts:\n%s@status\n%s", who, verdict->table, verdict->status);
	else
		cr_log_error("%s refuses (%s): %s", who, dmcore_error_name(verdict->error),
			     verdict->text);
}

/* Compares one case; false after a difference that has no number. */
static bool check(const struct golden *golden, unsigned int *met)
{
	const struct difference *difference = find_difference(golden->table);
	struct verdict ours;

	ask(golden->table, &ours);
	if (difference) {
		*met += 1;
		if (!same(&golden->kernel, &ours) && !ours.accepts &&
		    text_is(ours.text, difference->ours))
			return true;
		cr_log_error("D-%03u no longer occurs as listed:\n%s", difference->number,
			     golden->table);
	} else {
		if (same(&golden->kernel, &ours))
			return true;
		cr_log_error("an unnumbered difference:\n%s", golden->table);
	}
	show("the kernel", &golden->kernel);
	show("the library", &ours);
	return false;
}

Test(golden_tables, are_answered_as_by_the_kernel)
{
	unsigned int checked = 0;
	unsigned int differing = 0;
	unsigned int wrong = 0;
	struct golden golden;
	FILE *file = open_golden();

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(disks); i++)
		fixture_bdev(disks[i].ours);
	while (read_case(file, &golden)) {
		checked++;
		if (!check(&golden, &differing))
			wrong++;
	}
	fclose(file);
	cr_assert_eq(wrong, 0, "%u of %u cases differ", wrong, checked);
	cr_assert_eq(differing, DMCORE__ARRAY_SIZE(differences));
	cr_assert_eq(checked, CASES);
	cr_log_info("%u cases as the kernel, %u of them with a numbered difference", checked,
		    differing);
}
