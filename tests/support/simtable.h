/* SPDX-License-Identifier: MIT */
/*
 * Random tables of mapped devices over simulated disks and over each other, and where their sectors
 * lie, worked out from the definition of the targets without anything of the library. Called by
 * simprogram.c.
 *
 * Devices are numbers: SIMTABLE_DISKS disks, then two mapped ones, then one on top of all.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMTABLE_H
#define DMCORE_TESTS_SUPPORT_SIMTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simchoice.h"

#define SIMTABLE_DISKS 4
#define SIMTABLE_DEVICES 7
#define SIMTABLE_TOP 6
#define SIMTABLE_TARGETS_MAX 5
#define SIMTABLE_LEGS_MAX 3
#define SIMTABLE_REGIONS_MAX 512

enum simtable_kind {
	SIMTABLE_LINEAR,
	SIMTABLE_STRIPED,
	SIMTABLE_UNSTRIPED,
	SIMTABLE_SWITCH,
	SIMTABLE_ZERO,
	SIMTABLE_ERROR,
	SIMTABLE_DUST,
	SIMTABLE_DELAY,
	SIMTABLE_FLAKEY,
	SIMTABLE_KINDS,
};

struct simtable_target {
	enum simtable_kind kind;
	uint64_t begin;
	uint64_t length;
	uint64_t chunk;        /* of a region, with switch */
	unsigned int num_legs; /* unstriped: 1 */
	unsigned int stripe;
	unsigned int num_stripes;
	unsigned int delay_ms;
	unsigned int unit; /* of all tables */
	struct {
		unsigned int device;
		uint64_t start;
	} legs[SIMTABLE_LEGS_MAX];
	uint8_t paths[SIMTABLE_REGIONS_MAX];
	bool may_fail; /* dust: messages have been sent */
};

struct simtable {
	unsigned int num_targets;
	struct simtable_target targets[SIMTABLE_TARGETS_MAX];
};

struct simtables {
	unsigned int unit;                   /* sectors; everything is a multiple of it */
	unsigned int num_disks;
	bool has_switch; /* whose discards go by the path of their first region: there are none */
	bool has_flakey;
	uint64_t sizes[SIMTABLE_DEVICES];    /* 0: there is no such device */
	struct simtable live[SIMTABLE_DEVICES];
};

/* Where a sector lies. */
struct simtable_place {
	int disk;           /* -1: nowhere */
	uint64_t sector;
	bool is_zero;       /* reads are zeroes */
	bool must_fail;
	bool may_fail;
	bool refuses_zeroes; /* write zeroes may fail with -EOPNOTSUPP */
};

/* A random table of a device, as long as that is. */
void simtable_choose(const struct simtables *tables, unsigned int device, struct simchoice *choice,
		     struct simtable *table);
/* Its text; the length, as snprintf does. */
size_t simtable_text(const struct simtable *table, char *text, size_t bytes);
struct simtable_place simtable_place(const struct simtables *tables, unsigned int device,
				     uint64_t sector);
/* The disks (bits) on which a device stands. */
unsigned int simtable_disks(const struct simtables *tables, unsigned int device);
/* Whether any request to a device may fail. */
bool simtable_may_fail(const struct simtables *tables, unsigned int device);
/* Forgets what messages have done, as a new table does. */
void simtable_renew(struct simtable *table);

const char *simtable_device_name(unsigned int device);

#endif
