/* SPDX-License-Identifier: MIT */
/**
 * @file context.h
 * @defgroup context The core object
 * One instance of the library. Several can live in a process and share nothing.
 *
 * @code
 * struct dmcore *core;
 * int ret = dmcore_create(NULL, &core);
 * …
 * ret = dmcore_destroy(core);
 * @endcode
 * @{
 */
#ifndef DMCORE_CONTEXT_H
#define DMCORE_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore/attr.h>

DMCORE_BEGIN_DECLS

struct dmcore;
struct dmcore_queue;

/** What carries out the system calls of file devices. */
enum dmcore_backend {
	DMCORE_BACKEND_AUTO = 0, /**< io_uring where it works, else pread. */
	DMCORE_BACKEND_IO_URING, /**< io_uring, or creation fails. */
	DMCORE_BACKEND_PREAD,    /**< pread and pwrite, inline or by workers. */
};

/** How serious a log message is. */
enum dmcore_log_level {
	DMCORE_LOG_ERROR,   /**< Something was lost or refused. */
	DMCORE_LOG_WARNING, /**< Something works, but not as was asked. */
	DMCORE_LOG_INFO,    /**< Decisions, such as the choice of a backend. */
	DMCORE_LOG_DEBUG,   /**< For the library's developers. */
};

/**
 * Receives a message. May run on any thread that calls the library, and on the service thread;
 * must not call back into the library.
 */
typedef void (*dmcore_log_fn)(enum dmcore_log_level level, const char *message, void *context);

/** Returns @p bytes of memory aligned for any type, or NULL. Any thread. */
typedef void *(*dmcore_alloc_fn)(size_t bytes, void *context);
/** Takes back what the dmcore_alloc_fn beside it returned; never called with NULL. Any thread. */
typedef void (*dmcore_release_fn)(void *memory, void *context);
/** Returns nanoseconds that never go backwards. Any thread. */
typedef uint64_t (*dmcore_clock_fn)(void *context);
/**
 * Lets time pass where a thread in the library would sleep: until something may have happened that
 * it waits for, or until @p until_ns of the core's clock, whichever comes first; UINT64_MAX: no
 * limit. Returns 0, or a negative errno if waiting makes no sense any more: with that
 * dmcore_queue_poll(), dmcore_device_wait() and what suspends a device end; plain calls such as
 * dmcore_pread(), and dmcore_service_call(), can't be given up, and ask again. It may call the
 * library as a callback may. A thread that waits for file I/O under way sleeps in the kernel all
 * the same.
 */
typedef int (*dmcore_sleep_fn)(struct dmcore *core, uint64_t until_ns, void *context);

/** Nothing runs by itself: the application calls dmcore_service_poll(). */
#define DMCORE_SERVICE_MANUAL (1u << 0)
/** No driver is loaded from a module: the core has its own and those that are registered. */
#define DMCORE_NO_MODULES (1u << 1)

/**
 * What a core is made with. Set struct_size (DMCORE_OPTIONS_INIT does it) and leave the rest zero
 * for the defaults. Fields are only ever added at the end.
 */
struct dmcore_options {
	size_t struct_size;           /**< sizeof(struct dmcore_options) of the caller. */
	unsigned int flags;           /**< DMCORE_SERVICE_MANUAL, DMCORE_NO_MODULES. */
	enum dmcore_backend backend;  /**< Default of every queue; AUTO asks DMCORE_BACKEND in
				           the environment ("io_uring", "pread"), then
				           probes. */
	unsigned int bdevs_max;       /**< Devices open at once; 0: DMCORE_BDEVS_DEFAULT. */
	uint64_t seed;                /**< Start of the generator behind every random choice. */
	dmcore_log_fn log;            /**< NULL: silent. */
	void *log_context;            /**< Handed to log. */
	dmcore_alloc_fn alloc;        /**< NULL: malloc. Together with release, or neither. */
	dmcore_release_fn release;    /**< NULL: free. */
	void *alloc_context;          /**< Handed to alloc and release. */
	dmcore_clock_fn clock_ns;     /**< NULL: CLOCK_MONOTONIC. */
	void *clock_context;          /**< Handed to clock_ns. */
	dmcore_sleep_fn sleep;        /**< NULL: the kernel's. For simulations, and for
				           programs whose threads are lighter than the kernel's. */
	void *sleep_context;          /**< Handed to sleep. */
};

/** Initialiser of a struct dmcore_options with every default. */
#define DMCORE_OPTIONS_INIT { .struct_size = sizeof(struct dmcore_options) }

/**
 * Makes a core. No thread is started: the service thread starts with the first table that needs
 * background work, or with the first dmcore_service_post().
 *
 * @param[in]  options  NULL for the defaults; copied.
 * @param[out] result   The core, owned by the caller; NULL on failure.
 * @retval 0        Made.
 * @retval -EINVAL  An option is out of its range, or unknown.
 * @retval -ENOMEM  No memory.
 * @threads   any
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_create(const struct dmcore_options *options,
					       struct dmcore **result);

/**
 * Takes a core down: removes every mapped device, stops the service thread and frees the rest.
 * Queues must have been destroyed and devices closed before; the message names what is left.
 *
 * @param[in] core  NULL is a no-op.
 * @retval 0       Gone.
 * @retval -EBUSY  A queue, an open device, a watch, or a table that isn't loaded still exists, or
 *                 plain calls wait for a suspended device; the core is unchanged.
 * @retval -EOWNERDEAD  The core was made before fork(): its memory goes with the child.
 * @threads   any, with no other call on this core under way.
 */
DMCORE_API int dmcore_destroy(struct dmcore *core);

/**
 * A unit of work for a queue's thread. The caller's memory; it must stay until fn has run, and
 * may be reused or freed by fn.
 */
struct dmcore_work {
	struct dmcore_work *next;               /**< The queue's. */
	void (*fn)(struct dmcore_work *work);   /**< Runs once, inside the owner's poll. */
};

/**
 * Hands work to the service queue, on which all background work of this core runs one after
 * another. Starts the service thread if there is none yet and the service isn't manual.
 *
 * @param[in] core  The core.
 * @param[in] work  With fn set; borrowed until fn runs.
 * @retval 0        Accepted: fn runs exactly once.
 * @retval -EAGAIN  The thread couldn't be started; fn never runs.
 * @retval -ESHUTDOWN  The core is being destroyed; fn never runs.
 * @threads   any
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_service_post(struct dmcore *core, struct dmcore_work *work);

/** A call that another thread has the service carry out. The caller's memory, zeroed before. */
struct dmcore_call {
	/** Runs once, on the service. It, or what it begins there, ends the call by
	 *  dmcore_service_return(). */
	void (*fn)(struct dmcore_call *call);
	bool immediate; /**< fn always returns the call before it ends: it may be called on the
			     service's own thread. */
	int result;     /**< What dmcore_service_return() was given. */
	/** The library's. */
	struct {
		struct dmcore_work work;
		struct dmcore *core;
		bool returned;
	} internal;
};

/**
 * Has the service run call->fn, and waits until the call is returned. With a manual service the
 * calling thread runs the service meanwhile, as by dmcore_service_poll(), unless another thread is
 * in there; other queues aren't run. The wait can't be given up.
 *
 * Destructors and the like call it with the control calls of the core held up: neither fn nor
 * anything that must happen on the service before the call is returned may make one then, nor do
 * plain I/O. dmcore_service_post() and dmcore_service_queue() are such calls, dmcore_queue_post()
 * is none. It works while the core is destroyed too, for targets that go with it, when
 * dmcore_service_post() refuses.
 *
 * On the service's own thread, inside its poll, nothing can wait for the service: there fn is run
 * at once if call->immediate says that it returns the call before it ends, and not at all
 * otherwise.
 *
 * @param[in] core  The core.
 * @param[in] call  Zeroed, with fn set, and immediate if that is so. It is the caller's again, and
 *                  may go, when this returns.
 * @return  What dmcore_service_return() was given; or, with fn not run at all, one of these:
 * @retval -EINVAL   No core, no call, or no fn.
 * @retval -EAGAIN   The service couldn't be started.
 * @retval -EDEADLK  This is the service's own thread, and the call isn't immediate.
 * @threads   any; blocks. With a manual service no other thread begins dmcore_service_poll()
 *            meanwhile.
 */
DMCORE_API int dmcore_service_call(struct dmcore *core, struct dmcore_call *call);

/**
 * Ends a call of dmcore_service_call().
 *
 * @param[in] call    Whose fn has been called; once. Not to be touched afterwards.
 * @param[in] result  What the call returns.
 * @threads   the service's: from fn, or later from any completion, timer or work there
 */
DMCORE_API void dmcore_service_return(struct dmcore_call *call, int result);

/**
 * Runs the service queue of a core made with DMCORE_SERVICE_MANUAL; as dmcore_queue_poll().
 *
 * @param[in] core        The core.
 * @param[in] min         Completions to wait for.
 * @param[in] max         Completions to run at the most.
 * @param[in] timeout_ns  Longest wait; negative: none.
 * @return The number of completions run, or an error of dmcore_queue_poll().
 * @retval -EINVAL  The service isn't manual.
 * @threads   one thread at a time.
 */
DMCORE_API int dmcore_service_poll(struct dmcore *core, unsigned int min, unsigned int max,
				   int64_t timeout_ns);

/**
 * The queue behind the service, for services and targets that do I/O in the background.
 *
 * @param[in] core  The core.
 * @return  Borrowed; lives as long as the core. NULL: it couldn't be made, see the message.
 * @threads any; the queue itself belongs to the service.
 */
DMCORE_API struct dmcore_queue *dmcore_service_queue(struct dmcore *core);

/**
 * The time of the core's clock.
 *
 * @param[in] core  The core.
 * @return  Nanoseconds; those of CLOCK_MONOTONIC unless the application has set a clock.
 * @threads any
 */
DMCORE_API uint64_t dmcore_clock_ns(const struct dmcore *core);

/**
 * A number from the generator that dmcore_options::seed started. With the same seed, and the same
 * calls in the same order, it is the same; targets that were made so far have taken some.
 *
 * @param[in] core  The core.
 * @return  Any 64 bits.
 * @threads any
 */
DMCORE_API uint64_t dmcore_random(struct dmcore *core);

/**
 * The version of the library at run time, as "MAJOR.MINOR.PATCH"; compare DMCORE_VERSION_STRING.
 *
 * @return  A static string.
 * @threads any
 */
DMCORE_API const char *dmcore_version(void);

DMCORE_END_DECLS

/** @} */
#endif
