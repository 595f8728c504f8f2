/* SPDX-License-Identifier: MIT */
/* Connections, from the first word to the facts of the export. Called by driver.c and thread.c. */
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "nbd.h"

struct nbd_handle *nbd_connection_begin(const char *uri, int *error)
{
	struct nbd_handle *handle = nbd_create();

	*error = -nbd_get_errno();
	if (!handle)
		return NULL;
	/* Keys of TLS are files that the URI names. */
	if (nbd_set_uri_allow_local_file(handle, true) == 0 &&
	    nbd_aio_connect_uri(handle, uri) == 0)
		return handle;
	*error = -nbd_get_errno();
	if (*error == 0)
		*error = -EIO;
	nbd_close(handle);
	return NULL;
}

void nbd_connection_serve(struct nbd_handle *handle, int wake_fd, int64_t timeout_ns)
{
	unsigned int direction = handle ? nbd_aio_get_direction(handle) : 0;
	struct pollfd fds[2] = { { .fd = wake_fd, .events = POLLIN },
				 { .fd = handle ? nbd_aio_get_fd(handle) : -1 } };
	struct timespec timeout = { .tv_sec = timeout_ns / 1000000000,
				    .tv_nsec = timeout_ns % 1000000000 };

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		fds[1].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		fds[1].events |= POLLOUT;
	if (ppoll(fds, 2, timeout_ns < 0 ? NULL : &timeout, NULL) <= 0 || !handle)
		return;
	/* Whatever fails shows in the handle's state. */
	if (fds[1].revents & (POLLIN | POLLHUP | POLLERR) &&
	    direction & LIBNBD_AIO_DIRECTION_READ)
		nbd_aio_notify_read(handle);
	else if (fds[1].revents && direction & LIBNBD_AIO_DIRECTION_WRITE)
		nbd_aio_notify_write(handle);
}

static uint64_t block_size(struct nbd_handle *handle, int which, uint64_t fallback)
{
	int64_t bytes = nbd_get_block_size(handle, which);

	return bytes > 0 ? (uint64_t)bytes : fallback;
}

int nbd_connection_facts(struct nbd_handle *handle, struct nbd_facts *facts)
{
	int64_t size = nbd_get_size(handle);

	if (size < 0)
		return -EIO;
	facts->size_bytes = (uint64_t)size;
	facts->block_bytes = block_size(handle, LIBNBD_SIZE_MINIMUM, 1);
	facts->preferred_bytes = block_size(handle, LIBNBD_SIZE_PREFERRED, 4096);
	facts->maximum_bytes = block_size(handle, LIBNBD_SIZE_MAXIMUM, NBD_REQUEST_BYTES);
	facts->read_only = nbd_is_read_only(handle) == 1;
	facts->can_flush = nbd_can_flush(handle) == 1;
	facts->can_fua = nbd_can_fua(handle) == 1;
	facts->can_trim = nbd_can_trim(handle) == 1;
	facts->can_zero = nbd_can_zero(handle) == 1;
	return 0;
}

bool nbd_facts_suit(const struct nbd_facts *now, const struct nbd_facts *before)
{
	return now->size_bytes == before->size_bytes && now->block_bytes <= before->block_bytes &&
	       now->maximum_bytes >= before->maximum_bytes &&
	       (!now->read_only || before->read_only) && (now->can_flush || !before->can_flush) &&
	       (now->can_fua || !before->can_fua) && (now->can_trim || !before->can_trim) &&
	       (now->can_zero || !before->can_zero);
}
