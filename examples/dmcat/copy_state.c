/* SPDX-License-Identifier: MIT */
/*
 * The file in which copy --resume keeps how far it is: lines of text that say which copy it is, how
 * far it is, and a check sum. copy.c sees to it that what the file says is durable by then.
 */
#include "copy_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "words.h"

#define FIRST_LINE "dmcat copy state 1\n"
#define TEXT_BYTES_MAX (256u << 10)

/* FNV-1a. Against a file that was cut or edited, not against malice. */
static uint64_t check_sum(const char *text)
{
	uint64_t sum = UINT64_C(14695981039346656037);

	for (; *text; text++) {
		sum ^= (unsigned char)*text;
		sum *= UINT64_C(1099511628211);
	}
	return sum;
}

/* The whole file, for free(). NULL: no memory. */
static char *make_text(const char *header, const struct copy_place *place)
{
	char *lines;
	char *text;
	int length = asprintf(&lines, FIRST_LINE "%sposition %" PRIu64 "\nfailed %" PRIu64 "\n",
			      header, place->position, place->failed);

	if (length < 0)
		return NULL;
	length = asprintf(&text, "%scheck %016" PRIx64 "\n", lines, check_sum(lines));
	free(lines);
	return length < 0 ? NULL : text;
}

/* ---- reading ---- */

/* Takes `NAME NUMBER` off the front of the lines. */
static bool take_number(char **rest, const char *name, uint64_t *number)
{
	char *line = strsep(rest, "\n");
	size_t length = strlen(name);

	return line && strncmp(line, name, length) == 0 && line[length] == ' ' &&
	       words_number(line + length + 1, number) == 0;
}

/*
 * The header, for free(), of a text that is a state as make_text() makes it, whatever copy's. NULL:
 * it isn't one, or there is no memory.
 */
static char *parse(const char *text, struct copy_place *place)
{
	const char *position = strstr(text, "\nposition ");
	size_t first_bytes = strlen(FIRST_LINE);
	char *header = NULL;
	char *numbers = NULL;
	char *made = NULL;
	char *rest;

	if (strncmp(text, FIRST_LINE, first_bytes) == 0 && position &&
	    position >= text + first_bytes) {
		header = strndup(text + first_bytes, (size_t)(position + 1 - text) - first_bytes);
		numbers = strdup(position + 1);
	}
	rest = numbers;
	if (header && numbers && take_number(&rest, "position", &place->position) &&
	    take_number(&rest, "failed", &place->failed))
		made = make_text(header, place);
	if (!made || strcmp(made, text) != 0) {
		free(header);
		header = NULL;
	}
	free(made);
	free(numbers);
	return header;
}

/* Names the first line in which two headers differ. */
static enum exit_status refuse_other(const struct copy_state *state, struct report *report,
				     const char *theirs)
{
	const char *ours = state->header;
	enum exit_status status;
	size_t start = 0;
	char *our_line;
	char *their_line;

	for (size_t i = 0; ours[i] && ours[i] == theirs[i]; i++) {
		if (ours[i] == '\n')
			start = i + 1;
	}
	our_line = strndup(ours + start, strcspn(ours + start, "\n"));
	their_line = strndup(theirs + start, strcspn(theirs + start, "\n"));
	status = report_error(report, EXIT_IO_FAILED, EEXIST,
			      "%s is the state of another copy: it has '%s', and this is '%s'",
			      state->path, their_line ? their_line : "",
			      our_line ? our_line : "");
	free(our_line);
	free(their_line);
	return status;
}

enum exit_status copy_state_load(const struct copy_state *state, struct report *report,
				 struct copy_place *place, bool *found)
{
	enum exit_status status = EXIT_DONE;
	char *header = NULL;
	char *text;
	int ret = files_read_text(state->path, TEXT_BYTES_MAX, &text);

	*found = false;
	if (ret == -ENOENT)
		return EXIT_DONE;
	if (ret == 0)
		header = parse(text, place);
	free(text);
	if (ret && ret != -E2BIG && ret != -EILSEQ)
		return report_error(report, EXIT_IO_FAILED, ret, "%s: %s", state->path,
				    strerror(-ret));
	if (!header)
		return report_error(report, EXIT_IO_FAILED, EINVAL,
				    "%s is no state of a copy, or is damaged; remove it to begin "
				    "anew", state->path);
	*found = strcmp(header, state->header) == 0;
	if (!*found)
		status = refuse_other(state, report, header);
	free(header);
	return status;
}

/* ---- writing ---- */

int copy_state_sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int ret = 0;
	int fd;

	if (!folder)
		return -ENOMEM;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(folder);
	if (fd < 0)
		return -errno;
	/* Some file systems have nothing to sync there, and say so. */
	if (fsync(fd) < 0 && errno != EINVAL)
		ret = -errno;
	close(fd);
	return ret;
}

static int write_text(const char *path, const char *text)
{
	struct file file = { .name = path };
	int close_ret;
	int ret;

	file.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (file.fd < 0)
		return -errno;
	ret = files_write(&file, text, strlen(text));
	if (ret == 0 && fsync(file.fd) < 0)
		ret = -errno;
	close_ret = files_close(&file);
	return ret ? ret : close_ret;
}

int copy_state_save(const struct copy_state *state, const struct copy_place *place)
{
	char *text = make_text(state->header, place);
	char *path;
	int ret;

	if (!text || asprintf(&path, "%s.new", state->path) < 0) {
		free(text);
		return -ENOMEM;
	}
	ret = write_text(path, text);
	if (ret == 0 && rename(path, state->path) < 0)
		ret = -errno;
	if (ret == 0)
		ret = copy_state_sync_folder(state->path);
	free(path);
	free(text);
	return ret;
}

int copy_state_remove(const struct copy_state *state)
{
	if (unlink(state->path) < 0)
		return errno == ENOENT ? 0 : -errno;
	return copy_state_sync_folder(state->path);
}
