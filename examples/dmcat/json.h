/* SPDX-License-Identifier: MIT */
/* JSON values on standard output. */
#ifndef DMCAT_JSON_H
#define DMCAT_JSON_H

#include <stddef.h>
#include <stdio.h>

/* Prints a string in quotes. Bytes that aren't UTF-8 come out as U+FFFD, for JSON has no other. */
void json_string(const char *text, size_t bytes);
void json_string_to(FILE *out, const char *text, size_t bytes);

#endif
