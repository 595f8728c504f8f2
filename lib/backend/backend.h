/* SPDX-License-Identifier: MIT */
/*
 * What carries out a queue's system calls. A backend belongs to one queue and is called by its
 * owner only. Implemented by io_uring.c and pread.c; used by queue/queue.c.
 */
#ifndef DMCORE_LIB_BACKEND_BACKEND_H
#define DMCORE_LIB_BACKEND_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include <dmcore/driver.h>
#include <dmcore/queue.h>

#include "base/core.h"
#include "base/list.h"

/* Files that a ring can register: enough for wide stripes, and little to set up. */
#define DMCORE__FILE_SLOTS 256u

/*
 * How long somebody who waits for several may be told late of the first, or of a wake-up. Longer
 * than the kernel's tick, or each change of threads meanwhile would set the timer of the CPU anew,
 * which is dear on virtual machines.
 */
#define DMCORE__SEVERAL_NS 5000000

/* A descriptor known to the backends. */
struct dmcore_file {
	struct dmcore *core;
	int fd;
	bool cached;   /* goes through the page cache */
	uint32_t slot; /* index into the rings' tables of registered files, or UINT32_MAX */
	uint64_t id;   /* never used twice: tells a stale registration from this one */
};

struct dmcore__backend;

struct dmcore__backend_config {
	struct dmcore *core;
	unsigned int depth;
	unsigned int workers;
	bool migrates;
	bool inline_writes;   /* DMCORE_QUEUE_INLINE_WRITES */
	int wake_fd;          /* readable when another thread wants the owner */
	struct dmcore_queue *queue;
	void (*wake)(struct dmcore_queue *queue); /* wakes the owner if it sleeps; any thread */
};

struct dmcore__backend_ops {
	const char *name;
	enum dmcore_backend kind;

	/* Leaves a sentence in `reason` either way. */
	int (*create)(const struct dmcore__backend_config *config, char *reason,
		      unsigned int reason_bytes, struct dmcore__backend **result);
	void (*destroy)(struct dmcore__backend *backend); /* nothing in flight */

	/* As dmcore_fileio_start(). */
	int (*start)(struct dmcore__backend *backend, struct dmcore_fileio *io);
	/* Hands to the kernel what start held back. */
	void (*kick)(struct dmcore__backend *backend);
	/* Runs io->done of what has ended; returns how many. Doesn't wait, implies kick. */
	unsigned int (*reap)(struct dmcore__backend *backend);
	/*
	 * Waits until something has ended, wake_fd is readable (and reads it), or the time is over;
	 * implies kick. Returns 0, -EINTR after a signal, or -ETIME. timeout_ns < 0: for ever.
	 * The caller has nothing to do before `want` have ended: a backend may let it sleep on
	 * until then, for DMCORE__SEVERAL_NS at the most, whatever comes meanwhile.
	 */
	int (*wait)(struct dmcore__backend *backend, unsigned int want, int64_t timeout_ns);
	/*
	 * A descriptor that is readable when reap has something to do, until reap has done it; or
	 * -1: wake_fd tells. Returns 0 or a negative errno.
	 */
	int (*poll_fd)(struct dmcore__backend *backend, int *fd);
	/* Optional. The file of that slot is going away: give up its registration. */
	void (*forget)(struct dmcore__backend *backend, uint32_t slot);
	int (*register_buffers)(struct dmcore__backend *backend, const struct dmio_bvec *buffers,
				unsigned int count);
};

struct dmcore__backend {
	const struct dmcore__backend_ops *ops;
	struct dmcore__backend_config config;
	unsigned int inflight; /* started, done not yet run */
};

/* Makes wake_fd unreadable again. */
static inline void dmcore__wake_fd_drain(int wake_fd)
{
	uint64_t count;

	/* It fails when nobody has woken us: no harm. */
	if (read(wake_fd, &count, sizeof(count)) < 0)
		return;
}

extern const struct dmcore__backend_ops dmcore__backend_pread;
#if HAVE_LIBURING
extern const struct dmcore__backend_ops dmcore__backend_io_uring;
#endif

/*
 * Chooses and creates: `kind` if it isn't AUTO, else what DMCORE_BACKEND names, else io_uring if it
 * works, else pread. -EOPNOTSUPP: the one that was demanded doesn't work.
 */
int dmcore__backend_create(enum dmcore_backend kind, const struct dmcore__backend_config *config,
			   char *reason, unsigned int reason_bytes,
			   struct dmcore__backend **result);

/* Runs one file I/O in the calling thread; returns its result. Implemented by pread.c. */
int64_t dmcore__fileio_run(const struct dmcore_fileio *io);

#endif
