/* SPDX-License-Identifier: MIT */
/*
 * The content of sectors in programs, and the sums by which it is compared. Shared by
 * record-programs.c, which asks a kernel, and by tests/support/steps.c, which asks the library.
 *
 * A program is a line for each step, with its answer behind " = "; `#` begins a comment. The lines of
 * a TABLE have " ; " between them.
 *
 *	case NAME                      begins a program: no devices, no disks
 *	watch NAME                     each answer is followed by "; " and this device's status
 *	disk D SECTORS stamp SEED      a disk, named by one capital letter; or `zero`, or `kept`: as
 *	                               it was
 *	poke D SECTOR OFFSET HEX       bytes on it
 *	wipe D SECTOR COUNT            zeroes on it
 *	create NAME TABLE              creates, loads, resumes = ok, or [load|resume] ERRNO[: TEXT]
 *	load NAME TABLE                = ok, or ERRNO: TEXT
 *	try TABLE                      a table that is never resumed, when the first sector of all
 *	                               disks has been wiped = ok: what TABLE prints, or ERRNO: TEXT
 *	resume NAME | suspend NAME | remove NAME               = ok, or ERRNO
 *	write NAME SECTOR COUNT SEED   one request, waited for = ok, or ERRNO
 *	discard | zeroes NAME SECTOR COUNT     the same; zeroes without a fallback
 *	flush NAME                     the same
 *	read NAME SECTOR COUNT         one request = SUM, or ERRNO
 *	sum NAME                       the whole device or disk = SUM, or ERRNO
 *	status NAME | table NAME       = the text behind the type
 *	lines NAME                     = what TABLE prints of all lines
 *	insync NAME                    waits until its mirrors are in sync = STATUS of all lines
 *	size NAME                      = sectors
 *	message NAME SECTOR TEXT       = ok, or ERRNO
 *	events NAME                    = how many
 *	settle NAME                    waits for the end of a merge = status
 *	header D                       of a COW = VALID VERSION CHUNK, `new`, or `no store`
 *	entries D                      of a COW = OLD>NEW …, with a `|` behind each full area; or
 *	                               `invalid`: which of a request came to be is chance then
 *	ours D OFFSET                  the disk is as the library has left it in the file of images,
 *	                               where it goes on as if there had been no step
 *	theirs D OFFSET                as the kernel has left it
 */
#ifndef DMCORE_TESTS_GOLDEN_PROGRAMS_H
#define DMCORE_TESTS_GOLDEN_PROGRAMS_H

#include <stddef.h>
#include <stdint.h>

#define PROGRAM_SECTOR_BYTES 512
#define PROGRAM_LINE_BYTES 65536
/* Between the lines of a table. */
#define PROGRAM_LINE_END " ; "
/* The sum of nothing. */
#define PROGRAM_SUM_BEGIN UINT32_C(0x811c9dc5)

/* What a write of this seed, or a disk filled by it, leaves in a sector. */
static inline void program_stamp(uint64_t *words, uint64_t seed, uint64_t sector)
{
	uint64_t state = (seed << 32) ^ sector;

	for (unsigned int i = 0; i < PROGRAM_SECTOR_BYTES / 8; i++) {
		uint64_t mixed = state += UINT64_C(0x9e3779b97f4a7c15);

		mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
		words[i] = mixed ^ (mixed >> 31);
	}
}

/* Begins with PROGRAM_SUM_BEGIN; goes on with what it returned. */
static inline uint32_t program_sum(uint32_t sum, const void *bytes, size_t count)
{
	const unsigned char *at = bytes;
	uint64_t state = sum;

	for (size_t i = 0; i < count; i += 8) {
		uint64_t word = 0;

		for (unsigned int k = 0; k < 8; k++)
			word |= (uint64_t)at[i + k] << (8 * k);
		state = (state ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		state ^= state >> 29;
	}
	return (uint32_t)(state ^ (state >> 32));
}

#endif
