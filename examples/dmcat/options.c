/* SPDX-License-Identifier: MIT */
/* The command line. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "words.h"

enum {
	OPTION_DEV = 256,
	OPTION_WORKERS,
	OPTION_DIRECT,
	OPTION_JSON,
	OPTION_WATCH,
	/* Of replay alone. */
	OPTION_START_ENTRY,
	OPTION_START_MARK,
	OPTION_LIMIT,
	OPTION_END_MARK,
	OPTION_NEXT_FLUSH,
	OPTION_NEXT_FUA,
	/* Of cow-check and cow-dump. */
	OPTION_ALL,
	OPTION_CHUNK_SIZE,
	OPTION_ORIGIN,
	/* All those of copy. */
	OPTION_COPY,
};

static const struct option long_options[] = {
	{ "dev", required_argument, NULL, OPTION_DEV },
	{ "workers", required_argument, NULL, OPTION_WORKERS },
	{ "direct", no_argument, NULL, OPTION_DIRECT },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "watch", optional_argument, NULL, OPTION_WATCH },
	{ "start-entry", required_argument, NULL, OPTION_START_ENTRY },
	{ "start-mark", required_argument, NULL, OPTION_START_MARK },
	{ "limit", required_argument, NULL, OPTION_LIMIT },
	{ "end-mark", required_argument, NULL, OPTION_END_MARK },
	{ "next-flush", no_argument, NULL, OPTION_NEXT_FLUSH },
	{ "next-fua", no_argument, NULL, OPTION_NEXT_FUA },
	{ "all", no_argument, NULL, OPTION_ALL },
	{ "chunk-size", required_argument, NULL, OPTION_CHUNK_SIZE },
	{ "origin", required_argument, NULL, OPTION_ORIGIN },
	{ "sparse", no_argument, NULL, OPTION_COPY },
	{ "share", no_argument, NULL, OPTION_COPY },
	{ "verify", no_argument, NULL, OPTION_COPY },
	{ "no-flush", no_argument, NULL, OPTION_COPY },
	{ "ignore-errors", no_argument, NULL, OPTION_COPY },
	{ "grow", no_argument, NULL, OPTION_COPY },
	{ "rate", required_argument, NULL, OPTION_COPY },
	{ "resume", required_argument, NULL, OPTION_COPY },
	{ "save-every", required_argument, NULL, OPTION_COPY },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static const char help[] =
	"Usage: dmcat [OPTIONS] COMMAND [ARGS]\n"
	"Define mapped devices over files and block devices, and read and write them.\n"
	"\n"
	"  -d NAME=TABLE      define a mapped device; NAME=@FILE takes the table from a file,\n"
	"                     @- from standard input. Repeatable, in order: later tables may\n"
	"                     name earlier devices as NAME or /dev/mapper/NAME\n"
	"  -t TABLE|@FILE     define one without a name\n"
	"  -c CONCISE         define several in dmsetup's concise form\n"
	"      --dev DEV      act on this device, not on the one defined last: a NAME, a path,\n"
	"                     MAJOR:MINOR or DRIVER:ARGS\n"
	"  -b BACKEND         auto, io_uring or pread\n"
	"      --workers N    threads of the pread backend, 0 to 64\n"
	"  -r                 open everything read-only\n"
	"      --direct       past the page cache\n"
	"      --json         status, table, info, targets, replay, copy, cow-dump,\n"
	"                     cow-check and scrub as JSON\n"
	"      --watch[=SECONDS]\n"
	"                     what mapped devices do during read, write, copy and run: a line\n"
	"                     an interval (1 second) on standard error\n"
	"  -q                 no progress bar, no warnings\n"
	"  -k                 keep going after an error in a script\n"
	"  -h, --help         print this\n"
	"  -V, --version      print the version\n"
	"\n"
	"Commands:\n"
	"  read [SECTOR [COUNT]]   to standard output\n"
	"  write [SECTOR]          from standard input, then flush\n"
	"  status | table | info   of the device\n"
	"  targets                 the target types and their versions\n"
	"  replay LOG [DEV]        a log of log-writes: list it, or carry it out on a device\n"
	"      --start-entry N     from this entry on, counted from 0\n"
	"      --start-mark TEXT   from behind this mark on\n"
	"      --limit N           so many entries at the most\n"
	"      --end-mark TEXT     up to this mark; --next-flush, --next-fua: up to the next one\n"
	"  copy SRC DEST...        a whole device, file or disk to up to 8 others, then flush\n"
	"      --sparse            leave zeroes out: destinations get holes where they can\n"
	"      --share             let files share their blocks, and the kernel copy\n"
	"      --verify            read all again afterwards, and compare\n"
	"      --rate BYTES        so many a second at the most: 64M, 500k ...\n"
	"      --resume FILE       keep there how far it is, and go on from there\n"
	"      --save-every SECONDS   how often (5)\n"
	"      --ignore-errors     go on; what can't be read becomes zeroes\n"
	"      --grow              lengthen destination files that are too short\n"
	"      --no-flush          don't wait until all is durable\n"
	"  cow-dump COW            what a persistent snapshot keeps: header, entries, usage\n"
	"      --all               each entry on a line of its own\n"
	"      --chunk-size SECTORS   for a COW whose header is damaged\n"
	"  cow-check COW           what is wrong with it; 0: nothing, 1: something, 2: can't tell\n"
	"      --all               everything, not the first 20 of each kind\n"
	"      --origin DEV        look also whether all is within its origin\n"
	"  scrub [repair]          compare the legs of the device's mirrors; 1: they differ\n"
	"  run FILE|-              a script, a command a line:\n"
	"    create|load NAME, table lines, end   or   create|load NAME TABLE\n"
	"    suspend NAME [--noflush] [--timeout SECONDS]     resume NAME     clear NAME\n"
	"    rename NAME NEW     rename NAME --setuuid UUID     remove [--deferred] NAME\n"
	"    message NAME SECTOR WORD...     wait NAME [EVENT_NR] [--timeout SECONDS]\n"
	"    settle NAME [--timeout SECONDS]     scrub NAME [repair]\n"
	"    read DEV SECTOR COUNT FILE      write DEV SECTOR COUNT FILE [SKIP]\n"
	"    flush DEV     discard DEV SECTOR COUNT     zero DEV SECTOR COUNT\n"
	"    copy [OPTIONS] SRC DEST...\n"
	"    copy [OPTIONS] SRC SECTOR COUNT DEST SECTOR [DEST SECTOR]...\n"
	"    the same with an & at the end: in the background     join\n"
	"    status|table [--inactive] [NAME]     info DEV     echo TEXT\n"
	"\n"
	"Sectors are 512 bytes. Exit status: 0 when all worked, 1 when I/O failed, 2 for bad\n"
	"usage or a bad table. See dmcat(1).\n";

void options_print_help(void)
{
	fputs(help, stdout);
}

void options_print_version(void)
{
	printf("dmcat %s, libdmcore %s\n", DMCORE_VERSION_STRING, dmcore_version());
}

static void define(struct options *options, int kind, const char *text)
{
	struct definition *definition = &options->definitions[options->num_definitions++];

	definition->kind = kind;
	definition->text = text;
}

static enum exit_status set_backend(struct options *options, struct report *report,
				    const char *name)
{
	if (strcmp(name, "auto") == 0)
		options->backend = DMCORE_BACKEND_AUTO;
	else if (strcmp(name, "io_uring") == 0)
		options->backend = DMCORE_BACKEND_IO_URING;
	else if (strcmp(name, "pread") == 0)
		options->backend = DMCORE_BACKEND_PREAD;
	else
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "-b %s: not auto, io_uring or pread", name);
	return EXIT_DONE;
}

static enum exit_status set_workers(struct options *options, struct report *report,
				    const char *word)
{
	uint64_t workers;
	int ret = words_number(word, &workers);

	if (ret || workers > DMCORE_QUEUE_WORKERS_MAX)
		return report_error(report, EXIT_BAD_USAGE, ret ? ret : ERANGE,
				    "--workers %s: not a number from 0 to %u", word,
				    DMCORE_QUEUE_WORKERS_MAX);
	options->workers = (unsigned int)workers;
	return EXIT_DONE;
}

static enum exit_status set_watch(struct options *options, struct report *report,
				  const char *word)
{
	int ret = word ? words_seconds(word, &options->watch_ns) : 0;

	if (!word)
		options->watch_ns = 1000000000;
	if (ret || options->watch_ns < 1000000)
		return report_error(report, EXIT_BAD_USAGE, ret ? ret : ERANGE,
				    "--watch=%s: not a number of seconds, from 0.001 on", word);
	return EXIT_DONE;
}

static enum exit_status set_number(struct report *report, const char *option, const char *word,
				   uint64_t *value)
{
	int ret = words_number(word, value);

	if (ret)
		return report_error(report, EXIT_BAD_USAGE, ret, "%s %s: not a number", option,
				    word);
	return EXIT_DONE;
}

/* The options of replay. */
static enum exit_status set_replay_option(struct replay_options *replay, struct report *report,
					  int option)
{
	for (const struct option *entry = long_options; entry->name; entry++) {
		if (entry->val == option)
			replay->given = entry->name;
	}
	switch (option) {
	case OPTION_START_ENTRY:
		return set_number(report, "--start-entry", optarg, &replay->start_entry);
	case OPTION_START_MARK:
		replay->start_mark = optarg;
		return EXIT_DONE;
	case OPTION_LIMIT:
		replay->has_limit = true;
		return set_number(report, "--limit", optarg, &replay->limit);
	case OPTION_END_MARK:
		replay->end_mark = optarg;
		return EXIT_DONE;
	case OPTION_NEXT_FLUSH:
		replay->next_flush = true;
		return EXIT_DONE;
	case OPTION_NEXT_FUA:
		replay->next_fua = true;
		return EXIT_DONE;
	default:
		return EXIT_BAD_USAGE;
	}
}

/* The options of cow-check and cow-dump. */
static enum exit_status set_cow_option(struct cow_options *cow, struct report *report, int option)
{
	enum exit_status status;
	uint64_t sectors = 0;

	switch (option) {
	case OPTION_ALL:
		cow->given = "all";
		cow->all = true;
		return EXIT_DONE;
	case OPTION_ORIGIN:
		cow->given = "origin";
		cow->origin = optarg;
		return EXIT_DONE;
	default:
		cow->given = "chunk-size";
		status = set_number(report, "--chunk-size", optarg, &sectors);
	}
	if (status == EXIT_DONE && (sectors == 0 || sectors > DMCORE_COW_CHUNK_SECTORS_MAX ||
				    (sectors & (sectors - 1))))
		return report_error(report, EXIT_BAD_USAGE, EINVAL,
				    "--chunk-size %s: not a power of two up to %d", optarg,
				    (DMCORE_COW_CHUNK_SECTORS_MAX + 1) / 2);
	cow->chunk_sectors = (uint32_t)sectors;
	return status;
}

static enum exit_status set_option(struct options *options, struct report *report, int option)
{
	switch (option) {
	case 'd':
		define(options, DEFINE_NAMED, optarg);
		return EXIT_DONE;
	case 't':
		define(options, DEFINE_UNNAMED, optarg);
		return EXIT_DONE;
	case 'c':
		define(options, DEFINE_CONCISE, optarg);
		return EXIT_DONE;
	case OPTION_DEV:
		options->device = optarg;
		return EXIT_DONE;
	case 'b':
		return set_backend(options, report, optarg);
	case OPTION_WORKERS:
		return set_workers(options, report, optarg);
	case 'r':
		options->read_only = true;
		return EXIT_DONE;
	case OPTION_DIRECT:
		options->direct = true;
		return EXIT_DONE;
	case OPTION_JSON:
		options->json = true;
		return EXIT_DONE;
	case OPTION_WATCH:
		return set_watch(options, report, optarg);
	case 'q':
		options->quiet = true;
		return EXIT_DONE;
	case 'k':
		options->keep_going = true;
		return EXIT_DONE;
	case OPTION_ALL:
	case OPTION_CHUNK_SIZE:
	case OPTION_ORIGIN:
		return set_cow_option(&options->cow, report, option);
	case 'h':
		options->help = true;
		return EXIT_DONE;
	case 'V':
		options->version = true;
		return EXIT_DONE;
	default:
		return set_replay_option(&options->replay, report, option);
	}
}

/* What getopt_long() has refused: it stands before optind, or is in optopt. */
static enum exit_status refuse(struct report *report, int option, char **argv)
{
	const char *why = option == ':' ? "needs an argument" : "is not an option, or is ambiguous";

	if (optopt > 0 && optopt < 256)
		return report_error(report, EXIT_BAD_USAGE, EINVAL, "-%c %s; see dmcat --help",
				    optopt, why);
	if (option == '?' && optopt >= 256)
		why = "takes no argument";
	return report_error(report, EXIT_BAD_USAGE, EINVAL, "%s %s; see dmcat --help",
			    argv[optind - 1], why);
}

enum exit_status options_parse(struct options *options, struct report *report, int argc,
			       char **argv)
{
	enum exit_status status = EXIT_DONE;
	int option;
	int index;

	*options = (struct options){ .backend = DMCORE_BACKEND_AUTO };
	options->definitions = calloc((size_t)argc + 1, sizeof(*options->definitions));
	if (!options->definitions)
		return report_error(report, EXIT_BAD_USAGE, ENOMEM, "no memory");
	opterr = 0;
	while (status == EXIT_DONE) {
		option = getopt_long(argc, argv, ":d:t:c:b:rqkhV", long_options, &index);
		if (option == -1)
			break;
		if (option == '?' || option == ':')
			status = refuse(report, option, argv);
		else if (option == OPTION_COPY)
			status = copy_options_set(&options->copy, report,
						  long_options[index].name, optarg);
		else
			status = set_option(options, report, option);
	}
	options->words = argv + optind;
	options->num_words = (unsigned int)(argc - optind);
	return status;
}

void options_free(struct options *options)
{
	free(options->definitions);
	options->definitions = NULL;
}

unsigned int options_open_flags(const struct options *options)
{
	return (options->read_only ? DMCORE_OPEN_READ_ONLY : 0) |
	       (options->direct ? DMCORE_OPEN_DIRECT : 0);
}
