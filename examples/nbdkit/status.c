/* SPDX-License-Identifier: MIT */
/*
 * STATUS lines with numbers in place of names of devices: libdevmapper's parsers want them. The
 * library prints names, and so do tables here, which people read and load again. Called by
 * tables.c.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "commands.h"

/* Where in a line the devices are. */
struct places {
	unsigned long first; /* Words from 0. */
	unsigned long end;
	unsigned long log;   /* Another one, or 0. */
};

/* The next word, cut off and with its quoting taken out; NULL behind the last. */
static char *next_word(char **text)
{
	char *word;
	char *to;

	while (isspace((unsigned char)**text))
		(*text)++;
	if (!**text)
		return NULL;
	word = to = *text;
	while (**text && !isspace((unsigned char)**text)) {
		if (**text == '\\' && (*text)[1])
			(*text)++;
		*to++ = *(*text)++;
	}
	if (**text)
		(*text)++;
	*to = '\0';
	return word;
}

static unsigned long count_words(const char *params)
{
	char *copy = strdup(params);
	char *text = copy;
	unsigned long count = 0;

	while (copy && next_word(&text))
		count++;
	free(copy);
	return count;
}

/*
 * striped and mirror begin with a count of devices and the devices; a mirror's log on a disk is the
 * last word but one: `disk DEVICE HEALTH`.
 */
static struct places find_places(const char *type, const char *params)
{
	struct places places = { .first = 1 };
	unsigned long words = count_words(params);
	unsigned long count = strtoul(params, NULL, 10);

	if (strcmp(type, "striped") != 0 && strcmp(type, "mirror") != 0)
		return (struct places){ .first = 0 };
	if (words < 2 || count > words - 1)
		return (struct places){ .first = 0 };
	places.end = 1 + count;
	if (strcmp(type, "mirror") == 0 && words >= 3 && strstr(params, " disk "))
		places.log = words - 2;
	return places;
}

char *status_with_numbers(struct call *call, const char *type, const char *params)
{
	struct places places = find_places(type, params);
	char *copy = strdup(params);
	char *text = copy;
	char *result = NULL;
	size_t bytes;
	char *word;
	FILE *out;

	if (!copy || places.end == 0)
		return copy;
	out = open_memstream(&result, &bytes);
	for (unsigned long i = 0; out && (word = next_word(&text)); i++) {
		uint64_t dev = 0;
		bool is_device = (i >= places.first && i < places.end) ||
				 (places.log && i == places.log);

		if (is_device)
			dev = numbers_of_spec(call->numbers, word);
		if (i > 0)
			fputc(' ', out);
		if (is_device)
			fprintf(out, "%u:%u", major(dev), minor(dev));
		else
			fputs(word, out);
	}
	free(copy);
	if (out && fclose(out) != 0) {
		free(result);
		result = NULL;
	}
	return result;
}
