/* SPDX-License-Identifier: MIT */
/*
 * Logs that the real kernel's log-writes target has made, of a device with blocks of 512 and of one
 * with blocks of 4096 bytes: the same requests leave the same log here, byte by byte. dmcat replays
 * them in tests/dmcat/replay.sh.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>
#include <sys/wait.h>

#include <criterion/criterion.h>

#include "support/actor.h"
#include "support/scratch.h"
#include "support/stage.h"

#define LOG_BYTES_MAX (256 * 1024)

static char folder[128];
static unsigned char theirs[LOG_BYTES_MAX];
static unsigned char ours[LOG_BYTES_MAX];
static size_t log_bytes;
static struct stage stage;
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;
static uint32_t block_bytes;

static void run_program(const char *const *words)
{
	int status = -1;
	pid_t pid;

	cr_assert_eq(posix_spawnp(&pid, words[0], NULL, NULL, (char *const *)(uintptr_t)words,
				  environ),
		     0, "%s", words[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "%s failed", words[0]);
}

static void unpack(const char *name)
{
	const char *top = getenv("top_srcdir");
	const char *here = __FILE__;
	char pack[1024];
	char path[256];
	const char *unpack_words[] = { "tar", "-xzf", pack, "-C", folder, NULL };
	const char *remove_words[] = { "rm", "-r", folder, NULL };
	ssize_t bytes;
	int fd;

	if (top)
		snprintf(pack, sizeof(pack), "%s/tests/golden/log-writes.tar.gz", top);
	else
		snprintf(pack, sizeof(pack), "%.*slog-writes.tar.gz",
			 (int)(strrchr(here, '/') + 1 - here), here);
	snprintf(folder, sizeof(folder), "%s/dmcore-golden-XXXXXX", scratch_dir());
	cr_assert_not_null(mkdtemp(folder));
	run_program(unpack_words);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0, "%s", path);
	bytes = read(fd, theirs, sizeof(theirs));
	close(fd);
	run_program(remove_words);
	cr_assert(bytes > 0 && bytes < LOG_BYTES_MAX);
	log_bytes = (size_t)bytes;
}

static void make_device(void)
{
	char text[256];

	stage_open(&stage, NULL, NULL);
	stage_disk(&stage, 1, LOG_BYTES_MAX / DMCORE_SECTOR_BYTES, "");
	snprintf(text, sizeof(text), "0 256 log-writes fault:256,id=data,block=%u %s", block_bytes,
		 stage_disk_spec(1, LOG_BYTES_MAX / DMCORE_SECTOR_BYTES, ""));
	bdev = stage_map(&stage, "t", text);
	device = stage.devices[0];
}

/* What the kernel was asked to do, by its log. */
static void repeat(unsigned char *block, const struct dmcore_logwrites_entry *entry)
{
	uint64_t sectors = block_bytes / DMCORE_SECTOR_BYTES;
	enum dmcore_op op = DMCORE_OP_WRITE;
	char text[64];

	if (entry->flags & DMCORE_LOGWRITES_MARK) {
		snprintf(text, sizeof(text), "mark %.*s", (int)entry->data_bytes,
			 (char *)block + DMCORE_LOGWRITES_ENTRY_BYTES);
		cr_assert_eq(dmcore_device_message(device, 0, text, NULL, 0), 0);
		return;
	}
	if (entry->flags & DMCORE_LOGWRITES_FLUSH)
		op = DMCORE_OP_FLUSH;
	else if (entry->flags & DMCORE_LOGWRITES_DISCARD)
		op = DMCORE_OP_DISCARD;
	cr_assert_eq(stage_run(&stage, bdev, op,
			       entry->flags & DMCORE_LOGWRITES_FUA ? DMCORE_BIO_FUA : 0,
			       entry->sector * sectors, entry->count * sectors,
			       op == DMCORE_OP_WRITE ? block + block_bytes : NULL),
		     0);
}

static void expect_same_log(const char *name)
{
	struct dmcore_logwrites_super super;
	struct dmcore_logwrites_entry entry;
	uint64_t at = 1;

	unpack(name);
	cr_assert_eq(dmcore_logwrites_super_decode(theirs, &super), DMCORE_LOGWRITES_GOOD);
	cr_assert_eq(super.num_entries, 15);
	block_bytes = super.block_bytes;
	make_device();
	/* The last one is the end's mark. */
	for (uint64_t i = 0; i + 1 < super.num_entries; i++) {
		unsigned char *block = theirs + at * block_bytes;

		cr_assert_eq(dmcore_logwrites_entry_decode(block, block_bytes, &entry),
			     DMCORE_LOGWRITES_GOOD);
		repeat(block, &entry);
		at += dmcore_logwrites_entry_blocks(&entry);
	}
	cr_assert_eq((at + 1) * block_bytes, log_bytes);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_eq(dmcore_pread(stage.bdevs[0], ours, sizeof(ours), 0), 0);
	for (size_t i = 0; i < log_bytes; i++)
		cr_assert_eq(ours[i], theirs[i], "byte %zu", i);
	stage_close(&stage);
}

Test(golden_log_writes, log_with_blocks_of_512)
{
	expect_same_log("log512");
}

Test(golden_log_writes, log_with_blocks_of_4096)
{
	expect_same_log("log4096");
}
