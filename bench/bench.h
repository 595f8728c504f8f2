/* SPDX-License-Identifier: MIT */
/*
 * What the files of the benchmark share. A case sets up devices, lists its rows, has them measured
 * side by side, and takes its devices down. A row is one thing that is timed; most have a floor, a
 * row of the same list that does the same work without the library.
 */
#ifndef DMCORE_BENCH_BENCH_H
#define DMCORE_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_NAME_BYTES 40
#define BENCH_RUNS_MAX 10000u
#define BENCH_BATCH_MAX 64u
/* One request of most rows. */
#define BENCH_BLOCK_BYTES 4096u
#define BENCH_BLOCK_SECTORS 8u

struct bench_options {
	bool smoke;           /* small sizes, no judgement */
	bool json;
	bool gate;            /* a missed bar fails the program */
	unsigned int runs;
	bool runs_given;      /* else a case may choose for itself */
	uint64_t seed;
	const char *only;     /* case, or NULL: all */
	const char *dir;      /* where files are made */
	const char *work_row; /* carry out this row once and time nothing, for profilers */
	uint64_t work_count;
};

struct bench {
	struct bench_options options;
	int cpu;              /* the main thread's, or -1: not pinned */
	bool failed;          /* work was done wrongly */
	bool missed;          /* a bar was missed */
	bool work_done;
	bool heading_printed;
};

/* One run of a row. */
struct bench_run {
	uint64_t seed;       /* in */
	uint64_t count;      /* in: requests to carry out; rounded to whole batches */
	uint64_t completed;  /* out */
	uint64_t hash;       /* out: of what was done, whatever the order */
	uint64_t elapsed_ns; /* out: by a row that times itself, else 0 */
};

/* Returns 0 or a negative errno. */
typedef int (*bench_run_fn)(void *context, struct bench_run *run);

struct bench_row {
	char name[BENCH_NAME_BYTES];    /* CASE/ROW */
	bench_run_fn fn;
	void *context;
	uint64_t count;                 /* requests of one run */
	const struct bench_row *floor;  /* another of the same list, or NULL */
	const struct bench_row *rivals; /* the fastest of these of the list becomes the floor */
	unsigned int num_rivals;        /* 0: floor is what it is */
	bool same_work;                 /* its hash must be the floor's; so must its count */
	bool quiet;                     /* only a floor: people see it in the rows above it */
	double max_ns;                  /* bar on the best, or 0 */
	double max_ratio;               /* bar on best : best of the floor, or 0 */
	const char *unit;               /* to print times in, of unit_ns each; NULL: "ns" */
	double unit_ns;

	double best_ns;                 /* out: of a request; from here on */
	double median_ns;
	double ratio;                   /* best : best of the floor; 0: no floor */
	double paired_ratio;            /* median over the runs of this : floor */
	uint64_t hash;                  /* of all runs */
	double *samples_ns;             /* by run, while it is measured */
};

struct bench_case {
	const char *name;
	const char *what;
	int (*run)(struct bench *bench);
};

extern const struct bench_case bench_case_null;
extern const struct bench_case bench_case_stats;
extern const struct bench_case bench_case_layers;
extern const struct bench_case bench_case_striped;
extern const struct bench_case bench_case_split;
extern const struct bench_case bench_case_mapped;
extern const struct bench_case bench_case_peers;
extern const struct bench_case bench_case_threads;
extern const struct bench_case bench_case_table;
extern const struct bench_case bench_case_swap;
extern const struct bench_case bench_case_file;
extern const struct bench_case bench_case_sim;
extern const struct bench_case bench_case_copy;
extern const struct bench_case bench_case_snapshot;
extern const struct bench_case bench_case_mirror;
extern const struct bench_case bench_case_mirror_recovery;

/* ---- harness.c ---- */

uint64_t bench_now_ns(void);
/* Pins the calling thread to the index-th CPU that it may run on, from the last; -1: it can't. */
int bench_pin(unsigned int index);
/* Lets it run on all of them again. */
void bench_unpin(void);
/* How many that are. */
unsigned int bench_cpus(void);
/* Resident memory of the process. 0: unknown. */
uint64_t bench_rss_bytes(void);
/* The full size, or the smoke size. */
uint64_t bench_size(const struct bench *bench, uint64_t full, uint64_t smoke);
/* Prints why something failed, and remembers it. Returns `error`. */
int bench_fail(struct bench *bench, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Sorts, so that the best comes first, and returns the middle. */
double bench_median(double *values, unsigned int count);

/*
 * Warms each row up, then runs all in turn, options.runs times, and reports them. Returns 0, or a
 * negative errno when work failed. With options.work_row: runs that row once instead.
 */
int bench_measure(struct bench *bench, struct bench_row *rows, unsigned int num_rows);

/* ---- report.c ---- */

void bench_print_machine(const struct bench *bench);
void bench_report_row(struct bench *bench, const struct bench_row *row);
/* A figure that was derived from rows, or measured once. max 0: no bar. */
void bench_report_value(struct bench *bench, const char *name, const char *unit, double best,
			double median, double max);
void bench_report_skip(struct bench *bench, const char *name, const char *reason);

/* ---- the generator of random positions, the same for a row and its floor ---- */

struct bench_random {
	uint64_t state;
};

static inline struct bench_random bench_random_start(uint64_t seed)
{
	struct bench_random random = { seed * UINT64_C(0x9e3779b97f4a7c15) | 1 };

	return random;
}

/* One of 0 .. positions - 1; positions fit in 32 bits. */
static inline uint64_t bench_random_position(struct bench_random *random, uint64_t positions)
{
	/* Only the upper half is random enough, and used. */
	random->state = random->state * UINT64_C(6364136223846793005) + 1;
	return (random->state >> 32) * positions >> 32;
}

/* What a piece of work adds to a hash. */
static inline uint64_t bench_mix(uint64_t value)
{
	value *= UINT64_C(0xff51afd7ed558ccd);
	return value ^ value >> 32;
}

#endif
