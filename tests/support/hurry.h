/* SPDX-License-Identifier: MIT */
/*
 * A clock of a core that nobody waits for: who would sleep until some time makes it that time. For
 * tests of targets that hold requests back, which would take long otherwise. Waits without an end,
 * or with one that is far away, are for another thread, and take real time.
 */
#ifndef DMCORE_TESTS_SUPPORT_HURRY_H
#define DMCORE_TESTS_SUPPORT_HURRY_H

#include <dmcore.h>

/* Has a core be in a hurry. */
void hurry_use(struct dmcore_options *options);

#endif
