/* SPDX-License-Identifier: MIT */
/* What fuzzers stand on: input, a core whose memory is counted. See fuzz.h; called by fuzzers. */
#include "fuzz.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER_BYTES 16

static size_t heap_blocks;
static size_t heap_bytes;

void fuzz_fail(const char *file, int line, const char *condition, const char *format, ...)
{
	char text[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* Not by stderr, which a fuzzer may have sent elsewhere. */
	dprintf(STDERR_FILENO, "%s:%d: %s: %s\n", file, line, condition, text);
	abort();
}

/* ---- input ---------------------------------------------------------------------------------- */

uint8_t fuzz_u8(struct fuzz_bytes *bytes)
{
	if (bytes->left == 0)
		return 0;
	bytes->left--;
	return *bytes->at++;
}

uint32_t fuzz_below(struct fuzz_bytes *bytes, uint32_t limit)
{
	uint32_t value = fuzz_u8(bytes);

	for (uint32_t rest = (limit - 1) >> 8; rest > 0; rest >>= 8)
		value = value << 8 | fuzz_u8(bytes);
	return value % limit;
}

void fuzz_text(struct fuzz_bytes *bytes, char *text, size_t room)
{
	size_t length = strnlen((const char *)bytes->at, bytes->left);

	if (length >= room)
		length = room - 1;
	memcpy(text, bytes->at, length);
	text[length] = '\0';
}

/* ---- texts ---------------------------------------------------------------------------------- */

void fuzz_check_text(const char *text, unsigned int num_targets, uint64_t size_sectors)
{
	unsigned int num_lines = 0;
	uint64_t next = 0;

	for (const char *at = text; *at; num_lines++) {
		const char *newline = strchr(at, '\n');
		char *end;
		uint64_t start = strtoull(at, &end, 10);
		uint64_t length = strtoull(end, &end, 10);

		FUZZ_CHECK(newline && end < newline && *end == ' ', "%s", text);
		FUZZ_CHECK(start == next && length > 0, "%s", text);
		next = start + length;
		at = newline + 1;
	}
	FUZZ_CHECK(num_lines == num_targets, "%u targets: %s", num_targets, text);
	FUZZ_CHECK(next == size_sectors, "%llu sectors: %s", (unsigned long long)size_sectors,
		   text);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void *heap_alloc(size_t bytes, void *context)
{
	char *block;

	(void)context;
	if (bytes > FUZZ_HEAP_BYTES_MAX - heap_bytes)
		return NULL;
	block = malloc(bytes + HEADER_BYTES);
	if (!block)
		return NULL;
	memcpy(block, &bytes, sizeof(bytes));
	heap_bytes += bytes;
	heap_blocks++;
	return block + HEADER_BYTES;
}

static void heap_release(void *memory, void *context)
{
	char *block = (char *)memory - HEADER_BYTES;
	size_t bytes;

	(void)context;
	memcpy(&bytes, block, sizeof(bytes));
	heap_bytes -= bytes;
	heap_blocks--;
	free(block);
}

/* ---- cores ---------------------------------------------------------------------------------- */

int __real_dmcore_create(const struct dmcore_options *options, struct dmcore **result);
int __wrap_dmcore_create(const struct dmcore_options *options, struct dmcore **result);

/* A sleep for ever, so often in a row, is one that nothing ends. */
#define SLEEPS_MAX 1000

static uint64_t now_ns;
static unsigned int num_sleeps;

/* Time passes by being asked for, too. */
static uint64_t tick(void *context)
{
	(void)context;
	now_ns += 1000;
	return now_ns;
}

static int sleep_until(struct dmcore *core, uint64_t until_ns, void *context)
{
	uint64_t next_ns;

	(void)context;
	if (dmcore_service_poll(core, 0, 64, 0) > 0)
		return 0;
	next_ns = dmcore_timer_next_ns(dmcore_service_queue(core));
	if (next_ns < until_ns)
		until_ns = next_ns;
	if (until_ns == UINT64_MAX) {
		FUZZ_CHECK(num_sleeps < SLEEPS_MAX, "a sleep that nothing ends");
		num_sleeps++;
		return -EDEADLK;
	}
	num_sleeps = 0;
	if (until_ns > now_ns)
		now_ns = until_ns;
	return 0;
}

int __wrap_dmcore_create(const struct dmcore_options *options, struct dmcore **result)
{
	struct dmcore_options own = DMCORE_OPTIONS_INIT;

	if (options)
		own = *options;
	own.backend = DMCORE_BACKEND_PREAD;
	own.flags |= DMCORE_SERVICE_MANUAL;
	/* dmcat's would take most of the time. */
	own.bdevs_max = 64;
	own.alloc = heap_alloc;
	own.release = heap_release;
	/* A simulated world has its own time. */
	if (!own.clock_ns) {
		own.clock_ns = tick;
		own.sleep = sleep_until;
	}
	num_sleeps = 0;
	return __real_dmcore_create(&own, result);
}

struct dmcore *fuzz_core(void)
{
	struct dmcore *core;
	int ret = dmcore_create(NULL, &core);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	return core;
}

void fuzz_core_end(struct dmcore *core)
{
	int ret = dmcore_destroy(core);

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	fuzz_heap_check();
}

void fuzz_heap_check(void)
{
	FUZZ_CHECK(heap_blocks == 0, "%zu blocks of %zu bytes are left", heap_blocks, heap_bytes);
}

/* ---- what is kept --------------------------------------------------------------------------- */

static struct dmcore_queue *kept_queue;
static size_t kept_blocks;

struct dmcore_queue *fuzz_kept_queue(void)
{
	char sector[DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev;
	struct dmcore *core;
	int ret;

	if (kept_queue)
		return kept_queue;
	core = fuzz_core();
	ret = dmcore_queue_create(core, NULL, &kept_queue);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	/* So is the queue of the service. */
	FUZZ_CHECK(dmcore_service_poll(core, 0, 1, 0) >= 0, "%s", dmcore_error_message());
	/* And that of plain I/O. */
	ret = dmcore_bdev_open(core, "mem:64k", 0, &bdev);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_pread(bdev, sector, sizeof(sector), 0);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	dmcore_bdev_close(bdev);
	fuzz_kept_settle();
	return kept_queue;
}

void fuzz_kept_settle(void)
{
	kept_blocks = heap_blocks;
}

void fuzz_kept_check(void)
{
	struct dmcore *core = dmcore_queue_core(kept_queue);

	num_sleeps = 0;
	/* What inputs have closed may be held until then. */
	FUZZ_CHECK(dmcore_queue_poll(kept_queue, 0, 1, 0) >= 0, "%s", dmcore_error_message());
	FUZZ_CHECK(!dmcore_device_at(core, 0), "a device is left");
	FUZZ_CHECK(heap_blocks == kept_blocks, "%zu blocks are left, not %zu", heap_blocks,
		   kept_blocks);
}
