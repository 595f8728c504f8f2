/* SPDX-License-Identifier: MIT */
/*
 * What a real kernel answered to programs of snapshots, step by step, against what this library
 * answers: crafted COW devices, behaviour at the edges, COW devices that fill, and random programs.
 * The form of the programs is told in programs.h. A difference must be in the list below under its
 * number in docs/conformance.md, and one that is in the list must still be there.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "programs.h"
#include "support/steps.h"

#define SHOWN_MAX 40

#define BEHIND_ANY_END                                                                             \
	"resume EINVAL: snap: snapshot: preresume failed, error = -22: Failed to read snapshot "   \
	"metadata: an exception lies behind the end of any device"

static const struct difference {
	unsigned int number;
	const char *program;
	const char *step;
	const char *ours;
	bool ends; /* what follows in the program differs too */
} differences[] = {
	{ 115, "origin-resumed-before-the-snapshot", "write orig 100 30 11", "ok; 56/512 16",
	  true },
	{ 102, "not-resumed-yet", "header B", "new", false },
	{ 103, "garbage-behind-empty-area", "entries B", "10>2 13>3", true },
	{ 103, "tail-behind-terminator", "entries B", "5>2 10>3 13>4", true },
	{ 103, "terminator-old-set", "entries B", "5>2 10>3 13>4", true },
	{ 105, "entry-new-2^55", "create snap 0 1024 snapshot A B P 8", BEHIND_ANY_END, true },
	{ 105, "entry-new-2^56", "create snap 0 1024 snapshot A B P 8", BEHIND_ANY_END, true },
	{ 105, "entry-new-2^56+2", "create snap 0 1024 snapshot A B P 8", BEHIND_ANY_END, true },
	{ 105, "entry-new-2^63", "create snap 0 1024 snapshot A B P 8", BEHIND_ANY_END, true },
	{ 105, "entry-new-max", "create snap 0 1024 snapshot A B P 8", BEHIND_ANY_END, true },
	{ 104, "cow-of-8-sectors", "header B", "new", false },
	{ 104, "cow-of-9-sectors", "header B", "new", false },
	{ 104, "cow-of-15-sectors", "header B", "new", false },
	{ 119, "header-chunk-2097152", "create snap 0 1024 snapshot A B P 8",
	  "resume EIO: snap: snapshot: preresume failed, error = -5: Failed to read snapshot "
	  "metadata: an area can't be read",
	  false },
	{ 119, "chunk-of-a-gibibyte", "create snap 0 1024 snapshot A B P 2097152", "ok", false },
	{ 116, "merge-after-removal", "events merge", "1", false },
	{ 120, "merge-twice", "create two 0 1024 snapshot-merge A C P 8",
	  "load EINVAL: snapshot-merge: A snapshot is already merging.", true },
	{ 126, "two-72", "sum A", "17fa2f64", false },
	{ 126, "two-82", "sum A", "bdbebba1", false },
	{ 126, "two-85", "sum A", "dbc044b0", false },
};

static bool met[DMCORE__ARRAY_SIZE(differences)];
static char program[64];
static const char *answer; /* ours */

/* ---- programs ------------------------------------------------------------------------------- */

/* The one that is listed for this answer; marked as met. */
static const struct difference *find_difference(const char *step)
{
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(differences); i++) {
		if (strcmp(differences[i].program, program) == 0 &&
		    strcmp(differences[i].step, step) == 0 &&
		    strcmp(differences[i].ours, answer) == 0) {
			met[i] = true;
			return &differences[i];
		}
	}
	return NULL;
}

/* At the end of a program: all that is listed for it must have occurred. */
static unsigned int missing(void)
{
	unsigned int count = 0;

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(differences); i++) {
		if (strcmp(differences[i].program, program) != 0 || met[i])
			continue;
		cr_log_error("D-%03u no longer occurs in %s: %s", differences[i].number, program,
			     differences[i].step);
		count++;
	}
	return count;
}

/* What is behind a prefix, or NULL. */
static const char *behind(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

/*
 * Whether an answer of ours is the kernel's, but for a reason that it adds behind a colon. What the
 * kernel finds in a store when it loads the table is found here when it is resumed (D-102).
 */
static bool same(const char *kernel)
{
	static const char metadata[] = ": snapshot: Failed to read snapshot metadata";
	const char *rest = behind(answer, kernel);
	const char *error = behind(kernel, "load ");
	const char *ours = behind(answer, "resume ");
	size_t length = error ? strcspn(error, ":") : 0;

	if (rest && (!*rest || ((strchr(kernel, ':') || behind(kernel, "resume ")) &&
				behind(rest, ": "))))
		return true;
	return error && ours && strcmp(error + length, metadata) == 0 &&
	       strncmp(error, ours, length) == 0 && ours[length] == ':' &&
	       strstr(ours, "Failed to read snapshot metadata");
}

/* A file beside this one, or of any path. */
static FILE *open_programs(const char *name)
{
	const char *top = getenv("top_srcdir");
	const char *here = __FILE__;
	char command[PATH_MAX + 32];
	FILE *file;

	if (name[0] == '/')
		snprintf(command, sizeof(command), "cat '%s'", name);
	else if (top)
		snprintf(command, sizeof(command), "gzip -dc '%s/tests/golden/%s'", top, name);
	else
		snprintf(command, sizeof(command), "gzip -dc '%.*s%s'",
			 (int)(strrchr(here, '/') + 1 - here), here, name);
	file = popen(command, "r");
	cr_assert_not_null(file, "%s: %s", command, strerror(errno));
	return file;
}

/* What a run has come to. */
struct score {
	unsigned int programs;
	unsigned int answers;
	unsigned int wrong;
	unsigned int met;
};

/* Carries out one step and compares; false if the rest of the program makes no sense. */
static bool judge(char *line, struct score *score)
{
	char *kernel = strstr(line, " = ");
	const struct difference *difference;

	if (kernel) {
		*kernel = '\0';
		kernel += 3;
	}
	answer = steps_carry_out(line);
	if (!answer)
		return true;
	cr_assert_not_null(kernel, "%s has no answer", line);
	score->answers++;
	if (same(kernel))
		return true;
	difference = find_difference(line);
	if (difference) {
		score->met++;
		return !difference->ends;
	}
	if (score->wrong++ < SHOWN_MAX)
		cr_log_error("%s: %s\n   the kernel: %s\n  the library: %s", program, line, kernel,
			     answer);
	return false;
}

/* Every `of`th program, beginning with `part`. */
static void replay(const char *name, unsigned int part, unsigned int of)
{
	static char line[PROGRAM_LINE_BYTES];
	FILE *file = open_programs(name);
	struct score score = { 0 };
	unsigned int index = 0;
	bool skip = true;

	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "case ", 5) == 0) {
			score.wrong += missing();
			steps_end();
			skip = index++ % of != part;
			if (skip)
				continue;
			score.programs++;
			snprintf(program, sizeof(program), "%.*s", (int)sizeof(program) - 1,
				 line + 5);
			steps_begin(index / of % 2);
		} else if (!skip && line[0] && line[0] != '#') {
			skip = !judge(line, &score);
		}
	}
	score.wrong += missing();
	steps_end();
	cr_assert_eq(pclose(file), 0);
	cr_assert_gt(score.programs, 0);
	cr_log_info("%u programs, %u answers, %u numbered differences", score.programs,
		    score.answers, score.met);
	cr_assert_eq(score.wrong, 0, "%u of %u programs of %s differ", score.wrong, score.programs,
		     name);
}

Test(snapshot_programs, crafted_stores)
{
	replay("snapshot-crafted.txt.gz", 0, 1);
}

Test(snapshot_programs, behaviour)
{
	replay("snapshot-behaviour.txt.gz", 0, 1);
}

/* What tests/kernel/run has just had a kernel answer. */
Test(snapshot_programs, asked_for, .timeout = 200)
{
	const char *path = getenv("DMCORE_KERNEL_PROGRAMS");
	const char *images = getenv("DMCORE_KERNEL_IMAGES");

	if (images)
		steps_exchange_images(images, false);
	if (path)
		replay(path, 0, 1);
}

/* Before it does so: for the kernel to go on with. */
Test(snapshot_programs, leaves_images, .timeout = 200)
{
	static char line[PROGRAM_LINE_BYTES];
	const char *path = getenv("DMCORE_KERNEL_PROGRAMS");
	const char *images = getenv("DMCORE_KERNEL_IMAGES");
	FILE *file;

	if (!path || !images)
		return;
	steps_exchange_images(images, true);
	file = open_programs(path);
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "case ", 5) == 0) {
			steps_end();
			steps_begin(false);
		} else if (line[0] && line[0] != '#') {
			steps_carry_out(line);
		}
	}
	steps_end();
	cr_assert_eq(pclose(file), 0);
}

/* A share of the programs of a file, so that no test takes long. */
#define SHARE(name, file, part, of)                                                                \
	Test(snapshot_programs, name)                                                              \
	{                                                                                          \
		replay(file, part, of);                                                            \
	}

SHARE(stores_that_fill_0, "snapshot-fill.txt.gz", 0, 4)
SHARE(stores_that_fill_1, "snapshot-fill.txt.gz", 1, 4)
SHARE(stores_that_fill_2, "snapshot-fill.txt.gz", 2, 4)
SHARE(stores_that_fill_3, "snapshot-fill.txt.gz", 3, 4)
SHARE(random_0, "snapshot-random.txt.gz", 0, 8)
SHARE(random_1, "snapshot-random.txt.gz", 1, 8)
SHARE(random_2, "snapshot-random.txt.gz", 2, 8)
SHARE(random_3, "snapshot-random.txt.gz", 3, 8)
SHARE(random_4, "snapshot-random.txt.gz", 4, 8)
SHARE(random_5, "snapshot-random.txt.gz", 5, 8)
SHARE(random_6, "snapshot-random.txt.gz", 6, 8)
SHARE(random_7, "snapshot-random.txt.gz", 7, 8)
SHARE(two_snapshots_0, "snapshot-two.txt.gz", 0, 3)
SHARE(two_snapshots_1, "snapshot-two.txt.gz", 1, 3)
SHARE(two_snapshots_2, "snapshot-two.txt.gz", 2, 3)
