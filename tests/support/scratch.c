/* SPDX-License-Identifier: MIT */
/* Nameless files for tests; see scratch.h. */
#include "scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <criterion/criterion.h>

const char *scratch_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && dir[0] ? dir : "/tmp";
}

void scratch_create(struct scratch *scratch, const char *dir, uint64_t size_bytes)
{
	char name[256];

	snprintf(name, sizeof(name), "%s/dmcore-XXXXXX", dir ? dir : scratch_dir());
	scratch->fd = mkostemp(name, O_CLOEXEC);
	cr_assert(scratch->fd >= 0, "a file in %s", dir ? dir : scratch_dir());
	unlink(name);
	cr_assert_eq(ftruncate(scratch->fd, (off_t)size_bytes), 0);
	snprintf(scratch->path, sizeof(scratch->path), "/proc/self/fd/%d", scratch->fd);
}

void scratch_close(struct scratch *scratch)
{
	close(scratch->fd);
	scratch->fd = -1;
}
