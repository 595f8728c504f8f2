/* SPDX-License-Identifier: MIT */
/*
 * Reads scripts. Each line is carried out before the next one is read, so that a script can come
 * from a pipe, and what stands before an error has been done.
 */
#include "script.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "words.h"

struct script {
	struct session *session;
	struct line_reader reader;
	char *words[SCRIPT_WORDS_MAX];
	bool is_over; /* even with -k: no more lines can be had */
};

/* Reads a line; false: there is none, or no more after an error. *status: an error. */
static bool read_line(struct script *script, enum exit_status *status)
{
	struct report *report = &script->session->report;
	int ret = files_read_line(&script->reader);

	*status = EXIT_DONE;
	if (ret == 1) {
		report->line = script->reader.number;
		return true;
	}
	script->is_over = true;
	if (ret == 0)
		return false;
	report->command = NULL;
	report->line = script->reader.number + 1;
	if (ret == -EILSEQ) {
		report->line = script->reader.number;
		script->is_over = false;
		*status = report_error(report, EXIT_BAD_USAGE, ret,
				       "there is a NUL byte in the line");
	} else if (ret == -E2BIG) {
		*status = report_error(report, EXIT_BAD_USAGE, ret,
				       "the line is longer than %u bytes", FILES_LINE_BYTES_MAX);
	} else {
		*status = report_error(report, EXIT_BAD_USAGE, ret, "%s", strerror(-ret));
	}
	return false;
}

/* Whether a line is the word `end`, with or without a comment behind it. */
static bool is_end(const char *line)
{
	static const char blanks[] = " \t\r\v\f";
	size_t num_blanks;

	line += strspn(line, blanks);
	if (strncmp(line, "end", 3) != 0)
		return false;
	line += 3;
	num_blanks = strspn(line, blanks);
	return line[num_blanks] == '\0' || (num_blanks > 0 && line[num_blanks] == '#');
}

/* Appends a line of the script to a table. */
static int append_line(struct script_table *table, size_t *used_bytes, size_t *room_bytes,
		       const char *line)
{
	size_t bytes = strlen(line) + 1;

	if (*used_bytes + bytes > DMCORE_TABLE_TEXT_BYTES_MAX)
		return -E2BIG;
	if (*used_bytes + bytes >= *room_bytes) {
		size_t grown_bytes = (*used_bytes + bytes) * 2;
		char *grown = realloc(table->text, grown_bytes);

		if (!grown)
			return -ENOMEM;
		table->text = grown;
		*room_bytes = grown_bytes;
	}
	memcpy(table->text + *used_bytes, line, bytes - 1);
	*used_bytes += bytes;
	table->text[*used_bytes - 1] = '\n';
	table->text[*used_bytes] = '\0';
	return 0;
}

/*
 * Reads the lines up to `end`. On an error the rest of them is read all the same: they are no
 * commands.
 */
static enum exit_status read_table(struct script *script, struct script_table *table)
{
	struct report *report = &script->session->report;
	struct report beginning = *report;
	enum exit_status worst = EXIT_DONE;
	enum exit_status status;
	size_t used_bytes = 0;
	size_t room_bytes = 0;
	int ret = 0;

	table->text = strdup("");
	table->lines_before = report->line;
	if (!table->text)
		ret = -ENOMEM;
	for (;;) {
		bool is_line = read_line(script, &status);

		if (status > worst)
			worst = status;
		if (is_line && is_end(script->reader.text))
			break;
		if (script->is_over)
			break;
		if (is_line && ret == 0)
			ret = append_line(table, &used_bytes, &room_bytes, script->reader.text);
	}
	beginning.worst = report->worst;
	*report = beginning;
	if (worst)
		return worst;
	if (script->is_over)
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "the script ends before the `end` of the table");
	if (ret)
		return report_error(report, EXIT_BAD_USAGE, ret,
				    ret == -E2BIG ? "the table is too long" : "no memory");
	return EXIT_DONE;
}

static enum exit_status check_args(struct report *report, const struct verb *verb,
				   unsigned int num_args)
{
	if (num_args >= verb->min_args && num_args <= verb->max_args)
		return EXIT_DONE;
	return report_error(report, EXIT_BAD_USAGE, EINVAL, "%s: the form is: %s %s",
			    num_args < verb->min_args ? "too few words" : "too many words",
			    verb->name, verb->usage);
}

static enum exit_status run_verb(struct script *script, const struct verb *verb, char **args,
				 unsigned int num_args)
{
	struct session *session = script->session;
	struct script_table table = { .text = NULL };
	enum exit_status status = check_args(&session->report, verb, num_args);
	enum exit_status table_status;

	if (!verb->has_table)
		return status ? status : verb->run(session, args, num_args, NULL);
	table_status = read_table(script, &table);
	status = status ? status : table_status;
	if (status == EXIT_DONE)
		status = verb->run(session, args, num_args, &table);
	free(table.text);
	return status;
}

static enum exit_status run_line(struct script *script)
{
	struct report *report = &script->session->report;
	/* The reader's own line is overwritten by those of a table. */
	char *line = strdup(script->reader.text);
	enum exit_status status = EXIT_DONE;
	const struct verb *verb;
	unsigned int count;

	report->command = NULL;
	if (!line)
		return report_error(report, EXIT_BAD_USAGE, ENOMEM, "no memory");
	if (words_split(line, script->words, SCRIPT_WORDS_MAX, &count)) {
		status = report_error(report, EXIT_BAD_USAGE, E2BIG,
				      "the line has more than %u words", SCRIPT_WORDS_MAX);
	} else if (count > 0) {
		verb = verbs_find(script->words[0]);
		if (verb) {
			report->command = verb->name;
			status = run_verb(script, verb, script->words + 1, count - 1);
		} else {
			status = report_error(report, EXIT_BAD_USAGE, EINVAL,
					      "there is no command '%.60s'", script->words[0]);
		}
	}
	free(line);
	return status;
}

static enum exit_status run_lines(struct script *script)
{
	bool keep_going = script->session->options.keep_going;
	enum exit_status worst = EXIT_DONE;

	while (!script->is_over && (worst == EXIT_DONE || keep_going)) {
		enum exit_status status;

		if (read_line(script, &status))
			status = run_line(script);
		/* What a line prints appears before the next one acts. */
		if (status == EXIT_DONE)
			status = session_flush_output(script->session);
		if (status > worst)
			worst = status;
	}
	return worst;
}

enum exit_status script_run(struct session *session, const char *path)
{
	struct script script = { .session = session };
	struct report *report = &session->report;
	enum exit_status status = EXIT_DONE;
	bool is_stdin = strcmp(path, "-") == 0;

	if (is_stdin)
		status = session_take_stdin(session, "the script");
	if (status)
		return status;
	script.reader.stream = is_stdin ? stdin : fopen(path, "re");
	if (!script.reader.stream)
		return report_error(report, EXIT_BAD_USAGE, errno, "%s: %s", path, strerror(errno));
	report->file = is_stdin ? "stdin" : path;
	status = run_lines(&script);
	report->file = NULL;
	report->command = "run";
	if (!is_stdin)
		fclose(script.reader.stream);
	free(script.reader.text);
	return status;
}
