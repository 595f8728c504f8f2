/* SPDX-License-Identifier: MIT */
/**
 * @file attr.h
 * Attributes that the other headers use, and the thread classes they name.
 *
 * Every public function states one thread class:
 * - **any**: from any thread at any time; may take a lock of the core.
 * - **queue**: from the thread that owns the queue (or, for a bio, the bio's queue) only.
 * - **control**: from any thread; serialised by the core; may block; not from a target's or a
 *   driver's callback.
 * - **callback**: only from inside the callback that was handed the object.
 */
#ifndef DMCORE_ATTR_H
#define DMCORE_ATTR_H

#if defined(__GNUC__)
/** Exported from the shared library. */
#define DMCORE_API __attribute__((visibility("default")))
/** The caller must look at the result. */
#define DMCORE_MUST_CHECK __attribute__((warn_unused_result))
/** printf-like: @p fmt is the number of the format argument, @p args of the first value. */
#define DMCORE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
/** Alignment of a struct or member, bytes. */
#define DMCORE_ALIGNED(bytes) __attribute__((aligned(bytes)))
#else
#define DMCORE_ALIGNED(bytes)
#define DMCORE_API
#define DMCORE_MUST_CHECK
#define DMCORE_PRINTF(fmt, args)
#endif

#ifdef __cplusplus
/** Opens the C declarations of a header. */
#define DMCORE_BEGIN_DECLS extern "C" {
/** Closes what DMCORE_BEGIN_DECLS opened. */
#define DMCORE_END_DECLS }
#else
#define DMCORE_BEGIN_DECLS
#define DMCORE_END_DECLS
#endif

#endif
