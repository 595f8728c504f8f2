/* SPDX-License-Identifier: MIT */
/*
 * What a real kernel said to some 11,000 tables, right and wrong ones of all targets, against what
 * this library says: whether it takes them, the errno, the reason, and the table that it prints.
 * make-constructors has made the tables of constructors.txt.gz; record-programs.c asked the kernel.
 * A difference must follow one of the rules below, each with its number in docs/conformance.md; and
 * each rule must be needed.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "programs.h"
#include "support/steps.h"

#define QUESTIONS_MIN 11000
#define SHOWN_MAX 40
#define UNREADABLE "Failed to read snapshot metadata"

struct question {
	const char *table;
	const char *kernel;
	const char *ours;
};

/* ---- rules: numbers that are none here ------------------------------------------------------ */

/* Why the kernel takes a word for another number, or for one at all. */
enum oddity { PLUS, BLANK, WRAPS_32, WRAPS_64 };

static const struct {
	unsigned int number;
	enum oddity oddity;
	const char *ours;
} odd_numbers[] = {
	{ 1, WRAPS_64, "linear: Invalid device sector" },
	{ 1, WRAPS_64, "striped: Couldn't parse stripe destination" },
	{ 1, WRAPS_64, "unstriped: Invalid striped device offset" },
	{ 1, WRAPS_64, "error: Invalid device sector" },
	{ 1, WRAPS_64, "flakey: Invalid device sector" },
	{ 1, WRAPS_64, "delay: Invalid device sector" },
	{ 1, WRAPS_64, "mirror: Invalid offset" },
	{ 4, BLANK, "unstriped: " },
	{ 4, BLANK, "switch: Invalid " },
	{ 4, BLANK, "flakey: Invalid " },
	{ 4, BLANK, "mirror: Invalid " },
	{ 4, BLANK, "mirror: Error creating mirror dirty log" },
	{ 5, PLUS, "striped: Invalid stripe count" },
	{ 5, PLUS, "striped: Invalid chunk_size" },
	{ 52, PLUS, "unstriped: Invalid stripe count" },
	{ 52, PLUS, "unstriped: Invalid chunk_size" },
	{ 52, PLUS, "unstriped: Invalid stripe number" },
	{ 52, PLUS, "switch: Invalid device starting offset" },
	{ 55, WRAPS_32, "switch: Invalid number of paths" },
	{ 55, WRAPS_32, "switch: Invalid region size" },
	{ 55, WRAPS_32, "switch: Invalid number of optional args" },
	{ 81, WRAPS_32, "flakey: Invalid up interval" },
	{ 81, WRAPS_32, "flakey: Invalid number of feature args" },
	{ 81, WRAPS_32, "flakey: Invalid corrupt bio byte" },
	{ 81, WRAPS_32, "flakey: Invalid corrupt value to write into bio byte (0-255)" },
	{ 81, WRAPS_32, "flakey: Invalid corrupt bio flags mask" },
	{ 81, WRAPS_32, "flakey: Invalid random corrupt argument" },
	{ 85, WRAPS_32, "delay: Invalid delay" },
	{ 141, WRAPS_32, "mirror: Invalid mirror log argument count" },
	{ 141, WRAPS_32, "mirror: Error creating mirror dirty log" },
	{ 141, WRAPS_32, "mirror: Invalid number of mirrors" },
	{ 141, WRAPS_32, "mirror: Invalid number of features" },
	{ 141, WRAPS_32, "snapshot: Invalid number of feature arguments" },
	{ 141, WRAPS_32, "snapshot-merge: Invalid number of feature arguments" },
	{ 141, PLUS, "snapshot: Couldn't create exception store" },
	{ 141, PLUS, "snapshot-merge: Couldn't create exception store" },
};

static unsigned int met_odd_numbers[DMCORE__ARRAY_SIZE(odd_numbers)];

static bool begins(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool has_oddity(const char *word, enum oddity oddity)
{
	char *end;

	if (oddity == BLANK)
		return word[0] == '\\';
	if (oddity == PLUS)
		return word[0] == '+' && isdigit((unsigned char)word[1]);
	errno = 0;
	if (!isdigit((unsigned char)word[0]) || strtoull(word, &end, 10) <= UINT32_MAX)
		return false;
	return (*end == ' ' || !*end) && (oddity == WRAPS_32 || errno == ERANGE);
}

static bool any_word(const char *table, enum oddity oddity)
{
	for (const char *at = strchr(table, ' '); at; at = strchr(at + 1, ' ')) {
		if (has_oddity(at + 1, oddity))
			return true;
	}
	return false;
}

/* Refused for a number, which the kernel took to go on and find whatever it found. */
static bool by_odd_number(const struct question *question)
{
	if (!begins(question->ours, "EINVAL: "))
		return false;
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(odd_numbers); i++) {
		if (!begins(question->ours + strlen("EINVAL: "), odd_numbers[i].ours) ||
		    !any_word(question->table, odd_numbers[i].oddity))
			continue;
		met_odd_numbers[i]++;
		return true;
	}
	return false;
}

/* ---- rules: others -------------------------------------------------------------------------- */

/* D-050: "unstriped COUNT CHUNK STRIPE …", STRIPE being COUNT, or any of one. */
static bool by_stripe_that_is_not_there(const struct question *question)
{
	const char *words = strstr(question->table, "unstriped ");
	unsigned long count;
	unsigned long stripe;

	return words && sscanf(words, "unstriped %lu %*u %lu", &count, &stripe) == 2 &&
	       (stripe == count || count == 1) &&
	       begins(question->ours, "EINVAL: unstriped: Please provide stripe between");
}

/* D-053: more is asked for of the device than the kernel asks for. */
static bool by_length_of_unstriped(const struct question *question)
{
	const char *kernel = strstr(question->kernel, " too small for target: ");
	const char *ours = strstr(question->ours, " too small for target: ");
	const char *kernel_length = kernel ? strstr(kernel, " len=") : NULL;

	if (!ours || !strstr(question->table, " unstriped "))
		return false;
	return begins(question->kernel, "ok: ") ||
	       (kernel_length && strtoull(kernel_length + 5, NULL, 10) <
					 strtoull(strstr(ours, " len=") + 5, NULL, 10));
}

/* D-057. */
static bool by_size_of_regions(const struct question *question)
{
	return begins(question->kernel, "ENOMEM: switch: Cannot allocate region table") &&
	       begins(question->ours, "EINVAL: switch: Region table too large");
}

/* D-058. */
static bool by_reason_of_unstriped(const struct question *question)
{
	static const char text[] = ": unstriped: Couldn't get striped device: ";

	return strcmp(question->kernel, "EINVAL: unstriped: Couldn't get striped device") == 0 &&
	       begins(strchr(question->ours, ':'), text);
}

/* D-072. */
static bool by_log_on_the_device(const struct question *question)
{
	return begins(question->ours, "EINVAL: log-writes: The log device is the device itself");
}

/* D-102: a store is made, or can't be, when the snapshot is resumed; then it is as the kernel says. */
static bool by_store_at_resume(const struct question *question)
{
	static char line[PROGRAM_LINE_BYTES];
	const char *type = strstr(question->table, " snapshot");
	const char *answer;
	bool same;

	if (!type || strstr(question->table, PROGRAM_LINE_END) || !begins(question->ours, "ok: "))
		return false;
	snprintf(line, sizeof(line), "create live %s", question->table);
	answer = steps_carry_out(line);
	if (strstr(question->kernel, UNREADABLE))
		return begins(answer, "resume ") && strstr(answer, UNREADABLE);
	if (!begins(question->kernel, "ok: ") || strcmp(answer, "ok") != 0)
		return false;
	type = strchr(strstr(question->kernel, " snapshot") + 1, ' ') + 1;
	same = strcmp(steps_carry_out("table live"), type) == 0;
	return strcmp(steps_carry_out("remove live"), "ok") == 0 && same;
}

/* D-140: whatever isn't a device is told by another errno, with a reason. */
static bool by_what_is_no_device(const struct question *question)
{
	const char *text = strchr(question->ours, ':');
	const char *kernel_text = strchr(question->kernel, ':');

	if (!text || !kernel_text || !begins(text, kernel_text))
		return false;
	return (begins(question->kernel, "ENOTBLK: ") && begins(question->ours, "EINVAL: ") &&
		strstr(text, "neither a regular file nor a block device")) ||
	       (begins(question->kernel, "ENOENT: ") && begins(question->ours, "ENODEV: ") &&
		strstr(text, ", and no such file"));
}

static const struct {
	unsigned int number; /* 0: several */
	bool (*holds)(const struct question *question);
} rules[] = {
	{ 0, by_odd_number },
	{ 50, by_stripe_that_is_not_there },
	{ 53, by_length_of_unstriped },
	{ 57, by_size_of_regions },
	{ 58, by_reason_of_unstriped },
	{ 72, by_log_on_the_device },
	{ 102, by_store_at_resume },
	{ 140, by_what_is_no_device },
};

static unsigned int met_rules[DMCORE__ARRAY_SIZE(rules)];

/* ---- comparing ------------------------------------------------------------------------------ */

/* Ours may add a reason behind a colon. */
static bool same(const struct question *question)
{
	size_t length = strlen(question->kernel);

	if (strncmp(question->ours, question->kernel, length) != 0)
		return false;
	return !question->ours[length] ||
	       (!begins(question->kernel, "ok") && begins(question->ours + length, ": "));
}

static bool judge(const struct question *question)
{
	if (same(question))
		return true;
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(rules); i++) {
		if (rules[i].holds(question)) {
			met_rules[i]++;
			return true;
		}
	}
	return false;
}

static FILE *open_questions(const char *path)
{
	const char *top = getenv("top_srcdir");
	const char *here = __FILE__;
	char command[PATH_MAX + 64];
	FILE *file;

	if (path)
		snprintf(command, sizeof(command), "cat '%s'", path);
	else if (top)
		snprintf(command, sizeof(command),
			 "gzip -dc '%s/tests/golden/constructors.txt.gz'", top);
	else
		snprintf(command, sizeof(command), "gzip -dc '%.*sconstructors.txt.gz'",
			 (int)(strrchr(here, '/') + 1 - here), here);
	file = popen(command, "r");
	cr_assert_not_null(file, "%s", command);
	return file;
}

/* Asks the library all of a file; returns how much there was. */
static unsigned int ask_all(const char *path)
{
	static char line[PROGRAM_LINE_BYTES];
	static char ours[PROGRAM_LINE_BYTES];
	FILE *file = open_questions(path);
	unsigned int asked = 0;
	unsigned int wrong = 0;

	steps_begin(false);
	while (fgets(line, sizeof(line), file)) {
		struct question question = { .table = line + strlen("try "), .ours = ours };
		char *kernel;

		line[strcspn(line, "\n")] = '\0';
		kernel = strstr(line, " = ");
		if (begins(line, "disk "))
			steps_carry_out(line);
		if (!begins(line, "try "))
			continue;
		cr_assert_not_null(kernel, "%s has no answer", line);
		*kernel = '\0';
		question.kernel = kernel + 3;
		snprintf(ours, sizeof(ours), "%s", steps_carry_out(line));
		asked++;
		if (!judge(&question) && wrong++ < SHOWN_MAX)
			cr_log_error("%s\n   the kernel: %s\n  the library: %s", question.table,
				     question.kernel, ours);
	}
	steps_end();
	cr_assert_eq(pclose(file), 0);
	cr_assert_eq(wrong, 0, "%u of %u tables differ", wrong, asked);
	return asked;
}

Test(constructors, answer_as_the_kernel_did)
{
	cr_assert_geq(ask_all(NULL), QUESTIONS_MIN);
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(rules); i++)
		cr_expect_gt(met_rules[i], 0, "D-%03u no longer occurs", rules[i].number);
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(odd_numbers); i++)
		cr_expect_gt(met_odd_numbers[i], 0, "D-%03u no longer occurs: %s",
			     odd_numbers[i].number, odd_numbers[i].ours);
}

/* What tests/kernel/run has just had a kernel answer. */
Test(constructors, asked_for, .timeout = 200)
{
	const char *path = getenv("DMCORE_KERNEL_PROGRAMS");

	if (path)
		cr_assert_gt(ask_all(path), 0);
}
