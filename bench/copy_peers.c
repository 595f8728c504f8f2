/* SPDX-License-Identifier: MIT */
/* Programs that copy files, and the loop that one writes first. See copy.h. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "copy.h"

#define LOOP_BYTES (256u << 10)

extern char **environ;

const struct copy_peer copy_peers[COPY_PEERS] = {
	{ "cp",
	  { { "cp", "--reflink=never", "<", ">" },
	    { NULL },
	    { "cp", "--reflink=never", "--sparse=always", "<", ">" },
	    { "cp", "--reflink=auto", "<", ">" } } },
	{ "dd",
	  { { "dd", "bs=1M", "status=none", "if=<", "of=>" },
	    { "dd", "bs=1M", "status=none", "iflag=direct", "oflag=direct", "if=<", "of=>" },
	    { "dd", "bs=1M", "status=none", "conv=sparse", "if=<", "of=>" },
	    { NULL } } },
	{ "qemu-img",
	  { { "qemu-img", "convert", "-f", "raw", "-O", "raw", "<", ">" },
	    { "qemu-img", "convert", "-f", "raw", "-O", "raw", "-T", "none", "-t", "none", "<",
	      ">" },
	    { "qemu-img", "convert", "-f", "raw", "-O", "raw", "-S", "4k", "<", ">" },
	    { NULL } } },
	{ "nbdcopy",
	  { { "nbdcopy", "<", ">" }, { NULL }, { "nbdcopy", "<", ">" }, { NULL } } },
};

bool copy_peer_found(const char *name)
{
	const char *path = getenv("PATH");
	char program[COPY_PATH_BYTES];
	struct stat info;

	while (path && *path) {
		int length = (int)strcspn(path, ":");

		snprintf(program, sizeof(program), "%.*s/%s", length, path, name);
		if (stat(program, &info) == 0 && S_ISREG(info.st_mode) &&
		    access(program, X_OK) == 0)
			return true;
		path += length + (path[length] == ':');
	}
	return false;
}

/* One argument of a peer, with what stands for a path replaced by it. */
static void fill_in(char *arg, size_t bytes, const char *pattern, const char *source,
		    const char *dest)
{
	size_t length = strlen(pattern);
	const char *path = "";

	if (length > 0 && pattern[length - 1] == '<')
		path = source;
	else if (length > 0 && pattern[length - 1] == '>')
		path = dest;
	snprintf(arg, bytes, "%.*s%s", (int)(length - (*path != '\0')), pattern, path);
}

int copy_peer_run(const char *const *args, const char *source, const char *dest)
{
	char texts[COPY_ARGS_MAX][COPY_PATH_BYTES];
	char *argv[COPY_ARGS_MAX + 1];
	unsigned int num = 0;
	int status = 0;
	pid_t pid;
	int ret;

	for (; num < COPY_ARGS_MAX && args[num]; num++) {
		fill_in(texts[num], sizeof(texts[num]), args[num], source, dest);
		argv[num] = texts[num];
	}
	argv[num] = NULL;
	ret = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (ret)
		return -ret;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

static int loop(int from, int to, char *buffer)
{
	off_t at = 0;

	for (;;) {
		ssize_t got = pread(from, buffer, LOOP_BYTES, at);

		if (got <= 0)
			return got < 0 ? -errno : 0;
		errno = 0;
		if (pwrite(to, buffer, (size_t)got, at) != got)
			return errno ? -errno : -ENOSPC;
		at += got;
	}
}

int copy_loop(const char *source, const char *dest, bool direct)
{
	int flags = O_CLOEXEC | (direct ? O_DIRECT : 0);
	int from = open(source, O_RDONLY | flags);
	int to = open(dest, O_WRONLY | O_CREAT | O_EXCL | flags, 0600);
	void *buffer = NULL;
	int ret = 0;

	if (from < 0 || to < 0)
		ret = -errno;
	else if (posix_memalign(&buffer, BENCH_BLOCK_BYTES, LOOP_BYTES))
		ret = -ENOMEM;
	else
		ret = loop(from, to, buffer);
	free(buffer);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return ret;
}
