#!/bin/sh
# SPDX-License-Identifier: MIT
# replay: logs of the kernel's and of our own log-writes target, and logs that lie.
. "$(dirname "$0")/lib.sh"

tar -xzf "$top_srcdir/tests/golden/log-writes.tar.gz" || exit 1

listed='0 1 write 0 16
1 18 write 64 8
2 27 write 0 8
3 36 flush
4 37 mark one
5 38 write,fua 128 24
6 63 flush
7 64 write 32 8
8 73 discard 64 8
9 74 write 8 8
10 83 flush
11 84 mark two
12 85 write 200 8
13 94 discard 128 8
14 95 mark dm-log-writes-end'
prints "$listed" dmcat replay log512
prints '4 9 mark one
5 10 write,fua 128 24' dmcat replay --start-entry 4 --limit 2 log4096
mark='{"entry":4,"block":37,"kind":["mark"],"sector":0,"count":0,"text":"one"}'
write='{"entry":5,"block":38,"kind":["write","fua"],"sector":128,"count":24}'
prints '{"block_bytes":512,"num_entries":15,"entries":['"$mark,$write"']}' \
	dmcat --json replay --start-entry 4 --limit 2 log512

# The kernel's devices.
for bytes in 512 4096; do
	rm -f replayed
	truncate -s 128K replayed
	prints 'from entry 0, next 15 of 15' dmcat replay log$bytes replayed
	same replayed dev$bytes "a log of the kernel, of blocks of $bytes bytes"
done

# By steps, from where the last one ended: the same in the end.
rm -f replayed
truncate -s 128K replayed
prints 'from entry 0, next 4 of 15' dmcat replay --next-flush log512 replayed
dmcat --dev replayed read 128 1 > sector
cmp -s -n 512 sector /dev/zero || failed 'an entry behind the flush has been replayed'
prints 'from entry 4, next 6 of 15' dmcat replay --start-entry 4 --next-fua log512 replayed
prints 'from entry 6, next 12 of 15' dmcat replay --start-entry 6 --end-mark two log512 replayed
prints '{"first":12,"next":13,"num_entries":15}' \
	dmcat --json replay --start-mark two --limit 1 log512 replayed
prints 'from entry 13, next 15 of 15' dmcat replay --start-entry 13 log512 replayed
same replayed dev512 'a log that was replayed in steps'
prints 'from entry 15, next 15 of 15' dmcat replay --start-entry 15 log512 replayed

none='log512: from entry 12 on there is none to stop at (ENOENT)'
fails 1 "dmcat: replay: $none" dmcat replay --start-entry 12 --next-flush log512 replayed
none='log512: from entry 0 on there is none to stop at (ENOENT)'
fails 1 "dmcat: replay: $none" dmcat replay --end-mark three log512 replayed
none="log512: there is no mark 'three' to start behind (ENOENT)"
fails 1 "dmcat: replay: $none" dmcat replay --start-mark three log512 replayed
none='log512: there is no entry 16, but 15 in all (ENOENT)'
fails 1 "dmcat: replay: $none" dmcat replay --start-entry 16 log512 replayed
fails 2 'dmcat: replay: an argument is missing (EINVAL)' dmcat replay
fails 2 "dmcat: replay: 'c' is an argument too many (EINVAL)" dmcat replay a b c
fails 2 'dmcat: --limit x: not a number (EINVAL)' dmcat replay --limit x log512
fails 2 'dmcat: read: --next-fua is for replay (EINVAL)' dmcat --next-fua --dev replayed read

# Our own, onto a mapped device.
truncate -s 1M ours log mirror
head -c 4096 dev512 > data
cat > script << 'END'
create t 0 2048 log-writes ours log
write t 100 8 data
flush t
message t 0 mark a\ b
write t 104 1 data 3
zero ours 0 8
discard t 100 2
remove t
END
works dmcat run script
prints '0 1 write 100 8
1 10 flush
2 11 mark a b
3 12 write 104 1
4 14 discard 100 2
5 15 mark dm-log-writes-end' dmcat replay log
prints 'from entry 0, next 6 of 6' dmcat -d m='0 2048 linear mirror 0' replay log m
same ours mirror 'a log of our own'

# Logs that lie. Nothing is written for any of them.
put() { # FILE OFFSET BYTES...: in printf's octal
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2> /dev/null
}
refused() { # MESSAGE
	fails 1 "dmcat: replay: liar: $1 (EINVAL)" dmcat replay liar untouched
	cmp -s untouched zeroes || failed "something was written: $1"
	cp log512 liar
}
truncate -s 128K untouched zeroes
cp log512 liar
fails 1 'dmcat: replay: dev512: is no log of log-writes: another magic number (EINVAL)' \
	dmcat replay dev512
put liar 8 '\002'
refused 'is a log of another version'
put liar 24 '\001'
refused 'has blocks of an impossible size'
put liar 24 '\000\000'
refused 'has blocks of an impossible size'
put liar 27 '\200'
refused 'has blocks of an impossible size'
put liar 23 '\377'
refused 'entry 15, in block 96, would be behind the end of the log device'
put liar 528 '\040'
refused 'entry 0, in block 1, has impossible flags'
put liar 528 '\011'
refused 'entry 0, in block 1, has impossible flags'
put liar 527 '\377'
refused 'entry 0, in block 1, has an impossible length'
put liar 519 '\377'
refused 'entry 0, in block 1, has an impossible length'
put liar 522 '\001'
refused 'entry 0, in block 1, reaches behind the end of the log device'
put liar 513 '\001'
refused 'entry 0, in block 1, reaches behind the end of the device'
put liar 18968 '\341\001'
refused 'entry 4, in block 37, has an impossible length'
put liar 18960 '\030'
refused 'entry 4, in block 37, has impossible flags'
head -c 20000 log512 > liar
truncate -s 19968 liar
refused 'entry 5, in block 38, reaches behind the end of the log device'
truncate -s 0 liar
try dmcat replay liar untouched
is "$status" 1 'an empty log'
truncate -s 64K small
behind='log512: entry 5, in block 38, reaches behind the end of the device (EINVAL)'
fails 1 "dmcat: replay: $behind" dmcat replay log512 small
prints 'from entry 0, next 5 of 15' dmcat replay --limit 5 log512 small

finish
