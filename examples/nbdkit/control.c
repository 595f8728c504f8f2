/* SPDX-License-Identifier: MIT */
/*
 * The control socket: a thread that accepts, one for each client, and the messages of
 * ../dmsetup/protocol.h. Called by plugin.c.
 */
#include "control.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "commands.h"
#include "nbdkit.h"

/* Clients at once: more are cut off. Most stay for a moment, but those that wait for events. */
#define CLIENTS_MAX 128u

enum client_state {
	CLIENT_NONE,
	CLIENT_SERVED, /* By its thread. */
	CLIENT_ENDED,  /* The thread is to be joined. */
};

struct client {
	struct control *control;
	enum client_state state; /* With control->lock. */
	pthread_t thread;
	int fd;
};

struct control {
	struct devices *devices;
	struct numbers *numbers;
	int listen_fd;
	pthread_t acceptor;
	pthread_mutex_t lock;
	bool stopping; /* With lock. */
	struct client clients[CLIENTS_MAX];
};

/* ---- the socket ---- */

static bool is_stale(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;
	bool stale;

	if (fd < 0)
		return false;
	stale = lstat(address->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
		connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
		errno == ECONNREFUSED;
	close(fd);
	return stale;
}

int control_listen(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t mask;
	int ret;

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path)) {
		nbdkit_error("control=%s: %s", path, strerror(fd < 0 ? errno : ENAMETOOLONG));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (is_stale(&address))
		unlink(path);
	/* There is one thread yet. */
	mask = umask(077);
	ret = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (ret == 0)
		ret = listen(fd, SOMAXCONN);
	if (ret < 0) {
		nbdkit_error("control=%s: %s", path, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- what clients send ---- */

static bool receive_all(int fd, void *memory, size_t bytes)
{
	while (bytes > 0) {
		ssize_t got = recv(fd, memory, bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		memory = (char *)memory + got;
		bytes -= (size_t)got;
	}
	return true;
}

static bool send_all(int fd, const void *memory, size_t bytes)
{
	while (bytes > 0) {
		ssize_t sent = send(fd, memory, bytes, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		memory = (const char *)memory + sent;
		bytes -= (size_t)sent;
	}
	return true;
}

static bool is_well_formed(const struct control_request *request)
{
	return request->magic == CONTROL_MAGIC &&
	       request->folder_bytes < CONTROL_FOLDER_BYTES_MAX &&
	       request->data_bytes >= sizeof(struct dm_ioctl) &&
	       request->data_bytes <= CONTROL_DATA_BYTES_MAX;
}

/* The rest of a request, and its answer. False: the client is to be cut off. */
static bool serve_request(struct client *client, const struct control_request *request,
			  struct dm_ioctl *param)
{
	char folder[CONTROL_FOLDER_BYTES_MAX];
	struct control_reply reply = { .magic = CONTROL_MAGIC };
	struct call call = {
		.devices = client->control->devices,
		.numbers = client->control->numbers,
		.socket = client->fd,
		.command = request->command,
		.param = param,
		.data_bytes = request->data_bytes,
	};

	if (!receive_all(client->fd, folder, request->folder_bytes) ||
	    !receive_all(client->fd, param, request->data_bytes) ||
	    param->data_size != request->data_bytes)
		return false;
	folder[request->folder_bytes] = '\0';
	/* This thread's own folder, see serve(). */
	call.has_folder = chdir(folder) == 0;
	reply.error = -commands_run(&call);
	if (reply.error)
		nbdkit_debug("control: command %u of '%s': %s: %s", call.command, param->name,
			     strerror(reply.error), call.message);
	if (param->data_size < sizeof(*param) || param->data_size > request->data_bytes)
		param->data_size = request->data_bytes;
	reply.data_bytes = param->data_size;
	/* The buffer keeps the size that it has. */
	param->data_size = request->data_bytes;
	reply.message_bytes = (uint32_t)strlen(call.message);
	return send_all(client->fd, &reply, sizeof(reply)) &&
	       send_all(client->fd, param, reply.data_bytes) &&
	       send_all(client->fd, call.message, reply.message_bytes);
}

static void *serve(void *context)
{
	struct client *client = context;
	struct control_request request;
	/* The folder that relative paths begin in would otherwise be that of all threads. */
	bool go_on = unshare(CLONE_FS) == 0;

	if (!go_on)
		nbdkit_error("control: a folder of its own: %s", strerror(errno));
	while (go_on && receive_all(client->fd, &request, sizeof(request)) &&
	       is_well_formed(&request)) {
		struct dm_ioctl *param = malloc(request.data_bytes);

		go_on = param && serve_request(client, &request, param);
		/* There may be keys in tables. */
		if (param)
			explicit_bzero(param, request.data_bytes);
		free(param);
	}
	/* The descriptor stays until the thread is joined: control_stop() may use it. */
	shutdown(client->fd, SHUT_RDWR);
	pthread_mutex_lock(&client->control->lock);
	client->state = CLIENT_ENDED;
	pthread_mutex_unlock(&client->control->lock);
	return NULL;
}

/* ---- clients ---- */

static void join(struct client *client)
{
	pthread_join(client->thread, NULL);
	close(client->fd);
	client->state = CLIENT_NONE;
}

/* With the lock held. */
static struct client *free_client(struct control *control)
{
	struct client *found = NULL;

	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		struct client *client = &control->clients[i];

		/* It has nothing more to do with the lock. */
		if (client->state == CLIENT_ENDED)
			join(client);
		if (client->state == CLIENT_NONE)
			found = client;
	}
	return found;
}

static void take_client(struct control *control, int fd)
{
	struct client *client;

	pthread_mutex_lock(&control->lock);
	client = control->stopping ? NULL : free_client(control);
	if (client) {
		*client = (struct client){ .control = control, .fd = fd, .state = CLIENT_SERVED };
		if (pthread_create(&client->thread, NULL, serve, client) != 0) {
			client->state = CLIENT_NONE;
			client = NULL;
		}
	}
	pthread_mutex_unlock(&control->lock);
	if (!client) {
		nbdkit_error("control: too many clients");
		close(fd);
	}
}

static void *accept_clients(void *context)
{
	struct control *control = context;

	for (;;) {
		int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			take_client(control, fd);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			   errno == ENOBUFS) {
			nbdkit_error("control: %s", strerror(errno));
			nbdkit_nanosleep(0, 100000000);
		} else if (errno != EINTR && errno != ECONNABORTED) {
			/* It was shut down. */
			return NULL;
		}
	}
}

/* ---- all ---- */

struct control *control_start(struct devices *devices, int listen_fd)
{
	struct control *control = calloc(1, sizeof(*control));

	if (control)
		control->numbers = numbers_make(devices);
	if (!control || !control->numbers) {
		nbdkit_error("no memory");
		goto free_control;
	}
	control->devices = devices;
	control->listen_fd = listen_fd;
	pthread_mutex_init(&control->lock, NULL);
	if (pthread_create(&control->acceptor, NULL, accept_clients, control) != 0) {
		nbdkit_error("control: no thread");
		pthread_mutex_destroy(&control->lock);
		goto free_control;
	}
	return control;

free_control:
	if (control)
		numbers_free(control->numbers);
	free(control);
	close(listen_fd);
	return NULL;
}

void control_stop(struct control *control)
{
	if (!control)
		return;
	shutdown(control->listen_fd, SHUT_RDWR);
	pthread_join(control->acceptor, NULL);
	pthread_mutex_lock(&control->lock);
	control->stopping = true;
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		if (control->clients[i].state != CLIENT_NONE)
			shutdown(control->clients[i].fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&control->lock);
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		if (control->clients[i].state != CLIENT_NONE)
			join(&control->clients[i]);
	}
	close(control->listen_fd);
	numbers_free(control->numbers);
	pthread_mutex_destroy(&control->lock);
	free(control);
}
