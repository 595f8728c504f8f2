/* SPDX-License-Identifier: MIT */
/* Mapped devices: defined, found, removed; and the opening of devices of any kind. */
#include "devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "watch.h"
#include "words.h"

/* ---- making them ---- */

/* Says what may help after a refusal to open something for writing. */
static void hint(const struct session *session, int error)
{
	bool is_refusal = error == -EACCES || error == -EROFS || error == -EPERM;

	if (is_refusal && !session->options.read_only && !session->options.quiet)
		report_note("note", "-r opens everything read-only");
}

enum exit_status devices_load(struct session *session, struct dmcore_device *device,
			      const char *text, const char *file, unsigned long lines_before)
{
	enum exit_status status;
	struct dmcore_table *table;
	int ret = dmcore_table_parse(session->core, text, options_open_flags(&session->options),
				     &table);

	if (ret == 0) {
		ret = dmcore_device_load(device, table);
		if (ret)
			dmcore_table_destroy(table);
	}
	if (ret == 0)
		return EXIT_DONE;
	status = report_table(&session->report, ret, file, lines_before);
	hint(session, ret);
	return status;
}

enum exit_status devices_resume(struct session *session, struct dmcore_device *device)
{
	int ret = dmcore_device_resume(device);

	if (ret)
		return report_library(&session->report, EXIT_IO_FAILED, ret);
	watch_renew(session, device);
	return EXIT_DONE;
}

/* The device exists first, so that a table which names its own device is refused for what it is. */
enum exit_status devices_create(struct session *session, const char *name, const char *text,
				const char *file, unsigned long lines_before)
{
	unsigned int flags = session->options.read_only ? DMCORE_OPEN_READ_ONLY : 0;
	struct dmcore_device *device;
	enum exit_status status;
	int ret = dmcore_device_create(session->core, name, NULL, flags, &device);

	if (ret)
		return report_library(&session->report, EXIT_BAD_USAGE, ret);
	status = devices_load(session, device, text, file, lines_before);
	if (status == EXIT_DONE) {
		ret = dmcore_device_resume(device);
		if (ret)
			status = report_table(&session->report, ret, file, lines_before);
	}
	if (status == EXIT_DONE)
		watch_add(session, device);
	else
		dmcore_device_remove(device);
	return status;
}

/* ---- the command line's ---- */

/* A table in the argument itself, or behind an @ in a file. */
static enum exit_status create_from(struct session *session, const char *name, const char *source)
{
	struct report *report = &session->report;
	enum exit_status status;
	char *text;
	int ret;

	if (source[0] != '@')
		return devices_create(session, name, source, NULL, 0);
	source++;
	if (strcmp(source, "-") == 0) {
		status = session_take_stdin(session, "a table");
		if (status)
			return status;
	}
	ret = files_read_text(source, DMCORE_TABLE_TEXT_BYTES_MAX, &text);
	if (ret == -E2BIG)
		return report_error(report, EXIT_BAD_USAGE, ret,
				    "%s: longer than a table's %u bytes", source,
				    DMCORE_TABLE_TEXT_BYTES_MAX);
	if (ret == -EILSEQ)
		return report_error(report, EXIT_BAD_USAGE, ret,
				    "%s: not a table: there are NUL bytes in it", source);
	if (ret)
		return report_error(report, EXIT_BAD_USAGE, ret, "%s: %s", source, strerror(-ret));
	status = devices_create(session, name, text, source, 0);
	free(text);
	return status;
}

static enum exit_status define_named(struct session *session, const char *text)
{
	const char *equals = strchr(text, '=');
	enum exit_status status;
	char *name;
	char *place;

	if (!equals || equals == text)
		return report_error(&session->report, EXIT_BAD_USAGE, EINVAL,
				    "-d %s: not NAME=TABLE or NAME=@FILE", text);
	name = strndup(text, (size_t)(equals - text));
	if (!name || asprintf(&place, "-d %s", name) < 0) {
		free(name);
		return report_error(&session->report, EXIT_BAD_USAGE, ENOMEM, "no memory");
	}
	session->report.command = place;
	status = create_from(session, name, equals + 1);
	session->report.command = NULL;
	free(place);
	free(name);
	return status;
}

/* Devices without a name get one that is free: `unnamed`, `unnamed2` … */
static enum exit_status define_unnamed(struct session *session, const char *text)
{
	enum exit_status status;
	char name[32] = "unnamed";

	for (unsigned int i = 2; dmcore_device_find(session->core, name); i++)
		snprintf(name, sizeof(name), "unnamed%u", i);
	session->report.command = "-t";
	status = create_from(session, name, text);
	session->report.command = NULL;
	return status;
}

static enum exit_status define_concise(struct session *session, const char *text)
{
	enum exit_status status = EXIT_DONE;
	struct dmcore_device *device;
	struct dmcore_device *last;
	int ret;

	session->report.command = "-c";
	ret = dmcore_device_create_concise(session->core, text,
					   options_open_flags(&session->options), &last);
	if (ret)
		status = report_library(&session->report, EXIT_BAD_USAGE, ret);
	else if (!last)
		status = report_error(&session->report, EXIT_BAD_USAGE, EINVAL,
				      "it names no device");
	for (unsigned int i = 0; (device = dmcore_device_at(session->core, i)); i++)
		watch_add(session, device);
	session->report.command = NULL;
	return status;
}

enum exit_status devices_define(struct session *session)
{
	enum exit_status status = EXIT_DONE;

	for (unsigned int i = 0; status == EXIT_DONE && i < session->options.num_definitions; i++) {
		const struct definition *definition = &session->options.definitions[i];

		switch (definition->kind) {
		case DEFINE_NAMED:
			status = define_named(session, definition->text);
			break;
		case DEFINE_UNNAMED:
			status = define_unnamed(session, definition->text);
			break;
		case DEFINE_CONCISE:
			status = define_concise(session, definition->text);
			break;
		}
	}
	return status;
}

/* ---- finding, opening, removing ---- */

enum exit_status devices_find(struct session *session, const char *name,
			      struct dmcore_device **result)
{
	*result = dmcore_device_find(session->core, name);
	if (!*result)
		return report_error(&session->report, EXIT_BAD_USAGE, ENXIO,
				    "there is no mapped device '%s'", name);
	return EXIT_DONE;
}

enum exit_status devices_chosen(struct session *session, const char **spec)
{
	struct dmcore_device *last = NULL;
	struct dmcore_device *device;

	if (session->options.device) {
		*spec = session->options.device;
		return EXIT_DONE;
	}
	for (unsigned int i = 0; (device = dmcore_device_at(session->core, i)); i++)
		last = device;
	if (!last)
		return report_error(&session->report, EXIT_BAD_USAGE, EINVAL,
				    "no device: define one with -d, -t or -c, or name one with "
				    "--dev");
	*spec = dmcore_device_name(last);
	return EXIT_DONE;
}

enum exit_status devices_text(struct session *session, struct dmcore_device *device,
			      enum dmcore_text_kind kind, unsigned int flags, char **text)
{
	int64_t length = dmcore_device_text(device, kind, flags, NULL, 0);

	*text = NULL;
	if (length >= 0) {
		*text = malloc((size_t)length + 1);
		if (!*text)
			return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
		length = dmcore_device_text(device, kind, flags, *text, (size_t)length + 1);
	}
	if (length >= 0)
		return EXIT_DONE;
	free(*text);
	*text = NULL;
	return report_library(&session->report, EXIT_IO_FAILED, (int)length);
}

enum exit_status devices_open(struct session *session, const char *spec, bool will_write,
			      struct dmcore_bdev **result)
{
	unsigned int flags = options_open_flags(&session->options);
	int ret;

	if (!will_write && !dmcore_device_find(session->core, spec))
		flags |= DMCORE_OPEN_READ_ONLY;
	ret = dmcore_bdev_open(session->core, spec, flags, result);
	if (ret)
		return report_library(&session->report, EXIT_IO_FAILED, ret);
	if (will_write && dmcore_bdev_is_read_only(*result)) {
		dmcore_bdev_close(*result);
		*result = NULL;
		return report_error(&session->report, EXIT_IO_FAILED, EROFS,
				    "'%s' is open read-only", spec);
	}
	return EXIT_DONE;
}

enum exit_status devices_remove(struct session *session, const char *name, bool deferred)
{
	struct dmcore_device *device;
	enum exit_status status = devices_find(session, name, &device);
	int ret;

	if (status)
		return status;
	watch_drop(session, device);
	ret = deferred ? dmcore_device_remove_deferred(device) : dmcore_device_remove(device);
	if (ret == 0)
		return EXIT_DONE;
	status = report_library(&session->report, EXIT_IO_FAILED, ret);
	watch_add(session, device);
	return status;
}

/* ---- suspended ones ---- */

static struct dmcore_device_info info_of(struct dmcore_device *device)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	dmcore_device_info(device, &info);
	return info;
}

struct dmcore_device *devices_waited_for(struct session *session)
{
	struct dmcore_device *device;

	for (unsigned int i = 0; (device = dmcore_device_at(session->core, i)); i++) {
		struct dmcore_device_info info = info_of(device);

		if (info.suspended && info.num_deferred > 0)
			return device;
	}
	return NULL;
}

/* The first device with a table that is suspended, of one and what it stands on. */
static enum exit_status find_suspended(struct session *session, struct dmcore_device *device,
				       struct dmcore_device **suspended)
{
	struct dmcore_device_info info = info_of(device);
	enum exit_status status;
	char *rest;
	char *text;
	char *line;

	if (info.suspended && info.live_table)
		*suspended = device;
	if (*suspended)
		return EXIT_DONE;
	status = devices_text(session, device, DMCORE_TEXT_TABLE, 0, &text);
	rest = text;
	while (status == EXIT_DONE && !*suspended && (line = strsep(&rest, "\n"))) {
		const char *word;

		/* Start, length and type come first. */
		for (unsigned int i = 0; (word = words_next(&line)) && !*suspended; i++) {
			struct dmcore_device *below;

			below = i < 3 ? NULL : dmcore_device_find(session->core, word);
			if (below && status == EXIT_DONE)
				status = find_suspended(session, below, suspended);
		}
	}
	free(text);
	return status;
}

static bool is_any_suspended(struct session *session)
{
	struct dmcore_device *device;

	for (unsigned int i = 0; (device = dmcore_device_at(session->core, i)); i++) {
		if (info_of(device).suspended)
			return true;
	}
	return false;
}

enum exit_status devices_check_running(struct session *session, const char *spec)
{
	struct dmcore_device *device = dmcore_device_find(session->core, spec);
	struct dmcore_device *suspended = NULL;
	enum exit_status status;

	if (!device || !is_any_suspended(session))
		return EXIT_DONE;
	status = find_suspended(session, device, &suspended);
	if (status || !suspended)
		return status;
	return report_error(&session->report, EXIT_IO_FAILED, EDEADLK,
			    "'%s' is suspended: resume it first, or put an & behind the line",
			    dmcore_device_name(suspended));
}

/* ---- outputs ---- */

bool devices_stat(const char *spec, struct stat *st)
{
	char numbered[64];

	if (strncmp(spec, "file:", 5) == 0)
		spec += 5;
	if (stat(spec, st) == 0)
		return true;
	snprintf(numbered, sizeof(numbered), "/dev/block/%s", spec);
	return stat(numbered, st) == 0;
}

bool devices_is_same(const struct stat *a, const struct stat *b)
{
	return (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode) && a->st_rdev == b->st_rdev) ||
	       (a->st_dev == b->st_dev && a->st_ino == b->st_ino);
}

/* Whether a device's specification, which is no mapped device's, means that file. */
static bool is_same_file(const char *spec, const struct stat *file)
{
	struct stat other;

	return devices_stat(spec, &other) && devices_is_same(&other, file);
}

/* Whether a table names that file as a device. To take any argument of a target for a device's name
 * errs on the safe side. */
static bool table_names(struct session *session, char *text, const struct stat *file)
{
	char *line;

	while ((line = strsep(&text, "\n"))) {
		const char *word;

		/* Start, length and type come first. */
		for (unsigned int i = 0; (word = words_next(&line)); i++) {
			if (i >= 3 && !dmcore_device_find(session->core, word) &&
			    is_same_file(word, file))
				return true;
		}
	}
	return false;
}

enum exit_status devices_check_output(struct session *session, const char *spec, const char *path)
{
	struct dmcore_device *device;
	struct stat file;

	if (stat(path, &file) < 0 || !(S_ISREG(file.st_mode) || S_ISBLK(file.st_mode)))
		return EXIT_DONE;
	if (!dmcore_device_find(session->core, spec) && is_same_file(spec, &file))
		return report_error(&session->report, EXIT_IO_FAILED, EBUSY,
				    "%s is the device that is to be read", path);
	for (unsigned int i = 0; (device = dmcore_device_at(session->core, i)); i++) {
		enum exit_status status;
		char *text;
		bool is_used;

		status = devices_text(session, device, DMCORE_TEXT_TABLE, 0, &text);
		if (status)
			return status;
		is_used = table_names(session, text, &file);
		free(text);
		if (is_used)
			return report_error(&session->report, EXIT_IO_FAILED, EBUSY,
					    "%s is a part of the device '%s'", path,
					    dmcore_device_name(device));
	}
	return EXIT_DONE;
}

enum exit_status devices_check_below(struct session *session, const char *spec, const char *name,
				     const struct stat *file)
{
	struct dmcore_device *device = dmcore_device_find(session->core, spec);
	enum exit_status status;
	char *text;
	char *rest;
	char *line;

	if (!device)
		return EXIT_DONE;
	status = devices_text(session, device, DMCORE_TEXT_TABLE, 0, &text);
	rest = text;
	while (status == EXIT_DONE && (line = strsep(&rest, "\n"))) {
		const char *word;

		/* Start, length and type come first. */
		for (unsigned int i = 0; status == EXIT_DONE && (word = words_next(&line)); i++) {
			struct dmcore_device *below = dmcore_device_find(session->core, word);
			bool is_it = below ? below == dmcore_device_find(session->core, name) :
					     file && is_same_file(word, file);

			if (i >= 3 && below && !is_it)
				status = devices_check_below(session, word, name, file);
			else if (i >= 3 && is_it)
				status = report_error(&session->report, EXIT_IO_FAILED, EBUSY,
						      "%s is a part of the device '%s'", name,
						      dmcore_device_name(device));
		}
	}
	free(text);
	return status;
}
