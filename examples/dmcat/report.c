/* SPDX-License-Identifier: MIT */
/*
 * Error messages. What is printed may quote garbage from a table or a script, so control characters
 * are spelt out: a terminal never acts on them.
 */
#include "report.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <dmcore/error.h>

#include "words.h"

#define LINE_BYTES 4096

/* A message under construction; what doesn't fit is cut off. */
struct line {
	char text[LINE_BYTES];
	size_t used_bytes;
};

static void append_char(struct line *line, char c)
{
	/* One byte stays free for the newline. */
	if (line->used_bytes < sizeof(line->text) - 1)
		line->text[line->used_bytes++] = c;
}

static void append(struct line *line, const char *text)
{
	static const char digits[] = "0123456789abcdef";

	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;

		if (!iscntrl(byte)) {
			append_char(line, *text);
			continue;
		}
		append_char(line, '\\');
		append_char(line, 'x');
		append_char(line, digits[byte >> 4]);
		append_char(line, digits[byte & 15]);
	}
}

/* ` (ENAME)`, unless the message ends with it already, as some of the library's do. */
static void append_name(struct line *line, const char *message, int error)
{
	char name[32];
	size_t message_bytes = strlen(message);
	size_t name_bytes;

	snprintf(name, sizeof(name), " (%s)", dmcore_error_name(error));
	name_bytes = strlen(name);
	if (message_bytes < name_bytes ||
	    strcmp(message + message_bytes - name_bytes, name) != 0)
		append(line, name);
}

static void print(struct line *line)
{
	line->text[line->used_bytes++] = '\n';
	/* In one piece, so that messages of several processes don't mix. */
	fwrite(line->text, 1, line->used_bytes, stderr);
	fflush(stderr);
}

static void append_place(struct line *line, const struct report *report)
{
	char number[32];

	if (report->file) {
		snprintf(number, sizeof(number), ":%lu: ", report->line);
		append(line, report->file);
		append(line, number);
	} else {
		append(line, "dmcat: ");
	}
	if (report->command) {
		append(line, report->command);
		append(line, ": ");
	}
}

enum exit_status report_error(struct report *report, enum exit_status status, int error,
			      const char *format, ...)
{
	char message[LINE_BYTES - 256];
	struct line line = { .used_bytes = 0 };
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	append_place(&line, report);
	append(&line, message);
	if (error)
		append_name(&line, message, error);
	print(&line);
	if (status > report->worst)
		report->worst = status;
	return status;
}

enum exit_status report_library(struct report *report, enum exit_status status, int error)
{
	return report_error(report, status, error, "%s", dmcore_error_message());
}

/* Reads `table line N: ` off the front of a message. */
static bool take_table_line(const char **message, uint64_t *number)
{
	static const char prefix[] = "table line ";
	const char *at = *message;
	char digits[24];
	size_t length;

	if (strncmp(at, prefix, sizeof(prefix) - 1) != 0)
		return false;
	at += sizeof(prefix) - 1;
	length = strspn(at, "0123456789");
	if (length >= sizeof(digits) || strncmp(at + length, ": ", 2) != 0)
		return false;
	memcpy(digits, at, length);
	digits[length] = '\0';
	if (words_number(digits, number))
		return false;
	*message = at + length + 2;
	return true;
}

enum exit_status report_table(struct report *report, int error, const char *file,
			      unsigned long lines_before)
{
	const char *message = dmcore_error_message();
	struct report place = *report;
	uint64_t number;

	if (file && take_table_line(&message, &number)) {
		place.file = file;
		place.line = lines_before + (unsigned long)number;
	}
	report_error(&place, EXIT_BAD_USAGE, error, "%s", message);
	report->worst = place.worst;
	return EXIT_BAD_USAGE;
}

void report_note(const char *kind, const char *message)
{
	struct line line = { .used_bytes = 0 };

	append(&line, "dmcat: ");
	append(&line, kind);
	append(&line, ": ");
	append(&line, message);
	print(&line);
}
