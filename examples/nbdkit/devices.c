/* SPDX-License-Identifier: MIT */
/*
 * The mapped devices that are served: made when nbdkit starts, given new tables when a connection
 * opens and a table's file has changed, removed at the end. Called by plugin.c. The control socket
 * (commands.c) makes, changes and removes others.
 */
#include "devices.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "nbdkit.h"

/* A device whose table is in a file. It is kept open, so that nobody removes it. */
struct from_file {
	struct dmcore_device *device;
	struct dmcore_bdev *opened;
	const char *path;
	char *text; /* What the file held when the live table was read. */
};

/* A device that a client has open. nbdkit doesn't close what is open when it ends. */
struct opening {
	struct opening *next;
	struct dmcore_bdev *bdev;
};

struct devices {
	struct dmcore *core;
	struct opening *openings; /* With lock. */
	struct from_file *files;
	unsigned int num_files;
	pthread_mutex_t lock; /* devices_lock() */
	/* One connection at a time looks at the files. */
	pthread_mutex_t reading;
	/* Held for reading by each request, for writing while a table is replaced: replace(). */
	pthread_rwlock_t serving;
};

static void report(const char *what, int error)
{
	nbdkit_error("%s: %s (%s)", what, dmcore_error_message(), dmcore_error_name(error));
}

static void log_message(enum dmcore_log_level level, const char *message, void *context)
{
	(void)context;
	if (level <= DMCORE_LOG_WARNING)
		nbdkit_error("%s", message);
	else
		nbdkit_debug("%s", message);
}

/* ---- tables ---- */

/* Parses and loads. */
static int load(struct devices *devices, struct dmcore_device *device, const char *text,
		unsigned int flags)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(devices->core, text, flags, &table);

	if (ret)
		return ret;
	ret = dmcore_device_load(device, table);
	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

static bool is_refusal_to_write(int error)
{
	return error == -EACCES || error == -EROFS || error == -EPERM;
}

/* Files that can't be written are served read-only, as nbdkit's own plugin for files does. */
static int load_as_permitted(struct devices *devices, struct dmcore_device *device,
			     const char *text)
{
	int ret = load(devices, device, text, 0);

	if (!is_refusal_to_write(ret))
		return ret;
	nbdkit_debug("%s: read-only: %s", dmcore_device_name(device), dmcore_error_message());
	return load(devices, device, text, DMCORE_TABLE_READ_ONLY);
}

/* All of a file; *text is the caller's to free. */
static int read_text(const char *path, char **text)
{
	FILE *file = fopen(path, "re");
	struct stat st;
	size_t room = 0;
	ssize_t length;
	int ret = 0;

	*text = NULL;
	if (!file)
		return -errno;
	if (fstat(fileno(file), &st) < 0)
		ret = -errno;
	else if (!S_ISREG(st.st_mode))
		ret = -EINVAL;
	else if (st.st_size > DMCORE_TABLE_TEXT_BYTES_MAX)
		ret = -E2BIG;
	if (ret)
		goto close;
	errno = 0;
	length = getdelim(text, &room, '\0', file);
	if (length < 0 && errno)
		ret = -errno;
	else if (length < 0 && !(*text = strdup("")))
		ret = -ENOMEM;
	else if (length > 0 && (*text)[length - 1] == '\0')
		ret = -EILSEQ;
	if (ret) {
		free(*text);
		*text = NULL;
	}
close:
	fclose(file);
	return ret;
}

static void report_file(const char *path, int error)
{
	if (error == -EINVAL)
		nbdkit_error("%s: not a regular file", path);
	else if (error == -EILSEQ)
		nbdkit_error("%s: not a table: there are NUL bytes in it", path);
	else
		nbdkit_error("%s: %s", path, strerror(-error));
}

/* ---- making them ---- */

static int make_one(struct devices *devices, const struct definition *definition)
{
	const char *text = definition->text;
	struct dmcore_bdev *opened = NULL;
	struct dmcore_device *device;
	char *read = NULL;
	int ret;

	if (definition->kind == DEFINE_TABLE_FILE) {
		ret = read_text(definition->text, &read);
		if (ret) {
			report_file(definition->text, ret);
			return -1;
		}
		text = read;
	}
	ret = dmcore_device_create(devices->core, definition->name, NULL, 0, &device);
	if (ret == 0)
		ret = load_as_permitted(devices, device, text);
	if (ret == 0)
		ret = dmcore_device_resume(device);
	if (ret == 0 && read)
		ret = dmcore_bdev_open(devices->core, definition->name, DMCORE_OPEN_READ_ONLY,
				       &opened);
	if (ret) {
		report(definition->name, ret);
		free(read);
		return -1;
	}
	if (read)
		devices->files[devices->num_files++] = (struct from_file){
			.device = device,
			.opened = opened,
			.path = definition->text,
			.text = read,
		};
	return 0;
}

static int make_concise(struct devices *devices, const char *text)
{
	struct dmcore_device *last;
	int ret = dmcore_device_create_concise(devices->core, text, 0, &last);

	if (is_refusal_to_write(ret)) {
		nbdkit_debug("concise: read-only: %s", dmcore_error_message());
		ret = dmcore_device_create_concise(devices->core, text, DMCORE_TABLE_READ_ONLY,
						   &last);
	}
	if (ret)
		report("concise", ret);
	else if (!last)
		nbdkit_error("concise: it names no device");
	return ret || !last ? -1 : 0;
}

static int make_all(struct devices *devices, const struct settings *settings)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	int ret;

	options.backend = settings->backend;
	options.log = log_message;
	ret = dmcore_create(&options, &devices->core);
	if (ret) {
		report("dmcore", ret);
		return -1;
	}
	ret = 0;
	for (unsigned int i = 0; ret == 0 && i < settings->num_definitions; i++) {
		const struct definition *definition = &settings->definitions[i];

		if (definition->kind == DEFINE_CONCISE)
			ret = make_concise(devices, definition->text);
		else
			ret = make_one(devices, definition);
	}
	return ret;
}

/* Whoever waits to replace a table goes before requests that come later. */
static void make_locks(struct devices *devices)
{
	pthread_rwlockattr_t attributes;

	pthread_mutex_init(&devices->lock, NULL);
	pthread_mutex_init(&devices->reading, NULL);
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&devices->serving, &attributes);
	pthread_rwlockattr_destroy(&attributes);
}

struct devices *devices_make(const struct settings *settings)
{
	struct devices *devices = calloc(1, sizeof(*devices));

	if (devices)
		devices->files = calloc(settings->num_definitions + 1, sizeof(*devices->files));
	if (!devices || !devices->files) {
		free(devices);
		nbdkit_error("no memory");
		return NULL;
	}
	make_locks(devices);
	if (make_all(devices, settings)) {
		devices_free(devices);
		return NULL;
	}
	return devices;
}

/* ---- removing them ---- */

/* Those that stand on others go first, whatever the order in which they were made. */
static void remove_all(struct devices *devices)
{
	struct dmcore_device *device;
	bool removed = true;

	while (removed) {
		unsigned int count = 0;

		removed = false;
		while (dmcore_device_at(devices->core, count))
			count++;
		while (count-- > 0) {
			device = dmcore_device_at(devices->core, count);
			if (dmcore_device_remove(device) == 0)
				removed = true;
		}
	}
}

/* Gives up the opening that `link` is the way to. */
static int drop_opening(struct opening **link)
{
	struct opening *opening = *link;
	int ret = dmcore_bdev_close(opening->bdev);

	*link = opening->next;
	free(opening);
	return ret;
}

void devices_free(struct devices *devices)
{
	int ret = 0;

	if (!devices)
		return;
	if (devices->core) {
		while (devices->openings)
			drop_opening(&devices->openings);
		for (unsigned int i = 0; i < devices->num_files; i++)
			dmcore_bdev_close(devices->files[i].opened);
		remove_all(devices);
		ret = dmcore_destroy(devices->core);
	}
	if (ret)
		report("dmcore", ret);
	for (unsigned int i = 0; i < devices->num_files; i++)
		free(devices->files[i].text);
	free(devices->files);
	pthread_rwlock_destroy(&devices->serving);
	pthread_mutex_destroy(&devices->reading);
	pthread_mutex_destroy(&devices->lock);
	free(devices);
}

/* ---- replacing tables ---- */

static unsigned int table_flags(struct dmcore_device *device)
{
	return dmcore_bdev_is_read_only(dmcore_device_bdev(device)) ? DMCORE_TABLE_READ_ONLY : 0;
}

/*
 * After a failed resume. Mostly the old table is live still. If the new one has failed on its last
 * step the device is suspended with it, and requests would wait for ever: then the old one comes
 * back, or if that isn't to be had any more, one with which they fail.
 */
static void put_back(struct devices *devices, struct from_file *file, unsigned int flags)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	char text[64];

	dmcore_device_clear(file->device);
	if (dmcore_device_info(file->device, &info) == 0 && !info.suspended)
		return;
	if (load(devices, file->device, file->text, flags) == 0 &&
	    dmcore_device_resume(file->device) == 0)
		return;
	nbdkit_error("%s: the table before doesn't come back, all requests fail from now on: %s",
		     dmcore_device_name(file->device), dmcore_error_message());
	snprintf(text, sizeof(text), "0 %" PRIu64 " error", info.size_sectors);
	if (load(devices, file->device, text, 0) || dmcore_device_resume(file->device))
		nbdkit_error("%s: %s", dmcore_device_name(file->device), dmcore_error_message());
}

/*
 * Clients' requests are kept out, not only those to this device, since others may stand on it. What
 * has been written so far is flushed with the old table: a client's flush goes by the new one
 * alone, and must cover it.
 */
static int replace(struct devices *devices, struct from_file *file, const char *text)
{
	unsigned int flags = table_flags(file->device);
	int ret;

	/* Never from writable to read-only: connections have been told what it is. */
	ret = flags ? load_as_permitted(devices, file->device, text)
		    : load(devices, file->device, text, 0);
	if (ret) {
		report(file->path, ret);
		return ret;
	}
	pthread_rwlock_wrlock(&devices->serving);
	ret = dmcore_flush(dmcore_device_bdev(file->device));
	if (ret == 0)
		ret = dmcore_device_resume(file->device);
	if (ret) {
		report(file->path, ret);
		put_back(devices, file, flags);
	}
	pthread_rwlock_unlock(&devices->serving);
	return ret;
}

static void read_again(struct devices *devices, struct from_file *file)
{
	const char *name = dmcore_device_name(file->device);
	char *text;
	int ret = read_text(file->path, &text);

	if (ret) {
		report_file(file->path, ret);
		nbdkit_error("%s: the table before goes on", name);
		return;
	}
	/* What the file says, not when it was written: two changes may fall into one tick. */
	if (strcmp(text, file->text) == 0) {
		free(text);
		return;
	}
	if (replace(devices, file, text)) {
		nbdkit_error("%s: the table before goes on", name);
		free(text);
		return;
	}
	nbdkit_debug("%s: %s has changed: a new table", name, file->path);
	free(file->text);
	file->text = text;
}

void devices_read_again(struct devices *devices)
{
	pthread_mutex_lock(&devices->reading);
	for (unsigned int i = 0; i < devices->num_files; i++)
		read_again(devices, &devices->files[i]);
	pthread_mutex_unlock(&devices->reading);
}

/* ---- finding them ---- */

static struct dmcore_device *last_device(struct devices *devices)
{
	struct dmcore_device *found = NULL;
	struct dmcore_device *device;

	for (unsigned int i = 0; (device = dmcore_device_at(devices->core, i)); i++)
		found = device;
	return found;
}

/* Read-only or not it is the same device, and one that is read-only can't be opened otherwise. */
int devices_open(struct devices *devices, const char *name, struct dmcore_bdev **result)
{
	struct opening *opening = malloc(sizeof(*opening));
	struct dmcore_device *device;
	int ret = -ENOENT;

	*result = NULL;
	if (!opening)
		return -ENOMEM;
	devices_lock(devices);
	device = name[0] ? dmcore_device_find(devices->core, name) : last_device(devices);
	if (device)
		ret = dmcore_bdev_open(devices->core, dmcore_device_name(device),
				       DMCORE_OPEN_READ_ONLY, &opening->bdev);
	if (ret == 0) {
		*result = opening->bdev;
		opening->next = devices->openings;
		devices->openings = opening;
	}
	devices_unlock(devices);
	if (ret)
		free(opening);
	return ret;
}

void devices_close(struct devices *devices, struct dmcore_bdev *bdev)
{
	struct opening **link = &devices->openings;
	int ret = 0;

	devices_lock(devices);
	while (*link && (*link)->bdev != bdev)
		link = &(*link)->next;
	if (*link)
		ret = drop_opening(link);
	devices_unlock(devices);
	if (ret)
		report("close", ret);
}

const char *devices_last(struct devices *devices)
{
	struct dmcore_device *device;
	const char *name = NULL;

	devices_lock(devices);
	device = last_device(devices);
	if (device)
		name = nbdkit_strdup_intern(dmcore_device_name(device));
	devices_unlock(devices);
	return name;
}

int devices_list(struct devices *devices, struct nbdkit_exports *exports)
{
	struct dmcore_device *device;
	int ret = 0;

	devices_lock(devices);
	for (unsigned int i = 0; ret == 0 && (device = dmcore_device_at(devices->core, i)); i++)
		ret = nbdkit_add_export(exports, dmcore_device_name(device), NULL);
	devices_unlock(devices);
	return ret;
}

void devices_lock(struct devices *devices)
{
	pthread_mutex_lock(&devices->lock);
}

void devices_unlock(struct devices *devices)
{
	pthread_mutex_unlock(&devices->lock);
}

struct dmcore *devices_core(struct devices *devices)
{
	return devices->core;
}

void devices_enter(struct devices *devices)
{
	pthread_rwlock_rdlock(&devices->serving);
}

void devices_leave(struct devices *devices)
{
	pthread_rwlock_unlock(&devices->serving);
}
