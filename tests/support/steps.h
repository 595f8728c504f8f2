/* SPDX-License-Identifier: MIT */
/*
 * Carries out the programs of tests/golden/snapshot-*.txt.gz by this library, step by step. Their
 * form is told in tests/golden/programs.h.
 */
#ifndef DMCORE_TESTS_SUPPORT_STEPS_H
#define DMCORE_TESTS_SUPPORT_STEPS_H

#include <stdbool.h>

/*
 * Names the file for the steps "ours" and "theirs": whether disks are left there, for a kernel to
 * go on with, or taken from there, as the kernel has left them.
 */
void steps_exchange_images(const char *path, bool leave);

/* Begins a program, whose disks are files or in memory. */
void steps_begin(bool with_files);
/* Ends it, and takes its devices down. Does nothing if there is none. */
void steps_end(void);

/* Carries a line out; returns its answer, good until the next call, or NULL if it has none. */
const char *steps_carry_out(const char *line);

#endif
