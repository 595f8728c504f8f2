/* SPDX-License-Identifier: MIT */
/*
 * A queue in an event loop that has other things to do, here a timer: epoll tells when
 * dmcore_queue_poll() has something to run, and nothing ever blocks anywhere else.
 *
 *	./epoll-loop [FILE]
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <dmcore.h>

static unsigned char buffer[DMCORE_SECTOR_BYTES];
static int reads_left = 8;

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

static void read_done(struct dmcore_bio *bio)
{
	printf("read: %s\n", dmcore_error_name(bio->status));
	reads_left--;
}

static void start_read(struct dmcore_bio *bio, struct dmcore_bdev *disk)
{
	bio->bdev = disk;
	bio->op = DMCORE_OP_READ;
	bio->sector = 0;
	dmcore_bio_set_buffer(bio, buffer, sizeof(buffer));
	bio->done = read_done;
	check(dmcore_bio_submit(bio), "submit");
}

int main(int argc, char **argv)
{
	struct itimerspec tick = { { 0, 10000000 }, { 0, 10000000 } };
	struct epoll_event event = { .events = EPOLLIN };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	int loop = epoll_create1(EPOLL_CLOEXEC);
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmcore_bdev *disk;
	struct dmcore_bio *bio;
	uint64_t ticks;

	check(dmcore_create(NULL, &core), "create");
	check(dmcore_queue_create(core, NULL, &queue), "queue");
	check(dmcore_bdev_open(core, argc > 1 ? argv[1] : "mem:1M", 0, &disk), "open");
	bio = dmcore_bio_get(queue);
	timerfd_settime(timer, 0, &tick, NULL);
	event.data.fd = timer;
	epoll_ctl(loop, EPOLL_CTL_ADD, timer, &event);
	event.data.fd = dmcore_queue_fd(queue);
	check(event.data.fd, "descriptor");
	epoll_ctl(loop, EPOLL_CTL_ADD, event.data.fd, &event);

	while (reads_left > 0 && epoll_wait(loop, &event, 1, 10000) == 1) {
		if (event.data.fd != timer)
			check(dmcore_queue_poll(queue, 0, 64, 0), "poll");
		else if (read(timer, &ticks, sizeof(ticks)) == sizeof(ticks) && reads_left > 0)
			start_read(bio, disk);
		/* Before every wait: sends what was submitted since the last one. */
		check(dmcore_queue_kick(queue), "kick");
	}
	dmcore_bio_put(bio);
	check(dmcore_bdev_close(disk), "close");
	check(dmcore_queue_destroy(queue), "destroy queue");
	return reads_left != 0 || dmcore_destroy(core) != 0;
}
