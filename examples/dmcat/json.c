/* SPDX-License-Identifier: MIT */
/* JSON values. */
#include "json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Length of the UTF-8 sequence at the front, or 0 if there is none: overlong forms, surrogates and
 * what lies beyond U+10FFFF aren't any.
 */
static size_t sequence_bytes(const unsigned char *text, size_t bytes)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length;
	uint32_t code;

	if (text[0] < 0x80)
		return 1;
	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	length = text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
	if (length > bytes)
		return 0;
	code = text[0] & (0xffu >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3f);
	}
	if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return length;
}

void json_string_to(FILE *out, const char *text, size_t bytes)
{
	const unsigned char *at = (const unsigned char *)text;
	const unsigned char *end = at + bytes;

	putc('"', out);
	while (at < end) {
		size_t length = sequence_bytes(at, (size_t)(end - at));
		bool is_control = *at < 0x20 || *at == 0x7f;

		if (length == 0) {
			fputs("\\ufffd", out);
			length = 1;
		} else if (is_control) {
			fprintf(out, "\\u%04x", *at);
		} else {
			if (*at == '"' || *at == '\\')
				putc('\\', out);
			fwrite(at, 1, length, out);
		}
		at += length;
	}
	putc('"', out);
}

void json_string(const char *text, size_t bytes)
{
	json_string_to(stdout, text, bytes);
}
