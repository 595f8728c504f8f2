/* SPDX-License-Identifier: MIT */
/*
 * A module with a driver, the device of which reads as the letter m. For
 * tests/unit/bdev/test_modules.c, and quoted by docs/adding-a-driver.md.
 */
#include <errno.h>
#include <string.h>

#include <dmcore.h>

static int letters_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)args;
	(void)flags;
	dmcore_bdev_set_size(bdev, 16);
	return 0;
}

static void letters_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void letters_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	char letters[16 * DMCORE_SECTOR_BYTES];

	(void)bdev;
	memset(letters, 'm', sizeof(letters));
	dmcore_bio_complete(bio, bio->op == DMCORE_OP_READ ? dmcore_bio_copy(bio, letters)
							   : -EOPNOTSUPP);
}

static const struct dmcore_driver letters = {
	.struct_size = sizeof(letters),
	.name = "letters",
	.version = { 1, 0, 0 },
	.open = letters_open,
	.close = letters_close,
	.submit = letters_submit,
};

static int register_letters(struct dmcore *core)
{
	return dmcore_driver_register(core, &letters);
}

DMCORE_API extern const struct dmcore_driver_module dmcore_driver_module;

const struct dmcore_driver_module dmcore_driver_module = {
	.abi = DMCORE_MODULE_ABI,
	.name = "letters",
	.register_drivers = register_letters,
};
