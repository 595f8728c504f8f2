/* SPDX-License-Identifier: MIT */
/* The registry of target types (map/registry.c). */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "base/compiler.h"
#include "support/fixture.h"

TestSuite(types, .init = fixture_open, .fini = fixture_close);

static int probe_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	(void)target;
	(void)args;
	return 0;
}

static enum dmcore_map_result probe_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static const struct dmcore_target_type probe_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "probe",
	.version = { 1, 0, 0 },
	.ctr = probe_ctr,
	.map = probe_map,
};

Test(types, built_in_ones_are_there_in_order)
{
	const struct dmcore_target_type *type;
	const char *before = "";
	unsigned int i;

	for (i = 0; (type = dmcore_target_type_at(fixture.core, i)); i++) {
		cr_assert_lt(strcmp(before, type->name), 0, "%s after %s", type->name, before);
		before = type->name;
	}
	cr_assert_geq(i, 4);
	cr_assert_null(dmcore_target_type_at(fixture.core, UINT32_MAX));
}

Test(types, registered_one_takes_its_place_in_the_order)
{
	unsigned int at = 0;

	cr_assert_eq(dmcore_target_register(fixture.core, &probe_type), 0);
	while (dmcore_target_type_at(fixture.core, at) != &probe_type)
		at++;
	cr_assert_lt(strcmp(dmcore_target_type_at(fixture.core, at - 1)->name, "probe"), 0);
	cr_assert_gt(strcmp(dmcore_target_type_at(fixture.core, at + 1)->name, "probe"), 0);
}

Test(types, taken_name_is_refused)
{
	struct dmcore_target_type type = probe_type;

	cr_assert_eq(dmcore_target_register(fixture.core, &probe_type), 0);
	cr_assert_eq(dmcore_target_register(fixture.core, &probe_type), -EEXIST);
	type.name = "linear";
	cr_assert_eq(dmcore_target_register(fixture.core, &type), -EEXIST);
}

static void expect_type_refused(struct dmcore_target_type type)
{
	cr_assert_eq(dmcore_target_register(fixture.core, &type), -EINVAL);
	cr_assert_neq(dmcore_error_message()[0], '\0');
}

Test(types, malformed_ones_are_refused)
{
	static const char *const names[] = { NULL, "", "sixteen-letters!", "a b", "a\tb", "a\x01" };
	struct dmcore_target_type type = probe_type;

	cr_assert_eq(dmcore_target_register(fixture.core, NULL), -EINVAL);
	type.struct_size = 0;
	expect_type_refused(type);
	type = probe_type;
	type.ctr = NULL;
	expect_type_refused(type);
	type = probe_type;
	type.map = NULL;
	expect_type_refused(type);
	type = probe_type;
	type.features = 1u << 31;
	expect_type_refused(type);
	type = probe_type;
	type.per_bio_bytes = 257;
	expect_type_refused(type);
	type = probe_type;
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(names); i++) {
		type.name = names[i];
		expect_type_refused(type);
	}
}
