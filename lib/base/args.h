/* SPDX-License-Identifier: MIT */
/*
 * The one tokenizer and the one number parser. Used by map/ for table lines and by the
 * constructors through dmcore_args_* of dmcore/target.h.
 */
#ifndef DMCORE_LIB_BASE_ARGS_H
#define DMCORE_LIB_BASE_ARGS_H

#include <stdbool.h>
#include <stdint.h>

struct dmcore_args {
	char **words;      /* unquoted */
	unsigned int count;
	unsigned int next; /* first word not taken yet */
	const char *error; /* set by dmcore_args_fail(), else NULL */
};

/* White space is ASCII's alone, so that no byte of a UTF-8 name is taken for it. */
static inline bool dmcore__is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * Splits `text` in place at white space; a backslash quotes the next character and is dropped, a
 * lone one at the end stays. Stores at most `max` words. False: there are more.
 */
bool dmcore__split(char *text, char **words, unsigned int max, unsigned int *count);

/*
 * Reads the digits at *at and moves it behind them. False: there are none, and nothing changes; or
 * the number is 2^64 or more, and *value is UINT64_MAX.
 */
bool dmcore__take_digits(const char **at, uint64_t *value);

/* Reads the whole of `word` as digits. False, with *value unchanged: something else, or it is
 * 2^64 or more. */
bool dmcore__parse_u64(const char *word, uint64_t *value);

#endif
