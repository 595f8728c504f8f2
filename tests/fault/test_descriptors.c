/* SPDX-License-Identifier: MIT */
/* Every descriptor that the library opens is refused in turn: an error, and none is left open. */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include <sys/resource.h>

#include <criterion/criterion.h>

#include <dmcore.h>

#include "support/scratch.h"

static struct scratch scratch;

static unsigned int num_open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	cr_assert_not_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 3; /* "." and "..", and that of dir */
}

static int use_descriptors(void)
{
	struct dmcore_queue *queue = NULL;
	struct dmcore_bdev *bdev = NULL;
	struct dmcore *core;
	int ret = dmcore_create(NULL, &core);

	cr_assert_eq(ret, 0);
	ret = dmcore_queue_create(core, NULL, &queue);
	if (ret == 0)
		ret = dmcore_bdev_open(core, scratch.path, 0, &bdev);
	if (ret == 0)
		ret = dmcore_queue_fd(queue);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	/* So a demand for io_uring ends. */
	if (ret == -EOPNOTSUPP && strstr(dmcore_error_message(), "EMFILE"))
		ret = -EMFILE;
	return ret;
}

Test(descriptors, running_out_of_them_is_an_error_and_leaks_none)
{
	struct rlimit old;
	struct rlimit limit;
	unsigned int before;
	int ret = -EMFILE;

	scratch_create(&scratch, NULL, 1 << 20);
	cr_assert_geq(use_descriptors(), 0);
	before = num_open_files();
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	for (limit.rlim_cur = (rlim_t)scratch.fd + 1; ret == -EMFILE; limit.rlim_cur++) {
		cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
		ret = use_descriptors();
		cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
		cr_assert(ret >= 0 || ret == -EMFILE, "with %u: %d: %s",
			  (unsigned int)limit.rlim_cur, ret, dmcore_error_message());
		cr_assert_eq(num_open_files(), before);
	}
	cr_assert_gt(limit.rlim_cur, (rlim_t)scratch.fd + 3);
	scratch_close(&scratch);
}
