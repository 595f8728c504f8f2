/* SPDX-License-Identifier: MIT */
/*
 * The devices of record-programs.c, which alone includes this, and the kernel's control device: tables
 * and their texts, with disks by their letters, and what the kernel logs.
 */
#ifndef DMCORE_TESTS_GOLDEN_RECORD_CONTROL_H
#define DMCORE_TESTS_GOLDEN_RECORD_CONTROL_H

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/dm-ioctl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "programs.h"

#define DEVICES_MAX 16
#define IOCTL_BYTES 16384
#define BUFFER_SECTORS 2048
#define DISK_SECTORS 65536

static struct device {
	char name[32];
	uint64_t dev;
	int fd;
	bool is_disk;
	uint64_t sectors;
	char extra[32]; /* of a disk: its name in tables of the kernel */
} devices[DEVICES_MAX];

static unsigned int num_devices;
static int control;
static int kmsg;
static char scratch[64];
static int images = -1;
static char watched[32];
static unsigned char *buffer;
static char answer[PROGRAM_LINE_BYTES];
static char log_text[8192];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const char *error_name(int error)
{
	return strerrorname_np(error) ? strerrorname_np(error) : "?";
}

/* ---- the control device --------------------------------------------------------------------- */

static union {
	struct dm_ioctl head;
	unsigned char bytes[IOCTL_BYTES];
} call;

static void begin(const char *name)
{
	memset(&call, 0, sizeof(call));
	call.head.version[0] = DM_VERSION_MAJOR;
	call.head.data_size = sizeof(call);
	call.head.data_start = sizeof(call.head);
	snprintf(call.head.name, sizeof(call.head.name), "%s", name);
}

static int simple(const char *name, unsigned long number, unsigned int flags)
{
	begin(name);
	call.head.flags = flags;
	return ioctl(control, number, &call) ? errno : 0;
}

static struct device *find(const char *name)
{
	for (unsigned int i = 0; i < num_devices; i++) {
		if (strcmp(devices[i].name, name) == 0)
			return &devices[i];
	}
	return NULL;
}

/* Replaces the letters of disks by their numbers, or their numbers by letters. */
static void translate(char *out, size_t bytes, const char *text, bool to_kernel)
{
	size_t used = 0;

	out[0] = '\0';
	while (*text) {
		size_t length = strcspn(text, " \n");
		const char *word = text;
		int word_bytes = (int)length;

		for (unsigned int i = 0; i < num_devices; i++) {
			const char *from = to_kernel ? devices[i].name : devices[i].extra;
			const char *to = to_kernel ? devices[i].extra : devices[i].name;

			if (length && strlen(from) == length && strncmp(from, text, length) == 0) {
				word = to;
				word_bytes = (int)strlen(to);
			}
		}
		used += (size_t)snprintf(out + used, bytes - used, "%.*s", word_bytes, word);
		text += length;
		if (*text) {
			out[used++] = *text++;
			out[used] = '\0';
		}
	}
}

/* One target; returns where the next one goes, or NULL without room. */
static unsigned char *put_target(unsigned char *to, const char *text, size_t length)
{
	struct dm_target_spec *spec = (void *)to;
	char *params = (char *)(spec + 1);
	const char *end = text + length;
	char *at;

	if (to + sizeof(*spec) + length + 16 > call.bytes + sizeof(call))
		return NULL;
	spec->sector_start = strtoull(text, &at, 10);
	spec->length = strtoull(at, &at, 10);
	at += strspn(at, " ");
	length = strcspn(at, " ") < (size_t)(end - at) ? strcspn(at, " ") : (size_t)(end - at);
	snprintf(spec->target_type, sizeof(spec->target_type), "%.*s", (int)length, at);
	at += length;
	at += at < end;
	length = (size_t)(end - at);
	memcpy(params, at, length);
	params[length] = '\0';
	spec->next = (uint32_t)((sizeof(*spec) + length + 8) & ~(size_t)7);
	return to + spec->next;
}

/* START LENGTH TYPE PARAMETERS, for the inactive slot; several targets with PROGRAM_LINE_END
 * between. */
static int load(const char *name, const char *table)
{
	static char text[IOCTL_BYTES];
	unsigned char *to = call.bytes + sizeof(call.head);
	char *end;

	translate(text, sizeof(text), table, true);
	begin(name);
	for (char *at = text; at; at = end) {
		end = strstr(at, PROGRAM_LINE_END);
		to = put_target(to, at, end ? (size_t)(end - at) : strlen(at));
		if (!to)
			return E2BIG;
		call.head.target_count++;
		if (end)
			end += strlen(PROGRAM_LINE_END);
	}
	return ioctl(control, DM_TABLE_LOAD, &call) ? errno : 0;
}

static struct device *add(const char *name)
{
	struct device *device = &devices[num_devices++];

	memset(device, 0, sizeof(*device));
	snprintf(device->name, sizeof(device->name), "%s", name);
	device->fd = -1;
	device->dev = call.head.dev;
	snprintf(device->extra, sizeof(device->extra), "%u:%u", major(device->dev),
		 minor(device->dev));
	return device;
}

static int open_of(struct device *device)
{
	char path[64];

	if (device->fd >= 0)
		return device->fd;
	snprintf(path, sizeof(path), "/tmp/%u-%u", major(device->dev), minor(device->dev));
	if (mknod(path, S_IFBLK | 0600, (dev_t)device->dev) && errno != EEXIST)
		die(path);
	device->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (device->fd < 0)
		device->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	return device->fd;
}

static int drop(struct device *device)
{
	int error;

	if (device->fd >= 0)
		close(device->fd);
	device->fd = -1;
	error = simple(device->name, DM_DEV_REMOVE, 0);
	if (!error) {
		memmove(device, device + 1,
			(size_t)(devices + num_devices - device - 1) * sizeof(*device));
		num_devices--;
	}
	return error;
}

/* Removes all, the youngest first. */
static void drop_all(void)
{
	for (unsigned int i = num_devices; i > 0; i--)
		drop(&devices[i - 1]);
	if (num_devices > 0) {
		fprintf(stderr, "%s can't be removed\n", devices[0].name);
		exit(1);
	}
	watched[0] = '\0';
}

/* The text of the first target behind its type. */
static void target_text(const char *name, unsigned int flags, char *out, size_t bytes)
{
	begin(name);
	call.head.flags = flags;
	out[0] = '\0';
	if (ioctl(control, DM_TABLE_STATUS, &call) || call.head.target_count == 0)
		return;
	translate(out, bytes,
		  (char *)call.bytes + call.head.data_start + sizeof(struct dm_target_spec), false);
	for (size_t length = strlen(out); length && out[length - 1] == ' '; length--)
		out[length - 1] = '\0';
}

/* All targets of a table, with PROGRAM_LINE_END between: as load() takes them, or their status. */
static void all_lines(const char *name, unsigned int flags, char *out, size_t bytes)
{
	static char raw[2 * IOCTL_BYTES];
	unsigned char *base = call.bytes;
	size_t used = 0;
	uint32_t next = 0;

	begin(name);
	call.head.flags = flags;
	raw[0] = '\0';
	if (ioctl(control, DM_TABLE_STATUS, &call))
		die("DM_TABLE_STATUS");
	base += call.head.data_start;
	for (unsigned int i = 0; i < call.head.target_count; i++) {
		struct dm_target_spec *spec = (void *)(base + next);

		used += (size_t)snprintf(raw + used, sizeof(raw) - used, "%s%llu %llu %s %s",
					 i ? PROGRAM_LINE_END : "",
					 (unsigned long long)spec->sector_start,
					 (unsigned long long)spec->length, spec->target_type,
					 (char *)(spec + 1));
		while (used && raw[used - 1] == ' ')
			raw[--used] = '\0';
		next = spec->next;
	}
	translate(out, bytes, raw, false);
}

/* To the target at a sector. */
static int message(const char *name, uint64_t sector, const char *text)
{
	struct dm_target_msg *to = (void *)(call.bytes + sizeof(call.head));

	begin(name);
	to->sector = sector;
	snprintf(to->message, 1024, "%s", text);
	return ioctl(control, DM_TARGET_MSG, &call) ? errno : 0;
}

/* What the kernel has said since the last call. */
static void take_log(void)
{
	char record[4096];
	size_t used = 0;
	ssize_t got;

	log_text[0] = '\0';
	while ((got = read(kmsg, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		char *text;

		if (got <= 0)
			continue;
		record[got] = '\0';
		text = strchr(record, ';');
		if (!text || !strstr(text, "device-mapper"))
			continue;
		text[1 + strcspn(text + 1, "\n")] = '\0';
		used += (size_t)snprintf(log_text + used, sizeof(log_text) - used, "%s\n",
					 text + 1);
		if (used > sizeof(log_text) - 1024)
			break;
	}
}

static void append(const char *text, size_t length)
{
	size_t used = strlen(answer);

	snprintf(answer + used, sizeof(answer) - used, "%.*s", (int)length, text);
}

/* ": TEXT" of the refusal of a table, if it was told. */
static void append_reason(void)
{
	static const char prefix[] = "device-mapper: table: ";
	char *text = strstr(log_text, prefix);
	char *end;

	/* What it finds while it cleans up isn't the reason. */
	while (text && memmem(text, strcspn(text, "\n"), " not in table devices list", 26))
		text = strstr(text + 1, prefix);
	if (!text)
		return;
	text += strlen(prefix);
	text = strchr(text, ' ') + 1;
	end = strstr(text, " (-E");
	if (!end)
		end = text + strcspn(text, "\n");
	append(": ", 2);
	/* A disk that is too small is named. */
	for (unsigned int i = 0; i < num_devices; i++) {
		char name[32];

		snprintf(name, sizeof(name), "dm-%u ", minor(devices[i].dev));
		if (strncmp(text, name, strlen(name)) != 0)
			continue;
		append(devices[i].name, strlen(devices[i].name));
		text += strlen(name) - 1;
	}
	append(text, (size_t)(end - text));
}

#endif
