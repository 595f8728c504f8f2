/* SPDX-License-Identifier: MIT */
/*
 * What tests of leaf devices stand on: a core, a queue, an open device, and requests of any shape
 * that are carried out one at a time.
 */
#ifndef DMCORE_TESTS_SUPPORT_RIG_H
#define DMCORE_TESTS_SUPPORT_RIG_H

#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

struct rig {
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmcore_bdev *bdev; /* what rig_open() opened last */
	uint64_t random;          /* state of rig_random() */
	uint64_t seed;
};

/* Makes the core and the queue. Asserts that all works, as the rest here does. */
void rig_create(struct rig *rig);
/* Closes rig->bdev, if there is one, and takes the rest down. */
void rig_destroy(struct rig *rig);

void rig_open(struct rig *rig, const char *spec, unsigned int flags);
void rig_close(struct rig *rig);
/* Opening fails with `error`, and with this message behind "<spec>: ". */
void rig_open_fails(struct rig *rig, const char *spec, unsigned int flags, int error,
		    const char *message);
struct dmcore_limits rig_limits(const struct rig *rig);

/* Carries out a request on rig->bdev; returns its status. */
int rig_vec(struct rig *rig, enum dmcore_op op, unsigned int flags, uint64_t sector, uint64_t count,
	    const struct dmio_bvec *vecs, uint32_t num_vecs, uint32_t vec_offset_bytes);
int rig_read(struct rig *rig, uint64_t sector, void *buffer, size_t bytes);
int rig_write(struct rig *rig, uint64_t sector, const void *buffer, size_t bytes);
int rig_write_fua(struct rig *rig, uint64_t sector, const void *buffer, size_t bytes);
int rig_flush(struct rig *rig);
/* DISCARD and WRITE_ZEROES. */
int rig_range(struct rig *rig, enum dmcore_op op, unsigned int flags, uint64_t sector,
	      uint64_t count);

/* Polls until this bio has ended; returns its status. Its done must be rig_done. */
int rig_wait(struct rig *rig, struct dmcore_bio *bio);
/* Sets the bool that is the bio's context. */
void rig_done(struct dmcore_bio *bio);

/* A number below `bound`, from the seed in DMCORE_SEED (else always the same ones). */
uint64_t rig_random(struct rig *rig, uint64_t bound);
/* Fills memory with bytes that no other call made. */
void rig_fill(struct rig *rig, void *memory, size_t bytes);

#endif
