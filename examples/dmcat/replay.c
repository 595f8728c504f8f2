/* SPDX-License-Identifier: MIT */
/*
 * The logs of log-writes targets, of this library or of the kernel: listed, and replayed up to an
 * entry. The format is in dmcore/logwrites.h. A log is from anywhere, so nothing in it is trusted:
 * every header that a command would use is looked at before anything is written.
 */
#include "replay.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices.h"
#include "json.h"

/* Data are moved in pieces of so many bytes: a multiple of any block. */
#define PIECE_BYTES (1u << 20)

/* Where one is in a log. */
struct place {
	uint64_t nr;                         /* of the entry */
	uint64_t block;                      /* where its header is */
	struct dmcore_logwrites_entry entry; /* what is there */
};

struct replay {
	struct session *session;
	const char *log_spec;
	const char *to_spec;           /* or NULL */
	struct dmcore_bdev *log;
	struct dmcore_bdev *to;        /* or NULL */
	uint32_t to_block_bytes;
	struct dmcore_logwrites_super super;
	unsigned char *header;         /* the block of the entry where one is */
	unsigned char *piece;
	const char *separator;         /* between the entries of a JSON list */
};

/* What is done with each entry. */
typedef enum exit_status (*entry_fn)(struct replay *replay, const struct place *place);

static enum exit_status library_failed(struct replay *replay, int error)
{
	return report_library(&replay->session->report, EXIT_IO_FAILED, error);
}

static enum exit_status bad_log(struct replay *replay, const char *what)
{
	return report_error(&replay->session->report, EXIT_IO_FAILED, EINVAL, "%s: %s",
			    replay->log_spec, what);
}

static enum exit_status bad_entry(struct replay *replay, const struct place *place,
				  const char *what)
{
	return report_error(&replay->session->report, EXIT_IO_FAILED, EINVAL,
			    "%s: entry %" PRIu64 ", in block %" PRIu64 ", %s", replay->log_spec,
			    place->nr, place->block, what);
}

static const char *fault_text(enum dmcore_logwrites_fault fault)
{
	switch (fault) {
	case DMCORE_LOGWRITES_BAD_MAGIC:
		return "is no log of log-writes: another magic number";
	case DMCORE_LOGWRITES_BAD_VERSION:
		return "is a log of another version";
	case DMCORE_LOGWRITES_BAD_BLOCK:
		return "has blocks of an impossible size";
	case DMCORE_LOGWRITES_BAD_FLAGS:
		return "has impossible flags";
	case DMCORE_LOGWRITES_BAD_LENGTH:
		return "has an impossible length";
	default:
		return "is in order";
	}
}

/* ---- the log ---- */

static enum exit_status read_super(struct replay *replay)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	enum dmcore_logwrites_fault fault;
	int ret;

	dmcore_bdev_limits(replay->log, &limits);
	ret = dmcore_pread(replay->log, replay->header, limits.logical_block_bytes, 0);
	if (ret)
		return library_failed(replay, ret);
	fault = dmcore_logwrites_super_decode(replay->header, &replay->super);
	return fault ? bad_log(replay, fault_text(fault)) : EXIT_DONE;
}

static uint64_t log_blocks(const struct replay *replay)
{
	return dmcore_bdev_size_sectors(replay->log) /
	       (replay->super.block_bytes / DMCORE_SECTOR_BYTES);
}

static uint64_t to_blocks(const struct replay *replay)
{
	return dmcore_bdev_size_sectors(replay->to) /
	       (replay->super.block_bytes / DMCORE_SECTOR_BYTES);
}

/* Reads and checks the header of the entry where one is. */
static enum exit_status read_entry(struct replay *replay, struct place *place)
{
	uint32_t block_bytes = replay->super.block_bytes;
	struct dmcore_logwrites_entry *entry = &place->entry;
	enum dmcore_logwrites_fault fault;
	int ret;

	if (place->block >= log_blocks(replay))
		return bad_entry(replay, place, "would be behind the end of the log device");
	ret = dmcore_pread(replay->log, replay->header, block_bytes, place->block * block_bytes);
	if (ret)
		return library_failed(replay, ret);
	fault = dmcore_logwrites_entry_decode(replay->header, block_bytes, entry);
	if (fault)
		return bad_entry(replay, place, fault_text(fault));
	if (dmcore_logwrites_entry_blocks(entry) > log_blocks(replay) - place->block)
		return bad_entry(replay, place, "reaches behind the end of the log device");
	if (!replay->to || entry->count == 0)
		return EXIT_DONE;
	if (entry->sector > to_blocks(replay) || entry->count > to_blocks(replay) - entry->sector)
		return bad_entry(replay, place, "reaches behind the end of the device");
	if ((entry->sector | entry->count) * block_bytes & (replay->to_block_bytes - 1))
		return bad_entry(replay, place, "has parts of blocks of the device");
	return EXIT_DONE;
}

static bool is_mark(const struct replay *replay, const struct place *place, const char *text)
{
	return text && (place->entry.flags & DMCORE_LOGWRITES_MARK) &&
	       place->entry.data_bytes == strlen(text) &&
	       memcmp(replay->header + DMCORE_LOGWRITES_ENTRY_BYTES, text, strlen(text)) == 0;
}

/* Whether the options have it that this entry is the last. */
static bool is_end(const struct replay *replay, const struct place *place)
{
	const struct replay_options *options = &replay->session->options.replay;
	uint64_t flags = place->entry.flags;

	return (options->next_flush && (flags & DMCORE_LOGWRITES_FLUSH)) ||
	       (options->next_fua && (flags & DMCORE_LOGWRITES_FUA)) ||
	       is_mark(replay, place, options->end_mark);
}

static bool has_end(const struct replay_options *options)
{
	return options->next_flush || options->next_fua || options->end_mark;
}

/* Goes to the entry with which to begin: the place's number is its. */
static enum exit_status find_start(struct replay *replay, struct place *place)
{
	const struct replay_options *options = &replay->session->options.replay;
	bool found = !options->start_mark;
	enum exit_status status;

	*place = (struct place){ .block = 1 };
	if (options->start_entry > replay->super.num_entries)
		return report_error(&replay->session->report, EXIT_IO_FAILED, ENOENT,
				    "%s: there is no entry %" PRIu64 ", but %" PRIu64 " in all",
				    replay->log_spec, options->start_entry,
				    replay->super.num_entries);
	while (place->nr < replay->super.num_entries &&
	       (place->nr < options->start_entry || !found)) {
		status = read_entry(replay, place);
		if (status)
			return status;
		if (place->nr >= options->start_entry && !found)
			found = is_mark(replay, place, options->start_mark);
		place->block += dmcore_logwrites_entry_blocks(&place->entry);
		place->nr++;
	}
	if (!found)
		return report_error(&replay->session->report, EXIT_IO_FAILED, ENOENT,
				    "%s: there is no mark '%s' to start behind", replay->log_spec,
				    options->start_mark);
	return EXIT_DONE;
}

/* Calls fn for all entries that the options choose; *place is then behind the last one. */
static enum exit_status walk(struct replay *replay, struct place *place, entry_fn fn)
{
	const struct replay_options *options = &replay->session->options.replay;
	uint64_t first = place->nr;
	bool ended = !has_end(options);
	bool last = false;

	while (!last && place->nr < replay->super.num_entries) {
		enum exit_status status;

		if (options->has_limit && place->nr - first == options->limit)
			return EXIT_DONE;
		status = read_entry(replay, place);
		if (status == EXIT_DONE && fn)
			status = fn(replay, place);
		if (status)
			return status;
		last = is_end(replay, place);
		ended = ended || last;
		place->block += dmcore_logwrites_entry_blocks(&place->entry);
		place->nr++;
	}
	if (ended || (options->has_limit && place->nr - first == options->limit))
		return EXIT_DONE;
	return report_error(&replay->session->report, EXIT_IO_FAILED, ENOENT,
			    "%s: from entry %" PRIu64 " on there is none to stop at",
			    replay->log_spec, first);
}

/* ---- list ---- */

static const struct {
	uint64_t flag;
	const char *name;
} flag_names[] = {
	{ DMCORE_LOGWRITES_FLUSH, "flush" },   { DMCORE_LOGWRITES_FUA, "fua" },
	{ DMCORE_LOGWRITES_DISCARD, "discard" }, { DMCORE_LOGWRITES_MARK, "mark" },
	{ DMCORE_LOGWRITES_METADATA, "metadata" },
};

/* `write`, `write,fua`, `flush`, `discard` … */
static void print_kind(const struct place *place, const char *quote, const char *separator)
{
	static const uint64_t no_write =
		DMCORE_LOGWRITES_FLUSH | DMCORE_LOGWRITES_DISCARD | DMCORE_LOGWRITES_MARK;
	const char *before = "";

	if (!(place->entry.flags & no_write) || place->entry.count > 0) {
		if (!(place->entry.flags & DMCORE_LOGWRITES_DISCARD)) {
			printf("%swrite%s", quote, quote);
			before = separator;
		}
	}
	for (size_t i = 0; i < sizeof(flag_names) / sizeof(flag_names[0]); i++) {
		if (!(place->entry.flags & flag_names[i].flag))
			continue;
		printf("%s%s%s%s", before, quote, flag_names[i].name, quote);
		before = separator;
	}
}

static void print_text(const unsigned char *text, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i++) {
		if (iscntrl(text[i]))
			printf("\\x%02x", text[i]);
		else
			putchar(text[i]);
	}
}

static enum exit_status list_entry(struct replay *replay, const struct place *place)
{
	uint64_t sectors = replay->super.block_bytes / DMCORE_SECTOR_BYTES;
	const struct dmcore_logwrites_entry *entry = &place->entry;
	const unsigned char *text = replay->header + DMCORE_LOGWRITES_ENTRY_BYTES;
	bool is_marked = entry->flags & DMCORE_LOGWRITES_MARK;

	if (replay->session->options.json) {
		printf("%s{\"entry\":%" PRIu64 ",\"block\":%" PRIu64 ",\"kind\":[",
		       replay->separator, place->nr, place->block);
		print_kind(place, "\"", ",");
		printf("],\"sector\":%" PRIu64 ",\"count\":%" PRIu64, entry->sector * sectors,
		       entry->count * sectors);
		if (is_marked) {
			fputs(",\"text\":", stdout);
			json_string((const char *)text, entry->data_bytes);
		}
		putchar('}');
		replay->separator = ",";
		return EXIT_DONE;
	}
	printf("%" PRIu64 " %" PRIu64 " ", place->nr, place->block);
	print_kind(place, "", ",");
	if (is_marked) {
		putchar(' ');
		print_text(text, entry->data_bytes);
	} else if (entry->count > 0) {
		printf(" %" PRIu64 " %" PRIu64, entry->sector * sectors, entry->count * sectors);
	}
	putchar('\n');
	return EXIT_DONE;
}

static enum exit_status list(struct replay *replay)
{
	struct place place;
	enum exit_status status = find_start(replay, &place);

	if (status)
		return status;
	if (replay->session->options.json)
		printf("{\"block_bytes\":%" PRIu32 ",\"num_entries\":%" PRIu64 ",\"entries\":[",
		       replay->super.block_bytes, replay->super.num_entries);
	status = walk(replay, &place, list_entry);
	if (replay->session->options.json)
		puts("]}");
	return status;
}

/* ---- replay ---- */

static enum exit_status write_data(struct replay *replay, const struct place *place)
{
	uint32_t block_bytes = replay->super.block_bytes;
	uint64_t from_bytes = (place->block + 1) * block_bytes;
	uint64_t to_bytes = place->entry.sector * block_bytes;
	uint64_t left_bytes = place->entry.count * block_bytes;
	int ret = 0;

	while (ret == 0 && left_bytes > 0) {
		size_t bytes = left_bytes < PIECE_BYTES ? (size_t)left_bytes : PIECE_BYTES;

		ret = dmcore_pread(replay->log, replay->piece, bytes, from_bytes);
		if (ret == 0)
			ret = dmcore_pwrite(replay->to, replay->piece, bytes, to_bytes);
		from_bytes += bytes;
		to_bytes += bytes;
		left_bytes -= bytes;
	}
	return ret ? library_failed(replay, ret) : EXIT_DONE;
}

/* What was discarded may hold anything; zeroes, so that a replay always gives the same. */
static enum exit_status replay_entry(struct replay *replay, const struct place *place)
{
	uint32_t block_bytes = replay->super.block_bytes;
	int ret;

	if (!(place->entry.flags & DMCORE_LOGWRITES_DISCARD))
		return write_data(replay, place);
	ret = dmcore_write_zeroes(replay->to, place->entry.count * block_bytes,
				  place->entry.sector * block_bytes);
	return ret ? library_failed(replay, ret) : EXIT_DONE;
}

static enum exit_status replay_all(struct replay *replay)
{
	struct place start;
	struct place place;
	enum exit_status status = find_start(replay, &start);
	int ret;

	place = start;
	if (status == EXIT_DONE)
		status = walk(replay, &place, NULL);
	place = start;
	if (status == EXIT_DONE)
		status = walk(replay, &place, replay_entry);
	if (status)
		return status;
	ret = dmcore_flush(replay->to);
	if (ret)
		return library_failed(replay, ret);
	printf(replay->session->options.json ?
		       "{\"first\":%" PRIu64 ",\"next\":%" PRIu64
		       ",\"num_entries\":%" PRIu64 "}\n" :
		       "from entry %" PRIu64 ", next %" PRIu64 " of %" PRIu64 "\n",
	       start.nr, place.nr, replay->super.num_entries);
	return EXIT_DONE;
}

/* ---- what commands.c calls ---- */

static enum exit_status begin(struct replay *replay)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct session *session = replay->session;
	enum exit_status status = devices_open(session, replay->log_spec, false, &replay->log);

	if (status == EXIT_DONE && replay->to_spec)
		status = devices_open(session, replay->to_spec, true, &replay->to);
	if (status)
		return status;
	replay->header = malloc(DMCORE_BLOCK_BYTES_MAX);
	replay->piece = malloc(PIECE_BYTES);
	if (!replay->header || !replay->piece)
		return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
	if (replay->to) {
		dmcore_bdev_limits(replay->to, &limits);
		replay->to_block_bytes = limits.logical_block_bytes;
	}
	return read_super(replay);
}

static enum exit_status run(struct replay *replay, enum exit_status (*fn)(struct replay *replay))
{
	enum exit_status status = begin(replay);

	if (status == EXIT_DONE)
		status = fn(replay);
	free(replay->piece);
	free(replay->header);
	dmcore_bdev_close(replay->to);
	dmcore_bdev_close(replay->log);
	return status;
}

enum exit_status replay_list(struct session *session, const char *log_spec)
{
	struct replay replay = { .session = session, .log_spec = log_spec, .separator = "" };

	return run(&replay, list);
}

enum exit_status replay_log(struct session *session, const char *log_spec, const char *to_spec)
{
	struct replay replay = { .session = session, .log_spec = log_spec, .to_spec = to_spec };

	return run(&replay, replay_all);
}
