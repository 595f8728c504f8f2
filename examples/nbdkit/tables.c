/* SPDX-License-Identifier: MIT */
/* What the kernel's control node does with tables. Called by commands.c, which see. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "commands.h"
#include "nbdkit.h"

/* ---- loading ---- */

/* The target at `offset_bytes`, with the string behind it; NULL: it isn't inside the buffer. */
static const struct dm_target_spec *spec_at(const struct call *call, uint64_t offset_bytes)
{
	const char *begin = (const char *)call->param + offset_bytes;
	const struct dm_target_spec *spec = (const void *)begin;

	if (offset_bytes % _Alignof(struct dm_target_spec) || offset_bytes > call->data_bytes ||
	    call->data_bytes - offset_bytes <= sizeof(*spec) ||
	    !memchr(spec->target_type, '\0', sizeof(spec->target_type)) ||
	    !memchr(spec + 1, '\0', call->data_bytes - offset_bytes - sizeof(*spec)))
		return NULL;
	return spec;
}

static int add_target(struct call *call, struct dmcore_table *table,
		      const struct dm_target_spec *spec)
{
	char missing[64];
	char *args;
	int ret;

	devices_lock(call->devices);
	ret = numbers_refresh(call->numbers);
	if (ret == 0)
		ret = numbers_name_words(call->numbers, (const char *)(spec + 1), &args, missing,
					 sizeof(missing));
	devices_unlock(call->devices);
	if (ret == -ENXIO)
		return call_refused(call, ret, "%s: there is no mapped device of that number",
				    missing);
	if (ret)
		return ret;
	ret = dmcore_table_add(table, spec->sector_start, spec->length, spec->target_type, args);
	free(args);
	return call_failed(call, ret);
}

static int add_targets(struct call *call, struct dmcore_table *table)
{
	uint64_t offset_bytes = call->param->data_start;

	for (uint32_t i = 0; i < call->param->target_count; i++) {
		const struct dm_target_spec *spec = spec_at(call, offset_bytes);
		int ret;

		if (!spec)
			return call_refused(call, -EINVAL, "target %u isn't in the buffer", i);
		ret = add_target(call, table, spec);
		if (ret)
			return ret;
		/* Or the same one would come again and again. */
		if (spec->next < sizeof(*spec) && i + 1 < call->param->target_count)
			return call_refused(call, -EINVAL, "target %u is where %u is", i + 1, i);
		offset_bytes += spec->next;
	}
	return 0;
}

static int load(struct call *call, struct pin *pin)
{
	bool read_only = call->param->flags & DM_READONLY_FLAG;
	struct dmcore_table *table;
	int ret;

	ret = dmcore_table_create(devices_core(call->devices),
				  read_only ? DMCORE_TABLE_READ_ONLY : 0, &table);
	if (ret)
		return call_failed(call, ret);
	ret = add_targets(call, table);
	if (ret == 0)
		ret = call_failed(call, dmcore_device_load(pin->device, table));
	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

/* After a command without an answer but what the device is like. */
static void finish(struct call *call, struct pin *pin)
{
	struct room room = room_begin(call);

	call_tell(call, pin->device);
	numbers_unpin(call->numbers, pin);
	room_end(&room);
}

int table_load(struct call *call)
{
	struct pin pin;
	int ret;

	if (!call->has_folder)
		return call_refused(call, -ENOENT, "relative paths: the client's folder can't be "
						   "entered");
	ret = call_pin(call, &pin);
	if (ret)
		return ret;
	ret = load(call, &pin);
	finish(call, &pin);
	return ret;
}

int table_clear(struct call *call)
{
	struct pin pin;
	int ret = call_pin(call, &pin);

	if (ret)
		return ret;
	ret = call_failed(call, dmcore_device_clear(pin.device));
	finish(call, &pin);
	return ret;
}

/* ---- texts ---- */

/* *text is the caller's to free. It may grow between two looks at it. */
static int get_text(struct call *call, struct pin *pin, enum dmcore_text_kind kind, char **text)
{
	bool inactive = call->param->flags & DM_QUERY_INACTIVE_TABLE_FLAG;
	size_t room_bytes = 4096;
	int64_t bytes;

	for (;;) {
		*text = malloc(room_bytes);
		if (!*text)
			return -ENOMEM;
		bytes = dmcore_device_text(pin->device, kind, inactive ? DMCORE_TEXT_INACTIVE : 0,
					   *text, room_bytes);
		if (bytes >= 0 && (size_t)bytes < room_bytes)
			return 0;
		free(*text);
		*text = NULL;
		if (bytes < 0)
			return call_failed(call, (int)bytes);
		room_bytes = (size_t)bytes + 4096;
	}
}

/* Ends the first line of a text with NUL; returns what follows. A quoted newline is in a name. */
static char *cut_line(char *text)
{
	for (; *text && *text != '\n'; text++) {
		if (*text == '\\' && text[1])
			text++;
	}
	if (*text)
		*text++ = '\0';
	return text;
}

static void write_target(struct room *room, const struct dm_target_spec *target,
			 const char *params)
{
	size_t bytes = strlen(params) + 1;
	struct dm_target_spec *spec = room_take(room, sizeof(*spec) + bytes);

	if (!spec)
		return;
	*spec = *target;
	memcpy(spec + 1, params, bytes);
	/* In answers, unlike in requests, this counts from the first. */
	spec->next = (uint32_t)room->used_bytes;
	room->call->param->target_count++;
}

/* "start length type params" */
static int write_line(struct room *room, const char *line, bool table)
{
	struct call *call = room->call;
	struct dm_target_spec target = { .status = 0 };
	size_t type_length;
	char *params;
	char *rest;

	target.sector_start = strtoull(line, &rest, 10);
	target.length = strtoull(rest, &rest, 10);
	rest += strspn(rest, " ");
	type_length = strcspn(rest, " ");
	if (type_length >= sizeof(target.target_type))
		return -EINVAL;
	memcpy(target.target_type, rest, type_length);
	rest += type_length;
	rest += *rest == ' ';
	if (table) {
		write_target(room, &target, rest);
		return 0;
	}
	devices_lock(call->devices);
	params = status_with_numbers(call, target.target_type, rest);
	devices_unlock(call->devices);
	if (!params)
		return -ENOMEM;
	write_target(room, &target, params);
	free(params);
	return 0;
}

static int tell_status(struct call *call, struct pin *pin)
{
	bool table = call->param->flags & DM_STATUS_TABLE_FLAG;
	struct room room = room_begin(call);
	char *text;
	char *line;
	int ret;

	call_tell(call, pin->device);
	ret = get_text(call, pin, table ? DMCORE_TEXT_TABLE : DMCORE_TEXT_STATUS, &text);
	if (ret)
		return ret;
	call->param->target_count = 0;
	for (line = text; *line;) {
		char *following = cut_line(line);

		ret = ret ? ret : write_line(&room, line, table);
		line = following;
	}
	room_end(&room);
	free(text);
	return ret;
}

int table_status(struct call *call)
{
	struct pin pin;
	int ret = call_pin(call, &pin);

	if (ret)
		return ret;
	ret = tell_status(call, &pin);
	numbers_unpin(call->numbers, &pin);
	return ret;
}

/* ---- events ---- */

/* Until something has happened, or the client has gone. */
static int wait_for_event(struct call *call, struct dmcore_watch *watch)
{
	struct pollfd fds[] = {
		{ .fd = dmcore_watch_fd(watch), .events = POLLIN },
		{ .fd = call->socket, .events = POLLRDHUP },
	};

	while (poll(fds, 2, -1) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return fds[0].revents ? 0 : -EINTR;
}

/*
 * Who waits doesn't keep the device from being removed; so it is looked up again when something has
 * happened. Like the kernel's the command ends with the status that the event has brought.
 */
int table_wait(struct call *call)
{
	struct dm_ioctl *param = call->param;
	struct dmcore_watch *watch;
	struct pin pin;
	uint32_t event_nr = param->event_nr;
	int ret = call_pin(call, &pin);

	if (ret)
		return ret;
	/* By its number: the event may be that it has got another name. */
	call_tell(call, pin.device);
	memset(param->name, 0, sizeof(param->name));
	memset(param->uuid, 0, sizeof(param->uuid));
	ret = dmcore_watch_create(pin.device, event_nr, NULL, NULL, NULL, &watch);
	numbers_unpin(call->numbers, &pin);
	if (ret)
		return call_failed(call, ret);
	ret = wait_for_event(call, watch);
	if (ret == 0 && dmcore_watch_event_nr(watch, &event_nr) == -ENODEV)
		ret = -ENXIO;
	dmcore_watch_destroy(watch);
	return ret ? ret : table_status(call);
}

/* ---- messages ---- */

/* Of these an empty answer is one, too. */
static bool is_always_answered(const char *message)
{
	static const char list[] = "@stats_list";
	static const char print[] = "@stats_print";

	return strncasecmp(message, list, sizeof(list) - 1) == 0 ||
	       strncasecmp(message, print, sizeof(print) - 1) == 0;
}

/* *text is what the target or the device has said, of `bytes`. */
static void answer(struct call *call, const char *text, size_t bytes)
{
	struct room room = room_begin(call);
	char *memory = room_take(&room, strlen(text) + 1);

	call->param->flags |= DM_DATA_OUT_FLAG;
	if (memory)
		memcpy(memory, text, strlen(text) + 1);
	room.full |= strlen(text) < bytes;
	room_end(&room);
}

int table_message(struct call *call)
{
	const struct dm_target_msg *message = (const void *)call_string(call);
	size_t room_bytes = call->data_bytes - sizeof(struct dm_ioctl);
	struct room none = room_begin(call);
	struct pin pin;
	bool answered;
	char *text;
	int64_t bytes;
	int ret;

	/* The sector is of bytes that may be zero. */
	if (call->param->data_start % _Alignof(struct dm_target_msg) || !message ||
	    call->data_bytes - call->param->data_start <= sizeof(*message) ||
	    !memchr(message->message, '\0',
		    call->data_bytes - call->param->data_start - sizeof(*message)))
		return call_refused(call, -EINVAL, "Invalid target message parameters.");
	ret = call_pin(call, &pin);
	if (ret)
		return ret;
	answered = is_always_answered(message->message);
	text = calloc(1, room_bytes + 1);
	bytes = text ? dmcore_device_message(pin.device, message->sector, message->message, text,
					     room_bytes)
		     : -ENOMEM;
	ret = bytes < 0 ? call_failed(call, (int)bytes) : 0;
	call_tell(call, pin.device);
	room_end(&none);
	if (ret == 0 && (bytes > 0 || answered))
		answer(call, text, (size_t)bytes);
	free(text);
	numbers_unpin(call->numbers, &pin);
	return ret;
}

/* ---- what a table stands on ---- */

/* Takes the quoting backslashes out of a line. */
static void unquote(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == '\\' && text[1])
			text++;
		*to++ = *text;
	}
	*to = '\0';
}

static bool has_dep(const struct dm_target_deps *deps, uint64_t dev)
{
	for (uint32_t i = 0; i < deps->count; i++) {
		if (deps->dev[i] == dev)
			return true;
	}
	return false;
}

int table_deps(struct call *call)
{
	struct room room = room_begin(call);
	struct dm_target_deps *deps;
	char *text = NULL;
	struct pin pin;
	char *line;
	int ret = call_pin(call, &pin);

	if (ret)
		return ret;
	call_tell(call, pin.device);
	deps = room_take(&room, sizeof(*deps));
	ret = get_text(call, &pin, DMCORE_TEXT_DEPS, &text);
	devices_lock(call->devices);
	for (line = text; ret == 0 && deps && *line;) {
		char *following = cut_line(line);
		uint64_t dev;
		uint64_t *place;

		unquote(line);
		dev = numbers_of_spec(call->numbers, line);
		line = following;
		if (has_dep(deps, dev))
			continue;
		place = room_take(&room, sizeof(*place));
		if (!place)
			break;
		*place = dev;
		deps->count++;
	}
	devices_unlock(call->devices);
	room_end(&room);
	free(text);
	numbers_unpin(call->numbers, &pin);
	return ret;
}

/* ---- types ---- */

/* All, or the one that is named. */
int list_versions(struct call *call)
{
	const char *wanted = call->command == DM_GET_TARGET_VERSION_CMD ? call->param->name : NULL;
	const struct dmcore_target_type *type;
	struct dm_target_versions *last = NULL;
	struct room room = room_begin(call);

	for (unsigned int i = 0;
	     (type = dmcore_target_type_at(devices_core(call->devices), i)); i++) {
		struct dm_target_versions *versions;

		if (wanted && strcmp(type->name, wanted) != 0)
			continue;
		versions = room_take(&room, sizeof(*versions) + strlen(type->name) + 1);
		if (!versions)
			break;
		for (unsigned int k = 0; k < 3; k++)
			versions->version[k] = type->version[k];
		memcpy(versions->name, type->name, strlen(type->name));
		if (last)
			last->next = (uint32_t)((char *)versions - (char *)last);
		last = versions;
	}
	room_end(&room);
	if (!last && !room.full)
		return call_refused(call, -ENXIO, "%s: unknown target type", wanted ? wanted : "");
	return 0;
}
