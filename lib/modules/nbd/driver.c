/* SPDX-License-Identifier: MIT */
/* The driver `nbd`, and the symbol by which the library finds it. See nbd.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "nbd.h"

/* Ranges without data: counted in 32 bits by the protocol, and halved to stay clear of that. */
#define NBD_RANGE_SECTORS (UINT64_C(1) << 21)

/* The same words are the same device. */
static int nbd_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	return snprintf(key, bytes, "%s", args) < (int)bytes ? 0 : -ENAMETOOLONG;
}

/* ---- opening ---- */

static bool is_block(uint64_t bytes)
{
	return bytes >= 512 && bytes <= DMCORE_BLOCK_BYTES_MAX && (bytes & (bytes - 1)) == 0;
}

static int set_limits(struct dmcore_bdev *bdev, const struct nbd_facts *facts)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	uint64_t block = facts->block_bytes > 512 ? facts->block_bytes : 512;
	uint64_t maximum = facts->maximum_bytes < NBD_REQUEST_BYTES ? facts->maximum_bytes
								    : NBD_REQUEST_BYTES;

	if (!is_block(block) || maximum < block)
		return dmcore_bdev_open_error(bdev, -EINVAL,
					      "the server's blocks of %" PRIu64 " to %" PRIu64
					      " bytes can't be used", facts->block_bytes,
					      facts->maximum_bytes);
	limits.caps = (facts->can_flush ? DMCORE_CAP_VOLATILE_CACHE : 0) |
		      (facts->can_fua ? DMCORE_CAP_FUA : 0) |
		      (facts->can_trim ? DMCORE_CAP_DISCARD : 0) |
		      (facts->can_zero ? DMCORE_CAP_WRITE_ZEROES : 0);
	limits.logical_block_bytes = (uint32_t)block;
	limits.physical_block_bytes = (uint32_t)block;
	if (is_block(facts->preferred_bytes) && facts->preferred_bytes > block)
		limits.physical_block_bytes = (uint32_t)facts->preferred_bytes;
	limits.io_min_bytes = limits.physical_block_bytes;
	limits.memory_align_bytes = 1;
	limits.max_io_sectors = maximum / block * block / DMCORE_SECTOR_BYTES;
	if (facts->can_trim) {
		limits.discard_granularity_bytes = limits.physical_block_bytes;
		limits.max_discard_sectors = NBD_RANGE_SECTORS;
	}
	if (facts->can_zero)
		limits.max_write_zeroes_sectors = NBD_RANGE_SECTORS;
	return dmcore_bdev_set_limits(bdev, &limits);
}

/* What the library has names for; the message tells the rest. */
static int open_error(int error)
{
	switch (error) {
	case EACCES:
	case EINVAL:
	case ENOENT:
	case ENOMEM:
	case EPERM:
	case ETIMEDOUT:
		return -error;
	default:
		return -EIO;
	}
}

/* Waits until the handle is ready. */
static int connect_first(struct dmcore_bdev *bdev, struct nbd_leaf *leaf)
{
	uint64_t until_ns = dmcore_clock_ns(leaf->core) + NBD_CONNECT_NS;
	int error;

	leaf->handle = nbd_connection_begin(leaf->options.uri, &error);
	if (!leaf->handle)
		return dmcore_bdev_open_error(bdev, open_error(-error), "%s", nbd_get_error());
	while (!nbd_aio_is_ready(leaf->handle)) {
		uint64_t now_ns = dmcore_clock_ns(leaf->core);

		if (nbd_aio_is_dead(leaf->handle) || nbd_aio_is_closed(leaf->handle)) {
			const char *why = nbd_get_error();

			return dmcore_bdev_open_error(bdev, open_error(nbd_get_errno()), "%s",
						      why ? why : "no connection");
		}
		if (now_ns >= until_ns)
			return dmcore_bdev_open_error(bdev, -ETIMEDOUT,
						      "the server doesn't answer within 10 s");
		nbd_connection_serve(leaf->handle, -1, (int64_t)(until_ns - now_ns));
	}
	error = nbd_connection_facts(leaf->handle, &leaf->facts);
	return error ? dmcore_bdev_open_error(bdev, error, "%s", nbd_get_error()) : 0;
}

static int make_slots(struct dmcore_bdev *bdev, struct nbd_leaf *leaf)
{
	unsigned int count = leaf->options.in_flight;

	leaf->slots = dmcore_zalloc(leaf->core, count * sizeof(*leaf->slots));
	/* Of which only what is used takes memory. */
	leaf->memory = mmap(NULL, (size_t)count * NBD_REQUEST_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (leaf->memory == MAP_FAILED)
		leaf->memory = NULL;
	if (!leaf->slots || !leaf->memory)
		return dmcore_bdev_open_error(bdev, -ENOMEM, "no memory for %u requests", count);
	for (unsigned int i = 0; i < count; i++) {
		leaf->slots[i].leaf = leaf;
		leaf->slots[i].memory = leaf->memory + (size_t)i * NBD_REQUEST_BYTES;
		leaf->slots[i].next = leaf->free_slots;
		leaf->free_slots = &leaf->slots[i];
	}
	return 0;
}

static void free_leaf(struct nbd_leaf *leaf)
{
	if (leaf->handle)
		nbd_close(leaf->handle);
	if (leaf->memory)
		munmap(leaf->memory, (size_t)leaf->options.in_flight * NBD_REQUEST_BYTES);
	dmcore_free(leaf->core, leaf->slots);
	nbd_options_free(leaf->core, &leaf->options);
	dmcore_free(leaf->core, leaf);
}

static int nbd_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	struct nbd_leaf *leaf = dmcore_zalloc(dmcore_bdev_core(bdev), sizeof(*leaf));
	int ret;

	if (!leaf)
		return dmcore_bdev_open_error(bdev, -ENOMEM, "no memory");
	leaf->core = dmcore_bdev_core(bdev);
	ret = nbd_options_parse(bdev, args, &leaf->options);
	if (ret == 0)
		ret = make_slots(bdev, leaf);
	if (ret == 0)
		ret = connect_first(bdev, leaf);
	if (ret == 0 && leaf->facts.read_only && !(flags & DMCORE_OPEN_READ_ONLY))
		ret = dmcore_bdev_open_error(bdev, -EROFS, "the export can only be read");
	if (ret == 0)
		ret = set_limits(bdev, &leaf->facts);
	if (ret == 0) {
		ret = nbd_thread_start(leaf);
		if (ret)
			dmcore_bdev_open_error(bdev, ret, "no thread: %s", strerror(-ret));
	}
	if (ret) {
		free_leaf(leaf);
		return ret;
	}
	dmcore_bdev_set_size(bdev, leaf->facts.size_bytes / DMCORE_SECTOR_BYTES);
	dmcore_bdev_set_private(bdev, leaf);
	return 0;
}

static void nbd_close_device(struct dmcore_bdev *bdev)
{
	struct nbd_leaf *leaf = dmcore_bdev_private(bdev);

	nbd_thread_stop(leaf);
	free_leaf(leaf);
}

static void nbd_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	nbd_thread_submit(dmcore_bdev_private(bdev), bio);
}

/* ---- what the library finds ---- */

static const struct dmcore_driver nbd_driver = {
	.struct_size = sizeof(nbd_driver),
	.name = "nbd",
	.version = { 1, 0, 0 },
	.identify = nbd_identify,
	.open = nbd_open,
	.close = nbd_close_device,
	.submit = nbd_submit,
};

static int register_nbd(struct dmcore *core)
{
	return dmcore_driver_register(core, &nbd_driver);
}

DMCORE_API extern const struct dmcore_driver_module dmcore_driver_module;

const struct dmcore_driver_module dmcore_driver_module = {
	.abi = DMCORE_MODULE_ABI,
	.name = "nbd",
	.register_drivers = register_nbd,
};
