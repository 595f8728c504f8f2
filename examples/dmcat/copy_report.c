/* SPDX-License-Identifier: MIT */
/* What a copy has come to, in words: errors with their device and sector, and a line of sums. */
#include "copy_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "words.h"

/* Behind the place where the first slice that failed may begin, none that failed ends further on:
 * as many as are under way at once. */
#define PROBE_SECTORS ((uint64_t)KCOPYD_SUBJOBS_MAX * KCOPYD_SUBJOB_SECTORS_MAX)
#define PIECE_SECTORS (PROBE_SECTORS / 8)

/* Where the job's range begins, and so much of it is done. */
static uint64_t done_sectors(const struct copy *copy, const struct copy_outcome *outcome)
{
	return copy->start.position + outcome->progress.position_sectors;
}

/* Whether a destination lies behind the source on the same device: its end is copied first. */
static bool is_backward(const struct copy *copy)
{
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		if (copy->dests[i].bdev == copy->from.bdev &&
		    copy->dests[i].sector > copy->from.sector)
			return true;
	}
	return false;
}

/* Reads on from where the copy has got to. 0: no error is met again; else *sector has it. */
static int probe(const struct copy *copy, const struct copy_outcome *outcome, uint64_t *sector)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	uint64_t at = copy->from.sector + done_sectors(copy, outcome);
	uint64_t end = copy->from.sector + copy->count;
	uint64_t piece = PIECE_SECTORS;
	void *buffer = malloc(PIECE_SECTORS * DMCORE_SECTOR_BYTES);
	uint64_t block;
	int ret = 0;

	dmcore_bdev_limits(copy->from.bdev, &limits);
	block = limits.logical_block_bytes / DMCORE_SECTOR_BYTES;
	if (end - at > PROBE_SECTORS)
		end = at + PROBE_SECTORS;
	while (buffer && at < end) {
		uint64_t count = end - at < piece ? end - at : piece;

		ret = dmcore_pread(copy->from.bdev, buffer, (size_t)count * DMCORE_SECTOR_BYTES,
				   at * DMCORE_SECTOR_BYTES);
		if (ret && count == block)
			break;
		/* What can't be read is read again block by block. */
		if (ret)
			piece = block;
		else
			at += count;
	}
	free(buffer);
	*sector = at;
	return ret;
}

static enum exit_status read_failed(struct session *session, const struct copy *copy,
				    const struct copy_outcome *outcome)
{
	struct report *report = &session->report;
	const char *name = copy->from.name;
	uint64_t sector;
	int error;

	if (copy->options.ignore_errors)
		return report_error(report, EXIT_IO_FAILED, EIO,
				    "%s: not all could be read; zeroes stand in its place", name);
	if (outcome->progress.position_sectors == outcome->progress.total_sectors)
		return report_error(report, EXIT_IO_FAILED, EIO,
				    "%s: it couldn't be read again to be compared", name);
	if (is_backward(copy))
		return report_error(report, EXIT_IO_FAILED, EIO, "%s: reading failed", name);
	error = probe(copy, outcome, &sector);
	if (error)
		return report_error(report, EXIT_IO_FAILED, error, "%s: reading sector %" PRIu64
				    ": %s", name, sector, strerror(-error));
	return report_error(report, EXIT_IO_FAILED, EIO,
			    "%s: reading failed at or behind sector %" PRIu64, name,
			    copy->from.sector + done_sectors(copy, outcome));
}

enum exit_status copy_report_flush(struct session *session, const struct copy *copy,
				   unsigned int flush_err)
{
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		if (flush_err & 1u << i)
			report_error(&session->report, EXIT_IO_FAILED, EIO,
				     "%s: flushing failed: what was written may be lost",
				     copy->dests[i].name);
	}
	return EXIT_IO_FAILED;
}

static enum exit_status write_failed(struct session *session, const struct copy *copy,
				     const struct copy_outcome *outcome)
{
	uint64_t total = outcome->progress.total_sectors;

	if (outcome->progress.position_sectors == total && outcome->progress.failed_sectors == 0)
		return copy_report_flush(session, copy, outcome->job->write_err);
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		const struct copy_end *dest = &copy->dests[i];

		if (!(outcome->job->write_err & 1u << i))
			continue;
		if (copy->options.ignore_errors || is_backward(copy))
			report_error(&session->report, EXIT_IO_FAILED, EIO,
				     "%s: not all could be written", dest->name);
		else
			report_error(&session->report, EXIT_IO_FAILED, EIO,
				     "%s: writing failed at or behind sector %" PRIu64, dest->name,
				     dest->sector + done_sectors(copy, outcome));
	}
	return EXIT_IO_FAILED;
}

enum exit_status copy_report_difference(struct session *session, const struct copy *copy,
					unsigned int index, uint64_t sector)
{
	const struct copy_end *dest = &copy->dests[index];

	return report_error(&session->report, EXIT_IO_FAILED, EILSEQ,
			    "%s differs from %s at sector %" PRIu64, dest->name, copy->from.name,
			    dest->sector + sector);
}

static enum exit_status verify_failed(struct session *session, const struct copy *copy,
				      const struct copy_outcome *outcome)
{
	unsigned int verify_err = outcome->job->verify_err;
	uint64_t mismatch = outcome->progress.mismatch_sectors;
	/* Of several, one has its first difference there. */
	bool is_one = !(verify_err & (verify_err - 1));

	for (unsigned int i = 0; i < copy->num_dests; i++) {
		const struct copy_end *dest = &copy->dests[i];

		if (!(verify_err & 1u << i))
			continue;
		if (mismatch == UINT64_MAX)
			report_error(&session->report, EXIT_IO_FAILED, EIO,
				     "%s: it couldn't be read again to be compared", dest->name);
		else if (is_one)
			copy_report_difference(session, copy, i, copy->start.position + mismatch);
		else
			report_error(&session->report, EXIT_IO_FAILED, EILSEQ,
				     "%s differs from %s at or behind sector %" PRIu64, dest->name,
				     copy->from.name,
				     dest->sector + copy->start.position + mismatch);
	}
	return EXIT_IO_FAILED;
}

static enum exit_status cancelled(struct session *session, const struct copy *copy,
				  const struct copy_outcome *outcome)
{
	/* Whatever else has ended it has been said. */
	if (!outcome->is_interrupted)
		return EXIT_IO_FAILED;
	return report_error(&session->report, EXIT_IO_FAILED, ECANCELED,
			    "ended by a signal at %" PRIu64 " of %" PRIu64 " sectors%s%s%s",
			    done_sectors(copy, outcome), copy->count,
			    outcome->is_saved ? "; --resume " : "",
			    outcome->is_saved ? copy->state.path : "",
			    outcome->is_saved ? " goes on from there" : "");
}

static enum exit_status report_errors(struct session *session, const struct copy *copy,
				      const struct copy_outcome *outcome)
{
	const struct kcopyd_job *job = outcome->job;
	enum exit_status status = EXIT_DONE;

	if (job->status == -ECANCELED)
		return cancelled(session, copy, outcome);
	if (job->read_err)
		status = read_failed(session, copy, outcome);
	if (job->write_err)
		status = write_failed(session, copy, outcome);
	if (job->verify_err)
		status = verify_failed(session, copy, outcome);
	if (job->status && status == EXIT_DONE)
		status = report_error(&session->report, EXIT_IO_FAILED, job->status, "%s",
				      strerror(-job->status));
	if (copy->start.failed && status == EXIT_DONE)
		status = report_error(&session->report, EXIT_IO_FAILED, EIO,
				      "before it was resumed, %" PRIu64 " sectors were given up",
				      copy->start.failed);
	return status;
}

/* ---- sums ---- */

static void print_json(FILE *out, const struct copy *copy, const struct copy_outcome *outcome,
		       enum exit_status status)
{
	const struct kcopyd_progress *progress = &outcome->progress;
	const char *separator = "";

	fputs("{\"source\":", out);
	json_string_to(out, copy->from.name, strlen(copy->from.name));
	fputs(",\"destinations\":[", out);
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		fputs(separator, out);
		json_string_to(out, copy->dests[i].name, strlen(copy->dests[i].name));
		separator = ",";
	}
	fprintf(out, "],\"sectors\":%" PRIu64 ",\"resumed_at\":%" PRIu64, copy->count,
		copy->start.position);
	fprintf(out, ",\"position\":%" PRIu64, done_sectors(copy, outcome));
	fprintf(out, ",\"copied\":%" PRIu64 ",\"zeroed\":%" PRIu64 ",\"skipped\":%" PRIu64,
		progress->copied_sectors, progress->zeroed_sectors, progress->skipped_sectors);
	fprintf(out, ",\"shared\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"verified\":%" PRIu64,
		progress->shared_sectors, progress->failed_sectors + copy->start.failed,
		progress->verified_sectors);
	if (progress->mismatch_sectors == UINT64_MAX)
		fputs(",\"mismatch\":null", out);
	else
		fprintf(out, ",\"mismatch\":%" PRIu64,
			copy->start.position + progress->mismatch_sectors);
	fprintf(out, ",\"seconds\":%.6f,\"ok\":%s}\n", (double)outcome->elapsed_ns / 1e9,
		status ? "false" : "true");
}

/* `, 1.0 MiB zeroed`, unless it's nothing. */
static void print_part(FILE *out, uint64_t sectors, const char *what)
{
	char size[WORDS_SIZE_BYTES];

	if (sectors == 0)
		return;
	words_size(sectors * DMCORE_SECTOR_BYTES, size);
	fprintf(out, ", %s %s", size, what);
}

static void print_text(FILE *out, const struct copy *copy, const struct copy_outcome *outcome)
{
	const struct kcopyd_progress *progress = &outcome->progress;
	double seconds = (double)(outcome->elapsed_ns ? outcome->elapsed_ns : 1) / 1e9;
	uint64_t bytes = progress->position_sectors * DMCORE_SECTOR_BYTES;
	char done[WORDS_SIZE_BYTES];
	char total[WORDS_SIZE_BYTES];
	char rate[WORDS_SIZE_BYTES];

	words_size(bytes, done);
	words_size(copy->count * DMCORE_SECTOR_BYTES, total);
	words_size((uint64_t)((double)bytes / seconds), rate);
	fprintf(out, "%s of %s in %.3f s, %s/s", done, total, seconds, rate);
	print_part(out, copy->start.position, "copied before");
	print_part(out, progress->zeroed_sectors, "zeroed");
	print_part(out, progress->skipped_sectors, "of zeroes left out");
	print_part(out, progress->shared_sectors, "shared");
	print_part(out, progress->failed_sectors, "failed");
	print_part(out, progress->verified_sectors, "compared");
	putc('\n', out);
}

enum exit_status copy_report(struct session *session, struct copy *copy,
			     const struct copy_outcome *outcome)
{
	enum exit_status status = report_errors(session, copy, outcome);
	size_t bytes;
	FILE *out;

	if (session->options.quiet && !session->options.json)
		return status;
	out = open_memstream(&copy->sums, &bytes);
	if (!out)
		return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
	if (session->options.json)
		print_json(out, copy, outcome, status);
	else
		print_text(out, copy, outcome);
	fclose(out);
	return status;
}
