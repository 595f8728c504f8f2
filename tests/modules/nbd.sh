#!/bin/sh
# SPDX-License-Identifier: MIT
# The driver nbd over servers that others have written: what it says and does, and what becomes of
# requests when a server is killed, cut off for long, and comes back.
. "$(dirname "$0")/../dmcat/lib.sh"

DMCORE_MODULE_PATH=${DMCORE_MODULE_PATH:-${top_builddir:?}/lib/modules/.libs}
case $DMCORE_MODULE_PATH in /*) ;; *) DMCORE_MODULE_PATH=$OLDPWD/$DMCORE_MODULE_PATH ;; esac
export DMCORE_MODULE_PATH
[ -e "$DMCORE_MODULE_PATH/driver-nbd.so" ] ||
	{ echo "the driver isn't built: configure has found no libnbd 1.14"; exit 77; }
command -v nbdkit > /dev/null || { echo 'no nbdkit'; exit 77; }

# ---- servers ----

servers=
stop_all() {
	for pid in $servers; do
		kill -9 "$pid" 2> /dev/null
	done
}
trap 'stop_all; cd / && rm -rf "$folder"' EXIT

# until_true COMMAND...: tries for 20 seconds.
until_true() {
	tries=0
	until "$@" 2> /dev/null; do
		tries=$((tries + 1))
		[ "$tries" -lt 400 ] || return 1
		sleep 0.05
	done
}

# serve NAME ARGUMENT...: its pid is in $server.
serve() {
	served=$1
	shift
	rm -f "$served.pid" "$served.sock"
	nbdkit -f -U "$folder/$served.sock" -P "$folder/$served.pid" "$@" \
		> "$served.log" 2>&1 7>&- &
	server=$!
	servers="$servers $server"
	until_true test -s "$served.pid" || failed "no server: $(cat "$served.log")"
}

# Of one that has ended another process may have the number.
forget() {
	servers=" $servers "
	servers=${servers%% "$1" *}" "${servers#* "$1" }
}

cut_off() {
	kill -9 "$server"
	wait "$server" 2> /dev/null
	forget "$server"
}

# nbd NAME [OPTION,]: the device of a server.
nbd() { echo "nbd:${2:-}nbd+unix:///?socket=$folder/$1.sock"; }

# ---- a dmcat that stays ----

session_begin() {
	rm -f pipe
	mkfifo pipe
	: > said
	: > told
	"$DMCAT" -q -k "$@" run - < pipe >> said 2>> told &
	session=$!
	exec 7> pipe
	number=0
}

# say LINE...: to dmcat; should it have ended, the test goes on and tells why.
say() {
	(trap '' PIPE && printf '%s\n' "$@" >&7) 2> /dev/null ||
		failed "$1: dmcat has gone: $(cat told)"
}

# does COMMAND: carried out; what it said on standard error is in the file err.
does() {
	number=$((number + 1))
	before=$(wc -c < told)
	say "$1" "echo done $number"
	until_true grep -qx "done $number" said || failed "$1: no end; $(cat told)"
	tail -c +"$((before + 1))" told > err
	checks=$((checks + 1))
}

does_well() {
	does "$1"
	[ ! -s err ] || failed "$1: $(cat err)"
}

# does_badly COMMAND PATTERN
does_badly() {
	does "$1"
	grep -q "$2" err || failed "$1: '$(cat err)', not $2"
}

session_end() {
	exec 7>&-
	wait "$session"
}

# ---- what it is ----

pattern 8388608 > image

what_it_is() {
	rm -f disk
	truncate -s 8M disk
	serve one file disk
	works dmcat --dev "$(nbd one)" info
	is "$(sed -n 's/^\(Access\|Size\|Logical block\|Capabilities\): *//p' out)" 'read-write
16384 sectors, 8.0 MiB
512 bytes
volatile-cache fua discard write-zeroes' \
		'what it can do'
	works dmcat copy image "$(nbd one)"
	same image disk 'what was copied to the server'
	works dmcat --dev "$(nbd one in_flight=1,)" read
	same image out 'what is read, one at a time'
	# Chunks of a stripe end within pieces of memory.
	printf '%s\n' "zero $(nbd one) 1000 500" "discard $(nbd one) 8192 1024" \
		"write $(nbd one) 3 100 image 200" > script
	works dmcat -q run script
	cp image expected
	dd if=/dev/zero of=expected bs=512 seek=1000 count=500 conv=notrunc 2> dd.err
	dd if=/dev/zero of=expected bs=512 seek=8192 count=1024 conv=notrunc 2> dd.err
	dd if=image of=expected bs=512 skip=200 seek=3 count=100 conv=notrunc 2> dd.err
	same expected disk 'zeroes, discards and a write'
	works dmcat -t '0 9996 striped 3 4 disk 0 disk 5000 disk 10000' read
	mv out expected
	works dmcat -t "0 9996 striped 3 4 $(nbd one) 0 $(nbd one) 5000 $(nbd one) 10000" read
	same expected out 'through a stripe'
	cut_off
}

read_only() {
	serve ro -r file image
	try dmcat -t "0 16384 linear $(nbd ro) 0" write < image
	is "$status" 2 'the exit status of writing what can only be read'
	grep -q 'the export can only be read (EROFS)' err || failed "$(cat err)"
	works dmcat -r -t "0 16384 linear $(nbd ro) 0" read
	same image out 'what can only be read'
	# A snapshot never writes to its origin.
	cp image before
	rm -f cow
	truncate -s 4M cow
	session_begin -d "snap=0 16384 snapshot $(nbd ro) cow P 8"
	does_well 'write snap 100 300 image 7'
	does_well 'write snap 5000 64 image 0'
	does_well 'read snap 0 16384 got'
	session_end
	cp image expected
	dd if=image of=expected bs=512 skip=7 seek=100 count=300 conv=notrunc 2> dd.err
	dd if=image of=expected bs=512 seek=5000 count=64 conv=notrunc 2> dd.err
	same expected got 'a snapshot of a read-only export'
	same before image 'its origin'
	cut_off
}

# ---- losing the server ----

# A copy from a slow server that dies in the middle.
killed_while_read() {
	rm -f got
	serve slow --filter=delay file image rdelay=30ms
	dmcat -q -t "0 16384 linear $(nbd slow in_flight=1,) 0" read > got 2> err &
	reader=$!
	until_true test -s got || failed 'nothing is read'
	cut_off
	sleep 0.3
	serve slow file image
	checks=$((checks + 1))
	wait "$reader" || failed "a read across a restart: $(cat err)"
	same image got 'what was read across a restart'
	cut_off
}

# What was answered and not flushed is gone with a server that keeps it in memory: a flush tells.
killed_while_written() {
	rm -f disk
	truncate -s 8M disk
	serve mem memory 8M
	session_begin -d "n=0 16384 linear $(nbd mem) 0" -d "m=0 16384 linear $(nbd mem) 0"
	does_well 'write n 0 16384 image'
	does_well 'flush n'
	# Nothing is in doubt: all is flushed.
	cut_off
	serve mem memory 8M
	does_well 'flush n'
	does_well 'write n 0 100 image'
	cut_off
	serve mem memory 8M
	# Whoever writes to it is told, and told again, until it has been closed.
	does_badly 'flush n' 'EIO'
	does_badly 'flush m' 'EIO'
	does_well 'read m 0 16384 got'
	does_badly 'flush n' 'EIO'
	does_well 'remove n'
	does_badly 'flush m' 'EIO'
	does_well 'remove m'
	does_well "create m 0 16384 linear $(nbd mem) 0"
	does_well 'write m 0 16384 image'
	does_well 'flush m'
	does_well 'read m 0 16384 got'
	same image got 'what was written again'
	session_end
	cut_off
}

# Beside a server that is killed again and again no acknowledged and flushed write is lost.
killed_again_and_again() {
	rm -f disk
	truncate -s 8M disk
	serve often --filter=delay file disk wdelay=2ms
	often="0 16384 linear $(nbd often in_flight=4,) 0"
	session_begin -d "n=$often"
	# When it can be read it has been opened.
	does_well 'read n 0 8 got'
	for turn in 1 2 3 4; do
		sector=$(((turn - 1) * 4096))
		say "write n $sector 4096 image $sector &"
		sleep 0.02
		cut_off
		serve often --filter=delay file disk wdelay=2ms
		does_well join
		does 'flush n'
		# Told so, one opens it anew and writes again.
		if [ -s err ]; then
			does_well 'remove n'
			does_well "create n $often"
			does_well "write n $sector 4096 image $sector"
		fi
		does_well 'flush n'
	done
	session_end
	cut_off
	same image disk 'what was written to a server that was killed four times'
}

# Longer than the deadline: requests fail, and all goes on when the server is back.
cut_for_long() {
	cp image disk
	serve long file disk
	session_begin -d "n=0 16384 linear $(nbd long deadline=1,) 0"
	does_well 'read n 0 16384 got'
	cut_off
	does_badly 'read n 0 8 got' 'ETIMEDOUT'
	does_badly 'write n 0 8 image' 'ETIMEDOUT'
	# Another export in its place isn't taken for it.
	serve long memory 4M
	sleep 1
	does_badly 'read n 0 8 got' 'ETIMEDOUT'
	cut_off
	serve long file disk
	back() { does 'read n 0 16384 got' && [ ! -s err ]; }
	until_true back || failed 'it does not come back'
	same image got 'what is read when the server is back'
	does_well 'write n 8 8 image 8'
	does_well 'flush n'
	session_end
	cut_off
}

# A mirror of two servers goes on with one, and gets the other back.
mirrored() {
	rm -f left right
	truncate -s 8M left right
	serve left file left
	kept=$server
	serve right file right
	session_begin -d "m=0 16384 mirror core 2 1024 nosync 2 $(nbd left) 0 \
$(nbd right deadline=0,) 0 2 handle_errors keep_log"
	does_well 'write m 0 4096 image'
	cut_off
	does_well 'write m 4096 12288 image 4096'
	does_well 'flush m'
	does_well 'read m 0 16384 got'
	same image got 'a mirror without a leg'
	session_end
	same image left 'the leg that is left'
	server=$kept
	cut_off
}

each() {
	what_it_is
	read_only
	killed_while_read
	killed_while_written
	killed_again_and_again
	cut_for_long
	mirrored
}
each_backend each

# ---- what is refused ----

# refused MESSAGE SPECIFICATION
refused() {
	try dmcat --dev "$2" info
	is "$status" 1 "the exit status for $2"
	grep -q "$1" err || failed "$2: $(cat err)"
}
refused 'deadline=5x: give 0 to 86400 seconds, then a comma and the URI (EINVAL)' \
	'nbd:deadline=5x,nbd://localhost'
refused 'in_flight=0: give 1 to 1024 requests, then a comma and the URI (EINVAL)' \
	'nbd:in_flight=0,nbd://localhost'
refused 'speed=9: unknown option: there are deadline and in_flight (EINVAL)' \
	'nbd:speed=9,nbd://localhost'
refused "'file.img': no NBD URI: nbd://HOST/EXPORT" nbd:file.img
refused 'No such file or directory (ENOENT)' "nbd:nbd+unix:///?socket=$folder/absent.sock"

finish
