/* SPDX-License-Identifier: MIT */
/*
 * A device of the program's own: every sector says its number. A table puts it behind a linear
 * target like any other device. A driver sees requests that are checked already: what remains is to
 * carry them out.
 *
 *	./custom-driver
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dmcore.h>

static int numbers_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	if (args[0])
		return dmcore_bdev_open_error(bdev, -EINVAL, "'%s': takes no arguments", args);
	if (!(flags & DMCORE_OPEN_READ_ONLY))
		return dmcore_bdev_open_error(bdev, -EROFS, "can only be read");
	dmcore_bdev_set_size(bdev, 1000);
	return 0;
}

static void numbers_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

/* On any queue's thread, several at once. Ends each bio once, now or later. */
static void numbers_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	char sector[DMCORE_SECTOR_BYTES] = "";
	uint64_t end = bio->sector + bio->count;
	int status = bio->op == DMCORE_OP_READ ? 0 : -EOPNOTSUPP;

	(void)bdev;
	while (status == 0 && bio->sector < end) {
		uint64_t left = bio->count;

		snprintf(sector, sizeof(sector), "sector %" PRIu64, bio->sector);
		bio->count = 1;
		status = dmcore_bio_copy(bio, sector);
		bio->count = left;
		dmcore_bio_advance(bio, 1);
	}
	dmcore_bio_complete(bio, status);
}

static const struct dmcore_driver numbers = {
	.struct_size = sizeof(numbers),
	.name = "numbers",
	.version = { 1, 0, 0 },
	.open = numbers_open,
	.close = numbers_close,
	.submit = numbers_submit,
};

int main(void)
{
	char text[3][DMCORE_SECTOR_BYTES] = { "" };
	struct dmcore *core;
	struct dmcore_device *device;
	int ret = dmcore_create(NULL, &core);

	if (ret == 0)
		ret = dmcore_driver_register(core, &numbers);
	if (ret == 0)
		ret = dmcore_device_create_concise(core, "window,,,ro,0 8 linear numbers: 500",
						   DMCORE_TABLE_READ_ONLY, &device);
	if (ret == 0)
		ret = dmcore_pread(dmcore_device_bdev(device), text, sizeof(text), 512);
	if (ret)
		fprintf(stderr, "%s (%s)\n", dmcore_error_message(), dmcore_error_name(ret));
	printf("%s, %s, %s\n", text[0], text[1], text[2]);
	return ret || dmcore_destroy(core) || strcmp(text[2], "sector 503") != 0;
}
