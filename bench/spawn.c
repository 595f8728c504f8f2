/* SPDX-License-Identifier: MIT */
/* Programs of others that a case runs. See spawn.h. */
#define _GNU_SOURCE 1
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_BYTES 1024u

extern char **environ;

int spawn(const char *const *args, char *output, size_t bytes)
{
	posix_spawn_file_actions_t actions;
	int status = 0;
	size_t used = 0;
	ssize_t got;
	int fds[2];
	pid_t pid;
	int ret;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
	ret = posix_spawnp(&pid, args[0], &actions, NULL, (char *const *)args, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	while (ret == 0 && used < bytes - 1 &&
	       (got = read(fds[0], output + used, bytes - 1 - used)) > 0)
		used += (size_t)got;
	output[used] = '\0';
	close(fds[0]);
	if (ret)
		return -ret;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

int spawn_qemu_bench(const char *const *args, uint64_t *elapsed_ns)
{
	static const char marker[] = "completed in ";
	char output[OUTPUT_BYTES];
	int ret = spawn(args, output, sizeof(output));
	const char *at = strstr(output, marker);

	if (ret || !at)
		return ret ? ret : -EPROTO;
	*elapsed_ns = (uint64_t)(strtod(at + strlen(marker), NULL) * 1e9);
	/* It counts milliseconds. */
	if (*elapsed_ns == 0)
		*elapsed_ns = 1;
	return 0;
}
