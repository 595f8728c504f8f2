/* SPDX-License-Identifier: MIT */
/* Numbers, words of a script line, and sizes for people. */
#ifndef DMCAT_WORDS_H
#define DMCAT_WORDS_H

#include <stdint.h>

/*
 * Reads a whole word of decimal digits. 0, or with *value unchanged: -EINVAL (something else) or
 * -ERANGE (2^64 or more).
 */
int words_number(const char *word, uint64_t *value);

/*
 * Takes the next word off *rest, in place, as the words of a table line: they end at white space, a
 * backslash quotes the next character, a lone one at the end stays. NULL: there is none.
 */
char *words_next(char **rest);

/*
 * Splits a line into such words. One that begins with an unquoted `#` begins a comment. Returns 0,
 * or -E2BIG if there are more than `max` words.
 */
int words_split(char *line, char **words, unsigned int max, unsigned int *count);

/* The reverse: the words, quoted, with a blank between them; for free(). NULL: no memory. */
char *words_join(char *const *words, unsigned int count);

/* Reads seconds with up to nine decimals, `1.5`. As words_number(). */
int words_seconds(const char *word, int64_t *value_ns);

/* Reads bytes, `4096` or `64M`: k, M, G and T stand for powers of 1024. As words_number(). */
int words_bytes(const char *word, uint64_t *value);

/* Writes `1.5 GiB` or the like. */
#define WORDS_SIZE_BYTES 24
void words_size(uint64_t bytes, char text[WORDS_SIZE_BYTES]);

#endif
