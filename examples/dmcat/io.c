/* SPDX-License-Identifier: MIT */
/*
 * Bulk I/O. A ring of chunks, each a large request with its buffer, goes round: while the oldest is
 * waited for, the others are under way. So the device is kept busy, and data stay in order.
 */
#include "io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "progress.h"

#define NUM_CHUNKS 8u
#define CHUNK_BYTES (1u << 20)
#define CHUNK_SECTORS (CHUNK_BYTES / DMCORE_SECTOR_BYTES)
/* Alignment of the buffers: what any device wants for direct I/O. */
#define BUFFER_ALIGN_BYTES DMCORE_BLOCK_BYTES_MAX
/* What is cleared by one request; between two of them the progress bar moves. 64 MiB. */
#define CLEAR_SECTORS (UINT64_C(1) << 17)

struct chunk {
	struct dmcore_bio bio;
	unsigned char *buffer;
	uint64_t sector;    /* the bio's own may have been remapped */
	uint64_t count;
	bool is_busy;
};

/* A range on its way. */
struct transfer {
	struct session *session;
	struct dmcore_bdev *bdev;
	enum dmcore_op op;
	uint64_t next;       /* sector that the next chunk begins with */
	uint64_t end;
	unsigned int first;  /* oldest chunk that isn't settled */
	unsigned int busy;   /* how many aren't */
	uint32_t block_bytes;
	bool is_short;       /* the input has ended before the range */
	struct progress progress;
};

/* ---- chunks ---- */

static enum exit_status make_chunks(struct session *session)
{
	struct chunk *chunks;
	unsigned char *memory;

	if (session->chunks)
		return EXIT_DONE;
	chunks = calloc(NUM_CHUNKS, sizeof(*chunks));
	memory = aligned_alloc(BUFFER_ALIGN_BYTES, NUM_CHUNKS * CHUNK_BYTES);
	if (!chunks || !memory) {
		free(chunks);
		free(memory);
		return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
	}
	for (unsigned int i = 0; i < NUM_CHUNKS; i++)
		chunks[i].buffer = memory + (size_t)i * CHUNK_BYTES;
	session->chunks = chunks;
	return EXIT_DONE;
}

void io_free_chunks(struct session *session)
{
	if (!session->chunks)
		return;
	free(session->chunks[0].buffer);
	free(session->chunks);
	session->chunks = NULL;
}

static void chunk_done(struct dmcore_bio *bio)
{
	struct chunk *chunk = bio->context;

	chunk->is_busy = false;
}

/* Starts a request for the chunk's range. A refusal shows in the status, like every other error. */
static void start(struct session *session, struct dmcore_bdev *bdev, struct chunk *chunk,
		  enum dmcore_op op)
{
	struct dmcore_bio *bio = &chunk->bio;
	int ret;

	dmcore_bio_init(bio, session->queue);
	if (op == DMCORE_OP_READ || op == DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(bio, chunk->buffer,
				      (size_t)chunk->count * DMCORE_SECTOR_BYTES);
	bio->bdev = bdev;
	bio->op = op;
	bio->sector = chunk->sector;
	bio->count = chunk->count;
	bio->done = chunk_done;
	bio->context = chunk;
	chunk->is_busy = true;
	ret = dmcore_bio_submit(bio);
	if (ret) {
		bio->status = ret;
		chunk->is_busy = false;
	}
}

/* Waits for a chunk; returns its status. */
static int wait_for(struct session *session, struct chunk *chunk)
{
	while (chunk->is_busy) {
		int ret = dmcore_queue_poll(session->queue, 1, NUM_CHUNKS * 4, -1);

		if (ret < 0 && ret != -EINTR)
			return ret;
	}
	return chunk->bio.status;
}

/* One request, on a chunk that is free. */
static int run(struct session *session, struct dmcore_bdev *bdev, struct chunk *chunk,
	       enum dmcore_op op)
{
	start(session, bdev, chunk, op);
	return wait_for(session, chunk);
}

/* ---- transfers ---- */

static enum exit_status begin(struct transfer *transfer, struct session *session,
			      const struct io_range *range, enum dmcore_op op, uint64_t total_bytes)
{
	static const char *const labels[] = {
		[DMCORE_OP_READ] = "read",
		[DMCORE_OP_WRITE] = "write",
		[DMCORE_OP_FLUSH] = "flush",
		[DMCORE_OP_DISCARD] = "discard",
		[DMCORE_OP_WRITE_ZEROES] = "zero",
	};
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	const struct options *options = &session->options;
	enum exit_status status = session_queue(session);

	if (status == EXIT_DONE)
		status = make_chunks(session);
	if (status)
		return status;
	dmcore_bdev_limits(range->bdev, &limits);
	*transfer = (struct transfer){
		.session = session,
		.bdev = range->bdev,
		.op = op,
		.next = range->sector,
		.end = range->sector + range->count,
		.block_bytes = limits.logical_block_bytes,
	};
	/* A line of its own has room for one, and for nothing else. */
	progress_begin(&transfer->progress,
		       !options->quiet && !options->json && !session->is_job && !session->watch,
		       labels[op], total_bytes);
	return EXIT_DONE;
}

static enum exit_status failed_at(struct transfer *transfer, uint64_t sector, int error)
{
	progress_end(&transfer->progress);
	return report_error(&transfer->session->report, EXIT_IO_FAILED, error, "sector %llu: %s",
			    (unsigned long long)sector, strerror(-error));
}

static enum exit_status file_failed(struct transfer *transfer, const struct file *file, int error)
{
	progress_end(&transfer->progress);
	return report_error(&transfer->session->report, EXIT_IO_FAILED, error, "%s: %s", file->name,
			    strerror(-error));
}

/* The next chunk in the ring, that must be free, set up for up to so many sectors. */
static struct chunk *take(struct transfer *transfer, uint64_t max_sectors)
{
	unsigned int index = (transfer->first + transfer->busy) % NUM_CHUNKS;
	struct chunk *chunk = &transfer->session->chunks[index];

	chunk->sector = transfer->next;
	chunk->count = transfer->end - transfer->next;
	if (chunk->count > max_sectors)
		chunk->count = max_sectors;
	return chunk;
}

static void send(struct transfer *transfer, struct chunk *chunk)
{
	start(transfer->session, transfer->bdev, chunk, transfer->op);
	transfer->next += chunk->count;
	transfer->busy++;
}

/*
 * Does a chunk that has failed again, block by block, so that what works isn't lost with what
 * doesn't, and the message names the very sector. Returns the number of sectors that work from the
 * start on; if these aren't all, *error says why.
 */
static uint64_t salvage(struct transfer *transfer, const struct chunk *chunk, int *error)
{
	struct chunk block = { .buffer = chunk->buffer, .sector = chunk->sector };
	uint64_t good = 0;

	block.count = transfer->block_bytes / DMCORE_SECTOR_BYTES;
	while (good < chunk->count) {
		int ret = run(transfer->session, transfer->bdev, &block, transfer->op);

		if (ret) {
			*error = ret;
			break;
		}
		good += block.count;
		block.sector += block.count;
		block.buffer += transfer->block_bytes;
	}
	return good;
}

/*
 * Waits for the oldest chunk, which leaves the ring. *chunk is what has been moved of it, also on
 * failure.
 */
static enum exit_status settle(struct transfer *transfer, struct chunk **chunk)
{
	struct chunk *oldest = &transfer->session->chunks[transfer->first];
	int error = wait_for(transfer->session, oldest);
	uint64_t good = oldest->count;

	transfer->first = (transfer->first + 1) % NUM_CHUNKS;
	transfer->busy--;
	*chunk = oldest;
	if (error)
		good = salvage(transfer, oldest, &error);
	progress_add(&transfer->progress, good * DMCORE_SECTOR_BYTES);
	if (good == oldest->count)
		return EXIT_DONE;
	oldest->count = good;
	return failed_at(transfer, oldest->sector + good, error);
}

/* Submits what has been started, and settles what has ended, without waiting. */
static enum exit_status go_on(struct transfer *transfer)
{
	const struct chunk *chunks = transfer->session->chunks;
	enum exit_status status = EXIT_DONE;
	struct chunk *chunk;

	dmcore_queue_poll(transfer->session->queue, 0, NUM_CHUNKS * 4, 0);
	while (status == EXIT_DONE && transfer->busy > 0 && !chunks[transfer->first].is_busy)
		status = settle(transfer, &chunk);
	return status;
}

/* Waits for what is under way. */
static enum exit_status finish(struct transfer *transfer, enum exit_status status)
{
	struct chunk *chunk;

	while (transfer->busy > 0) {
		/* One message is enough. */
		if (status == EXIT_DONE) {
			status = settle(transfer, &chunk);
			continue;
		}
		wait_for(transfer->session, &transfer->session->chunks[transfer->first]);
		transfer->first = (transfer->first + 1) % NUM_CHUNKS;
		transfer->busy--;
	}
	progress_end(&transfer->progress);
	return status;
}

/* ---- what the rest of dmcat calls ---- */

enum exit_status io_check_range(struct session *session, const struct io_range *range)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	uint64_t size = dmcore_bdev_size_sectors(range->bdev);
	uint64_t block;

	if (range->sector > size || range->count > size - range->sector)
		return report_error(&session->report, EXIT_IO_FAILED, EIO,
				    "%llu sectors from %llu on reach behind the end of %s, which "
				    "has %llu", (unsigned long long)range->count,
				    (unsigned long long)range->sector, range->name,
				    (unsigned long long)size);
	dmcore_bdev_limits(range->bdev, &limits);
	block = limits.logical_block_bytes / DMCORE_SECTOR_BYTES;
	if (range->sector % block || range->count % block)
		return report_error(&session->report, EXIT_IO_FAILED, EINVAL,
				    "%llu sectors from %llu on: not multiples of the %llu sectors "
				    "of a block of %s", (unsigned long long)range->count,
				    (unsigned long long)range->sector, (unsigned long long)block,
				    range->name);
	return EXIT_DONE;
}

enum exit_status io_read(struct session *session, const struct io_range *range,
			 const struct file *output)
{
	struct transfer transfer;
	enum exit_status status = begin(&transfer, session, range, DMCORE_OP_READ,
					range->count * DMCORE_SECTOR_BYTES);

	if (status == EXIT_DONE && output->fd == STDOUT_FILENO)
		status = session_flush_output(session);
	if (status)
		return status;
	/* The bar would be drawn into the data. */
	if (isatty(output->fd))
		transfer.progress.is_wanted = false;
	while (status == EXIT_DONE && (transfer.busy > 0 || transfer.next < transfer.end)) {
		struct chunk *chunk;
		int ret;

		while (transfer.busy < NUM_CHUNKS && transfer.next < transfer.end)
			send(&transfer, take(&transfer, CHUNK_SECTORS));
		dmcore_queue_kick(session->queue);
		status = settle(&transfer, &chunk);
		ret = files_write(output, chunk->buffer,
				  (size_t)chunk->count * DMCORE_SECTOR_BYTES);
		if (ret)
			status = file_failed(&transfer, output, ret);
	}
	return finish(&transfer, status);
}

/*
 * Completes a last block that is filled up to `used_bytes` with what the device has there. No other
 * chunk touches that block.
 */
static enum exit_status fill_up(struct transfer *transfer, struct chunk *chunk, size_t used_bytes)
{
	size_t rest_bytes = used_bytes % transfer->block_bytes;
	unsigned char *start_of_block = chunk->buffer + used_bytes - rest_bytes;
	struct chunk block = { .count = transfer->block_bytes / DMCORE_SECTOR_BYTES };
	unsigned char *memory;
	int ret;

	block.sector = chunk->sector + chunk->count - block.count;
	memory = aligned_alloc(BUFFER_ALIGN_BYTES, BUFFER_ALIGN_BYTES);
	if (!memory)
		return failed_at(transfer, block.sector, -ENOMEM);
	block.buffer = memory;
	ret = run(transfer->session, transfer->bdev, &block, DMCORE_OP_READ);
	if (ret == 0)
		memcpy(start_of_block + rest_bytes, memory + rest_bytes,
		       transfer->block_bytes - rest_bytes);
	free(memory);
	return ret ? failed_at(transfer, block.sector, ret) : EXIT_DONE;
}

/* Fills a chunk from a file and sends it; at the end of the file, as many blocks as it fills. */
static enum exit_status send_from(struct transfer *transfer, const struct file *input)
{
	struct chunk *chunk = take(transfer, CHUNK_SECTORS);
	size_t room_bytes = (size_t)chunk->count * DMCORE_SECTOR_BYTES;
	int64_t got = files_read(input, chunk->buffer, room_bytes);
	enum exit_status status = EXIT_DONE;
	uint64_t blocks;

	if (got < 0)
		return file_failed(transfer, input, (int)got);
	transfer->is_short = (size_t)got < room_bytes;
	blocks = ((uint64_t)got + transfer->block_bytes - 1) / transfer->block_bytes;
	chunk->count = blocks * transfer->block_bytes / DMCORE_SECTOR_BYTES;
	if ((uint64_t)got % transfer->block_bytes)
		status = fill_up(transfer, chunk, (size_t)got);
	if (status || chunk->count == 0)
		return status;
	send(transfer, chunk);
	return go_on(transfer);
}

static enum exit_status write_chunks(struct transfer *transfer, const struct file *input)
{
	enum exit_status status = EXIT_DONE;
	struct chunk *chunk;

	while (status == EXIT_DONE && transfer->next < transfer->end && !transfer->is_short) {
		if (transfer->busy == NUM_CHUNKS)
			status = settle(transfer, &chunk);
		if (status == EXIT_DONE)
			status = send_from(transfer, input);
	}
	return finish(transfer, status);
}

enum exit_status io_write(struct session *session, const struct io_range *range,
			  const struct file *input)
{
	uint64_t bytes = range->count * DMCORE_SECTOR_BYTES;
	int64_t left = files_left(input);
	struct transfer transfer;
	enum exit_status status;

	/* Refused before anything is written, if it can be known before. */
	if (left >= 0 && (uint64_t)left < bytes)
		return report_error(&session->report, EXIT_IO_FAILED, ENODATA,
				    "%s has %lld bytes left, of %llu that are to be written",
				    input->name, (long long)left, (unsigned long long)bytes);
	status = begin(&transfer, session, range, DMCORE_OP_WRITE, bytes);
	if (status == EXIT_DONE)
		status = write_chunks(&transfer, input);
	if (status == EXIT_DONE && transfer.is_short)
		status = report_error(&session->report, EXIT_IO_FAILED, ENODATA,
				      "%s ended too early: %llu sectors have been written",
				      input->name,
				      (unsigned long long)(transfer.next - range->sector));
	return status;
}

enum exit_status io_write_all(struct session *session, const struct io_range *range,
			      const struct file *input)
{
	uint64_t room_bytes = range->count * DMCORE_SECTOR_BYTES;
	int64_t left = files_left(input);
	struct transfer transfer;
	enum exit_status status;
	char more;

	if (left >= 0 && (uint64_t)left > room_bytes)
		return report_error(&session->report, EXIT_IO_FAILED, ENOSPC,
				    "%s has %lld bytes, but from sector %llu on %s has room for "
				    "%llu; nothing was written", input->name, (long long)left,
				    (unsigned long long)range->sector, range->name,
				    (unsigned long long)room_bytes);
	status = begin(&transfer, session, range, DMCORE_OP_WRITE, left > 0 ? (uint64_t)left : 0);
	if (status == EXIT_DONE)
		status = write_chunks(&transfer, input);
	if (status == EXIT_DONE && !transfer.is_short &&
	    files_read(input, &more, 1) == 1)
		status = report_error(&session->report, EXIT_IO_FAILED, ENOSPC,
				      "%s goes on behind the end of %s, where %llu bytes have been "
				      "written", input->name, range->name,
				      (unsigned long long)room_bytes);
	return status;
}

enum exit_status io_clear(struct session *session, const struct io_range *range, enum dmcore_op op)
{
	struct transfer transfer;
	enum exit_status status = begin(&transfer, session, range, op,
					range->count * DMCORE_SECTOR_BYTES);
	int ret = 0;

	if (status)
		return status;
	while (ret == 0 && transfer.next < transfer.end) {
		/* Cut at multiples, for no device likes to discard from odd places. */
		uint64_t max_sectors = CLEAR_SECTORS - transfer.next % CLEAR_SECTORS;
		struct chunk *chunk = take(&transfer, max_sectors);

		ret = run(session, range->bdev, chunk, op);
		if (ret == 0) {
			transfer.next += chunk->count;
			progress_add(&transfer.progress, chunk->count * DMCORE_SECTOR_BYTES);
		}
	}
	progress_end(&transfer.progress);
	if (ret)
		return report_error(&session->report, EXIT_IO_FAILED, ret,
				    "sectors %llu to %llu: %s", (unsigned long long)transfer.next,
				    (unsigned long long)transfer.end - 1, strerror(-ret));
	return EXIT_DONE;
}

enum exit_status io_flush(struct session *session, struct dmcore_bdev *bdev)
{
	struct chunk flush = { .buffer = NULL };
	enum exit_status status = session_queue(session);
	int ret;

	if (status)
		return status;
	ret = run(session, bdev, &flush, DMCORE_OP_FLUSH);
	if (ret)
		return report_error(&session->report, EXIT_IO_FAILED, ret,
				    "flush: %s", strerror(-ret));
	return EXIT_DONE;
}
