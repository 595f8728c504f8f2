/* SPDX-License-Identifier: MIT */
/*
 * Who owns a snapshot. The first table that names its COW device does; one that is made to replace
 * that table is the heir, and takes over when it is resumed, while the owner is suspended: the
 * exceptions stay where they are, only the devices and the options are the new table's. Called by
 * the hooks of both types, on the threads of control calls; what touches the snapshot runs on the
 * service.
 */
#include <errno.h>

#include <dmcore/driver.h>

#include "base/compiler.h"
#include "targets/snapshot/origin.h"

/* A control call that the service works for. */
struct order {
	struct dmcore_call call;
	struct snapshot_waiter waiter;
	struct snapshot *snapshot;
	struct snapshot_target *own; /* who is to own it; NULL: nobody any more */
};

static struct order *of_call(struct dmcore_call *call)
{
	return dmcore__container_of(call, struct order, call);
}

static struct order *of_waiter(struct snapshot_waiter *waiter)
{
	return dmcore__container_of(waiter, struct order, waiter);
}

static int give(struct snapshot *snapshot, struct snapshot_target *own,
		void (*fn)(struct dmcore_call *call))
{
	struct order order = { .call.fn = fn, .snapshot = snapshot, .own = own };

	return dmcore_service_call(snapshot->core, &order.call);
}

/* ---- the shared object ---- */

static int create(struct dmcore *core, void *object)
{
	struct snapshot *snapshot = object;

	snapshot->core = core;
	snapshot->service = dmcore_service_queue(core);
	snapshot->last_pending = &snapshot->first_pending;
	dmcore__waiters_init(&snapshot->slot_waiters);
	dmcore__waiters_init(&snapshot->space_waiters);
	dmcore__waiters_init(&snapshot->pause_waiters);
	dmcore__waiters_init(&snapshot->idle_waiters);
	dmcore__waiters_init(&snapshot->discards);
	if (!snapshot->service)
		return -ENOMEM;
	pthread_mutex_init(&snapshot->lock, NULL);
	pthread_cond_init(&snapshot->changed, NULL);
	return 0;
}

static void destroy(struct dmcore *core, void *object)
{
	struct snapshot *snapshot = object;

	(void)core;
	pthread_cond_destroy(&snapshot->changed);
	pthread_mutex_destroy(&snapshot->lock);
}

const struct dmcore_shared_type dmcore__snapshot_shared = {
	.struct_size = sizeof(struct dmcore_shared_type),
	.bytes = sizeof(struct snapshot),
	.create = create,
	.destroy = destroy,
};

int dmcore__snapshot_join(struct snapshot_target *own, struct dmcore_args *args)
{
	struct snapshot *snapshot;
	struct snapshot *merging;
	void *object;
	int ret;

	ret = dmcore_target_share(own->target, own->origin_bdev, &dmcore__origin_shared, &object);
	if (ret)
		return dmcore_args_fail(args, ret, "Snapshot origin struct allocation failed");
	own->origin = object;
	ret = dmcore_target_share(own->target, own->cow_bdev, &dmcore__snapshot_shared, &object);
	if (ret)
		return dmcore_args_fail(args, ret, "Unable to allocate hash table space");
	snapshot = object;
	own->snapshot = snapshot;
	merging = atomic_load(&own->origin->merging);
	if (own->merges && merging && merging != snapshot)
		return dmcore_args_fail(args, -EINVAL, "A snapshot is already merging.");
	pthread_mutex_lock(&snapshot->lock);
	if (!snapshot->owner)
		snapshot->owner = own;
	else if (!snapshot->heir)
		snapshot->heir = own;
	else
		ret = -EINVAL;
	pthread_mutex_unlock(&snapshot->lock);
	return ret ? dmcore_args_fail(args, ret,
				      "Snapshot cow pairing for exception table handover failed") :
		     0;
}

/* ---- on the service ---- */

static void use_devices(struct snapshot *snapshot, struct snapshot_target *own)
{
	snapshot->used = own;
	snapshot->origin_bdev = own->origin_bdev;
	snapshot->cow_bdev = own->cow_bdev;
	snapshot->length_sectors = own->target->begin + dmcore_target_len(own->target);
	snapshot->merging = own->merges;
	atomic_store(&snapshot->unconcerned,
		     own->merges || !dmcore__snapshot_is_valid(snapshot));
	if (own->merges)
		atomic_store(&own->origin->merging, snapshot);
	else if (atomic_load(&own->origin->merging) == snapshot)
		atomic_store(&own->origin->merging, NULL);
}

static void free_memory(struct snapshot *snapshot)
{
	dmcore__carriers_destroy(snapshot);
	dmcore_free(snapshot->core, snapshot->pending_array);
	snapshot->pending_array = NULL;
	snapshot->free_pending = NULL;
	if (kcopyd_client_destroy(snapshot->kc) == 0)
		snapshot->kc = NULL;
}

static void activate(struct dmcore_call *call)
{
	struct order *order = of_call(call);
	struct snapshot *snapshot = order->snapshot;
	int ret = kcopyd_client_create(snapshot->service, SNAPSHOT_PAGES, &snapshot->kc);

	if (ret == 0)
		ret = dmcore__pending_create(snapshot);
	if (ret == 0)
		ret = dmcore__carriers_create(snapshot);
	if (ret == 0) {
		dmcore__merge_create(snapshot);
		dmcore__store_start(snapshot);
		use_devices(snapshot, order->own);
		snapshot->origin = order->own->origin;
		if (!dmcore__origin_add(snapshot->origin, snapshot))
			ret = -ENOMEM;
	}
	if (ret)
		free_memory(snapshot);
	dmcore_service_return(call, ret);
}

static void wait_until_idle(struct order *order, void (*wake)(struct snapshot_waiter *waiter))
{
	order->waiter.wake = wake;
	dmcore__waiters_add(&order->snapshot->idle_waiters, &order->waiter);
	dmcore__pending_advance_soon(order->snapshot);
}

/* The snapshot's place in the list of its old origin stays until that has let it go. */
static int change_origin(struct snapshot *snapshot, struct origin *origin)
{
	struct origin *old = snapshot->origin;
	struct snapshot *next = snapshot->next;
	struct snapshot *self = snapshot;
	struct snapshot *new_next;

	if (origin == old)
		return 0;
	if (!dmcore__origin_add(origin, snapshot))
		return -ENOMEM;
	new_next = snapshot->next;
	snapshot->next = next;
	dmcore__origin_remove(old, snapshot);
	snapshot->next = new_next;
	atomic_compare_exchange_strong(&old->merging, &self, NULL);
	snapshot->origin = origin;
	return 0;
}

static void end_handover(struct order *order, int ret)
{
	struct snapshot *snapshot = order->snapshot;

	atomic_store(&snapshot->paused, false);
	dmcore__waiters_wake_all(&snapshot->pause_waiters);
	dmcore_service_return(&order->call, ret);
}

/* Nothing is under way, and writes to the origin wait. */
static void take_over(struct snapshot_waiter *waiter)
{
	struct order *order = of_waiter(waiter);
	struct snapshot *snapshot = order->snapshot;
	int ret = change_origin(snapshot, order->own->origin);

	if (ret == 0) {
		if (snapshot->merging && !order->own->merges) {
			dmcore__store_recount(snapshot);
			atomic_store(&snapshot->merge.failed, false);
		}
		use_devices(snapshot, order->own);
	}
	end_handover(order, ret);
}

static void merge_left(struct snapshot_waiter *waiter)
{
	struct order *order = of_waiter(waiter);

	if (order->snapshot->merge.doubtful)
		end_handover(order, -EIO);
	else
		wait_until_idle(order, take_over);
}

static void hand_over(struct dmcore_call *call)
{
	struct order *order = of_call(call);

	atomic_store(&order->snapshot->paused, true);
	order->waiter.wake = merge_left;
	if (order->own->merges)
		wait_until_idle(order, take_over);
	else if (!dmcore__merge_leave(order->snapshot, &order->waiter))
		merge_left(&order->waiter);
}

static void ended(struct snapshot_waiter *waiter)
{
	struct order *order = of_waiter(waiter);
	struct snapshot *snapshot = order->snapshot;
	struct snapshot *self = snapshot;

	dmcore_timer_cancel(snapshot->service, &snapshot->store.timer);
	free_memory(snapshot);
	atomic_compare_exchange_strong(&snapshot->origin->merging, &self, NULL);
	dmcore_service_return(&order->call, 0);
}

/* The last table that could own it goes. */
static void end(struct dmcore_call *call)
{
	struct order *order = of_call(call);
	struct snapshot *snapshot = order->snapshot;

	atomic_store(&snapshot->unconcerned, true);
	dmcore__origin_remove(snapshot->origin, snapshot);
	/* Writes to the origin need it no longer. */
	dmcore__waiters_wake_all(&snapshot->pause_waiters);
	dmcore__waiters_wake_all(&snapshot->slot_waiters);
	dmcore__waiters_wake_all(&snapshot->space_waiters);
	wait_until_idle(order, ended);
}

static void committed(struct snapshot_waiter *waiter)
{
	dmcore_service_return(&of_waiter(waiter)->call, 0);
}

static void merge_stopped(struct snapshot_waiter *waiter)
{
	struct order *order = of_waiter(waiter);

	waiter->wake = committed;
	dmcore__store_wait(order->snapshot, waiter);
}

static void quiesce(struct dmcore_call *call)
{
	struct order *order = of_call(call);

	order->waiter.wake = merge_stopped;
	if (!dmcore__merge_stop(order->snapshot, &order->waiter))
		merge_stopped(&order->waiter);
}

static void let_go(struct dmcore_call *call)
{
	struct snapshot *snapshot = of_call(call)->snapshot;

	snapshot->suspending = true;
	dmcore__waiters_wake_all(&snapshot->space_waiters);
	dmcore_service_return(call, 0);
}

static void start(struct dmcore_call *call)
{
	struct snapshot *snapshot = of_call(call)->snapshot;

	snapshot->suspending = false;
	dmcore__merge_start(snapshot);
	dmcore_service_return(call, 0);
}

static void look_anew(struct dmcore_call *call)
{
	dmcore__waiters_wake_all(&of_call(call)->snapshot->space_waiters);
	dmcore_service_return(call, 0);
}

static void grown(struct dmcore_call *call)
{
	struct snapshot *snapshot = of_call(call)->snapshot;

	atomic_store(&snapshot->low_water_told, false);
	atomic_store(&snapshot->overflowed, false);
	look_anew(call);
}

/* ---- hooks ---- */

static void do_nothing(struct dmcore_call *call)
{
	dmcore_service_return(call, 0);
}

/* Takes the lock, and waits for a change of owners that is under way on another thread; but not in
 * work of the service, which that one may wait for. */
static void lock_unchanged(struct snapshot *snapshot)
{
	bool may_wait;

	pthread_mutex_lock(&snapshot->lock);
	if (!snapshot->changing)
		return;
	pthread_mutex_unlock(&snapshot->lock);
	may_wait = give(snapshot, NULL, do_nothing) == 0;
	pthread_mutex_lock(&snapshot->lock);
	while (snapshot->changing && may_wait)
		pthread_cond_wait(&snapshot->changed, &snapshot->lock);
}

static void end_change(struct snapshot *snapshot)
{
	pthread_mutex_lock(&snapshot->lock);
	snapshot->changing = false;
	pthread_cond_broadcast(&snapshot->changed);
	pthread_mutex_unlock(&snapshot->lock);
}

/* Who is resumed becomes the owner; *before: who was it. Nobody else comes or goes meanwhile. */
static int become_owner(struct snapshot_target *own, struct snapshot_target **before)
{
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_target *owner;
	const char *wrong = NULL;

	lock_unchanged(snapshot);
	owner = snapshot->owner;
	*before = owner;
	if (owner == own && snapshot->heir && snapshot->active) {
		wrong = "Unable to resume snapshot source until handover completes.";
	} else if (owner != own && owner->running) {
		wrong = "Unable to perform snapshot handover until source is suspended.";
	} else if (owner != own) {
		atomic_store(&owner->lost, true);
		snapshot->owner = own;
		snapshot->heir = NULL;
	}
	if (!wrong)
		snapshot->changing = true;
	pthread_mutex_unlock(&snapshot->lock);
	return wrong ? dmcore_target_fail(own->target, -EINVAL, "%s", wrong) : 0;
}

/* Of a handover that has failed: the snapshot is whose it was. */
static void give_back(struct snapshot_target *own, struct snapshot_target *before)
{
	struct snapshot *snapshot = own->snapshot;

	pthread_mutex_lock(&snapshot->lock);
	atomic_store(&before->lost, false);
	snapshot->owner = before;
	snapshot->heir = own;
	pthread_mutex_unlock(&snapshot->lock);
}

static int load_and_activate(struct snapshot_target *own)
{
	struct snapshot *snapshot = own->snapshot;
	int ret = dmcore__snapshot_load(snapshot, own);

	if (ret)
		return ret;
	ret = give(snapshot, own, activate);
	if (ret) {
		dmcore__snapshot_unload(snapshot);
		return dmcore_target_fail(own->target, ret, "Could not create kcopyd client");
	}
	snapshot->active = true;
	return 0;
}

static int check_begin(struct snapshot_target *own)
{
	if (own->target->begin % own->snapshot->chunk_sectors == 0)
		return 0;
	return dmcore_target_fail(own->target, -EINVAL,
				  "the target doesn't begin at a chunk of %u sectors",
				  own->snapshot->chunk_sectors);
}

int dmcore__snapshot_preresume(struct dmcore_target *target)
{
	struct snapshot_target *own = target->private_data;
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_target *before;
	bool is_new;
	int ret;

	if (atomic_load(&own->lost))
		return 0;
	ret = become_owner(own, &before);
	if (ret)
		return ret;
	is_new = !snapshot->active;
	if (is_new)
		ret = load_and_activate(own);
	if (ret == 0)
		ret = check_begin(own);
	if (ret == 0 && before != own)
		ret = give(snapshot, own, hand_over);
	if (ret && before != own && snapshot->active != is_new)
		give_back(own, before);
	end_change(snapshot);
	if (ret)
		return ret;
	own->target->max_io_sectors = snapshot->chunk_sectors;
	own->persistent = snapshot->store.persistent;
	atomic_store(&own->shown_chunk_sectors, snapshot->chunk_sectors);
	return 0;
}

static void set_running(struct snapshot_target *own, bool running)
{
	pthread_mutex_lock(&own->snapshot->lock);
	own->running = running;
	pthread_mutex_unlock(&own->snapshot->lock);
}

void dmcore__snapshot_resume(struct dmcore_target *target)
{
	struct snapshot_target *own = target->private_data;
	if (atomic_load(&own->lost))
		return;
	set_running(own, true);
	give(own->snapshot, own, start);
}

void dmcore__snapshot_presuspend(struct dmcore_target *target)
{
	struct snapshot_target *own = target->private_data;
	if (!atomic_load(&own->lost))
		give(own->snapshot, own, let_go);
}

void dmcore__snapshot_postsuspend(struct dmcore_target *target)
{
	struct snapshot_target *own = target->private_data;
	if (atomic_load(&own->lost))
		return;
	give(own->snapshot, own, quiesce);
	/* Writes to a merge may have gone to the origin; flushes of the snapshot that follows it
	 * don't. */
	if (own->merges && dmcore_flush(own->origin_bdev))
		dmcore_target_log(own->target, DMCORE_LOG_ERROR, "the origin can't be flushed");
	set_running(own, false);
}

void dmcore__snapshot_set_overflow(struct snapshot *snapshot, enum snapshot_overflow overflow)
{
	atomic_store(&snapshot->overflow, (int)overflow);
	give(snapshot, NULL, look_anew);
}

void dmcore__snapshot_grown(struct snapshot *snapshot)
{
	give(snapshot, NULL, grown);
}

/* The owner goes, and the snapshot to the heir, if there is one. */
static void bequeath(struct snapshot_target *own, struct snapshot_target *heir)
{
	struct snapshot *snapshot = own->snapshot;

	if (heir && give(snapshot, heir, hand_over) == 0)
		return;
	/* From work of the service it can't be waited for: better its memory is lost. */
	if (give(snapshot, NULL, end)) {
		dmcore_target_log(own->target, DMCORE_LOG_ERROR,
				  "removed from work of the service: its copies go on");
		return;
	}
	dmcore__snapshot_unload(snapshot);
	snapshot->active = false;
}

void dmcore__snapshot_leave(struct dmcore_target *target)
{
	struct snapshot_target *own = target->private_data;
	struct snapshot *snapshot = own->snapshot;
	struct snapshot_target *heir;
	bool owned;

	lock_unchanged(snapshot);
	owned = snapshot->owner == own;
	heir = snapshot->heir;
	if (owned)
		snapshot->owner = heir;
	if (owned || heir == own)
		snapshot->heir = NULL;
	owned = owned && snapshot->active;
	if (owned)
		snapshot->changing = true;
	pthread_mutex_unlock(&snapshot->lock);
	if (!owned)
		return;
	bequeath(own, heir);
	end_change(snapshot);
}
