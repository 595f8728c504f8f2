/* SPDX-License-Identifier: MIT */
/* Files for mirrors, which nobody but this process can find. See mirror.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mirror.h"

#define CHUNK_BYTES (1u << 20)
#define LOG_BYTES (1u << 20)

static int make_file(const struct mirror_files *files, int *fd)
{
	char path[4096];

	snprintf(path, sizeof(path), "%.4000s/dmcore-bench.XXXXXX", files->bench->options.dir);
	*fd = mkostemp(path, O_CLOEXEC);
	if (*fd < 0)
		return bench_fail(files->bench, -errno, "%s", path);
	unlink(path);
	return 0;
}

static int write_chunk(const struct mirror_files *files, char *chunk, uint64_t at)
{
	for (uint64_t i = 0; i < CHUNK_BYTES; i += BENCH_BLOCK_BYTES) {
		uint64_t word = bench_mix(at + i + 1);

		memcpy(chunk + i, &word, sizeof(word));
	}
	for (unsigned int leg = 0; leg < MIRROR_LEGS; leg++) {
		errno = 0;
		if (pwrite(files->fds[leg], chunk, CHUNK_BYTES, (off_t)at) != CHUNK_BYTES)
			return errno ? -errno : -ENOSPC;
	}
	return 0;
}

static int fill(const struct mirror_files *files)
{
	char *chunk = malloc(CHUNK_BYTES);
	int ret = 0;

	if (!chunk)
		return bench_fail(files->bench, -ENOMEM, "memory");
	memset(chunk, 0x5a, CHUNK_BYTES);
	for (uint64_t at = 0; at < files->bytes && ret == 0; at += CHUNK_BYTES)
		ret = write_chunk(files, chunk, at);
	free(chunk);
	/* Write-back would go on beside the runs. */
	for (unsigned int leg = 0; leg < MIRROR_LEGS && ret == 0; leg++)
		ret = fdatasync(files->fds[leg]) < 0 ? -errno : 0;
	return ret ? bench_fail(files->bench, ret, "writing the legs") : 0;
}

int mirror_files_open(struct mirror_files *files, struct bench *bench, uint64_t bytes)
{
	int ret = 0;

	*files = (struct mirror_files){ bench, bytes, { -1, -1 }, { -1, -1 }, -1 };
	for (unsigned int leg = 0; leg < MIRROR_LEGS && ret == 0; leg++) {
		char path[40];

		ret = make_file(files, &files->fds[leg]);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", files->fds[leg]);
		if (ret == 0)
			files->direct_fds[leg] = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
	}
	if (ret == 0)
		ret = make_file(files, &files->log_fd);
	if (ret == 0 && ftruncate(files->log_fd, LOG_BYTES) < 0)
		ret = bench_fail(bench, -errno, "the log");
	return ret ? ret : fill(files);
}

void mirror_files_close(struct mirror_files *files)
{
	const int fds[] = { files->fds[0], files->fds[1], files->direct_fds[0],
			    files->direct_fds[1], files->log_fd };

	for (unsigned int i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

int mirror_files_compare(const struct mirror_files *files)
{
	char *chunks = malloc((size_t)MIRROR_LEGS * CHUNK_BYTES);
	int ret = chunks ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < files->bytes && ret == 0; at += CHUNK_BYTES) {
		for (unsigned int leg = 0; leg < MIRROR_LEGS && ret == 0; leg++) {
			if (pread(files->fds[leg], chunks + (size_t)leg * CHUNK_BYTES, CHUNK_BYTES,
				  (off_t)at) != CHUNK_BYTES)
				ret = -EIO;
		}
		if (ret == 0 && memcmp(chunks, chunks + CHUNK_BYTES, CHUNK_BYTES))
			ret = -EILSEQ;
	}
	free(chunks);
	return ret;
}
