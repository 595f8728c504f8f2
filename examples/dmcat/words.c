/* SPDX-License-Identifier: MIT */
/* Numbers, words of a script line, and sizes for people. */
#include "words.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the C locale, so that no byte of a UTF-8 name is taken for white space. */
static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

int words_number(const char *word, uint64_t *value)
{
	uint64_t number = 0;
	bool too_large = false;

	if (!*word)
		return -EINVAL;
	for (; *word; word++) {
		unsigned int digit = (unsigned int)(*word - '0');

		if (*word < '0' || *word > '9')
			return -EINVAL;
		if (number > (UINT64_MAX - digit) / 10)
			too_large = true;
		number = number * 10 + digit;
	}
	if (too_large)
		return -ERANGE;
	*value = number;
	return 0;
}

static char *skip_space(char *text)
{
	while (is_space(*text))
		text++;
	return text;
}

char *words_next(char **rest)
{
	char *from = skip_space(*rest);
	char *word = from;
	char *to = from;

	while (*from && !is_space(*from)) {
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from++;
	}
	/* The word may reach up to here: look before its end is marked. */
	*rest = *from ? from + 1 : from;
	if (to == word)
		return NULL;
	*to = '\0';
	return word;
}

int words_split(char *line, char **words, unsigned int max, unsigned int *count)
{
	char *rest = skip_space(line);

	*count = 0;
	while (*rest && *rest != '#') {
		if (*count == max)
			return -E2BIG;
		words[(*count)++] = words_next(&rest);
		rest = skip_space(rest);
	}
	return 0;
}

static char *quote_word(char *to, const char *word)
{
	for (; *word; word++) {
		if (is_space(*word) || *word == '\\' || *word == '#')
			*to++ = '\\';
		*to++ = *word;
	}
	return to;
}

char *words_join(char *const *words, unsigned int count)
{
	size_t bytes = 1;
	char *text;
	char *to;

	for (unsigned int i = 0; i < count; i++)
		bytes += 2 * strlen(words[i]) + 1;
	text = malloc(bytes);
	to = text;
	for (unsigned int i = 0; text && i < count; i++) {
		if (i > 0)
			*to++ = ' ';
		to = quote_word(to, words[i]);
	}
	if (text)
		*to = '\0';
	return text;
}

int words_seconds(const char *word, int64_t *value_ns)
{
	size_t digits = strspn(word, "0123456789");
	uint64_t seconds = 0;
	uint64_t nanoseconds = 0;
	uint64_t unit_ns = 1000000000;

	if (digits == 0)
		return -EINVAL;
	for (size_t i = 0; i < digits; i++) {
		seconds = seconds * 10 + (uint64_t)(word[i] - '0');
		if (seconds > INT64_MAX / unit_ns - 1)
			return -ERANGE;
	}
	word += digits;
	if (*word == '.') {
		for (word++; *word >= '0' && *word <= '9' && unit_ns > 1; word++) {
			unit_ns /= 10;
			nanoseconds += (uint64_t)(*word - '0') * unit_ns;
		}
	}
	if (*word)
		return -EINVAL;
	*value_ns = (int64_t)(seconds * 1000000000 + nanoseconds);
	return 0;
}

int words_bytes(const char *word, uint64_t *value)
{
	static const char units[] = "kKmMgGtT";
	size_t digits = strspn(word, "0123456789");
	const char *unit = word[digits] ? strchr(units, word[digits]) : NULL;
	unsigned int shift = unit ? 10 * ((unsigned int)(unit - units) / 2 + 1) : 0;
	char number[24];
	uint64_t units_value;
	int ret;

	if (digits == 0 || word[digits + (unit ? 1 : 0)])
		return -EINVAL;
	if (digits >= sizeof(number))
		return -ERANGE;
	memcpy(number, word, digits);
	number[digits] = '\0';
	ret = words_number(number, &units_value);
	if (ret == 0 && units_value > UINT64_MAX >> shift)
		ret = -ERANGE;
	if (ret == 0)
		*value = units_value << shift;
	return ret;
}

void words_size(uint64_t bytes, char text[WORDS_SIZE_BYTES])
{
	static const char units[] = "KMGTPE";
	unsigned int unit = 0;
	uint64_t rest = 0;

	if (bytes < 1024) {
		snprintf(text, WORDS_SIZE_BYTES, "%u bytes", (unsigned int)bytes);
		return;
	}
	while (bytes >= 1024) {
		rest = bytes % 1024;
		bytes /= 1024;
		unit++;
	}
	snprintf(text, WORDS_SIZE_BYTES, "%u.%u %ciB", (unsigned int)bytes,
		 (unsigned int)(rest * 10 / 1024), units[unit - 1]);
}
