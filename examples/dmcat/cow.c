/* SPDX-License-Identifier: MIT */
/* COW devices of persistent snapshots: listed, and checked. Called by commands.c. */
#include "cow.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cow_check.h"
#include "devices.h"
#include "json.h"

/* So many findings of a kind are printed without --all. */
#define FINDINGS_OF_A_KIND 20

static const char *fault_name(const struct cow_reader *reader)
{
	switch (reader->fault) {
	case DMCORE_COW_GOOD:
		return reader->header.valid ? "valid" : "invalidated";
	case DMCORE_COW_NEW:
		return "new";
	case DMCORE_COW_BAD_MAGIC:
		return "not-a-cow";
	case DMCORE_COW_BAD_VERSION:
		return "other-version";
	default:
		return "bad-chunk-size";
	}
}

static void print_name(const char *spec)
{
	printf("{\"device\":");
	json_string(spec, strlen(spec));
}

/* `"next_free":32,…`, without braces. */
static void print_list_json(const struct cow_reader *reader, const struct cow_list *list)
{
	printf("\"num_entries\":%" PRIu64 ",\"current_area\":%" PRIu64 ",\"terminated\":%s"
	       ",\"next_free_chunk\":%" PRIu64 ",\"allocated_sectors\":%" PRIu64
	       ",\"total_sectors\":%" PRIu64 ",\"metadata_sectors\":%" PRIu64,
	       list->num_entries, list->end.area, list->is_terminated ? "true" : "false",
	       list->next_free, list->allocated_sectors, reader->size_sectors,
	       list->metadata_sectors);
}

static void print_list_text(const struct cow_reader *reader, const struct cow_list *list)
{
	printf("%" PRIu64 " entries, next free chunk %" PRIu64, list->num_entries,
	       list->next_free);
	if (reader->header.valid == 0)
		printf(", status Invalid");
	else if (list->is_terminated)
		printf(", status %" PRIu64 "/%" PRIu64 " %" PRIu64, list->allocated_sectors,
		       reader->size_sectors, list->metadata_sectors);
}

static enum exit_status cant_tell(struct session *session, enum exit_status status, int error)
{
	if (error == -ENOMEM)
		return report_error(&session->report, status, ENOMEM, "no memory");
	return report_library(&session->report, status, error);
}

/* ---- cow-dump ---- */

/* A run of entries: consecutive in both numbers, in one area. */
struct run {
	struct cow_place place; /* of the first */
	struct dmcore_cow_entry first;
	uint32_t count;         /* 0: there is none */
};

struct dump {
	struct cow_reader *reader;
	bool as_json;
	bool folds;
	bool has_area;          /* one has been begun */
	uint64_t area;
	struct run run;
	const char *separator;  /* between the runs of a JSON list */
};

static void print_run_text(const struct run *run)
{
	uint64_t more = run->count - 1;

	printf("  %" PRIu32, run->place.index);
	if (more)
		printf("-%" PRIu64, run->place.index + more);
	printf(": %" PRIu64, run->first.old_chunk);
	if (more)
		printf("-%" PRIu64, run->first.old_chunk + more);
	printf(" in %" PRIu64, run->first.new_chunk);
	if (more)
		printf("-%" PRIu64, run->first.new_chunk + more);
	putchar('\n');
}

static void print_run(struct dump *dump)
{
	const struct run *run = &dump->run;

	if (run->count == 0)
		return;
	if (dump->as_json)
		printf("%s{\"index\":%" PRIu32 ",\"old_chunk\":%" PRIu64 ",\"new_chunk\":%" PRIu64
		       ",\"count\":%" PRIu32 "}",
		       dump->separator, run->place.index, run->first.old_chunk,
		       run->first.new_chunk, run->count);
	else
		print_run_text(run);
	dump->separator = ",";
	dump->run.count = 0;
}

static void begin_area(struct dump *dump, uint64_t area)
{
	uint64_t chunk = dmcore_cow_area_chunk(dump->reader->chunk_sectors, area);

	print_run(dump);
	if (dump->as_json)
		printf("%s{\"area\":%" PRIu64 ",\"chunk\":%" PRIu64 ",\"runs\":[",
		       dump->has_area ? "]}," : "", area, chunk);
	else
		printf("area %" PRIu64 ", chunk %" PRIu64 "\n", area, chunk);
	dump->separator = "";
	dump->has_area = true;
	dump->area = area;
}

static int dump_entry(void *context, const struct cow_place *place,
		      const struct dmcore_cow_entry *entry)
{
	struct dump *dump = context;
	struct run *run = &dump->run;

	if (!dump->has_area || dump->area != place->area)
		begin_area(dump, place->area);
	if (run->count > 0 && dump->folds &&
	    entry->old_chunk == run->first.old_chunk + run->count &&
	    entry->new_chunk == run->first.new_chunk + run->count) {
		run->count++;
		return 0;
	}
	print_run(dump);
	*run = (struct run){ *place, *entry, 1 };
	return 0;
}

static void print_header(const struct dump *dump, const char *spec)
{
	const struct cow_reader *reader = dump->reader;
	const struct dmcore_cow_header *header = &reader->header;

	if (dump->as_json) {
		print_name(spec);
		printf(",\"size_sectors\":%" PRIu64 ",\"header\":{\"magic\":%" PRIu32
		       ",\"valid\":%" PRIu32 ",\"version\":%" PRIu32 ",\"chunk_sectors\":%" PRIu32
		       "},\"state\":\"%s\"",
		       reader->size_sectors, header->magic, header->valid, header->version,
		       header->chunk_sectors, fault_name(reader));
		return;
	}
	printf("%s: %s, %" PRIu64 " sectors\n", spec, fault_name(reader), reader->size_sectors);
	printf("header: magic 0x%" PRIx32 ", valid %" PRIu32 ", version %" PRIu32
	       ", chunks of %" PRIu32 " sectors\n",
	       header->magic, header->valid, header->version, header->chunk_sectors);
}

static int dump_list(struct dump *dump)
{
	struct cow_reader *reader = dump->reader;
	struct cow_list list;
	int ret;

	if (dump->as_json)
		printf(",\"chunk_sectors\":%" PRIu32 ",\"area_entries\":%" PRIu32 ",\"areas\":[",
		       reader->chunk_sectors, reader->area_entries);
	ret = cow_walk(reader, dump_entry, dump, &list);
	if (ret == 0 && list.is_terminated && (!dump->has_area || dump->area != list.end.area))
		begin_area(dump, list.end.area);
	print_run(dump);
	if (dump->as_json)
		fputs(dump->has_area ? "]}]" : "]", stdout);
	if (ret)
		return ret;
	if (dump->as_json) {
		putchar(',');
		print_list_json(reader, &list);
	} else {
		if (!list.is_terminated)
			puts("the device ends before the next area");
		print_list_text(reader, &list);
		putchar('\n');
	}
	return 0;
}

static int dump_all(struct session *session, const char *spec, struct cow_reader *reader)
{
	struct dump dump = {
		.reader = reader,
		.as_json = session->options.json,
		.folds = !session->options.cow.all,
		.separator = "",
	};
	int ret = 0;

	print_header(&dump, spec);
	if (cow_reader_choose_chunks(reader, session->options.cow.chunk_sectors))
		ret = dump_list(&dump);
	if (dump.as_json)
		puts("}");
	return ret;
}

enum exit_status cow_print(struct session *session, const char *spec)
{
	struct cow_reader reader;
	struct dmcore_bdev *bdev;
	enum exit_status status = devices_open(session, spec, false, &bdev);
	int ret;

	if (status)
		return status;
	ret = cow_reader_open(&reader, bdev);
	if (ret == 0)
		ret = dump_all(session, spec, &reader);
	if (ret)
		status = cant_tell(session, EXIT_IO_FAILED, ret);
	else if (reader.fault != DMCORE_COW_NEW && !reader.chunk_sectors)
		status = report_error(&session->report, EXIT_IO_FAILED, EINVAL,
				      reader.fault == DMCORE_COW_BAD_MAGIC ?
					      "%s is no COW device of a persistent snapshot" :
					      "the entries of %s can't be read: see cow-check",
				      spec);
	cow_reader_close(&reader);
	dmcore_bdev_close(bdev);
	return status;
}

/* ---- cow-check ---- */

struct judgement {
	const char *spec;
	bool as_json;
	const char *separator; /* between the findings of a JSON list */
};

static void print_finding_json(struct judgement *judgement, const struct cow_finding *finding)
{
	const struct cow_kind_info *kind = &cow_kinds[finding->kind];

	printf("%s{\"kind\":\"%s\",\"severity\":\"%s\"", judgement->separator, kind->name,
	       kind->is_error ? "error" : "warning");
	if (kind->scope != COW_IN_HEADER)
		printf(",\"area\":%" PRIu64, finding->place.area);
	if (kind->scope == COW_IN_ENTRY)
		printf(",\"index\":%" PRIu32 ",\"old_chunk\":%" PRIu64 ",\"new_chunk\":%" PRIu64,
		       finding->place.index, finding->entry.old_chunk, finding->entry.new_chunk);
	printf(",\"text\":");
	json_string(finding->text, strlen(finding->text));
	printf(",\"meaning\":");
	json_string(kind->meaning, strlen(kind->meaning));
	putchar('}');
	judgement->separator = ",";
}

static void print_finding(void *context, const struct cow_finding *finding)
{
	const struct cow_kind_info *kind = &cow_kinds[finding->kind];
	struct judgement *judgement = context;

	if (judgement->as_json) {
		print_finding_json(judgement, finding);
		return;
	}
	printf("%s: ", judgement->spec);
	if (kind->scope == COW_IN_HEADER)
		printf("header: ");
	else
		printf("area %" PRIu64, finding->place.area);
	if (kind->scope == COW_IN_AREA)
		printf(": ");
	else if (kind->scope == COW_IN_ENTRY)
		printf(", entry %" PRIu32 ": chunk %" PRIu64 " in %" PRIu64 ": ",
		       finding->place.index, finding->entry.old_chunk, finding->entry.new_chunk);
	printf("%s: %s: %s (%s)\n", kind->is_error ? "error" : "warning", kind->name,
	       finding->text, kind->meaning);
}

static void print_end_json(const struct cow_check *check, const struct cow_reader *reader)
{
	const char *separator = "";

	printf("],\"counts\":{");
	for (unsigned int i = 0; i < COW_NUM_KINDS; i++) {
		if (check->counts[i] == 0)
			continue;
		printf("%s\"%s\":%" PRIu64, separator, cow_kinds[i].name, check->counts[i]);
		separator = ",";
	}
	putchar('}');
	if (check->has_list) {
		putchar(',');
		print_list_json(reader, &check->list);
	}
	printf(",\"clean\":%s}\n", check->num_findings ? "false" : "true");
}

static void print_end_text(const struct judgement *judgement, const struct cow_check *check,
			   const struct cow_reader *reader)
{
	for (unsigned int i = 0; i < COW_NUM_KINDS; i++) {
		if (check->counts[i] > check->limit)
			printf("%s: %s: %" PRIu64 " more; --all prints them\n", judgement->spec,
			       cow_kinds[i].name, check->counts[i] - check->limit);
	}
	printf("%s: ", judgement->spec);
	if (check->has_list) {
		print_list_text(reader, &check->list);
		printf(": ");
	}
	if (check->num_findings == 0)
		puts("clean");
	else
		printf("%" PRIu64 " problem%s\n", check->num_findings,
		       check->num_findings > 1 ? "s" : "");
}

static int judge(struct session *session, struct cow_check *check, struct cow_reader *reader,
		 const char *spec)
{
	struct judgement judgement = { spec, session->options.json, "" };
	int ret;

	check->chunk_sectors = session->options.cow.chunk_sectors;
	check->limit = session->options.cow.all ? UINT64_MAX : FINDINGS_OF_A_KIND;
	check->fn = print_finding;
	check->context = &judgement;
	if (judgement.as_json) {
		print_name(spec);
		printf(",\"size_sectors\":%" PRIu64 ",\"problems\":[", reader->size_sectors);
	}
	ret = cow_check(check, reader);
	if (judgement.as_json && ret)
		puts("]}");
	else if (judgement.as_json)
		print_end_json(check, reader);
	else if (ret == 0)
		print_end_text(&judgement, check, reader);
	return ret;
}

static enum exit_status read_origin(struct session *session, uint64_t *size_sectors)
{
	struct dmcore_bdev *bdev;
	enum exit_status status;

	if (!session->options.cow.origin)
		return EXIT_DONE;
	status = devices_open(session, session->options.cow.origin, false, &bdev);
	if (status)
		return status;
	*size_sectors = dmcore_bdev_size_sectors(bdev);
	dmcore_bdev_close(bdev);
	return EXIT_DONE;
}

enum exit_status cow_judge(struct session *session, const char *spec)
{
	struct cow_check check = { .origin_sectors = DMCORE_DEVICE_SECTORS_MAX };
	struct cow_reader reader;
	struct dmcore_bdev *bdev;
	enum exit_status status = read_origin(session, &check.origin_sectors);
	int ret;

	if (status == EXIT_DONE)
		status = devices_open(session, spec, false, &bdev);
	if (status) {
		session->report.worst = EXIT_BAD_USAGE;
		return EXIT_BAD_USAGE;
	}
	ret = cow_reader_open(&reader, bdev);
	if (ret == 0)
		ret = judge(session, &check, &reader, spec);
	cow_reader_close(&reader);
	dmcore_bdev_close(bdev);
	if (ret)
		return cant_tell(session, EXIT_BAD_USAGE, ret);
	if (check.num_findings == 0)
		return EXIT_DONE;
	if (session->report.worst < EXIT_IO_FAILED)
		session->report.worst = EXIT_IO_FAILED;
	return EXIT_IO_FAILED;
}
