/* SPDX-License-Identifier: MIT */
/*
 * What can fail fails, one after another: the first of its kind, then the second, until a round
 * passes in which none was left to fail.
 *
 *	struct nth nth = nth_of(&heap_nth, NULL, for_good);
 *
 *	while (nth_begin(&nth)) {
 *		ret = scenario();
 *		nth_end(&nth);
 *		…                       nth.failed says how many have failed
 *	}
 */
#ifndef DMCORE_TESTS_SUPPORT_NTH_H
#define DMCORE_TESTS_SUPPORT_NTH_H

#include <stdbool.h>

/* More rounds than any scenario needs. */
#define NTH_MAX 10000u

/* Something that can be made to fail. */
struct nth_kind {
	const char *what; /* "allocation" */
	/* The n-th from now on fails, and for good: all that follow too. */
	void (*arm)(void *context, unsigned int n, bool for_good);
	/* None fails any more. Returns how many have failed since. */
	unsigned int (*disarm)(void *context);
};

struct nth {
	const struct nth_kind *kind;
	void *context;
	bool for_good;
	bool armed;
	unsigned int n;
	unsigned int failed; /* of the last round */
};

struct nth nth_of(const struct nth_kind *kind, void *context, bool for_good);
/* Begins the next round. False: in the last one nothing failed. */
bool nth_begin(struct nth *nth);
/* From here on nothing fails. A second call in a round does nothing. */
void nth_end(struct nth *nth);
/* "allocation 3 and all behind it", good until the next call. */
const char *nth_name(const struct nth *nth);

#endif
