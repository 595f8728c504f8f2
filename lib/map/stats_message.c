/* SPDX-License-Identifier: MIT */
/* The @stats_* messages: the kernel's grammar, and its texts. Called by message.c. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/args.h"
#include "base/error.h"
#include "base/text.h"
#include "map/stats.h"

#define NS_PER_MS 1000000u

static int invalid(const struct dmcore_args *args)
{
	return dmcore__error(-EINVAL, "Invalid parameters for message %s", args->words[0]);
}

/* ---- create ---- */

struct creation {
	struct dmcore_stats_options options;
	uint64_t *bounds; /* NULL, or to be freed */
};

static bool parse_range(const struct dmcore_device *device, const char *word,
			struct dmcore_stats_options *options)
{
	const struct dmcore_table *table = dmcore__device_active(device);

	if (strcmp(word, "-") == 0) {
		options->start_sector = 0;
		options->length_sectors = table ? table->size_sectors : 0;
		return table != NULL;
	}
	return dmcore__take_digits(&word, &options->start_sector) && *word++ == '+' &&
	       dmcore__parse_u64(word, &options->length_sectors) && options->length_sectors > 0;
}

/* A length, or "/" and how many areas. */
static bool parse_step(const char *word, struct dmcore_stats_options *options)
{
	uint64_t number;

	if (!dmcore__parse_u64(word + (*word == '/'), &number) || number == 0)
		return false;
	if (*word == '/')
		options->step_sectors = (options->length_sectors - 1) / number + 1;
	else
		options->step_sectors = number;
	return true;
}

static int parse_bounds(struct dmcore *core, const char *text, struct creation *creation)
{
	struct dmcore_stats_options *options = &creation->options;
	uint64_t below = 0;
	size_t most = 1;

	if (creation->bounds)
		return -EINVAL;
	for (const char *at = text; *at; at++)
		most += *at == ',';
	creation->bounds = dmcore__zalloc_array(core, most, sizeof(*creation->bounds));
	if (!creation->bounds)
		return dmcore__error(-ENOMEM, "no memory for the bounds of a histogram");
	options->bounds = creation->bounds;
	for (;;) {
		uint64_t *bound = &creation->bounds[options->num_bounds++];

		if (!dmcore__take_digits(&text, bound) || *bound <= below)
			return -EINVAL;
		below = *bound;
		if (!*text)
			return 0;
		if (*text++ != ',')
			return -EINVAL;
	}
}

static int parse_option(struct dmcore *core, const char *word, struct creation *creation)
{
	static const char histogram[] = "histogram:";

	if (strcasecmp(word, "precise_timestamps") == 0) {
		creation->options.flags |= DMCORE_STATS_PRECISE;
		return 0;
	}
	if (strncasecmp(word, histogram, sizeof(histogram) - 1) == 0)
		return parse_bounds(core, word + sizeof(histogram) - 1, creation);
	return -EINVAL;
}

static bool is_number(const char *word)
{
	return *word && word[strspn(word, "0123456789")] == '\0';
}

/* [NUM_OPTIONS OPTION…]: a program is no number. */
static int parse_options(struct dmcore *core, struct dmcore_args *args, struct creation *creation)
{
	uint64_t left = 0;
	int ret = 0;

	if (dmcore_args_left(args) == 0 || !is_number(args->words[args->next]))
		return 0;
	if (!dmcore__parse_u64(dmcore_args_next(args), &left) || left > dmcore_args_left(args))
		return -EINVAL;
	for (; left > 0 && ret == 0; left--)
		ret = parse_option(core, dmcore_args_next(args), creation);
	return ret;
}

static int parse_creation(struct dmcore_device *device, struct dmcore_args *args,
			  struct creation *creation)
{
	struct dmcore_stats_options *options = &creation->options;
	int ret;

	if (dmcore_args_left(args) < 2 || !parse_range(device, dmcore_args_next(args), options) ||
	    !parse_step(dmcore_args_next(args), options))
		return -EINVAL;
	ret = parse_options(device->core, args, creation);
	if (ret)
		return ret;
	options->program = dmcore_args_next(args);
	options->aux = dmcore_args_next(args);
	return dmcore_args_left(args) ? -EINVAL : 0;
}

static int create(struct dmcore_device *device, struct dmcore_args *args, struct dmcore_text *reply)
{
	struct creation creation = { .options = DMCORE_STATS_OPTIONS_INIT };
	int ret = parse_creation(device, args, &creation);

	if (ret == -EINVAL)
		invalid(args);
	if (ret == 0)
		ret = dmcore__stats_create(device, &creation.options);
	dmcore__free(device->core, creation.bounds);
	if (ret < 0)
		return ret;
	dmcore_text_printf(reply, "%d", ret);
	return 0;
}

/* ---- list ---- */

static void list_one(const struct dmcore__stats_region *region, struct dmcore_text *reply)
{
	dmcore_text_printf(reply, "%d: %" PRIu64 "+%" PRIu64 " %" PRIu64 " %s %s", region->id,
			   region->start_sector, region->length_sectors, region->step_sectors,
			   region->program, region->aux);
	if (region->precise)
		dmcore_text_printf(reply, " precise_timestamps");
	for (uint32_t i = 0; i < region->num_bounds; i++)
		dmcore_text_printf(reply, "%s%" PRIu64, i ? "," : " histogram:",
				   region->bounds[i]);
	dmcore_text_printf(reply, "\n");
}

static int list(struct dmcore_device *device, struct dmcore_args *args, struct dmcore_text *reply)
{
	const char *program = dmcore_args_next(args);
	const struct dmcore__stats_region *region = device->stats ? device->stats->regions : NULL;

	if (dmcore_args_left(args))
		return invalid(args);
	for (; region; region = region->next) {
		if (!program || strcmp(program, region->program) == 0)
			list_one(region, reply);
	}
	return 0;
}

/* ---- print ---- */

static void print_area(const struct dmcore__stats_region *region,
		       const struct dmcore_stats_area *area, const uint64_t *buckets,
		       struct dmcore_text *reply)
{
	uint64_t unit = region->precise ? 1 : NS_PER_MS;
	/* The last area may be shorter than is said here. */
	uint64_t length = region->ends ? area->length_sectors : region->step_sectors;

	dmcore_text_printf(reply, "%" PRIu64 "+%" PRIu64, area->start_sector, length);
	dmcore_text_printf(reply, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, area->reads,
			   area->read_merges, area->read_sectors, area->read_ns / unit);
	dmcore_text_printf(reply, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, area->writes,
			   area->write_merges, area->write_sectors, area->write_ns / unit);
	dmcore_text_printf(reply, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64,
			   area->in_flight, area->busy_ns / unit, area->weighted_ns / unit,
			   area->read_busy_ns / unit, area->write_busy_ns / unit);
	for (uint32_t i = 0; region->num_bounds && i <= region->num_bounds; i++)
		dmcore_text_printf(reply, "%c%" PRIu64, i ? ':' : ' ', buckets[i]);
	dmcore_text_printf(reply, "\n");
}

static int print_region(struct dmcore_device *device, struct dmcore__stats_region *region,
			uint64_t first, uint64_t count, bool clear, struct dmcore_text *reply)
{
	const struct dmcore__stats *stats = device->stats;
	uint64_t *buckets;

	buckets = dmcore__zalloc_array(device->core, (size_t)region->num_bounds + 1,
				       sizeof(*buckets));
	if (!buckets)
		return dmcore__error(-ENOMEM, "no memory to print a histogram");
	for (uint64_t i = first; i < region->num_areas && i - first < count; i++) {
		struct dmcore_stats_area area;
		struct dmcore__stats_sum sum;

		dmcore__stats_sum_up(stats, region, i, &sum, buckets);
		dmcore__stats_tell(stats, region, i, &sum, &area);
		print_area(region, &area, buckets, reply);
		if (clear && !reply->failed)
			dmcore__stats_take_off(stats, region, i, &sum,
					       region->num_bounds ? buckets : NULL);
	}
	dmcore__free(device->core, buckets);
	return 0;
}

static int print(struct dmcore_device *device, struct dmcore_args *args, bool clear,
		 struct dmcore_text *reply)
{
	uint64_t first = 0;
	uint64_t count = UINT64_MAX;
	struct dmcore__stats_region *region;
	uint64_t id;

	if (args->count != 2 && args->count != 4)
		return invalid(args);
	if (!dmcore__parse_u64(args->words[1], &id) || id > INT32_MAX)
		return invalid(args);
	if (args->count == 4 && (!dmcore__parse_u64(args->words[2], &first) ||
				 !dmcore__parse_u64(args->words[3], &count)))
		return invalid(args);
	region = dmcore__stats_find(device, id);
	return region ? print_region(device, region, first, count, clear, reply) : -ENOENT;
}

/* ---- the rest ---- */

/* The id in a message of so many words. */
static int take_id(const struct dmcore_args *args, unsigned int count, uint64_t *id)
{
	if (args->count != count || !dmcore__parse_u64(args->words[1], id) || *id > INT32_MAX)
		return invalid(args);
	return 0;
}

int dmcore__stats_message(struct dmcore_device *device, struct dmcore_args *args,
			  struct dmcore_text *reply)
{
	const char *word = args->words[0];
	uint64_t id;
	int ret;

	args->next = 1;
	if (strcasecmp(word, "@stats_create") == 0)
		return create(device, args, reply);
	if (strcasecmp(word, "@stats_list") == 0)
		return list(device, args, reply);
	if (strcasecmp(word, "@stats_print") == 0)
		return print(device, args, false, reply);
	if (strcasecmp(word, "@stats_print_clear") == 0)
		return print(device, args, true, reply);
	if (strcasecmp(word, "@stats_delete") == 0) {
		ret = take_id(args, 2, &id);
		return ret ? ret : dmcore__stats_delete(device, id);
	}
	if (strcasecmp(word, "@stats_clear") == 0) {
		ret = take_id(args, 2, &id);
		return ret ? ret : dmcore__stats_clear(device, id);
	}
	if (strcasecmp(word, "@stats_set_aux") == 0) {
		ret = take_id(args, 3, &id);
		return ret ? ret : dmcore__stats_set_aux(device, id, args->words[2]);
	}
	return 1;
}
