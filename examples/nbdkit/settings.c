/* SPDX-License-Identifier: MIT */
/* Reads the plugin's parameters. Called by plugin.c while nbdkit starts. */
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbdkit.h"

static int no_memory(void)
{
	nbdkit_error("no memory");
	return -1;
}

static bool is_taken(const struct settings *settings, const char *name)
{
	for (unsigned int i = 0; i < settings->num_definitions; i++) {
		const char *other = settings->definitions[i].name;

		if (other && strcmp(other, name) == 0)
			return true;
	}
	return false;
}

/* The name that was given, or as in dmcat `unnamed`, `unnamed2` …; NULL: no memory. */
static char *take_name(struct settings *settings)
{
	char *name = settings->next_name;
	char text[32] = "unnamed";

	if (!name) {
		for (unsigned int i = 2; is_taken(settings, text); i++)
			snprintf(text, sizeof(text), "unnamed%u", i);
		return strdup(text);
	}
	settings->next_name = NULL;
	return name;
}

static int define(struct settings *settings, enum definition_kind kind, const char *text)
{
	size_t count = (size_t)settings->num_definitions + 1;
	struct definition *list = realloc(settings->definitions, count * sizeof(*list));
	struct definition *definition;

	if (!list)
		return no_memory();
	settings->definitions = list;
	definition = &list[settings->num_definitions];
	*definition = (struct definition){ .kind = kind, .text = strdup(text) };
	if (kind != DEFINE_CONCISE)
		definition->name = take_name(settings);
	if (!definition->text || (kind != DEFINE_CONCISE && !definition->name)) {
		free(definition->text);
		free(definition->name);
		return no_memory();
	}
	settings->num_definitions++;
	return 0;
}

static int take_next_name(struct settings *settings, const char *value)
{
	if (settings->next_name) {
		nbdkit_error("name=%s: name=%s before it has no table yet", value,
			     settings->next_name);
		return -1;
	}
	settings->next_name = strdup(value);
	return settings->next_name ? 0 : no_memory();
}

static int take_backend(struct settings *settings, const char *value)
{
	if (strcmp(value, "auto") == 0) {
		settings->backend = DMCORE_BACKEND_AUTO;
	} else if (strcmp(value, "io_uring") == 0) {
		settings->backend = DMCORE_BACKEND_IO_URING;
	} else if (strcmp(value, "pread") == 0) {
		settings->backend = DMCORE_BACKEND_PREAD;
	} else {
		nbdkit_error("backend=%s: not auto, io_uring or pread", value);
		return -1;
	}
	return 0;
}

static int take_control(struct settings *settings, const char *value)
{
	if (settings->control) {
		nbdkit_error("control=%s: there is control=%s already", value, settings->control);
		return -1;
	}
	settings->control = strdup(value);
	return settings->control ? 0 : no_memory();
}

int settings_take(struct settings *settings, const char *key, const char *value)
{
	if (strcmp(key, "table") == 0) {
		if (value[0] == '@')
			return define(settings, DEFINE_TABLE_FILE, value + 1);
		return define(settings, DEFINE_TABLE, value);
	}
	if (strcmp(key, "name") == 0)
		return take_next_name(settings, value);
	if (strcmp(key, "concise") == 0)
		return define(settings, DEFINE_CONCISE, value);
	if (strcmp(key, "backend") == 0)
		return take_backend(settings, value);
	if (strcmp(key, "control") == 0)
		return take_control(settings, value);
	nbdkit_error("unknown parameter '%s': there are table, name, concise, backend and control",
		     key);
	return -1;
}

int settings_complete(const struct settings *settings)
{
	if (settings->next_name) {
		nbdkit_error("name=%s stands behind the last table: it names the one that follows",
			     settings->next_name);
		return -1;
	}
	if (settings->num_definitions == 0 && !settings->control) {
		nbdkit_error("no device: give a table, as in table='0 2048 linear disk.img 0', "
			     "table=@FILE, concise=..., or control=SOCKET for dmsetup to make "
			     "some");
		return -1;
	}
	return 0;
}

void settings_free(struct settings *settings)
{
	for (unsigned int i = 0; i < settings->num_definitions; i++) {
		free(settings->definitions[i].name);
		free(settings->definitions[i].text);
	}
	free(settings->definitions);
	free(settings->next_name);
	free(settings->control);
	*settings = (struct settings){ .definitions = NULL };
}
