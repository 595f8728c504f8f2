/* SPDX-License-Identifier: MIT */
/**
 * @file limits.h
 * @defgroup limits Limits
 * Every maximum of the library, each with its reason.
 * @{
 */
#ifndef DMCORE_LIMITS_H
#define DMCORE_LIMITS_H

/** log2 of a sector. A sector is 512 bytes everywhere, whatever the device's block size. */
#define DMCORE_SECTOR_SHIFT 9
/** Bytes in a sector. */
#define DMCORE_SECTOR_BYTES 512

/** Largest device in sectors: byte offsets must fit a signed 64-bit off_t. */
#define DMCORE_DEVICE_SECTORS_MAX ((UINT64_C(1) << 54) - 1)
/** Targets in a table, as in the kernel. */
#define DMCORE_TABLE_TARGETS_MAX 1048576
/** Bytes of a table text: a million lines with room for long paths; garbage stops here. */
#define DMCORE_TABLE_TEXT_BYTES_MAX (256u << 20)
/** Words of one target line: 2 for each of as many stripes as devices can be open, and some. */
#define DMCORE_TARGET_ARGS_MAX 131072
/** Characters of a target type's name, as the kernel's 16-byte field allows. */
#define DMCORE_TYPE_NAME_MAX 15
/** Characters of a device name, as in the kernel. */
#define DMCORE_NAME_MAX 127
/** Characters of a device uuid, as in the kernel. */
#define DMCORE_UUID_MAX 128
/** Bytes of an error message, its NUL included; longer ones are cut. */
#define DMCORE_ERROR_BYTES_MAX 1024

/**
 * Mapped devices on top of each other. Also bounded by DMCORE_BIO_FRAME_BYTES, which is the real
 * limit for layers that split.
 */
#define DMCORE_STACK_DEPTH_MAX 64
/**
 * Bytes of completion frames in a bio: 64 layers of single-target tables (16 bytes each) and what
 * flush ordering at the top and emulation at the leaf need; a table whose deepest path needs more
 * is refused when it is loaded.
 */
#define DMCORE_BIO_FRAME_BYTES 1792
/** Bytes of scratch memory that a leaf driver has in each bio. */
#define DMCORE_BIO_DRIVER_BYTES 256

/** Areas of a statistics region, as in the kernel. */
#define DMCORE_STATS_AREAS_MAX 8388608
/** Buckets of a region's histograms, all areas together, as in the kernel. */
#define DMCORE_STATS_BUCKETS_MAX 134217728
/** Regions of one device: each is looked at for each request. */
#define DMCORE_STATS_REGIONS_MAX 256

/** Devices open at once in one core, the default. Each costs 8 bytes in every queue. */
#define DMCORE_BDEVS_DEFAULT 4096
/** Devices open at once in one core, the largest that can be asked for. */
#define DMCORE_BDEVS_MAX 65536
/** Queues of one core: each is watched when a device is suspended or closed. */
#define DMCORE_QUEUES_MAX 1024
/** Queues of one core, those that it makes for itself included: see dmcore_queue_index(). */
#define DMCORE_QUEUE_INDICES_MAX (DMCORE_QUEUES_MAX + 128)

/** Requests in flight at a queue's backend, the default: small, for locked memory is shared. */
#define DMCORE_QUEUE_DEPTH_DEFAULT 128
/** Requests in flight at a queue's backend, the largest: what io_uring takes for its SQ. */
#define DMCORE_QUEUE_DEPTH_MAX 32768
/** Bios in a queue's pool, the default. */
#define DMCORE_QUEUE_BIOS_DEFAULT 256
/** Bios kept for the pieces of split requests, the default; with none left, pieces go in turn. */
#define DMCORE_QUEUE_SPLITS_DEFAULT 128
/** Bios in either pool, the largest. */
#define DMCORE_QUEUE_BIOS_MAX 65536
/** Threads of a pread backend. */
#define DMCORE_QUEUE_WORKERS_MAX 64
/** Buffers that a queue keeps for direct I/O from memory of the wrong alignment. */
#define DMCORE_BOUNCE_BUFFERS 4
/** Bytes of each of them; larger requests pass through in pieces. */
#define DMCORE_BOUNCE_BYTES (256u << 10)
/** Memory ranges that a queue can register with io_uring. */
#define DMCORE_QUEUE_BUFFERS_MAX 16

/** Bytes of each such range, as io_uring takes them. */
#define DMCORE_QUEUE_BUFFER_BYTES_MAX (1u << 30)

/** Largest block size: what fits in a bounce buffer, and far above any disk's. */
#define DMCORE_BLOCK_BYTES_MAX (64u << 10)

/** Disks of a simulated world. */
#define DMCORE_SIM_DISKS_MAX 64
/** Characters of a simulated disk's name. */
#define DMCORE_SIM_NAME_MAX 63
/** Sectors of a simulated disk: 1 TiB, of which only what is written takes memory. */
#define DMCORE_SIM_DISK_SECTORS_MAX (UINT64_C(1) << 31)
/** Units that a simulated disk keeps versions of, in its cache or in a history. */
#define DMCORE_SIM_CACHE_UNITS_MAX (1u << 21)
/** Rules of a simulated disk. */
#define DMCORE_SIM_RULES_MAX 64
/** Marks of a recorded history. */
#define DMCORE_SIM_MARKS_MAX (1u << 20)
/** Cuts within cuts. */
#define DMCORE_SIM_NESTED_MAX 4

/** Regions of one dm-io request: the error bits are an unsigned long. */
#define DMIO_REGIONS_MAX (8 * (unsigned int)sizeof(unsigned long))
/** Bytes of a page in a dmio_page_list. */
#define DMIO_PAGE_BYTES 4096
/** Pages that one dm-io client can reserve: 4 GiB in flight. */
#define DMIO_PAGES_MAX (1u << 20)

/** Destinations of a copy, as in the kernel. */
#define KCOPYD_DESTS_MAX 8
/** Pages of DMIO_PAGE_BYTES that one kcopyd client can set aside: 1 GiB, far above what any disk
 *  needs under way. */
#define KCOPYD_PAGES_MAX (1u << 18)
/** Slices of one job under way at the same time, as in the kernel. */
#define KCOPYD_SUBJOBS_MAX 8
/** Sectors of a slice, the default: 128 KiB, which stay in a core's cache from the read to the
 *  write. Larger ones are slower through page caches, and no faster past them. */
#define KCOPYD_SUBJOB_SECTORS_DEFAULT 256
/** Sectors of a slice, the largest that can be asked for: the kernel's 1 MiB. */
#define KCOPYD_SUBJOB_SECTORS_MAX 2048
/** Jobs of a client's own, the default. */
#define KCOPYD_JOBS_DEFAULT 128
/** Jobs of a client's own, the largest. */
#define KCOPYD_JOBS_MAX 65536

#endif
/** @} */
