#!/bin/sh
# SPDX-License-Identifier: MIT
# What libdmcore does, shown with dmcat on real files: disk images are striped, joined, written,
# read back, compared, and looked at with dd alone. Needs no root and leaves nothing behind.
#
#	DMCAT=PATH sh demo.sh        or: sh demo.sh PATH
# shellcheck disable=SC2016 # commands are expanded when they are run, not when they are written
set -u
DMCAT=${1:-${DMCAT:-dmcat}}
case $DMCAT in
*/*) DMCAT=$(cd "$(dirname "$DMCAT")" && pwd)/$(basename "$DMCAT") ;;
esac
command -v "$DMCAT" > /dev/null || { echo "demo: there is no $DMCAT" >&2; exit 1; }
dmcat() { "$DMCAT" "$@"; }

folder=$(mktemp -d) || exit 1
trap 'cd / && rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
cd "$folder" || exit 1

say() { printf '\n# %s\n' "$*"; }

wrong() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# Prints a command, as it could be typed, and runs it.
run() {
	printf '$ %s\n' "$1"
	eval "$1" || wrong "that failed with status $?"
}

say "Four disk images of 16 MiB, and 24 MiB of data"
run 'for i in 0 1 2 3; do dd if=/dev/zero of=disk$i.img bs=1M count=16 2> /dev/null; done'
run 'dd if=/dev/urandom of=payload bs=1M count=24 2> /dev/null'
run 'ls -l'

say "A striped set over all four, in chunks of 64 KiB (128 sectors), as dmsetup would have it"
run 'set="0 131072 striped 4 128 disk0.img 0 disk1.img 0 disk2.img 0 disk3.img 0"'
run 'dmcat -d set="$set" table'
run 'dmcat -d set="$set" info'

say "Written, read back, compared"
run 'dmcat -d set="$set" write < payload'
run 'dmcat -d set="$set" read 0 49152 | cmp - payload'
run 'dmcat -d set="$set" status'

say "Where the data are: chunk c of the set is chunk c / 4 of disk c % 4. See for yourself:"
for chunk in 0 1 2 3 4 5 383; do
	run "dd if=payload bs=64k skip=$chunk count=1 2> /dev/null > expected"
	run "dd if=disk$((chunk % 4)).img bs=64k skip=$((chunk / 4)) count=1 2> /dev/null > found"
	run "cmp found expected"
done

say "A table of several lines: the end of the set, half of a disk, and a megabyte of zeroes"
cat > joined.table << 'END'
# start length type arguments
0      65536 linear set 65536
65536  16384 linear disk0.img 16384
81920  2048  zero
END
run 'cat joined.table'
run 'dmcat -d set="$set" -d joined=@joined.table table'

say "A script: a write across the border between the two, read back from there and from the set"
cat > script << 'END'
echo across the border at sector 65536:
write joined 65000 1000 payload
read joined 65000 1000 again
flush joined
echo the last sectors come from nowhere:
read joined 81920 2048 zeroes
status
END
run 'cat script'
run 'dmcat -d set="$set" -d joined=@joined.table run script'
run 'head -c 512000 payload | cmp - again'
run 'head -c 1048576 /dev/zero | cmp - zeroes'
run 'dmcat -d set="$set" read 130536 536 > tail && head -c 274432 payload | cmp - tail'

say "A table that can't be is refused, in the kernel's words"
run 'bad="0 131072 striped 2 100 disk0.img 0 disk1.img 0"'
printf '$ %s\n' 'dmcat -t "$bad" info'
# shellcheck disable=SC2154 # set by the line before the last
dmcat -t "$bad" info 2> error
status=$?
cat error
[ $status = 2 ] || wrong "the exit status is $status, not 2"
grep -q 'divisible by chunk size (EINVAL)$' error || wrong "that isn't the message"

printf '\nok\n'
