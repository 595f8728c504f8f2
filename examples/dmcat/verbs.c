/* SPDX-License-Identifier: MIT */
/* The commands of a script. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "devices.h"
#include "io.h"
#include "json.h"
#include "script.h"
#include "show.h"

/* ---- devices ---- */

static enum exit_status run_create(struct session *session, char **args, unsigned int num_args,
				   const struct script_table *table)
{
	(void)num_args;
	return devices_create(session, args[0], table->text, session->report.file,
			      table->lines_before);
}

static enum exit_status run_remove(struct session *session, char **args, unsigned int num_args,
				   const struct script_table *table)
{
	(void)num_args;
	(void)table;
	return devices_remove(session, args[0]);
}

static enum exit_status run_resume(struct session *session, char **args, unsigned int num_args,
				   const struct script_table *table)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, args[0], &device);
	int ret;

	(void)num_args;
	(void)table;
	if (status)
		return status;
	ret = dmcore_device_resume(device);
	return ret ? report_library(&session->report, EXIT_IO_FAILED, ret) : EXIT_DONE;
}

/* What the library has no engine for yet. */
static enum exit_status run_unsupported(struct session *session, char **args, unsigned int num_args,
					const struct script_table *table)
{
	(void)args;
	(void)num_args;
	(void)table;
	return report_error(&session->report, EXIT_IO_FAILED, EOPNOTSUPP, "not supported yet");
}

/* ---- I/O ---- */

/* Opens DEV, and checks SECTOR and COUNT if there is a range. */
static enum exit_status open_range(struct session *session, char **args, bool has_range,
				   bool will_write, struct io_range *range)
{
	enum exit_status status = EXIT_DONE;

	*range = (struct io_range){ .name = args[0] };
	if (has_range) {
		status = commands_number(session, args[1], &range->sector);
		if (status == EXIT_DONE)
			status = commands_number(session, args[2], &range->count);
	}
	if (status == EXIT_DONE)
		status = devices_open(session, range->name, will_write, &range->bdev);
	if (status || !has_range)
		return status;
	status = io_check_range(session, range);
	if (status)
		dmcore_bdev_close(range->bdev);
	return status;
}

static enum exit_status file_failed(struct session *session, const struct file *file, int error)
{
	return report_error(&session->report, EXIT_IO_FAILED, error, "%s: %s", file->name,
			    strerror(-error));
}

static enum exit_status read_to(struct session *session, const struct io_range *range,
				const char *path)
{
	struct file output;
	enum exit_status status = devices_check_output(session, range->name, path);
	int ret;

	if (status)
		return status;
	ret = files_open_output(path, &output);
	if (ret)
		return file_failed(session, &output, ret);
	status = io_read(session, range, &output);
	ret = files_close(&output);
	if (status == EXIT_DONE && ret)
		status = file_failed(session, &output, ret);
	return status;
}

static enum exit_status run_read(struct session *session, char **args, unsigned int num_args,
				 const struct script_table *table)
{
	struct io_range range;
	enum exit_status status = open_range(session, args, true, false, &range);

	(void)num_args;
	(void)table;
	if (status)
		return status;
	status = read_to(session, &range, args[3]);
	dmcore_bdev_close(range.bdev);
	return status;
}

/* skip: sectors of the file that are left out. */
static enum exit_status write_from(struct session *session, const struct io_range *range,
				   const char *path, uint64_t skip)
{
	struct file input;
	enum exit_status status = EXIT_DONE;
	int ret;

	if (strcmp(path, "-") == 0 && session->stdin_user)
		return session_take_stdin(session, "write");
	ret = files_open_input(path, &input);
	if (ret)
		return file_failed(session, &input, ret);
	if (skip > INT64_MAX / DMCORE_SECTOR_BYTES)
		ret = -ENODATA;
	else if (skip > 0)
		ret = files_skip(&input, skip * DMCORE_SECTOR_BYTES);
	if (ret == -ENODATA)
		status = report_error(&session->report, EXIT_IO_FAILED, ret,
				      "%s has no %llu sectors to skip", input.name,
				      (unsigned long long)skip);
	else if (ret)
		status = file_failed(session, &input, ret);
	if (status == EXIT_DONE)
		status = io_write(session, range, &input);
	files_close(&input);
	return status;
}

static enum exit_status run_write(struct session *session, char **args, unsigned int num_args,
				  const struct script_table *table)
{
	struct io_range range;
	enum exit_status status = EXIT_DONE;
	uint64_t skip = 0;

	(void)table;
	if (num_args > 4)
		status = commands_number(session, args[4], &skip);
	if (status == EXIT_DONE)
		status = open_range(session, args, true, true, &range);
	if (status)
		return status;
	status = write_from(session, &range, args[3], skip);
	dmcore_bdev_close(range.bdev);
	return status;
}

static enum exit_status run_flush(struct session *session, char **args, unsigned int num_args,
				  const struct script_table *table)
{
	struct io_range range;
	enum exit_status status = open_range(session, args, false, false, &range);

	(void)num_args;
	(void)table;
	if (status)
		return status;
	status = io_flush(session, range.bdev);
	dmcore_bdev_close(range.bdev);
	return status;
}

static enum exit_status clear(struct session *session, char **args, enum dmcore_op op)
{
	struct io_range range;
	enum exit_status status = open_range(session, args, true, true, &range);

	if (status)
		return status;
	status = io_clear(session, &range, op);
	dmcore_bdev_close(range.bdev);
	return status;
}

static enum exit_status run_discard(struct session *session, char **args, unsigned int num_args,
				    const struct script_table *table)
{
	(void)num_args;
	(void)table;
	return clear(session, args, DMCORE_OP_DISCARD);
}

static enum exit_status run_zero(struct session *session, char **args, unsigned int num_args,
				 const struct script_table *table)
{
	(void)num_args;
	(void)table;
	return clear(session, args, DMCORE_OP_WRITE_ZEROES);
}

/* ---- output ---- */

static enum exit_status show(struct session *session, char **args, unsigned int num_args,
			     enum dmcore_text_kind kind)
{
	struct dmcore_device *device;
	enum exit_status status;

	if (num_args == 0)
		return show_all_texts(session, kind);
	status = devices_find(session, args[0], &device);
	return status ? status : show_text(session, device, kind);
}

static enum exit_status run_status(struct session *session, char **args, unsigned int num_args,
				   const struct script_table *table)
{
	(void)table;
	return show(session, args, num_args, DMCORE_TEXT_STATUS);
}

static enum exit_status run_table(struct session *session, char **args, unsigned int num_args,
				  const struct script_table *table)
{
	(void)table;
	return show(session, args, num_args, DMCORE_TEXT_TABLE);
}

static enum exit_status run_echo(struct session *session, char **args, unsigned int num_args,
				 const struct script_table *table)
{
	const char *separator = "";

	(void)table;
	if (session->options.json)
		fputs("{\"echo\":[", stdout);
	for (unsigned int i = 0; i < num_args; i++) {
		fputs(separator, stdout);
		if (session->options.json)
			json_string(args[i], strlen(args[i]));
		else
			fputs(args[i], stdout);
		separator = session->options.json ? "," : " ";
	}
	puts(session->options.json ? "]}" : "");
	return EXIT_DONE;
}

static const struct verb verbs[] = {
	{ "create", 1, 1, "NAME, then table lines, then end", true, run_create },
	{ "load", 1, 1, "NAME, then table lines, then end", true, run_unsupported },
	{ "suspend", 1, 2, "NAME [noflush]", false, run_unsupported },
	{ "resume", 1, 1, "NAME", false, run_resume },
	{ "remove", 1, 1, "NAME", false, run_remove },
	{ "write", 4, 5, "DEV SECTOR COUNT FILE [SKIP]", false, run_write },
	{ "read", 4, 4, "DEV SECTOR COUNT FILE", false, run_read },
	{ "flush", 1, 1, "DEV", false, run_flush },
	{ "discard", 3, 3, "DEV SECTOR COUNT", false, run_discard },
	{ "zero", 3, 3, "DEV SECTOR COUNT", false, run_zero },
	{ "status", 0, 1, "[NAME]", false, run_status },
	{ "table", 0, 1, "[NAME]", false, run_table },
	{ "message", 3, SCRIPT_WORDS_MAX, "NAME SECTOR WORD…", false, run_unsupported },
	{ "copy", 5, SCRIPT_WORDS_MAX, "DEV SECTOR COUNT TO SECTOR [TO SECTOR]…", false,
	  run_unsupported },
	{ "echo", 0, SCRIPT_WORDS_MAX, "TEXT", false, run_echo },
};

const struct verb *verbs_find(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	}
	return NULL;
}
