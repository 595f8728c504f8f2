/* SPDX-License-Identifier: MIT */
/* Changed bytes of reads and writes. Called by targets/flakey.c on the bio's queue. */
#include "targets/flakey/corrupt.h"

#include <stddef.h>

#include "base/checked.h"

void dmcore__corrupt_add(struct corruption *corruption, uint64_t at_byte, uint8_t value)
{
	unsigned int i = 0;

	/* In order of their places. */
	while (i < corruption->count && corruption->at_bytes[i] < at_byte)
		i++;
	if (i == corruption->count || corruption->at_bytes[i] != at_byte) {
		for (unsigned int k = corruption->count++; k > i; k--) {
			corruption->at_bytes[k] = corruption->at_bytes[k - 1];
			corruption->values[k] = corruption->values[k - 1];
		}
	}
	corruption->at_bytes[i] = at_byte;
	corruption->values[i] = value;
}

void dmcore__corrupt_remember(struct corruption *corruption, const struct dmcore_bio *bio)
{
	corruption->vecs = bio->vecs;
	corruption->num_vecs = bio->num_vecs;
	corruption->vec_offset_bytes = bio->vec_offset_bytes;
}

void dmcore__corrupt_apply(const struct corruption *corruption)
{
	uint64_t offset = corruption->vec_offset_bytes;
	uint64_t begin = 0; /* of the entry's data */
	unsigned int next = 0;

	for (uint32_t i = 0; i < corruption->num_vecs && next < corruption->count; i++) {
		const struct dmio_bvec *vec = &corruption->vecs[i];
		uint64_t end = begin + vec->len_bytes - offset;

		for (; next < corruption->count && corruption->at_bytes[next] < end; next++)
			((uint8_t *)vec->base)[corruption->at_bytes[next] - begin + offset] =
				corruption->values[next];
		begin = end;
		offset = 0;
	}
}

/* A free vector of the store, or NULL. */
static struct dmio_bvec *take_vector(struct corruption *corruption, struct corrupt_store *store)
{
	uint32_t taken = atomic_load_explicit(&store->taken, memory_order_relaxed);
	unsigned int index;

	do {
		if (taken == UINT32_MAX)
			return NULL;
		index = (unsigned int)__builtin_ctz(~taken);
	} while (!atomic_compare_exchange_weak_explicit(&store->taken, &taken,
							taken | UINT32_C(1) << index,
							memory_order_acquire,
							memory_order_relaxed));
	corruption->vector = (uint8_t)(index + 1);
	return store->vectors[index];
}

/* The entries that hold `bytes` of data. */
static uint32_t count_entries(const struct dmcore_bio *bio, uint64_t bytes)
{
	uint64_t held = 0;
	uint32_t i = 0;

	while (i < bio->num_vecs && held < bytes + bio->vec_offset_bytes)
		held += bio->vecs[i++].len_bytes;
	return i;
}

static uint32_t put_entry(struct dmio_bvec *vector, uint32_t count, void *base, uint64_t bytes)
{
	if (bytes == 0)
		return count;
	vector[count].base = base;
	vector[count].len_bytes = (size_t)bytes;
	return count + 1;
}

/* Copies entries, cut around the bytes that change. Returns how many it has made. */
static uint32_t fill_vector(struct corruption *corruption, struct dmio_bvec *vector,
			    uint32_t num_entries)
{
	uint64_t offset = corruption->vec_offset_bytes;
	uint64_t begin = 0;
	unsigned int next = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < num_entries; i++) {
		uint8_t *base = (uint8_t *)corruption->vecs[i].base + offset;
		uint64_t end = begin + corruption->vecs[i].len_bytes - offset;

		for (; next < corruption->count && corruption->at_bytes[next] < end; next++) {
			uint64_t before = corruption->at_bytes[next] - begin;

			count = put_entry(vector, count, base, before);
			count = put_entry(vector, count, &corruption->values[next], 1);
			base += before + 1;
			begin += before + 1;
		}
		count = put_entry(vector, count, base, end - begin);
		begin = end;
		offset = 0;
	}
	return count;
}

bool dmcore__corrupt_replace(struct corruption *corruption, struct dmcore_bio *bio,
			     struct corrupt_store *store)
{
	uint32_t num_entries = count_entries(bio, dmcore__sectors_to_bytes(bio->count));
	struct dmio_bvec *vector = corruption->own;

	if (num_entries > CORRUPT_VECTOR_ENTRIES - CORRUPT_ENTRIES_ADDED)
		return false;
	if (num_entries > CORRUPT_OWN_ENTRIES - CORRUPT_ENTRIES_ADDED)
		vector = take_vector(corruption, store);
	if (!vector)
		return false;
	dmcore__corrupt_remember(corruption, bio);
	bio->num_vecs = fill_vector(corruption, vector, num_entries);
	bio->vecs = vector;
	bio->vec_offset_bytes = 0;
	corruption->replaced = true;
	return true;
}

void dmcore__corrupt_restore(struct corruption *corruption, struct dmcore_bio *bio,
			     struct corrupt_store *store)
{
	bio->vecs = corruption->vecs;
	bio->num_vecs = corruption->num_vecs;
	bio->vec_offset_bytes = corruption->vec_offset_bytes;
	corruption->replaced = false;
	if (corruption->vector)
		atomic_fetch_and_explicit(&store->taken,
					  ~(UINT32_C(1) << (corruption->vector - 1)),
					  memory_order_release);
	corruption->vector = 0;
}
