/* SPDX-License-Identifier: MIT */
/*
 * Copies a file or device to others, which must exist and be as large. Ctrl-C stops it. With -n a
 * copy that was stopped, or that a power cut has ended, goes on from the position in NOTE.
 *
 *	./copy-with-kcopyd [-s] [-m MIB_PER_SECOND] [-n NOTE] SRC DEST...
 *
 * -s leaves out zeroes, -m is the rate that it isn't to pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <dmcore.h>

#define PAGES 256 /* 1 MiB: 8 slices of 128 KiB */
#define TICK_NS INT64_C(100000000)
#define NOTE_NS UINT64_C(1000000000)
#define PER_MIB (2 * 1024) /* sectors */

struct copy {
	struct kcopyd_job job;
	struct dmio_client *io;
	const char *note;      /* NULL: positions aren't noted. */
	uint64_t first_sector; /* Up to here earlier runs have copied. */
	uint64_t position;     /* What the flush under way makes durable. */
	bool ended, flushing;
};

static volatile sig_atomic_t stopping;

static void stop(int signal)
{
	(void)signal;
	stopping = 1;
}

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

static struct kcopyd_progress progress_of(const struct copy *copy)
{
	struct kcopyd_progress progress = { .struct_size = sizeof(progress) };

	check(kcopyd_progress(&copy->job, &progress), "progress");
	return progress;
}

static uint64_t read_note(const char *path)
{
	FILE *file = path ? fopen(path, "r") : NULL;
	char text[32] = "0";

	if (file) {
		if (!fgets(text, sizeof(text), file))
			text[0] = '0';
		fclose(file);
	}
	return strtoull(text, NULL, 10);
}

/* A cut leaves the old note or the new one; what either says is true. */
static void write_note(const char *path, uint64_t position)
{
	char new_path[1024];
	FILE *file;

	snprintf(new_path, sizeof(new_path), "%s.new", path);
	file = fopen(new_path, "w");
	if (!file || fprintf(file, "%" PRIu64 "\n", position) < 0 || fflush(file) ||
	    fsync(fileno(file)) || fclose(file) || rename(new_path, path)) {
		perror(new_path);
		exit(1);
	}
}

/* What had been copied when the flush began is durable now. */
static void flushed(unsigned long error, void *context)
{
	struct copy *copy = context;

	copy->flushing = false;
	if (error) {
		/* A second flush might succeed, and yet what was written be lost. */
		fputs("flush failed\n", stderr);
		copy->note = NULL;
		stopping = 1;
	} else {
		write_note(copy->note, copy->position);
	}
}

static void start_note(struct copy *copy)
{
	copy->position = copy->first_sector + progress_of(copy).position_sectors;
	copy->flushing = true;
	check(dmio_async(copy->io, copy->job.num_dests, copy->job.dests, DMIO_FLUSH, NULL, 0,
			 flushed, copy), "flush");
}

static void copy_done(struct kcopyd_job *job)
{
	struct copy *copy = job->context;

	copy->ended = true;
}

static void show(const struct copy *copy)
{
	struct kcopyd_progress progress = progress_of(copy);

	fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " MiB",
		(copy->first_sector + progress.position_sectors) / PER_MIB,
		(copy->first_sector + progress.total_sectors) / PER_MIB);
}

/* Runs the queue until nothing is under way. */
static void wait_for_end(struct copy *copy, struct dmcore_queue *queue)
{
	const struct dmcore *core = dmcore_queue_core(queue);
	uint64_t show_at = 0, note_at = dmcore_clock_ns(core) + NOTE_NS;
	int ret;

	while (!copy->ended || copy->flushing) {
		ret = dmcore_queue_poll(queue, 1, 64, TICK_NS);
		if (ret != -EINTR)
			check(ret, "poll");
		if (stopping && !copy->ended)
			kcopyd_cancel(&copy->job); /* the first time; then it does nothing */
		if (isatty(STDERR_FILENO) && dmcore_clock_ns(core) >= show_at) {
			show(copy);
			show_at = dmcore_clock_ns(core) + TICK_NS;
		}
		if (copy->note && !copy->ended && !copy->flushing &&
		    dmcore_clock_ns(core) >= note_at) {
			start_note(copy);
			note_at = dmcore_clock_ns(core) + NOTE_NS;
		}
	}
}

/* Says how the job has ended. */
static void report(const struct copy *copy)
{
	struct kcopyd_progress progress = progress_of(copy);
	const struct kcopyd_job *job = &copy->job;

	if (job->read_err)
		fprintf(stderr, "%s: read error\n", dmcore_bdev_name(job->from.bdev));
	for (unsigned int i = 0; i < job->num_dests; i++) {
		if (job->write_err & 1u << i)
			fprintf(stderr, "%s: write error\n", dmcore_bdev_name(job->dests[i].bdev));
	}
	printf("%s: %" PRIu64 " sectors copied, %" PRIu64 " zeroed, %" PRIu64 " done in all\n",
	       dmcore_error_name(job->status), progress.copied_sectors, progress.zeroed_sectors,
	       copy->first_sector + progress.position_sectors);
}

/* Fills in source and destinations, all moved by what has been copied already. */
static void open_devices(struct copy *copy, struct dmcore *core, char **paths)
{
	struct kcopyd_job *job = &copy->job;
	uint64_t size;

	check(dmcore_bdev_open(core, paths[0], DMCORE_OPEN_READ_ONLY, &job->from.bdev), "open");
	size = dmcore_bdev_size_sectors(job->from.bdev);
	job->from.sector = copy->first_sector;
	job->from.count = copy->first_sector < size ? size - copy->first_sector : 0;
	for (char **path = paths + 1; *path; path++) {
		struct dmio_region *dest = &job->dests[job->num_dests++];

		check(dmcore_bdev_open(core, *path, 0, &dest->bdev), "open");
		dest->sector = copy->first_sector;
		if (dmcore_bdev_size_sectors(dest->bdev) < size) {
			fprintf(stderr, "%s: too small\n", *path);
			exit(1);
		}
	}
}

static int run(struct copy *copy, uint64_t bytes_per_second, char **paths)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	struct dmcore_queue *queue;
	struct kcopyd_client *kc;
	struct dmcore *core;

	check(dmcore_create(NULL, &core), "create");
	check(dmcore_queue_create(core, NULL, &queue), "queue");
	check(dmio_client_create(queue, 0, &copy->io), "client");
	check(kcopyd_throttle_create(queue, &options.throttle), "throttle");
	check(kcopyd_throttle_set(options.throttle, 100, bytes_per_second), "throttle");
	check(kcopyd_client_create_with(queue, PAGES, &options, &kc), "client");
	open_devices(copy, core, paths);

	copy->job.flags |= KCOPYD_FLUSH;
	copy->job.done = copy_done;
	copy->job.context = copy;
	check(kcopyd_submit(kc, &copy->job), "copy");
	wait_for_end(copy, queue);
	if (copy->note && copy->job.status == -ECANCELED && !copy->job.write_err) {
		start_note(copy);
		wait_for_end(copy, queue);
	} else if (copy->note && copy->job.status == 0) {
		unlink(copy->note); /* The job itself has flushed. */
	}
	report(copy);

	for (unsigned int i = 0; i < copy->job.num_dests; i++)
		check(dmcore_bdev_close(copy->job.dests[i].bdev), "close");
	check(dmcore_bdev_close(copy->job.from.bdev), "close");
	check(kcopyd_client_destroy(kc), "destroy client");
	check(kcopyd_throttle_destroy(options.throttle), "destroy throttle");
	check(dmio_client_destroy(copy->io), "destroy client");
	check(dmcore_queue_destroy(queue), "destroy queue");
	check(dmcore_destroy(core), "destroy");
	return copy->job.status != 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = stop };
	uint64_t bytes_per_second = 0;
	static struct copy copy;
	int option;

	while ((option = getopt(argc, argv, "sm:n:")) != -1) {
		if (option == 's')
			copy.job.flags |= KCOPYD_SPARSE;
		else if (option == 'm')
			bytes_per_second = strtoull(optarg, NULL, 10) << 20;
		else if (option == 'n')
			copy.note = optarg;
		else
			return 2;
	}
	if (argc - optind < 2 || argc - optind > 1 + KCOPYD_DESTS_MAX)
		return fprintf(stderr, "usage: %s [-s] [-m MIB_PER_SECOND] [-n NOTE] SRC DEST...\n",
			       argv[0]), 2;
	copy.first_sector = read_note(copy.note);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return run(&copy, bytes_per_second, argv + optind);
}
