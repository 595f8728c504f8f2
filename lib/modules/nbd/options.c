/* SPDX-License-Identifier: MIT */
/* Reads `KEY=VALUE,...URI`. Called by driver.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nbd.h"

#define DEADLINE_SECONDS 30
#define IN_FLIGHT 64

/* Digits up to the comma; false: something else, or not within the bounds. */
static bool read_number(const char *text, unsigned long min, unsigned long max,
			unsigned long *result)
{
	unsigned long number = 0;

	if (*text == ',')
		return false;
	for (; *text != ','; text++) {
		if (*text < '0' || *text > '9' || number > max)
			return false;
		number = 10 * number + (unsigned long)(*text - '0');
	}
	*result = number;
	return number >= min && number <= max;
}

/* One option, up to the comma behind it. */
static int take(struct dmcore_bdev *bdev, const char *key, size_t length,
		struct nbd_options *options)
{
	const char *value = key + length + 1;
	int shown = (int)strcspn(key, ",");
	unsigned long number;

	if (length == strlen("deadline") && strncmp(key, "deadline", length) == 0) {
		if (!read_number(value, 0, NBD_DEADLINE_SECONDS_MAX, &number))
			return dmcore_bdev_open_error(bdev, -EINVAL, "%.*s: give 0 to %u seconds, "
						      "then a comma and the URI", shown, key,
						      NBD_DEADLINE_SECONDS_MAX);
		options->deadline_ns = number * UINT64_C(1000000000);
		return 0;
	}
	if (length == strlen("in_flight") && strncmp(key, "in_flight", length) == 0) {
		if (!read_number(value, 1, NBD_IN_FLIGHT_MAX, &number))
			return dmcore_bdev_open_error(bdev, -EINVAL, "%.*s: give 1 to %u requests, "
						      "then a comma and the URI", shown, key,
						      NBD_IN_FLIGHT_MAX);
		options->in_flight = (unsigned int)number;
		return 0;
	}
	return dmcore_bdev_open_error(bdev, -EINVAL,
				      "%.*s: unknown option: there are deadline and in_flight",
				      shown, key);
}

int nbd_options_parse(struct dmcore_bdev *bdev, const char *args, struct nbd_options *options)
{
	const char *prefix = "";
	size_t bytes;
	int ret = 0;

	options->deadline_ns = DEADLINE_SECONDS * UINT64_C(1000000000);
	options->in_flight = IN_FLIGHT;
	while (ret == 0) {
		size_t length = strspn(args, "abcdefghijklmnopqrstuvwxyz_");

		if (length == 0 || args[length] != '=')
			break;
		ret = take(bdev, args, length, options);
		args += strcspn(args, ",");
		args += args[0] == ',';
	}
	if (ret)
		return ret;
	/* `nbd://HOST/EXPORT` names both the driver and the scheme. */
	if (strncmp(args, "//", 2) == 0)
		prefix = "nbd:";
	else if (strncmp(args, "nbd", 3) != 0)
		return dmcore_bdev_open_error(bdev, -EINVAL,
					      "'%s': no NBD URI: nbd://HOST/EXPORT, "
					      "nbd+unix:///EXPORT?socket=PATH", args);
	bytes = strlen(prefix) + strlen(args) + 1;
	options->uri = dmcore_zalloc(dmcore_bdev_core(bdev), bytes);
	if (!options->uri)
		return dmcore_bdev_open_error(bdev, -ENOMEM, "no memory");
	snprintf(options->uri, bytes, "%s%s", prefix, args);
	return 0;
}

void nbd_options_free(struct dmcore *core, struct nbd_options *options)
{
	dmcore_free(core, options->uri);
	options->uri = NULL;
}
