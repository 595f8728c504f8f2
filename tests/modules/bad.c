/* SPDX-License-Identifier: MIT */
/* What can be wrong with a module, one for each MODULE_KIND: tests/unit/bdev/test_modules.c. */
#include <errno.h>

#include <dmcore.h>

enum kind { BAD_ABI, NO_SYMBOL, REFUSES, NO_DRIVER, OTHER_NAME, OPENS_ITSELF };

static int register_badly(struct dmcore *core)
{
	struct dmcore_bdev *bdev;

	switch (MODULE_KIND) {
	case REFUSES:
		return -EUCLEAN;
	case OPENS_ITSELF:
		return dmcore_bdev_open(core, MODULE_NAME ":", 0, &bdev);
	default:
		return 0;
	}
}

DMCORE_API extern const struct dmcore_driver_module MODULE_SYMBOL;

const struct dmcore_driver_module MODULE_SYMBOL = {
	.abi = MODULE_KIND == BAD_ABI ? DMCORE_MODULE_ABI + 1 : DMCORE_MODULE_ABI,
	.name = MODULE_KIND == OTHER_NAME ? "letters" : MODULE_NAME,
	.register_drivers = register_badly,
};
