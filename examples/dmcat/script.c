/* SPDX-License-Identifier: MIT */
/*
 * Reads scripts. Each line is carried out before the next one is read, so that a script can come
 * from a pipe, and what stands before an error has been done.
 */
#include "script.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tasks.h"
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

/* Appends a line of the script to a table's text. */
static int append_line(char **text, size_t *used_bytes, size_t *room_bytes, const char *line)
{
	size_t bytes = strlen(line) + 1;

	if (*used_bytes + bytes > DMCORE_TABLE_TEXT_BYTES_MAX)
		return -E2BIG;
	if (*used_bytes + bytes >= *room_bytes) {
		size_t grown_bytes = (*used_bytes + bytes) * 2;
		char *grown = realloc(*text, grown_bytes);

		if (!grown)
			return -ENOMEM;
		*text = grown;
		*room_bytes = grown_bytes;
	}
	memcpy(*text + *used_bytes, line, bytes - 1);
	*used_bytes += bytes;
	(*text)[*used_bytes - 1] = '\n';
	(*text)[*used_bytes] = '\0';
	return 0;
}

/*
 * Reads the lines up to `end`. On an error the rest of them is read all the same: they are no
 * commands.
 */
static enum exit_status read_table(struct script *script, char **text)
{
	struct report *report = &script->session->report;
	struct report beginning = *report;
	enum exit_status worst = EXIT_DONE;
	enum exit_status status;
	size_t used_bytes = 0;
	size_t room_bytes = 0;
	int ret = 0;

	*text = strdup("");
	if (!*text)
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
			ret = append_line(text, &used_bytes, &room_bytes, script->reader.text);
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

/* ---- a line ---- */

static const struct {
	const char *name;
	unsigned int option;
} call_options[] = {
	{ "--deferred", CALL_DEFERRED },
	{ "--inactive", CALL_INACTIVE },
	{ "--noflush", CALL_NOFLUSH },
	{ "--setuuid", CALL_SETUUID },
	{ "--timeout", CALL_TIMEOUT },
};

static unsigned int find_option(const char *word)
{
	for (size_t i = 0; i < sizeof(call_options) / sizeof(call_options[0]); i++) {
		if (strcmp(call_options[i].name, word) == 0)
			return call_options[i].option;
	}
	return 0;
}

static enum exit_status read_timeout(struct report *report, struct call *call, const char *word)
{
	int ret = word ? words_seconds(word, &call->timeout_ns) : 0;

	if (!word)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "--timeout needs seconds");
	if (ret)
		return report_error(report, EXIT_BAD_USAGE, ret,
				    "'%s' is not a number of seconds", word);
	return EXIT_DONE;
}

static enum exit_status refuse_option(struct report *report, const struct verb *verb,
				      const char *word)
{
	return report_error(report, EXIT_BAD_USAGE, EINVAL,
			    "%s is not an option here; the form is: %s %s", word, verb->name,
			    verb->usage);
}

/* The same for copy, whose options are those of the command line. */
static enum exit_status take_copy_options(struct report *report, const struct verb *verb,
					  struct call *call)
{
	unsigned int num_words = call->num_args;
	enum exit_status status = EXIT_DONE;

	call->num_args = 0;
	for (unsigned int i = 0; i < num_words && status == EXIT_DONE; i++) {
		char *word = call->args[i];
		enum copy_option_kind kind;

		if (strncmp(word, "--", 2) != 0) {
			call->args[call->num_args++] = word;
			continue;
		}
		kind = copy_options_find(word + 2);
		if (kind == COPY_OPTION_UNKNOWN)
			return refuse_option(report, verb, word);
		if (kind == COPY_OPTION_VALUE && ++i == num_words)
			return report_error(report, EXIT_BAD_USAGE, EINVAL, "%s needs an argument",
					    word);
		status = copy_options_set(&call->copy, report, word + 2, call->args[i]);
	}
	return status;
}

/* Takes the options of a verb that has any out of its arguments. */
static enum exit_status take_options(struct report *report, const struct verb *verb,
				     struct call *call)
{
	unsigned int num_words = call->num_args;
	enum exit_status status = EXIT_DONE;

	if (verb->flags & VERB_COPY)
		return take_copy_options(report, verb, call);
	if (!(verb->flags & ~(VERB_TABLE | VERB_IO)))
		return EXIT_DONE;
	call->num_args = 0;
	for (unsigned int i = 0; i < num_words && status == EXIT_DONE; i++) {
		const char *word = call->args[i];
		unsigned int option = find_option(word);

		if (strncmp(word, "--", 2) != 0)
			call->args[call->num_args++] = call->args[i];
		else if (!(option & verb->flags))
			status = refuse_option(report, verb, word);
		else if (option == CALL_TIMEOUT)
			status = read_timeout(report, call,
					      ++i < num_words ? call->args[i] : NULL);
		call->options |= option;
	}
	return status;
}

/* Takes an & off the end of the arguments. */
static enum exit_status take_ampersand(struct report *report, const struct verb *verb,
				       struct call *call)
{
	if (call->num_args == 0 || strcmp(call->args[call->num_args - 1], "&") != 0)
		return EXIT_DONE;
	/* A word like another for those that take any. */
	if (!(verb->flags & VERB_IO) && verb->max_args == SCRIPT_WORDS_MAX)
		return EXIT_DONE;
	if (!(verb->flags & VERB_IO))
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "only reads and writes can go on in the background");
	call->num_args--;
	call->in_background = true;
	return EXIT_DONE;
}

static enum exit_status check_call(struct report *report, const struct verb *verb,
				   struct call *call)
{
	enum exit_status status = take_ampersand(report, verb, call);

	if (status == EXIT_DONE)
		status = take_options(report, verb, call);
	if (status || (call->num_args >= verb->min_args && call->num_args <= verb->max_args))
		return status;
	return report_error(report, EXIT_BAD_USAGE, EINVAL, "%s: the form is: %s%s%s",
			    call->num_args < verb->min_args ? "too few words" : "too many words",
			    verb->name, verb->usage[0] ? " " : "", verb->usage);
}

/* The table of a verb: the words behind the name, or else the lines that follow. */
static enum exit_status find_table(struct script *script, struct call *call)
{
	struct report *report = &script->session->report;

	call->lines_before = report->line;
	if (call->num_args <= 1)
		return read_table(script, &call->table);
	call->lines_before--;
	call->table = words_join(call->args + 1, call->num_args - 1);
	if (!call->table)
		return report_error(report, EXIT_BAD_USAGE, ENOMEM, "no memory");
	return EXIT_DONE;
}

static enum exit_status run_verb(struct script *script, const struct verb *verb, char **args,
				 unsigned int num_args)
{
	struct session *session = script->session;
	struct call call = { .args = args, .num_args = num_args, .timeout_ns = -1 };
	enum exit_status status = check_call(&session->report, verb, &call);
	enum exit_status table_status;

	if (verb->flags & VERB_TABLE) {
		table_status = find_table(script, &call);
		status = status ? status : table_status;
	}
	if (status == EXIT_DONE)
		status = verb->run(session, &call);
	free(call.table);
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

	/* A signal that has ended a copy ends the script, too. */
	while (!script->is_over && !script->session->signal &&
	       (worst == EXIT_DONE || keep_going)) {
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
	enum exit_status end_status;
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
	report->command = "end";
	report->line = script.reader.number;
	end_status = tasks_end(session, status != EXIT_DONE);
	status = end_status > status ? end_status : status;
	report->file = NULL;
	report->command = "run";
	if (!is_stdin)
		fclose(script.reader.stream);
	free(script.reader.text);
	return status;
}
