#!/bin/sh
# SPDX-License-Identifier: MIT
# The command line: options, what is missing and too much, help and version, exit status.
. "$(dirname "$0")/lib.sh"

fails 2 'dmcat: no command; see dmcat --help (EINVAL)' dmcat
fails 2 "dmcat: there is no command 'cat'; see dmcat --help (EINVAL)" dmcat cat
fails 2 'dmcat: -x is not an option, or is ambiguous; see dmcat --help (EINVAL)' dmcat -x
fails 2 'dmcat: --frob is not an option, or is ambiguous; see dmcat --help (EINVAL)' dmcat --frob
fails 2 'dmcat: --d is not an option, or is ambiguous; see dmcat --help (EINVAL)' dmcat --d
fails 2 'dmcat: -d needs an argument; see dmcat --help (EINVAL)' dmcat -d
fails 2 'dmcat: --dev needs an argument; see dmcat --help (EINVAL)' dmcat --dev
fails 2 'dmcat: --json=1 takes no argument; see dmcat --help (EINVAL)' dmcat --json=1
fails 2 'dmcat: -b fast: not auto, io_uring or pread (EINVAL)' dmcat -b fast targets
fails 2 'dmcat: --workers 65: not a number from 0 to 64 (ERANGE)' dmcat --workers 65 targets
fails 2 'dmcat: --workers -1: not a number from 0 to 64 (EINVAL)' dmcat --workers -1 targets

for command in read write status table info scrub; do
	text='no device: define one with -d, -t or -c, or name one with --dev (EINVAL)'
	fails 2 "dmcat: $command: $text" dmcat $command
done
fails 2 "dmcat: read: '3' is an argument too many (EINVAL)" dmcat read 1 2 3
fails 2 "dmcat: write: '2' is an argument too many (EINVAL)" dmcat write 1 2
fails 2 "dmcat: status: 'a' is an argument too many (EINVAL)" dmcat status a
fails 2 "dmcat: scrub: 'a' is an argument too many (EINVAL)" dmcat scrub repair a
fails 2 'dmcat: run: an argument is missing (EINVAL)' dmcat run
fails 2 "dmcat: table: there is no mapped device 'mem:4k' (ENXIO)" dmcat --dev mem:4k table

# Options may stand anywhere, and what they say is used.
prints '0 8 zero ' dmcat table -t '0 8 zero'
works dmcat -b pread --workers 3 --dev mem:4k info
grep -q '^Queue depth:.*, 3 workers$' out || failed "--workers 3: $(tail -n 1 out)"
grep -q '^Backend: *pread' out || failed "-b pread: $(grep Backend out)"

works dmcat --help
grep -q '^Usage: dmcat' out || failed '--help'
works dmcat -h
for word in -d -t -c --dev -b --workers -r --direct --json -q -k read write status table info \
	targets run create remove resume flush discard zero echo load suspend clear rename message \
	wait join replay copy scrub; do
	grep -qe "$word" out || failed "--help doesn't mention $word"
done
works dmcat -V
grep -q '^dmcat [0-9.]*, libdmcore [0-9.]*$' out || failed "--version: $(cat out)"

works dmcat targets
for type in delay dust error flakey linear log-writes striped switch unstriped zero; do
	grep -q "^$type *v[0-9]*\.[0-9]*\.[0-9]*$" out || failed "targets: $type"
done

# An output that takes nothing.
to_full() { "$@" > /dev/full; }
to_nothing() { "$@" >&-; }
to_reader() {
	{
		"$@"
		echo $? > reader_status
	} | :
	return "$(cat reader_status)"
}
full='No space left on device (ENOSPC)'
bad='Bad file descriptor (EBADF)'
for command in '--help' 'targets' '--json targets' '-t "0 8 zero" table' '-t "0 8 zero" info'; do
	case $command in
	*zero*table*) prefix='table: ' ;;
	*info*) prefix='info: ' ;;
	*targets*) prefix='targets: ' ;;
	*) prefix= ;;
	esac
	eval "set -- dmcat $command"
	fails 1 "dmcat: ${prefix}standard output: $full" to_full "$@"
	fails 1 "dmcat: ${prefix}standard output: $bad" to_nothing "$@"
done
fails 1 "dmcat: read: standard output: $full" to_full dmcat --dev mem:4M read
fails 1 "dmcat: read: standard output: $bad" to_nothing dmcat --dev mem:4M read
fails 1 'dmcat: read: standard output: Broken pipe (EPIPE)' to_reader dmcat --dev mem:4M read
from_nothing() { "$@" <&-; }
fails 1 "dmcat: write: standard input: $bad" from_nothing dmcat --dev mem:4M write

finish
