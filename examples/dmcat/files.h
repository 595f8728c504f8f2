/* SPDX-License-Identifier: MIT */
/* Files and pipes: whole reads, whole writes, lines. Errors are negative errnos. */
#ifndef DMCAT_FILES_H
#define DMCAT_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* An open file that data come from or go to. */
struct file {
	int fd;
	const char *name; /* for messages */
};

/*
 * Sees to it that descriptors 0, 1 and 2 exist. With one of them closed, the next file that is
 * opened would take its place, and messages would end up in a disk image.
 */
int files_guard_standard(void);

/* `path`, or standard input for "-", opened for reading. */
int files_open_input(const char *path, struct file *file);
/* `path`, or standard output for "-", emptied and opened for writing. */
int files_open_output(const char *path, struct file *file);
/* Closes what the two above have opened. An error means that something wasn't written. */
int files_close(struct file *file);

/* Reads until `bytes` are there or the file ends; returns how many. */
int64_t files_read(const struct file *file, void *buffer, size_t bytes);
int files_write(const struct file *file, const void *buffer, size_t bytes);
/* Moves `bytes` forward, by seeking or reading. -ENODATA: the file ends before. */
int files_skip(const struct file *file, uint64_t bytes);
/* How many bytes are left, or -ESPIPE if the file can't tell. */
int64_t files_left(const struct file *file);

/*
 * Reads a whole text, for free(). -E2BIG: more than `max_bytes`; -EILSEQ: there is a NUL in it,
 * so it is no text.
 */
int files_read_text(const char *path, size_t max_bytes, char **text);

/* Longest line of a script: as long as the words of the largest table line can get. */
#define FILES_LINE_BYTES_MAX (16u << 20)

/* Reads lines. */
struct line_reader {
	FILE *stream;
	char *text;             /* the line, without its end; NULL before the first */
	size_t room_bytes;
	unsigned long number;   /* of the line, from 1 */
};

/* 1: a line; 0: the end; -E2BIG: longer than FILES_LINE_BYTES_MAX; -EILSEQ: it has a NUL in it and
 * was skipped. */
int files_read_line(struct line_reader *reader);

#endif
