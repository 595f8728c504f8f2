/* SPDX-License-Identifier: MIT */
/*
 * A copy under way: a job of kcopyd's, and beside it a progress bar, signals, and the state that is
 * saved every few seconds. What the state says is durable: all destinations are flushed after the
 * position was read and before it is written down.
 */
#include "copy.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "copy_report.h"
#include "progress.h"

/* For data: 1 MiB, so that 8 slices of 128 KiB are under way at once. */
#define NUM_PAGES 256u
/* With --ignore-errors: what is lost of a slice with an error in it is no more than that. */
#define CAREFUL_SECTORS 8u
/* With --direct: two slices of 1 MiB. Disks like long requests, and few at a time. */
#define DIRECT_SECTORS 2048u
#define DIRECT_PAGES 512u
/* What is compared at a time of what was copied before. */
#define PIECE_BYTES (1u << 20)
#define SECOND_NS INT64_C(1000000000)
/* How often it is looked for a signal, and the bar is drawn. */
#define LOOK_NS (SECOND_NS / 10)
#define SAVE_NS (5 * SECOND_NS)

/* Copies, their parts and ends. */
struct run {
	struct session *session;
	struct copy *copy;
	struct kcopyd_throttle *throttle;
	struct kcopyd_client *client;
	struct dmio_client *flusher;     /* NULL: no state is kept */
	struct kcopyd_job job;
	bool is_done;
	bool is_cancelled;
	struct progress progress;
	bool is_verifying;               /* and the bar says so */
	uint64_t shown_sectors;
	/* The state. */
	struct copy_place saving;        /* what is being made durable */
	bool is_flushing;
	bool has_flushed;
	unsigned long flush_err;
	uint64_t next_save_ns;
	enum exit_status save_status;    /* what became of the last saving */
};

/* ---- signals ---- */

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

#define NUM_SIGNALS (sizeof(signals) / sizeof(signals[0]))

/* The signal that has come, or 0. One for all copies, as for the program. */
static atomic_int caught;

static void catch_signal(int number)
{
	atomic_store(&caught, number);
}

static void begin_signals(struct sigaction old[NUM_SIGNALS])
{
	/* The second one kills. */
	struct sigaction action = { .sa_handler = catch_signal, .sa_flags = (int)SA_RESETHAND };

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < NUM_SIGNALS; i++) {
		sigaction(signals[i], NULL, &old[i]);
		if (old[i].sa_handler != SIG_IGN)
			sigaction(signals[i], &action, NULL);
	}
}

static void end_signals(const struct sigaction old[NUM_SIGNALS])
{
	for (size_t i = 0; i < NUM_SIGNALS; i++)
		sigaction(signals[i], &old[i], NULL);
}

/* ---- the state ---- */

static struct kcopyd_progress progress_of(const struct run *run)
{
	struct kcopyd_progress progress = { .struct_size = sizeof(progress) };

	kcopyd_progress(&run->job, &progress);
	return progress;
}

static void cancel(struct run *run)
{
	if (!run->is_done && !run->is_cancelled)
		run->is_cancelled = kcopyd_cancel(&run->job) == 0;
}

static void flushed(unsigned long error, void *context)
{
	struct run *run = context;

	run->flush_err = error;
	run->is_flushing = false;
	run->has_flushed = true;
}

static void plan_save(struct run *run)
{
	int64_t save_ns = run->copy->options.save_ns ? run->copy->options.save_ns : SAVE_NS;

	run->next_save_ns = dmcore_clock_ns(run->session->core) + (uint64_t)save_ns;
}

/* Has all destinations made durable what is there now; flushed() follows. */
static void begin_save(struct run *run)
{
	struct kcopyd_progress progress = progress_of(run);

	run->saving.position = run->copy->start.position + progress.position_sectors;
	run->saving.failed = run->copy->start.failed + progress.failed_sectors;
	/* One that is refused for the moment is tried again at the next look. */
	run->is_flushing = dmio_async(run->flusher, run->job.num_dests, run->job.dests, DMIO_FLUSH,
				      NULL, 0, flushed, run) == 0;
}

static enum exit_status save_place(struct run *run)
{
	int ret = copy_state_save(&run->copy->state, &run->saving);

	if (ret == 0)
		return EXIT_DONE;
	progress_end(&run->progress);
	return report_error(&run->session->report, EXIT_IO_FAILED, ret, "%s: %s",
			    run->copy->state.path, strerror(-ret));
}

/* A copy whose state can't be saved is no copy that can be resumed: it ends. */
static void end_save(struct run *run)
{
	run->has_flushed = false;
	if (run->flush_err) {
		progress_end(&run->progress);
		run->save_status = EXIT_IO_FAILED;
		/* The job's own errors say as much. */
		if (!run->job.write_err)
			copy_report_flush(run->session, run->copy, (unsigned int)run->flush_err);
	} else {
		run->save_status = save_place(run);
	}
	if (run->save_status)
		cancel(run);
	plan_save(run);
}

/* ---- the job ---- */

static void job_done(struct kcopyd_job *job)
{
	struct run *run = job->context;

	run->is_done = true;
}

static void fill_job(struct run *run)
{
	const struct copy *copy = run->copy;
	const struct copy_options *options = &copy->options;
	struct kcopyd_job *job = &run->job;

	job->from = (struct dmio_region){
		.bdev = copy->from.bdev,
		.sector = copy->from.sector + copy->start.position,
		.count = copy->count - copy->start.position,
	};
	job->num_dests = copy->num_dests;
	for (unsigned int i = 0; i < copy->num_dests; i++)
		job->dests[i] = (struct dmio_region){
			.bdev = copy->dests[i].bdev,
			.sector = copy->dests[i].sector + copy->start.position,
			.count = job->from.count,
		};
	job->flags = (options->no_flush ? 0 : KCOPYD_FLUSH) |
		     (options->verify ? KCOPYD_VERIFY : 0) |
		     (options->sparse ? KCOPYD_SPARSE : 0) |
		     (options->share ? KCOPYD_SHARE : 0) |
		     (options->ignore_errors ? KCOPYD_IGNORE_ERROR : 0);
	if (options->sparse && copy->dests_zeroed)
		job->flags |= KCOPYD_DESTS_ZEROED;
	job->done = job_done;
	job->context = run;
}

static int make_clients(struct run *run)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	struct dmcore_queue *queue = run->session->queue;
	bool direct = run->session->options.direct;
	int ret = 0;

	if (direct)
		options.subjob_sectors = DIRECT_SECTORS;
	if (run->copy->options.ignore_errors)
		options.subjob_sectors = CAREFUL_SECTORS;
	if (run->copy->options.rate_bytes) {
		ret = kcopyd_throttle_create(queue, &run->throttle);
		if (ret == 0)
			ret = kcopyd_throttle_set(run->throttle, 100,
						  run->copy->options.rate_bytes);
		options.throttle = run->throttle;
	}
	if (ret == 0 && run->copy->state.path)
		ret = dmio_client_create(queue, 0, &run->flusher);
	if (ret == 0)
		ret = kcopyd_client_create_with(queue, direct ? DIRECT_PAGES : NUM_PAGES, &options,
						&run->client);
	return ret;
}

static void begin_bar(struct run *run, const char *label, uint64_t done_sectors)
{
	const struct options *options = &run->session->options;
	bool is_wanted = !options->quiet && !options->json && !run->session->is_job &&
			 !run->session->watch;

	progress_end(&run->progress);
	progress_begin(&run->progress, is_wanted, label,
		       run->copy->count * DMCORE_SECTOR_BYTES);
	run->progress.base_bytes = done_sectors * DMCORE_SECTOR_BYTES;
	run->progress.done_bytes = run->progress.base_bytes;
	run->shown_sectors = done_sectors;
}

static void show(struct run *run)
{
	struct kcopyd_progress progress = progress_of(run);
	uint64_t done = run->copy->start.position + progress.position_sectors;

	if (!run->is_verifying && progress.verified_sectors > 0) {
		run->is_verifying = true;
		begin_bar(run, "verify", 0);
	}
	if (run->is_verifying)
		done = progress.verified_sectors;
	if (done < run->shown_sectors)
		return;
	progress_add(&run->progress, (done - run->shown_sectors) * DMCORE_SECTOR_BYTES);
	run->shown_sectors = done;
}

/* Until the job has ended, and no flush is under way. */
static enum exit_status wait_for(struct run *run)
{
	const struct copy_options *options = &run->copy->options;
	int64_t look_ns = options->save_ns && options->save_ns < LOOK_NS ? options->save_ns :
									     LOOK_NS;

	while (!run->is_done || run->is_flushing) {
		int ret = dmcore_queue_poll(run->session->queue, 1, 64, look_ns);

		if (ret < 0 && ret != -EINTR)
			return report_library(&run->session->report, EXIT_IO_FAILED, ret);
		if (atomic_load(&caught))
			cancel(run);
		if (run->has_flushed)
			end_save(run);
		if (run->flusher && !run->is_flushing && !run->is_done && !run->is_cancelled &&
		    dmcore_clock_ns(run->session->core) >= run->next_save_ns)
			begin_save(run);
		show(run);
	}
	if (run->has_flushed)
		end_save(run);
	return EXIT_DONE;
}

/* ---- what was copied before it was resumed ---- */

/* Compares a piece of the source with each destination. */
static enum exit_status compare_piece(const struct run *run, unsigned char *memory, uint64_t at,
				      size_t bytes)
{
	const struct copy *copy = run->copy;
	struct report *report = &run->session->report;
	enum exit_status status = EXIT_DONE;
	int ret = dmcore_pread(copy->from.bdev, memory, bytes,
			       (copy->from.sector + at) * DMCORE_SECTOR_BYTES);

	if (ret)
		return report_library(report, EXIT_IO_FAILED, ret);
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		const struct copy_end *dest = &copy->dests[i];
		size_t same = 0;

		ret = dmcore_pread(dest->bdev, memory + PIECE_BYTES, bytes,
				   (dest->sector + at) * DMCORE_SECTOR_BYTES);
		if (ret) {
			status = report_library(report, EXIT_IO_FAILED, ret);
			continue;
		}
		while (same < bytes && memory[same] == memory[PIECE_BYTES + same])
			same++;
		if (same < bytes)
			status = copy_report_difference(run->session, copy, i,
							at + same / DMCORE_SECTOR_BYTES);
	}
	return status;
}

/* kcopyd verifies what its own job has copied. */
static enum exit_status verify_before(struct run *run)
{
	uint64_t end = run->copy->start.position;
	unsigned char *memory = malloc((size_t)2 * PIECE_BYTES);
	enum exit_status status = EXIT_DONE;

	if (!memory)
		return report_error(&run->session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
	begin_bar(run, "verify", 0);
	for (uint64_t at = 0; at < end && status == EXIT_DONE && !atomic_load(&caught);) {
		uint64_t left_bytes = (end - at) * DMCORE_SECTOR_BYTES;
		size_t bytes = left_bytes < PIECE_BYTES ? (size_t)left_bytes : PIECE_BYTES;

		status = compare_piece(run, memory, at, bytes);
		at += bytes / DMCORE_SECTOR_BYTES;
		progress_add(&run->progress, bytes);
	}
	free(memory);
	progress_end(&run->progress);
	if (status == EXIT_DONE && atomic_load(&caught))
		status = report_error(&run->session->report, EXIT_IO_FAILED, ECANCELED,
				      "ended by a signal before it was resumed");
	return status;
}

/* Says in the state how far it got, or removes it when nothing is left to be done. */
static enum exit_status settle_state(struct run *run)
{
	struct kcopyd_progress progress = progress_of(run);
	bool is_copied = progress.position_sectors == progress.total_sectors;
	bool has_ended = run->job.status != -ECANCELED && is_copied &&
			 (run->job.write_err == 0 || run->copy->options.ignore_errors);
	int ret;

	if (!run->flusher || run->save_status)
		return run->save_status;
	if (has_ended) {
		ret = copy_state_remove(&run->copy->state);
		if (ret)
			return report_error(&run->session->report, EXIT_IO_FAILED, ret, "%s: %s",
					    run->copy->state.path, strerror(-ret));
		return EXIT_DONE;
	}
	begin_save(run);
	while (run->is_flushing) {
		ret = dmcore_queue_poll(run->session->queue, 1, 64, LOOK_NS);
		if (ret < 0 && ret != -EINTR)
			return report_library(&run->session->report, EXIT_IO_FAILED, ret);
	}
	if (run->has_flushed)
		end_save(run);
	return run->save_status;
}

/* ---- from beginning to end ---- */

static enum exit_status carry_out(struct run *run)
{
	struct report *report = &run->session->report;
	enum exit_status status = EXIT_DONE;
	enum exit_status state_status;
	struct copy_outcome outcome;
	uint64_t started_ns;
	int ret = make_clients(run);

	if (ret)
		return report_library(report, EXIT_IO_FAILED, ret);
	fill_job(run);
	run->saving = run->copy->start;
	/* Now, so that a file that can't be written doesn't come to light after hours. */
	if (run->flusher)
		status = save_place(run);
	if (status == EXIT_DONE && run->copy->options.verify && run->copy->start.position > 0)
		status = verify_before(run);
	if (status)
		return status;
	started_ns = dmcore_clock_ns(run->session->core);
	plan_save(run);
	begin_bar(run, "copy", run->copy->start.position);
	ret = kcopyd_submit(run->client, &run->job);
	if (ret)
		return report_library(report, EXIT_IO_FAILED, ret);
	status = wait_for(run);
	progress_end(&run->progress);
	if (status)
		return status;
	outcome = (struct copy_outcome){
		.job = &run->job,
		.progress = progress_of(run),
		.elapsed_ns = dmcore_clock_ns(run->session->core) - started_ns,
		.is_interrupted = run->is_cancelled && atomic_load(&caught),
	};
	state_status = settle_state(run);
	outcome.is_saved = run->flusher && state_status == EXIT_DONE;
	status = copy_report(run->session, run->copy, &outcome);
	return status ? status : state_status;
}

enum exit_status copy_run(struct session *session, struct copy *copy)
{
	struct run run = { .session = session, .copy = copy };
	enum exit_status status = session_queue(session);
	struct sigaction old[NUM_SIGNALS];

	if (status)
		return status;
	/* In the background the script's thread decides what becomes of signals. */
	if (!session->is_job)
		begin_signals(old);
	status = carry_out(&run);
	if (!session->is_job) {
		end_signals(old);
		session->signal = atomic_load(&caught);
	}
	if (!run.is_done)
		cancel(&run);
	kcopyd_client_destroy(run.client);
	dmio_client_destroy(run.flusher);
	kcopyd_throttle_destroy(run.throttle);
	return status;
}
