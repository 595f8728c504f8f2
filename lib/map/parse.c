/* SPDX-License-Identifier: MIT */
/*
 * A table from dmsetup's text. Called by applications and by concise.c. A million lines must not
 * take noticeably longer than reading them: nothing here allocates by the line.
 */
#include <errno.h>
#include <string.h>

#include "base/args.h"
#include "base/error.h"
#include "map/map.h"

/* One line at a time. */
struct reader {
	const char *next;    /* the rest of the text */
	const char *line;    /* trimmed */
	const char *end;     /* of line */
	unsigned int number; /* of line, from 1 */
};

/* Goes to the next line that isn't empty or a comment. */
static bool read_line(struct reader *reader)
{
	while (*reader->next) {
		const char *at = reader->next;
		const char *end = strchr(at, '\n');

		if (!end)
			end = at + strlen(at);
		reader->next = *end ? end + 1 : end;
		reader->number++;
		while (at < end && dmcore__is_space(*at))
			at++;
		while (end > at && dmcore__is_space(end[-1]))
			end--;
		if (at == end || *at == '#')
			continue;
		reader->line = at;
		reader->end = end;
		return true;
	}
	return false;
}

/* Moves *at over white space; false if there is none, or nothing behind it. */
static bool skip_space(const char **at, const char *end)
{
	const char *from = *at;

	while (*at < end && dmcore__is_space(**at))
		(*at)++;
	return *at > from && *at < end;
}

/* Where the first comment sign stands that no backslash quotes, or `end`. */
static const char *find_comment(const char *at, const char *end)
{
	for (; at < end && *at != '#'; at++) {
		if (*at == '\\' && at + 1 < end)
			at++;
	}
	return at;
}

/* Takes a line apart. False: it isn't `start length type params`. */
static bool parse_line(const struct reader *reader, struct dmcore__line *line)
{
	const char *at = reader->line;
	uint64_t *numbers[] = { &line->start, &line->length };

	for (unsigned int i = 0; i < 2; i++) {
		const char *digits = at;

		/* A number too large for us stands as the largest, which no table can hold. */
		if (!dmcore__take_digits(&at, numbers[i]) && at == digits)
			return false;
		if (!skip_space(&at, reader->end))
			return false;
	}
	line->type = at;
	while (at < reader->end && !dmcore__is_space(*at))
		at++;
	line->type_bytes = (size_t)(at - line->type);
	line->params = at;
	line->params_bytes = (size_t)(find_comment(at, reader->end) - at);
	return true;
}

static int parse_lines(struct dmcore_table *table, const char *text)
{
	struct reader reader = { .next = text };
	struct dmcore__line line;
	int ret = 0;

	while (ret == 0 && read_line(&reader)) {
		if (parse_line(&reader, &line))
			ret = dmcore__table_add_line(table, &line);
		else
			ret = dmcore__error(-EINVAL,
					    "Invalid format on line %u of table: not "
					    "`start length type params`",
					    reader.number);
	}
	if (ret)
		dmcore__error_prefix(ret, "table line %u", reader.number);
	return ret;
}

/* As many targets as the text has lines. */
static int reserve_lines(struct dmcore_table *table, const char *text)
{
	uint32_t num_lines = 0;

	while (*text && num_lines < DMCORE_TABLE_TARGETS_MAX) {
		const char *end = strchr(text, '\n');

		num_lines++;
		if (!end)
			break;
		text = end + 1;
	}
	if (dmcore__table_reserve(table, num_lines))
		return dmcore__error(-ENOMEM, "no memory for a table of %u lines", num_lines);
	return 0;
}

/* Completes a table, and says where in the text a target stands that is to blame. */
static int finish(struct dmcore_table *table, const char *text)
{
	struct reader reader = { .next = text };
	int ret = dmcore__table_finish(table);

	if (ret == 0 || table->failed_target == table->num_targets)
		return ret;
	for (uint32_t i = 0; i <= table->failed_target; i++)
		read_line(&reader);
	return dmcore__error_prefix(ret, "table line %u", reader.number);
}

int dmcore__table_parse(struct dmcore *core, const char *text, unsigned int flags,
			struct dmcore_table **result)
{
	struct dmcore_table *table;
	int ret;

	*result = NULL;
	if (strnlen(text, DMCORE_TABLE_TEXT_BYTES_MAX + 1) > DMCORE_TABLE_TEXT_BYTES_MAX)
		return dmcore__error(-E2BIG, "the text of a table is longer than %u bytes",
				     DMCORE_TABLE_TEXT_BYTES_MAX);
	ret = dmcore_table_create(core, flags, &table);
	if (ret)
		return ret;
	ret = reserve_lines(table, text);
	if (ret == 0)
		ret = parse_lines(table, text);
	if (ret == 0)
		ret = finish(table, text);
	if (ret)
		goto destroy_table;
	*result = table;
	return 0;

destroy_table:
	dmcore__table_destroy(table);
	return ret;
}

int dmcore_table_parse(struct dmcore *core, const char *text, unsigned int flags,
		       struct dmcore_table **result)
{
	int ret;

	if (!text || !result)
		return dmcore__error(-EINVAL, "no text, or no place for the result");
	*result = NULL;
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	ret = dmcore__table_parse(core, text, flags, result);
	dmcore__unlock(core);
	return ret;
}
