/* SPDX-License-Identifier: MIT */
/* Numbers of block devices, and pins. See numbers.h. */
#include "numbers.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "../dmsetup/protocol.h"
#include "nbdkit.h"

/* Of what isn't a block device: the names that have a number. Later ones share the last. */
#define FILES_MAX 65536u

struct entry {
	struct dmcore_device *device;
	uint32_t minor;
	unsigned int pins;
	bool seen; /* numbers_refresh()'s. */
};

struct numbers {
	struct devices *devices;
	struct entry *entries;
	unsigned int num_entries;
	unsigned int room_entries;
	char **files; /* [minor - 1]: what has 0:minor. */
	unsigned int num_files;
};

struct numbers *numbers_make(struct devices *devices)
{
	struct numbers *numbers = calloc(1, sizeof(*numbers));

	if (numbers)
		numbers->devices = devices;
	return numbers;
}

void numbers_free(struct numbers *numbers)
{
	if (!numbers)
		return;
	for (unsigned int i = 0; i < numbers->num_files; i++)
		free(numbers->files[i]);
	free(numbers->files);
	free(numbers->entries);
	free(numbers);
}

/* ---- mapped devices ---- */

static struct entry *entry_of(struct numbers *numbers, const struct dmcore_device *device)
{
	for (unsigned int i = 0; i < numbers->num_entries; i++) {
		if (numbers->entries[i].device == device)
			return &numbers->entries[i];
	}
	return NULL;
}

static struct entry *entry_with(struct numbers *numbers, uint32_t minor)
{
	for (unsigned int i = 0; i < numbers->num_entries; i++) {
		if (numbers->entries[i].minor == minor)
			return &numbers->entries[i];
	}
	return NULL;
}

static struct entry *add(struct numbers *numbers, struct dmcore_device *device)
{
	uint32_t minor = 0;

	if (numbers->num_entries == numbers->room_entries) {
		unsigned int room = numbers->room_entries ? numbers->room_entries * 2 : 16;
		struct entry *entries = realloc(numbers->entries, room * sizeof(*entries));

		if (!entries)
			return NULL;
		numbers->entries = entries;
		numbers->room_entries = room;
	}
	while (entry_with(numbers, minor))
		minor++;
	numbers->entries[numbers->num_entries] = (struct entry){
		.device = device,
		.minor = minor,
	};
	return &numbers->entries[numbers->num_entries++];
}

/*
 * Those that have gone give up their numbers first: a device may be where another one was, for one
 * that is made is given its number before anything else can go.
 */
int numbers_refresh(struct numbers *numbers)
{
	struct dmcore *core = devices_core(numbers->devices);
	struct dmcore_device *device;
	unsigned int kept = 0;

	for (unsigned int i = 0; i < numbers->num_entries; i++)
		numbers->entries[i].seen = false;
	for (unsigned int i = 0; (device = dmcore_device_at(core, i)); i++) {
		struct entry *entry = entry_of(numbers, device);

		if (entry)
			entry->seen = true;
	}
	for (unsigned int i = 0; i < numbers->num_entries; i++) {
		if (numbers->entries[i].seen)
			numbers->entries[kept++] = numbers->entries[i];
	}
	numbers->num_entries = kept;
	for (unsigned int i = 0; (device = dmcore_device_at(core, i)); i++) {
		if (!entry_of(numbers, device) && !add(numbers, device))
			return -ENOMEM;
	}
	return 0;
}

struct dmcore_device *numbers_find(struct numbers *numbers, uint64_t dev)
{
	struct entry *entry = NULL;

	if (major(dev) == CONTROL_MAJOR)
		entry = entry_with(numbers, minor(dev));
	return entry ? entry->device : NULL;
}

struct dmcore_device *numbers_find_uuid(struct numbers *numbers, const char *uuid)
{
	for (unsigned int i = 0; i < numbers->num_entries; i++) {
		struct dmcore_device_info info = { .struct_size = sizeof(info) };

		if (dmcore_device_info(numbers->entries[i].device, &info) == 0 &&
		    strcmp(info.uuid, uuid) == 0)
			return numbers->entries[i].device;
	}
	return NULL;
}

uint64_t numbers_of(struct numbers *numbers, const struct dmcore_device *device)
{
	const struct entry *entry = entry_of(numbers, device);

	return entry ? makedev(CONTROL_MAJOR, entry->minor) : 0;
}

int numbers_choose(struct numbers *numbers, struct dmcore_device *device, uint64_t dev)
{
	struct entry *entry = entry_of(numbers, device);
	struct entry *holder = entry_with(numbers, minor(dev));

	if (!entry || minor(dev) >= CONTROL_MINORS_MAX)
		return -EINVAL;
	if (holder && holder != entry)
		return -EBUSY;
	entry->minor = minor(dev);
	return 0;
}

/* ---- what they stand on ---- */

static uint64_t number_of_file(struct numbers *numbers, const char *spec)
{
	unsigned int i = 0;
	char **files;

	while (i < numbers->num_files && strcmp(numbers->files[i], spec) != 0)
		i++;
	if (i < numbers->num_files)
		return makedev(0, i + 1);
	if (i == FILES_MAX)
		return makedev(0, FILES_MAX);
	files = realloc(numbers->files, (i + 1) * sizeof(*files));
	if (!files)
		return makedev(0, FILES_MAX);
	numbers->files = files;
	files[i] = strdup(spec);
	if (!files[i])
		return makedev(0, FILES_MAX);
	numbers->num_files++;
	return makedev(0, i + 1);
}

/* "8:16" */
static bool read_number(const char *text, uint64_t *dev)
{
	char *colon;
	char *end;
	unsigned long long first;
	unsigned long long second;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	first = strtoull(text, &colon, 10);
	if (*colon != ':' || !isdigit((unsigned char)colon[1]))
		return false;
	second = strtoull(colon + 1, &end, 10);
	if (*end || errno || first > UINT32_MAX || second > UINT32_MAX)
		return false;
	*dev = makedev((unsigned int)first, (unsigned int)second);
	return true;
}

uint64_t numbers_of_spec(struct numbers *numbers, const char *spec)
{
	struct dmcore_device *device = dmcore_device_find(devices_core(numbers->devices), spec);
	struct stat st;
	uint64_t dev;

	if (device)
		return numbers_of(numbers, device);
	if (read_number(spec, &dev))
		return dev;
	if (strncmp(spec, "file:", 5) == 0)
		spec += 5;
	if (stat(spec, &st) == 0 && S_ISBLK(st.st_mode))
		return st.st_rdev;
	return number_of_file(numbers, spec);
}

/* ---- numbers in tables ---- */

/* Writes a name so that it is one word. */
static void write_quoted(FILE *out, const char *name)
{
	fputs("/dev/mapper/", out);
	for (; *name; name++) {
		if (*name == '\\' || isspace((unsigned char)*name))
			fputc('\\', out);
		fputc(*name, out);
	}
}

/* -ENXIO: the word is the number of a mapped device that there isn't. */
static int write_word(struct numbers *numbers, FILE *out, const char *word)
{
	struct dmcore_device *device;
	uint64_t dev;

	if (!read_number(word, &dev) || major(dev) != CONTROL_MAJOR) {
		fputs(word, out);
		return 0;
	}
	device = numbers_find(numbers, dev);
	if (!device)
		return -ENXIO;
	write_quoted(out, dmcore_device_name(device));
	return 0;
}

/* Up to the next white space that isn't quoted. */
static size_t word_length(const char *text)
{
	size_t length = 0;

	while (text[length] && !isspace((unsigned char)text[length]))
		length += text[length] == '\\' && text[length + 1] ? 2 : 1;
	return length;
}

int numbers_name_words(struct numbers *numbers, const char *args, char **result, char *missing,
		       size_t missing_bytes)
{
	size_t bytes;
	FILE *out = open_memstream(result, &bytes);
	char *word = strdup(args);
	int ret = out && word ? 0 : -ENOMEM;

	while (ret == 0 && *args) {
		size_t length = word_length(args);

		memcpy(word, args, length);
		word[length] = '\0';
		ret = write_word(numbers, out, word);
		if (ret)
			snprintf(missing, missing_bytes, "%s", word);
		args += length;
		for (; ret == 0 && isspace((unsigned char)*args); args++)
			fputc(*args, out);
	}
	free(word);
	if (out && fclose(out) != 0 && ret == 0)
		ret = -ENOMEM;
	if (out && ret)
		free(*result);
	if (ret)
		*result = NULL;
	return ret;
}

/* ---- pins ---- */

unsigned int numbers_pins(struct numbers *numbers, const struct dmcore_device *device)
{
	const struct entry *entry = entry_of(numbers, device);

	return entry ? entry->pins : 0;
}

int numbers_pin(struct numbers *numbers, struct dmcore_device *device, struct pin *pin)
{
	/* One that is read-only can't be opened otherwise, and to the others it is the same. */
	int ret = dmcore_bdev_open(devices_core(numbers->devices), dmcore_device_name(device),
				   DMCORE_OPEN_READ_ONLY, &pin->bdev);

	if (ret)
		return ret;
	pin->device = device;
	entry_of(numbers, device)->pins++;
	return 0;
}

void numbers_unpin(struct numbers *numbers, struct pin *pin)
{
	int ret;

	devices_lock(numbers->devices);
	entry_of(numbers, pin->device)->pins--;
	/* As the last opening it may remove a device whose removal was deferred. */
	ret = dmcore_bdev_close(pin->bdev);
	devices_unlock(numbers->devices);
	if (ret)
		nbdkit_error("control: %s (%s)", dmcore_error_message(), dmcore_error_name(ret));
}
