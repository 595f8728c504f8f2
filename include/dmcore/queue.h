/* SPDX-License-Identifier: MIT */
/**
 * @file queue.h
 * @defgroup queue Queues
 * An I/O context: a backend, a pool of requests and a list of completions, with one owner.
 *
 * A queue belongs to one thread at a time. Callbacks run only inside dmcore_queue_poll() of that
 * thread, with no lock held, and may call the library again. One queue can be waited for in four
 * ways, mixed at will:
 *  - block: dmcore_queue_poll() with min > 0;
 *  - poll: dmcore_queue_poll() with min 0;
 *  - callback: a bio with a `done` function; without one it is collected by dmcore_queue_reap();
 *  - a file descriptor, dmcore_queue_fd(), for epoll and other loops.
 *
 * Submissions to files are held back ("plugged") until the next poll or kick, so that one system
 * call carries a batch.
 *
 * A queue made before fork() doesn't work in the child: every call there refuses with -EOWNERDEAD.
 * @{
 */
#ifndef DMCORE_QUEUE_H
#define DMCORE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>
#include <dmcore/context.h>

DMCORE_BEGIN_DECLS

struct dmcore_bio;
struct dmio_bvec;

/**
 * The owner may change after the first poll (see dmcore_queue_claim()), at the price of the
 * cheapest io_uring modes. Without it the first thread that polls or submits is the owner for good.
 */
#define DMCORE_QUEUE_MIGRATES (1u << 0)

/**
 * Writes of up to 64 KiB that go through the page cache, and needn't be durable at their end, run
 * inside submit and poll: copying is faster than handing them to a thread and back, which is what
 * io_uring does with them on most file systems. When one takes longer than a millisecond, because
 * the kernel makes writers wait, those of the next 100 ms go to its threads. So submit and poll may
 * block once in that time. Ignored by pread backends.
 */
#define DMCORE_QUEUE_INLINE_WRITES (1u << 1)

/** What a queue is made with. Zero means the default in each field. */
struct dmcore_queue_options {
	size_t struct_size;          /**< sizeof(struct dmcore_queue_options) of the caller. */
	unsigned int flags;          /**< DMCORE_QUEUE_*. */
	enum dmcore_backend backend; /**< AUTO: the core's choice. */
	unsigned int depth;          /**< Requests in flight at the backend, up to
				          DMCORE_QUEUE_DEPTH_MAX; more wait, in order. */
	unsigned int bios;           /**< Bios for dmcore_bio_get(), 1..DMCORE_QUEUE_BIOS_MAX. */
	unsigned int splits;         /**< Bios for the pieces of split requests, likewise. */
	unsigned int workers;        /**< Threads of a pread backend, 0..DMCORE_QUEUE_WORKERS_MAX;
				          0: system calls run inside submit and poll. Ignored by
				          io_uring. */
};

/** Initialiser of a struct dmcore_queue_options with every default. */
#define DMCORE_QUEUE_OPTIONS_INIT { .struct_size = sizeof(struct dmcore_queue_options) }

/** What became of a queue's options. */
struct dmcore_queue_info {
	size_t struct_size;            /**< In: sizeof(struct dmcore_queue_info) of the caller. */
	enum dmcore_backend backend;   /**< IO_URING or PREAD. */
	unsigned int workers;          /**< Threads of the backend. */
	unsigned int depth;            /**< Requests in flight at the most. */
	unsigned int inflight;         /**< Bios submitted and not yet completed. */
	char reason[160];              /**< Why this backend, for people: "io_uring (single
				            issuer, deferred task run)", or "pread (inline);
				            io_uring: Operation not permitted (EPERM) …". */
};

/**
 * Makes a queue and probes its backend.
 *
 * @param[in]  core     The core.
 * @param[in]  options  NULL for the defaults; copied.
 * @param[out] result   The queue, owned by the caller; NULL on failure.
 * @retval 0           Made.
 * @retval -EINVAL     An option is out of its range, or unknown.
 * @retval -ENOMEM     No memory.
 * @retval -EOPNOTSUPP io_uring was demanded and doesn't work here; the message says why.
 * @retval -ENFILE     The core has DMCORE_QUEUES_MAX queues.
 * @threads   control
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_queue_create(struct dmcore *core,
						     const struct dmcore_queue_options *options,
						     struct dmcore_queue **result);

/**
 * Completes what is in flight, running its callbacks, then frees the queue.
 *
 * @param[in] queue  NULL is a no-op.
 * @retval 0            Gone.
 * @retval -EBUSY       Called from a callback of this queue; or requests wait for a suspended
 *                      device; or bios that the caller took by dmcore_bio_get() haven't been put
 *                      back; or timers are running. The queue stays.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   queue
 */
DMCORE_API int dmcore_queue_destroy(struct dmcore_queue *queue);

/**
 * Runs the queue: takes work from other threads, submits what is plugged, collects completions and
 * runs callbacks.
 *
 * @param[in] queue       The queue.
 * @param[in] min         Return when so many completions have run; 0: don't wait.
 * @param[in] max         Run no more than so many; >= min and > 0.
 * @param[in] timeout_ns  Return after so long in any case; negative: wait for ever.
 * @return  The number of completions (bios, timers, and work from dmcore_queue_post()) that ran.
 *          Less than min after a time-out or a signal. Completions of requests that the library
 *          made on the caller's behalf count too: a caller who waits for a certain one loops. Less
 *          also when a clock of the application's own stands still, and there is no sleep hook: as
 *          soon as the time to the next timer has passed for real.
 * @note    With min > 1 the thread may sleep until so many system calls have ended, to be woken
 *          less often. What other threads want of it, and callbacks of what has ended, may then be
 *          late by 5 ms. For the shortest latency wait for one.
 * @retval -EINVAL      max is 0 or less than min.
 * @retval -EDEADLK     Called from a callback of this queue.
 * @retval -EPERM       Another thread owns the queue.
 * @retval -EINTR       A signal came before the first completion.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   queue
 */
DMCORE_API int dmcore_queue_poll(struct dmcore_queue *queue, unsigned int min, unsigned int max,
				 int64_t timeout_ns);

/**
 * Submits what is plugged now. To be called before waiting on dmcore_queue_fd(): it also makes the
 * descriptor readable if completions are ready to run.
 *
 * @param[in] queue  The queue.
 * @retval 0            Submitted; what the backend has no room for follows from poll.
 * @retval -EPERM       Another thread owns the queue.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   queue
 */
DMCORE_API int dmcore_queue_kick(struct dmcore_queue *queue);

/**
 * A descriptor that is readable when dmcore_queue_poll(queue, 0, …) has something to do, timers
 * included. Only for poll, select and epoll (level-triggered); never to be read or closed.
 *
 * @param[in] queue  The queue.
 * @return  The descriptor, the queue's own; the same at each call.
 * @retval -EMFILE  No descriptor to be had; other errors of epoll_create1() and eventfd().
 * @threads   queue
 */
DMCORE_API int dmcore_queue_fd(struct dmcore_queue *queue);

/**
 * Takes completed bios that have no `done` function, oldest first.
 *
 * @param[in]  queue  The queue.
 * @param[out] bios   Room for @p max.
 * @param[in]  max    Entries of @p bios.
 * @return  How many were stored. Each is the submitter's again; see its status. Until then it
 *          can't be submitted again or put back. 0 in a child of fork().
 * @threads   queue
 */
DMCORE_API unsigned int dmcore_queue_reap(struct dmcore_queue *queue, struct dmcore_bio **bios,
					  unsigned int max);

/**
 * Hands work to the queue's owner from any thread, and wakes it if it sleeps. Does nothing in a
 * child of fork().
 *
 * @param[in] queue  The queue; must outlive the call.
 * @param[in] work   With fn set; borrowed until fn has run inside the owner's poll.
 * @threads   any
 */
DMCORE_API void dmcore_queue_post(struct dmcore_queue *queue, struct dmcore_work *work);

/**
 * A function to be run later. The caller's memory, zeroed before its first use; not to be moved or
 * freed while it is running.
 */
struct dmcore_timer {
	uint64_t at_ns;                         /**< When, by the core's clock; set by start. */
	void (*fn)(struct dmcore_timer *timer); /**< Runs once for each start, inside the owner's
						     poll; may start the timer again, or free
						     it. */
	struct dmcore_timer *child;             /**< The queue's. */
	struct dmcore_timer *next;              /**< The queue's. */
	struct dmcore_timer *previous;          /**< The queue's; NULL: not running. */
	uint64_t order;                         /**< The queue's. */
};

/**
 * Has a timer run at a time, or as soon as the queue is polled after it. Timers of the same time
 * run in the order in which they were started. A timer that is running already is moved; one
 * that runs on another queue has to be cancelled there first.
 *
 * @param[in] queue  The queue.
 * @param[in] timer  With fn set; borrowed until fn runs, or it is cancelled.
 * @param[in] at_ns  A time of the core's clock, see dmcore_clock_ns(); one that has passed is now.
 * @retval 0            Running.
 * @retval -EINVAL      No queue or no fn.
 * @retval -EPERM       Another thread owns the queue.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   queue. Neither allocates nor locks.
 */
DMCORE_API int dmcore_timer_start(struct dmcore_queue *queue, struct dmcore_timer *timer,
				  uint64_t at_ns);

/**
 * Stops a timer.
 *
 * @param[in] queue  The queue that it was started on.
 * @param[in] timer  Any timer of this queue; one that isn't running is left alone.
 * @return  Whether it was running: fn won't run.
 * @threads queue
 */
DMCORE_API bool dmcore_timer_cancel(struct dmcore_queue *queue, struct dmcore_timer *timer);

/**
 * When the next timer is due, for programs with a clock or a loop of their own. Programs that wait
 * by dmcore_queue_fd() need not ask: it is readable then, if they call dmcore_queue_kick() before
 * they wait.
 *
 * @param[in] queue  The queue.
 * @return  A time of the core's clock; UINT64_MAX: no timer is running.
 * @threads queue
 */
DMCORE_API uint64_t dmcore_timer_next_ns(const struct dmcore_queue *queue);

/**
 * Makes the calling thread the owner of a queue made with DMCORE_QUEUE_MIGRATES. The application
 * sees to it that the old owner is no longer in a call, neither of the queue nor of one that
 * suspends a device or replaces its table: these poll the queues of their thread.
 *
 * @param[in] queue  The queue.
 * @retval 0            Owned.
 * @retval -EPERM       Made without DMCORE_QUEUE_MIGRATES, and another thread owns it.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   any, one at a time
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_queue_claim(struct dmcore_queue *queue);

/**
 * Registers memory with io_uring, so that I/O whose buffer lies in it skips the page lookup.
 * Without io_uring, and without enough locked memory, it does nothing and reports so; I/O works
 * all the same. After a failure no buffer is registered.
 *
 * @param[in] queue    The queue, with nothing in flight.
 * @param[in] buffers  Ranges of memory that stay mapped until the queue is destroyed or other
 *                     buffers are registered; the array is copied.
 * @param[in] count    0 (unregister) to DMCORE_QUEUE_BUFFERS_MAX.
 * @retval 0            Registered.
 * @retval -EINVAL      Too many, or a range that is empty or longer than
 *                      DMCORE_QUEUE_BUFFER_BYTES_MAX.
 * @retval -EBUSY       I/O is in flight.
 * @retval -EOPNOTSUPP  Not an io_uring queue.
 * @retval -ENOMEM      RLIMIT_MEMLOCK is too low; the message names what is needed.
 * @threads   queue
 */
DMCORE_API int dmcore_queue_register_buffers(struct dmcore_queue *queue,
					     const struct dmio_bvec *buffers, unsigned int count);

/**
 * Says what the queue is made of.
 *
 * @param[in]     queue  The queue.
 * @param[in,out] info   struct_size set by the caller; the rest is filled in as far as that goes.
 * @retval 0        Filled in.
 * @retval -EINVAL  struct_size isn't set.
 * @retval -EOWNERDEAD  The queue was made before fork().
 * @threads   queue
 */
DMCORE_API int dmcore_queue_info(struct dmcore_queue *queue, struct dmcore_queue_info *info);

/**
 * The core of a queue.
 *
 * @param[in] queue  The queue.
 * @return  Borrowed.
 * @threads any
 */
DMCORE_API struct dmcore *dmcore_queue_core(struct dmcore_queue *queue);

/**
 * A number of a queue, for targets and drivers that keep something for each.
 *
 * @param[in] queue  The queue.
 * @return  Less than DMCORE_QUEUE_INDICES_MAX; that of no other queue of the core. Once the queue
 *          has been destroyed another one may get it.
 * @threads any
 */
DMCORE_API unsigned int dmcore_queue_index(const struct dmcore_queue *queue);

DMCORE_END_DECLS

/** @} */
#endif
