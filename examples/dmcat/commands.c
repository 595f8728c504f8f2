/* SPDX-License-Identifier: MIT */
/* The commands of the command line. */
#include "commands.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"
#include "cow.h"
#include "devices.h"
#include "io.h"
#include "replay.h"
#include "script.h"
#include "scrub.h"
#include "show.h"
#include "words.h"

struct command {
	const char *name;
	unsigned int min_args;
	unsigned int max_args;
	bool does_io;
	enum exit_status (*run)(struct session *session, char **args, unsigned int num_args);
};

enum exit_status commands_number(struct session *session, const char *word, uint64_t *value)
{
	int ret = words_number(word, value);

	if (ret == 0)
		return EXIT_DONE;
	return report_error(&session->report, EXIT_BAD_USAGE, ret,
			    ret == -ERANGE ? "'%s' is too large a number" :
					     "'%s' is not a number of sectors", word);
}

/* [SECTOR [COUNT]]: the rest of the device if COUNT is missing, the whole if SECTOR is, too. */
static enum exit_status read_range(struct session *session, struct io_range *range, char **args,
				   unsigned int num_args)
{
	uint64_t size = dmcore_bdev_size_sectors(range->bdev);
	enum exit_status status = EXIT_DONE;

	if (num_args > 0)
		status = commands_number(session, args[0], &range->sector);
	if (status == EXIT_DONE && num_args > 1)
		status = commands_number(session, args[1], &range->count);
	else
		range->count = range->sector < size ? size - range->sector : 0;
	return status ? status : io_check_range(session, range);
}

static enum exit_status run_read(struct session *session, char **args, unsigned int num_args)
{
	const struct file output = { STDOUT_FILENO, "standard output" };
	struct io_range range = { .sector = 0 };
	enum exit_status status = devices_chosen(session, &range.name);

	if (status == EXIT_DONE)
		status = devices_open(session, range.name, false, &range.bdev);
	if (status)
		return status;
	status = read_range(session, &range, args, num_args);
	if (status == EXIT_DONE)
		status = io_read(session, &range, &output);
	dmcore_bdev_close(range.bdev);
	return status;
}

static enum exit_status run_write(struct session *session, char **args, unsigned int num_args)
{
	const struct file input = { STDIN_FILENO, "standard input" };
	struct io_range range = { .sector = 0 };
	enum exit_status status = devices_chosen(session, &range.name);
	enum exit_status flush_status;

	if (status == EXIT_DONE)
		status = session_take_stdin(session, "write");
	if (status == EXIT_DONE)
		status = devices_open(session, range.name, true, &range.bdev);
	if (status)
		return status;
	status = read_range(session, &range, args, num_args);
	if (status == EXIT_DONE) {
		status = io_write_all(session, &range, &input);
		/* Whatever has been written is to last, after an error as well. */
		flush_status = io_flush(session, range.bdev);
		status = status ? status : flush_status;
	}
	dmcore_bdev_close(range.bdev);
	return status;
}

static enum exit_status run_text(struct session *session, enum dmcore_text_kind kind)
{
	struct dmcore_device *device;
	const char *name;
	enum exit_status status = devices_chosen(session, &name);

	if (status == EXIT_DONE)
		status = devices_find(session, name, &device);
	return status ? status : show_text(session, device, kind, 0);
}

static enum exit_status run_status(struct session *session, char **args, unsigned int num_args)
{
	(void)args;
	(void)num_args;
	return run_text(session, DMCORE_TEXT_STATUS);
}

static enum exit_status run_table(struct session *session, char **args, unsigned int num_args)
{
	(void)args;
	(void)num_args;
	return run_text(session, DMCORE_TEXT_TABLE);
}

static enum exit_status run_info(struct session *session, char **args, unsigned int num_args)
{
	const char *spec;
	enum exit_status status = devices_chosen(session, &spec);

	(void)args;
	(void)num_args;
	return status ? status : show_info(session, spec);
}

static enum exit_status run_targets(struct session *session, char **args, unsigned int num_args)
{
	(void)args;
	(void)num_args;
	return show_targets(session);
}

static enum exit_status run_scrub(struct session *session, char **args, unsigned int num_args)
{
	const char *name;
	enum exit_status status = devices_chosen(session, &name);

	return status ? status : scrub_device(session, name, num_args > 0 ? args[0] : NULL);
}

static enum exit_status run_run(struct session *session, char **args, unsigned int num_args)
{
	(void)num_args;
	return script_run(session, args[0]);
}

static enum exit_status run_replay(struct session *session, char **args, unsigned int num_args)
{
	if (num_args == 1)
		return replay_list(session, args[0]);
	return replay_log(session, args[0], args[1]);
}

static enum exit_status run_cow_dump(struct session *session, char **args, unsigned int num_args)
{
	(void)num_args;
	return cow_print(session, args[0]);
}

static enum exit_status run_cow_check(struct session *session, char **args, unsigned int num_args)
{
	(void)num_args;
	return cow_judge(session, args[0]);
}

static enum exit_status run_copy(struct session *session, char **args, unsigned int num_args)
{
	struct copy *copy;
	enum exit_status status = copy_open(session, &session->options.copy, args, num_args, false,
					    &copy);

	if (status == EXIT_DONE)
		status = copy_run(session, copy);
	copy_close(copy);
	return status;
}

static const struct command commands[] = {
	{ "read", 0, 2, true, run_read },
	{ "write", 0, 1, true, run_write },
	{ "status", 0, 0, false, run_status },
	{ "table", 0, 0, false, run_table },
	{ "info", 0, 0, false, run_info },
	{ "targets", 0, 0, false, run_targets },
	{ "scrub", 0, 1, false, run_scrub },
	{ "run", 1, 1, true, run_run },
	{ "replay", 1, 2, false, run_replay },
	{ "copy", 2, COPY_WORDS_MAX, true, run_copy },
	{ "cow-dump", 1, 1, false, run_cow_dump },
	{ "cow-check", 1, 1, false, run_cow_check },
};

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

enum exit_status commands_check(struct session *session)
{
	const struct options *options = &session->options;
	struct report *report = &session->report;
	const struct command *command;
	unsigned int num_args;

	if (options->num_words == 0)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "no command; see dmcat --help");
	command = find(options->words[0]);
	if (!command)
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "there is no command '%s'; see dmcat --help",
				    options->words[0]);
	num_args = options->num_words - 1;
	report->command = command->name;
	if (num_args < command->min_args)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "an argument is missing");
	if (num_args > command->max_args)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "'%s' is an argument too many",
				    options->words[1 + command->max_args]);
	if (options->watch_ns && !command->does_io)
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "--watch is for read, write, copy and run");
	if (options->replay.given && command->run != run_replay)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "--%s is for replay",
				    options->replay.given);
	if (options->copy.given && command->run != run_copy)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "--%s is for copy",
				    options->copy.given);
	if (options->cow.given && command->run != run_cow_check && command->run != run_cow_dump)
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "--%s is for cow-check and cow-dump", options->cow.given);
	if (options->cow.origin && command->run != run_cow_check)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "--origin is for cow-check");
	report->command = NULL;
	return EXIT_DONE;
}

enum exit_status commands_run(struct session *session)
{
	const struct options *options = &session->options;
	const struct command *command = find(options->words[0]);
	enum exit_status status;

	session->report.command = command->name;
	status = command->run(session, options->words + 1, options->num_words - 1);
	/* Here, so that an error of standard output is the command's. */
	if (status == EXIT_DONE)
		status = session_flush_output(session);
	return status;
}
