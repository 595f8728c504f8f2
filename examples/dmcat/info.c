/* SPDX-License-Identifier: MIT */
/*
 * What info prints: a device of any kind, its limits, and the queue that its I/O would go through.
 * A mapped device is shown as dmsetup shows it; the rest follows in the same form.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "devices.h"
#include "json.h"
#include "show.h"
#include "words.h"

struct facts {
	const char *name;
	uint64_t size_sectors;
	bool is_read_only;
	bool is_mapped;
	struct dmcore_device_info device; /* of a mapped one */
	struct dmcore_limits limits;
	struct dmcore_queue_info queue;
};

static const struct {
	unsigned int cap;
	const char *name;
} cap_names[] = {
	{ DMCORE_CAP_VOLATILE_CACHE, "volatile-cache" },
	{ DMCORE_CAP_FUA, "fua" },
	{ DMCORE_CAP_DISCARD, "discard" },
	{ DMCORE_CAP_DISCARD_ZEROES, "discard-zeroes" },
	{ DMCORE_CAP_WRITE_ZEROES, "write-zeroes" },
};

#define NUM_CAPS (sizeof(cap_names) / sizeof(cap_names[0]))

/* The numbers among the limits, in the order in which they are shown. */
static const struct {
	const char *label;  /* for people */
	const char *name;   /* for JSON */
	const char *unit;
	const char *zero;   /* what 0 stands for */
	size_t offset;
	bool is_wide;       /* 64 bits, not 32 */
} limit_names[] = {
#define LIMIT(label, field, unit, zero)                                                            \
	{ label, #field, unit, zero, offsetof(struct dmcore_limits, field),                        \
	  sizeof(((struct dmcore_limits *)0)->field) == sizeof(uint64_t) }
	LIMIT("Logical block:", logical_block_bytes, "bytes", "none"),
	LIMIT("Physical block:", physical_block_bytes, "bytes", "none"),
	LIMIT("I/O minimum:", io_min_bytes, "bytes", "none"),
	LIMIT("I/O optimum:", io_opt_bytes, "bytes", "none"),
	LIMIT("Memory alignment:", memory_align_bytes, "bytes", "any"),
	LIMIT("Maximum I/O:", max_io_sectors, "sectors", "unlimited"),
	LIMIT("Chunk:", chunk_sectors, "sectors", "none"),
	LIMIT("Discard unit:", discard_granularity_bytes, "bytes", "none"),
	LIMIT("Maximum discard:", max_discard_sectors, "sectors", "unlimited"),
	LIMIT("Maximum zeroes:", max_write_zeroes_sectors, "sectors", "unlimited"),
#undef LIMIT
};

#define NUM_LIMITS (sizeof(limit_names) / sizeof(limit_names[0]))

static uint64_t limit_at(const struct dmcore_limits *limits, size_t index)
{
	const char *at = (const char *)limits + limit_names[index].offset;
	uint64_t wide;
	uint32_t narrow;

	if (limit_names[index].is_wide) {
		memcpy(&wide, at, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, at, sizeof(narrow));
	return narrow;
}

/* ---- for people ---- */

static void print_mapped(const struct dmcore_device_info *device)
{
	const char *state = device->suspended ? "SUSPENDED" : "ACTIVE";
	const char *access = device->read_only ? " (READ-ONLY)" : "";
	const char *removal = device->deferred_remove ? " (DEFERRED REMOVE)" : "";
	const char *tables = device->inactive_table ? "INACTIVE" : "None";

	if (device->live_table)
		tables = device->inactive_table ? "LIVE & INACTIVE" : "LIVE";

	printf("%-19s%s%s%s\n", "State:", state, access, removal);
	printf("%-19s%s\n", "Tables present:", tables);
	printf("%-19s%u\n", "Open count:", device->open_count);
	printf("%-19s%" PRIu32 "\n", "Event number:", device->event_nr);
	printf("%-19s%u\n", "Number of targets:", device->num_targets);
	if (device->inactive_table) {
		printf("%-19s%u\n", "Inactive targets:", device->num_inactive_targets);
		printf("%-19s%" PRIu64 " sectors\n", "Inactive size:",
		       device->inactive_size_sectors);
	}
	if (device->suspended)
		printf("%-19s%" PRIu64 "\n", "Requests waiting:", device->num_deferred);
	if (device->uuid[0])
		printf("%-19s%s\n", "UUID:", device->uuid);
}

static void print_limits(const struct dmcore_limits *limits)
{
	for (size_t i = 0; i < NUM_LIMITS; i++) {
		uint64_t value = limit_at(limits, i);

		if (value)
			printf("%-19s%" PRIu64 " %s\n", limit_names[i].label, value,
			       limit_names[i].unit);
		else
			printf("%-19s%s\n", limit_names[i].label, limit_names[i].zero);
	}
	printf("%-19s", "Capabilities:");
	for (size_t i = 0, shown = 0; i < NUM_CAPS; i++) {
		if (limits->caps & cap_names[i].cap)
			printf("%s%s", shown++ ? " " : "", cap_names[i].name);
	}
	printf("%s\n", limits->caps ? "" : "none");
}

static void print_facts(const struct facts *facts)
{
	char size[WORDS_SIZE_BYTES];

	words_size(facts->size_sectors * DMCORE_SECTOR_BYTES, size);
	printf("%-19s%s\n", "Name:", facts->name);
	if (facts->is_mapped)
		print_mapped(&facts->device);
	else
		printf("%-19s%s\n", "Access:", facts->is_read_only ? "read-only" : "read-write");
	printf("%-19s%" PRIu64 " sectors, %s\n", "Size:", facts->size_sectors, size);
	print_limits(&facts->limits);
	printf("%-19s%s\n", "Backend:", facts->queue.reason);
	printf("%-19s%u, %u workers\n", "Queue depth:", facts->queue.depth, facts->queue.workers);
}

/* ---- JSON ---- */

static const char *json_bool(bool value)
{
	return value ? "true" : "false";
}

static void json_mapped(const struct dmcore_device_info *device)
{
	printf(",\"uuid\":");
	json_string(device->uuid, strlen(device->uuid));
	printf(",\"suspended\":%s,\"live_table\":%s,\"inactive_table\":%s,\"open_count\":%u,"
	       "\"event_nr\":%" PRIu32 ",\"num_targets\":%u",
	       json_bool(device->suspended), json_bool(device->live_table),
	       json_bool(device->inactive_table), device->open_count, device->event_nr,
	       device->num_targets);
	printf(",\"deferred_remove\":%s,\"num_inactive_targets\":%u,"
	       "\"inactive_size_sectors\":%" PRIu64 ",\"num_deferred\":%" PRIu64,
	       json_bool(device->deferred_remove), device->num_inactive_targets,
	       device->inactive_size_sectors, device->num_deferred);
}

static void json_limits(const struct dmcore_limits *limits)
{
	fputs(",\"limits\":{", stdout);
	for (size_t i = 0; i < NUM_LIMITS; i++)
		printf("\"%s\":%" PRIu64 ",", limit_names[i].name, limit_at(limits, i));
	fputs("\"capabilities\":[", stdout);
	for (size_t i = 0, shown = 0; i < NUM_CAPS; i++) {
		if (limits->caps & cap_names[i].cap)
			printf("%s\"%s\"", shown++ ? "," : "", cap_names[i].name);
	}
	fputs("]}", stdout);
}

static void json_facts(const struct facts *facts)
{
	bool is_uring = facts->queue.backend == DMCORE_BACKEND_IO_URING;

	fputs("{\"name\":", stdout);
	json_string(facts->name, strlen(facts->name));
	printf(",\"mapped\":%s,\"read_only\":%s,\"size_sectors\":%" PRIu64,
	       json_bool(facts->is_mapped), json_bool(facts->is_read_only), facts->size_sectors);
	if (facts->is_mapped)
		json_mapped(&facts->device);
	json_limits(&facts->limits);
	printf(",\"queue\":{\"backend\":\"%s\",\"workers\":%u,\"depth\":%u,\"reason\":",
	       is_uring ? "io_uring" : "pread", facts->queue.workers, facts->queue.depth);
	json_string(facts->queue.reason, strlen(facts->queue.reason));
	puts("}}");
}

/* ---- both ---- */

static void learn(struct facts *facts, struct session *session, struct dmcore_bdev *bdev)
{
	facts->size_sectors = dmcore_bdev_size_sectors(bdev);
	facts->is_read_only = dmcore_bdev_is_read_only(bdev);
	facts->limits.struct_size = sizeof(facts->limits);
	dmcore_bdev_limits(bdev, &facts->limits);
	facts->queue.struct_size = sizeof(facts->queue);
	dmcore_queue_info(session->queue, &facts->queue);
}

/* Opens a leaf as a writer would, so that what is shown is what he gets; else as a reader. */
static enum exit_status open_leaf(struct session *session, const char *spec,
				  struct dmcore_bdev **bdev)
{
	unsigned int flags = options_open_flags(&session->options);

	if (dmcore_bdev_open(session->core, spec, flags, bdev) == 0)
		return EXIT_DONE;
	return devices_open(session, spec, false, bdev);
}

enum exit_status show_info(struct session *session, const char *spec)
{
	struct dmcore_device *device = dmcore_device_find(session->core, spec);
	struct facts facts = { .name = spec, .is_mapped = device };
	enum exit_status status = session_queue(session);
	struct dmcore_bdev *bdev = NULL;

	if (status)
		return status;
	if (device) {
		/* Not opened, or that would show in the open count. */
		facts.name = dmcore_device_name(device);
		facts.device.struct_size = sizeof(facts.device);
		dmcore_device_info(device, &facts.device);
		learn(&facts, session, dmcore_device_bdev(device));
	} else {
		status = open_leaf(session, spec, &bdev);
		if (status)
			return status;
		learn(&facts, session, bdev);
	}
	if (session->options.json)
		json_facts(&facts);
	else
		print_facts(&facts);
	dmcore_bdev_close(bdev);
	return EXIT_DONE;
}
