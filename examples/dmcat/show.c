/* SPDX-License-Identifier: MIT */
/* What status, table and targets print, as dmsetup does or as JSON. For info see info.c. */
#include "show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices.h"
#include "json.h"

/* A piece of a text. */
struct piece {
	const char *at;
	size_t bytes;
};

/* Takes a line off *text; false: there is none. */
static bool next_line(const char **text, struct piece *line)
{
	const char *end;

	if (!**text)
		return false;
	end = strchrnul(*text, '\n');
	*line = (struct piece){ *text, (size_t)(end - *text) };
	*text = *end ? end + 1 : end;
	return true;
}

/* Takes what stands before the next blank off the front of a line. */
static struct piece next_word(struct piece *line)
{
	const char *blank = memchr(line->at, ' ', line->bytes);
	struct piece word = { line->at, blank ? (size_t)(blank - line->at) : line->bytes };
	size_t taken_bytes = word.bytes + (blank ? 1 : 0);

	line->at += taken_bytes;
	line->bytes -= taken_bytes;
	return word;
}

static void print_lines(const char *text, const char *name)
{
	struct piece line;

	while (next_line(&text, &line)) {
		if (name)
			printf("%s: ", name);
		fwrite(line.at, 1, line.bytes, stdout);
		putchar('\n');
	}
}

static void print_json(const char *text, const char *name)
{
	const char *separator = "";
	struct piece line;

	fputs("{\"name\":", stdout);
	json_string(name, strlen(name));
	fputs(",\"targets\":[", stdout);
	while (next_line(&text, &line)) {
		struct piece start = next_word(&line);
		struct piece length = next_word(&line);
		struct piece type = next_word(&line);

		printf("%s{\"start\":%.*s,\"length\":%.*s,\"type\":", separator, (int)start.bytes,
		       start.at, (int)length.bytes, length.at);
		json_string(type.at, type.bytes);
		fputs(",\"params\":", stdout);
		json_string(line.at, line.bytes);
		putchar('}');
		separator = ",";
	}
	fputs("]}", stdout);
}

static enum exit_status print_device(struct session *session, struct dmcore_device *device,
				     enum dmcore_text_kind kind, unsigned int flags,
				     bool with_name)
{
	const char *name = dmcore_device_name(device);
	enum exit_status status;
	char *text;

	status = devices_text(session, device, kind, flags, &text);
	if (status)
		return status;
	if (session->options.json)
		print_json(text, name);
	else
		print_lines(text, with_name ? name : NULL);
	free(text);
	return EXIT_DONE;
}

static void open_json(const struct session *session)
{
	if (session->options.json)
		fputs("{\"devices\":[", stdout);
}

static void close_json(const struct session *session)
{
	if (session->options.json)
		puts("]}");
}

enum exit_status show_text(struct session *session, struct dmcore_device *device,
			   enum dmcore_text_kind kind, unsigned int flags)
{
	enum exit_status status;

	open_json(session);
	status = print_device(session, device, kind, flags, false);
	close_json(session);
	return status;
}

enum exit_status show_all_texts(struct session *session, enum dmcore_text_kind kind,
				unsigned int flags)
{
	enum exit_status status = EXIT_DONE;
	struct dmcore_device *device;

	open_json(session);
	for (unsigned int i = 0;
	     status == EXIT_DONE && (device = dmcore_device_at(session->core, i)); i++) {
		if (session->options.json && i > 0)
			putchar(',');
		status = print_device(session, device, kind, flags, true);
	}
	close_json(session);
	return status;
}

enum exit_status show_targets(struct session *session)
{
	const struct dmcore_target_type *type;

	if (session->options.json)
		fputs("{\"targets\":[", stdout);
	for (unsigned int i = 0; (type = dmcore_target_type_at(session->core, i)); i++) {
		const unsigned int *version = type->version;

		if (!session->options.json) {
			printf("%-16s v%u.%u.%u\n", type->name, version[0], version[1], version[2]);
			continue;
		}
		printf("%s{\"name\":", i > 0 ? "," : "");
		json_string(type->name, strlen(type->name));
		printf(",\"version\":[%u,%u,%u]}", version[0], version[1], version[2]);
	}
	if (session->options.json)
		puts("]}");
	return EXIT_DONE;
}
