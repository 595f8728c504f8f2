/* SPDX-License-Identifier: MIT */
/*
 * Opens a file or a block device node, and asks the kernel how large it is, how it wants to be
 * used and what it can do. Nothing about alignment is assumed. Called by file.c's driver.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "bdev/drivers/file/file.h"

#define NO_DIRECT "its file system refuses O_DIRECT; open it without DMCORE_OPEN_DIRECT"
#define IN_USE "in use, by a mounted file system or another program"
#define READ_ONLY "is read-only; open it with DMCORE_OPEN_READ_ONLY"

/* What a file is taken to prefer when its file system has no sensible answer. */
#define PREFERRED_BYTES_DEFAULT 4096u

/* Younger than some <linux/magic.h>. */
#define BCACHEFS_MAGIC 0xca451a4e
#define CIFS_MAGIC 0xff534d42
#define GFS2_MAGIC_NUMBER 0x01161970
#define SMB2_MAGIC 0xfe534d42
#define ZFS_MAGIC 0x2fc12fc1

/* Of what stat() tells, which knows no other kinds. */
static const char *kind_of(mode_t mode)
{
	if (S_ISDIR(mode))
		return "a directory";
	if (S_ISFIFO(mode))
		return "a FIFO";
	if (S_ISSOCK(mode))
		return "a socket";
	return "a character device";
}

static int check_kind(struct dmcore_bdev *bdev, const struct stat *st)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	return dmcore_bdev_open_error(bdev, -EINVAL,
				      "is %s: neither a regular file nor a block device",
				      kind_of(st->st_mode));
}

/* Says why open() refused what stat() has found, where errno doesn't say enough. */
static int explain_open(struct dmcore_bdev *bdev, int error, unsigned int flags)
{
	if ((error == EINVAL || error == EOPNOTSUPP) && flags & DMCORE_OPEN_DIRECT)
		return dmcore_bdev_open_error(bdev, -EINVAL, NO_DIRECT);
	if (error == EROFS)
		return dmcore_bdev_open_error(bdev, -EROFS, READ_ONLY);
	if (error == EBUSY)
		return dmcore_bdev_open_error(bdev, -EBUSY, IN_USE);
	return -error;
}

/* Opens, and says what it is; returns a descriptor or a negative errno. */
static int open_checked(struct dmcore_bdev *bdev, const char *path, int mode, unsigned int flags,
			struct stat *st)
{
	int fd = open(path, mode | O_CLOEXEC | O_NOCTTY);
	int ret;

	if (fd < 0)
		return explain_open(bdev, errno, flags);
	ret = fstat(fd, st) < 0 ? -errno : check_kind(bdev, st);
	if (ret) {
		close(fd);
		return ret;
	}
	return fd;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_rdev == b->st_rdev;
}

/*
 * Claims a node that will be written, as the kernel's dm does, by a descriptor that reads and
 * writes don't use: rings may keep those open for a while after they have been closed.
 */
static int claim(struct dmcore_bdev *bdev, struct filedev *device, const char *path,
		 unsigned int flags, struct stat *st)
{
	if (!S_ISBLK(st->st_mode) || flags & DMCORE_OPEN_READ_ONLY)
		return 0;
	device->claim_fd = open_checked(bdev, path, O_RDWR | O_EXCL, flags, st);
	return device->claim_fd < 0 ? device->claim_fd : 0;
}

/* Opens what all calls but syncs go to, and tells what it is. */
static int open_main(struct dmcore_bdev *bdev, struct filedev *device, const char *path,
		     unsigned int flags, struct stat *st)
{
	int mode = flags & DMCORE_OPEN_READ_ONLY ? O_RDONLY : O_RDWR;
	struct stat claimed;
	int ret;
	int fd;

	/* Before opening it, because that waits for a FIFO's writer, and moves a tape. */
	if (stat(path, st) < 0)
		return -errno;
	ret = check_kind(bdev, st);
	if (ret)
		return ret;
	ret = claim(bdev, device, path, flags, st);
	if (ret)
		return ret;
	claimed = *st;
	if (flags & DMCORE_OPEN_DIRECT)
		mode |= O_DIRECT;
	fd = open_checked(bdev, path, mode, flags, st);
	if (fd < 0)
		return fd;
	device->openings[FILEDEV_MAIN].fd = fd;
	device->num_openings = 1;
	if (device->claim_fd >= 0 && !is_same(&claimed, st))
		return dmcore_bdev_open_error(bdev, -EBUSY, "was replaced while it was opened");
	return 0;
}

/* The same file once more; returns a descriptor or a negative errno. */
static int reopen(int fd, const struct stat *st)
{
	struct stat again;
	char path[32];
	int fresh;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fresh = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (fresh < 0)
		return -errno;
	if (fstat(fresh, &again) == 0 && is_same(&again, st))
		return fresh;
	close(fresh);
	return -ENOENT;
}

/*
 * Opens what only syncs go to. Those that can't be had aren't needed; and if there are no more
 * descriptors, the program needs them more.
 */
static void open_more(struct filedev *device, const struct stat *st)
{
	int fd = 0;

	while (device->num_openings < FILEDEV_OPENINGS && fd >= 0) {
		fd = reopen(device->openings[FILEDEV_MAIN].fd, st);
		if (fd >= 0)
			device->openings[device->num_openings++].fd = fd;
	}
	while ((fd == -EMFILE || fd == -ENFILE) && device->num_openings > 1)
		close(device->openings[--device->num_openings].fd);
}

static int attach(struct dmcore *core, struct filedev *device)
{
	for (unsigned int i = 0; i < device->num_openings; i++) {
		int ret = dmcore_file_attach(core, device->openings[i].fd,
					     &device->openings[i].file);

		if (ret)
			return ret;
		atomic_fetch_or(&device->free_openings, UINT32_C(1) << i);
	}
	device->file = device->openings[FILEDEV_MAIN].file;
	return device->claim_fd < 0 ? 0
				    : dmcore_file_attach(core, device->claim_fd, &device->claim);
}

static void destroy(struct dmcore *core, struct filedev *device)
{
	while (device->num_openings > 0) {
		device->num_openings--;
		dmcore_file_detach(device->openings[device->num_openings].file);
		/* An error here is of writes that no flush has asked about. */
		close(device->openings[device->num_openings].fd);
	}
	dmcore_file_detach(device->claim);
	if (device->claim_fd >= 0)
		close(device->claim_fd);
	dmcore_free(core, device);
}

/* What the kernel says about direct I/O: 1, known; 0, it doesn't say; or a negative errno. */
static int ask_direct(struct dmcore_bdev *bdev, int fd, struct dmcore_limits *limits)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    stx.stx_mask & STATX_DIOALIGN) {
		if (stx.stx_dio_offset_align == 0)
			return dmcore_bdev_open_error(bdev, -EINVAL, NO_DIRECT);
		limits->logical_block_bytes = (uint32_t)dmcore__max_u64(
			limits->logical_block_bytes, stx.stx_dio_offset_align);
		limits->memory_align_bytes = (uint32_t)dmcore__max_u64(1, stx.stx_dio_mem_align);
		return 1;
	}
#else
	(void)bdev;
	(void)fd;
	(void)limits;
#endif
	return 0;
}

/*
 * Finds the smallest block that can be read directly, for kernels that don't tell: block by block
 * into memory that is aligned no better than the block. 0: no read succeeded.
 */
static uint32_t probe_direct(int fd)
{
	size_t bytes = (size_t)2 * DMCORE_BLOCK_BYTES_MAX;
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);
	uint32_t found = 0;

	if (memory == MAP_FAILED)
		return 0;
	for (uint32_t block = DMCORE_SECTOR_BYTES; block <= DMCORE_BLOCK_BYTES_MAX && !found;
	     block *= 2) {
		if (lseek(fd, 0, SEEK_SET) == 0 && read(fd, memory + block, block) == (int)block)
			found = block;
	}
	munmap(memory, bytes);
	return found;
}

/* Block and memory alignment of direct I/O; `fallback_bytes` if there is no way to know. */
static int measure_direct(struct dmcore_bdev *bdev, int fd, uint32_t fallback_bytes,
			  struct dmcore_limits *limits)
{
	int ret = ask_direct(bdev, fd, limits);
	uint32_t block;

	if (ret)
		return ret < 0 ? ret : 0;
	block = probe_direct(fd);
	if (block == 0)
		block = fallback_bytes;
	limits->logical_block_bytes =
		(uint32_t)dmcore__max_u64(limits->logical_block_bytes, block);
	limits->memory_align_bytes = block;
	return 0;
}

/* Whether it is a file system known to free the middle of a file. */
static bool can_punch_holes(int fd)
{
	static const uint32_t magics[] = {
		BCACHEFS_MAGIC,    BTRFS_SUPER_MAGIC,     CEPH_SUPER_MAGIC,
		CIFS_MAGIC,        EXT4_SUPER_MAGIC,      F2FS_SUPER_MAGIC,
		FUSE_SUPER_MAGIC,  GFS2_MAGIC_NUMBER,     NFS_SUPER_MAGIC,
		OCFS2_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, SMB2_MAGIC,
		TMPFS_MAGIC,       XFS_SUPER_MAGIC,       ZFS_MAGIC,
	};
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++) {
		if ((uint32_t)fs.f_type == magics[i])
			return true;
	}
	return false;
}

/* Direct I/O can't reach what a file has behind its last whole block. */
static void set_file_size(struct dmcore_bdev *bdev, uint64_t size_bytes, uint32_t block_bytes)
{
	size_bytes &= ~(uint64_t)(block_bytes - 1);
	dmcore_bdev_set_size(bdev, dmcore__bytes_to_sectors(size_bytes));
}

static int measure_regular(struct dmcore_bdev *bdev, int fd, const struct stat *st,
			   unsigned int flags, struct dmcore_limits *limits)
{
	uint32_t preferred = (uint32_t)st->st_blksize;

	if (!dmcore__is_power_of_two(preferred) || preferred < DMCORE_SECTOR_BYTES)
		preferred = PREFERRED_BYTES_DEFAULT;
	if (flags & DMCORE_OPEN_DIRECT) {
		int ret = measure_direct(bdev, fd, preferred, limits);

		if (ret)
			return ret;
	}
	limits->io_min_bytes = preferred;
	if (can_punch_holes(fd)) {
		limits->caps |= DMCORE_CAP_DISCARD | DMCORE_CAP_DISCARD_ZEROES;
		limits->discard_granularity_bytes = preferred;
	}
	set_file_size(bdev, (uint64_t)st->st_size, limits->logical_block_bytes);
	return 0;
}

/* A number of the kernel's about a disk; a partition's is its disk's. 0: none. */
static uint32_t read_queue_number(dev_t device, const char *name)
{
	static const char *const places[] = { "", "../" };
	char text[16] = "";
	char path[96];
	uint64_t value = 0;
	int fd = -1;

	for (size_t i = 0; i < 2 && fd < 0; i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", major(device),
			 minor(device), places[i], name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	for (const char *digit = text; *digit >= '0' && *digit <= '9'; digit++)
		value = value * 10 + (uint64_t)(*digit - '0');
	return value > UINT32_MAX ? 0 : (uint32_t)value;
}

/* The range is malformed, so nothing is discarded; but whether the device can is checked before. */
static bool can_discard(int fd)
{
	uint64_t range[2] = { 1, 1 };

	return ioctl(fd, BLKDISCARD, range) < 0 && errno == EINVAL;
}

static int measure_block(struct dmcore_bdev *bdev, int fd, const struct stat *st,
			 unsigned int flags, struct dmcore_limits *limits)
{
	unsigned int physical = 0;
	unsigned int io_min = 0;
	unsigned int io_opt = 0;
	uint64_t size_bytes = 0;
	int logical = 0;
	int is_read_only = 0;

	if (ioctl(fd, BLKGETSIZE64, &size_bytes) < 0 || ioctl(fd, BLKSSZGET, &logical) < 0 ||
	    ioctl(fd, BLKROGET, &is_read_only) < 0)
		return dmcore_bdev_open_error(bdev, -errno, "doesn't tell its size and block size");
	if (is_read_only && !(flags & DMCORE_OPEN_READ_ONLY))
		return dmcore_bdev_open_error(bdev, -EROFS, READ_ONLY);
	limits->logical_block_bytes = (uint32_t)logical;
	if (ioctl(fd, BLKPBSZGET, &physical) == 0)
		limits->physical_block_bytes = physical;
	if (ioctl(fd, BLKIOMIN, &io_min) == 0)
		limits->io_min_bytes = io_min;
	if (ioctl(fd, BLKIOOPT, &io_opt) == 0)
		limits->io_opt_bytes = io_opt;
	if (flags & DMCORE_OPEN_DIRECT) {
		int ret = measure_direct(bdev, fd, (uint32_t)logical, limits);

		if (ret)
			return ret;
	}
	if (!(flags & DMCORE_OPEN_READ_ONLY) && can_discard(fd)) {
		limits->caps |= DMCORE_CAP_DISCARD;
		limits->discard_granularity_bytes =
			read_queue_number(st->st_rdev, "discard_granularity");
	}
	dmcore_bdev_set_size(bdev, dmcore__bytes_to_sectors(size_bytes));
	return 0;
}

/* Size and limits of the device, and what of them its requests look at. */
static int measure(struct dmcore_bdev *bdev, struct filedev *device, const struct stat *st,
		   unsigned int flags)
{
	struct dmcore_limits limits = {
		.struct_size = sizeof(limits),
		.caps = DMCORE_CAP_VOLATILE_CACHE | DMCORE_CAP_FUA | DMCORE_CAP_WRITE_ZEROES,
		.logical_block_bytes = DMCORE_SECTOR_BYTES,
		.memory_align_bytes = 1,
	};
	int fd = device->openings[FILEDEV_MAIN].fd;
	int ret;

	if (device->is_block)
		ret = measure_block(bdev, fd, st, flags, &limits);
	else
		ret = measure_regular(bdev, fd, st, flags, &limits);
	if (ret)
		return ret;
	if (flags & DMCORE_OPEN_DIRECT) {
		device->memory_mask = limits.memory_align_bytes - 1;
		device->length_mask = limits.logical_block_bytes - 1;
	}
	return dmcore_bdev_set_limits(bdev, &limits);
}

int dmcore__filedev_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	struct dmcore *core = dmcore_bdev_core(bdev);
	struct filedev *device;
	struct stat st;
	int ret;

	device = dmcore_zalloc(core, sizeof(*device));
	if (!device)
		return -ENOMEM;
	device->claim_fd = -1;
	ret = open_main(bdev, device, args, flags, &st);
	if (ret)
		goto fail;
	device->is_block = S_ISBLK(st.st_mode);
	device->read_only = flags & DMCORE_OPEN_READ_ONLY;
	ret = measure(bdev, device, &st, flags);
	if (ret)
		goto fail;
	if (!device->read_only)
		open_more(device, &st);
	ret = attach(core, device);
	if (ret)
		goto fail;
	dmcore_bdev_set_private(bdev, device);
	return 0;

fail:
	destroy(core, device);
	return ret;
}

int dmcore__filedev_refresh(struct dmcore_bdev *bdev)
{
	const struct filedev *device = dmcore_bdev_private(bdev);
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	int fd = device->openings[FILEDEV_MAIN].fd;
	uint64_t size_bytes = 0;
	struct stat st;

	if (device->is_block) {
		if (ioctl(fd, BLKGETSIZE64, &size_bytes) < 0)
			return dmcore_bdev_open_error(bdev, -errno, "doesn't tell its size");
		dmcore_bdev_set_size(bdev, dmcore__bytes_to_sectors(size_bytes));
		return 0;
	}
	if (fstat(fd, &st) < 0)
		return dmcore_bdev_open_error(bdev, -errno, "doesn't tell its size");
	dmcore_bdev_limits(bdev, &limits);
	set_file_size(bdev, (uint64_t)st.st_size, limits.logical_block_bytes);
	return 0;
}

void dmcore__filedev_close(struct dmcore_bdev *bdev)
{
	destroy(dmcore_bdev_core(bdev), dmcore_bdev_private(bdev));
}
