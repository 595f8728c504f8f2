/* SPDX-License-Identifier: MIT */
/*
 * A leaf device that is an export of an NBD server, by libnbd. The module is
 *
 *	driver.c      what the core calls: opening, closing, submitting
 *	options.c     the words before the URI
 *	connection.c  one attempt to connect, and what the server then says about the export
 *	thread.c      the device's thread, which alone uses the connection
 *
 * A request that the server has answered has ended. All others are sent again after a connection is
 * lost, once the old one is closed: nothing has been told of them, and each leaves the same when it
 * is carried out twice. What was answered before the loss and not flushed may be gone with the
 * server, so flushes fail from then on; see thread.c.
 */
#ifndef DMCORE_LIB_MODULES_NBD_NBD_H
#define DMCORE_LIB_MODULES_NBD_NBD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libnbd.h>

#include <dmcore.h>

/* The longest request; memory for one is set aside for each that may be in flight. */
#define NBD_REQUEST_BYTES (1u << 20)
/* An attempt to connect takes no longer, nor does taking leave of a server. */
#define NBD_CONNECT_NS UINT64_C(10000000000)
#define NBD_GOODBYE_NS UINT64_C(1000000000)
#define NBD_IN_FLIGHT_MAX 1024u
#define NBD_DEADLINE_SECONDS_MAX 86400u

struct nbd_options {
	char *uri; /* ours */
	uint64_t deadline_ns;
	unsigned int in_flight;
};

/* 0, or a negative errno with a message for the opening of `bdev`. */
int nbd_options_parse(struct dmcore_bdev *bdev, const char *args, struct nbd_options *options);
void nbd_options_free(struct dmcore *core, struct nbd_options *options);

/* What a server says about its export. */
struct nbd_facts {
	uint64_t size_bytes;
	uint64_t block_bytes;     /* smallest request */
	uint64_t preferred_bytes;
	uint64_t maximum_bytes;   /* of a request with data */
	bool read_only;
	bool can_flush;
	bool can_fua;
	bool can_trim;
	bool can_zero;
};

/*
 * Begins to connect; the handle goes on when its descriptor is served. NULL: -errno in *error, and
 * nbd_get_error() says why.
 */
struct nbd_handle *nbd_connection_begin(const char *uri, int *error);
/* Serves the handle's descriptor, and returns at latest at that time, or when `wake_fd` is
 * readable if it isn't -1. */
void nbd_connection_serve(struct nbd_handle *handle, int wake_fd, int64_t timeout_ns);
/* 0, or a negative errno if it can't be asked. The handle is ready. */
int nbd_connection_facts(struct nbd_handle *handle, struct nbd_facts *facts);
/* Whether what was promised when the device was opened still holds. */
bool nbd_facts_suit(const struct nbd_facts *now, const struct nbd_facts *before);

/* One request that the connection has. */
struct nbd_slot {
	struct nbd_leaf *leaf;
	struct nbd_slot *next; /* free ones, or those that have ended */
	struct dmcore_bio *bio;
	char *memory;          /* NBD_REQUEST_BYTES, for data in several pieces */
	bool uses_memory;
	int error;             /* errno of libnbd, or 0 */
	uint64_t covers;       /* of a flush: so many writes had been answered */
};

/* A device. */
struct nbd_leaf {
	struct dmcore *core;
	struct nbd_options options;
	struct nbd_facts facts;

	/* Any thread. */
	_Atomic(struct dmcore_bio *) submitted; /* the youngest first */
	_Atomic bool stopping;
	int wake_fd;

	/* The thread's, but while there is none. */
	pthread_t thread;
	struct nbd_handle *handle;     /* NULL: between two attempts */
	bool is_ready;
	bool is_late;                  /* the deadline has passed: requests fail */
	bool must_drop;                /* the server takes its leave */
	uint64_t lost_ns;              /* since when there is no connection */
	uint64_t attempt_ns;           /* when the next attempt begins, or the current has begun */
	uint64_t pause_ns;             /* before the next */
	struct dmcore_bio *waiting;    /* the oldest first */
	struct dmcore_bio **waiting_end;
	struct nbd_slot *slots;
	struct nbd_slot *free_slots;
	struct nbd_slot *ended;
	char *memory;                  /* of all slots */
	uint64_t num_answered;         /* writes that weren't durable when they ended */
	uint64_t num_flushed;          /* of these, so many have been flushed since */
	bool has_lost_writes;          /* perhaps: flushes fail from now on */
};

/* The connection is ready. 0 or a negative errno. */
int nbd_thread_start(struct nbd_leaf *leaf);
/* Nothing is in flight. Takes leave of the server. */
void nbd_thread_stop(struct nbd_leaf *leaf);
void nbd_thread_submit(struct nbd_leaf *leaf, struct dmcore_bio *bio);

#endif
