/* SPDX-License-Identifier: MIT */
/* What the plugin's parameters say: which devices to make, and how. */
#ifndef DMCORE_EXAMPLE_NBDKIT_SETTINGS_H
#define DMCORE_EXAMPLE_NBDKIT_SETTINGS_H

#include <stdbool.h>

#include <dmcore.h>

enum definition_kind {
	DEFINE_TABLE,      /* text is the table. */
	DEFINE_TABLE_FILE, /* text is the path of a file with the table. */
	DEFINE_CONCISE,    /* text is dmsetup's concise form, of any number of devices. */
};

struct definition {
	enum definition_kind kind;
	char *name; /* NULL for the concise form. */
	char *text;
};

/* Zeroed before the first use. */
struct settings {
	struct definition *definitions;
	unsigned int num_definitions;
	char *next_name; /* Of the table that comes next; NULL: it gets one. */
	enum dmcore_backend backend;
	char *control; /* The path of the control socket, or NULL. */
};

/* Each returns 0, or -1 after nbdkit_error(). */
int settings_take(struct settings *settings, const char *key, const char *value);
int settings_complete(const struct settings *settings);

void settings_free(struct settings *settings);

#endif
