#!/bin/sh
# SPDX-License-Identifier: MIT
# The plugin for nbdkit serves what its tables say, to clients that others have written.
. "$(dirname "$0")/../dmcat/lib.sh"

plugin=${NBDKIT_PLUGIN:-${top_builddir:?}/examples/nbdkit/.libs/nbdkit-dmcore-plugin.so}
case $plugin in /*) ;; *) plugin=$OLDPWD/$plugin ;; esac
[ -e "$plugin" ] || { echo "the plugin isn't built: configure has found no nbdkit 1.30"; exit 77; }
for program in nbdkit nbdinfo nbdcopy qemu-img qemu-io; do
	command -v $program > /dev/null || { echo "no $program"; exit 77; }
done
if [ -n "${SANITIZER_FLAGS:-}" ]; then
	echo "nbdkit doesn't bring the sanitizer's runtime"
	exit 77
fi

# ---- servers ----

servers=
stop_all() {
	for pid in $servers; do
		kill "$pid" 2> /dev/null
	done
}
trap 'stop_all; cd / && rm -rf "$folder"' EXIT

# Of one that has ended another process may have the number.
forget() {
	servers=" $servers "
	servers=${servers%% "$1" *}" "${servers#* "$1" }
}

# until_true COMMAND...: tries for 20 seconds.
until_true() {
	tries=0
	until "$@" 2> /dev/null; do
		tries=$((tries + 1))
		[ "$tries" -lt 400 ] || return 1
		sleep 0.05
	done
}

# serve NAME ARGUMENT...: a server in the foreground, with a socket of its own and its messages in
# NAME.log. Its pid is in $server.
serve() {
	served=$1
	shift
	rm -f "$served.pid" "$served.sock"
	nbdkit -f -U "$folder/$served.sock" -P "$folder/$served.pid" "$@" > "$served.log" 2>&1 &
	server=$!
	servers="$servers $server"
	until_true test -s "$served.pid" || failed "no server: $(cat "$served.log")"
}

dmcore() {
	name=$1
	shift
	serve "$name" "$plugin" backend="${DMCORE_BACKEND:-auto}" "$@"
}

# stop [PATTERN]: the server ends by itself, with no message but those that match.
stop() {
	status=0
	kill "$server"
	wait "$server" || status=$?
	forget "$server"
	is "$status" 0 "the exit status of the server $served"
	is "$(grep -ve "${1:-^\$}" "$served.log")" '' "messages of the server $served"
}

# uri NAME [EXPORT]
uri() { echo "nbd+unix:///${2:-}?socket=$folder/$1.sock"; }

# facts LABEL...: those lines of nbdinfo, in the file out.
facts() {
	for label in "$@"; do
		sed -n "s/^[[:space:]]*\($label:\) */\1 /p" out
	done
}

# io SERVER COMMAND...: qemu-io succeeds, with each command.
io() {
	where=$(uri "$1")
	shift
	for command in "$@"; do
		set -- "$@" -c "$command"
		shift
	done
	works qemu-io -f raw "$where" "$@"
}

# ---- what a device is ----

pattern 8388608 > image
truncate -s 4M empty

what_it_is() {
	truncate -s 4M a b
	dmcore one "0 16384 striped 2 128 $folder/a 0 $folder/b 0"
	works nbdinfo "$(uri one)"
	is "$(facts export-size is_read_only can_flush can_fua can_multi_conn can_trim can_zero \
		can_fast_zero block_size_minimum block_size_preferred)" 'export-size: 8388608 (8M)
is_read_only: false
can_flush: true
can_fua: true
can_multi_conn: true
can_trim: true
can_zero: true
can_fast_zero: true
block_size_minimum: 512
block_size_preferred: 65536' 'what nbdinfo says'
	# Out and back, by several connections at once; and as the library itself sees it.
	works nbdcopy --connections=4 --requests=32 image "$(uri one)"
	works nbdcopy --connections=4 "$(uri one)" back
	same image back 'what nbdcopy has written and read'
	rm -f back
	works dmcat -t "0 16384 striped 2 128 a 0 b 0" read
	same image out 'the files below'
	works qemu-img compare -f raw -F raw image "$(uri one)"
	# What would show if it were otherwise.
	io one 'write -P 7 1048576 512'
	try qemu-img compare -f raw -F raw image "$(uri one)"
	is "$status" 1 'a comparison of what differs'
	works qemu-img convert -n -f raw -O raw image "$(uri one)"
	works qemu-img convert -f raw -O raw "$(uri one)" back
	same image back 'what qemu-img has written and read'
	stop
}

# Each operation, and what it leaves.
operations() {
	rm -f a
	truncate -s 8M a
	dmcore ops "0 16384 linear $folder/a 0"
	works nbdcopy image "$(uri ops)"
	io ops 'write -P 17 64k 192k' 'read -P 17 64k 192k' 'write -f -P 18 512 1024' \
		'read -P 18 512 1024' flush 'discard 1M 1M' 'read -P 0 1M 1M' \
		'write -z 2M 64k' 'read -P 0 2M 64k' 'write -z -u 3M 1M' 'read -P 0 3M 1M' \
		'read -P 17 64k 192k'
	try qemu-io -f raw "$(uri ops)" -c 'read -P 1 64k 4k'
	is "$status" 1 'a read of what is not there'
	# Holes are told, and are ones.
	works nbdinfo --map "$(uri ops)"
	awk '$4 == "hole,zero" { print $1, $2 }' out > holes
	is "$(cat holes)" '1048576 1048576
3145728 1048576' 'the holes of the map'
	is "$(stat -c '%b %B' a | awk '{ print ($1 * $2 <= 6400 * 1024) }')" 1 'space given back'
	tail -c +4194305 image > expected
	works nbdcopy "$(uri ops)" back
	tail -c +4194305 back > got
	same expected got 'what is behind the zeroes'
	stop
}

# log-writes tells what has come down: durable writes, flushes and discards as such.
what_arrives() {
	rm -f a log
	truncate -s 4M a log
	dmcore log "0 8192 log-writes $folder/a $folder/log"
	io log 'write -P 1 0 4k' 'write -f -P 2 8k 4k' flush 'discard 64k 64k' 'write -z -f 1M 4k'
	stop
	works dmcat replay log
	grep -q 'write,fua' out || failed "no durable write in the log: $(cat out)"
	grep -q ' flush$' out || failed "no flush in the log: $(cat out)"
	grep -q ' discard ' out || failed "no discard in the log: $(cat out)"
}

# In a device without zeroing or discards zeroes are written, though not in a hurry.
without_zeroing() {
	rm -f a
	truncate -s 4M a
	pattern 4194304 > a
	dmcore slow "0 8192 flakey $folder/a 0 60 0"
	works nbdinfo "$(uri slow)"
	io slow 'write -z 64k 64k' 'read -P 0 64k 64k' 'write -z -u 1M 64k' 'read -P 0 1M 64k'
	if [ "$(facts can_trim)" = 'can_trim: false' ]; then
		try qemu-io -f raw "$(uri slow)" -c 'write -z -n 2M 64k'
		is "$status" 1 'a fast zero of what must be written'
	fi
	stop
}

# ---- several ----

several() {
	rm -f a b cow
	truncate -s 4M a b
	truncate -s 2M cow
	cp a expected_zero
	dmcore many name=base "0 8192 linear $folder/a 0" \
		concise="top,,,rw,0 4096 linear base 4096" "table=0 8192 linear $folder/b 0" \
		concise="origin,,,ro,0 8192 snapshot-origin base;\
snap,,,,0 8192 snapshot base $folder/cow P 16"
	works nbdinfo --list "$(uri many)"
	is "$(sed -n 's/^export="\(.*\)":$/\1/p' out)" 'base
top
unnamed
origin
snap' 'the exports'
	is "$(facts is_read_only | sed 's/.*: //' | tr '\n' ' ')" \
		'false false false true false ' 'which are read-only'
	works qemu-io -f raw "$(uri many top)" -c 'write -P 5 0 1M'
	works qemu-io -f raw "$(uri many base)" -c 'read -P 5 2M 1M' -c 'read -P 0 0 2M'
	works qemu-io -f raw "$(uri many unnamed)" -c 'read -P 0 0 4M' -c 'write -P 6 0 64k'
	# The default is the last one.
	works qemu-io -f raw "$(uri many)" -c 'write -P 7 2M 64k' -c flush
	works qemu-io -f raw "$(uri many snap)" -c 'read -P 7 2M 64k'
	works qemu-io -r -f raw "$(uri many origin)" -c 'read -P 5 2M 64k'
	try nbdinfo "$(uri many absent)"
	is "$status" 1 'a device that is not there'
	stop "there is no device 'absent'"
	grep -q "there is no device 'absent'" many.log || failed 'no message of an absent device'
	# The snapshot is kept.
	dmcore again name=base "0 8192 linear $folder/a 0" "0 8192 snapshot base $folder/cow P 16"
	io again 'read -P 7 2M 64k' 'read -P 5 2112k 64k'
	stop
}

# ---- read-only ----

read_only() {
	rm -f a
	truncate -s 4M a
	serve ro -r "$plugin" "0 8192 linear $folder/a 0"
	works nbdinfo "$(uri ro)"
	is "$(facts is_read_only)" 'is_read_only: true' 'with -r'
	try qemu-io -f raw "$(uri ro)" -c 'write -P 1 0 4k'
	is "$status" 1 'a write to a server with -r'
	try nbdcopy image "$(uri ro)"
	is "$status" 1 'a copy to it'
	works qemu-io -r -f raw "$(uri ro)" -c 'read -P 0 0 4M'
	stop
	same a empty 'what must not be written'
	# A file that can't be written. Root can write to any.
	[ "$(id -u)" != 0 ] || return
	chmod a-w a
	dmcore ro "0 8192 linear $folder/a 0"
	works nbdinfo "$(uri ro)"
	is "$(facts is_read_only)" 'is_read_only: true' 'a file that is'
	stop
}

# ---- tables that change ----

# table LINE...: at once, and with the time of the one before.
table() {
	printf '%s\n' "$@" > table.new
	[ ! -e table ] || touch -r table table.new
	mv table.new table
}

# A client that stays, in qemu-io, and is told what to do by a pipe.
client_begin() {
	rm -f pipe client.out
	mkfifo pipe
	qemu-io -f raw "$(uri "$1")" < pipe > client.out 2>&1 &
	client=$!
	exec 7> pipe
}

# client_does COMMAND PATTERN: what it prints then matches, in one line.
client_does() {
	before=$(wc -c < client.out)
	echo "$1" >&7
	checks=$((checks + 1))
	client_said() { tail -c +"$((before + 1))" client.out | grep -qe "$2"; }
	until_true client_said "$@" ||
		failed "client: $1: $(tail -c +"$((before + 1))" client.out)"
}

client_end() {
	echo quit >&7
	exec 7>&-
	wait "$client"
}

size_is() {
	works nbdinfo --size "$(uri "$1")"
	is "$(cat out)" "$2" "the size, ${3:-as a new client sees it}"
}

changing() {
	rm -f a b absent table
	truncate -s 4M a b
	table '0 4096 linear a 0'
	dmcore grow table=@table
	size_is grow 2097152
	client_begin grow
	client_does 'write -P 1 0 64k' 'wrote 65536'
	table '0 8192 linear a 0'
	size_is grow 4194304 'when it has grown'
	client_does 'read -P 1 0 64k' 'read 65536'
	client_does 'write -P 2 1M 64k' 'wrote 65536'
	client_does 'read -P 1 3M 4k' 'out of range\|Invalid\|Input/output'
	io grow 'read -P 2 1M 64k' 'write -P 3 3M 64k'
	# As long as before, of the same time.
	table '0 8192 linear b 0'
	size_is grow 4194304 'on another file'
	client_does 'read -P 0 1M 64k' 'read 65536'
	client_does 'write -P 4 1M 64k' 'wrote 65536'
	table '0 1024 linear a 0'
	size_is grow 524288 'when it has shrunk'
	client_does 'read -P 1 0 64k' 'read 65536'
	client_does 'read -P 4 1M 4k' 'read failed: '
	grep -q 'error: read of 4096 bytes at 1048576: ' grow.log || failed "$(cat grow.log)"

	# Refused, and said each time; the old one goes on.
	table '0 8192 lineer a 0'
	size_is grow 524288 'with a bad table'
	grep -q "error: table: .*lineer" grow.log || failed "no message: $(cat grow.log)"
	grep -q 'error: unnamed: the table before goes on' grow.log || failed "$(cat grow.log)"
	client_does 'read -P 1 0 64k' 'read 65536'
	table '0 8192 linear absent 0'
	size_is grow 524288 'with a file that is not there'
	truncate -s 4M absent
	size_is grow 4194304 'with that file, the table being the same'
	rm table
	size_is grow 4194304 'without the table'
	grep -q 'error: table: No such file or directory' grow.log || failed "$(cat grow.log)"
	client_does 'write -P 9 0 64k' 'wrote 65536'
	table '0 8192 linear b 0'
	io grow 'read -P 4 1M 64k'
	client_end
	stop 'error: '
	works qemu-io -r -f raw absent -c 'read -P 9 0 64k'
}

# Under load: both tables mean the same, and no client notices.
changing_under_load() {
	rm -f a table
	truncate -s 8M a
	table '0 16384 linear a 0'
	dmcore load table=@table
	nbdcopy --connections=4 image "$(uri load)" > copy.log 2>&1 &
	copy=$!
	for i in 1 2 3 4 5 6 7 8; do
		table '0 8192 linear a 0' '8192 8192 linear a 8192' "# $i"
		nbdinfo --size "$(uri load)" > /dev/null || failed "change $i"
		table '0 16384 linear a 0' "# $i"
		nbdinfo --size "$(uri load)" > /dev/null || failed "change back $i"
	done
	checks=$((checks + 1))
	wait $copy || failed "a copy while tables change: $(cat copy.log)"
	works qemu-img compare -f raw -F raw image "$(uri load)"
	stop
	same image a 'a copy while tables change'
}

each() {
	what_it_is
	operations
	what_arrives
	without_zeroing
	several
	read_only
	changing
	changing_under_load
}
each_backend each

# ---- in the background ----

# Paths are relative to where it was started, and what is wrong is said there.
rm -f a absent
truncate -s 4M a
works nbdkit -U "$folder/back.sock" -P "$folder/back.pid" "$plugin" '0 8192 linear a 0'
until_true test -s back.pid || failed 'no server in the background'
server=$(cat back.pid)
servers="$servers $server"
io back 'write -P 3 0 1M' 'read -P 3 0 1M'
kill "$server"
gone() { ! kill -0 "$server"; }
if until_true gone; then forget "$server"; else failed 'the server in the background stays'; fi
works qemu-io -r -f raw a -c 'read -P 3 0 1M'

# refused PATTERN ARGUMENT...
refused() {
	refused_pattern=$1
	shift
	try nbdkit -U "$folder/no.sock" -P "$folder/no.pid" "$plugin" "$@"
	is "$status" 1 "the exit status for $*"
	grep -qe "$refused_pattern" err || failed "$*: $(cat err)"
	[ ! -e no.pid ] || { failed "$*: it runs"; kill "$(cat no.pid)"; rm no.pid; }
}
refused 'error: unnamed: table line 1: .*lineer.* (E[A-Z]*)$' '0 8192 lineer a 0'
refused 'error: x: .*absent.* (ENOENT)$' name=x '0 8192 linear absent 0'
refused 'error: no device: give a table' backend=pread
refused 'error: name=x stands behind the last table' '0 8 zero' name=x
refused 'error: name=y: name=x before it has no table yet' name=x name=y '0 8 zero'
refused 'error: backend=fast: not auto' backend=fast '0 8 zero'
refused "error: unknown parameter 'size'" size=1 '0 8 zero'
refused 'error: concise: .*' concise='x,,,,0 8 lineer'
refused 'error: concise: it names no device' concise=
refused 'error: absent: No such file or directory' table=@absent
refused "error: $folder: not a regular file" "table=@$folder"

works nbdkit --dump-plugin "$plugin"
grep -q '^dmcore_version=[0-9]*\.[0-9]*\.[0-9]*$' out || failed 'no version of the library'
works nbdkit --help "$plugin"
grep -q '^concise=TEXT' out || failed 'no help'

finish
