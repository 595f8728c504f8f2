/* SPDX-License-Identifier: MIT */
/*
 * Carries out the files of a corpus, in place of libFuzzer. Prints to descriptors, for fuzzers
 * may have set streams aside.
 *
 *	tests/fuzz/table DIRECTORY   each file of it; says how to repeat the one that fails
 *	tests/fuzz/table FILE        in this process, for debuggers
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz.h"

#define INPUT_BYTES_MAX (1u << 20)

#pragma weak LLVMFuzzerInitialize

/* The file under way: what a child leaves that dies. */
struct progress {
	unsigned int num_files;
	char path[4096];
};

static int replay_file(const char *path)
{
	uint8_t *data = malloc(INPUT_BYTES_MAX);
	/* fopen() is the sandbox's. */
	int fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	uint8_t *exact;
	size_t size;

	if (!data || !file) {
		dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
		free(data);
		return 1;
	}
	size = fread(data, 1, INPUT_BYTES_MAX, file);
	fclose(file);
	/* No longer than it is, so that the address sanitizer sees what reads behind it. */
	exact = malloc(size ? size : 1);
	if (exact) {
		memcpy(exact, data, size);
		LLVMFuzzerTestOneInput(exact, size);
	}
	free(exact);
	free(data);
	return exact ? 0 : 1;
}

static int is_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* In the order of their names. */
static int replay_directory(const char *directory, struct progress *progress)
{
	struct dirent **entries;
	int count = scandir(directory, &entries, is_file, alphasort);
	int failed = count < 0;

	for (int i = 0; i < count; i++) {
		snprintf(progress->path, sizeof(progress->path), "%s/%s", directory,
			 entries[i]->d_name);
		failed |= replay_file(progress->path);
		progress->num_files++;
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	progress->path[0] = '\0';
	return failed;
}

static int supervise(const char *program, const char *directory)
{
	struct progress *progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t child;

	if (progress == MAP_FAILED)
		return 1;
	child = fork();
	if (child == 0)
		exit(replay_directory(directory, progress));
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 1;
	if (status == 0 && progress->num_files > 0) {
		dprintf(STDOUT_FILENO, "%u files\n", progress->num_files);
		return 0;
	}
	if (progress->path[0])
		dprintf(STDERR_FILENO, "again: %s %s\n", program, progress->path);
	else
		dprintf(STDERR_FILENO, "%s: status %d after %u files\n", directory, status,
			progress->num_files);
	return 1;
}

int main(int argc, char **argv)
{
	struct stat st;

	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	if (argc != 2 || stat(argv[1], &st) < 0) {
		dprintf(STDERR_FILENO, "usage: %s FILE|DIRECTORY\n", argv[0]);
		return 2;
	}
	return S_ISDIR(st.st_mode) ? supervise(argv[0], argv[1]) : replay_file(argv[1]);
}
