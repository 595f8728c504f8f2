/* SPDX-License-Identifier: MIT */
/*
 * What a copy begins with: its words, source, destinations and state. All is looked at before
 * anything is changed; then files are made or lengthened, which is all that happens here.
 */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "devices.h"
#include "io.h"
#include "words.h"

static enum exit_status no_memory(struct session *session)
{
	return report_error(&session->report, EXIT_IO_FAILED, ENOMEM, "no memory");
}

static enum exit_status end_failed(struct session *session, const struct copy_end *end, int error)
{
	return report_error(&session->report, EXIT_IO_FAILED, error, "%s: %s", end->name,
			    strerror(-error));
}

/* ---- words ---- */

static bool is_number(const char *word)
{
	return word[0] && word[strspn(word, "0123456789")] == '\0';
}

static enum exit_status set_end(struct session *session, struct copy_end *end, const char *name,
				const char *sector)
{
	enum exit_status status = EXIT_DONE;

	if (sector)
		status = commands_number(session, sector, &end->sector);
	end->name = strdup(name);
	return end->name ? status : no_memory(session);
}

static enum exit_status read_words(struct session *session, struct copy *copy, char **words,
				   unsigned int num_words)
{
	unsigned int first;
	unsigned int step;
	enum exit_status status;

	copy->is_range = num_words >= 5 && num_words % 2 == 1 && is_number(words[1]) &&
			 is_number(words[2]);
	first = copy->is_range ? 3 : 1;
	step = copy->is_range ? 2 : 1;
	if ((num_words - first) / step > KCOPYD_DESTS_MAX)
		return report_error(&session->report, EXIT_BAD_USAGE, E2BIG,
				    "more than %u destinations", KCOPYD_DESTS_MAX);
	status = set_end(session, &copy->from, words[0], copy->is_range ? words[1] : NULL);
	if (status == EXIT_DONE && copy->is_range)
		status = commands_number(session, words[2], &copy->count);
	for (unsigned int i = first; status == EXIT_DONE && i < num_words; i += step)
		status = set_end(session, &copy->dests[copy->num_dests++], words[i],
				 copy->is_range ? words[i + 1] : NULL);
	return status;
}

/* ---- ends ---- */

/* Finds out what an end's name stands for. */
static void look(struct session *session, struct copy_end *end)
{
	const char *name = end->name;
	const char *colon = strchr(name, ':');
	const char *slash = strchr(name, '/');

	if (dmcore_device_find(session->core, name))
		return;
	if (strncmp(name, "file:", 5) == 0)
		end->path = name + 5;
	else if (!colon || (slash && slash < colon))
		end->path = name;
	end->exists = devices_stat(name, &end->st);
}

static bool is_file(const struct copy_end *end)
{
	return end->exists && S_ISREG(end->st.st_mode);
}

/* Whether two ends are the same device, as far as that can be seen. */
static bool is_same(const struct copy_end *a, const struct copy_end *b)
{
	if (a->bdev && a->bdev == b->bdev)
		return true;
	return a->exists && b->exists && devices_is_same(&a->st, &b->st);
}

static enum exit_status check_running(struct session *session, const struct copy *copy)
{
	enum exit_status status = devices_check_running(session, copy->from.name);

	for (unsigned int i = 0; status == EXIT_DONE && i < copy->num_dests; i++)
		status = devices_check_running(session, copy->dests[i].name);
	return status;
}

static enum exit_status check_range(struct session *session, const struct copy *copy,
				    const struct copy_end *end)
{
	struct io_range range = {
		.bdev = end->bdev,
		.name = end->name,
		.sector = end->sector,
		.count = copy->count,
	};

	return io_check_range(session, &range);
}

static enum exit_status open_source(struct session *session, struct copy *copy)
{
	struct copy_end *from = &copy->from;
	bool will_write = false;
	enum exit_status status;
	uint64_t size;

	look(session, from);
	/* What is moved within a device takes one object for both. */
	for (unsigned int i = 0; copy->is_range && i < copy->num_dests; i++) {
		look(session, &copy->dests[i]);
		will_write = will_write || is_same(from, &copy->dests[i]);
	}
	status = devices_open(session, from->name, will_write, &from->bdev);
	if (status)
		return status;
	size = dmcore_bdev_size_sectors(from->bdev);
	if (copy->is_range)
		return check_range(session, copy, from);
	copy->count = size;
	if (is_file(from) && (uint64_t)from->st.st_size != size * DMCORE_SECTOR_BYTES)
		return report_error(&session->report, EXIT_IO_FAILED, EINVAL,
				    "%s has %lld bytes, which aren't whole blocks: the last ones "
				    "can't be copied", from->name, (long long)from->st.st_size);
	return EXIT_DONE;
}

/* ---- destinations, before anything is changed ---- */

static enum exit_status too_small(struct session *session, const struct copy *copy,
				  const struct copy_end *dest, uint64_t sectors)
{
	return report_error(&session->report, EXIT_IO_FAILED, ENOSPC,
			    "%s has %" PRIu64 " sectors, and is to take %" PRIu64 " of %s%s",
			    dest->name, sectors, dest->sector + copy->count, copy->from.name,
			    is_file(dest) ? "; --grow makes it longer" : "");
}

static enum exit_status open_dest(struct session *session, const struct copy *copy,
				  struct copy_end *dest)
{
	enum exit_status status = devices_open(session, dest->name, true, &dest->bdev);
	uint64_t size;

	if (status)
		return status;
	size = dmcore_bdev_size_sectors(dest->bdev);
	if (dest->sector + copy->count > size)
		return too_small(session, copy, dest, size);
	return check_range(session, copy, dest);
}

/* Opens a destination, unless its file has to be made or lengthened. */
static enum exit_status prepare_dest(struct session *session, const struct copy *copy,
				     struct copy_end *dest)
{
	uint64_t end = dest->sector + copy->count;
	uint64_t has;

	if (end < copy->count || end > INT64_MAX / DMCORE_SECTOR_BYTES)
		return end_failed(session, dest, -EFBIG);
	if (!dest->exists)
		look(session, dest);
	if (dest->path && !dest->exists) {
		dest->to_grow = true;
	} else if (dest->path && is_file(dest)) {
		has = (uint64_t)dest->st.st_size / DMCORE_SECTOR_BYTES;
		dest->to_grow = has < end;
		if (dest->to_grow && dest->st.st_size > 0 && !copy->options.grow)
			return too_small(session, copy, dest, has);
	}
	if (!dest->to_grow)
		return open_dest(session, copy, dest);
	if (session->options.read_only)
		return report_error(&session->report, EXIT_IO_FAILED, EROFS,
				    "'%s' is open read-only", dest->name);
	return EXIT_DONE;
}

/* Refuses what would be read and written, or written twice. */
static enum exit_status check_same(struct session *session, const struct copy *copy,
				   unsigned int index)
{
	const struct copy_end *dest = &copy->dests[index];
	enum exit_status status = EXIT_DONE;

	if (is_same(&copy->from, dest)) {
		/* Two openings of one device would hide from the library that ranges overlap. */
		if (copy->is_range && copy->from.bdev == dest->bdev && !copy->options.resume)
			return EXIT_DONE;
		return report_error(&session->report, EXIT_IO_FAILED, EBUSY,
				    "%s is the device that is to be read", dest->name);
	}
	for (unsigned int i = 0; i < index && !copy->is_range; i++) {
		if (is_same(&copy->dests[i], dest))
			return report_error(&session->report, EXIT_IO_FAILED, EBUSY,
					    "%s is a destination twice", dest->name);
	}
	if (!copy->is_range)
		status = devices_check_below(session, copy->from.name, dest->name,
					     dest->exists ? &dest->st : NULL);
	if (status == EXIT_DONE && !copy->is_range)
		status = devices_check_below(session, dest->name, copy->from.name,
					     copy->from.exists ? &copy->from.st : NULL);
	return status;
}

static enum exit_status prepare_dests(struct session *session, struct copy *copy)
{
	enum exit_status status = EXIT_DONE;

	copy->dests_zeroed = true;
	for (unsigned int i = 0; status == EXIT_DONE && i < copy->num_dests; i++) {
		struct copy_end *dest = &copy->dests[i];

		status = prepare_dest(session, copy, dest);
		if (status == EXIT_DONE)
			status = check_same(session, copy, i);
		if (!dest->to_grow || (dest->exists && dest->st.st_size > 0))
			copy->dests_zeroed = false;
	}
	return status;
}

/* ---- the state ---- */

/* An end's name in the state: a file's doesn't depend on the working directory. */
static void print_name(FILE *out, const struct copy_end *end)
{
	bool is_path = end->path && (!end->exists || is_file(end));
	const char *slash = is_path ? strrchr(end->path, '/') : NULL;
	const char *last = slash ? slash + 1 : end->path;
	char *folder = slash ? strndup(end->path, (size_t)(last - end->path)) : strdup(".");
	char *full = is_path && end->exists ? realpath(end->path, NULL) : NULL;
	char *parent = is_path && !full && folder ? realpath(folder, NULL) : NULL;
	const char *texts[] = { full, parent, parent ? "/" : NULL, parent ? last : NULL };

	if (!full && !parent)
		texts[0] = end->name;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		for (const char *at = texts[i]; at && *at; at++) {
			if ((unsigned char)*at < 0x20 || *at == 0x7f || *at == '\\')
				fprintf(out, "\\x%02x", (unsigned char)*at);
			else
				putc(*at, out);
		}
	}
	free(parent);
	free(full);
	free(folder);
}

/* The lines that say which copy it is. */
static int make_header(struct copy *copy)
{
	size_t bytes;
	FILE *out = open_memstream(&copy->state.header, &bytes);

	if (!out)
		return -ENOMEM;
	fprintf(out, "source %" PRIu64 " %" PRIu64 " %" PRIu64 " ", copy->from.sector, copy->count,
		dmcore_bdev_size_sectors(copy->from.bdev));
	print_name(out, &copy->from);
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		const struct copy_end *dest = &copy->dests[i];
		uint64_t size = dest->sector + copy->count;

		if (!dest->to_grow)
			size = dmcore_bdev_size_sectors(dest->bdev);
		fprintf(out, "\ndest %" PRIu64 " %" PRIu64 " ", dest->sector, size);
		print_name(out, dest);
	}
	putc('\n', out);
	return fclose(out) == 0 ? 0 : -ENOMEM;
}

/* Where a state says to go on; a destination that isn't as it was then is refused. */
static enum exit_status load_state(struct session *session, struct copy *copy)
{
	enum exit_status status;
	bool found;

	if (!copy->options.resume)
		return EXIT_DONE;
	copy->state.path = strdup(copy->options.resume);
	if (!copy->state.path || make_header(copy))
		return no_memory(session);
	status = copy_state_load(&copy->state, &session->report, &copy->start, &found);
	if (status || !found) {
		copy->start = (struct copy_place){ .position = 0 };
		return status;
	}
	copy->dests_zeroed = false;
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		if (copy->dests[i].to_grow)
			return report_error(&session->report, EXIT_IO_FAILED, ENOENT,
					    "by %s a part of %s is written, but the file is gone",
					    copy->state.path, copy->dests[i].name);
	}
	if (copy->start.position > copy->count)
		return report_error(&session->report, EXIT_IO_FAILED, ERANGE,
				    "%s says %" PRIu64 " of %" PRIu64 " sectors are copied",
				    copy->state.path, copy->start.position, copy->count);
	return EXIT_DONE;
}

/* ---- destinations: files are made ---- */

static int lengthen(struct copy_end *dest, uint64_t bytes)
{
	struct stat st;
	int ret = 0;
	int fd;

	fd = open(dest->path, dest->exists ? O_WRONLY | O_CLOEXEC :
					     O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	dest->is_made = !dest->exists;
	/* It may have grown meanwhile: nothing is ever cut off. */
	if (fstat(fd, &st) < 0 ||
	    ((uint64_t)st.st_size < bytes && ftruncate(fd, (off_t)bytes) < 0))
		ret = -errno;
	close(fd);
	return ret;
}

static enum exit_status make_dests(struct session *session, struct copy *copy)
{
	enum exit_status status = EXIT_DONE;

	for (unsigned int i = 0; status == EXIT_DONE && i < copy->num_dests; i++) {
		struct copy_end *dest = &copy->dests[i];
		int ret;

		if (!dest->to_grow)
			continue;
		ret = lengthen(dest, (dest->sector + copy->count) * DMCORE_SECTOR_BYTES);
		if (ret == 0 && dest->is_made && !copy->options.no_flush)
			ret = copy_state_sync_folder(dest->path);
		status = ret ? end_failed(session, dest, ret) : open_dest(session, copy, dest);
	}
	for (unsigned int i = 0; status && i < copy->num_dests; i++) {
		if (copy->dests[i].is_made)
			unlink(copy->dests[i].path);
	}
	return status;
}

/* ---- what is called from elsewhere ---- */

enum exit_status copy_open(struct session *session, const struct copy_options *options,
			   char **words, unsigned int num_words, bool may_wait,
			   struct copy **result)
{
	struct copy *copy = calloc(1, sizeof(*copy));
	enum exit_status status = copy_options_check(options, &session->report);

	*result = NULL;
	if (!copy)
		return no_memory(session);
	copy->options = *options;
	if (status == EXIT_DONE)
		status = read_words(session, copy, words, num_words);
	if (status == EXIT_DONE && !may_wait)
		status = check_running(session, copy);
	if (status == EXIT_DONE)
		status = open_source(session, copy);
	if (status == EXIT_DONE)
		status = prepare_dests(session, copy);
	if (status == EXIT_DONE)
		status = load_state(session, copy);
	if (status == EXIT_DONE)
		status = make_dests(session, copy);
	if (status) {
		copy_close(copy);
		return status;
	}
	*result = copy;
	return EXIT_DONE;
}

void copy_close(struct copy *copy)
{
	if (!copy)
		return;
	if (copy->sums)
		fputs(copy->sums, stdout);
	for (unsigned int i = 0; i < copy->num_dests; i++) {
		dmcore_bdev_close(copy->dests[i].bdev);
		free(copy->dests[i].name);
	}
	dmcore_bdev_close(copy->from.bdev);
	free(copy->from.name);
	free(copy->state.path);
	free(copy->state.header);
	free(copy->sums);
	free(copy);
}
