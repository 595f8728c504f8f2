/* SPDX-License-Identifier: MIT */
/* When a simulated disk does something else than it was told. Called by disk.c and by programs. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "sim/sim.h"

static bool needs_status(enum dmcore_sim_action action)
{
	return action == DMCORE_SIM_FAIL || action == DMCORE_SIM_FAIL_DONE ||
	       action == DMCORE_SIM_TEAR;
}

int dmcore_sim_rule_add(struct dmcore_sim_disk *disk, const struct dmcore_sim_rule *rule)
{
	struct dmcore_sim_rule own = { .struct_size = 0 };

	if (!disk || !rule || !dmcore__struct_take(&own, sizeof(own), rule))
		return dmcore__error(-EINVAL, "a rule's struct_size isn't set");
	if (own.action > DMCORE_SIM_CORRUPT)
		return dmcore__error(-EINVAL, "rule: unknown action");
	if (own.ops >> DMCORE_OP_COUNT)
		return dmcore__error(-EINVAL, "rule: unknown operation");
	if (needs_status(own.action) && own.status >= 0)
		return dmcore__error(-EINVAL, "rule: the status must be a negative errno");
	if (disk->num_rules == DMCORE_SIM_RULES_MAX)
		return dmcore__error(-ENOSPC, "the disk has %d rules", DMCORE_SIM_RULES_MAX);
	disk->rules[disk->num_rules++] = (struct dmcore__sim_rule){ .rule = own };
	return 0;
}

void dmcore_sim_rules_clear(struct dmcore_sim_disk *disk)
{
	disk->num_rules = 0;
}

uint64_t dmcore_sim_rules_acted(const struct dmcore_sim_disk *disk)
{
	return disk->num_acted;
}

static bool touches(const struct dmcore_sim_rule *rule, const struct dmcore_bio *bio)
{
	if (rule->count == 0 || bio->op == DMCORE_OP_FLUSH)
		return true;
	if (bio->sector < rule->sector)
		return rule->sector - bio->sector < bio->count;
	return bio->sector - rule->sector < rule->count;
}

static bool matches(const struct dmcore_sim *sim, const struct dmcore_sim_rule *rule,
		    const struct dmcore_bio *bio)
{
	if (rule->ops && !(rule->ops >> bio->op & 1))
		return false;
	if (rule->phases && !(rule->phases >> sim->phase & 1))
		return false;
	if (rule->action == DMCORE_SIM_CORRUPT && bio->op > DMCORE_OP_WRITE)
		return false;
	return touches(rule, bio);
}

static bool acts(struct dmcore_sim *sim, struct dmcore__sim_rule *rule)
{
	if (rule->num_matched++ < rule->rule.skip)
		return false;
	if (rule->rule.times && rule->num_acted >= rule->rule.times)
		return false;
	if (rule->rule.per_million &&
	    dmcore__random_below(&sim->random, 1000000) >= rule->rule.per_million)
		return false;
	rule->num_acted++;
	return true;
}

const struct dmcore_sim_rule *dmcore__sim_rule_for(struct dmcore_sim_disk *disk,
						   const struct dmcore_bio *bio)
{
	for (unsigned int i = 0; i < disk->num_rules; i++) {
		struct dmcore__sim_rule *rule = &disk->rules[i];

		if (matches(disk->sim, &rule->rule, bio) && acts(disk->sim, rule)) {
			disk->num_acted++;
			return &rule->rule;
		}
	}
	return NULL;
}
