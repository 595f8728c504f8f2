/* SPDX-License-Identifier: MIT */
/*
 * Fuzzer of dmcat: the first line of an input is its command line, with | between the words, and
 * the rest its standard input, such as a script:
 *
 *	-k|run|-
 *	create a 0 8 zero
 *	read a 0 8 d
 *
 * dmcat runs in the process, with the few files that the sandbox has. It ends with one of its exit
 * statuses and leaves nothing behind.
 */
#define main dmcat_main
int main(int argc, char **argv);
#include "../../examples/dmcat/main.c"
#undef main

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

#define WORDS_MAX 16

/* Holds what descriptor 0 reads. */
static void set_input(const uint8_t *data, size_t size)
{
	FUZZ_CHECK(ftruncate(STDIN_FILENO, 0) == 0, "%s", strerror(errno));
	FUZZ_CHECK(pwrite(STDIN_FILENO, data, size, 0) == (ssize_t)size, "%s", strerror(errno));
	FUZZ_CHECK(lseek(STDIN_FILENO, 0, SEEK_SET) == 0, "%s", strerror(errno));
	/* An empty one is no stream of fmemopen()'s. */
	stdin = fmemopen((void *)(size ? data : (const uint8_t *)"\n"), size ? size : 1, "r");
	FUZZ_CHECK(stdin, "%s", strerror(errno));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int null = openat(AT_FDCWD, "/dev/null", O_WRONLY | O_CLOEXEC);
	int input = memfd_create("stdin", MFD_CLOEXEC);

	(void)argc;
	(void)argv;
	FUZZ_CHECK(null >= 0 && input >= 0, "%s", strerror(errno));
	FUZZ_CHECK(dup2(input, STDIN_FILENO) == STDIN_FILENO, "%s", strerror(errno));
	close(input);
	/* Messages of sanitizers and of libFuzzer go to the descriptor, not to the stream. */
	stdout = fdopen(null, "w");
	stderr = stdout;
	FUZZ_CHECK(stdout, "%s", strerror(errno));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_bytes bytes = { data, size };
	char line[FUZZ_BYTES_MAX];
	char *argv[WORDS_MAX + 2] = { (char *)"dmcat" };
	size_t used;
	int argc = 1;
	int status;

	fuzz_text(&bytes, line, sizeof(line));
	line[strcspn(line, "\n")] = '\0';
	used = strlen(line);
	used += used < size;
	for (char *rest = line; rest && argc <= WORDS_MAX; argc++)
		argv[argc] = strsep(&rest, "|");
	argv[argc] = NULL;
	set_input(data + used, size - used);
	fuzz_enter();
	/* From the beginning. */
	optind = 0;
	status = dmcat_main(argc, argv);
	fuzz_leave();
	fclose(stdin);
	FUZZ_CHECK(status >= EXIT_DONE && status <= EXIT_BAD_USAGE, "status %d", status);
	fuzz_heap_check();
	return 0;
}
