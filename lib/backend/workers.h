/* SPDX-License-Identifier: MIT */
/* A bounded pool of threads that run file I/O. Used by pread.c. */
#ifndef DMCORE_LIB_BACKEND_WORKERS_H
#define DMCORE_LIB_BACKEND_WORKERS_H

#include <stdbool.h>

#include <dmcore/driver.h>

#include "backend/backend.h"

struct dmcore__workers;

int dmcore__workers_create(const struct dmcore__backend_config *config,
			   struct dmcore__workers **result);

/* Nothing is in flight. */
void dmcore__workers_destroy(struct dmcore__workers *workers);

/* Hands over I/O, oldest first through io->next. */
void dmcore__workers_submit(struct dmcore__workers *workers, struct dmcore_fileio *first,
			    struct dmcore_fileio *last);

/* Takes what has ended, oldest first, or NULL. */
struct dmcore_fileio *dmcore__workers_take(struct dmcore__workers *workers);

/* Whether dmcore__workers_take() would find something. */
bool dmcore__workers_ended(struct dmcore__workers *workers);

#endif
