/* SPDX-License-Identifier: MIT */
/* The options of copy: options.c reads them from the command line, script.c from a line. */
#include "copy_options.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "words.h"

static const struct {
	const char *name;
	size_t flag; /* where in struct copy_options, of a plain one */
	enum copy_option_kind kind;
} known[] = {
	{ "sparse", offsetof(struct copy_options, sparse), COPY_OPTION_PLAIN },
	{ "share", offsetof(struct copy_options, share), COPY_OPTION_PLAIN },
	{ "verify", offsetof(struct copy_options, verify), COPY_OPTION_PLAIN },
	{ "no-flush", offsetof(struct copy_options, no_flush), COPY_OPTION_PLAIN },
	{ "ignore-errors", offsetof(struct copy_options, ignore_errors), COPY_OPTION_PLAIN },
	{ "grow", offsetof(struct copy_options, grow), COPY_OPTION_PLAIN },
	{ "rate", 0, COPY_OPTION_VALUE },
	{ "resume", 0, COPY_OPTION_VALUE },
	{ "save-every", 0, COPY_OPTION_VALUE },
};

#define NUM_KNOWN (sizeof(known) / sizeof(known[0]))

/* NUM_KNOWN: there is none of that name. */
static size_t find(const char *name)
{
	size_t i = 0;

	while (i < NUM_KNOWN && strcmp(known[i].name, name) != 0)
		i++;
	return i;
}

enum copy_option_kind copy_options_find(const char *name)
{
	size_t i = find(name);

	return i < NUM_KNOWN ? known[i].kind : COPY_OPTION_UNKNOWN;
}

static enum exit_status set_rate(struct copy_options *options, struct report *report,
				 const char *word)
{
	int ret = words_bytes(word, &options->rate_bytes);

	if (ret == 0 && options->rate_bytes == 0)
		ret = -ERANGE;
	if (ret)
		return report_error(report, EXIT_BAD_USAGE, ret,
				    "--rate %s: not a number of bytes a second, from 1 on, with or "
				    "without k, M, G or T", word);
	return EXIT_DONE;
}

static enum exit_status set_interval(struct copy_options *options, struct report *report,
				     const char *word)
{
	int ret = words_seconds(word, &options->save_ns);

	if (ret == 0 && options->save_ns < 1000000)
		ret = -ERANGE;
	if (ret)
		return report_error(report, EXIT_BAD_USAGE, ret,
				    "--save-every %s: not a number of seconds, from 0.001 on",
				    word);
	return EXIT_DONE;
}

enum exit_status copy_options_set(struct copy_options *options, struct report *report,
				  const char *name, const char *value)
{
	size_t i = find(name);

	options->given = known[i].name;
	if (known[i].kind == COPY_OPTION_PLAIN) {
		*(bool *)((char *)options + known[i].flag) = true;
		return EXIT_DONE;
	}
	if (strcmp(name, "rate") == 0)
		return set_rate(options, report, value);
	if (strcmp(name, "save-every") == 0)
		return set_interval(options, report, value);
	options->resume = value;
	return EXIT_DONE;
}

enum exit_status copy_options_check(const struct copy_options *options, struct report *report)
{
	if (options->resume && options->no_flush)
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "--resume has to flush: it can't be with --no-flush");
	if (options->save_ns && !options->resume)
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "--save-every is for --resume");
	return EXIT_DONE;
}
