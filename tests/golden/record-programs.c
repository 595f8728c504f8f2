/* SPDX-License-Identifier: MIT */
/*
 * Has a Linux kernel carry out the programs of standard input (their form is told in programs.h)
 * and prints them with its answers; answers that stand there already are replaced. Needs root, the
 * modules of the targets, and a disk that it may overwrite, 32 MiB for each letter of a program; and
 * another one, if programs exchange images with the library. Stands alone:
 *
 *	gcc -O2 -static -o record-programs record-programs.c
 *	./record-programs /dev/vdb [/dev/vdc] < programs.txt
 */
#define _GNU_SOURCE
#include "record-control.h"

/* ---- I/O ------------------------------------------------------------------------------------ */

static int transfer(const char *name, uint64_t sector, uint64_t count, bool write_it)
{
	struct device *device = find(name);
	ssize_t done;
	int fd;

	if (!device)
		return ENODEV;
	fd = open_of(device);
	if (fd < 0)
		return errno;
	errno = 0;
	if (write_it)
		done = pwrite(fd, buffer, count * 512, (off_t)(sector * 512));
	else
		done = pread(fd, buffer, count * 512, (off_t)(sector * 512));
	if (done == (ssize_t)(count * 512))
		return 0;
	return done < 0 ? errno : EIO;
}

static int range(const char *name, uint64_t sector, uint64_t count, bool discard)
{
	struct device *device = find(name);
	uint64_t bytes[2] = { sector * 512, count * 512 };
	int fd = device ? open_of(device) : -1;

	if (fd < 0)
		return ENODEV;
	if (discard)
		return ioctl(fd, BLKDISCARD, bytes) ? errno : 0;
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)bytes[0],
			 (off_t)bytes[1])
		       ? errno
		       : 0;
}

static void stamp(uint64_t sector, uint64_t count, uint64_t seed)
{
	for (uint64_t i = 0; i < count; i++)
		program_stamp((uint64_t *)(void *)(buffer + i * 512), seed, sector + i);
}

static uint64_t size_of(const char *name)
{
	struct device *device = find(name);
	int fd = device ? open_of(device) : -1;
	uint64_t bytes = 0;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes))
		return 0;
	return bytes / 512;
}

static int sum_of(const char *name, uint64_t first, uint64_t count, uint32_t *sum)
{
	if (!find(name))
		return ENODEV;
	*sum = PROGRAM_SUM_BEGIN;
	for (uint64_t done = 0; done < count;) {
		uint64_t step = count - done < 64 ? count - done : 64;
		int error = transfer(name, first + done, step, false);

		if (error)
			return error;
		*sum = program_sum(*sum, buffer, step * 512);
		done += step;
	}
	return 0;
}

static void add_disk(const char *name, uint64_t sectors, const char *content, uint64_t seed)
{
	char table[256];
	unsigned int index = (unsigned int)(name[0] - 'A');

	snprintf(table, sizeof(table), "0 %llu linear %s %llu", (unsigned long long)sectors,
		 scratch, (unsigned long long)index * DISK_SECTORS);
	if (simple(name, DM_DEV_CREATE, 0))
		die(name);
	add(name)->is_disk = true;
	if (load(name, table) || simple(name, DM_DEV_SUSPEND, 0))
		die(table);
	for (uint64_t done = 0; done < sectors && strcmp(content, "kept") != 0; done += 64) {
		uint64_t step = sectors - done < 64 ? sectors - done : 64;

		memset(buffer, 0, step * 512);
		if (strcmp(content, "stamp") == 0)
			stamp(done, step, seed);
		if (transfer(name, done, step, true))
			die("filling");
	}
}

/* Replaces a disk's content by an image of the library's, or leaves one of it. */
static void exchange(const char *name, uint64_t offset, bool leave)
{
	uint64_t sectors = size_of(name);

	for (uint64_t done = 0; done < sectors;) {
		uint64_t step = sectors - done < BUFFER_SECTORS ? sectors - done : BUFFER_SECTORS;
		off_t at = (off_t)((offset + done) * 512);

		if (!leave && pread(images, buffer, step * 512, at) != (ssize_t)(step * 512))
			die("images");
		if (transfer(name, done, step, !leave))
			die("exchange");
		if (leave && pwrite(images, buffer, step * 512, at) != (ssize_t)(step * 512))
			die("images");
		done += step;
	}
}

/* ---- COW devices ---------------------------------------------------------------------------- */

static uint64_t number_at(unsigned int offset, unsigned int bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < bytes; i++)
		value |= (uint64_t)buffer[offset + i] << (8 * i);
	return value;
}

static void tell_header(const char *name)
{
	if (transfer(name, 0, 1, false))
		die("header");
	if (number_at(0, 4) == 0)
		snprintf(answer, sizeof(answer), "new");
	else if (number_at(0, 4) != 0x70416e53)
		snprintf(answer, sizeof(answer), "no store");
	else
		snprintf(answer, sizeof(answer), "%u %u %u", (unsigned int)number_at(4, 4),
			 (unsigned int)number_at(8, 4), (unsigned int)number_at(12, 4));
}

static void tell_entries(const char *name)
{
	uint64_t sectors = size_of(name);
	size_t used = 0;
	uint64_t chunk;

	if (transfer(name, 0, 1, false))
		die("entries");
	chunk = number_at(12, 4);
	answer[0] = '\0';
	if (chunk == 0 || number_at(0, 4) != 0x70416e53)
		return;
	if (number_at(4, 4) == 0) {
		snprintf(answer, sizeof(answer), "invalid");
		return;
	}
	for (uint64_t area = 0;; area++) {
		uint64_t first = (1 + (32 * chunk + 1) * area) * chunk;
		unsigned int i;

		if (first + chunk > sectors || transfer(name, first, chunk, false))
			break;
		for (i = 0; i < 32 * chunk && number_at(i * 16 + 8, 8); i++)
			used += (size_t)snprintf(answer + used, sizeof(answer) - used, "%s%llu>%llu",
						 used ? " " : "",
						 (unsigned long long)number_at(i * 16, 8),
						 (unsigned long long)number_at(i * 16 + 8, 8));
		if (i < 32 * chunk)
			break;
		used += (size_t)snprintf(answer + used, sizeof(answer) - used, " |");
	}
}

/* ---- programs ------------------------------------------------------------------------------- */

static void settle(const char *name)
{
	for (;;) {
		char *at;
		unsigned long long allocated;
		unsigned long long metadata;

		target_text(name, 0, answer, sizeof(answer));
		allocated = strtoull(answer, &at, 10);
		at = strchr(answer, ' ');
		metadata = at ? strtoull(at, NULL, 10) : 0;
		if (!at || allocated == metadata)
			return;
		usleep(1000);
	}
}

/* Waits until the mirrors of a device are in sync: "… 3/8 1 AA 1 core" isn't. */
static void insync(const char *name)
{
	for (;;) {
		const char *at = answer;
		bool done = true;

		all_lines(name, 0, answer, sizeof(answer));
		while ((at = strstr(at, " mirror "))) {
			unsigned long now = 0;
			unsigned long all = 0;

			at += strlen(" mirror ");
			while (*at && sscanf(at, "%lu/%lu", &now, &all) != 2)
				at = strchr(at, ' ') + 1;
			done = done && now == all;
		}
		if (done)
			return;
		usleep(1000);
	}
}

static int create(const char *name, const char *table)
{
	int error = simple(name, DM_DEV_CREATE, 0);

	if (error)
		return error;
	add(name);
	take_log();
	error = load(name, table);
	if (error) {
		take_log();
		snprintf(answer, sizeof(answer), "load %s", error_name(error));
		append_reason();
		drop(find(name));
		return -1;
	}
	error = simple(name, DM_DEV_SUSPEND, 0);
	take_log();
	if (error) {
		snprintf(answer, sizeof(answer), "resume %s", error_name(error));
		drop(find(name));
		return -1;
	}
	return 0;
}

/* Loads a table for a device that is never resumed. No table finds what another one has left. */
static int try_table(const char *table)
{
	int error;

	memset(buffer, 0, 512);
	for (unsigned int i = 0; i < num_devices; i++) {
		if (devices[i].is_disk && transfer(devices[i].name, 0, 1, true))
			die("wiping");
	}
	/* Anew each time: only the first table is compared with the devices below. */
	if (simple("try", DM_DEV_CREATE, 0))
		die("try");
	add("try");
	take_log();
	error = load("try", table);
	take_log();
	if (error) {
		snprintf(answer, sizeof(answer), "%s", error_name(error));
		append_reason();
	} else {
		snprintf(answer, sizeof(answer), "ok: ");
		all_lines("try", DM_STATUS_TABLE_FLAG | DM_QUERY_INACTIVE_TABLE_FLAG, answer + 4,
			  sizeof(answer) - 4);
	}
	error = drop(find("try"));
	return error ? error : -1;
}

static uint64_t number(char **words, unsigned int index)
{
	return strtoull(words[index], NULL, 10);
}

static void poke(char **words)
{
	uint64_t sector = number(words, 2);
	uint64_t offset = number(words, 3);

	if (transfer(words[1], sector, 1, false))
		die("poke");
	for (const char *hex = words[4]; hex[0] && hex[1]; hex += 2)
		buffer[offset++] = (unsigned char)strtoul((char[]){ hex[0], hex[1], 0 }, NULL, 16);
	if (transfer(words[1], sector, 1, true))
		die("poke");
}

/* Steps without an answer. */
static bool prepare(char **words)
{
	if (strcmp(words[0], "case") == 0) {
		drop_all();
	} else if (strcmp(words[0], "watch") == 0) {
		snprintf(watched, sizeof(watched), "%s", words[1]);
	} else if (strcmp(words[0], "disk") == 0) {
		add_disk(words[1], number(words, 2), words[3], number(words, 4));
	} else if (strcmp(words[0], "poke") == 0) {
		poke(words);
	} else if (strcmp(words[0], "ours") == 0 || strcmp(words[0], "theirs") == 0) {
		exchange(words[1], number(words, 2), words[0][0] == 't');
	} else if (strcmp(words[0], "wipe") == 0) {
		memset(buffer, 0, number(words, 3) * 512);
		if (transfer(words[1], number(words, 2), number(words, 3), true))
			die("wipe");
	} else {
		return false;
	}
	return true;
}

/* Steps that are answered by a text of their own: true. */
static bool ask(char **words)
{
	if (strcmp(words[0], "status") == 0) {
		target_text(words[1], 0, answer, sizeof(answer));
	} else if (strcmp(words[0], "table") == 0) {
		target_text(words[1], DM_STATUS_TABLE_FLAG, answer, sizeof(answer));
	} else if (strcmp(words[0], "events") == 0) {
		simple(words[1], DM_DEV_STATUS, 0);
		snprintf(answer, sizeof(answer), "%u", call.head.event_nr);
	} else if (strcmp(words[0], "settle") == 0) {
		settle(words[1]);
	} else if (strcmp(words[0], "lines") == 0) {
		all_lines(words[1], DM_STATUS_TABLE_FLAG, answer, sizeof(answer));
	} else if (strcmp(words[0], "insync") == 0) {
		insync(words[1]);
	} else if (strcmp(words[0], "size") == 0) {
		snprintf(answer, sizeof(answer), "%llu", (unsigned long long)size_of(words[1]));
	} else if (strcmp(words[0], "header") == 0) {
		tell_header(words[1]);
	} else if (strcmp(words[0], "entries") == 0) {
		tell_entries(words[1]);
	} else {
		return false;
	}
	return true;
}

/* Others: an errno; -1 if it is told already. */
static int act(char **words, const char *line, const char *table)
{
	const char *op = words[0];
	bool is_sum = strcmp(op, "sum") == 0;
	uint32_t sum;
	int error;

	if (strcmp(op, "create") == 0)
		return create(words[1], table);
	if (strcmp(op, "try") == 0)
		return try_table(line + strlen("try "));
	if (strcmp(op, "load") == 0) {
		take_log();
		error = load(words[1], table);
		take_log();
		snprintf(answer, sizeof(answer), "%s", error ? error_name(error) : "ok");
		append_reason();
		return -1;
	}
	if (strcmp(op, "resume") == 0)
		return simple(words[1], DM_DEV_SUSPEND, 0);
	if (strcmp(op, "suspend") == 0)
		return simple(words[1], DM_DEV_SUSPEND, DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG);
	if (strcmp(op, "remove") == 0)
		return find(words[1]) ? drop(find(words[1])) : ENODEV;
	if (strcmp(op, "message") == 0)
		return message(words[1], number(words, 2), strchr(table, ' ') + 1);
	if (strcmp(op, "flush") == 0)
		return find(words[1]) && fsync(open_of(find(words[1]))) == 0 ? 0 : EIO;
	if (strcmp(op, "discard") == 0 || strcmp(op, "zeroes") == 0)
		return range(words[1], number(words, 2), number(words, 3), op[0] == 'd');
	if (strcmp(op, "write") == 0) {
		stamp(number(words, 2), number(words, 3), number(words, 4));
		return transfer(words[1], number(words, 2), number(words, 3), true);
	}
	if (is_sum)
		error = sum_of(words[1], 0, size_of(words[1]), &sum);
	else if (strcmp(op, "read") == 0)
		error = sum_of(words[1], number(words, 2), number(words, 3), &sum);
	else
		return ENOSYS;
	if (!error)
		snprintf(answer, sizeof(answer), "%08x", sum);
	return error ? error : -1;
}

static void step(const char *line)
{
	char copy[PROGRAM_LINE_BYTES];
	char *words[32] = { NULL };
	const char *table = line;
	unsigned int count = 0;
	char *rest = copy;

	snprintf(copy, sizeof(copy), "%s", line);
	while (count < 31 && (words[count] = strsep(&rest, " ")))
		count++;
	for (unsigned int i = 0; i < 2 && table; i++) {
		table = strchr(table, ' ');
		table += table ? 1 : 0;
	}
	while (count < 6)
		words[count++] = copy + strlen(copy);
	answer[0] = '\0';
	log_text[0] = '\0';
	printf("%s", line);
	if (!prepare(words)) {
		if (!ask(words)) {
			int error = act(words, line, table);

			if (error >= 0)
				snprintf(answer, sizeof(answer), "%s",
					 error ? error_name(error) : "ok");
			if (watched[0] && find(watched)) {
				size_t used = strlen(answer);

				snprintf(answer + used, sizeof(answer) - used, "; ");
				target_text(watched, 0, answer + used + 2,
					    sizeof(answer) - used - 2);
			}
		}
		printf(" = %s", answer);
	}
	printf("\n");
	if (!log_text[0])
		take_log();
	for (char *text = strtok(log_text, "\n"); text; text = strtok(NULL, "\n")) {
		if (getenv("LOG"))
			printf("# %s\n", text);
	}
}

int main(int argc, char **argv)
{
	static char line[PROGRAM_LINE_BYTES];
	struct stat disk;

	if (argc < 2 || argc > 3 || stat(argv[1], &disk))
		die("usage: record-programs DISK [IMAGES]");
	snprintf(scratch, sizeof(scratch), "%u:%u", major(disk.st_rdev), minor(disk.st_rdev));
	control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (argc == 3)
		images = open(argv[2], O_RDWR | O_DIRECT | O_CLOEXEC);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	buffer = aligned_alloc(4096, BUFFER_SECTORS * 512);
	if (control < 0 || kmsg < 0 || !buffer)
		die("/dev/mapper/control or /dev/kmsg");
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		char *end = strstr(line, " = ");

		line[strcspn(line, "\n")] = '\0';
		if (end)
			*end = '\0';
		if (line[0] == '#' && strncmp(line, "# device-mapper", 15) == 0)
			continue;
		if (!line[0] || line[0] == '#')
			printf("%s\n", line);
		else
			step(line);
	}
	drop_all();
	return 0;
}
