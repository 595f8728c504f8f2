/* SPDX-License-Identifier: MIT */
/*
 * The commands of a script that read and write. One in the background has a thread and a queue of
 * its own; its device and its file are opened before and closed afterwards by the script's thread,
 * which alone deals with devices.
 */
#include "tasks.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "commands.h"
#include "copy.h"
#include "devices.h"
#include "io.h"

/* How often it is looked whether what is in the background can still end. */
#define LOOK_NS 10000000

/* An operation, ready to be carried out. */
struct task {
	enum dmcore_op op;
	struct io_range range;
	struct file file;  /* of READ and WRITE */
	struct copy *copy; /* or NULL: it owns what it works on, and the rest is unused */
};

/* A task in the background. */
struct job {
	struct job *next;
	pthread_t thread;
	struct session session; /* with a queue of its own */
	struct task task;
	char *names[2];         /* the device's and the file's, for messages */
	atomic_bool has_ended;
};

/* Standard input and output are the script's own. */
static enum exit_status check_path(struct session *session, const struct call *call,
				   const char *path)
{
	if (!call->in_background || strcmp(path, "-") != 0)
		return EXIT_DONE;
	return report_error(&session->report, EXIT_BAD_USAGE, EINVAL,
			    "'-' can't be used in the background");
}

static enum exit_status file_failed(struct session *session, const struct file *file, int error)
{
	return report_error(&session->report, EXIT_IO_FAILED, error, "%s: %s", file->name,
			    strerror(-error));
}

/* ---- a task ---- */

static enum exit_status carry_out(struct session *session, const struct task *task)
{
	if (task->copy)
		return copy_run(session, task->copy);
	switch (task->op) {
	case DMCORE_OP_READ:
		return io_read(session, &task->range, &task->file);
	case DMCORE_OP_WRITE:
		return io_write(session, &task->range, &task->file);
	case DMCORE_OP_FLUSH:
		return io_flush(session, task->range.bdev);
	default:
		return io_clear(session, &task->range, task->op);
	}
}

/* Closes what belongs to a task. */
static enum exit_status wind_up(struct session *session, struct task *task, enum exit_status status)
{
	int ret;

	if (task->copy) {
		copy_close(task->copy);
		return status;
	}
	ret = files_close(&task->file);
	if (status == EXIT_DONE && ret && task->op == DMCORE_OP_READ)
		status = file_failed(session, &task->file, ret);
	dmcore_bdev_close(task->range.bdev);
	return status;
}

/* Opens DEV, and checks SECTOR and COUNT if the operation has a range. */
static enum exit_status open_range(struct session *session, const struct call *call,
				   struct task *task)
{
	bool has_range = task->op != DMCORE_OP_FLUSH;
	bool will_write = has_range && task->op != DMCORE_OP_READ;
	struct io_range *range = &task->range;
	enum exit_status status = EXIT_DONE;

	range->name = call->args[0];
	task->file.fd = -1;
	if (has_range) {
		status = commands_number(session, call->args[1], &range->sector);
		if (status == EXIT_DONE)
			status = commands_number(session, call->args[2], &range->count);
	}
	if (status == EXIT_DONE && !call->in_background)
		status = devices_check_running(session, range->name);
	if (status == EXIT_DONE)
		status = devices_open(session, range->name, will_write, &range->bdev);
	if (status || !has_range)
		return status;
	status = io_check_range(session, range);
	return status ? wind_up(session, task, status) : status;
}

/* ---- the background ---- */

static void *run_job(void *context)
{
	struct job *job = context;
	struct session *session = &job->session;

	carry_out(session, &job->task);
	if (dmcore_queue_destroy(session->queue) == 0)
		io_free_chunks(session);
	atomic_store(&job->has_ended, true);
	return NULL;
}

static void free_job(struct job *job)
{
	if (!job)
		return;
	free(job->names[0]);
	free(job->names[1]);
	free(job);
}

static struct job *make_job(const struct session *session, const struct task *task)
{
	const char *file_name = task->file.name ? task->file.name : "";
	const char *range_name = task->range.name ? task->range.name : "";
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->session = *session;
	job->session.queue = NULL;
	job->session.chunks = NULL;
	job->session.jobs = NULL;
	job->session.is_job = true;
	job->session.report.worst = EXIT_DONE;
	job->task = *task;
	job->names[0] = strdup(range_name);
	job->names[1] = strdup(file_name);
	job->task.range.name = job->names[0];
	job->task.file.name = job->names[1];
	if (job->names[0] && job->names[1])
		return job;
	free_job(job);
	return NULL;
}

static enum exit_status start_job(struct session *session, struct task *task)
{
	struct job *job = make_job(session, task);
	struct job **last = &session->jobs;
	int error = job ? pthread_create(&job->thread, NULL, run_job, job) : ENOMEM;

	if (error) {
		free_job(job);
		return wind_up(session, task,
			       report_error(&session->report, EXIT_IO_FAILED, error,
					    "it can't be started: %s", strerror(error)));
	}
	while (*last)
		last = &(*last)->next;
	*last = job;
	return EXIT_DONE;
}

static enum exit_status start(struct session *session, const struct call *call, struct task *task)
{
	if (call->in_background)
		return start_job(session, task);
	return wind_up(session, task, carry_out(session, task));
}

/* Takes a job that has ended, or ends for certain, off the list. */
static enum exit_status settle(struct session *session, struct job *job)
{
	struct report report = session->report;
	enum exit_status status;

	pthread_join(job->thread, NULL);
	session->jobs = job->next;
	status = job->session.report.worst;
	/* Messages are the job's, and name its line. */
	session->report.line = job->session.report.line;
	session->report.command = job->session.report.command;
	if (status > session->report.worst)
		session->report.worst = status;
	status = wind_up(session, &job->task, status);
	report.worst = session->report.worst;
	session->report = report;
	free_job(job);
	return status;
}

/* Waits for a job; false: it waits for *suspended to be resumed. */
static bool wait_for(struct session *session, const struct job *job,
		     struct dmcore_device **suspended)
{
	static const struct timespec moment = { .tv_nsec = LOOK_NS };

	while (!atomic_load(&job->has_ended)) {
		*suspended = devices_waited_for(session);
		if (*suspended)
			return false;
		nanosleep(&moment, NULL);
	}
	return true;
}

static enum exit_status refuse_to_wait(struct session *session,
				       const struct dmcore_device *suspended)
{
	return report_error(&session->report, EXIT_IO_FAILED, EDEADLK,
			    "requests wait for '%s', which is suspended",
			    dmcore_device_name(suspended));
}

enum exit_status tasks_join(struct session *session, const struct call *call)
{
	enum exit_status worst = EXIT_DONE;
	struct dmcore_device *suspended;

	(void)call;
	while (session->jobs) {
		enum exit_status status;

		if (!wait_for(session, session->jobs, &suspended))
			return refuse_to_wait(session, suspended);
		status = settle(session, session->jobs);
		worst = status > worst ? status : worst;
	}
	return worst;
}

enum exit_status tasks_end(struct session *session, bool has_failed)
{
	enum exit_status worst = EXIT_DONE;
	struct dmcore_device *suspended;

	while (session->jobs) {
		enum exit_status status;

		if (wait_for(session, session->jobs, &suspended)) {
			status = settle(session, session->jobs);
		} else {
			status = has_failed ? EXIT_DONE : refuse_to_wait(session, suspended);
			/* So that they end, as those who have written expect. */
			if (devices_resume(session, suspended))
				return EXIT_IO_FAILED;
		}
		worst = status > worst ? status : worst;
	}
	return worst;
}

/* ---- the commands ---- */

enum exit_status tasks_read(struct session *session, const struct call *call)
{
	struct task task = { .op = DMCORE_OP_READ };
	const char *path = call->args[3];
	enum exit_status status = check_path(session, call, path);
	int ret;

	if (status == EXIT_DONE)
		status = open_range(session, call, &task);
	if (status)
		return status;
	status = devices_check_output(session, task.range.name, path);
	if (status)
		return wind_up(session, &task, status);
	ret = files_open_output(path, &task.file);
	if (ret)
		return wind_up(session, &task, file_failed(session, &task.file, ret));
	return start(session, call, &task);
}

/* Opens a file behind `skip` sectors. */
static enum exit_status open_input(struct session *session, const char *path, uint64_t skip,
				   struct file *input)
{
	int ret;

	if (strcmp(path, "-") == 0 && session->stdin_user)
		return session_take_stdin(session, "write");
	ret = files_open_input(path, input);
	if (ret)
		return file_failed(session, input, ret);
	if (skip > INT64_MAX / DMCORE_SECTOR_BYTES)
		ret = -ENODATA;
	else if (skip > 0)
		ret = files_skip(input, skip * DMCORE_SECTOR_BYTES);
	if (ret == -ENODATA)
		return report_error(&session->report, EXIT_IO_FAILED, ret,
				    "%s has no %llu sectors to skip", input->name,
				    (unsigned long long)skip);
	return ret ? file_failed(session, input, ret) : EXIT_DONE;
}

enum exit_status tasks_write(struct session *session, const struct call *call)
{
	struct task task = { .op = DMCORE_OP_WRITE };
	enum exit_status status = check_path(session, call, call->args[3]);
	uint64_t skip = 0;

	if (status == EXIT_DONE && call->num_args > 4)
		status = commands_number(session, call->args[4], &skip);
	if (status == EXIT_DONE)
		status = open_range(session, call, &task);
	if (status)
		return status;
	status = open_input(session, call->args[3], skip, &task.file);
	if (status)
		return wind_up(session, &task, status);
	return start(session, call, &task);
}

/* What has no file. */
static enum exit_status run_plain(struct session *session, const struct call *call,
				  enum dmcore_op op)
{
	struct task task = { .op = op };
	enum exit_status status = open_range(session, call, &task);

	return status ? status : start(session, call, &task);
}

enum exit_status tasks_flush(struct session *session, const struct call *call)
{
	return run_plain(session, call, DMCORE_OP_FLUSH);
}

enum exit_status tasks_discard(struct session *session, const struct call *call)
{
	return run_plain(session, call, DMCORE_OP_DISCARD);
}

enum exit_status tasks_zero(struct session *session, const struct call *call)
{
	return run_plain(session, call, DMCORE_OP_WRITE_ZEROES);
}

enum exit_status tasks_copy(struct session *session, const struct call *call)
{
	struct task task = { .file = { .fd = -1 } };
	enum exit_status status = copy_open(session, &call->copy, call->args, call->num_args,
					    call->in_background, &task.copy);

	return status ? status : start(session, call, &task);
}
