/* SPDX-License-Identifier: MIT */
/*
 * Devices from dmsetup's concise form, `name,uuid,minor,flags,table[,table…][;name,…]`. Called by
 * applications.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/args.h"
#include "base/error.h"
#include "map/map.h"

enum field { FIELD_NAME, FIELD_UUID, FIELD_MINOR, FIELD_FLAGS, FIELD_TABLE, FIELDS };

/* One device; each field ended by NUL, the table's lines by newlines. */
struct entry {
	char *fields[FIELDS];
	unsigned int num_fields;
};

/*
 * Takes the next device off *text, in place: commas between fields become NUL, those between lines
 * of its table newlines, and the quoting goes.
 */
static void take_entry(char **text, struct entry *entry)
{
	char *in = *text;
	char *out;

	*entry = (struct entry){ .num_fields = 1 };
	while (dmcore__is_space(*in))
		in++;
	out = in;
	entry->fields[FIELD_NAME] = out;
	for (; *in && *in != ';'; in++) {
		if (*in == '\\' && in[1]) {
			*out++ = *++in;
		} else if (*in != ',') {
			*out++ = *in;
		} else if (entry->num_fields == FIELDS) {
			*out++ = '\n';
		} else {
			*out++ = '\0';
			entry->fields[entry->num_fields++] = out;
		}
	}
	if (*in)
		in++;
	*out = '\0';
	*text = in;
}

static int check_entry(const struct entry *entry, unsigned int *device_flags)
{
	const char *flags = entry->fields[FIELD_FLAGS];
	size_t table_bytes;

	if (entry->num_fields < FIELDS)
		return dmcore__error(-EINVAL,
				     "Five comma-separated fields are required for each device");
	table_bytes = strlen(entry->fields[FIELD_TABLE]);
	if (table_bytes == 0 || entry->fields[FIELD_TABLE][table_bytes - 1] == '\n')
		return dmcore__error(-EINVAL, "Incomplete entry: five comma-separated fields are "
					      "required for each device");
	*device_flags = 0;
	if (strcmp(flags, "ro") == 0)
		*device_flags = DMCORE_OPEN_READ_ONLY;
	else if (*flags && strcmp(flags, "rw") != 0)
		return dmcore__error(-EINVAL,
				     "Invalid flags parameter '%s' must be 'ro' or 'rw' "
				     "or empty.",
				     flags);
	return 0;
}

static int load_and_resume(struct dmcore_device *device, const char *text, unsigned int flags)
{
	struct dmcore_table *table;
	int ret = dmcore__table_parse(device->core, text, flags, &table);

	if (ret)
		return ret;
	ret = dmcore__device_load(device, table);
	if (ret) {
		dmcore__table_destroy(table);
		return ret;
	}
	return dmcore__device_resume(device);
}

static int make_device(struct dmcore *core, const struct entry *entry, unsigned int flags,
		       const void *maker, struct dmcore_device **result)
{
	struct dmcore_device *device;
	unsigned int device_flags = 0;
	int ret = check_entry(entry, &device_flags);

	if (ret)
		goto fail;
	ret = dmcore__device_create(core, entry->fields[FIELD_NAME], entry->fields[FIELD_UUID],
				    device_flags, &device);
	if (ret)
		goto fail;
	device->maker = maker;
	ret = load_and_resume(device, entry->fields[FIELD_TABLE], flags | device_flags);
	if (ret)
		goto remove_device;
	*result = device;
	return 0;

remove_device:
	dmcore__device_remove(device);
fail:
	return dmcore__error_prefix(ret, "device %.127s", entry->fields[FIELD_NAME]);
}

/* Removes what this call has made, youngest first: only what it made stands on it. */
static void remove_devices(struct dmcore *core, const void *maker)
{
	struct dmcore__list *node = core->map->devices.prev;

	while (node != &core->map->devices) {
		struct dmcore_device *device =
			dmcore__container_of(node, struct dmcore_device, link);

		node = node->prev;
		if (device->maker == maker && dmcore__device_remove(device) == 0)
			node = core->map->devices.prev;
	}
}

/* The devices are other calls' to use as well from now on. */
static void forget_maker(struct dmcore *core, const void *maker)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->map->devices) {
		struct dmcore_device *device =
			dmcore__container_of(node, struct dmcore_device, link);

		if (device->maker == maker)
			device->maker = NULL;
	}
}

static int make_devices(struct dmcore *core, char *text, unsigned int flags,
			struct dmcore_device **last)
{
	/* An address tells this call's devices from others': targets that are resumed do without
	 * the control lock. */
	struct entry entry;
	int ret = 0;

	while (*text && ret == 0) {
		take_entry(&text, &entry);
		if (entry.num_fields == 1 && !*entry.fields[FIELD_NAME])
			continue;
		ret = make_device(core, &entry, flags, &entry, last);
	}
	if (ret) {
		*last = NULL;
		remove_devices(core, &entry);
	}
	forget_maker(core, &entry);
	return ret;
}

int dmcore_device_create_concise(struct dmcore *core, const char *text, unsigned int flags,
				 struct dmcore_device **last)
{
	struct dmcore_device *device = NULL;
	size_t bytes = strnlen(text ? text : "", DMCORE_TABLE_TEXT_BYTES_MAX + 1);
	char *copy;
	int ret;

	if (last)
		*last = NULL;
	if (!core || !text)
		return dmcore__error(-EINVAL, "no core, or no text");
	if (bytes > DMCORE_TABLE_TEXT_BYTES_MAX)
		return dmcore__error(-E2BIG, "the concise form is longer than %u bytes",
				     DMCORE_TABLE_TEXT_BYTES_MAX);
	copy = dmcore__strndup(core, text, bytes);
	if (!copy)
		return dmcore__error(-ENOMEM, "no memory for %zu bytes of text", bytes);
	ret = dmcore__control_begin(core);
	if (ret == 0) {
		ret = make_devices(core, copy, flags, &device);
		dmcore__unlock(core);
	}
	dmcore__free(core, copy);
	if (ret == 0 && last)
		*last = device;
	return ret;
}
