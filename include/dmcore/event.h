/* SPDX-License-Identifier: MIT */
/**
 * @file event.h
 * @defgroup event Events
 * A mapped device counts its events: a stripe that fails, a snapshot that fills up, a mirror that
 * is in sync. What happened is told by the device's status. One can wait for the next event in a
 * call, by a callback on a queue, or with a descriptor in an event loop.
 *
 * @code
 * uint32_t seen = 0;
 *
 * while (dmcore_device_wait(device, &seen, -1) == 0)
 *         show_status(device);
 * @endcode
 *
 * No event is lost: who says which he has seen last is told at once of a later one, and several
 * may be told as one. A loop as above needs a device that isn't removed between two of its calls; a
 * watch may outlive its device.
 * @{
 */
#ifndef DMCORE_EVENT_H
#define DMCORE_EVENT_H

#include <stdint.h>

#include <dmcore/attr.h>

DMCORE_BEGIN_DECLS

struct dmcore_device;
struct dmcore_queue;
struct dmcore_watch;

/**
 * How many events a device has had, as dmcore_device_info() tells.
 *
 * @param[in] device  The device.
 * @return  From 0; wraps round.
 * @threads any
 */
DMCORE_API uint32_t dmcore_device_event_nr(const struct dmcore_device *device);

/**
 * Waits until the number of events is another one.
 *
 * @param[in]     device      The device.
 * @param[in,out] event_nr    In: the number that the caller knows; out: the present one, also
 *                            after -ETIMEDOUT.
 * @param[in]     timeout_ns  Longest wait; negative: none; 0: just look.
 * @retval 0           There was an event.
 * @retval -ETIMEDOUT  There was none in that time.
 * @retval -ENODEV     The device was removed during the wait; its pointer is void.
 * @retval -EINVAL     No device, or no number.
 * @threads   any, but not from a target's or driver's callback; blocks, and a signal doesn't end
 *            that. It doesn't poll the caller's queues: where the event comes from I/O on them, use
 *            a watch.
 * @conform   DM_DEV_WAIT.
 */
DMCORE_API int dmcore_device_wait(struct dmcore_device *device, uint32_t *event_nr,
				  int64_t timeout_ns);

/** Runs inside the poll of the watch's queue after one or more events, and after the removal of
 *  the device: dmcore_watch_event_nr() tells which. May destroy the watch; may not wait for
 *  requests, so neither suspend a device nor replace its table. */
typedef void (*dmcore_watch_fn)(struct dmcore_watch *watch, void *context);

/**
 * Begins to watch a device.
 *
 * @param[in]  device    The device.
 * @param[in]  event_nr  The number that the caller knows: later events are told at once.
 * @param[in]  queue     Where @p fn runs; must outlive the watch. NULL: only the descriptor is
 *                       wanted.
 * @param[in]  fn        Called after events; NULL if and only if @p queue is.
 * @param[in]  context   Kept for fn.
 * @param[out] result    The watch, owned by the caller; NULL on failure.
 * @retval 0        Watching.
 * @retval -EINVAL  No device, or only one of queue and fn; a queue of another core.
 * @retval -EMFILE  No descriptor to be had; other errors of eventfd().
 * @retval -ENOMEM  No memory.
 * @threads   control
 */
DMCORE_API DMCORE_MUST_CHECK int dmcore_watch_create(struct dmcore_device *device,
						     uint32_t event_nr, struct dmcore_queue *queue,
						     dmcore_watch_fn fn, void *context,
						     struct dmcore_watch **result);

/**
 * A descriptor that is readable from an event, or the removal of the device, until
 * dmcore_watch_event_nr() is called, also in a watch with a function. Only for poll, select and
 * epoll; never to be read or closed.
 *
 * @param[in] watch  The watch.
 * @return  The descriptor, the watch's own; the same at each call.
 * @threads any
 */
DMCORE_API int dmcore_watch_fd(struct dmcore_watch *watch);

/**
 * Tells the number of events, and makes the descriptor unreadable until the next one.
 *
 * @param[in]  watch     The watch.
 * @param[out] event_nr  The number; of a removed device, the last one.
 * @retval 0        Told.
 * @retval -ENODEV  Told, and the device has been removed.
 * @retval -EOWNERDEAD  Called in a child of fork().
 * @threads   any
 */
DMCORE_API int dmcore_watch_event_nr(struct dmcore_watch *watch, uint32_t *event_nr);

/**
 * Ends a watch. fn doesn't run any more. Does nothing in a child of fork().
 *
 * @param[in] watch  NULL is a no-op. Must be destroyed before its queue; dmcore_destroy() refuses
 *                   while there is one. May outlive its device.
 * @threads   queue, where there is one; else control. Allowed in fn.
 */
DMCORE_API void dmcore_watch_destroy(struct dmcore_watch *watch);

DMCORE_END_DECLS

/** @} */
#endif
