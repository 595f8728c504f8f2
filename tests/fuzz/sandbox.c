/* SPDX-License-Identifier: MIT */
/*
 * Keeps fuzzers from the machine's files: an input could name a disk. The linker sends the calls of
 * the library and of dmcat here (--wrap, see local.mk); those of the C library and of libFuzzer
 * itself aren't touched. The files a, b, c and d are memory. No thread can be started.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NUM_FILES 4
#define PATH_BYTES 32
/* Longest copy. */
#define COPY_SECTORS_MAX 16384u

int __real_open(const char *path, int flags, ...);
FILE *__real_fopen(const char *path, const char *mode);
int __real_stat(const char *path, struct stat *st);
int __real_access(const char *path, int mode);
ssize_t __real_write(int fd, const void *buffer, size_t bytes);

int __wrap_open(const char *path, int flags, ...);
FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_stat(const char *path, struct stat *st);
int __wrap_access(const char *path, int mode);
ssize_t __wrap_write(int fd, const void *buffer, size_t bytes);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_kcopyd_submit(struct kcopyd_client *kc, struct kcopyd_job *job);

int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_kcopyd_submit(struct kcopyd_client *kc, struct kcopyd_job *job);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *context);

struct memory_file {
	int fd;
	struct stat st;
	bool is_used; /* since it was filled */
};

static struct memory_file files[NUM_FILES];
static bool has_files;
static bool is_inside;
static size_t write_bytes_left;

/* ---- files ---------------------------------------------------------------------------------- */

static void fill(struct memory_file *file, off_t bytes)
{
	static const char text[] = "0 8 zero\n8 8 error\n";

	file->is_used = false;
	FUZZ_CHECK(ftruncate(file->fd, 0) == 0, "%s", strerror(errno));
	FUZZ_CHECK(ftruncate(file->fd, bytes) == 0, "%s", strerror(errno));
	if (file == &files[1])
		FUZZ_CHECK(pwrite(file->fd, text, sizeof(text), 0) > 0, "%s", strerror(errno));
}

void fuzz_enter(void)
{
	static const off_t sizes[NUM_FILES] = { 64 << 10, 8 << 10, 1000, 0 };

	for (unsigned int i = 0; i < NUM_FILES; i++) {
		if (!has_files) {
			files[i].fd = memfd_create("fuzz", MFD_CLOEXEC);
			FUZZ_CHECK(files[i].fd >= 0, "%s", strerror(errno));
			FUZZ_CHECK(fstat(files[i].fd, &files[i].st) == 0, "%s", strerror(errno));
			files[i].is_used = true;
		}
		if (files[i].is_used)
			fill(&files[i], sizes[i]);
	}
	has_files = true;
	write_bytes_left = FUZZ_WRITE_BYTES_MAX;
	is_inside = true;
}

void fuzz_leave(void)
{
	is_inside = false;
}

/* The place of one of the files; NULL: there is no such file. */
static const char *find(const char *path, char *place)
{
	unsigned int index = (unsigned int)(path[0] - 'a');
	struct stat st;

	if (!path[0] || path[1])
		index = NUM_FILES;
	/* The file driver opens anew what it has open. */
	if (strncmp(path, "/proc/self/fd/", 14) == 0 && __real_stat(path, &st) == 0) {
		for (index = 0; index < NUM_FILES; index++) {
			if (files[index].st.st_ino == st.st_ino &&
			    files[index].st.st_dev == st.st_dev)
				break;
		}
	}
	if (index >= NUM_FILES)
		return NULL;
	files[index].is_used = true;
	snprintf(place, PATH_BYTES, "/proc/self/fd/%d", files[index].fd);
	return place;
}

/* ---- in place of the C library's ------------------------------------------------------------ */

int __wrap_open(const char *path, int flags, ...)
{
	char place[PATH_BYTES];
	const char *found;

	FUZZ_CHECK(is_inside, "%s is opened between two inputs", path);
	found = find(path, place);
	if (found)
		return __real_open(found, flags & ~(O_CREAT | O_EXCL));
	errno = ENOENT;
	return -1;
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
	int fd;

	/* libFuzzer keeps what fails before the input has ended. */
	if (!is_inside || strcmp(mode, "re") != 0)
		return __real_fopen(path, mode);
	fd = __wrap_open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? NULL : fdopen(fd, mode);
}

int __wrap_stat(const char *path, struct stat *st)
{
	char place[PATH_BYTES];
	const char *found;

	if (!is_inside)
		return __real_stat(path, st);
	found = find(path, place);
	if (found)
		return __real_stat(found, st);
	errno = ENOENT;
	return -1;
}

int __wrap_access(const char *path, int mode)
{
	if (!is_inside)
		return __real_access(path, mode);
	errno = ENOENT;
	return -1;
}

/* What goes to standard output is counted and gone. */
ssize_t __wrap_write(int fd, const void *buffer, size_t bytes)
{
	/* A queue's own eventfd, or a fuzzer's last words. */
	if (!is_inside || fd == STDERR_FILENO || bytes <= sizeof(uint64_t))
		return __real_write(fd, buffer, bytes);
	if (write_bytes_left == 0) {
		errno = ENOSPC;
		return -1;
	}
	if (bytes > write_bytes_left)
		bytes = write_bytes_left;
	write_bytes_left -= bytes;
	return fd == STDOUT_FILENO ? (ssize_t)bytes : __real_write(fd, buffer, bytes);
}

/* The files stay what they are. */
int __wrap_rename(const char *from, const char *to)
{
	if (!is_inside)
		return __real_rename(from, to);
	errno = EROFS;
	return -1;
}

int __wrap_unlink(const char *path)
{
	if (!is_inside)
		return __real_unlink(path);
	errno = EROFS;
	return -1;
}

/* A device may be as large as it likes, but not what is copied of it. */
int __wrap_kcopyd_submit(struct kcopyd_client *kc, struct kcopyd_job *job)
{
	if (job->from.count > COPY_SECTORS_MAX)
		return -EINVAL;
	return __real_kcopyd_submit(kc, job);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*start)(void *), void *context)
{
	(void)thread;
	(void)attributes;
	(void)start;
	(void)context;
	return EAGAIN;
}
