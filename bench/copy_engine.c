/* SPDX-License-Identifier: MIT */
/*
 * kcopyd as one uses it: one client, one job, and a poll until it has ended; in this process, or as
 * a program of its own, to be compared with other programs. See copy.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy.h"

void copy_parameters_direct(struct copy_parameters *parameters)
{
	parameters->pages = 512;
	parameters->subjob_sectors = 2048;
}

int copy_engine_open(struct copy_engine *engine, const struct copy_parameters *parameters)
{
	struct dmcore_queue_options queue = DMCORE_QUEUE_OPTIONS_INIT;
	struct kcopyd_options client = KCOPYD_OPTIONS_INIT;
	int ret;

	memset(engine, 0, sizeof(*engine));
	queue.backend = parameters->backend;
	queue.workers = parameters->workers;
	client.subjob_sectors = parameters->subjob_sectors;
	engine->wrong = "dmcore_create";
	ret = dmcore_create(NULL, &engine->core);
	if (ret)
		return ret;
	engine->wrong = "dmcore_queue_create";
	ret = dmcore_queue_create(engine->core, &queue, &engine->queue);
	if (ret)
		return ret;
	engine->wrong = "kcopyd_client_create_with";
	return kcopyd_client_create_with(engine->queue, parameters->pages, &client,
					 &engine->client);
}

int copy_engine_close(struct copy_engine *engine)
{
	int ret = kcopyd_client_destroy(engine->client);

	if (ret == 0)
		ret = dmcore_queue_destroy(engine->queue);
	if (ret == 0)
		ret = dmcore_destroy(engine->core);
	memset(engine, 0, sizeof(*engine));
	return ret;
}

/* The end of a job. */
struct ending {
	bool ended;
	bool failed;
};

static void note_end(int read_err, unsigned int write_err, void *context)
{
	struct ending *ending = context;

	ending->ended = true;
	ending->failed = read_err != 0 || write_err != 0;
}

static int copy_regions(struct copy_engine *engine, const struct dmio_region *regions,
			unsigned int num_dests, unsigned int flags)
{
	struct ending ending = { false, false };
	int ret;

	engine->wrong = "kcopyd_copy";
	ret = kcopyd_copy(engine->client, &regions[0], num_dests, &regions[1], flags, note_end,
			  &ending);
	if (ret)
		return ret;
	engine->wrong = "dmcore_queue_poll";
	while (!ending.ended) {
		ret = dmcore_queue_poll(engine->queue, 1, UINT32_MAX, -1);
		/* Before the job has ended there is no way back: it uses what is on this stack. */
		if (ret < 0 && ret != -EINTR)
			abort();
	}
	engine->wrong = "the job";
	return ending.failed ? -EIO : 0;
}

/* Opens a file as a device. */
static int open_region(struct copy_engine *engine, const char *path, unsigned int flags,
		       struct dmio_region *region)
{
	char spec[COPY_PATH_BYTES + 8];
	int ret;

	snprintf(spec, sizeof(spec), "file:%s", path);
	engine->wrong = "dmcore_bdev_open";
	ret = dmcore_bdev_open(engine->core, spec, flags, &region->bdev);
	if (ret == 0)
		region->count = dmcore_bdev_size_sectors(region->bdev);
	return ret;
}

/* A file of that size without blocks. */
static int make_dest(const char *path, off_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, bytes) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

int copy_engine_copy(struct copy_engine *engine, const char *source, const char *const *dests,
		     unsigned int num_dests, unsigned int open_flags, unsigned int flags)
{
	struct dmio_region regions[COPY_DESTS_MAX + 1];
	int ret;

	memset(regions, 0, sizeof(regions));
	ret = open_region(engine, source, open_flags | DMCORE_OPEN_READ_ONLY, &regions[0]);
	for (unsigned int i = 0; i < num_dests && ret == 0; i++) {
		engine->wrong = "making a destination";
		ret = make_dest(dests[i], (off_t)(regions[0].count * DMCORE_SECTOR_BYTES));
		if (ret == 0)
			ret = open_region(engine, dests[i], open_flags, &regions[i + 1]);
	}
	if (ret == 0)
		ret = copy_regions(engine, regions, num_dests, flags);
	for (unsigned int i = 0; i <= num_dests; i++) {
		int closed = dmcore_bdev_close(regions[i].bdev);

		if (closed && ret == 0) {
			engine->wrong = "dmcore_bdev_close";
			ret = closed;
		}
	}
	/* A queue lets go of a file when it is polled; what its last close costs counts. */
	if (dmcore_queue_poll(engine->queue, 0, UINT32_MAX, -1) < 0 && ret == 0)
		ret = -EIO;
	return ret;
}

/* ---- the program ---- */

static const char usage_text[] =
	"usage: dmcore-bench copy [OPTIONS] SOURCE DEST...\n"
	"  --direct           past the page cache\n"
	"  --sparse           don't copy zeroes; the destinations are new\n"
	"  --share            share blocks, or have the kernel copy\n"
	"  --backend NAME     io_uring or pread\n"
	"  --workers N        threads of pread\n"
	"  --pages N          of the client\n"
	"  --subjob SECTORS   longest slice\n";

struct program {
	struct copy_parameters parameters;
	unsigned int open_flags;
	unsigned int flags;
};

static bool read_number(const char *text, unsigned int *value)
{
	char *end;
	unsigned long number;

	errno = 0;
	number = strtoul(text, &end, 10);
	*value = (unsigned int)number;
	return errno == 0 && end != text && !*end && *text != '-' && number <= UINT32_MAX;
}

static bool read_backend(const char *text, enum dmcore_backend *backend)
{
	*backend = *text == 'i' ? DMCORE_BACKEND_IO_URING : DMCORE_BACKEND_PREAD;
	return !strcmp(text, "io_uring") || !strcmp(text, "pread");
}

static bool read_option(struct program *program, int key)
{
	switch (key) {
	case 'd':
		program->open_flags = DMCORE_OPEN_DIRECT;
		return true;
	case 'S':
		program->flags |= KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED;
		return true;
	case 'r':
		program->flags |= KCOPYD_SHARE;
		return true;
	case 'b':
		return read_backend(optarg, &program->parameters.backend);
	case 'w':
		return read_number(optarg, &program->parameters.workers);
	case 'p':
		return read_number(optarg, &program->parameters.pages);
	case 's':
		return read_number(optarg, &program->parameters.subjob_sectors);
	default:
		return false;
	}
}

int copy_program(int argc, char **argv)
{
	static const struct option options[] = {
		{ "direct", no_argument, NULL, 'd' },
		{ "sparse", no_argument, NULL, 'S' },
		{ "share", no_argument, NULL, 'r' },
		{ "backend", required_argument, NULL, 'b' },
		{ "workers", required_argument, NULL, 'w' },
		{ "pages", required_argument, NULL, 'p' },
		{ "subjob", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	struct program program = { .parameters = COPY_PARAMETERS_INIT };
	struct copy_engine engine;
	int key;
	int ret;

	while ((key = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (!read_option(&program, key)) {
			fputs(usage_text, stderr);
			return 2;
		}
	}
	if (argc - optind < 2 || argc - optind > (int)COPY_DESTS_MAX + 1) {
		fputs(usage_text, stderr);
		return 2;
	}
	if (program.open_flags & DMCORE_OPEN_DIRECT && !program.parameters.subjob_sectors)
		copy_parameters_direct(&program.parameters);
	ret = copy_engine_open(&engine, &program.parameters);
	if (ret == 0)
		ret = copy_engine_copy(&engine, argv[optind],
				       (const char *const *)&argv[optind + 1],
				       (unsigned int)(argc - optind - 1), program.open_flags,
				       program.flags);
	if (ret)
		fprintf(stderr, "dmcore-bench copy: %s: %s (%s)\n", engine.wrong,
			dmcore_error_message(), strerror(-ret));
	if (copy_engine_close(&engine) && ret == 0)
		ret = -EIO;
	return ret ? 1 : 0;
}
