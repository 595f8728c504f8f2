/* SPDX-License-Identifier: MIT */
/*
 * Words and numbers of table lines: the tokenizer, the number parsers, and what constructors take
 * their arguments with. Called by map/ and, through dmcore/target.h, by every target.
 */
#include "base/args.h"

#include <errno.h>
#include <string.h>

#include <dmcore/target.h>

#include "base/assert.h"
#include "base/checked.h"

bool dmcore__split(char *text, char **words, unsigned int max, unsigned int *count)
{
	const char *in = text;
	char *out = text;

	*count = 0;
	for (;;) {
		while (dmcore__is_space(*in))
			in++;
		if (!*in)
			return true;
		if (*count == max)
			return false;
		words[(*count)++] = out;
		while (*in && !dmcore__is_space(*in)) {
			if (*in == '\\' && in[1])
				in++;
			*out++ = *in++;
		}
		/* The end of the word may fall on the very character that ended it. */
		if (*in)
			in++;
		*out++ = '\0';
	}
}

bool dmcore__take_digits(const char **at, uint64_t *value)
{
	const char *next = *at;
	uint64_t sum = 0;
	bool overflows = false;

	while (*next >= '0' && *next <= '9') {
		overflows |= dmcore__mul_overflows(sum, 10, &sum);
		overflows |= dmcore__add_overflows(sum, (uint64_t)(*next - '0'), &sum);
		next++;
	}
	if (next == *at)
		return false;
	*at = next;
	*value = overflows ? UINT64_MAX : sum;
	return !overflows;
}

bool dmcore__parse_u64(const char *word, uint64_t *value)
{
	const char *end = word;
	uint64_t number;

	if (!dmcore__take_digits(&end, &number) || *end)
		return false;
	*value = number;
	return true;
}

unsigned int dmcore_args_left(const struct dmcore_args *args)
{
	return args->count - args->next;
}

const char *dmcore_args_next(struct dmcore_args *args)
{
	DMCORE__ASSERT(args->next <= args->count);
	if (args->next == args->count)
		return NULL;
	return args->words[args->next++];
}

int dmcore_args_fail(struct dmcore_args *args, int error, const char *text)
{
	args->error = text;
	return error;
}

int dmcore_args_u64(struct dmcore_args *args, uint64_t min, uint64_t max, const char *text,
		    uint64_t *value)
{
	const char *word = dmcore_args_next(args);
	uint64_t number;

	if (!word || !dmcore__parse_u64(word, &number) || number < min || number > max)
		return dmcore_args_fail(args, -EINVAL, text);
	*value = number;
	return 0;
}
