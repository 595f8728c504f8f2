/* SPDX-License-Identifier: MIT */
/* The format of COW devices: dmcore/cow.h, byte for byte. */
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/cow.h>

/* A header of chunks of 16 sectors. */
static const unsigned char header_bytes[DMCORE_COW_HEADER_BYTES] = {
	'S', 'n', 'A', 'p', 1, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0,
};

/* It with another field. */
static enum dmcore_cow_fault decode_with(unsigned int at, uint32_t value,
					 struct dmcore_cow_header *header)
{
	unsigned char bytes[DMCORE_COW_HEADER_BYTES];

	memcpy(bytes, header_bytes, sizeof(bytes));
	dmcore_cow_store(bytes + at, value, 4);
	return dmcore_cow_header_decode(bytes, header);
}

Test(cow, numbers_are_little_endian)
{
	static const unsigned char expected[] = { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11 };
	unsigned char bytes[10] = { [8] = 0xa5, [9] = 0xa5 };

	dmcore_cow_store(bytes, UINT64_C(0x1122334455667788), 8);
	cr_assert_eq(memcmp(bytes, expected, 8), 0);
	cr_assert_eq(dmcore_cow_load(bytes, 8), UINT64_C(0x1122334455667788));
	cr_assert_eq(dmcore_cow_load(bytes, 4), UINT64_C(0x55667788));
	dmcore_cow_store(bytes, UINT64_MAX, 4);
	cr_assert_eq(dmcore_cow_load(bytes, 8), UINT64_C(0x11223344ffffffff));
	cr_assert_eq(bytes[8], 0xa5);
	/* Anywhere in memory. */
	dmcore_cow_store(bytes + 1, 0x01020304, 4);
	cr_assert_eq(dmcore_cow_load(bytes + 1, 4), UINT64_C(0x01020304));
}

Test(cow, a_header_has_its_bytes)
{
	const struct dmcore_cow_header header = { DMCORE_COW_MAGIC, 1, DMCORE_COW_VERSION, 16 };
	unsigned char bytes[DMCORE_COW_HEADER_BYTES + 1];

	memset(bytes, 0xa5, sizeof(bytes));
	dmcore_cow_header_encode(&header, bytes);
	cr_assert_eq(memcmp(bytes, header_bytes, sizeof(header_bytes)), 0);
	cr_assert_eq(bytes[DMCORE_COW_HEADER_BYTES], 0xa5);
}

Test(cow, a_header_comes_back)
{
	struct dmcore_cow_header header;

	cr_assert_eq(dmcore_cow_header_decode(header_bytes, &header), DMCORE_COW_GOOD);
	cr_assert_eq(header.magic, DMCORE_COW_MAGIC);
	cr_assert_eq(header.valid, 1);
	cr_assert_eq(header.version, DMCORE_COW_VERSION);
	cr_assert_eq(header.chunk_sectors, 16);
}

Test(cow, an_invalidated_header_is_good)
{
	struct dmcore_cow_header header;

	cr_assert_eq(decode_with(4, 0, &header), DMCORE_COW_GOOD);
	cr_assert_eq(header.valid, 0);
	cr_assert_eq(decode_with(4, 0x01000000, &header), DMCORE_COW_GOOD);
	cr_assert_eq(header.valid, 0x01000000);
}

Test(cow, without_magic_it_is_new_whatever_follows)
{
	unsigned char garbage[DMCORE_COW_HEADER_BYTES];
	struct dmcore_cow_header header;

	memset(garbage, 0xff, sizeof(garbage));
	dmcore_cow_store(garbage, 0, 4);
	cr_assert_eq(dmcore_cow_header_decode(garbage, &header), DMCORE_COW_NEW);
	cr_assert_eq(header.chunk_sectors, UINT32_MAX);
}

Test(cow, faults_are_told)
{
	struct dmcore_cow_header header;

	cr_assert_eq(decode_with(0, 0x536e4170, &header), DMCORE_COW_BAD_MAGIC);
	cr_assert_eq(decode_with(0, 1, &header), DMCORE_COW_BAD_MAGIC);
	cr_assert_eq(header.chunk_sectors, 16);
	cr_assert_eq(decode_with(8, 0, &header), DMCORE_COW_BAD_VERSION);
	cr_assert_eq(decode_with(8, 2, &header), DMCORE_COW_BAD_VERSION);
	cr_assert_eq(header.version, 2);
	cr_assert_eq(decode_with(8, 0x00010001, &header), DMCORE_COW_BAD_VERSION);
}

Test(cow, chunks_are_powers_of_two_of_less_than_two_gibibytes)
{
	struct dmcore_cow_header header;

	for (uint32_t bit = 0; bit < 32; bit++) {
		uint32_t sectors = UINT32_C(1) << bit;
		bool is_good = bit <= 21;

		cr_assert_eq(decode_with(12, sectors, &header),
			     is_good ? DMCORE_COW_GOOD : DMCORE_COW_BAD_CHUNK, "%u", sectors);
		cr_assert_eq(header.chunk_sectors, sectors);
		if (bit > 0)
			cr_assert_eq(decode_with(12, sectors + 1, &header), DMCORE_COW_BAD_CHUNK,
				     "%u", sectors + 1);
	}
	cr_assert_eq(decode_with(12, 0, &header), DMCORE_COW_BAD_CHUNK);
	cr_assert_eq(decode_with(12, DMCORE_COW_CHUNK_SECTORS_MAX, &header), DMCORE_COW_BAD_CHUNK);
	cr_assert_eq(decode_with(12, UINT32_MAX, &header), DMCORE_COW_BAD_CHUNK);
}

Test(cow, a_bad_chunk_size_comes_before_a_bad_version)
{
	const struct dmcore_cow_header bad = { DMCORE_COW_MAGIC, 1, 7, 3 };
	unsigned char bytes[DMCORE_COW_HEADER_BYTES];
	struct dmcore_cow_header header;

	dmcore_cow_header_encode(&bad, bytes);
	cr_assert_eq(dmcore_cow_header_decode(bytes, &header), DMCORE_COW_BAD_CHUNK);
}

Test(cow, an_entry_has_its_bytes)
{
	static const unsigned char expected[DMCORE_COW_ENTRY_BYTES] = {
		8, 7, 6, 5, 4, 3, 2, 1, 0xff, 0xfe, 0, 0, 0, 0, 0, 0x80,
	};
	const struct dmcore_cow_entry entry = { UINT64_C(0x0102030405060708),
						UINT64_C(0x800000000000feff) };
	unsigned char bytes[DMCORE_COW_ENTRY_BYTES + 1];
	struct dmcore_cow_entry decoded;

	memset(bytes, 0xa5, sizeof(bytes));
	dmcore_cow_entry_encode(&entry, bytes);
	cr_assert_eq(memcmp(bytes, expected, sizeof(expected)), 0);
	cr_assert_eq(bytes[DMCORE_COW_ENTRY_BYTES], 0xa5);
	dmcore_cow_entry_decode(bytes, &decoded);
	cr_assert_eq(decoded.old_chunk, entry.old_chunk);
	cr_assert_eq(decoded.new_chunk, entry.new_chunk);
}

Test(cow, areas_follow_each_other)
{
	/* The example of chunks of 4 KiB: entries in 1, 258, 515, data between these. */
	cr_assert_eq(dmcore_cow_area_entries(8), 256);
	cr_assert_eq(dmcore_cow_area_chunk(8, 0), 1);
	cr_assert_eq(dmcore_cow_area_chunk(8, 1), 258);
	cr_assert_eq(dmcore_cow_area_chunk(8, 2), 515);
	cr_assert_eq(dmcore_cow_area_entries(1), 32);
	cr_assert_eq(dmcore_cow_area_chunk(1, 1), 34);
	/* The greatest chunks: entries of 32 bits, places of more. */
	cr_assert_eq(dmcore_cow_area_entries(UINT32_C(1) << 21), UINT32_C(1) << 26);
	cr_assert_eq(dmcore_cow_area_chunk(UINT32_C(1) << 21, 1000),
		     1 + ((UINT64_C(1) << 26) + 1) * 1000);
}

Test(cow, an_area_has_a_chunk_of_data_for_each_entry)
{
	static const uint32_t sizes[] = { 1, 8, 128 };

	for (unsigned int i = 0; i < 3; i++) {
		uint64_t entries = dmcore_cow_area_entries(sizes[i]);
		uint64_t chunk = DMCORE_COW_FIRST_DATA_CHUNK;

		cr_assert(dmcore_cow_is_metadata(sizes[i], 0));
		for (uint64_t area = 0; area < 3; area++) {
			uint64_t at = dmcore_cow_area_chunk(sizes[i], area);

			cr_assert(dmcore_cow_is_metadata(sizes[i], at));
			cr_assert_eq(chunk, at + 1);
			for (; chunk <= at + entries; chunk++)
				cr_assert_not(dmcore_cow_is_metadata(sizes[i], chunk), "%u, %u",
					      sizes[i], (unsigned int)chunk);
			chunk++;
		}
	}
}
