/* SPDX-License-Identifier: MIT */
/*
 * libdmcore-dmsetup.so: preloaded, it has dmsetup and other programs of libdevmapper control the
 * mapped devices of a server instead of the kernel's. dmcore-dmsetup(1) is the manual.
 *
 * What libdevmapper asks the kernel for is answered here: the control node is a connection to the
 * server, ioctls on it are requests (protocol.h), the numbers in /proc are made up, and nodes of
 * mapped devices are not made, for there is no block device behind them.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol.h"

#define EXPORT __attribute__((visibility("default")))

/* The number of the control node, as the kernel has it. */
#define CONTROL_NODE_MAJOR 10u
#define CONTROL_NODE_MINOR 236u

static const char control_name[] = "/mapper/control";

/* The C library's own function of that name. */
static void *next(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);

	if (!function) {
		fprintf(stderr, "libdmcore-dmsetup: there is no %s() to go on with\n", name);
		_exit(EXIT_FAILURE);
	}
	return function;
}

static bool is_control(const char *path)
{
	size_t length = strlen(path);
	size_t end = sizeof(control_name) - 1;

	return length >= end && strcmp(path + length - end, control_name) == 0;
}

/* ---- the connection ---- */

static int connect_to_server(int flags)
{
	const char *path = getenv(CONTROL_VARIABLE);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (!path || strlen(path) >= sizeof(address.sun_path)) {
		fprintf(stderr, "libdmcore-dmsetup: " CONTROL_VARIABLE
				" must be the path of a server's socket, see dmcore-dmsetup(1)\n");
		errno = ENODEV;
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | (flags & O_CLOEXEC ? SOCK_CLOEXEC : 0), 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = errno;

		fprintf(stderr, "libdmcore-dmsetup: %s: %s\n", path, strerror(error));
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static bool send_all(int fd, struct iovec *parts, int count)
{
	while (count > 0) {
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = (size_t)count };
		ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		while (count > 0 && (size_t)sent >= parts->iov_len) {
			sent -= (ssize_t)parts->iov_len;
			parts++;
			count--;
		}
		if (count > 0) {
			parts->iov_base = (char *)parts->iov_base + sent;
			parts->iov_len -= (size_t)sent;
		}
	}
	return true;
}

static bool receive_all(int fd, void *memory, size_t bytes)
{
	while (bytes > 0) {
		ssize_t got = recv(fd, memory, bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		memory = (char *)memory + got;
		bytes -= (size_t)got;
	}
	return true;
}

/* What the kernel would log is told beside what the program makes of the error number. */
static bool receive_message(int fd, uint32_t bytes)
{
	char text[CONTROL_MESSAGE_BYTES_MAX + 1];

	if (bytes > CONTROL_MESSAGE_BYTES_MAX || !receive_all(fd, text, bytes))
		return false;
	text[bytes] = '\0';
	if (bytes > 0)
		fprintf(stderr, "dmcore: %s\n", text);
	return true;
}

static int lost_server(void)
{
	fprintf(stderr, "libdmcore-dmsetup: the server has gone\n");
	errno = ENODEV;
	return -1;
}

static int ask(int fd, unsigned int command, struct dm_ioctl *buffer)
{
	char folder[CONTROL_FOLDER_BYTES_MAX];
	struct control_request request = { .magic = CONTROL_MAGIC, .command = command };
	struct control_reply reply;
	struct iovec parts[3];

	request.data_bytes = buffer->data_size;
	if (request.data_bytes > CONTROL_DATA_BYTES_MAX) {
		errno = ENOMEM;
		return -1;
	}
	if (!getcwd(folder, sizeof(folder)))
		folder[0] = '\0';
	request.folder_bytes = (uint32_t)strlen(folder);
	parts[0] = (struct iovec){ &request, sizeof(request) };
	parts[1] = (struct iovec){ folder, request.folder_bytes };
	parts[2] = (struct iovec){ buffer, request.data_bytes };
	if (!send_all(fd, parts, 3) || !receive_all(fd, &reply, sizeof(reply)) ||
	    reply.magic != CONTROL_MAGIC || reply.data_bytes > request.data_bytes ||
	    !receive_all(fd, buffer, reply.data_bytes) ||
	    !receive_message(fd, reply.message_bytes))
		return lost_server();
	if (reply.error == 0)
		return 0;
	errno = reply.error;
	return -1;
}

/* ---- what the C library has under these names ---- */

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	struct stat st;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (_IOC_TYPE(request) == DM_IOCTL && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
		return ask(fd, _IOC_NR(request), argument);
	return ((int (*)(int, unsigned long, ...))next("ioctl"))(fd, request, argument);
}

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

/* What sysfs would say of a mapped device, if the kernel knew of it. */
static bool is_read_ahead(const char *path)
{
	char prefix[64];
	int length = snprintf(prefix, sizeof(prefix), "/sys/dev/block/%u:", CONTROL_MAJOR);

	return strncmp(path, prefix, (size_t)length) == 0 && strstr(path, "/bdi/read_ahead_kb");
}

/* None: nothing reads ahead. A new value goes nowhere. */
static int open_read_ahead(void)
{
	int fd = memfd_create("read_ahead_kb", MFD_CLOEXEC);

	if (fd >= 0 && pwrite(fd, "0\n", 2, 0) != 2) {
		close(fd);
		fd = -1;
	}
	return fd;
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	if (is_control(path))
		return connect_to_server(flags);
	return ((int (*)(const char *, int, ...))next("open"))(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	if (is_control(path))
		return connect_to_server(flags);
	if (is_read_ahead(path))
		return open_read_ahead();
	return ((int (*)(const char *, int, ...))next("open64"))(path, flags, mode);
}

/* A file of /proc with a line more. */
static FILE *with_line(FILE *file, const char *line)
{
	FILE *longer = file ? tmpfile() : NULL;
	char text[256];

	if (!longer)
		return file;
	while (fgets(text, sizeof(text), file)) {
		if (!strstr(text, "device-mapper"))
			fputs(text, longer);
	}
	fputs(line, longer);
	rewind(longer);
	fclose(file);
	return longer;
}

static FILE *with_numbers(const char *path, FILE *file)
{
	char line[64];

	if (strcmp(path, "/proc/devices") == 0) {
		snprintf(line, sizeof(line), "%3u device-mapper\n", CONTROL_MAJOR);
		return with_line(file, line);
	}
	if (strcmp(path, "/proc/misc") == 0) {
		snprintf(line, sizeof(line), "%3u device-mapper\n", CONTROL_NODE_MINOR);
		return with_line(file, line);
	}
	return file;
}

EXPORT FILE *fopen(const char *path, const char *mode)
{
	return with_numbers(path, ((FILE * (*)(const char *, const char *)) next("fopen"))(path,
											   mode));
}

EXPORT FILE *fopen64(const char *path, const char *mode)
{
	return with_numbers(path, ((FILE * (*)(const char *, const char *)) next("fopen64"))(path,
											     mode));
}

EXPORT int stat64(const char *path, struct stat64 *st)
{
	if (!is_control(path))
		return ((int (*)(const char *, struct stat64 *))next("stat64"))(path, st);
	*st = (struct stat64){
		.st_mode = S_IFCHR | 0600,
		.st_nlink = 1,
		.st_rdev = makedev(CONTROL_NODE_MAJOR, CONTROL_NODE_MINOR),
	};
	return 0;
}

EXPORT int mknod(const char *path, mode_t mode, dev_t dev)
{
	if (S_ISBLK(mode) && major(dev) == CONTROL_MAJOR)
		return 0;
	return ((int (*)(const char *, mode_t, dev_t))next("mknod"))(path, mode, dev);
}

EXPORT int chown(const char *path, uid_t owner, gid_t group)
{
	int ret = ((int (*)(const char *, uid_t, gid_t))next("chown"))(path, owner, group);

	/* A node that was not made. */
	return ret < 0 && errno == ENOENT && strstr(path, "/mapper/") ? 0 : ret;
}

/* The folder of the nodes, where there are none: an empty one, which is gone when it is open. */
EXPORT DIR *opendir(const char *path)
{
	static const char folder[] = "/mapper";
	DIR *(*next_opendir)(const char *) = (DIR * (*)(const char *)) next("opendir");
	DIR *found = next_opendir(path);
	size_t length = strlen(path);
	char empty[] = "/tmp/dmcore-XXXXXX";

	if (found || errno != ENOENT || length < sizeof(folder) - 1 ||
	    strcmp(path + length - (sizeof(folder) - 1), folder) != 0)
		return found;
	if (!mkdtemp(empty))
		return NULL;
	found = next_opendir(empty);
	rmdir(empty);
	return found;
}

/* libdevmapper leaves nodes to udev unless it is told not to. */
__attribute__((constructor)) static void manage_nodes(void)
{
	setenv("DM_DISABLE_UDEV", "1", 0);
}
