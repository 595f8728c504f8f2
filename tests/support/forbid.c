/* SPDX-License-Identifier: MIT */
/*
 * Runs a program where io_uring does not work, as in many containers and hardened systems:
 *
 *   forbid enosys PROGRAM ARGS...    io_uring system calls fail with ENOSYS (old kernel)
 *   forbid eperm PROGRAM ARGS...     they fail with EPERM (seccomp or sysctl says no)
 *   forbid memlock0 PROGRAM ARGS...  no memory may be locked
 *   forbid probe                     exits with 0 if a ring can be made here, else says why not
 *
 * Exits with 77 ("skip") when this system does not let it forbid, or the probe finds no io_uring.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define EXIT_SKIP 77

/* The same numbers on every architecture but alpha; C libraries of old know none of them. */
#ifndef __NR_io_uring_setup
#define __NR_io_uring_setup 425
#endif
#define NR_IO_URING_LAST (__NR_io_uring_setup + 2) /* setup, enter, register */

/* What io_uring_setup(2) takes; <linux/io_uring.h> may be older than this file. */
#define IO_URING_PARAMS_BYTES 120

static int skip(const char *what)
{
	fprintf(stderr, "forbid: %s: %s\n", what, strerror(errno));
	return EXIT_SKIP;
}

static int probe(void)
{
	uint64_t params[IO_URING_PARAMS_BYTES / sizeof(uint64_t)] = { 0 };
	long fd = syscall(__NR_io_uring_setup, 1, params);

	if (fd < 0)
		return skip("io_uring_setup");
	close((int)fd);
	return EXIT_SUCCESS;
}

/* A filter this short needs no libseccomp. */
static bool fail_io_uring_with(unsigned int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, __NR_io_uring_setup, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, NR_IO_URING_LAST, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* CAP_IPC_LOCK lifts the limit: out of the bounding set, exec takes it from root too. */
static bool forbid_locked_memory(void)
{
	struct rlimit none = { 0, 0 };
	bool may_lock = prctl(PR_CAPBSET_READ, CAP_IPC_LOCK, 0, 0, 0) == 1;

	if (may_lock && geteuid() == 0 && prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) != 0)
		return false;
	return setrlimit(RLIMIT_MEMLOCK, &none) == 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	bool done;

	if (argc == 2 && strcmp(mode, "probe") == 0)
		return probe();
	if (argc < 3) {
		fprintf(stderr, "usage: forbid enosys|eperm|memlock0 PROGRAM [ARGS]\n"
				"       forbid probe\n");
		return EXIT_FAILURE;
	}
	if (strcmp(mode, "enosys") == 0) {
		done = fail_io_uring_with(ENOSYS);
	} else if (strcmp(mode, "eperm") == 0) {
		done = fail_io_uring_with(EPERM);
	} else if (strcmp(mode, "memlock0") == 0) {
		done = forbid_locked_memory();
	} else {
		fprintf(stderr, "forbid: unknown mode '%s'\n", mode);
		return EXIT_FAILURE;
	}
	if (!done)
		return skip(mode);
	execvp(argv[2], argv + 2);
	fprintf(stderr, "forbid: %s: %s\n", argv[2], strerror(errno));
	return EXIT_FAILURE;
}
