/* SPDX-License-Identifier: MIT */
/*
 * What the copy case consists of: files to copy (copy_files.c), kcopyd as one uses it
 * (copy_engine.c), and the programs beside which it stands (copy_peers.c).
 */
#ifndef DMCORE_BENCH_COPY_H
#define DMCORE_BENCH_COPY_H

#include <dmcore.h>

#include "bench.h"

#define COPY_DESTS_MAX 4u
#define COPY_PATH_BYTES 4200u

/* ---- copy_files.c ---- */

/* A directory with a source, and with destinations while one row has its turn. */
struct copy_files {
	struct bench *bench;
	uint64_t bytes;         /* of the source */
	uint64_t hash;          /* of what it holds */
	int dir_fd;             /* -1: not open */
	unsigned char *buffer;  /* COPY_BUFFER_BYTES */
	char dir[COPY_PATH_BYTES];
	char source[COPY_PATH_BYTES];
	char dests[COPY_DESTS_MAX][COPY_PATH_BYTES];
};

#define COPY_BUFFER_BYTES (1u << 20)

/*
 * Makes a directory under --dir, and in it a source of random data, durable. `holes`: every other
 * MiB of it is a hole. Closed by copy_files_close() in any case.
 */
int copy_files_open(struct copy_files *files, struct bench *bench, uint64_t bytes, bool holes);
void copy_files_close(struct copy_files *files);
/*
 * Touches and frees as much memory as the destinations take in the page cache. A virtual machine
 * may have given it back to its host, and the first to touch it again pays several times what a
 * copy costs.
 */
void copy_files_settle(const struct copy_files *files, unsigned int num_dests);
/* Reads the source, for it to be in the page cache. */
int copy_files_warm(const struct copy_files *files);
/* Whether so many destinations are the source's equals; -EILSEQ: one isn't. */
int copy_files_check(const struct copy_files *files, unsigned int num_dests);
/* Removes the destinations, and waits until the file system is at rest. */
int copy_files_remove(const struct copy_files *files);

/* ---- copy_engine.c ---- */

/* What decides how fast kcopyd copies. */
struct copy_parameters {
	enum dmcore_backend backend;
	unsigned int workers;        /* threads of a pread backend */
	unsigned int pages;          /* of the client */
	unsigned int subjob_sectors; /* 0: the client's default */
};

/* What every row has that doesn't say otherwise. */
#define COPY_PARAMETERS_INIT { .backend = DMCORE_BACKEND_AUTO, .workers = 0, .pages = 256, \
			       .subjob_sectors = 0 }

/* A core, a queue and a client: what a program that copies has anyway. */
struct copy_engine {
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct kcopyd_client *client;
	const char *wrong; /* which call failed */
};

/* -EOPNOTSUPP: the backend doesn't work here. Closed by copy_engine_close() in any case. */
/* Past the page cache: two slices of 1 MiB. */
void copy_parameters_direct(struct copy_parameters *parameters);
int copy_engine_open(struct copy_engine *engine, const struct copy_parameters *parameters);
int copy_engine_close(struct copy_engine *engine);
/*
 * Makes the destinations, files of the source's size; opens all, copies by one job, and closes
 * them. open_flags: DMCORE_OPEN_DIRECT or 0; flags: KCOPYD_*.
 */
int copy_engine_copy(struct copy_engine *engine, const char *source, const char *const *dests,
		     unsigned int num_dests, unsigned int open_flags, unsigned int flags);
/* The same as a program: dmcore-bench copy OPTIONS SOURCE DEST... Returns its exit status. */
int copy_program(int argc, char **argv);

/* ---- copy_peers.c ---- */

enum copy_mode {
	COPY_CACHE,
	COPY_DIRECT,
	COPY_SPARSE,
	COPY_SHARE,
};

#define COPY_MODES 4u
#define COPY_ARGS_MAX 24u
#define COPY_PEERS 4u

struct copy_peer {
	const char *name;
	/* Arguments by mode; none: it can't. '<' at the end of one stands for the source, '>' for
	   the destination. */
	const char *args[COPY_MODES][COPY_ARGS_MAX];
};

extern const struct copy_peer copy_peers[COPY_PEERS];

/* Whether a program of that name is to be found. */
bool copy_peer_found(const char *name);
/* Has a program copy, from start to exit. args as in struct copy_peer. */
int copy_peer_run(const char *const *args, const char *source, const char *dest);
/* The loop that one writes first: 256 KiB read and written in turn. */
int copy_loop(const char *source, const char *dest, bool direct);

#endif
