#!/bin/sh
# SPDX-License-Identifier: MIT
# scrub: mirrors whose legs are the same, and those that differ, on the command line and in scripts.
. "$(dirname "$0")/lib.sh"

fails_like 2 'the form is: scrub NAME \[repair\]' sh -c 'echo scrub | "$0" run -' "$DMCAT"
fails_like 2 'the form is: scrub NAME \[repair\]' \
	sh -c 'echo scrub m repair x | "$0" run -' "$DMCAT"
fails 2 "dmcat: scrub: 'all' is not the word repair (EINVAL)" dmcat -d m='0 8 zero' scrub all
fails 2 "dmcat: scrub: 'm' has no mirror (EINVAL)" dmcat -d m='0 8 zero' scrub
fails 2 "dmcat: scrub: there is no mapped device 'mem:4k' (ENXIO)" dmcat --dev mem:4k scrub

pattern 1048576 > a
cp a b
cp a c
mirror='0 2048 mirror core 2 64 nosync 3 a 0 b 0 c 0'
prints '32 regions compared, 0 differ' dmcat -d m="$mirror" scrub
prints '32 regions compared, 0 differ' dmcat -d m="$mirror" scrub repair
prints '{"compared":32,"regions":32,"differing":0,"not_in_sync":0,"not_readable":0,"runs":[]}' \
	dmcat --json -d m="$mirror" scrub

# spoil FILE SECTOR: a byte of it is another one.
spoil() { printf X | dd of="$1" bs=1 seek=$(($2 * 512)) conv=notrunc 2> /dev/null; }

spoil b 100
spoil b 128
spoil c 2047
unchanged_b=$(cksum < b)
try dmcat -d m="$mirror" scrub
is "$status" 1 'the exit status'
is "$(cat out)" '32 regions compared, 3 differ
sectors 64 to 191 differ
sectors 1984 to 2047 differ'
is "$(cat err)" "dmcat: scrub: the legs of 'm' differ (EILSEQ)"
is "$(cksum < b)" "$unchanged_b" 'the leg'
try dmcat --json -d m="$mirror" scrub
is "$status" 1 'the exit status'
counts='"compared":32,"regions":32,"differing":3,"not_in_sync":0,"not_readable":0,'
is "$(cat out)" "{$counts"'"runs":[{"sector":64,"count":128},{"sector":1984,"count":64}]}'

# Behind another target, and by a script: each line has its own end.
echo 'create m
0 64 zero
64 2048 mirror core 2 64 nosync 2 a 0 b 0
end
scrub m
scrub m repair
scrub m
suspend m
scrub m
scrub x' > script
try dmcat -k run script
is "$status" 2 'the exit status'
is "$(cat out)" '32 regions compared, 2 differ
sectors 128 to 255 differ
32 regions compared, 2 differ
sectors 128 to 255 differ
32 regions compared, 0 differ'
is "$(cat err)" "script:5: scrub: the legs of 'm' differ (EILSEQ)
script:6: scrub: the legs of 'm' differ (EILSEQ)
script:9: scrub: 'm' is suspended: resume it first, or put an & behind the line (EDEADLK)
script:10: scrub: there is no mapped device 'x' (ENXIO)"
same a b 'what has been repaired'

# What isn't in sync isn't compared, nor what can't be read.
cat > script << 'END'
create low
0 1984 linear b 0
1984 64 error
end
create none 0 2048 error
create m 0 2048 mirror core 1 64 2 a 0 none 0
scrub m
create n 0 2048 mirror core 2 64 nosync 2 a 0 low 0
scrub n
END
try dmcat -q -k run script
is "$status" 1 'the exit status'
is "$(cat out)" '0 regions compared, 0 differ, 32 not in sync
31 regions compared, 0 differ, 1 not readable'
is "$(cat err)" "script:9: scrub: not all legs of 'n' can be read (EIO)"

# settle waits for a leg that has failed and comes back.
pattern 1048576 > new
cat > script << 'END'
create low 0 2048 error
create m 0 2048 mirror core 1 64 2 a 0 low 0
settle m --timeout 0.2
load low 0 2048 linear new 0
resume low
settle m
status m
END
try dmcat -k run script
is "$status" 1 'a leg that comes back'
is "$(cat out)" '0 2048 mirror 2 a low 32/32 1 AA 1 core'
is "$(grep -v 'failed\|Reads' err | sed 's/0 2048.*(/(/')" \
	"script:3: settle: 'm' hasn't ended its work: (ETIMEDOUT)"
same a new 'what has been recovered'
finish
