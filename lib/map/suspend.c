/* SPDX-License-Identifier: MIT */
/*
 * The states of a mapped device: suspended, swapped, resumed, quiesced. The data path knows of it
 * by device->live alone: NULL has bios wait, and once none is left inside, the table behind it may
 * be replaced. Called by applications, by device.c and by stats.c.
 *
 * What a target does when it is told, and the wait itself, happen without the control lock: the
 * states SUSPENDING and RESUMING keep other calls off the device meanwhile.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <dmcore/error.h>

#include "base/assert.h"
#include "base/error.h"
#include "map/map.h"
#include "queue/drain.h"
#include "queue/queue.h"

/* Longest wait of those who quiesce: they have no deadline of the caller's. */
#define QUIESCE_NS UINT64_C(10000000000)

void dmcore__device_set_state(struct dmcore_device *device, enum dmcore__device_state state)
{
	/* To which states one may go from each: a bit for each. */
	static const uint32_t legal[DMCORE__DEVICE_STATES] = {
		[DMCORE__DEVICE_SUSPENDED] =
			1u << DMCORE__DEVICE_RESUMING | 1u << DMCORE__DEVICE_REMOVED,
		[DMCORE__DEVICE_RUNNING] =
			1u << DMCORE__DEVICE_SUSPENDING | 1u << DMCORE__DEVICE_REMOVED,
		[DMCORE__DEVICE_SUSPENDING] =
			1u << DMCORE__DEVICE_SUSPENDED | 1u << DMCORE__DEVICE_RUNNING,
		[DMCORE__DEVICE_RESUMING] =
			1u << DMCORE__DEVICE_RUNNING | 1u << DMCORE__DEVICE_SUSPENDED,
	};

	DMCORE__ASSERT(state < DMCORE__DEVICE_STATES);
	DMCORE__ASSERT(legal[device->state] >> state & 1);
	device->state = state;
	device->changer = pthread_self();
	dmcore__drain_wake(device->core);
}

static bool is_changing(const struct dmcore_device *device)
{
	return device->state == DMCORE__DEVICE_SUSPENDING ||
	       device->state == DMCORE__DEVICE_RESUMING;
}

/* Whether the calling thread may wait for requests to end. */
static int check_may_wait(struct dmcore *core)
{
	if (core->control_depth > 1)
		return dmcore__error(-EDEADLK,
				     "can't wait inside a function of a target or driver");
	if (dmcore__drain_in_callback(core))
		return dmcore__error(-EDEADLK,
				     "can't wait inside a completion: post the call to another "
				     "thread, or make it between two polls");
	return 0;
}

/* Waits until no other call is changing the device. */
static int wait_settled(struct dmcore_device *device, uint64_t deadline_ns)
{
	int ret;

	if (!is_changing(device))
		return 0;
	ret = check_may_wait(device->core);
	if (ret)
		return ret;
	if (pthread_equal(device->changer, pthread_self()))
		return dmcore__error(-EDEADLK, "can't wait for the call that this one is part of");
	device->num_waiting++;
	while (is_changing(device) && ret == 0)
		ret = dmcore__drain_sleep(device->core, device->bdev->slot, deadline_ns);
	device->num_waiting--;
	if (ret)
		return dmcore__error(ret, "another call is suspending or resuming it");
	return 0;
}

static uint64_t deadline_of(const struct dmcore *core, int64_t timeout_ns)
{
	uint64_t now = timeout_ns < 0 ? 0 : dmcore__now_ns(core);

	if (timeout_ns < 0 || (uint64_t)timeout_ns > DMCORE__NO_DEADLINE - now)
		return DMCORE__NO_DEADLINE;
	return now + (uint64_t)timeout_ns;
}

/* ---- hooks ---- */

enum hook { PRESUSPEND, PRESUSPEND_UNDO, POSTSUSPEND, RESUME };

static void call_hook(struct dmcore_target *target, enum hook hook)
{
	const struct dmcore_target_type *type = target->type;
	void (*fn)(struct dmcore_target *target) = NULL;

	switch (hook) {
	case PRESUSPEND:
		fn = type->presuspend;
		break;
	case PRESUSPEND_UNDO:
		fn = type->presuspend_undo;
		break;
	case POSTSUSPEND:
		fn = type->postsuspend;
		break;
	case RESUME:
		fn = type->resume;
		break;
	}
	if (fn)
		fn(target);
}

/* Gives up the control lock, if it is held once. */
static bool lock_given_up(struct dmcore *core)
{
	if (core->control_depth != 1)
		return false;
	dmcore__unlock(core);
	return true;
}

static void call_hooks(struct dmcore_device *device, enum hook hook)
{
	struct dmcore_table *table = dmcore__device_active(device);
	bool unlocked;

	if (!table || !table->hooks)
		return;
	unlocked = lock_given_up(device->core);
	for (uint32_t i = 0; i < table->num_targets; i++)
		call_hook(dmcore__target_at(table, i), hook);
	if (unlocked)
		dmcore__lock(device->core);
}

/* The kernel's words, and the target's own behind them, if it has said why. */
static int preresume_failed(const struct dmcore_target *target, int error)
{
	char why[DMCORE_ERROR_BYTES_MAX];

	if (error > 0)
		error = -EINVAL;
	snprintf(why, sizeof(why), "%s", dmcore_error_message());
	return dmcore__error(error, "%s: preresume failed, error = %d%s%s", target->type->name,
			     error, why[0] ? ": " : "", why);
}

static int call_preresume(struct dmcore_device *device)
{
	struct dmcore_table *table = dmcore__device_active(device);
	bool unlocked;
	int ret = 0;

	if (!table->hooks)
		return 0;
	unlocked = lock_given_up(device->core);
	for (uint32_t i = 0; i < table->num_targets && ret == 0; i++) {
		struct dmcore_target *target = dmcore__target_at(table, i);

		if (!target->type->preresume)
			continue;
		dmcore__error_clear();
		ret = target->type->preresume(target);
		if (ret)
			ret = preresume_failed(target, ret);
	}
	if (unlocked)
		dmcore__lock(device->core);
	return ret;
}

bool dmcore_target_noflush(const struct dmcore_target *target)
{
	const struct dmcore_device *device = target->table->device;

	return device && atomic_load_explicit(&device->noflush, memory_order_acquire);
}

/* ---- suspend ---- */

/* Lets bios pass again; those that have waited follow with their queue's next poll, in order. */
static void open_way(struct dmcore_device *device)
{
	/* Whoever sees the table sees what belongs to it in the bdev. */
	atomic_store_explicit(&device->live, dmcore__device_active(device), memory_order_release);
	dmcore__drain_replay(device->core);
}

/* Has bios wait, and waits until none is inside. */
static int close_way(struct dmcore_device *device, uint64_t deadline_ns)
{
	struct dmcore *core = device->core;
	uint32_t slot = device->bdev->slot;
	int ret;

	atomic_store_explicit(&device->live, NULL, memory_order_relaxed);
	ret = dmcore__drain_wait(core, slot, deadline_ns);
	if (ret == -ETIMEDOUT)
		dmcore__error(ret, "%" PRIu64 " requests are still in flight",
			      dmcore__slot_inflight(core, slot));
	return ret;
}

/* Of a running device. The lock is given up meanwhile. */
static int suspend_running(struct dmcore_device *device, unsigned int flags, uint64_t deadline_ns)
{
	int ret;

	dmcore__device_set_state(device, DMCORE__DEVICE_SUSPENDING);
	atomic_store_explicit(&device->noflush, (flags & DMCORE_SUSPEND_NOFLUSH) != 0,
			      memory_order_release);
	call_hooks(device, PRESUSPEND);
	ret = close_way(device, deadline_ns);
	/* First: whoever sees that noflush is over sees why. */
	if (ret)
		atomic_fetch_add(&device->num_given_up, 1);
	atomic_store_explicit(&device->noflush, false, memory_order_release);
	if (ret)
		open_way(device);
	call_hooks(device, ret ? PRESUSPEND_UNDO : POSTSUSPEND);
	dmcore__device_set_state(device, ret ? DMCORE__DEVICE_RUNNING : DMCORE__DEVICE_SUSPENDED);
	return ret;
}

static int suspend(struct dmcore_device *device, unsigned int flags, uint64_t deadline_ns)
{
	int ret = wait_settled(device, deadline_ns);

	if (ret || device->state == DMCORE__DEVICE_SUSPENDED)
		return ret;
	ret = check_may_wait(device->core);
	return ret ? ret : suspend_running(device, flags, deadline_ns);
}

int dmcore_device_suspend(struct dmcore_device *device, unsigned int flags, int64_t timeout_ns)
{
	int ret;

	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	if (flags & ~DMCORE_SUSPEND_NOFLUSH)
		ret = dmcore__error(-EINVAL, "unknown flag in 0x%x", flags);
	else
		ret = suspend(device, flags, deadline_of(device->core, timeout_ns));
	if (ret)
		dmcore__error_prefix(ret, "%s", device->bdev->name);
	dmcore__unlock(device->core);
	return ret;
}

int dmcore__device_quiesce(struct dmcore_device *device)
{
	uint64_t deadline_ns = deadline_of(device->core, QUIESCE_NS);
	int ret = wait_settled(device, deadline_ns);

	if (ret || device->state == DMCORE__DEVICE_SUSPENDED)
		return ret;
	ret = check_may_wait(device->core);
	if (ret)
		return ret;
	dmcore__device_set_state(device, DMCORE__DEVICE_SUSPENDING);
	ret = close_way(device, deadline_ns);
	if (ret)
		dmcore__device_unquiesce(device);
	return ret;
}

void dmcore__device_unquiesce(struct dmcore_device *device)
{
	if (device->state != DMCORE__DEVICE_SUSPENDING)
		return;
	open_way(device);
	dmcore__device_set_state(device, DMCORE__DEVICE_RUNNING);
}

void dmcore__device_run_down(struct dmcore_device *device)
{
	if (device->state != DMCORE__DEVICE_RUNNING)
		return;
	call_hooks(device, PRESUSPEND);
	atomic_store_explicit(&device->live, NULL, memory_order_relaxed);
	call_hooks(device, POSTSUSPEND);
}

/* ---- resume ---- */

/* Whether the inactive table can go live, over the devices below as they now are. */
static int check_inactive(struct dmcore_device *device)
{
	struct dmcore_table *table = device->inactive;
	int ret = dmcore__table_check_areas(table);

	if (ret)
		return dmcore__error_prefix(ret, "table line %u", table->failed_target + 1);
	return dmcore__table_measure(table);
}

/*
 * What others see of the device. Blocks and maxima of a table without devices are those of the one
 * before, as in the kernel; what it can do is its own.
 */
static void publish_limits(struct dmcore_device *device, const struct dmcore_table *table,
			   bool first)
{
	struct dmcore_bdev *bdev = device->bdev;
	struct dmcore_limits limits = table->limits;

	if (table->num_devices == 0 && !first) {
		limits = bdev->limits;
		limits.caps = table->limits.caps;
		limits.discard_granularity_bytes = table->limits.discard_granularity_bytes;
		limits.max_discard_sectors = table->limits.max_discard_sectors;
		limits.max_write_zeroes_sectors = table->limits.max_write_zeroes_sectors;
	}
	dmcore__bdev_apply_limits(bdev, &limits);
	dmcore__bdev_set_read_only(bdev, device->read_only ||
						 (table->flags & DMCORE_TABLE_READ_ONLY));
	dmcore_bdev_set_size(bdev, table->size_sectors);
}

int dmcore__device_swap(struct dmcore_device *device, struct dmcore_table **old)
{
	struct dmcore_table *table = device->inactive;
	int ret;

	*old = NULL;
	if (device->state != DMCORE__DEVICE_SUSPENDED || !table)
		return dmcore__error(-EINVAL, "not suspended, or no table to swap in");
	ret = check_inactive(device);
	if (ret == 0)
		ret = dmcore__device_set_depth(device,
					       table->frame_bytes +
						       dmcore__stats_frame_bytes(device),
					       table->depth);
	if (ret)
		return ret;
	*old = dmcore__device_active(device);
	publish_limits(device, table, !*old);
	atomic_store_explicit(&device->active, table, memory_order_relaxed);
	device->inactive = NULL;
	return 0;
}

/* Of a suspended device with a table. */
static int start(struct dmcore_device *device)
{
	int ret;

	dmcore__device_set_state(device, DMCORE__DEVICE_RESUMING);
	ret = call_preresume(device);
	if (ret == 0) {
		call_hooks(device, RESUME);
		open_way(device);
	}
	dmcore__device_set_state(device, ret ? DMCORE__DEVICE_SUSPENDED : DMCORE__DEVICE_RUNNING);
	return ret;
}

/* Suspends a running device for a swap that is likely to work. */
static int suspend_for_swap(struct dmcore_device *device)
{
	int ret = check_inactive(device);

	if (ret || device->state != DMCORE__DEVICE_RUNNING)
		return ret;
	ret = check_may_wait(device->core);
	return ret ? ret : suspend_running(device, 0, DMCORE__NO_DEADLINE);
}

/* After a swap that has failed: what ran before runs on. Returns that error, with its message. */
static int run_on(struct dmcore_device *device, int error)
{
	char why[DMCORE_ERROR_BYTES_MAX];

	snprintf(why, sizeof(why), "%s", dmcore_error_message());
	start(device);
	return dmcore__error(error, "%s", why);
}

static int resume(struct dmcore_device *device)
{
	struct dmcore_table *old = NULL;
	bool ran;
	int swapped = 0;
	int ret = wait_settled(device, DMCORE__NO_DEADLINE);

	if (ret)
		return ret;
	ran = device->state == DMCORE__DEVICE_RUNNING;
	if (device->inactive)
		ret = suspend_for_swap(device);
	else if (!dmcore__device_active(device))
		ret = dmcore__error(-EINVAL, "no table is loaded");
	else if (ran)
		return 0;
	if (ret)
		return ret;
	/* With the lock given up meanwhile, it may be another one, or none. */
	if (device->inactive)
		swapped = dmcore__device_swap(device, &old);
	if (swapped)
		return ran ? run_on(device, swapped) : swapped;
	ret = start(device);
	if (old)
		dmcore__table_destroy(old);
	return ret;
}

int dmcore__device_resume(struct dmcore_device *device)
{
	int ret = resume(device);

	return ret ? dmcore__error_prefix(ret, "%s", device->bdev->name) : 0;
}

int dmcore_device_resume(struct dmcore_device *device)
{
	int ret;

	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = dmcore__device_resume(device);
	dmcore__unlock(device->core);
	return ret;
}
