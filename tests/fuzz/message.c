/* SPDX-License-Identifier: MIT */
/*
 * Fuzzer of messages. The first line of an input is the name of a target type, whose device each
 * further line acts on:
 *
 *	[SECTOR] WORD…   a message, also @stats_…
 *	!r SECTOR        reads some sectors; !w writes, !d discards, !z zeroes them
 *	!f, !s, !n, !u   flushes; suspends; suspends without flushing; resumes
 *
 * Answers, table and status must be well-formed whatever has been said, and the table's text must
 * make the same table.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define TARGET_SECTORS 64
#define IO_SECTORS 4
/* Shorter than some answers. */
#define REPLY_BYTES 4096
#define TEXT_BYTES (256u << 10)
#define BIOS 64

/* Arguments with which a target of TARGET_SECTORS can be made. A new type gets its line here. */
static const struct {
	const char *type;
	const char *params;
} tables[] = {
	{ "delay", "mem:64k,name=a 0 1" },
	{ "dust", "mem:64k,name=a 0 512" },
	{ "error", "" },
	{ "flakey", "mem:64k,name=a 0 1 1" },
	{ "linear", "mem:64k,name=a 0" },
	{ "log-writes", "mem:64k,name=a mem:1M,name=b" },
	{ "mirror", "core 2 8 nosync 2 mem:64k,name=a 0 mem:64k,name=b 0" },
	{ "snapshot", "mem:64k,name=a mem:64k,name=b P 8" },
	{ "snapshot-merge", "mem:64k,name=a mem:64k,name=b P 8" },
	{ "snapshot-origin", "mem:64k,name=a" },
	{ "striped", "2 8 mem:64k,name=a 0 mem:64k,name=b 0" },
	{ "switch", "2 8 0 mem:64k,name=a 0 mem:64k,name=b 0" },
	{ "unstriped", "2 8 0 mem:64k,name=a 0" },
	{ "zero", "" },
};

struct world {
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmcore_device *device;
	struct dmcore_bdev *bdev;
	unsigned int num_inflight;
	unsigned int num_bios;
	struct dmcore_bio bios[BIOS];
	char buffer[IO_SECTORS * DMCORE_SECTOR_BYTES];
};

static const char *params_of(const char *type)
{
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		if (strcmp(tables[i].type, type) == 0)
			return tables[i].params;
	}
	fuzz_fail(__FILE__, __LINE__, type, "a target type without a line in tables");
}

/* ---- I/O ------------------------------------------------------------------------------------ */

static void bio_done(struct dmcore_bio *bio)
{
	struct world *world = bio->context;

	FUZZ_CHECK(bio->status <= 0 && bio->status > -4096, "status %d", bio->status);
	FUZZ_CHECK(world->num_inflight > 0, "a bio ends twice");
	world->num_inflight--;
}

static void poll_all(struct world *world)
{
	for (unsigned int i = 0; i < 8; i++) {
		FUZZ_CHECK(dmcore_service_poll(world->core, 0, 64, 0) >= 0, "service");
		FUZZ_CHECK(dmcore_queue_poll(world->queue, 0, 64, 0) >= 0, "queue");
	}
}

static void do_io(struct world *world, enum dmcore_op op, uint64_t sector)
{
	struct dmcore_bio *bio;

	if (world->num_bios == BIOS)
		return;
	bio = &world->bios[world->num_bios++];
	dmcore_bio_init(bio, world->queue);
	bio->bdev = world->bdev;
	bio->op = (uint8_t)op;
	bio->sector = sector;
	bio->count = op == DMCORE_OP_FLUSH ? 0 : IO_SECTORS;
	if (op == DMCORE_OP_READ || op == DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(bio, world->buffer, sizeof(world->buffer));
	bio->done = bio_done;
	bio->context = world;
	if (dmcore_bio_submit(bio) == 0)
		world->num_inflight++;
	poll_all(world);
}

/* ---- lines ---------------------------------------------------------------------------------- */

static void act(struct world *world, const char *line)
{
	uint64_t sector = line[0] ? strtoull(line + 1, NULL, 10) % (2 * TARGET_SECTORS) : 0;
	int ret = 0;

	switch (line[0]) {
	case 'r':
		do_io(world, DMCORE_OP_READ, sector);
		break;
	case 'w':
		do_io(world, DMCORE_OP_WRITE, sector);
		break;
	case 'd':
		do_io(world, DMCORE_OP_DISCARD, sector);
		break;
	case 'z':
		do_io(world, DMCORE_OP_WRITE_ZEROES, sector);
		break;
	case 'f':
		do_io(world, DMCORE_OP_FLUSH, 0);
		break;
	case 's':
	case 'n':
		ret = dmcore_device_suspend(world->device,
					    line[0] == 'n' ? DMCORE_SUSPEND_NOFLUSH : 0, -1);
		break;
	case 'u':
		ret = dmcore_device_resume(world->device);
		poll_all(world);
		break;
	default:
		break;
	}
	FUZZ_CHECK(ret == 0 || ret == -ENOMEM, "%s: %s", line, dmcore_error_message());
}

static void send(struct world *world, const char *line)
{
	char reply[REPLY_BYTES] = "";
	uint64_t sector = 0;
	char *end;
	int64_t ret;

	if (*line >= '0' && *line <= '9') {
		sector = strtoull(line, &end, 10);
		line = *end == ' ' ? end + 1 : line;
	}
	ret = dmcore_device_message(world->device, sector, line, reply, sizeof(reply));
	FUZZ_CHECK(ret > -4096, "%s: %lld", line, (long long)ret);
	if (ret < 0)
		FUZZ_CHECK(*dmcore_error_message() && !*reply, "%s: %lld", line, (long long)ret);
	else
		FUZZ_CHECK(strlen(reply) == (ret < REPLY_BYTES ? (size_t)ret : REPLY_BYTES - 1),
			   "%s: %lld and '%s'", line, (long long)ret, reply);
}

/* ---- what is left behind -------------------------------------------------------------------- */

/* The text of the device; false: there is no memory. */
static bool read_text(struct world *world, enum dmcore_text_kind kind, char *text)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	int64_t length = dmcore_device_text(world->device, kind, 0, text, TEXT_BYTES);

	if (length == -ENOMEM)
		return false;
	FUZZ_CHECK(length >= 0 && length < TEXT_BYTES, "%lld", (long long)length);
	FUZZ_CHECK(dmcore_device_info(world->device, &info) == 0, "%s", dmcore_error_message());
	fuzz_check_text(text, info.num_targets, info.size_sectors);
	return true;
}

static void check_texts(struct world *world)
{
	static char text[TEXT_BYTES];
	static char again[TEXT_BYTES];
	struct dmcore_table *table;
	int64_t length;
	int ret;

	read_text(world, DMCORE_TEXT_STATUS, text);
	if (!read_text(world, DMCORE_TEXT_TABLE, text))
		return;
	ret = dmcore_table_parse(world->core, text, 0, &table);
	if (ret == -ENOMEM)
		return;
	FUZZ_CHECK(ret == 0, "%s: %s", dmcore_error_message(), text);
	length = dmcore_table_text(table, DMCORE_TEXT_TABLE, again, sizeof(again));
	FUZZ_CHECK(length < 0 || strcmp(again, text) == 0, "%s becomes %s", text, again);
	dmcore_table_destroy(table);
}

static void run_lines(struct world *world, char *text)
{
	char *next;

	for (char *line = text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (line[0] == '!')
			act(world, line + 1);
		else
			send(world, line);
	}
}

/* ---- a device ------------------------------------------------------------------------------- */

/* The type of that name, or another one for garbage. */
static const struct dmcore_target_type *find_type(struct dmcore *core, const char *name)
{
	const struct dmcore_target_type *type;
	unsigned int count = 0;

	while ((type = dmcore_target_type_at(core, count)) != NULL) {
		if (strcmp(type->name, name) == 0)
			return type;
		count++;
	}
	return dmcore_target_type_at(core, (unsigned char)name[0] % count);
}

/* Two targets: what is meant for one must not reach the other. */
static void make_device(struct world *world, const char *type)
{
	struct dmcore_table *table;
	int ret = dmcore_table_create(world->core, 0, &table);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_table_add(table, 0, TARGET_SECTORS, type, params_of(type));
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_table_add(table, TARGET_SECTORS, TARGET_SECTORS, "linear",
			       "mem:64k,name=c 0");
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_create(world->core, "fuzz", NULL, 0, &world->device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_load(world->device, table);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_resume(world->device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	world->bdev = dmcore_device_bdev(world->device);
}

static void end_device(struct world *world)
{
	int ret = dmcore_device_resume(world->device);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	poll_all(world);
	ret = dmcore_device_suspend(world->device, 0, -1);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	poll_all(world);
	FUZZ_CHECK(world->num_inflight == 0, "%u bios don't end", world->num_inflight);
	ret = dmcore_device_remove(world->device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world world;
	struct fuzz_bytes bytes = { data, size };
	char text[FUZZ_BYTES_MAX];
	char *lines;

	fuzz_enter();
	fuzz_text(&bytes, text, sizeof(text));
	lines = text + strcspn(text, "\n");
	if (*lines)
		*lines++ = '\0';
	world.num_bios = 0;
	world.num_inflight = 0;
	world.queue = fuzz_kept_queue();
	world.core = dmcore_queue_core(world.queue);
	make_device(&world, find_type(world.core, text)->name);
	run_lines(&world, lines);
	check_texts(&world);
	end_device(&world);
	fuzz_kept_check();
	fuzz_leave();
	return 0;
}
