#!/bin/sh
# SPDX-License-Identifier: MIT
# Stock dmsetup makes, shows, changes and removes the devices that nbdkit serves, without a
# device-mapper in the kernel and without privileges.
. "$(dirname "$0")/../dmcat/lib.sh"

absolute() { case $1 in /*) echo "$1" ;; *) echo "$OLDPWD/$1" ;; esac; }
built=$(absolute "${top_builddir:?}/examples")
plugin=${NBDKIT_PLUGIN:-$built/nbdkit/.libs/nbdkit-dmcore-plugin.so}
preload=${DMSETUP_PRELOAD:-$built/dmsetup/.libs/libdmcore-dmsetup.so}
[ -e "$plugin" ] || { echo "the plugin isn't built: configure has found no nbdkit 1.30"; exit 77; }
PATH=$PATH:/usr/sbin:/sbin
for program in nbdkit nbdcopy nbdinfo qemu-io dmsetup python3; do
	command -v $program > /dev/null || { echo "no $program"; exit 77; }
done
if [ -n "${SANITIZER_FLAGS:-}" ]; then
	echo "nbdkit and dmsetup don't bring the sanitizer's runtime"
	exit 77
fi

# As somebody who may make no nodes of devices.
powerless='setpriv --bounding-set -all --inh-caps -all'
$powerless true 2> /dev/null || powerless=

server=
trap '[ -z "$server" ] || kill -9 $server; cd / && rm -rf "$folder"' EXIT

until_true() {
	tries=0
	until "$@" 2> /dev/null; do
		tries=$((tries + 1))
		[ "$tries" -lt 400 ] || return 1
		sleep 0.05
	done
}

begin() {
	rm -f pid nbd
	$powerless nbdkit -f -U "$folder/nbd" -P "$folder/pid" "$plugin" control=control \
		backend="${DMCORE_BACKEND:-auto}" "$@" > log 2>&1 &
	server=$!
	until_true test -s pid || failed "no server: $(cat log)"
}

# A server learns a moment after its client's end that a connection is closed.
closed() { test "$(dmsetup info -c --noheadings -o open "$1")" = 0; }
all_removed() { dmsetup remove_all && test "$(dmsetup ls)" = 'No devices found'; }

# end [PATTERN]: with no message but those that match.
end() {
	until_true all_removed
	prints 'No devices found' dmsetup ls
	kill "$server"
	status=0
	wait "$server" || status=$?
	server=
	is "$status" 0 'the exit status of the server'
	is "$(grep -ve "${1:-^\$}" log)" '' 'messages of the server'
	is "$(ls control 2> /dev/null)" '' 'the socket of a server that has ended'
}

dmsetup() {
	env DMCORE_CONTROL="$folder/control" LD_PRELOAD="$preload" $powerless dmsetup "$@"
}

# As examples for the kernel's device-mapper have it.
blockdev() { echo $(($(stat -c %s "$2") / 512)); }

export_of() { echo "nbd+unix:///$1?socket=$folder/nbd"; }

# holds DEVICE FILE: what a client reads of the device.
holds() {
	rm -f got
	works nbdcopy "$(export_of "$1")" got
	same got "$2" "what $1 holds"
}

pattern 16777216 > one
head -c 12582912 one | tr 0-9 a-j > two

# ---- the examples of the device-mapper's first documentation ----

identity() {
	set -- "$folder/one"
	echo "0 `blockdev --getsize $1` linear $1 0" | dmsetup create identity > out 2>&1
	is "$(cat out)" '' 'create identity'
	holds identity one
	prints "0 32768 linear $folder/one 0" dmsetup table identity
	prints "0 32768 linear$blank" dmsetup status identity
}

joined() {
	set -- "$folder/one" "$folder/two"
	size1=`blockdev --getsize $1`
	size2=`blockdev --getsize $2`
	echo "0 $size1 linear $1 0
$size1 $size2 linear $2 0" | dmsetup create joined > out 2>&1
	is "$(cat out)" '' 'create joined'
	cat one two > both
	holds joined both
}

# In 4 MiB chunks, the last one first.
reversed() {
	extent=8192
	extents=$(($(blockdev --getsize one) / extent))
	rm -f backwards
	count=0
	while [ $extents -gt 0 ]; do
		extents=$((extents - 1))
		echo "$((count * extent)) $extent linear $folder/one $((extents * extent))"
		dd if=one bs=4M skip=$extents count=1 >> backwards 2> /dev/null
		count=$((count + 1))
	done | dmsetup create reverse > out 2>&1
	is "$(cat out)" '' 'create reverse'
	for chunk in 3 2 1 0; do
		dd if=one bs=4M skip=$chunk count=1 2> /dev/null
	done > backwards
	holds reverse backwards
}

# With 128 KiB chunks, over as many devices as there are.
striped_over() {
	num_devs=$#
	chunk=256
	min=$(blockdev --getsize "$1")
	for dev in "$@"; do
		size=$(blockdev --getsize "$dev")
		[ "$size" -ge "$min" ] || min=$size
	done
	size=$((min * num_devs))
	size=$((size - size % (chunk * num_devs)))
	table="0 $size striped $num_devs $chunk"
	for dev in "$@"; do
		table="$table $dev 0"
	done
	echo $table | dmsetup create stripe_dev > out 2>&1
	is "$(cat out)" '' 'create stripe_dev'
}

striped() {
	rm -f s1 s2 s3
	truncate -s 4M s1 s2 s3
	striped_over "$folder/s1" "$folder/s2" "$folder/s3"
	head -c 12582912 two > data
	works nbdcopy data "$(export_of stripe_dev)"
	holds stripe_dev data
	# Every third chunk is on the second.
	dd if=data bs=128k skip=1 count=1 2> /dev/null > chunk1
	head -c 131072 s2 > first_of_s2
	same first_of_s2 chunk1 'the first chunk on the second device'
	numbers='[0-9]*:[0-9]*'
	works dmsetup status stripe_dev
	grep -qx "0 24576 striped 3 $numbers $numbers $numbers 1 AAA" out || failed "$(cat out)"
}

sparse() {
	rm -f store
	truncate -s 16M store
	TEN_TERABYTES=`expr 10 \* 1024 \* 1024 \* 1024 \* 2` # 10 TB in sectors
	echo "0 $TEN_TERABYTES zero" | dmsetup create zero1 > out 2>&1
	is "$(cat out)" '' 'create zero1'
	echo "0 $TEN_TERABYTES snapshot /dev/mapper/zero1 $folder/store p 128" | \
		dmsetup create sparse1 > out 2>&1
	is "$(cat out)" '' 'create sparse1'
	prints "0 $TEN_TERABYTES snapshot 256/32768 256" dmsetup status sparse1
	where=$((5 << 40))
	works qemu-io -f raw "$(export_of sparse1)" -c "write -P 77 $where 65536" \
		-c "read -P 77 $where 65536" -c "read -P 0 4096 65536" -c flush
	prints "0 $TEN_TERABYTES snapshot 384/32768 256" dmsetup status sparse1
	# What was written outlives the device.
	until_true closed sparse1 || failed 'sparse1 stays open'
	works dmsetup remove sparse1
	echo "0 $TEN_TERABYTES snapshot /dev/mapper/zero1 $folder/store p 128" | \
		dmsetup create sparse1 > out 2>&1
	works qemu-io -f raw "$(export_of sparse1)" -c "read -P 77 $where 65536"
	# More than there is room for.
	try qemu-io -f raw "$(export_of sparse1)" -c "write 0 32M"
	[ "$status" != 0 ] || failed 'writes beyond the store succeed'
	prints "0 $TEN_TERABYTES snapshot Invalid" dmsetup status sparse1
}

examples() {
	begin
	identity
	joined
	reversed
	striped
	sparse
	works dmsetup ls --tree
	is "$(sed 's/(0:[0-9]*)/(FILE)/; s/(4095:[0-9]*)/(NUMBER)/' out)" 'identity (NUMBER)
 └─ (FILE)
joined (NUMBER)
 ├─ (FILE)
 └─ (FILE)
reverse (NUMBER)
 └─ (FILE)
sparse1 (NUMBER)
 ├─zero1 (NUMBER)
 └─ (FILE)
stripe_dev (NUMBER)
 ├─ (FILE)
 ├─ (FILE)
 └─ (FILE)' 'ls --tree'
	end 'Unable to allocate exception\|write of 33554432 bytes'
}
LC_ALL=C.UTF-8
each_backend examples

# ---- commands ----

begin

commands() {
	works dmsetup version
	grep -q '^Driver version: *4\.' out || failed "version: $(cat out)"
	works dmsetup targets
	grep -q '^snapshot-merge ' out || failed "targets: $(cat out)"
	works dmsetup target-version mirror
	try dmsetup info absent
	is "$status" 1 'the exit status for no device'

	works dmsetup create -u some-uuid lower --table "0 2048 linear one 0"
	works dmsetup create upper --table '0 1024 linear /dev/mapper/lower 1024
1024 1024 error'
	prints 'lower: 0 2048 linear one 0
upper: 0 1024 linear lower 1024
upper: 1024 1024 error ' dmsetup table
	prints "lower:1:Live:some-uuid
upper:0:Live:" dmsetup info -c --noheadings -o name,open,tables_loaded,uuid --separator :
	works dmsetup info lower
	is "$(grep -e Name -e State -e Tables -e Open -e targets -e UUID out)" \
'Name:              lower
State:             ACTIVE
Tables present:    LIVE
Open count:        1
Number of targets: 1
UUID: some-uuid' 'info'
	works dmsetup info -u some-uuid
	works dmsetup info -j 4095 -m 1
	grep -q '^Name: *upper$' out || failed "the device of a number: $(cat out)"

	# In use, as the kernel says it.
	try dmsetup remove lower
	is "$status" 1 'the exit status for a device in use'
	grep -q 'Device or resource busy' err || failed "$(cat err)"
	works dmsetup remove --deferred lower
	works dmsetup message lower 0 @cancel_deferred_remove

	# By its number, as programs of libdevmapper name devices.
	works dmsetup create third --table '0 8 linear 4095:0 8'
	prints '0 8 linear lower 8' dmsetup table third
	try dmsetup create fourth --table '0 8 linear 4095:77 8'
	is "$status" 1 'the exit status for a number of no device'
	grep -q '4095:77: there is no mapped device of that number' err || failed "$(cat err)"
	works dmsetup remove third

	# What the kernel would log is told.
	try dmsetup create bad --table '0 8 linear absent 0'
	is "$status" 1 'the exit status for a bad table'
	grep -q '^dmcore: .*absent: No such file' err || failed "$(cat err)"
	try dmsetup info bad
	is "$status" 1 'a device whose table is bad'
	works dmsetup remove upper
	works dmsetup rename lower renamed
	works dmsetup create -r readonly --table '0 8 linear one 0'
	works dmsetup info -c --noheadings -o attr readonly
	is "$(cat out)" 'L--r' 'attributes of a read-only device'
	works dmsetup create -j 4095 -m 5 chosen --table '0 8 zero'
	works dmsetup info -c --noheadings -o minor chosen
	is "$(cat out)" 5 'a number that was asked for'
	works dmsetup create --concise 'c1,,,rw,0 8 zero;c2,,,ro,0 8 zero,8 8 error'
	prints "c1,,2,rw,0 8 zero ;c2,,3,ro,0 8 zero ,8 8 error " dmsetup table --concise c1 c2
	works dmsetup ls
	is "$(cut -f 1 out | tr '\n' ' ')" 'c1 c2 chosen readonly renamed ' 'ls'
	works dmsetup stats create renamed
	works dmsetup stats list renamed
	works dmsetup remove --force renamed
	works dmsetup mknodes
	is "$(ls /dev/mapper/renamed 2> /dev/null)" '' 'nodes'
	works dmsetup remove_all
}
commands

# Under a client's requests a table is replaced, and what is open isn't removed.
live() {
	works dmsetup create disk --table "0 2048 linear one 0"
	works dmsetup suspend disk
	works dmsetup info -c --noheadings -o suspended disk
	is "$(cat out)" 'Suspended' 'a suspended device'
	qemu-io -f raw "$(export_of disk)" -c 'read -v 0 512' > read.out 2>&1 &
	reader=$!
	until_true sh -c "[ \"\$(env DMCORE_CONTROL='$folder/control' LD_PRELOAD='$preload' \
		dmsetup info -c --noheadings -o open disk)\" = 1 ]" || failed 'nobody opens it'
	try dmsetup remove disk
	is "$status" 1 'the removal of what a client has open'
	works dmsetup load disk --table '0 4096 linear two 0'
	works dmsetup info -c --noheadings -o tables_loaded disk
	is "$(cat out)" 'Both' 'tables of a device to be resumed'
	prints '0 4096 linear two 0' dmsetup table --inactive disk
	kill -0 $reader 2> /dev/null || failed "a read of a suspended device ends: $(cat read.out)"
	works dmsetup resume disk
	wait $reader || failed "$(cat read.out)"
	# It went by the new table.
	grep -q 'aaaaaaaaaaaaaaa' read.out || failed "$(cat read.out)"
	works nbdinfo --size "$(export_of disk)"
	is "$(cat out)" 2097152 'the size by the new table'
	works dmsetup load disk --table '0 8 zero'
	works dmsetup clear disk
	until_true closed disk || failed 'disk stays open'
	works dmsetup remove disk
}
live

events() {
	truncate -s 1M leg1 leg2
	works dmsetup create m --notable
	works dmsetup load m --table "0 2048 mirror core 2 128 sync 2 leg1 0 leg2 0"
	works dmsetup resume m
	until_true sh -c "env DMCORE_CONTROL='$folder/control' LD_PRELOAD='$preload' \
		dmsetup status m | grep -q ' 16/16 '" || failed 'no recovery'
	works dmsetup info -c --noheadings -o events m
	seen=$(cat out)
	dmsetup wait m "$seen" > waited 2>&1 &
	waiter=$!
	sleep 0.3
	kill -0 $waiter 2> /dev/null || failed "a wait without an event ends: $(cat waited)"
	works dmsetup rename m mm
	wait $waiter || failed "$(cat waited)"
	# Who waits doesn't keep a device.
	works dmsetup info -c --noheadings -o events mm
	dmsetup wait mm "$(cat out)" > waited 2>&1 &
	waiter=$!
	sleep 0.3
	works dmsetup remove mm
	wait $waiter && failed 'a wait for what was removed succeeds'
	checks=$((checks + 3))
}
events

# libdevmapper's own parsers read what comes back.
parsers() {
	program=$folder/status-parsers
	if ! ${CC:-cc} -o "$program" "$here/status-parsers.c" -ldevmapper 2> /dev/null; then
		echo 'no libdevmapper-dev: its parsers are not asked'
		return
	fi
	truncate -s 1M cow leg1 leg2 bitmap
	works dmsetup create s --table "0 2048 snapshot one $folder/cow P 16"
	works dmsetup create m1 --table "0 2048 mirror core 2 128 nosync 2 leg1 0 leg2 0"
	works dmsetup create m2 --table \
		"0 2048 mirror disk 3 bitmap 128 nosync 2 leg1 0 leg2 0 1 handle_errors"
	for name in s m1 m2; do
		works dmsetup status "$name"
		mv out line
		works "$program" < line
		cat out
	done > found
	is "$(cat found)" 'snapshot used=32 total=2048 metadata=32 invalid=0 failed=0 overflow=0
mirror legs=2 insync=16 total=16 health=AA log=core
mirror legs=2 insync=16 total=16 health=AA log=disk/A' 'what the parsers find'
	works qemu-io -f raw "$(export_of s)" -c 'write 0 64k'
	try qemu-io -f raw "$(export_of s)" -c 'write 0 1M'
	works dmsetup status s
	mv out line
	works "$program" < line
	is "$(cut -d ' ' -f 5 out)" 'invalid=1' 'a store that has overflowed, to the parser'
	# That they refuse what is none.
	echo '0 8 snapshot 16/x' > bad
	try "$program" < bad
	is "$status" 1 'what is no status, to the parser'
}
parsers

# Whatever is sent, the server goes on.
hostile() {
	works dmsetup create victim --table '0 8 zero'
	works python3 "$here/hostile-control.py" control
	prints '0 8 zero ' dmsetup table victim
	# A second server doesn't take the socket away; one that has gone leaves it to the next.
	try nbdkit -f -U other "$plugin" control=control
	grep -q 'Address already in use' err || failed "$(cat err)"
}
hostile
end 'exception\|write of 1048576\|too many clients'

begin
kill -9 "$server"
wait "$server" 2> /dev/null
try dmsetup ls
grep -q 'Connection refused' err || failed "without a server: $(cat err)"
[ "$status" != 0 ] || failed 'without a server all is well'
begin
works dmsetup ls
end

finish
