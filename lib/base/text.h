/* SPDX-License-Identifier: MIT */
/* A text that grows, for status lines. Written by map/status.c and the targets' status hooks. */
#ifndef DMCORE_LIB_BASE_TEXT_H
#define DMCORE_LIB_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/core.h"

struct dmcore_text {
	struct dmcore *core;
	char *data;         /* ended by NUL once something was written */
	size_t used_bytes;  /* without the NUL */
	size_t room_bytes;
	bool failed;        /* out of memory: the text is incomplete */
};

void dmcore__text_init(struct dmcore_text *text, struct dmcore *core);
void dmcore__text_fini(struct dmcore_text *text);
void dmcore__text_append(struct dmcore_text *text, const char *bytes, size_t length);

/* Copies what fits and a NUL to `buffer`; returns the whole length, or -ENOMEM. */
long long dmcore__text_copy(const struct dmcore_text *text, char *buffer, size_t bytes);

#endif
