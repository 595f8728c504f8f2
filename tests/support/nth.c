/* SPDX-License-Identifier: MIT */
/* The loop of nth.h. */
#include "nth.h"

#include <stdio.h>

#include <criterion/criterion.h>

struct nth nth_of(const struct nth_kind *kind, void *context, bool for_good)
{
	return (struct nth){ .kind = kind, .context = context, .for_good = for_good };
}

bool nth_begin(struct nth *nth)
{
	cr_assert(!nth->armed);
	if (nth->n > 0 && nth->failed == 0) {
		cr_assert_gt(nth->n, 1, "there was no %s to fail", nth->kind->what);
		return false;
	}
	cr_assert_lt(++nth->n, NTH_MAX, "there is no end of %ss", nth->kind->what);
	nth->failed = 0;
	nth->armed = true;
	nth->kind->arm(nth->context, nth->n, nth->for_good);
	return true;
}

void nth_end(struct nth *nth)
{
	if (!nth->armed)
		return;
	nth->failed = nth->kind->disarm(nth->context);
	nth->armed = false;
}

const char *nth_name(const struct nth *nth)
{
	static char name[96];

	snprintf(name, sizeof(name), "%s %u%s", nth->kind->what, nth->n,
		 nth->for_good ? " and all behind it" : "");
	return name;
}
