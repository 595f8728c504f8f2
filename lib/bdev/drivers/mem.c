/* SPDX-License-Identifier: MIT */
/*
 * mem: a RAM disk, zero-filled at first, gone when it is closed.
 *
 * Specification:  mem:SIZE[,name=WORD][,block=BYTES]
 *
 * SIZE is in bytes, or with a suffix k, M, G or T in their powers of 1024, or with s in sectors.
 * Memory is taken when it is first written, so the size may be far above what the machine has; of
 * chunks that never were it is known that they are zero.
 * Openings with the same name are one disk; SIZE and block of the first count. Called by the core
 * through the driver's functions.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <dmcore/driver.h>

#include "base/checked.h"

/* Characters of a name, its NUL included. */
#define NAME_BYTES 64

/* What is known to be zero is known in chunks of 64 KiB; one answer looks at 4 GiB. */
#define CHUNK_SHIFT 16
#define LOOK_CHUNKS_MAX (UINT64_C(1) << 16)

struct mem {
	char *memory;
	uint64_t bytes;
	uint64_t page_bytes;
	_Atomic uint64_t *written; /* a bit for each chunk; none is ever taken back */
	uint64_t written_bytes;
};

struct mem_args {
	uint64_t size_bytes;
	uint32_t block_bytes;
	char name[NAME_BYTES]; /* "": none */
};

/* Reads digits up to `end`. */
static bool parse_number(const char *text, const char *end, uint64_t *value)
{
	uint64_t number = 0;

	if (text == end)
		return false;
	for (; text < end; text++) {
		if (*text < '0' || *text > '9' || dmcore__mul_overflows(number, 10, &number) ||
		    dmcore__add_overflows(number, (uint64_t)(*text - '0'), &number))
			return false;
	}
	*value = number;
	return true;
}

static bool parse_size(const char *text, const char *end, uint64_t *bytes)
{
	uint64_t unit = 1;
	uint64_t number;

	if (text == end)
		return false;
	switch (end[-1]) {
	case 's':
		unit = DMCORE_SECTOR_BYTES;
		break;
	case 'k':
	case 'K':
		unit = UINT64_C(1) << 10;
		break;
	case 'm':
	case 'M':
		unit = UINT64_C(1) << 20;
		break;
	case 'g':
	case 'G':
		unit = UINT64_C(1) << 30;
		break;
	case 't':
	case 'T':
		unit = UINT64_C(1) << 40;
		break;
	default:
		break;
	}
	if (unit > 1)
		end--;
	return parse_number(text, end, &number) && !dmcore__mul_overflows(number, unit, bytes);
}

static bool parse_name(const char *text, const char *end, char *name)
{
	size_t length = (size_t)(end - text);

	if (length == 0 || length >= NAME_BYTES)
		return false;
	memcpy(name, text, length);
	name[length] = '\0';
	return true;
}

static bool parse_block(const char *text, const char *end, uint32_t *block_bytes)
{
	uint64_t bytes;

	if (!parse_number(text, end, &bytes) || !dmcore__is_power_of_two(bytes) ||
	    bytes < DMCORE_SECTOR_BYTES || bytes > DMCORE_BLOCK_BYTES_MAX)
		return false;
	*block_bytes = (uint32_t)bytes;
	return true;
}

/* Returns what is wrong, or NULL. */
static const char *parse_args(const char *text, struct mem_args *args)
{
	const char *end = text + strcspn(text, ",");
	bool valid;

	args->block_bytes = DMCORE_SECTOR_BYTES;
	args->name[0] = '\0';
	if (!parse_size(text, end, &args->size_bytes))
		return "SIZE must be digits, and k, M, G, T or s behind them";
	while (*end == ',') {
		text = end + 1;
		end = text + strcspn(text, ",");
		if (strncmp(text, "name=", 5) == 0)
			valid = parse_name(text + 5, end, args->name);
		else if (strncmp(text, "block=", 6) == 0)
			valid = parse_block(text + 6, end, &args->block_bytes);
		else
			return "the options are name=WORD and block=BYTES";
		if (!valid)
			return "name=WORD takes 1 to 63 characters, block=BYTES a power of two "
			       "from 512 to 65536";
	}
	if (args->size_bytes == 0 || args->size_bytes % args->block_bytes != 0)
		return "SIZE must be a multiple of the block, and not 0";
	if (dmcore__bytes_to_sectors(args->size_bytes) > DMCORE_DEVICE_SECTORS_MAX)
		return "SIZE is beyond the largest device";
	return NULL;
}

static int mem_identify(struct dmcore *core, const char *text, char *key, size_t bytes)
{
	struct mem_args args;

	(void)core;
	/* What is malformed is shared with nothing: open says what is wrong. */
	if (!parse_args(text, &args))
		snprintf(key, bytes, "%s", args.name);
	return 0;
}

/* Zeroed memory that is taken as it is written; NULL: no room. */
static void *reserve(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void destroy(struct dmcore *core, struct mem *mem)
{
	if (mem->memory)
		munmap(mem->memory, mem->bytes);
	if (mem->written)
		munmap(mem->written, mem->written_bytes);
	dmcore_free(core, mem);
}

static int mem_open(struct dmcore_bdev *bdev, const char *text, unsigned int flags)
{
	struct dmcore_limits limits = {
		.struct_size = sizeof(limits),
		.caps = DMCORE_CAP_FUA | DMCORE_CAP_DISCARD | DMCORE_CAP_DISCARD_ZEROES |
			DMCORE_CAP_WRITE_ZEROES,
		.memory_align_bytes = 1,
	};
	struct dmcore *core = dmcore_bdev_core(bdev);
	struct mem_args args;
	const char *wrong = parse_args(text, &args);
	struct mem *mem;
	int ret;

	(void)flags;
	if (wrong)
		return dmcore_bdev_open_error(bdev, -EINVAL, "%s", wrong);
	mem = dmcore_zalloc(core, sizeof(*mem));
	if (!mem)
		return -ENOMEM;
	mem->bytes = args.size_bytes;
	mem->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	mem->written_bytes = ((mem->bytes >> CHUNK_SHIFT) / 64 + 1) * sizeof(*mem->written);
	mem->memory = reserve(mem->bytes);
	mem->written = reserve(mem->written_bytes);
	if (!mem->memory || !mem->written) {
		ret = dmcore_bdev_open_error(bdev, -ENOMEM, "no room for %llu bytes of memory",
					     (unsigned long long)mem->bytes);
		goto fail;
	}
	limits.logical_block_bytes = args.block_bytes;
	limits.discard_granularity_bytes = (uint32_t)mem->page_bytes;
	ret = dmcore_bdev_set_limits(bdev, &limits);
	if (ret)
		goto fail;
	dmcore_bdev_set_size(bdev, dmcore__bytes_to_sectors(mem->bytes));
	dmcore_bdev_set_private(bdev, mem);
	return 0;

fail:
	destroy(core, mem);
	return ret;
}

static void mem_close(struct dmcore_bdev *bdev)
{
	struct mem *mem = dmcore_bdev_private(bdev);

	destroy(dmcore_bdev_core(bdev), mem);
}

/* Zeroes a range, and gives back the whole pages in it. */
static void zero(const struct mem *mem, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t page_mask = mem->page_bytes - 1;
	uint64_t end_bytes = offset_bytes + len_bytes;
	uint64_t first_page = (offset_bytes + page_mask) & ~page_mask;
	uint64_t last_page = end_bytes & ~page_mask;

	/* Locked memory isn't given back. */
	if (first_page >= last_page ||
	    madvise(mem->memory + first_page, last_page - first_page, MADV_DONTNEED) < 0) {
		memset(mem->memory + offset_bytes, 0, len_bytes);
		return;
	}
	memset(mem->memory + offset_bytes, 0, first_page - offset_bytes);
	memset(mem->memory + last_page, 0, end_bytes - last_page);
}

static bool is_written(const struct mem *mem, uint64_t chunk)
{
	return atomic_load_explicit(&mem->written[chunk / 64], memory_order_relaxed) >>
		       chunk % 64 &
	       1;
}

/* Before it is. */
static void note_written(const struct mem *mem, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t last = (offset_bytes + len_bytes - 1) >> CHUNK_SHIFT;

	for (uint64_t chunk = offset_bytes >> CHUNK_SHIFT; chunk <= last; chunk++) {
		if (!is_written(mem, chunk))
			atomic_fetch_or_explicit(&mem->written[chunk / 64],
						 UINT64_C(1) << chunk % 64, memory_order_relaxed);
	}
}

static void mem_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	const struct mem *mem = dmcore_bdev_private(bdev);
	uint64_t offset_bytes = dmcore__sectors_to_bytes(bio->sector);
	int status = 0;

	switch (bio->op) {
	case DMCORE_OP_READ:
	case DMCORE_OP_WRITE:
		if (bio->op == DMCORE_OP_WRITE)
			note_written(mem, offset_bytes, dmcore__sectors_to_bytes(bio->count));
		status = dmcore_bio_copy(bio, mem->memory + offset_bytes);
		break;
	case DMCORE_OP_DISCARD:
	case DMCORE_OP_WRITE_ZEROES:
		zero(mem, offset_bytes, dmcore__sectors_to_bytes(bio->count));
		break;
	case DMCORE_OP_FLUSH:
		break;
	default:
		status = -EOPNOTSUPP;
		break;
	}
	dmcore_bio_complete(bio, status);
}

static int mem_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		      struct dmcore_extent *extent)
{
	const struct mem *mem = dmcore_bdev_private(bdev);
	uint64_t begin_bytes = dmcore__sectors_to_bytes(sector);
	uint64_t end_bytes = begin_bytes + dmcore__sectors_to_bytes(count);
	uint64_t chunk = begin_bytes >> CHUNK_SHIFT;
	uint64_t last = dmcore__min_u64((end_bytes - 1) >> CHUNK_SHIFT, chunk + LOOK_CHUNKS_MAX);
	bool written = is_written(mem, chunk);

	while (chunk < last && is_written(mem, chunk + 1) == written)
		chunk++;
	end_bytes = dmcore__min_u64(end_bytes, (chunk + 1) << CHUNK_SHIFT);
	extent->kind = written ? DMCORE_EXTENT_DATA : DMCORE_EXTENT_ZERO;
	extent->count = dmcore__bytes_to_sectors(end_bytes - begin_bytes);
	return 0;
}

extern const struct dmcore_driver dmcore__driver_mem;

const struct dmcore_driver dmcore__driver_mem = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "mem",
	.version = { 1, 0, 0 },
	.features = DMCORE_DRIVER_ONE_OBJECT,
	.identify = mem_identify,
	.open = mem_open,
	.close = mem_close,
	.submit = mem_submit,
	.extent = mem_extent,
};
