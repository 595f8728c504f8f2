/* SPDX-License-Identifier: MIT */
/* Programs of others that a case runs. */
#ifndef DMCORE_BENCH_SPAWN_H
#define DMCORE_BENCH_SPAWN_H

#include <stddef.h>
#include <stdint.h>

/*
 * Runs a program found on PATH and waits for its end. What it prints, and what it complains of,
 * goes to `output`, cut to `bytes`. 0, -ECHILD if it has failed, or why it wasn't started.
 */
int spawn(const char *const *args, char *output, size_t bytes);

/* Runs `qemu-img bench`. *elapsed_ns: by its own clock, in which neither opening nor closing is;
 * never 0. -EPROTO: it doesn't say. */
int spawn_qemu_bench(const char *const *args, uint64_t *elapsed_ns);

#endif
