/* SPDX-License-Identifier: MIT */
/*
 * A plugin of nbdkit(1) that serves mapped devices as network block devices:
 *
 *	nbdkit dmcore table='0 2048 linear disk.img 0'
 *
 *	plugin.c    this: what nbdkit calls
 *	settings.c  the parameters
 *	devices.c   the devices, and tables that change while they are served
 *	requests.c  a queue for each thread, and requests on it
 *	control.c   a socket for dmsetup, with commands.c, tables.c, status.c and numbers.c
 *
 * nbdkit-dmcore-plugin(1) is the manual.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control.h"
#include "devices.h"
#include "nbdkit.h"
#include "requests.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* The protocol's maximum of a preferred block, and nbdkit's of a request with data. */
#define PREFERRED_BLOCK_BYTES_MAX (32u << 20)
#define REQUEST_BYTES_MAX (64u << 20)
/* Of one answer about extents. It may end anywhere, and the client asks on. */
#define EXTENTS_MAX 1024

/* The plugin's state: nbdkit has no place for it. */
static struct {
	struct settings settings;
	struct devices *devices;
	struct control *control; /* Or NULL. */
	int folder_fd; /* Where nbdkit was started: what paths in tables are relative to. */
	int listen_fd; /* Of the control socket until it is served, or -1. */
} plugin_state = { .folder_fd = -1, .listen_fd = -1 };

/* A connection of a client. */
struct connection {
	struct dmcore_bdev *bdev;
	uint64_t size_bytes; /* When it was opened; it stays so, also if the table changes. */
};

static struct dmcore_limits limits_of(const struct connection *connection)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	dmcore_bdev_limits(connection->bdev, &limits);
	return limits;
}

/* ---- nbdkit's start and end ---- */

static void plugin_load(void)
{
	int ret = requests_begin();

	if (ret == 0)
		return;
	nbdkit_error("dmcore: %s", strerror(-ret));
	exit(EXIT_FAILURE);
}

static void plugin_unload(void)
{
	settings_free(&plugin_state.settings);
	if (plugin_state.folder_fd >= 0)
		close(plugin_state.folder_fd);
	requests_end();
}

static int plugin_config(const char *key, const char *value)
{
	return settings_take(&plugin_state.settings, key, value);
}

static int plugin_config_complete(void)
{
	return settings_complete(&plugin_state.settings);
}

/*
 * While messages still reach who has started nbdkit, the devices are made once and removed. A core
 * doesn't survive the fork into the background, so plugin_after_fork() makes them again.
 */
static int plugin_get_ready(void)
{
	struct devices *devices = devices_make(&plugin_state.settings);

	if (!devices)
		return -1;
	devices_free(devices);
	plugin_state.folder_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (plugin_state.folder_fd < 0) {
		nbdkit_error(".: %s", strerror(errno));
		return -1;
	}
	if (!plugin_state.settings.control)
		return 0;
	plugin_state.listen_fd = control_listen(plugin_state.settings.control);
	return plugin_state.listen_fd < 0 ? -1 : 0;
}

/* In the background nbdkit has gone to the root folder, where relative paths mean nothing. */
static int plugin_after_fork(void)
{
	if (fchdir(plugin_state.folder_fd) < 0) {
		nbdkit_error("back to where nbdkit was started: %s", strerror(errno));
		return -1;
	}
	plugin_state.devices = devices_make(&plugin_state.settings);
	if (!plugin_state.devices)
		return -1;
	if (plugin_state.listen_fd < 0)
		return 0;
	plugin_state.control = control_start(plugin_state.devices, plugin_state.listen_fd);
	return plugin_state.control ? 0 : -1;
}

static void plugin_cleanup(void)
{
	const char *path = plugin_state.settings.control;

	if (plugin_state.control)
		unlinkat(plugin_state.folder_fd, path, 0);
	control_stop(plugin_state.control);
	plugin_state.control = NULL;
	devices_free(plugin_state.devices);
	plugin_state.devices = NULL;
}

static void plugin_dump_plugin(void)
{
	printf("dmcore_version=%s\n", dmcore_version());
}

/* ---- connections ---- */

static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	(void)readonly;
	(void)is_tls;
	return devices_list(plugin_state.devices, exports);
}

static const char *plugin_default_export(int readonly, int is_tls)
{
	(void)readonly;
	(void)is_tls;
	return devices_last(plugin_state.devices);
}

static void *plugin_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct connection *connection;
	int ret;

	(void)readonly;
	if (!name)
		return NULL;
	devices_read_again(plugin_state.devices);
	connection = malloc(sizeof(*connection));
	if (!connection) {
		nbdkit_error("no memory");
		return NULL;
	}
	ret = devices_open(plugin_state.devices, name, &connection->bdev);
	if (ret) {
		if (ret == -ENOENT)
			nbdkit_error("there is no device '%s'", name);
		else
			nbdkit_error("%s: %s", name, dmcore_error_message());
		nbdkit_set_error(-ret);
		free(connection);
		return NULL;
	}
	connection->size_bytes =
		dmcore_bdev_size_sectors(connection->bdev) * DMCORE_SECTOR_BYTES;
	return connection;
}

/*
 * Runs on the connection's first thread, which does requests itself if it is the only one: its
 * queue must be gone before nbdkit takes the end of the last connection for the end of all.
 */
static void plugin_close(void *handle)
{
	struct connection *connection = handle;

	requests_end_thread();
	devices_close(plugin_state.devices, connection->bdev);
	free(connection);
}

static int64_t plugin_get_size(void *handle)
{
	const struct connection *connection = handle;

	return (int64_t)connection->size_bytes;
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
			     uint32_t *maximum)
{
	struct dmcore_limits limits = limits_of(handle);

	*minimum = limits.logical_block_bytes;
	*preferred = 4096;
	if (*preferred < limits.physical_block_bytes)
		*preferred = limits.physical_block_bytes;
	/* Chunks of a stripe needn't be powers of two, the protocol's blocks must. */
	if (*preferred < limits.io_min_bytes && limits.io_min_bytes <= PREFERRED_BLOCK_BYTES_MAX &&
	    (limits.io_min_bytes & (limits.io_min_bytes - 1)) == 0)
		*preferred = limits.io_min_bytes;
	*maximum = REQUEST_BYTES_MAX;
	return 0;
}

static int plugin_can_write(void *handle)
{
	const struct connection *connection = handle;

	return !dmcore_bdev_is_read_only(connection->bdev);
}

static int plugin_can_flush(void *handle)
{
	(void)handle;
	return 1;
}

static int plugin_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

static int plugin_can_trim(void *handle)
{
	return (limits_of(handle).caps & DMCORE_CAP_DISCARD) != 0;
}

static int plugin_can_fast_zero(void *handle)
{
	(void)handle;
	return 1;
}

/*
 * A flush by one connection covers what others have written: all of them use the same devices of
 * one core, whatever their queues, and the library's flush makes durable every write that completed
 * before it was submitted, on any queue. Nor is there a cache between them: a read finds what any
 * connection has written. A table that is replaced is flushed before, see replace() in devices.c.
 */
static int plugin_can_multi_conn(void *handle)
{
	(void)handle;
	return 1;
}

static int plugin_can_extents(void *handle)
{
	(void)handle;
	return 1;
}

/* ---- requests ---- */

static const char *const labels[] = {
	[DMCORE_OP_READ] = "read",
	[DMCORE_OP_WRITE] = "write",
	[DMCORE_OP_FLUSH] = "flush",
	[DMCORE_OP_DISCARD] = "trim",
	[DMCORE_OP_WRITE_ZEROES] = "zero",
};

static int failed(const struct request *request, int error)
{
	nbdkit_error("%s of %u bytes at %llu: %s", labels[request->op], request->length_bytes,
		     (unsigned long long)request->offset_bytes, strerror(-error));
	nbdkit_set_error(-error);
	return -1;
}

static int run(void *handle, const struct request *request)
{
	const struct connection *connection = handle;
	int ret = requests_run(plugin_state.devices, connection->bdev, request);

	return ret ? failed(request, ret) : 0;
}

static unsigned int bio_flags(uint32_t flags)
{
	return flags & NBDKIT_FLAG_FUA ? DMCORE_BIO_FUA : 0;
}

static int plugin_flush_all(void *handle, uint32_t flags)
{
	const struct request request = { .op = DMCORE_OP_FLUSH };

	(void)flags;
	return run(handle, &request);
}

static int plugin_read(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct request request = {
		.op = DMCORE_OP_READ,
		.memory = buffer,
		.length_bytes = count,
		.offset_bytes = offset,
	};

	(void)flags;
	return run(handle, &request);
}

static int plugin_write(void *handle, const void *buffer, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	const struct request request = {
		.op = DMCORE_OP_WRITE,
		.flags = bio_flags(flags),
		.memory = (void *)(uintptr_t)buffer,
		.length_bytes = count,
		.offset_bytes = offset,
	};

	return run(handle, &request);
}

/* A hint: where a part of the device can't, it keeps what it has. */
static int discard(void *handle, uint32_t count, uint64_t offset, uint32_t flags, int *error)
{
	const struct connection *connection = handle;
	const struct request request = {
		.op = DMCORE_OP_DISCARD,
		.length_bytes = count,
		.offset_bytes = offset,
	};

	*error = requests_run(plugin_state.devices, connection->bdev, &request);
	if (*error == -EOPNOTSUPP)
		return 0;
	if (*error)
		return failed(&request, *error);
	return flags & NBDKIT_FLAG_FUA ? plugin_flush_all(handle, 0) : 0;
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	int error;

	return discard(handle, count, offset, flags, &error);
}

/*
 * What may become a hole is discarded, if that zeroes it: it gives the space back, as WRITE_ZEROES
 * needn't. A fast zero is one that the device does by itself, so that nothing is written.
 */
static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	const struct connection *connection = handle;
	const struct request request = {
		.op = DMCORE_OP_WRITE_ZEROES,
		.flags = bio_flags(flags),
		.length_bytes = count,
		.offset_bytes = offset,
	};
	unsigned int caps = limits_of(connection).caps;
	int error = -EOPNOTSUPP;

	if (flags & NBDKIT_FLAG_MAY_TRIM && caps & DMCORE_CAP_DISCARD &&
	    caps & DMCORE_CAP_DISCARD_ZEROES) {
		if (discard(handle, count, offset, flags, &error))
			return -1;
		if (error == 0)
			return 0;
	}
	if (flags & NBDKIT_FLAG_FAST_ZERO && !(caps & DMCORE_CAP_WRITE_ZEROES)) {
		nbdkit_set_error(ENOTSUP);
		return -1;
	}
	error = requests_run(plugin_state.devices, connection->bdev, &request);
	if (error != -EOPNOTSUPP)
		return error ? failed(&request, error) : 0;
	/* A target refuses it: nbdkit writes zeroes then, unless it is to be fast. */
	nbdkit_set_error(EOPNOTSUPP);
	return -1;
}

/* Of whole blocks around the range that is asked for. */
static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			  struct nbdkit_extents *extents)
{
	const struct connection *connection = handle;
	uint64_t block = limits_of(connection).logical_block_bytes;
	uint64_t at = offset - offset % block;
	uint64_t end = offset + count;

	end += (block - end % block) % block;
	for (unsigned int i = 0; i < EXTENTS_MAX && at < end; i++) {
		struct dmcore_extent extent;
		uint32_t type = 0;
		int ret;

		ret = dmcore_bdev_extent(connection->bdev, at / DMCORE_SECTOR_BYTES,
					 (end - at) / DMCORE_SECTOR_BYTES, &extent);
		if (ret) {
			nbdkit_error("extents at %llu: %s (%s)", (unsigned long long)at,
				     dmcore_error_message(), dmcore_error_name(ret));
			nbdkit_set_error(-ret);
			return -1;
		}
		if (extent.kind == DMCORE_EXTENT_ZERO)
			type = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
		if (nbdkit_add_extent(extents, at, extent.count * DMCORE_SECTOR_BYTES, type) < 0)
			return -1;
		at += extent.count * DMCORE_SECTOR_BYTES;
		if (flags & NBDKIT_FLAG_REQ_ONE && at > offset)
			break;
	}
	return 0;
}

/* ---- the table of them ---- */

static struct nbdkit_plugin plugin = {
	.name = "dmcore",
	.longname = "libdmcore mapped devices",
	.version = DMCORE_VERSION_STRING,
	.description = "Serves mapped devices made from tables as for dmsetup(8).",
	.load = plugin_load,
	.unload = plugin_unload,
	.config = plugin_config,
	.config_complete = plugin_config_complete,
	.config_help = "[table=]TABLE|@FILE  a table; a file is read again when a client connects\n"
		       "name=NAME            names the device of the table that follows\n"
		       "concise=TEXT         devices in dmsetup's concise form\n"
		       "control=SOCKET       where dmsetup makes devices: dmcore-dmsetup(1)\n"
		       "backend=auto|io_uring|pread",
	.magic_config_key = "table",
	.get_ready = plugin_get_ready,
	.after_fork = plugin_after_fork,
	.cleanup = plugin_cleanup,
	.dump_plugin = plugin_dump_plugin,
	.list_exports = plugin_list_exports,
	.default_export = plugin_default_export,
	.open = plugin_open,
	.close = plugin_close,
	.get_size = plugin_get_size,
	.block_size = plugin_block_size,
	.can_write = plugin_can_write,
	.can_flush = plugin_can_flush,
	.can_fua = plugin_can_fua,
	.can_trim = plugin_can_trim,
	.can_fast_zero = plugin_can_fast_zero,
	.can_multi_conn = plugin_can_multi_conn,
	.can_extents = plugin_can_extents,
	.pread = plugin_read,
	.pwrite = plugin_write,
	.flush = plugin_flush_all,
	.trim = plugin_trim,
	.zero = plugin_zero,
	.extents = plugin_extents,
};

/* What nbdkit calls first. Its header has the definition in the next line, but no prototype. */
struct nbdkit_plugin *plugin_init(void);

NBDKIT_REGISTER_PLUGIN(plugin)
