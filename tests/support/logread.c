/* SPDX-License-Identifier: MIT */
/* What a write log says; see logread.h. */
#include "logread.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "stage.h"

static char text[65536];
static size_t used;

__attribute__((format(printf, 1, 2))) static void add(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	used += (size_t)vsnprintf(text + used, sizeof(text) - used, format, args);
	va_end(args);
	cr_assert_lt(used, sizeof(text));
}

struct dmcore_logwrites_super logread_super(struct dmcore_bdev *log)
{
	static unsigned char block[65536];
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_logwrites_super super;

	cr_assert_eq(dmcore_bdev_limits(log, &limits), 0);
	cr_assert_eq(dmcore_pread(log, block, limits.logical_block_bytes, 0), 0, "%s",
		     dmcore_error_message());
	if (dmcore_logwrites_super_decode(block, &super) != DMCORE_LOGWRITES_GOOD)
		super = (struct dmcore_logwrites_super){ UINT64_MAX, 0 };
	return super;
}

void logread_await(struct dmcore_bdev *log, uint64_t num_entries)
{
	uint64_t until = stage_now_ns() + STAGE_PATIENCE_NS;

	while (logread_super(log).num_entries != num_entries && stage_now_ns() < until)
		stage_sleep_ns(1000000);
	cr_assert_eq(logread_super(log).num_entries, num_entries);
}

static void add_data(const void *data, uint64_t sector, uint64_t count)
{
	for (uint32_t version = 0; version < LOGREAD_VERSIONS; version++) {
		if (pattern_differs(data, sector, count, version) >= 0)
			continue;
		if (version > 0)
			add("/%u", version);
		return;
	}
	add("/?");
}

static void add_entry(const unsigned char *block, uint32_t block_bytes,
		      const struct dmcore_logwrites_entry *entry)
{
	uint64_t sector = entry->sector * block_bytes / DMCORE_SECTOR_BYTES;
	uint64_t count = entry->count * block_bytes / DMCORE_SECTOR_BYTES;

	add("%s", used ? " " : "");
	if (entry->flags & DMCORE_LOGWRITES_MARK) {
		add("m:%.*s", (int)entry->data_bytes,
		    (const char *)block + DMCORE_LOGWRITES_ENTRY_BYTES);
		return;
	}
	cr_assert_eq(entry->data_bytes, 0);
	if (entry->flags == DMCORE_LOGWRITES_FLUSH) {
		cr_assert(count == 0 && sector == 0);
		add("F");
		return;
	}
	add("%s%llu", entry->flags == DMCORE_LOGWRITES_DISCARD ? "d" :
		      entry->flags == DMCORE_LOGWRITES_FUA     ? "wf" : "w",
	    (unsigned long long)sector);
	if (count != 1)
		add("+%llu", (unsigned long long)count);
	if (entry->flags != DMCORE_LOGWRITES_DISCARD)
		add_data(block + block_bytes, sector, count);
}

const char *logread_text(struct dmcore_bdev *log)
{
	struct dmcore_logwrites_super super = logread_super(log);
	uint64_t bytes = dmcore_bdev_size_sectors(log) * DMCORE_SECTOR_BYTES;
	unsigned char *whole = malloc(bytes);
	uint64_t block = 1;

	cr_assert_not_null(whole);
	cr_assert_neq(super.num_entries, UINT64_MAX, "there is no log");
	cr_assert_eq(dmcore_pread(log, whole, bytes, 0), 0, "%s", dmcore_error_message());
	used = 0;
	text[0] = '\0';
	for (uint64_t i = 0; i < super.num_entries; i++) {
		const unsigned char *at = whole + block * super.block_bytes;
		struct dmcore_logwrites_entry entry;

		cr_assert_lt(block * super.block_bytes, bytes);
		cr_assert_eq(dmcore_logwrites_entry_decode(at, super.block_bytes, &entry),
			     DMCORE_LOGWRITES_GOOD, "entry %llu", (unsigned long long)i);
		block += dmcore_logwrites_entry_blocks(&entry);
		cr_assert_leq(block * super.block_bytes, bytes);
		add_entry(at, super.block_bytes, &entry);
	}
	free(whole);
	return text;
}
