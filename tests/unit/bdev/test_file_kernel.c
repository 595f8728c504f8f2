/* SPDX-License-Identifier: MIT */
/*
 * The driver "file" and what the kernel tells it while a file or a disk is opened: each answer, and
 * each call that fails. The linker sends those calls here first (--wrap, in tests/local.mk); a
 * nameless file stands in for a disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"
#include "../../support/scratch.h"

#define FILE_BYTES (1u << 20)
#define BLOCK 4096u
#define DISK "8:200"
#define NO_DIRECT "its file system refuses O_DIRECT; open it without DMCORE_OPEN_DIRECT"

/* One call that fails, after some that don't. */
struct failure {
	int error;
	unsigned int skip;
	unsigned int times; /* 0: for ever */
};

/* What the kernel says. Zero: what it says by itself. */
static struct {
	bool ready; /* calls of the test itself, before and after, aren't meant */
	unsigned int calls;
	struct failure open;
	struct failure stat;
	struct failure fstat;
	struct failure fstatfs;
	struct failure statx;
	struct failure mmap;
	struct failure lseek;
	struct failure read;
	bool is_disk;           /* the scratch file, that is */
	mode_t fstat_type;
	unsigned int new_inode; /* from this call of fstat() on it is another file */
	unsigned int fstats;
	long blksize;
	uint32_t fs_magic;
	bool tells_direct;
	uint32_t direct_offset;
	uint32_t direct_memory;
	uint32_t read_min; /* shorter reads fail */
	const char *node;  /* access() finds this one only */
	const char *queue_number;
	unsigned int queue_number_at; /* 1: the disk's own; 2: its disk's, as of a partition */
	unsigned int queue_opens;
	bool fails_discard_otherwise;
	bool discards; /* the malformed range, which it must not */
	unsigned long broken_ioctl;
	bool read_only_disk;
} kernel;

static struct rig rig;
static struct scratch scratch;
static unsigned char memory[BLOCK] __attribute__((aligned(4096)));

static bool fails(struct failure *failure)
{
	kernel.calls += kernel.ready;
	if (!kernel.ready || failure->error == 0)
		return false;
	if (failure->skip > 0) {
		failure->skip--;
		return false;
	}
	errno = failure->error;
	if (failure->times > 0 && --failure->times == 0)
		failure->error = 0;
	return true;
}

/* ---- the calls ---- */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_stat(const char *path, struct stat *st);
int __wrap_stat(const char *path, struct stat *st);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __real_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs);
int __real_statx(int fd, const char *path, int flags, unsigned int mask, struct statx *stx);
int __wrap_statx(int fd, const char *path, int flags, unsigned int mask, struct statx *stx);
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
off_t __real_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence);
ssize_t __real_read(int fd, void *buffer, size_t bytes);
ssize_t __wrap_read(int fd, void *buffer, size_t bytes);
int __real_access(const char *path, int mode);
int __wrap_access(const char *path, int mode);
int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static void as_disk(struct stat *st)
{
	if (!kernel.is_disk || !S_ISREG(st->st_mode))
		return;
	st->st_mode = S_IFBLK | 0600;
	st->st_rdev = makedev(8, 200);
}

/* A number of the disk's: a file with that text. */
static int open_queue_number(void)
{
	int fds[2];

	kernel.queue_opens++;
	if (!kernel.queue_number || kernel.queue_opens != kernel.queue_number_at) {
		errno = ENOENT;
		return -1;
	}
	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(write(fds[1], kernel.queue_number, strlen(kernel.queue_number)),
		     (ssize_t)strlen(kernel.queue_number));
	close(fds[1]);
	return fds[0];
}

static const char *path_of(const char *path)
{
	return kernel.node && strcmp(path, kernel.node) == 0 ? scratch.path : path;
}

int __wrap_open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list more;

	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(more, flags);
		mode = va_arg(more, mode_t);
		va_end(more);
	}
	if (strncmp(path, "/sys/dev/block/8:200/", 21) == 0)
		return open_queue_number();
	if (fails(&kernel.open))
		return -1;
	/* O_EXCL means something on a node only; nor can every folder do direct I/O. */
	return __real_open(path_of(path),
			   kernel.ready ? flags & ~(O_EXCL | O_DIRECT) : flags, mode);
}

int __wrap_stat(const char *path, struct stat *st)
{
	int ret;

	if (fails(&kernel.stat))
		return -1;
	ret = __real_stat(path_of(path), st);
	if (ret == 0)
		as_disk(st);
	return ret;
}

int __wrap_fstat(int fd, struct stat *st)
{
	int ret;

	if (fails(&kernel.fstat))
		return -1;
	ret = __real_fstat(fd, st);
	if (ret != 0 || !kernel.ready)
		return ret;
	as_disk(st);
	if (kernel.fstat_type)
		st->st_mode = kernel.fstat_type | 0600;
	if (kernel.blksize)
		st->st_blksize = kernel.blksize;
	if (kernel.new_inode && ++kernel.fstats >= kernel.new_inode)
		st->st_ino++;
	return 0;
}

int __wrap_fstatfs(int fd, struct statfs *fs)
{
	int ret = fails(&kernel.fstatfs) ? -1 : __real_fstatfs(fd, fs);

	if (ret == 0 && kernel.fs_magic)
		fs->f_type = (__typeof__(fs->f_type))kernel.fs_magic;
	return ret;
}

int __wrap_statx(int fd, const char *path, int flags, unsigned int mask, struct statx *stx)
{
	if (fails(&kernel.statx))
		return -1;
	if (!kernel.ready)
		return __real_statx(fd, path, flags, mask, stx);
	memset(stx, 0, sizeof(*stx));
#ifdef STATX_DIOALIGN
	if (kernel.tells_direct) {
		stx->stx_mask = STATX_DIOALIGN;
		stx->stx_dio_offset_align = kernel.direct_offset;
		stx->stx_dio_mem_align = kernel.direct_memory;
	}
#endif
	return 0;
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	return fails(&kernel.mmap) ? MAP_FAILED : __real_mmap(at, bytes, prot, flags, fd, offset);
}

off_t __wrap_lseek(int fd, off_t offset, int whence)
{
	return fails(&kernel.lseek) ? -1 : __real_lseek(fd, offset, whence);
}

ssize_t __wrap_read(int fd, void *buffer, size_t bytes)
{
	if (fails(&kernel.read))
		return -1;
	if (kernel.ready && kernel.read_min > bytes) {
		errno = EINVAL;
		return -1;
	}
	return __real_read(fd, buffer, bytes);
}

int __wrap_access(const char *path, int mode)
{
	if (!kernel.ready)
		return __real_access(path, mode);
	if (kernel.node && strcmp(path, kernel.node) == 0)
		return 0;
	errno = ENOENT;
	return -1;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list more;
	void *arg;

	va_start(more, request);
	arg = va_arg(more, void *);
	va_end(more);
	if (!kernel.is_disk)
		return __real_ioctl(fd, request, arg);
	kernel.calls++;
	if (request == kernel.broken_ioctl) {
		errno = ENOTTY;
		return -1;
	}
	switch (request) {
	case BLKGETSIZE64:
		*(uint64_t *)arg = FILE_BYTES;
		return 0;
	case BLKSSZGET:
		*(int *)arg = (int)BLOCK;
		return 0;
	case BLKROGET:
		*(int *)arg = kernel.read_only_disk;
		return 0;
	case BLKPBSZGET:
	case BLKIOMIN:
		*(unsigned int *)arg = 2 * BLOCK;
		return 0;
	case BLKIOOPT:
		*(unsigned int *)arg = 8 * BLOCK;
		return 0;
	case BLKDISCARD:
		errno = kernel.fails_discard_otherwise ? EOPNOTSUPP : EINVAL;
		return kernel.discards ? 0 : -1;
	default:
		errno = ENOTTY;
		return -1;
	}
}

/* ---- the tests ---- */

static void set_up(void)
{
	memset(&kernel, 0, sizeof(kernel));
	rig_create(&rig);
	scratch_create(&scratch, NULL, FILE_BYTES);
	kernel.ready = true;
	rig_open(&rig, scratch.path, 0);
	rig_close(&rig);
	if (kernel.calls == 0)
		cr_skip("the library's calls don't pass through the tests here");
	memset(&kernel, 0, sizeof(kernel));
	kernel.ready = true;
}

static void tear_down(void)
{
	memset(&kernel, 0, sizeof(kernel));
	rig_destroy(&rig);
	scratch_close(&scratch);
}

TestSuite(file_kernel, .init = set_up, .fini = tear_down);

static void open_fails(unsigned int flags, int error, const char *message)
{
	rig_open_fails(&rig, scratch.path, flags, error, message);
}

Test(file_kernel, what_cannot_be_a_disk_is_named)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_geq(fd, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/dmcore-socket-%ld", scratch_dir(),
		 (long)getpid());
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	rig_open_fails(&rig, address.sun_path, 0, -EINVAL,
		       "is a socket: neither a regular file nor a block device");
	cr_assert_eq(unlink(address.sun_path), 0);
	close(fd);
	rig_open_fails(&rig, "/dev/null", 0, -EINVAL,
		       "is a character device: neither a regular file nor a block device");
}

Test(file_kernel, what_open_refuses_is_explained)
{
	kernel.open = (struct failure){ .error = EINVAL };
	open_fails(DMCORE_OPEN_DIRECT, -EINVAL, NO_DIRECT);
	kernel.open = (struct failure){ .error = EOPNOTSUPP };
	open_fails(DMCORE_OPEN_DIRECT, -EINVAL, NO_DIRECT);
	open_fails(0, -EOPNOTSUPP, "Operation not supported (EOPNOTSUPP)");
	kernel.open = (struct failure){ .error = EINVAL };
	open_fails(0, -EINVAL, "Invalid argument (EINVAL)");
	kernel.open = (struct failure){ .error = EROFS };
	open_fails(0, -EROFS, "is read-only; open it with DMCORE_OPEN_READ_ONLY");
	kernel.open = (struct failure){ .error = EBUSY };
	open_fails(0, -EBUSY, "in use, by a mounted file system or another program");
}

/* Between two looks at a path somebody puts something else there. */
Test(file_kernel, what_is_replaced_while_it_is_opened_is_refused)
{
	kernel.stat = (struct failure){ .error = ENOENT, .skip = 1 };
	open_fails(0, -ENOENT, "No such file or directory (ENOENT)");
	memset(&kernel.stat, 0, sizeof(kernel.stat));
	kernel.fstat_type = S_IFIFO;
	open_fails(0, -EINVAL, "is a FIFO: neither a regular file nor a block device");
	kernel.fstat_type = 0;
	kernel.fstat = (struct failure){ .error = EIO };
	open_fails(0, -EIO, "Input/output error (EIO)");
}

Test(file_kernel, a_disk_that_is_replaced_once_claimed_is_refused)
{
	kernel.is_disk = true;
	kernel.new_inode = 2;
	open_fails(0, -EBUSY, "was replaced while it was opened");
}

/* What only syncs go to is done without. */
Test(file_kernel, another_file_in_the_place_of_an_opening_is_not_used)
{
	kernel.new_inode = 2;
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(rig_write_fua(&rig, 0, memory, sizeof(memory)), 0);
	cr_assert_eq(rig_flush(&rig), 0);
	rig_close(&rig);
	kernel.new_inode = 0;
	kernel.fstat = (struct failure){ .error = EIO, .skip = 1 };
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(rig_write_fua(&rig, 0, memory, sizeof(memory)), 0);
	cr_assert_eq(rig_flush(&rig), 0);
}

Test(file_kernel, a_file_system_full_of_descriptors_leaves_one_opening)
{
	kernel.open = (struct failure){ .error = ENFILE, .skip = 2 };
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(rig_write(&rig, 0, memory, sizeof(memory)), 0);
	cr_assert_eq(rig_flush(&rig), 0);
}

Test(file_kernel, a_size_that_cannot_be_read_again_fails_the_second_opening)
{
	struct dmcore_bdev *second;

	rig_open(&rig, scratch.path, 0);
	kernel.fstat = (struct failure){ .error = EIO };
	cr_assert_eq(dmcore_bdev_open(rig.core, scratch.path, 0, &second), -EIO);
	cr_assert_not_null(strstr(dmcore_error_message(), "doesn't tell its size"), "%s",
			   dmcore_error_message());
	kernel.fstat.error = 0;
	cr_assert_eq(dmcore_bdev_open(rig.core, scratch.path, 0, &second), 0);
	cr_assert_eq(dmcore_bdev_close(second), 0);
}

/* ---- file systems ---- */

Test(file_kernel, only_file_systems_known_to_free_blocks_discard)
{
	kernel.fs_magic = EXT4_SUPER_MAGIC;
	rig_open(&rig, scratch.path, 0);
	cr_assert(rig_limits(&rig).caps & DMCORE_CAP_DISCARD);
	rig_close(&rig);
	kernel.fs_magic = MSDOS_SUPER_MAGIC;
	rig_open(&rig, scratch.path, 0);
	cr_assert_not(rig_limits(&rig).caps & DMCORE_CAP_DISCARD);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, 8), -EOPNOTSUPP);
	rig_close(&rig);
	kernel.fs_magic = EXT4_SUPER_MAGIC;
	kernel.fstatfs = (struct failure){ .error = ENOSYS };
	rig_open(&rig, scratch.path, 0);
	cr_assert_not(rig_limits(&rig).caps & DMCORE_CAP_DISCARD);
}

Test(file_kernel, a_preferred_size_without_sense_is_4_kib)
{
	static const long sizes[] = { 1, 256, 5000 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		kernel.blksize = sizes[i];
		rig_open(&rig, scratch.path, 0);
		cr_assert_eq(rig_limits(&rig).io_min_bytes, 4096);
		rig_close(&rig);
	}
	kernel.blksize = 65536;
	rig_open(&rig, scratch.path, 0);
	cr_assert_eq(rig_limits(&rig).io_min_bytes, 65536);
}

/* ---- direct I/O ---- */

static void expect_direct(uint32_t block_bytes, uint32_t memory_bytes)
{
	struct dmcore_limits limits;

	rig_open(&rig, scratch.path, DMCORE_OPEN_DIRECT);
	limits = rig_limits(&rig);
	cr_assert_eq(limits.logical_block_bytes, block_bytes, "%u", limits.logical_block_bytes);
	cr_assert_eq(limits.memory_align_bytes, memory_bytes, "%u", limits.memory_align_bytes);
	rig_close(&rig);
}

#ifdef STATX_DIOALIGN
Test(file_kernel, direct_io_is_aligned_as_the_kernel_says)
{
	kernel.tells_direct = true;
	kernel.direct_offset = 4096;
	kernel.direct_memory = 32;
	expect_direct(4096, 32);
	kernel.direct_offset = 512;
	kernel.direct_memory = 0;
	expect_direct(512, 1);
	kernel.direct_offset = 0;
	open_fails(DMCORE_OPEN_DIRECT, -EINVAL, NO_DIRECT);
}
#endif

Test(file_kernel, direct_io_is_tried_where_the_kernel_does_not_say)
{
	expect_direct(512, 512);
	kernel.read_min = 2048;
	expect_direct(2048, 2048);
	kernel.statx = (struct failure){ .error = ENOSYS };
	expect_direct(2048, 2048);
}

Test(file_kernel, direct_io_that_cannot_be_tried_keeps_to_what_is_preferred)
{
	kernel.blksize = 1024;
	kernel.read = (struct failure){ .error = EINVAL };
	expect_direct(1024, 1024);
	kernel.read.error = 0;
	kernel.lseek = (struct failure){ .error = ESPIPE };
	expect_direct(1024, 1024);
	kernel.lseek.error = 0;
	kernel.mmap = (struct failure){ .error = ENOMEM };
	expect_direct(1024, 1024);
}

/* ---- disks ---- */

static void open_disk(unsigned int flags)
{
	rig_open(&rig, scratch.path, flags);
}

Test(file_kernel, a_disk_is_what_the_kernel_says)
{
	struct dmcore_limits limits;

	kernel.is_disk = true;
	kernel.queue_number = "32768\n";
	kernel.queue_number_at = 1;
	open_disk(0);
	limits = rig_limits(&rig);
	cr_assert_eq(dmcore_bdev_size_sectors(rig.bdev), FILE_BYTES / DMCORE_SECTOR_BYTES);
	cr_assert_eq(limits.logical_block_bytes, BLOCK);
	cr_assert_eq(limits.physical_block_bytes, 2 * BLOCK);
	cr_assert_eq(limits.io_min_bytes, 2 * BLOCK);
	cr_assert_eq(limits.io_opt_bytes, 8 * BLOCK);
	cr_assert_eq(limits.memory_align_bytes, 1);
	cr_assert(limits.caps & DMCORE_CAP_DISCARD);
	cr_assert_eq(limits.discard_granularity_bytes, 32768);
	cr_assert_eq(rig_write(&rig, 0, memory, sizeof(memory)), 0);
	cr_assert_eq(rig_read(&rig, 0, memory, sizeof(memory)), 0);
}

Test(file_kernel, a_disk_that_does_not_tell_its_size_and_blocks_is_refused)
{
	static const unsigned long needed[] = { BLKGETSIZE64, BLKSSZGET, BLKROGET };

	kernel.is_disk = true;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		kernel.broken_ioctl = needed[i];
		open_fails(0, -ENOTTY, "doesn't tell its size and block size");
	}
}

Test(file_kernel, what_a_disk_does_not_tell_follows_from_its_block)
{
	kernel.is_disk = true;
	kernel.broken_ioctl = BLKPBSZGET;
	open_disk(0);
	cr_assert_eq(rig_limits(&rig).physical_block_bytes, BLOCK);
	rig_close(&rig);
	kernel.broken_ioctl = BLKIOMIN;
	open_disk(0);
	cr_assert_eq(rig_limits(&rig).io_min_bytes, 2 * BLOCK);
	rig_close(&rig);
	kernel.broken_ioctl = BLKIOOPT;
	open_disk(0);
	cr_assert_eq(rig_limits(&rig).io_opt_bytes, 0);
}

Test(file_kernel, a_read_only_disk_is_only_read)
{
	kernel.is_disk = true;
	kernel.read_only_disk = true;
	open_fails(0, -EROFS, "is read-only; open it with DMCORE_OPEN_READ_ONLY");
	open_disk(DMCORE_OPEN_READ_ONLY);
	cr_assert_not(rig_limits(&rig).caps & DMCORE_CAP_DISCARD);
	cr_assert_eq(rig_read(&rig, 0, memory, sizeof(memory)), 0);
}

Test(file_kernel, a_disk_discards_if_it_looks_at_the_range)
{
	kernel.is_disk = true;
	kernel.fails_discard_otherwise = true;
	open_disk(0);
	cr_assert_not(rig_limits(&rig).caps & DMCORE_CAP_DISCARD);
	rig_close(&rig);
	kernel.fails_discard_otherwise = false;
	kernel.discards = true;
	open_disk(0);
	cr_assert_not(rig_limits(&rig).caps & DMCORE_CAP_DISCARD);
}

static void expect_granularity(const char *text, unsigned int at, uint32_t bytes)
{
	kernel.queue_number = text;
	kernel.queue_number_at = at;
	kernel.queue_opens = 0;
	open_disk(0);
	cr_assert(rig_limits(&rig).caps & DMCORE_CAP_DISCARD);
	cr_assert_eq(rig_limits(&rig).discard_granularity_bytes, bytes);
	rig_close(&rig);
}

Test(file_kernel, the_granularity_of_discards_is_the_disk_s_or_unknown)
{
	kernel.is_disk = true;
	expect_granularity("4096\n", 1, 4096);
	/* A partition has its disk's. */
	expect_granularity("8192\n", 2, 8192);
	expect_granularity("512", 1, 512);
	expect_granularity("4294967296\n", 1, 0);
	expect_granularity("none\n", 1, 0);
	expect_granularity(NULL, 0, 0);
	kernel.read = (struct failure){ .error = EIO };
	expect_granularity("4096\n", 1, 0);
}

Test(file_kernel, direct_io_of_a_disk_without_an_answer_is_its_block)
{
	kernel.is_disk = true;
	kernel.mmap = (struct failure){ .error = ENOMEM };
	expect_direct(BLOCK, BLOCK);
#ifdef STATX_DIOALIGN
	kernel.tells_direct = true;
	open_fails(DMCORE_OPEN_DIRECT, -EINVAL, NO_DIRECT);
#endif
}

Test(file_kernel, a_disk_that_no_longer_tells_its_size_is_not_opened_again)
{
	struct dmcore_bdev *second;

	kernel.is_disk = true;
	open_disk(0);
	kernel.broken_ioctl = BLKGETSIZE64;
	cr_assert_eq(dmcore_bdev_open(rig.core, scratch.path, 0, &second), -ENOTTY);
	cr_assert_not_null(strstr(dmcore_error_message(), "doesn't tell its size"), "%s",
			   dmcore_error_message());
	kernel.broken_ioctl = 0;
	cr_assert_eq(dmcore_bdev_open(rig.core, scratch.path, 0, &second), 0);
	cr_assert_eq(dmcore_bdev_close(second), 0);
}

Test(file_kernel, a_device_number_is_found_by_udev_s_link)
{
	kernel.is_disk = true;
	kernel.node = "/dev/block/" DISK;
	rig_open(&rig, DISK, 0);
	cr_assert_str_eq(dmcore_bdev_name(rig.bdev), DISK);
	cr_assert_eq(rig_read(&rig, 0, memory, sizeof(memory)), 0);
	rig_close(&rig);
	kernel.node = NULL;
	rig_open_fails(&rig, DISK, 0, -ENOENT, "No such file or directory (ENOENT)");
}
