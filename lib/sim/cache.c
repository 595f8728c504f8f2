/* SPDX-License-Identifier: MIT */
/*
 * What a simulated disk holds: durable content, what reads see, and for each unit the versions that
 * a power cut may leave. Called by disk.c and states.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "sim/sim.h"

/* ---- memory ---- */

void *dmcore__sim_reserve(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

void dmcore__sim_unreserve(void *memory, uint64_t bytes)
{
	if (memory)
		munmap(memory, bytes);
}

/* Of a bit for each unit. */
static uint64_t bits_bytes(const struct dmcore__sim_cache *cache)
{
	return ((uint64_t)cache->num_units / 64 + 1) * sizeof(uint64_t);
}

int dmcore__sim_cache_create(struct dmcore__sim_cache *cache, uint64_t bytes, uint32_t unit_bytes,
			     uint64_t room, bool tracks)
{
	uint64_t units_bytes = bytes / unit_bytes * sizeof(uint32_t);

	memset(cache, 0, sizeof(*cache));
	cache->unit_bytes = unit_bytes;
	cache->num_units = (uint32_t)(bytes / unit_bytes);
	cache->room = (uint32_t)room;
	cache->tracks = tracks;
	cache->base = dmcore__sim_reserve(bytes);
	cache->image = dmcore__sim_reserve(bytes);
	cache->heads = dmcore__sim_reserve(units_bytes);
	cache->places = dmcore__sim_reserve(units_bytes);
	cache->dirty = dmcore__sim_reserve(units_bytes);
	cache->versions = dmcore__sim_reserve((room + 1) * sizeof(*cache->versions));
	cache->data = dmcore__sim_reserve((room + 1) * unit_bytes);
	cache->writes = dmcore__sim_reserve(room * sizeof(*cache->writes));
	cache->touched = dmcore__sim_reserve(units_bytes);
	cache->touched_bits = dmcore__sim_reserve(bits_bytes(cache));
	cache->data_bits = dmcore__sim_reserve(bits_bytes(cache));
	if (cache->base && cache->image && cache->heads && cache->places && cache->dirty &&
	    cache->versions && cache->data && cache->writes && cache->touched &&
	    cache->touched_bits && cache->data_bits)
		return 0;
	dmcore__sim_cache_destroy(cache);
	return -ENOMEM;
}

void dmcore__sim_cache_destroy(struct dmcore__sim_cache *cache)
{
	uint64_t bytes = (uint64_t)cache->num_units * cache->unit_bytes;
	uint64_t units_bytes = (uint64_t)cache->num_units * sizeof(uint32_t);
	uint64_t room = cache->room;

	dmcore__sim_unreserve(cache->base, bytes);
	dmcore__sim_unreserve(cache->image, bytes);
	dmcore__sim_unreserve(cache->heads, units_bytes);
	dmcore__sim_unreserve(cache->places, units_bytes);
	dmcore__sim_unreserve(cache->dirty, units_bytes);
	dmcore__sim_unreserve(cache->versions, (room + 1) * sizeof(*cache->versions));
	dmcore__sim_unreserve(cache->data, (room + 1) * cache->unit_bytes);
	dmcore__sim_unreserve(cache->writes, room * sizeof(*cache->writes));
	dmcore__sim_unreserve(cache->touched, units_bytes);
	dmcore__sim_unreserve(cache->touched_bits, bits_bytes(cache));
	dmcore__sim_unreserve(cache->data_bits, bits_bytes(cache));
	memset(cache, 0, sizeof(*cache));
}

void dmcore__sim_cache_fill(struct dmcore__sim_cache *cache, const unsigned char *content)
{
	static const unsigned char zeroes[4096];
	uint64_t bytes = (uint64_t)cache->num_units * cache->unit_bytes;

	for (uint64_t at = 0; at < bytes; at += sizeof(zeroes)) {
		uint64_t part = dmcore__min_u64(bytes - at, sizeof(zeroes));

		if (memcmp(content + at, zeroes, part) == 0)
			continue;
		memcpy(cache->base + at, content + at, part);
		memcpy(cache->image + at, content + at, part);
		for (uint64_t unit = at / cache->unit_bytes; unit * cache->unit_bytes < at + part;
		     unit++)
			dmcore__sim_unit_note(cache, (uint32_t)unit);
	}
}

/* ---- the lists of versions ---- */

static void touch(struct dmcore__sim_cache *cache, uint32_t unit)
{
	uint64_t bit = UINT64_C(1) << unit % 64;

	if (cache->touched_bits[unit / 64] & bit)
		return;
	cache->touched_bits[unit / 64] |= bit;
	cache->touched[cache->num_touched++] = unit;
}

static void make_dirty(struct dmcore__sim_cache *cache, uint32_t unit)
{
	cache->dirty[cache->num_dirty++] = unit;
	cache->places[unit] = cache->num_dirty;
}

static void make_clean(struct dmcore__sim_cache *cache, uint32_t unit)
{
	uint32_t place = cache->places[unit];
	uint32_t last = cache->dirty[--cache->num_dirty];

	cache->dirty[place - 1] = last;
	cache->places[last] = place;
	cache->places[unit] = 0;
}

static void copy_unit(const struct dmcore__sim_cache *cache, unsigned char *to, uint32_t unit,
		      const unsigned char *content)
{
	unsigned char *at = to + (uint64_t)unit * cache->unit_bytes;

	/* The base may be left as it is. */
	if (at != content)
		memcpy(at, content, cache->unit_bytes);
}

static struct dmcore__sim_write *write_at(struct dmcore__sim_cache *cache, uint32_t nth)
{
	uint64_t index = (uint64_t)cache->first_write + nth;

	return &cache->writes[index < cache->room ? index : index - cache->room];
}

/* Makes a durable write's unit the base, and drops what had ended before it. */
static void fold_unit(struct dmcore__sim_cache *cache, const struct dmcore__sim_write *durable,
		      uint32_t unit, uint32_t version)
{
	uint32_t *link = &cache->heads[unit];
	bool found = false;

	for (uint32_t v = *link; v && !found; v = cache->versions[v].older)
		found = v == version;
	if (!found)
		return;
	copy_unit(cache, cache->base, unit, dmcore__sim_content(cache, unit, version));
	while (*link) {
		uint32_t v = *link;
		struct dmcore__sim_write *write = &cache->writes[cache->versions[v].write];

		if (write->end_nr <= durable->end_nr) {
			*link = cache->versions[v].older;
			write->num_live--;
		} else {
			link = &cache->versions[v].older;
		}
	}
	if (!cache->heads[unit])
		make_clean(cache, unit);
}

/* How many units of the write from the `first` on have it as their only version. */
static uint32_t num_alone(const struct dmcore__sim_cache *cache,
			  const struct dmcore__sim_write *write, uint32_t first)
{
	uint32_t i = first;

	while (i < write->num_units &&
	       cache->heads[write->first_unit + i] == write->first_version + i &&
	       cache->versions[write->first_version + i].older == 0)
		i++;
	return i - first;
}

static void fold(struct dmcore__sim_cache *cache, struct dmcore__sim_write *write)
{
	uint32_t i = 0;

	while (i < write->num_units && write->num_live) {
		uint32_t unit = write->first_unit + i;
		uint32_t num = num_alone(cache, write, i);

		if (num == 0) {
			fold_unit(cache, write, unit, write->first_version + i);
			i++;
			continue;
		}
		/* Most of the time: all of them at once. */
		memcpy(cache->base + (uint64_t)unit * cache->unit_bytes,
		       dmcore__sim_content(cache, unit, write->first_version + i),
		       (uint64_t)num * cache->unit_bytes);
		write->num_live -= num;
		for (i += num; num; num--, unit++) {
			cache->heads[unit] = 0;
			make_clean(cache, unit);
		}
	}
}

static bool is_settled(const struct dmcore__sim_write *write)
{
	return write->failed || write->durable_nr != DMCORE__SIM_NEVER;
}

/* Takes away the oldest writes as far as nothing needs them. */
static void release(struct dmcore__sim_cache *cache)
{
	while (cache->num_writes) {
		struct dmcore__sim_write *write = write_at(cache, 0);

		if (write->end_nr == DMCORE__SIM_NEVER || write->num_live)
			break;
		cache->num_versions -= write->num_taken;
		cache->num_writes--;
		cache->num_settled -= cache->num_settled > 0;
		if (++cache->first_write == cache->room)
			cache->first_write = 0;
	}
	if (cache->num_writes == 0) {
		cache->first_write = 0;
		cache->next_version = 0;
		cache->num_versions = 0;
	}
	while (cache->num_settled < cache->num_writes &&
	       is_settled(write_at(cache, cache->num_settled)))
		cache->num_settled++;
}

void dmcore__sim_cache_fold(struct dmcore__sim_cache *cache)
{
	cache->keeps = false;
	for (uint32_t i = 0; i < cache->num_writes; i++) {
		if (write_at(cache, i)->durable_nr != DMCORE__SIM_NEVER)
			fold(cache, write_at(cache, i));
	}
	release(cache);
}

/* The disk writes back what is oldest; a history is lost by that. False: it is in flight. */
static bool write_back(struct dmcore__sim_cache *cache, uint64_t nr)
{
	struct dmcore__sim_write *oldest = write_at(cache, 0);

	if (cache->num_writes == 0 || oldest->end_nr == DMCORE__SIM_NEVER)
		return false;
	if (cache->keeps) {
		cache->overflowed = true;
		dmcore__sim_cache_fold(cache);
		return true;
	}
	if (oldest->durable_nr == DMCORE__SIM_NEVER)
		oldest->durable_nr = nr;
	fold(cache, oldest);
	release(cache);
	return true;
}

/* How many versions a write takes: they stand in a row. */
static uint32_t to_be_taken(const struct dmcore__sim_cache *cache, uint32_t num_units)
{
	uint32_t left = cache->room - cache->next_version;

	return left < num_units ? left + num_units : num_units;
}

/* ---- writes ---- */

static bool have_room(const struct dmcore__sim_cache *cache, uint32_t num_units)
{
	return (uint64_t)cache->num_versions + to_be_taken(cache, num_units) <= cache->room;
}

/* Takes a write and its versions; there is room. */
static struct dmcore__sim_write *take_write(struct dmcore__sim_cache *cache, uint32_t num_units)
{
	struct dmcore__sim_write *write = write_at(cache, cache->num_writes);

	write->num_taken = to_be_taken(cache, num_units);
	if (write->num_taken > num_units)
		cache->next_version = 0;
	write->first_version = cache->next_version + 1;
	write->num_units = num_units;
	write->num_live = num_units;
	cache->next_version += num_units;
	if (cache->next_version == cache->room)
		cache->next_version = 0;
	cache->num_versions += write->num_taken;
	cache->num_writes++;
	cache->num_inflight++;
	return write;
}

static unsigned char *data_of(const struct dmcore__sim_cache *cache,
			      const struct dmcore__sim_write *write)
{
	return cache->data + (uint64_t)(write->first_version - 1) * cache->unit_bytes;
}

/* Copies the units that a write covers in part from the image. */
static void fill_edges(const struct dmcore__sim_cache *cache, const struct dmcore__sim_write *write)
{
	uint64_t end_bytes = write->skip_bytes + write->len_bytes;
	uint32_t last = write->num_units - 1;
	const unsigned char *image =
		cache->image + (uint64_t)write->first_unit * cache->unit_bytes;
	uint64_t last_bytes = (uint64_t)last * cache->unit_bytes;

	if (write->skip_bytes)
		memcpy(data_of(cache, write), image, cache->unit_bytes);
	if (end_bytes % cache->unit_bytes && (last || !write->skip_bytes))
		memcpy(data_of(cache, write) + last_bytes, image + last_bytes, cache->unit_bytes);
}

int64_t dmcore__sim_write_begin(struct dmcore__sim_cache *cache, uint64_t nr, uint64_t offset_bytes,
				uint64_t len_bytes, unsigned char **data)
{
	uint64_t first_unit = offset_bytes / cache->unit_bytes;
	uint64_t num_units = (offset_bytes + len_bytes - 1) / cache->unit_bytes - first_unit + 1;
	struct dmcore__sim_write *write;

	if (num_units > cache->room)
		return -ENOBUFS;
	while (!have_room(cache, (uint32_t)num_units)) {
		if (!write_back(cache, nr))
			return -ENOBUFS;
	}
	write = take_write(cache, (uint32_t)num_units);
	write->submit_nr = nr;
	write->end_nr = DMCORE__SIM_NEVER;
	write->durable_nr = DMCORE__SIM_NEVER;
	write->first_unit = (uint32_t)first_unit;
	write->skip_bytes = (uint32_t)(offset_bytes % cache->unit_bytes);
	write->len_bytes = len_bytes;
	write->failed = false;
	write->zeroes = false;
	for (uint32_t i = 0; i < num_units; i++) {
		uint32_t unit = write->first_unit + i;
		uint32_t version = write->first_version + i;

		if (!cache->heads[unit])
			make_dirty(cache, unit);
		cache->versions[version].older = cache->heads[unit];
		cache->versions[version].write = (uint32_t)(write - cache->writes);
		cache->heads[unit] = version;
		if (cache->tracks)
			touch(cache, unit);
	}
	fill_edges(cache, write);
	*data = data_of(cache, write) + write->skip_bytes;
	return write - cache->writes;
}

void dmcore__sim_write_end(struct dmcore__sim_cache *cache, uint32_t index, uint64_t nr,
			   bool durable, bool failed)
{
	struct dmcore__sim_write *write = &cache->writes[index];

	write->end_nr = nr;
	write->failed = failed;
	cache->num_inflight--;
	memcpy(cache->image + (uint64_t)write->first_unit * cache->unit_bytes + write->skip_bytes,
	       data_of(cache, write) + write->skip_bytes, write->len_bytes);
	dmcore__sim_write_note(cache, write);
	/* Others may have ended in the same units meanwhile. */
	fill_edges(cache, write);
	if (durable && !failed) {
		write->durable_nr = nr;
		if (!cache->keeps)
			fold(cache, write);
	}
	release(cache);
}

bool dmcore__sim_cache_cover(struct dmcore__sim_cache *cache, uint64_t before_nr, uint64_t nr,
			     bool failed)
{
	bool any = false;

	for (uint32_t i = cache->num_settled; i < cache->num_writes; i++) {
		struct dmcore__sim_write *write = write_at(cache, i);

		if (write->end_nr >= before_nr || is_settled(write))
			continue;
		any = true;
		if (failed) {
			write->failed = true;
			continue;
		}
		write->durable_nr = nr;
		if (!cache->keeps)
			fold(cache, write);
	}
	release(cache);
	return any;
}

/* ---- content ---- */

void dmcore__sim_unit_set(struct dmcore__sim_cache *cache, uint32_t unit,
			  const unsigned char *content)
{
	for (uint32_t v = cache->heads[unit]; v; v = cache->versions[v].older)
		cache->writes[cache->versions[v].write].num_live--;
	if (cache->heads[unit]) {
		cache->heads[unit] = 0;
		make_clean(cache, unit);
	}
	copy_unit(cache, cache->base, unit, content);
	copy_unit(cache, cache->image, unit, content);
	dmcore__sim_unit_note(cache, unit);
}

void dmcore__sim_unit_load(struct dmcore__sim_cache *cache, uint32_t unit,
			   const unsigned char *content)
{
	if (cache->tracks)
		touch(cache, unit);
	dmcore__sim_unit_set(cache, unit, content);
}

void dmcore__sim_cache_forget(struct dmcore__sim_cache *cache)
{
	for (uint32_t i = 0; i < cache->num_dirty; i++) {
		cache->heads[cache->dirty[i]] = 0;
		cache->places[cache->dirty[i]] = 0;
	}
	cache->num_dirty = 0;
	cache->num_writes = 0;
	cache->num_inflight = 0;
	cache->num_settled = 0;
	cache->keeps = false;
	cache->overflowed = false;
	release(cache);
}

uint64_t dmcore__sim_floor(const struct dmcore__sim_cache *cache, uint32_t unit, uint64_t cut_nr)
{
	uint64_t floor_nr = 0;

	for (uint32_t v = cache->heads[unit]; v; v = cache->versions[v].older) {
		const struct dmcore__sim_write *write = dmcore__sim_write_of(cache, v);

		if (write->durable_nr <= cut_nr)
			floor_nr = dmcore__max_u64(floor_nr, write->end_nr);
	}
	return floor_nr;
}

/* The version of a unit that reads saw at a moment; 0: its base. */
static uint32_t seen_at(const struct dmcore__sim_cache *cache, uint32_t unit, uint64_t nr)
{
	uint64_t seen_nr = 0;
	uint32_t seen = 0;

	for (uint32_t v = cache->heads[unit]; v; v = cache->versions[v].older) {
		uint64_t end_nr = dmcore__sim_write_of(cache, v)->end_nr;

		if (end_nr <= nr && end_nr > seen_nr) {
			seen_nr = end_nr;
			seen = v;
		}
	}
	return seen;
}

const unsigned char *dmcore__sim_left(const struct dmcore__sim_cache *cache, uint32_t unit,
				      uint32_t version, uint64_t cut_nr)
{
	const unsigned char *content = dmcore__sim_content(cache, unit, version);
	const struct dmcore__sim_write *write;
	unsigned char *joined;
	uint64_t begin_bytes; /* of what the write has of the unit */
	uint64_t end_bytes;

	if (!version)
		return content;
	write = dmcore__sim_write_of(cache, version);
	begin_bytes = unit == write->first_unit ? write->skip_bytes : 0;
	end_bytes = write->skip_bytes + write->len_bytes -
		    (uint64_t)(unit - write->first_unit) * cache->unit_bytes;
	end_bytes = dmcore__min_u64(end_bytes, cache->unit_bytes);
	if (write->end_nr <= cut_nr || end_bytes - begin_bytes == cache->unit_bytes)
		return content;
	joined = cache->data + (uint64_t)cache->room * cache->unit_bytes;
	memcpy(joined, dmcore__sim_content(cache, unit, seen_at(cache, unit, cut_nr)),
	       cache->unit_bytes);
	memcpy(joined + begin_bytes, content + begin_bytes, end_bytes - begin_bytes);
	return joined;
}
