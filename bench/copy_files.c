/* SPDX-License-Identifier: MIT */
/*
 * The files of the copy case. They have names, for other programs to open; an interrupted run
 * leaves them behind in dmcore-bench-copy.* of --dir. See copy.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "copy.h"

#define LANES 4u

/* The next word of a generator that is fast enough to fill files. */
static uint64_t next_word(struct bench_random *random)
{
	bench_random_position(random, 1);
	return random->state;
}

/* Four sums side by side, for the memory to be what one waits for. */
struct sum {
	uint64_t lanes[LANES];
};

static void add_to_sum(struct sum *sum, const unsigned char *data, size_t bytes)
{
	uint64_t words[LANES];

	for (size_t at = 0; at + sizeof(words) <= bytes; at += sizeof(words)) {
		memcpy(words, data + at, sizeof(words));
		for (unsigned int i = 0; i < LANES; i++) {
			uint64_t mixed = (sum->lanes[i] ^ words[i]) *
					 UINT64_C(0xff51afd7ed558ccd);

			sum->lanes[i] = mixed ^ mixed >> 32;
		}
	}
}

static uint64_t sum_up(const struct sum *sum)
{
	uint64_t hash = 0;

	for (unsigned int i = 0; i < LANES; i++)
		hash = bench_mix(hash ^ sum->lanes[i]);
	return hash;
}

/* Sizes are multiples of the buffer's. */
static int hash_file(const struct copy_files *files, const char *path, uint64_t *hash)
{
	struct sum sum = { { 1, 2, 3, 4 } };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t at = 0;
	ssize_t got = 0;
	int ret = 0;

	if (fd < 0)
		return -errno;
	while ((got = read(fd, files->buffer, COPY_BUFFER_BYTES)) == (ssize_t)COPY_BUFFER_BYTES) {
		add_to_sum(&sum, files->buffer, COPY_BUFFER_BYTES);
		at += COPY_BUFFER_BYTES;
	}
	if (got < 0)
		ret = -errno;
	else if (got > 0 || at != files->bytes)
		ret = -EILSEQ;
	close(fd);
	*hash = sum_up(&sum);
	return ret;
}

static int write_source(const struct copy_files *files, int fd, bool holes)
{
	struct bench_random random = bench_random_start(files->bench->options.seed);

	if (ftruncate(fd, (off_t)files->bytes) < 0)
		return -errno;
	for (uint64_t at = 0; at < files->bytes; at += COPY_BUFFER_BYTES) {
		if (holes && at / COPY_BUFFER_BYTES % 2)
			continue;
		for (size_t i = 0; i < COPY_BUFFER_BYTES; i += sizeof(uint64_t)) {
			uint64_t word = next_word(&random);

			memcpy(files->buffer + i, &word, sizeof(word));
		}
		errno = 0;
		if (pwrite(fd, files->buffer, COPY_BUFFER_BYTES, (off_t)at) !=
		    (ssize_t)COPY_BUFFER_BYTES)
			return errno ? -errno : -ENOSPC;
	}
	/* Write-back would go on beside the runs. */
	return fsync(fd) < 0 ? -errno : 0;
}

static int make_source(struct copy_files *files, bool holes)
{
	int fd = open(files->source, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0)
		return -errno;
	ret = write_source(files, fd, holes);
	close(fd);
	return ret ? ret : hash_file(files, files->source, &files->hash);
}

int copy_files_open(struct copy_files *files, struct bench *bench, uint64_t bytes, bool holes)
{
	void *buffer = NULL;
	int ret;

	memset(files, 0, sizeof(*files));
	files->bench = bench;
	files->bytes = bytes;
	files->dir_fd = -1;
	if (posix_memalign(&buffer, BENCH_BLOCK_BYTES, COPY_BUFFER_BYTES))
		return bench_fail(bench, -ENOMEM, "buffer");
	files->buffer = buffer;
	snprintf(files->dir, sizeof(files->dir), "%.4096s/dmcore-bench-copy.XXXXXX",
		 bench->options.dir);
	if (!mkdtemp(files->dir))
		return bench_fail(bench, -errno, "%s", files->dir);
	files->dir_fd = open(files->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (files->dir_fd < 0)
		return bench_fail(bench, -errno, "%s", files->dir);
	snprintf(files->source, sizeof(files->source), "%.4180s/source", files->dir);
	for (unsigned int i = 0; i < COPY_DESTS_MAX; i++)
		snprintf(files->dests[i], sizeof(files->dests[i]), "%.4180s/dest%u", files->dir, i);
	ret = make_source(files, holes);
	return ret ? bench_fail(bench, ret, "writing %s", files->source) : 0;
}

void copy_files_close(struct copy_files *files)
{
	if (files->dir_fd >= 0) {
		copy_files_remove(files);
		unlink(files->source);
		close(files->dir_fd);
		rmdir(files->dir);
	}
	free(files->buffer);
}

void copy_files_settle(const struct copy_files *files, unsigned int num_dests)
{
	uint64_t bytes = files->bytes * num_dests + files->bytes / 8;
	uint64_t free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char *memory;

	/* Only what is free: nothing is to be pushed out of the cache. */
	if (bytes > free_bytes / 4 * 3)
		bytes = free_bytes / 4 * 3;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return;
	madvise(memory, bytes, MADV_HUGEPAGE);
	for (uint64_t at = 0; at < bytes; at += BENCH_BLOCK_BYTES)
		memory[at] = 1;
	munmap(memory, bytes);
}

int copy_files_warm(const struct copy_files *files)
{
	int fd = open(files->source, O_RDONLY | O_CLOEXEC);
	ssize_t got;
	int ret;

	if (fd < 0)
		return -errno;
	do
		got = read(fd, files->buffer, COPY_BUFFER_BYTES);
	while (got > 0);
	ret = got < 0 ? -errno : 0;
	close(fd);
	return ret;
}

int copy_files_check(const struct copy_files *files, unsigned int num_dests)
{
	uint64_t hash;
	int ret = 0;

	for (unsigned int i = 0; i < num_dests && ret == 0; i++) {
		ret = hash_file(files, files->dests[i], &hash);
		if (ret == 0 && hash != files->hash)
			ret = -EILSEQ;
	}
	return ret;
}

int copy_files_remove(const struct copy_files *files)
{
	for (unsigned int i = 0; i < COPY_DESTS_MAX; i++) {
		if (unlink(files->dests[i]) < 0 && errno != ENOENT)
			return -errno;
	}
	/* Nothing is timed with small sizes. */
	if (!files->bench->options.smoke && syncfs(files->dir_fd) < 0)
		return -errno;
	return 0;
}
