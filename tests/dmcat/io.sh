#!/bin/sh
# SPDX-License-Identifier: MIT
# read and write: where the data land, lengths that don't fit, errors in the middle.
. "$(dirname "$0")/lib.sh"

pattern 9000000 > payload

images() {
	rm -f disk*
	for i in 0 1 2 3 4; do
		truncate -s "$1" "disk$i"
	done
}

# striped STRIPES CHUNK ROWS: writes a whole set, and makes the same images with dd.
striped() {
	table="0 $(($1 * $2 * $3)) striped $1 $2"
	images 1M
	rm -f expected*
	i=0
	while [ $i -lt "$1" ]; do
		table="$table disk$i $i"
		truncate -s 1M "expected$i"
		i=$((i + 1))
	done
	head -c $(($1 * $2 * $3 * 512)) payload > part
	chunk=0
	while [ $chunk -lt $(($1 * $3)) ]; do
		dd if=part bs=512 skip=$((chunk * $2)) count="$2" conv=notrunc \
			of="expected$((chunk % $1))" \
			seek=$((chunk / $1 * $2 + chunk % $1)) 2> dd.log ||
			failed "dd: $(cat dd.log)"
		chunk=$((chunk + 1))
	done
	write_part() { dmcat -t "$table" write < part; }
	works write_part
	i=0
	while [ $i -lt "$1" ]; do
		same "disk$i" "expected$i" "disk $i of $table"
		i=$((i + 1))
	done
	works dmcat -t "$table" read
	same out part "read of $table"
}

round_trips() {
	striped 1 8 3
	striped 2 128 4
	striped 3 24 5
	striped 5 3 7
	striped 4 300 1

	# Larger than what is in flight at once, by way of three layers.
	images 4M
	set='0 24576 striped 3 128 disk0 0 disk1 0 disk2 0'
	over='0 10000 linear set 0
10000 576 zero
10576 6000 linear set 10000'
	head -c 8486912 payload > part
	write_over() { dmcat -d set="$set" -d over="$over" write < part; }
	works write_over
	{
		head -c 5120000 part
		head -c 294912 /dev/zero
		tail -c +5414913 part
	} > expected_over
	works dmcat -d set="$set" -d over="$over" read
	same out expected_over 'three layers'
	works dmcat -d set="$set" -d over="$over" read 9999 600
	dd if=expected_over bs=512 skip=9999 count=600 of=piece 2> /dev/null
	same out piece 'a piece of three layers'
	count_bytes() { dmcat -d set="$set" -d over="$over" read 16570 | wc -c; }
	prints 3072 count_bytes
}

# An input that ends inside a sector or block leaves the rest of it alone.
tails() {
	for bytes in 1 511 512 513 1000 1048575 1048577; do
		images 2M
		pattern 2097152 > disk0
		cp disk0 expected0
		tr 0-9 a-j < payload | head -c $bytes > part
		dd if=part of=expected0 bs=512 seek=3 conv=notrunc 2> /dev/null
		write_tail() { dmcat --dev disk0 write 3 < part; }
		works write_tail
		same disk0 expected0 "$bytes bytes"
		pattern 2097152 > disk0
		# shellcheck disable=SC2002 # a pipe is the point
		write_piped() { cat part | dmcat -t '0 4096 linear disk0 0' write 3; }
		works write_piped
		same disk0 expected0 "$bytes bytes from a pipe"
	done
	write_nothing() { dmcat --dev disk0 write < /dev/null; }
	works write_nothing
	same disk0 expected0 'no input'
}

# Bounds, with nothing written by what is refused.
bounds() {
	images 1M
	pattern 1048576 > disk0
	cp disk0 before
	t='0 2000 linear disk0 0'
	behind='reach behind the end of unnamed, which has 2000 (EIO)'
	fails 1 "dmcat: read: 1 sectors from 2000 on $behind" dmcat -t "$t" read 2000 1
	fails 1 "dmcat: read: 0 sectors from 2001 on $behind" dmcat -t "$t" read 2001
	fails 1 "dmcat: read: 18446744073709551615 sectors from 1 on $behind" \
		dmcat -t "$t" read 1 18446744073709551615
	fails 2 "dmcat: read: '18446744073709551616' is too large a number (ERANGE)" \
		dmcat -t "$t" read 18446744073709551616
	fails 2 "dmcat: read: '1k' is not a number of sectors (EINVAL)" dmcat -t "$t" read 1k
	fails 2 "dmcat: read: '' is not a number of sectors (EINVAL)" dmcat -t "$t" read ''
	works dmcat -t "$t" read 2000
	works dmcat -t "$t" read 7 0
	is "$(wc -c < out)" 0 'a read of nothing'
	head -c 1024001 payload > part
	write_part() { dmcat -t "$t" write "$@" < part; }
	text='standard input has 1024001 bytes, but from sector 0 on unnamed has room for'
	fails 1 "dmcat: write: $text 1024000; nothing was written (ENOSPC)" write_part
	fails 1 "dmcat: write: 0 sectors from 2001 on $behind" write_part 2001
	same disk0 before 'refused writes'
	# A pipe's length isn't known before: what fits is written.
	# shellcheck disable=SC2002 # a pipe is the point
	write_piped() { cat part | dmcat -t "$t" write 1990; }
	text='standard input goes on behind the end of unnamed, where 5120 bytes have been'
	fails 1 "dmcat: write: $text written (ENOSPC)" write_piped
	dd if=part of=before bs=512 seek=1990 count=10 conv=notrunc 2> /dev/null
	same disk0 before 'a pipe that is too long'
	from_folder() { dmcat -t "$t" write < /; }
	fails 1 'dmcat: write: standard input: Is a directory (EISDIR)' from_folder
	fails_like 1 '^dmcat: read: absent: .*(ENOENT)$' dmcat --dev absent read
	fails_like 1 '^dmcat: read: /: .*(EINVAL)$' dmcat --dev / read
	fails_like 1 '^dmcat: read: frob:1: .*(ENODEV)$' dmcat --dev frob:1 read
}

# What can be done before an error is done, and the message names the sector.
errors() {
	images 1M
	pattern 1048576 > disk0
	t='0 999 linear disk0 0
999 1 error
1000 1000 linear disk0 1000'
	fails 1 'dmcat: read: sector 999: Input/output error (EIO)' dmcat -t "$t" read
	head -c 511488 disk0 > expected0
	same out expected0 'the sectors before an error'
	fails 1 'dmcat: read: sector 999: Input/output error (EIO)' dmcat -t "$t" read 999 1
	works dmcat -t "$t" read 1000
	head -c 1024000 payload | tr 0-9 a-j > part
	write_part() { dmcat -t "$t" write < part; }
	fails 1 'dmcat: write: sector 999: Input/output error (EIO)' write_part
	head -c 511488 part > expected0
	head -c 511488 disk0 > got
	same got expected0 'the sectors before a failed write'
}

# Blocks of 4096 bytes, as direct I/O has them on some disks.
blocks() {
	t='0 256 linear mem:128k,block=4096 0'
	message='not multiples of the 8 sectors of a block of unnamed (EINVAL)'
	fails 1 "dmcat: read: 1 sectors from 8 on: $message" dmcat -t "$t" read 8 1
	fails 1 "dmcat: read: 255 sectors from 1 on: $message" dmcat -t "$t" read 1
	head -c 5000 payload > part
	write_part() { dmcat -t "$t" write 8 < part; }
	works write_part
	images 1M
	pattern 1048576 > disk0
	cp disk0 expected0
	dd if=part of=expected0 bs=512 seek=8 conv=notrunc 2> /dev/null
	write_direct() { dmcat --direct --dev disk0 write 8 < part; }
	try dmcat --direct --dev disk0 info
	# Not every file system has direct I/O.
	if [ "$status" = 0 ]; then
		works write_direct
		same disk0 expected0 'direct I/O of an odd length'
		works dmcat --direct --dev disk0 read
		same out expected0 'a direct read'
	fi
}

# A file that is cut off while it is in use.
vanishing() {
	rm -f ready
	truncate -s 1M disk0
	cut_off() {
		{
			printf 'create x\n0 2048 linear disk0 0\nend\nread x 0 8 ready\n'
			while [ ! -s ready ]; do sleep 0.05; done
			truncate -s 512K disk0
			echo 'read x 0 2048 rescued'
		} | dmcat run -
	}
	fails 1 'stdin:5: read: sector 1024: Input/output error (EIO)' cut_off
	same rescued disk0 'what was left of a file'
}

each_backend round_trips
each_backend tails
each_backend bounds
each_backend errors
each_backend blocks
each_backend vanishing
finish
