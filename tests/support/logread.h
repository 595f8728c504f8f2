/* SPDX-License-Identifier: MIT */
/*
 * What a write log says, as a short text: "w3 w5+8 F wf9 d16+8 m:one". Written with
 * pattern_fill(), the version follows: "w3/2". For tests of log-writes.
 */
#ifndef DMCORE_TESTS_SUPPORT_LOGREAD_H
#define DMCORE_TESTS_SUPPORT_LOGREAD_H

#include <stdint.h>

#include <dmcore.h>

/* Versions that are told; 0 isn't printed, and other data are "/?". */
#define LOGREAD_VERSIONS 8

/* All entries up to the end that the super block tells; good until the next call. Asserts that the
 * log is well-formed. Sectors are of 512 bytes. */
const char *logread_text(struct dmcore_bdev *log);
/* The super block; one of UINT64_MAX entries: there is none yet. */
struct dmcore_logwrites_super logread_super(struct dmcore_bdev *log);
/* Waits until it counts so many entries. */
void logread_await(struct dmcore_bdev *log, uint64_t num_entries);

#endif
