#!/bin/sh
# SPDX-License-Identifier: MIT
# Scripts: every verb, what is refused and where, and -k.
. "$(dirname "$0")/lib.sh"

pattern 4000000 > payload

# run_script TEXT [OPTION...]: from a file called `script`.
run_script() {
	printf '%s\n' "$1" > script
	shift
	dmcat "$@" run script
}

# ---- what works ----

verbs() {
	rm -f disk* got*
	truncate -s 1M disk0 disk1
	prints "words and spaces  kept # not cut
lin: 0 1024 linear$blank
lin: 1024 1024 linear$blank
join: 0 2048 linear$blank
join: 2048 8 zero$blank
0 2048 linear lin 0
2048 8 zero$blank
join: 0 2048 linear disk0 0
join: 2048 8 zero$blank" run_script '# a comment
	# another

create lin   # a comment
# the table has its own
0 1024 linear disk0 0   # as dmsetup does

1024 1024 linear disk1 1024
  end   # of the table
create join
0 2048 linear lin 0
2048 8 zero
end
echo words   and spaces\ \ kept \# not cut # cut
status
table join
write join 1020 8 payload 3
read join 1020 8 got
read /dev/mapper/join 1020 8 got.mapper
read join 5 0 got.nothing
read disk0 1020 4 got.path
read file:disk1 1024 4 got.spec
flush join
flush disk0
zero join 1022 4
read join 1020 8 got.zeroed
resume join
remove join
create join
0 2048 linear lin 0
2048 8 zero
end
remove join
remove lin
create join
0 2048 linear disk0 0
2048 8 zero
end
table'
	dd if=payload bs=512 skip=3 count=8 of=expected 2> /dev/null
	same got expected 'read of what was written'
	same got.mapper expected '/dev/mapper'
	is "$(wc -c < got.nothing)" 0 'a read of 0 sectors'
	head -c 2048 expected > expected.half
	same got.path expected.half 'read of a path'
	tail -c 2048 expected > expected.half
	same got.spec expected.half 'read of driver:spec'
	{
		head -c 1024 expected
		head -c 2048 /dev/zero
		tail -c 1024 expected
	} > expected.zeroed
	same got.zeroed expected.zeroed 'zero'

	# A discard may fail on file systems that can't; if it works, zeroes are read.
	try run_script 'discard disk0 0 2048
read disk0 0 2048 got'
	if [ "$status" = 0 ]; then
		head -c 1048576 /dev/zero > expected
		same got expected 'discard'
	else
		grep -q 'discard: .*(EOPNOTSUPP)$' err || failed "discard: $(cat err)"
	fi
	works run_script 'create z
0 8 zero
end
discard z 0 8'
}

# The devices of the command line are there; standard input may be script or data.
inputs() {
	rm -f disk0
	truncate -s 1M disk0
	prints 'x: 0 8 zero ' run_script 'table' -d x='0 8 zero'
	from_stdin() { echo 'table x' | dmcat -d x='0 8 zero' run -; }
	prints '0 8 zero ' from_stdin
	data_from_stdin() { run_script 'write disk0 0 16 -
read disk0 0 16 -' < payload; }
	works data_from_stdin
	head -c 8192 payload > expected
	same out expected 'data by standard input and output'
	# Text and data keep their order.
	works run_script 'echo before
read disk0 0 1 -
echo after'
	{ echo before; head -c 512 payload; echo after; } > expected
	same out expected 'text and data'
	no_newline() { printf 'echo one\r\necho two' | dmcat run -; }
	prints 'one
two' no_newline
}

each_backend verbs
each_backend inputs

# ---- what doesn't ----

truncate -s 1M disk0
pattern 1048576 > disk0
cp disk0 before

# refused STATUS LINE MESSAGE TEXT
refused() {
	fails "$1" "script:$2: $3" run_script "$4"
}

refused 2 1 "there is no command 'frob' (EINVAL)" 'frob x'
refused 2 3 "there is no command 'frob' (EINVAL)" '
# two lines before
frob x'
form='NAME, then table lines, then end; or NAME TABLE (EINVAL)'
refused 2 1 "create: too few words: the form is: create $form" 'create
0 8 zero
end'
refused 2 1 'read: too few words: the form is: read DEV SECTOR COUNT FILE (EINVAL)' \
	'read disk0 0 8'
refused 2 1 'read: too many words: the form is: read DEV SECTOR COUNT FILE (EINVAL)' \
	'read disk0 0 8 got 0'
refused 2 1 'write: too many words: the form is: write DEV SECTOR COUNT FILE [SKIP] (EINVAL)' \
	'write disk0 0 8 payload 0 0'
refused 2 1 'flush: too few words: the form is: flush DEV (EINVAL)' 'flush'
refused 2 1 "zero: 'all' is not a number of sectors (EINVAL)" 'zero disk0 0 all'
refused 2 1 "write: '-1' is not a number of sectors (EINVAL)" 'write disk0 0 8 payload -1'
refused 2 1 "discard: '18446744073709551616' is too large a number (ERANGE)" \
	'discard disk0 0 18446744073709551616'
refused 2 1 "table: there is no mapped device 'disk0' (ENXIO)" 'table disk0'
refused 2 1 "status: there is no mapped device 'x' (ENXIO)" 'status x'
refused 2 1 "remove: there is no mapped device 'x' (ENXIO)" 'remove x'
refused 2 1 "resume: there is no mapped device 'x' (ENXIO)" 'resume x'
refused 2 1 'create: the script ends before the `end` of the table (EINVAL)' 'create x
0 8 zero'
behind='reach behind the end of disk0, which has 2048 (EIO)'
for verb in zero discard; do
	refused 1 1 "$verb: 8 sectors from 2041 on $behind" "$verb disk0 2041 8"
	refused 1 1 "$verb: 18446744073709551615 sectors from 1 on $behind" \
		"$verb disk0 1 18446744073709551615"
done
refused 1 1 "read: 8 sectors from 18446744073709551615 on $behind" \
	'read disk0 18446744073709551615 8 got'
refused 1 1 "write: 2049 sectors from 0 on $behind" 'write disk0 0 2049 payload'
refused 1 1 'write: absent: No such file or directory (ENOENT)' 'write disk0 0 8 absent'
refused 1 1 'write: /: Is a directory (EISDIR)' 'write disk0 0 8 /'
head -c 4095 payload > short
refused 1 1 'write: short has 4095 bytes left, of 4096 that are to be written (ENODATA)' \
	'write disk0 0 8 short'
refused 1 1 'write: short has 3583 bytes left, of 3584 that are to be written (ENODATA)' \
	'write disk0 0 7 short 1'
refused 1 1 'write: short has no 8 sectors to skip (ENODATA)' 'write disk0 0 1 short 8'
refused 1 1 'write: short has no 18446744073709551615 sectors to skip (ENODATA)' \
	'write disk0 0 1 short 18446744073709551615'
refused 1 1 'read: absent/got: No such file or directory (ENOENT)' 'read disk0 0 8 absent/got'
refused 1 1 'read: /dev/full: No space left on device (ENOSPC)' 'read disk0 0 8 /dev/full'
echo_to_full() { run_script 'echo x' > /dev/full; }
fails 1 'script:1: echo: standard output: No space left on device (ENOSPC)' echo_to_full
same disk0 before 'nothing of this has written anything'

# The images under a device are no outputs.
refused 1 1 'read: disk0 is the device that is to be read (EBUSY)' 'read disk0 0 8 disk0'
refused 1 1 'read: ./disk0 is the device that is to be read (EBUSY)' \
	'read file:disk0 0 8 ./disk0'
ln -s disk0 link
refused 1 4 "read: link is a part of the device 'x' (EBUSY)" 'create x
0 8 linear disk0 0
end
read x 0 8 link'
same disk0 before 'images as outputs'
echo 'a file of the same name as a device is another thing' > x
works run_script 'create x
0 8 linear disk0 0
end
read x 0 8 x'
head -c 4096 disk0 > expected
same x expected 'a file named like a device'

# A pipe that ends too early has been written as far as it goes.
short_pipe() {
	printf 'write disk0 0 8 -\n' > script
	head -c 4095 payload | tr 0-9 a-j | dmcat run script
}
fails 1 'script:1: write: standard input ended too early: 8 sectors have been written (ENODATA)' \
	short_pipe
head -c 4095 payload | tr 0-9 a-j | dd of=before conv=notrunc 2> /dev/null
same disk0 before 'a short pipe'
busy_stdin() { printf 'write disk0 0 8 -\n' | dmcat run -; }
fails 2 'stdin:1: write: standard input is taken by the script already (EINVAL)' busy_stdin

# Tables: the line of the script that is to blame.
printf 'create x\n0 8 zero\n\n8 8 striped 2 8 disk0 0\nend\n' > script
fails_like 2 '^script:4: create: striped: .*(EINVAL)$' dmcat run script
printf 'create x\n0 8 linear absent 0\nend\n' > script
fails_like 2 '^script:2: create: linear: Device lookup failed: absent: .*(ENOENT)$' dmcat run script
printf 'create x\n0 8 zero\nend\ncreate x\n0 8 zero\nend\n' > script
fails_like 2 '^script:4: create: .*(EBUSY)$' dmcat run script
printf 'create x\n0 8 zero\nend\ncreate y\n0 8 linear x 0\nend\nremove x\n' > script
fails_like 1 '^script:7: remove: .*(EBUSY)$' dmcat run script
printf 'create x\n0 8 zero\nend\nzero x 0 8\n' > script
fails_like 1 '^script:4: zero: sectors 0 to 7: .*(EOPNOTSUPP)$' dmcat run script

# ---- -k ----

bad='frob
echo one
create x
0 8 striped
this is no command
end
echo two
read disk0 2048 8 got
load x
echo neither is this
end
echo three'
try run_script "$bad"
is "$status" 2 'the first error'
is "$(cat out)" '' 'what comes behind the first error'
is "$(wc -l < err)" 1 'messages'
try run_script "$bad" -k
is "$status" 2 'the greatest error'
is "$(cat out)" 'one
two
three' 'what was done in spite of errors'
is "$(cut -d: -f1-3 err)" "script:1: there is no command 'frob' (EINVAL)
script:4: create
script:8: read
script:9: load" 'the messages of -k'
try run_script 'read disk0 2048 8 got
echo done' -k
is "$status" 1 'an I/O error only'

# ---- garbage ----

fails 2 'dmcat: run: absent: No such file or directory (ENOENT)' dmcat run absent
fails 2 '/:1: Is a directory (EISDIR)' dmcat run /
head -c 1000000 /dev/urandom > garbage
fails_like 2 '^garbage:[0-9]*: .*(E[A-Z]*)$' dmcat run garbage
try dmcat -k run garbage
is "$status" 2 'garbage with -k'
is "$(tr -d '\1-\11\13-\37\177' < err | cmp - err 2>&1)" '' 'control characters in messages'
nul() { printf 'echo one\n\0\necho two\n' | dmcat "$@" run -; }
fails 2 'stdin:2: there is a NUL byte in the line (EILSEQ)' nul
is "$(cat out)" one 'before a NUL'
fails 2 'stdin:2: there is a NUL byte in the line (EILSEQ)' nul -k
is "$(cat out)" 'one
two' 'around a NUL'
head -c 20000000 /dev/zero | tr '\0' x > long
fails 2 'long:1: the line is longer than 16777216 bytes (E2BIG)' dmcat -k run long
awk 'BEGIN { for (i = 0; i < 1100; i++) printf "x " }' > long
fails 2 'long:1: the line has more than 1024 words (E2BIG)' dmcat run long

finish
