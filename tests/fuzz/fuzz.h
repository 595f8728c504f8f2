/* SPDX-License-Identifier: MIT */
/*
 * What fuzzers stand on. A fuzzer is tests/fuzz/NAME.c, which defines LLVMFuzzerTestOneInput(), and
 * a line in tests/fuzz/local.mk. It is linked with clang's libFuzzer, or else with replay_main.c,
 * which carries out the files of its corpus. Its inputs stay the same for ever: what a byte means
 * is part of the corpus.
 *
 * All of it is one thread, and no file of the machine can be opened: see sandbox.c.
 */
#ifndef DMCORE_TESTS_FUZZ_FUZZ_H
#define DMCORE_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

/* Longest input that is looked at. */
#define FUZZ_BYTES_MAX 4096u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Says what is wrong, as printf does, and aborts. */
#define FUZZ_CHECK(condition, ...)                                                                 \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fuzz_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                    \
	} while (0)

_Noreturn void fuzz_fail(const char *file, int line, const char *condition, const char *format, ...)
	DMCORE_PRINTF(4, 5);

/* ---- input ---- */

/* What is left of an input. Behind its end there are zeroes, so every input means something. */
struct fuzz_bytes {
	const uint8_t *at;
	size_t left;
};

uint8_t fuzz_u8(struct fuzz_bytes *bytes);
/* The smaller the limit, the fewer bytes it takes. Not for a limit of 0. */
uint32_t fuzz_below(struct fuzz_bytes *bytes, uint32_t limit);
/* The rest up to a NUL, cut at room - 1 characters. */
void fuzz_text(struct fuzz_bytes *bytes, char *text, size_t room);

/* ---- texts ---- */

/* Checks the text of a table: each line is a target's, they are contiguous, and end at its end. */
void fuzz_check_text(const char *text, unsigned int num_targets, uint64_t size_sectors);

/* ---- a core whose memory is counted ---- */

/* What a core may have at once; beyond that there is no memory. */
#define FUZZ_HEAP_BYTES_MAX (16u << 20)

/*
 * Every core that is made in a fuzzer has its memory from here, a manual service, no threads and no
 * io_uring. Its time passes where a thread would sleep; one that would sleep for ever is told so.
 */
struct dmcore *fuzz_core(void);
/* Destroys a core, which must work and leave no memory behind. */
void fuzz_core_end(struct dmcore *core);
/* Sees that no core has left any memory behind. */
void fuzz_heap_check(void);
/*
 * A queue, and its core, that all inputs share: to make them takes longer than most inputs.
 * fuzz_kept_check() sees that an input has left the core as it was when it was new, or at the last
 * fuzz_kept_settle().
 */
struct dmcore_queue *fuzz_kept_queue(void);
void fuzz_kept_settle(void);
void fuzz_kept_check(void);

/* ---- the sandbox ---- */

/*
 * Begins and ends an input: from here to there the files a, b, c and d are all that can be opened.
 * Each input finds them as every other one does: zeroes, a table's text, a part of a sector, and
 * nothing.
 */
void fuzz_enter(void);
void fuzz_leave(void);
/* How many bytes an input may write to files; then the disk is full. */
#define FUZZ_WRITE_BYTES_MAX (1u << 20)

#endif
