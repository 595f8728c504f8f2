/* SPDX-License-Identifier: MIT */
/* Files and pipes: whole reads, whole writes, lines. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int files_guard_standard(void)
{
	/* Opened the wrong way round: whoever uses them gets EBADF, as if they were closed. */
	static const int modes[] = { O_WRONLY, O_RDONLY, O_RDONLY };

	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		if (open("/dev/null", modes[fd]) != fd)
			return -EBADF;
	}
	return 0;
}

int files_open_input(const char *path, struct file *file)
{
	file->fd = STDIN_FILENO;
	file->name = "standard input";
	if (strcmp(path, "-") == 0)
		return 0;
	file->name = path;
	file->fd = open(path, O_RDONLY | O_CLOEXEC);
	return file->fd < 0 ? -errno : 0;
}

int files_open_output(const char *path, struct file *file)
{
	file->fd = STDOUT_FILENO;
	file->name = "standard output";
	if (strcmp(path, "-") == 0)
		return 0;
	file->name = path;
	file->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return file->fd < 0 ? -errno : 0;
}

int files_close(struct file *file)
{
	int fd = file->fd;

	file->fd = -1;
	if (fd <= STDERR_FILENO)
		return 0;
	return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

/* True if a system call is to be tried again, after a wait if the file isn't ready. */
static bool try_again(int fd, short events)
{
	struct pollfd ready = { .fd = fd, .events = events };

	if (errno == EINTR)
		return true;
	if (errno != EAGAIN)
		return false;
	return poll(&ready, 1, -1) >= 0 || errno == EINTR;
}

int64_t files_read(const struct file *file, void *buffer, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t got = read(file->fd, (char *)buffer + done, bytes - done);

		if (got == 0)
			break;
		if (got > 0)
			done += (size_t)got;
		else if (!try_again(file->fd, POLLIN))
			return -errno;
	}
	return (int64_t)done;
}

int files_write(const struct file *file, const void *buffer, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t put = write(file->fd, (const char *)buffer + done, bytes - done);

		if (put > 0)
			done += (size_t)put;
		else if (put == 0)
			return -ENOSPC;
		else if (!try_again(file->fd, POLLOUT))
			return -errno;
	}
	return 0;
}

int64_t files_left(const struct file *file)
{
	struct stat st;
	off_t at;

	/* The size of a device node isn't in st_size, and a pipe has none. */
	if (fstat(file->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -ESPIPE;
	at = lseek(file->fd, 0, SEEK_CUR);
	if (at < 0)
		return -ESPIPE;
	return at < st.st_size ? st.st_size - at : 0;
}

int files_skip(const struct file *file, uint64_t bytes)
{
	char buffer[16384];
	int64_t left = files_left(file);

	if (left >= 0) {
		if ((uint64_t)left < bytes)
			return -ENODATA;
		return lseek(file->fd, (off_t)bytes, SEEK_CUR) < 0 ? -errno : 0;
	}
	while (bytes > 0) {
		size_t piece = bytes < sizeof(buffer) ? (size_t)bytes : sizeof(buffer);
		int64_t got = files_read(file, buffer, piece);

		if (got < 0)
			return (int)got;
		if ((size_t)got < piece)
			return -ENODATA;
		bytes -= piece;
	}
	return 0;
}

/* As much of a file as there is, up to max_bytes. A NUL follows in *text. */
static int64_t read_up_to(const struct file *file, size_t max_bytes, char **text)
{
	size_t room_bytes = 0;
	size_t used_bytes = 0;

	*text = NULL;
	do {
		char *grown;
		int64_t got;

		room_bytes = room_bytes ? room_bytes * 2 : 4096;
		if (room_bytes > max_bytes)
			room_bytes = max_bytes;
		grown = realloc(*text, room_bytes + 1);
		if (!grown)
			return -ENOMEM;
		*text = grown;
		got = files_read(file, grown + used_bytes, room_bytes - used_bytes);
		if (got < 0)
			return got;
		used_bytes += (size_t)got;
	} while (used_bytes == room_bytes && room_bytes < max_bytes);
	(*text)[used_bytes] = '\0';
	return (int64_t)used_bytes;
}

int files_read_text(const char *path, size_t max_bytes, char **text)
{
	struct file file;
	int64_t length;
	int ret = files_open_input(path, &file);

	*text = NULL;
	if (ret)
		return ret;
	length = read_up_to(&file, max_bytes + 1, text);
	files_close(&file);
	ret = 0;
	if (length < 0)
		ret = (int)length;
	else if ((uint64_t)length > max_bytes)
		ret = -E2BIG;
	else if (strlen(*text) != (size_t)length)
		ret = -EILSEQ;
	if (ret) {
		free(*text);
		*text = NULL;
	}
	return ret;
}

static int grow_line(struct line_reader *reader)
{
	size_t room_bytes = reader->room_bytes ? reader->room_bytes * 2 : 256;
	char *grown;

	if (room_bytes > FILES_LINE_BYTES_MAX)
		return -E2BIG;
	grown = realloc(reader->text, room_bytes);
	if (!grown)
		return -ENOMEM;
	reader->text = grown;
	reader->room_bytes = room_bytes;
	return 0;
}

int files_read_line(struct line_reader *reader)
{
	size_t length = 0;
	bool has_nul = false;
	int c;

	errno = 0;
	for (;;) {
		c = getc_unlocked(reader->stream);
		if (length + 1 >= reader->room_bytes) {
			int ret = grow_line(reader);

			if (ret)
				return ret;
		}
		if (c == EOF || c == '\n')
			break;
		if (c == '\0')
			has_nul = true;
		reader->text[length++] = (char)c;
	}
	if (c == EOF && ferror(reader->stream))
		return errno ? -errno : -EIO;
	if (c == EOF && length == 0)
		return 0;
	reader->text[length] = '\0';
	reader->number++;
	return has_nul ? -EILSEQ : 1;
}
