/* SPDX-License-Identifier: MIT */
/* The files of the case `snapshot`. See snapshot.h. */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot.h"

#define FULL_BYTES (UINT64_C(256) << 20)
#define SMOKE_BYTES (UINT64_C(2) << 20)
#define PIECE_BYTES (1u << 20)

void snap_path(const struct snap_files *files, const char *name, uint32_t chunk_sectors,
	       char path[SNAP_PATH_BYTES])
{
	int length = snprintf(path, SNAP_PATH_BYTES, "%s/%.16s", files->folder, name);

	if (chunk_sectors)
		snprintf(path + length, SNAP_PATH_BYTES - (size_t)length, "-%u", chunk_sectors);
}

int snap_make_file(const struct snap_files *files, const char *path, uint64_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int ret = fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return ret ? bench_fail(files->bench, ret, "%s", path) : 0;
}

void snap_settle(const struct snap_files *files)
{
	int fd;

	if (files->bench->options.smoke)
		return;
	fd = open(files->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	syncfs(fd);
	close(fd);
}

static int fill_origin(const struct snap_files *files)
{
	char *piece = malloc(PIECE_BYTES);
	char path[SNAP_PATH_BYTES];
	int ret = 0;
	int fd;

	snap_path(files, "origin", 0, path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || !piece)
		ret = fd < 0 ? -errno : -ENOMEM;
	for (uint64_t at = 0; at < files->bytes && ret == 0; at += PIECE_BYTES) {
		memset(piece, (int)(1 + (at >> 20) % 255), PIECE_BYTES);
		if (pwrite(fd, piece, PIECE_BYTES, (off_t)at) != (ssize_t)PIECE_BYTES)
			ret = errno ? -errno : -ENOSPC;
	}
	free(piece);
	if (fd >= 0)
		close(fd);
	return ret ? bench_fail(files->bench, ret, "%s", path) : 0;
}

int snap_files_open(struct snap_files *files, struct bench *bench)
{
	char folder[PATH_MAX];

	memset(files, 0, sizeof(*files));
	files->bench = bench;
	files->bytes = bench_size(bench, FULL_BYTES, SMOKE_BYTES);
	/* qcow2 names its backing file as seen from itself. */
	if (!realpath(bench->options.dir, folder))
		return bench_fail(bench, -errno, "%s", bench->options.dir);
	snprintf(files->folder, sizeof(files->folder), "%.400s/dmcore-bench-snapshot.XXXXXX",
		 folder);
	if (!mkdtemp(files->folder)) {
		int ret = bench_fail(bench, -errno, "%s", files->folder);

		files->folder[0] = '\0';
		return ret;
	}
	return fill_origin(files);
}

void snap_files_close(struct snap_files *files)
{
	DIR *folder = files->folder[0] ? opendir(files->folder) : NULL;
	struct dirent *entry;

	if (!folder)
		return;
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(folder), entry->d_name, 0);
	}
	closedir(folder);
	rmdir(files->folder);
}
