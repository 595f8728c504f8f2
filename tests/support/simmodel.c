/* SPDX-License-Identifier: MIT */
/* What sectors may hold by the contract of the block layer; see simmodel.h. */
#include "simmodel.h"

#include <string.h>

/* ---- values --------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t value, unsigned int i)
{
	uint64_t x = value * 64 + i + 1;

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

void simmodel_fill(unsigned char *sector, uint64_t value)
{
	for (unsigned int i = 0; i < 64; i++) {
		uint64_t word = value == SIMMODEL_ZEROES ? 0 : word_of(value, i);

		for (unsigned int byte = 0; byte < 8; byte++)
			sector[i * 8 + byte] = (unsigned char)(word >> 8 * byte);
	}
}

static uint64_t load_le64(const unsigned char *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	word = __builtin_bswap64(word);
#endif
	return word;
}

/* Whether these bytes of a sector are the value's. */
static bool is_value(const unsigned char *sector, uint64_t value, uint32_t from, uint32_t to)
{
	if (value == SIMMODEL_ANYTHING)
		return true;
	for (uint32_t i = from / 8; i < to / 8; i++) {
		uint64_t word = value == SIMMODEL_ZEROES ? 0 : word_of(value, i);

		if (load_le64(sector + (size_t)i * 8) != word)
			return false;
	}
	return true;
}

/* ---- versions ------------------------------------------------------------------------------- */

void simmodel_reset(struct simmodel *model)
{
	memset(model, 0, offsetof(struct simmodel, base));
	model->num_free = SIMMODEL_VERSIONS_MAX;
}

unsigned int simmodel_add_disk(struct simmodel *model, uint32_t sectors)
{
	unsigned int disk = model->num_disks++;

	model->num_sectors[disk] = sectors;
	memset(model->base[disk], 0, sizeof(model->base[disk]));
	return disk;
}

struct simmodel_version *simmodel_begin(struct simmodel *model, unsigned int disk, uint64_t sector,
					uint64_t value, uint64_t now_nr)
{
	struct simmodel_version *version;
	uint32_t nr;

	if (model->num_free == 0)
		return NULL;
	model->num_free--;
	if (model->first_free) {
		nr = model->first_free;
		model->first_free = model->versions[nr - 1].next;
	} else {
		nr = ++model->num_fresh;
	}
	version = &model->versions[nr - 1];
	*version = (struct simmodel_version){
		.value = value,
		.begin_nr = now_nr,
		.end_nr = SIMMODEL_NEVER,
		.durable_nr = SIMMODEL_NEVER,
		.next = model->heads[disk][sector],
		.sector = (uint16_t)sector,
		.disk = (uint8_t)disk,
	};
	model->heads[disk][sector] = nr;
	return version;
}

void simmodel_end(struct simmodel_version *version, uint64_t now_nr, bool failed,
		  enum simmodel_cover cover)
{
	version->end_nr = now_nr;
	version->failed = failed;
	version->has_fua = cover == SIMMODEL_BY_ITSELF && !failed;
	if (cover != SIMMODEL_PLAIN && !failed && !version->is_uncovered)
		version->durable_nr = now_nr;
}

static uint32_t next_of(const struct simmodel *model, uint32_t nr)
{
	return model->versions[nr - 1].next;
}

static void cover(struct simmodel_version *version, uint64_t begin_nr, uint64_t now_nr)
{
	if (version->end_nr <= begin_nr && !version->failed && !version->is_uncovered &&
	    version->durable_nr > now_nr)
		version->durable_nr = now_nr;
}

static void uncover(struct simmodel_version *version, uint64_t begin_nr, uint64_t now_nr)
{
	if (version->end_nr > now_nr || version->has_fua || version->durable_nr < begin_nr)
		return;
	version->is_uncovered = true;
	version->durable_nr = SIMMODEL_NEVER;
}

static void for_each_version(struct simmodel *model, unsigned int disks, uint64_t begin_nr,
			     uint64_t now_nr,
			     void (*fn)(struct simmodel_version *, uint64_t, uint64_t))
{
	for (unsigned int disk = 0; disk < model->num_disks; disk++) {
		const uint32_t *heads = model->heads[disk];

		if (!(disks >> disk & 1))
			continue;
		for (uint32_t sector = 0; sector < model->num_sectors[disk]; sector++) {
			for (uint32_t nr = heads[sector]; nr; nr = next_of(model, nr))
				fn(&model->versions[nr - 1], begin_nr, now_nr);
		}
	}
}

void simmodel_flushed(struct simmodel *model, unsigned int disks, uint64_t begin_nr,
		      uint64_t now_nr)
{
	for_each_version(model, disks, begin_nr, now_nr, cover);
}

void simmodel_flush_failed(struct simmodel *model, unsigned int disks, uint64_t begin_nr,
			   uint64_t now_nr)
{
	for_each_version(model, disks, begin_nr, now_nr, uncover);
}

/* ---- questions ------------------------------------------------------------------------------ */

/* The latest beginning of a write that rules out what had ended before, plus 1; 0: none. */
static uint64_t floor_of(const struct simmodel *model, uint32_t head, uint64_t now_nr,
			 bool durable)
{
	uint64_t floor = 0;

	for (uint32_t nr = head; nr; nr = next_of(model, nr)) {
		const struct simmodel_version *version = &model->versions[nr - 1];
		bool counts = durable ? version->durable_nr <= now_nr
				      : version->end_nr <= now_nr && !version->failed;

		if (counts && version->begin_nr + 1 > floor)
			floor = version->begin_nr + 1;
	}
	return floor;
}

/* Whether some candidate has these bytes. */
static bool some_match(const struct simmodel *model, unsigned int disk, uint64_t sector,
		       const unsigned char *bytes, uint32_t from, uint32_t to, uint64_t floor,
		       uint64_t latest_nr, bool base)
{
	for (uint32_t nr = model->heads[disk][sector]; nr; nr = next_of(model, nr)) {
		const struct simmodel_version *version = &model->versions[nr - 1];

		if (version->begin_nr <= latest_nr && version->end_nr >= floor &&
		    is_value(bytes, version->value, from, to))
			return true;
	}
	return base && memcmp(bytes + from, model->base[disk][sector] + from, to - from) == 0;
}

bool simmodel_may_read(const struct simmodel *model, unsigned int disk, uint64_t sector,
		       const unsigned char *bytes, uint64_t begin_nr, uint64_t end_nr)
{
	uint64_t floor = floor_of(model, model->heads[disk][sector], begin_nr, false);

	/* Sectors are read whole. */
	return some_match(model, disk, sector, bytes, 0, 512, floor, end_nr, floor == 0);
}

bool simmodel_may_be_left(const struct simmodel *model, unsigned int disk, uint64_t sector,
			  const unsigned char *bytes, uint64_t cut_nr, uint32_t atomic_bytes)
{
	uint64_t floor = floor_of(model, model->heads[disk][sector], cut_nr, true);
	uint32_t unit = atomic_bytes < 512 ? atomic_bytes : 512;

	for (uint32_t from = 0; from < 512; from += unit) {
		if (!some_match(model, disk, sector, bytes, from, from + unit, floor, cut_nr,
				floor == 0 && !model->base_is_lost[disk][sector]))
			return false;
	}
	return true;
}

/* ---- forgetting ----------------------------------------------------------------------------- */

static void drop(struct simmodel *model, uint32_t *link)
{
	uint32_t nr = *link;

	*link = next_of(model, nr);
	model->versions[nr - 1].next = model->first_free;
	model->first_free = nr;
	model->num_free++;
}

static void settle_sector(struct simmodel *model, unsigned int disk, uint32_t sector)
{
	uint32_t *head = &model->heads[disk][sector];
	uint64_t floor = floor_of(model, *head, SIMMODEL_NEVER - 1, true);
	const struct simmodel_version *last;

	if (floor == 0)
		return;
	model->base_is_lost[disk][sector] = true;
	for (uint32_t *link = head; *link;) {
		if (model->versions[*link - 1].end_nr < floor)
			drop(model, link);
		else
			link = &model->versions[*link - 1].next;
	}
	last = &model->versions[*head - 1];
	if (last->next || last->value == SIMMODEL_ANYTHING)
		return;
	simmodel_fill(model->base[disk][sector], last->value);
	model->base_is_lost[disk][sector] = false;
	drop(model, head);
}

void simmodel_settle(struct simmodel *model)
{
	for (unsigned int disk = 0; disk < model->num_disks; disk++) {
		for (uint32_t sector = 0; sector < model->num_sectors[disk]; sector++) {
			if (model->heads[disk][sector])
				settle_sector(model, disk, sector);
		}
	}
}

void simmodel_load(struct simmodel *model, unsigned int disk, const unsigned char *bytes)
{
	for (uint32_t sector = 0; sector < model->num_sectors[disk]; sector++) {
		while (model->heads[disk][sector])
			drop(model, &model->heads[disk][sector]);
		model->base_is_lost[disk][sector] = false;
	}
	memcpy(model->base[disk], bytes, (size_t)model->num_sectors[disk] * 512);
}
