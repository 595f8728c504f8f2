/* SPDX-License-Identifier: MIT */
/* What a power cut may leave of a snapshot and its origin; see simsnap.h. */
#include "simsnap.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

static void judge(struct simsnap *snap, const struct simsnap_expected *expected,
		  unsigned int depth);

void simsnap_note(struct simsnap *snap, const char *format, ...)
{
	va_list args;
	int at;

	if (snap->num_broken++)
		return;
	va_start(args, format);
	at = vsnprintf(snap->broken, sizeof(snap->broken), format, args);
	va_end(args);
	if (!snap->states || at < 0 || (size_t)at + 2 >= sizeof(snap->broken))
		return;
	memcpy(snap->broken + at, ": ", 3);
	dmcore_sim_states_text(snap->states, snap->broken + at + 2,
			       sizeof(snap->broken) - (size_t)at - 2);
}

/* ---- contents ---- */

void simsnap_expect(const struct simsnap *snap, const struct simsnap_promise *promise,
		    struct simsnap_expected *expected)
{
	memset(expected->base, 0, sizeof(expected->base));
	memset(expected->first, 1, sizeof(expected->first));
	memcpy(expected->latest, snap->latest, sizeof(expected->latest));
	expected->promise = *promise;
}

static bool is_allowed(const struct simsnap_expected *expected, enum simsnap_side side,
		       uint64_t sector, int version)
{
	uint8_t oldest = expected->promise.oldest[side][sector];

	if (version == expected->base[side][sector])
		return oldest == 0;
	return version >= oldest && version >= expected->first[side][sector] &&
	       version <= expected->latest[side][sector];
}

bool simsnap_look(struct simsnap *snap, enum simsnap_side side,
		  const struct simsnap_expected *expected, uint8_t *seen)
{
	static unsigned char data[SIMSNAP_SECTORS_MAX * 512];
	const unsigned char *bytes = data;

	/* The origin needs no device to be looked at. */
	if (side == SIMSNAP_ORIGIN)
		bytes = simsnap_disk(snap, SIMSNAP_ORIGIN);
	else if (dmcore_pread(dmcore_device_bdev(snap->devices[side]), data,
			      snap->num_sectors * 512, 0)) {
		simsnap_note(snap, "the snapshot can't be read");
		return false;
	}
	for (uint64_t i = 0; i < snap->num_sectors; i++) {
		int version = simsnap_version(side, i, bytes + i * 512);

		if (!is_allowed(expected, side, i, version)) {
			simsnap_note(snap, "%s, sector %u: version %d, promised %u",
				     side == SIMSNAP_ORIGIN ? "origin" : "snapshot",
				     (unsigned int)i, version,
				     expected->promise.oldest[side][i]);
			return false;
		}
		seen[i] = (uint8_t)version;
	}
	return true;
}

/* ---- the COW device ---- */

static bool check_entry(struct simsnap *snap, const struct dmcore_cow_entry *entry, uint32_t nr)
{
	static uint64_t old_chunks[SIMSNAP_COW_SECTORS_MAX];
	uint32_t chunk_sectors = snap->options.chunk_sectors;
	uint32_t in_area = dmcore_cow_area_entries(chunk_sectors);
	/* Placed as they were given out, they leave no gap whatever a cut takes away. */
	uint64_t place = dmcore_cow_area_chunk(chunk_sectors, nr / in_area) + 1 + nr % in_area;

	if (entry->old_chunk >= snap->options.origin_chunks || entry->new_chunk != place ||
	    (place + 1) * chunk_sectors > snap->options.cow_sectors)
		goto wrong;
	for (uint32_t i = 0; i < nr; i++) {
		if (old_chunks[i] == entry->old_chunk)
			goto wrong;
	}
	old_chunks[nr] = entry->old_chunk;
	return true;
wrong:
	simsnap_note(snap, "entry %u: %" PRIu64 " in %" PRIu64, nr, entry->old_chunk,
		     entry->new_chunk);
	return false;
}

static bool check_header(struct simsnap *snap)
{
	struct dmcore_cow_header header;

	if (dmcore_cow_header_decode(simsnap_disk(snap, SIMSNAP_SNAPSHOT), &header) ==
		    DMCORE_COW_GOOD &&
	    header.chunk_sectors == snap->options.chunk_sectors)
		return true;
	simsnap_note(snap, "no header");
	return false;
}

bool simsnap_check_cow(struct simsnap *snap, uint32_t exceptions_max, uint32_t *count,
		       uint64_t *next_free)
{
	const unsigned char *cow = simsnap_disk(snap, SIMSNAP_SNAPSHOT);
	uint32_t chunk_sectors = snap->options.chunk_sectors;
	uint32_t in_area = dmcore_cow_area_entries(chunk_sectors);

	*count = 0;
	*next_free = DMCORE_COW_FIRST_DATA_CHUNK;
	if (!check_header(snap))
		return false;
	for (;;) {
		uint64_t area = dmcore_cow_area_chunk(chunk_sectors, *count / in_area);
		uint64_t at = area * chunk_sectors * 512 + *count % in_area * 16;
		struct dmcore_cow_entry entry;

		if (at + 16 > snap->options.cow_sectors * 512)
			break;
		dmcore_cow_entry_decode(cow + at, &entry);
		if (entry.new_chunk == 0)
			break;
		if (!check_entry(snap, &entry, *count))
			return false;
		if (entry.new_chunk >= *next_free)
			*next_free = entry.new_chunk + 1;
		(*count)++;
	}
	if (dmcore_cow_is_metadata(chunk_sectors, *next_free))
		(*next_free)++;
	if (*count > exceptions_max)
		simsnap_note(snap, "%u exceptions of %u", *count, exceptions_max);
	return *count <= exceptions_max;
}

/* After an activation status says what the COW device holds: no chunk is lost. */
static bool check_status(struct simsnap *snap, uint32_t exceptions_max, uint32_t *count,
			 uint64_t *next_free)
{
	uint32_t chunk_sectors = snap->options.chunk_sectors;
	char want[80];
	char is[80];

	if (!simsnap_check_cow(snap, exceptions_max, count, next_free))
		return false;
	simsnap_status(snap, is, sizeof(is));
	snprintf(want, sizeof(want), "%u/%u %u", (unsigned int)*next_free * chunk_sectors,
		 snap->options.cow_sectors,
		 (*count / dmcore_cow_area_entries(chunk_sectors) + 2) * chunk_sectors);
	if (strcmp(is, want) != 0)
		simsnap_note(snap, "status is %s, not %s", is, want);
	return strcmp(is, want) == 0;
}

/* ---- one more write ---- */

/* For the chunks, and for the area behind the one that they may fill. */
static bool has_room(const struct simsnap *snap, uint32_t count, uint64_t next_free)
{
	uint32_t chunk_sectors = snap->options.chunk_sectors;
	uint32_t in_area = dmcore_cow_area_entries(chunk_sectors);
	uint64_t area = dmcore_cow_area_chunk(chunk_sectors,
					      (count + snap->options.probes) / in_area);
	/* One of the chunks may be passed over. */
	uint64_t last = next_free + snap->options.probes;

	if (last < area)
		last = area;
	return (last + 1) * chunk_sectors <= snap->options.cow_sectors;
}

/* Writes to one side or the other, where nobody has; what is to be there then is `seen`. */
static void probe(struct simsnap *snap, uint8_t seen[][SIMSNAP_SECTORS_MAX], unsigned int depth,
		  bool has_room, struct simsnap_expected *later)
{
	enum simsnap_side side = (enum simsnap_side)(snap->num_states % 2);
	uint64_t sector = snap->num_sectors - 1;
	uint8_t version = (uint8_t)(SIMSNAP_PROBE + depth);
	struct dmcore_bdev *bdev;
	unsigned char data[512];

	memcpy(later->base, seen, sizeof(later->base));
	memset(later->first, version, sizeof(later->first));
	memcpy(later->latest, seen, sizeof(later->latest));
	memset(&later->promise, 0, sizeof(later->promise));
	if (!has_room)
		return;
	if (side == SIMSNAP_ORIGIN) {
		sector -= snap->options.chunk_sectors * snap->options.probes;
		cr_assert_eq(simsnap_activate_as(snap, SIMSNAP_ORIGIN, "snapshot-origin"), 0);
	}
	bdev = dmcore_device_bdev(snap->devices[side]);
	for (uint32_t i = 0; i < snap->options.probes; i++) {
		later->latest[side][sector] = version;
		seen[side][sector] = version;
		simsnap_fill(data, side, sector, version);
		cr_assert_eq(dmcore_pwrite(bdev, data, 512, sector * 512), 0);
		sector -= snap->options.chunk_sectors;
	}
	cr_assert_eq(dmcore_flush(bdev), 0);
	cr_assert_eq(dmcore_sim_mark(snap->world.sim, 1), 0);
}

/* ---- states ---- */

/* What is there is the same as before, but for what the probes have written. */
static bool look_again(struct simsnap *snap, uint8_t seen[][SIMSNAP_SECTORS_MAX],
		       uint32_t exceptions_max, const char *when)
{
	static struct simsnap_expected exact;
	uint8_t dropped[SIMSNAP_SECTORS_MAX];
	uint64_t num_broken = snap->num_broken;
	uint64_t next_free;
	uint32_t count;

	memcpy(exact.base, seen, sizeof(exact.base));
	memset(exact.first, 1, sizeof(exact.first));
	memset(exact.latest, 0, sizeof(exact.latest));
	if (simsnap_look(snap, SIMSNAP_SNAPSHOT, &exact, dropped) &&
	    simsnap_look(snap, SIMSNAP_ORIGIN, &exact, dropped) &&
	    check_status(snap, exceptions_max, &count, &next_free))
		return true;
	if (num_broken == 0) {
		size_t at = strlen(snap->broken);

		snprintf(snap->broken + at, sizeof(snap->broken) - at, ", %s", when);
	}
	return false;
}

/* The flush of what was probed has ended. */
static void promise_probes(const struct simsnap *snap, struct simsnap_expected *expected)
{
	for (unsigned int side = 0; side < SIMSNAP_SIDES; side++) {
		for (uint64_t i = 0; i < snap->num_sectors; i++) {
			if (expected->latest[side][i] == expected->first[side][i])
				expected->promise.oldest[side][i] = expected->first[side][i];
		}
	}
}

/* All states of what was recorded of the judge's own work. */
static void judge_inner(struct simsnap *snap, struct simsnap_expected *later, unsigned int depth)
{
	const struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.states_per_cut = 64,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *outer = snap->states;
	struct simsnap_expected expected;

	cr_assert_eq(dmcore_sim_states_open(snap->world.sim, &options, &snap->states), 0, "%s",
		     dmcore_error_message());
	while (dmcore_sim_states_next(snap->states) == 1) {
		cr_assert_eq(dmcore_sim_states_info(snap->states, &state), 0);
		expected = *later;
		if (state.num_marks)
			promise_probes(snap, &expected);
		judge(snap, &expected, depth);
	}
	cr_assert_eq(dmcore_sim_states_close(snap->states), 0);
	snap->states = outer;
}

static void judge_invalid(struct simsnap *snap, const struct simsnap_expected *expected)
{
	uint8_t seen[SIMSNAP_SECTORS_MAX];

	snap->num_invalid++;
	if (!expected->promise.may_be_invalid)
		simsnap_note(snap, "invalid");
	check_header(snap);
	simsnap_look(snap, SIMSNAP_ORIGIN, expected, seen);
	simsnap_deactivate(snap);
}

/* `depth`: cuts of what is done here. */
static void judge(struct simsnap *snap, const struct simsnap_expected *expected,
		  unsigned int depth)
{
	uint8_t seen[SIMSNAP_SIDES][SIMSNAP_SECTORS_MAX] = { { 0 } };
	struct simsnap_expected later;
	uint64_t next_free;
	uint32_t count;

	snap->num_states++;
	if (depth)
		cr_assert_eq(dmcore_sim_record(snap->world.sim), 0);
	if (simsnap_activate_as(snap, SIMSNAP_SNAPSHOT, "snapshot")) {
		simsnap_note(snap, "activation: %s", dmcore_error_message());
		return;
	}
	if (simsnap_is_invalid(snap)) {
		judge_invalid(snap, expected);
		return;
	}
	if (expected->promise.must_be_invalid)
		simsnap_note(snap, "valid again");
	if (!simsnap_look(snap, SIMSNAP_SNAPSHOT, expected, seen[SIMSNAP_SNAPSHOT]) ||
	    !simsnap_look(snap, SIMSNAP_ORIGIN, expected, seen[SIMSNAP_ORIGIN]) ||
	    !check_status(snap, expected->promise.exceptions_max, &count, &next_free)) {
		simsnap_deactivate(snap);
		return;
	}
	probe(snap, seen, depth, has_room(snap, count, next_free), &later);
	later.promise.exceptions_max = count + snap->options.probes;
	simsnap_deactivate(snap);
	if (simsnap_activate_as(snap, SIMSNAP_SNAPSHOT, "snapshot")) {
		simsnap_note(snap, "second activation: %s", dmcore_error_message());
		return;
	}
	if (simsnap_is_invalid(snap))
		simsnap_note(snap, "invalid after more writes");
	else
		look_again(snap, seen, count + snap->options.probes, "after more writes");
	simsnap_deactivate(snap);
	if (depth && snap->num_broken == 0)
		judge_inner(snap, &later, depth - 1);
}

void simsnap_judge_now(struct simsnap *snap, const struct simsnap_promise *promise)
{
	static struct simsnap_expected expected;

	simsnap_expect(snap, promise, &expected);
	judge(snap, &expected, 0);
}

/* ---- all of them ---- */

void simsnap_remember(struct simsnap *snap, uint64_t *hashes, uint64_t num_hashes)
{
	snap->hashes = hashes;
	snap->num_hashes = num_hashes;
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
	const unsigned char *at = bytes;

	for (; count >= 8; count -= 8, at += 8) {
		uint64_t word;

		memcpy(&word, at, 8);
		hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
	}
	return hash;
}

/* Whether the same was judged with the same promises; if not, it is remembered. */
static bool is_known(struct simsnap *snap, const struct simsnap_promise *promise)
{
	uint64_t hash = 1;

	if (!snap->hashes)
		return false;
	hash = mix(hash, simsnap_disk(snap, SIMSNAP_ORIGIN), snap->num_sectors * 512);
	hash = mix(hash, simsnap_disk(snap, SIMSNAP_SNAPSHOT), snap->options.cow_sectors * 512);
	hash = mix(hash, promise->oldest, sizeof(promise->oldest));
	hash = mix(hash, &(uint64_t){ promise->exceptions_max }, 8);
	hash = mix(hash, &(uint64_t){ promise->may_be_invalid + 2u * promise->must_be_invalid },
		   8);
	hash += hash == 0;
	for (uint64_t i = hash; ; i++) {
		uint64_t *at = &snap->hashes[i & (snap->num_hashes - 1)];

		if (*at == hash)
			return true;
		if (*at == 0) {
			*at = hash;
			return false;
		}
	}
}

void simsnap_judge(struct simsnap *snap, enum dmcore_sim_cuts cuts, uint32_t per_cut,
		   unsigned int depth)
{
	struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = cuts,
		.states_per_cut = per_cut,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	static struct simsnap_expected expected;
	int ret;

	cr_assert_eq(dmcore_sim_states_open(snap->world.sim, &options, &snap->states), 0, "%s",
		     dmcore_error_message());
	while ((ret = dmcore_sim_states_next(snap->states)) == 1) {
		const struct simsnap_promise *promise;

		cr_assert_eq(dmcore_sim_states_info(snap->states, &state), 0);
		promise = &snap->at_mark[state.mark];
		if (is_known(snap, promise))
			continue;
		simsnap_expect(snap, promise, &expected);
		judge(snap, &expected, depth);
	}
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_states_close(snap->states), 0);
	snap->states = NULL;
}
