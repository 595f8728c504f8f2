/* SPDX-License-Identifier: MIT */
/* The command line. */
#ifndef DMCAT_OPTIONS_H
#define DMCAT_OPTIONS_H

#include <stdbool.h>

#include <dmcore.h>

#include "copy_options.h"
#include "report.h"

/* -d, -t and -c, in their order. */
struct definition {
	enum { DEFINE_NAMED, DEFINE_UNNAMED, DEFINE_CONCISE } kind;
	const char *text; /* the option's argument */
};

/* Which entries of a log replay takes. */
struct replay_options {
	uint64_t start_entry;
	uint64_t limit;
	const char *start_mark; /* or NULL */
	const char *end_mark;   /* or NULL */
	bool has_limit;
	bool next_flush;
	bool next_fua;
	const char *given;      /* one of the options above, or NULL */
};

/* How cow-check and cow-dump look at a COW device. */
struct cow_options {
	const char *origin;     /* or NULL */
	uint32_t chunk_sectors; /* 0: as the header says */
	bool all;
	const char *given;      /* one of the options above, or NULL */
};

struct options {
	struct definition *definitions;
	unsigned int num_definitions;
	const char *device;   /* --dev, or NULL */
	enum dmcore_backend backend;
	unsigned int workers;
	int64_t watch_ns;     /* --watch; 0: without */
	struct replay_options replay;
	struct copy_options copy;
	struct cow_options cow;
	bool read_only;
	bool direct;
	bool json;
	bool quiet;
	bool keep_going;
	bool help;
	bool version;
	char **words;         /* the command and its arguments */
	unsigned int num_words;
};

/* Reads the command line. The strings stay argv's. */
enum exit_status options_parse(struct options *options, struct report *report, int argc,
			       char **argv);
void options_free(struct options *options);

/* DMCORE_OPEN_*, which are DMCORE_TABLE_* too. */
unsigned int options_open_flags(const struct options *options);

/* Print to standard output. */
void options_print_help(void);
void options_print_version(void);

#endif
