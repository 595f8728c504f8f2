#!/bin/sh
# SPDX-License-Identifier: MIT
# Devices by -d, -t, -c and --dev: tables that are taken, and tables that are refused, and why.
. "$(dirname "$0")/lib.sh"

truncate -s 1M a.img b.img
truncate -s 1000 odd.img
cp a.img 'with space.img'

# ---- taken ----

prints '0 2048 linear a.img 0' dmcat -t '0 2048 linear a.img 0' table
prints '0 8 zero ' dmcat -t '  0   8	zero  ' status
prints '0 8 linear with\ space.img 0' dmcat -t '0 8 linear with\ space.img 0' table
printf '# both halves\n\n0 1024 linear a.img 0 # first\n  1024 1024 linear b.img 5\n' > two.table
two='0 1024 linear a.img 0
1024 1024 linear b.img 5'
prints "$two" dmcat -t @two.table table
prints "$two" dmcat -d two=@two.table table
prints "$two" dmcat -t "$two" table
from_file() { dmcat -t @- table < two.table; }
prints "$two" from_file
cat two.table > piped
from_pipe() { cat piped | dmcat -d x=@- table; }
prints "$two" from_pipe
prints '0 16 striped 2 8 a.img 0 b.img 0' dmcat -t '0 16 striped 2 8 a.img 0 b.img 0' table
prints '0 16 striped 2 a.img b.img 1 AA' dmcat -t '0 16 striped 2 8 a.img 0 b.img 0' status

# In order; the last one is meant unless --dev says otherwise.
prints '0 8 linear first 0' \
	dmcat -d first='0 8 zero' -t '0 8 linear /dev/mapper/first 0' table
prints '0 8 zero ' dmcat -d first='0 8 zero' -t '0 8 linear first 0' --dev first table
prints '0 8 zero ' dmcat -d first='0 8 zero' -t '0 8 linear first 0' --dev /dev/mapper/first table
printf 'table\n' > table.script
prints "one: 0 8 zero$blank
two: 0 8 linear one 0
unnamed: 0 8 linear two 0
three: 0 16 zero$blank
unnamed2: 0 8 linear three 8" dmcat -c 'one,,,rw,0 8 zero;two,,,rw,0 8 linear one 0' \
	-t '0 8 linear two 0' -d three='0 16 zero' -t '0 8 linear three 8' run table.script
prints "0 8 zero$blank
8 8 linear a.img 0" dmcat -c 'x,,,rw,0 8 zero,8 8 linear a.img 0' table

# A table of 10,000 lines, printed as it was given.
awk 'BEGIN {
	for (i = 0; i < 10000; i++)
		print i * 2, 2, i % 2 ? "zero " : "linear a.img 7"
}' > long
sed 's/ $//' long > long.table
works dmcat -t @long.table table
same out long 'a table of 10000 lines'

# ---- refused ----

fails 2 "dmcat: -d set: not NAME=TABLE or NAME=@FILE (EINVAL)" dmcat -d set table
fails 2 "dmcat: -d =0 8 zero: not NAME=TABLE or NAME=@FILE (EINVAL)" dmcat -d '=0 8 zero' table
fails 2 'dmcat: -t: absent: No such file or directory (ENOENT)' dmcat -t @absent table
fails 2 'dmcat: -t: /: Is a directory (EISDIR)' dmcat -t @/ table
ln -s nowhere dangling
fails 2 'dmcat: -d x: dangling: No such file or directory (ENOENT)' dmcat -d x=@dangling table
twice() { echo '0 8 zero' | dmcat -t @- -t @- table; }
fails 2 'dmcat: -t: standard input is taken by a table already (EINVAL)' twice
fails_like 2 '^dmcat: -d a/b: .*(EINVAL)$' dmcat -d a/b='0 8 zero' table
fails_like 2 '^dmcat: -d x: .*(EBUSY)$' dmcat -d x='0 8 zero' -d x='0 8 zero' table
fails_like 2 '^dmcat: -t: no targets specified (EINVAL)$' dmcat -t '' table
: > empty
fails_like 2 '^dmcat: -t: no targets specified (EINVAL)$' dmcat -t @empty table

# The line that is to blame; in a file, with the file's name.
printf '0 8 zero\n\n# striped\n8 8 striped 2 8 a.img 0\n' > bad.table
fails_like 2 '^bad.table:4: -d x: striped: .*(EINVAL)$' dmcat -d x=@bad.table table
fails_like 2 '^dmcat: -t: table line 2: .*(EINVAL)$' dmcat -t '0 8 zero
9 8 zero' table
fails_like 2 '^dmcat: -t: table line 1: .*[Ii]nvalid format' dmcat -t 'nonsense' table
fails_like 2 '^dmcat: -t: table line 1: .*unknown target type' dmcat -t '0 8 frob' table
fails_like 2 '^dmcat: -c: ' dmcat -c 'x,,,rw,0 8 frob' table
fails_like 2 '^dmcat: -c: ' dmcat -c 'x,0 8 zero' table
fails 2 'dmcat: -c: it names no device (EINVAL)' dmcat -c '' table
fails 2 'dmcat: -c: it names no device (EINVAL)' dmcat -c ';;' table
prints '0 8 zero ' dmcat -c ';x,,,rw,0 8 zero;;' table

# A file smaller than its table, of an odd size, absent, no file.
fails_like 2 'a.img too small for target: start=0, len=2049, dev_size=2048 (EINVAL)$' \
	dmcat -t '0 2049 linear a.img 0' table
fails_like 2 'odd.img too small for target: start=0, len=2, dev_size=1 (EINVAL)$' \
	dmcat -t '0 2 linear odd.img 0' table
fails_like 2 'linear: Device lookup failed: absent: .*(ENOENT)$' \
	dmcat -t '0 8 linear absent 0' table
fails_like 2 'linear: Device lookup failed: dangling: .*(ENOENT)$' \
	dmcat -t '0 8 linear dangling 0' table
fails_like 2 'linear: Device lookup failed: /: .*(EINVAL)$' dmcat -t '0 8 linear / 0' table
mkfifo fifo
fails_like 2 'linear: Device lookup failed: fifo: .*(EINVAL)$' dmcat -t '0 8 linear fifo 0' table
fails_like 2 'linear: Device lookup failed: .*(E[A-Z]*)$' dmcat -t '0 8 linear /dev/null 0' table
fails_like 2 'linear: Device lookup failed: frob:x: .*(ENODEV)$' \
	dmcat -t '0 8 linear frob:x 0' table

# A device given to itself, directly and by way of another one.
fails_like 2 '^dmcat: -d x: table line 1: linear: .*(E[A-Z]*)$' dmcat -d x='0 8 linear x 0' table
fails_like 2 '^dmcat: -d x: table line 1: linear: .*(E[A-Z]*)$' \
	dmcat -d x='0 8 linear /dev/mapper/x 0' table
fails_like 2 '^dmcat: -d x: table line 1: linear: .*(ENOENT)$' \
	dmcat -d x='0 8 linear y 0' -d y='0 8 linear x 0' table

# Stacked deeper than the library goes.
set -- -d d0='0 8 zero'
for i in $(seq 1 70); do
	set -- "$@" -d "d$i=0 8 linear d$((i - 1)) 0"
done
fails_like 2 '^dmcat: -d d6[0-9]: .*(ELOOP)$' dmcat "$@" table

# Numbers that overflow.
for number in 18446744073709551615 18446744073709551616 99999999999999999999999999 \
	18014398509481984 -1 0x10 1e3 ''; do
	fails_like 2 '^dmcat: -t: table line 1: ' dmcat -t "0 $number zero" table
	fails_like 2 '^dmcat: -t: table line 1: ' dmcat -t "0 8 linear a.img $number" table
done
fails_like 2 '^dmcat: -t: table line 1: ' dmcat -t '18446744073709551615 8 zero' table

# 10 MB of garbage, and of nothing but garbage characters.
head -c 10000000 /dev/urandom > garbage
fails 2 'dmcat: -t: garbage: not a table: there are NUL bytes in it (EILSEQ)' \
	dmcat -t @garbage table
tr -d '\0' < garbage > garbage.text
fails_like 2 '^garbage.text:[0-9]*: -t: .*(E[A-Z]*)$' dmcat -t @garbage.text table
is "$(tr -d '\1-\11\13-\37\177' < err | cmp - err 2>&1)" '' 'control characters in a message'
tr -dc 'a-z' < garbage > garbage.line
fails_like 2 '^garbage.line:1: -t: .*(E[A-Z]*)$' dmcat -t @garbage.line table
{ printf '0 8 linear '; cat garbage.line; printf ' 0\n'; } > garbage.name
fails_like 2 '^garbage.name:1: -t: linear: .*(E[A-Z]*)$' dmcat -t @garbage.name table
same a.img b.img 'nothing was written by any of these'

# ---- read-only ----

fails 1 "dmcat: write: 'unnamed' is open read-only (EROFS)" dmcat -r -t '0 8 linear a.img 0' write
fails 1 "dmcat: write: 'a.img' is open read-only (EROFS)" dmcat -r --dev a.img write
works dmcat -r -t '0 8 linear a.img 0' info
grep -q '^State: *ACTIVE (READ-ONLY)$' out || failed "-r: $(grep State out)"
prints '0 8 zero ' dmcat -c 'x,,,ro,0 8 zero' table
if [ "$(id -u)" != 0 ]; then
	chmod 400 b.img
	try dmcat -t '0 8 linear b.img 0' read
	is "$status" 2 'a file that may not be written'
	grep -q '(EACCES)$' err || failed "EACCES: $(cat err)"
	grep -q '^dmcat: note: -r opens everything read-only$' err || failed "no hint at -r"
	works dmcat -r -t '0 8 linear b.img 0' read
	works dmcat --dev b.img read
fi

finish
