#!/bin/sh
# SPDX-License-Identifier: MIT
# cow-dump and cow-check: COW devices that are in order, and those that lie. settle.
. "$(dirname "$0")/lib.sh"

# little BYTES NUMBER: the number, little-endian.
little() {
	number=$2 left=$1
	while [ "$left" -gt 0 ]; do
		case $((number & 255)) in
		0) printf '\0' ;;
		*) printf "\\$(printf %o $((number & 255)))" ;;
		esac
		number=$((number >> 8)) left=$((left - 1))
	done
}
put() { # FILE OFFSET, from standard input
	dd of="$1" bs=1 seek="$2" conv=notrunc 2> /dev/null
}
# cow FILE SECTORS CHUNK [VALID [VERSION [MAGIC]]]: an empty store, whose chunks $chunk has.
cow() {
	rm -f "$1"
	truncate -s $(($2 * 512)) "$1"
	chunk=$3
	{
		little 4 "${6:-1883336275}"
		little 4 "${4:-1}"
		little 4 "${5:-1}"
		little 4 "$3"
	} | put "$1" 0
}
# entries FILE AREA INDEX OLD NEW [OLD NEW]...: in a row.
entries() {
	file=$1
	at=$((((chunk * 32 + 1) * $2 + 1) * chunk * 512 + $3 * 16))
	shift 3
	for number in "$@"; do
		little 8 "$number"
	done | put "$file" $at
}
# unchanged COMMAND...: runs it, after which the file `store` is as before.
unchanged() {
	cp store before
	"$@"
	same before store "after $*"
}
# finds KIND [WORDS...]: cow-check of `store` says that there is this problem and no other.
finds() {
	kind=$1
	shift
	unchanged try dmcat cow-check "$@" store
	is "$status" 1 "cow-check, $kind"
	is "$(grep -c ": $kind: " out)" 1 "$kind: $(cat out err)"
	is "$(tail -n 1 out | grep -c ' 1 problem$')" 1 "$kind alone: $(cat out)"
}

# ---- in order ----

cow store 2048 8
end='0 entries, next free chunk 2, status 16/2048 16'
prints "store: valid, 2048 sectors
header: magic 0x70416e53, valid 1, version 1, chunks of 8 sectors
area 0, chunk 1
$end" dmcat cow-dump store
unchanged prints "store: $end: clean" dmcat cow-check store

entries store 0 0 7 2 100 3 101 4 102 5 5 6
end='5 entries, next free chunk 7, status 56/2048 16'
dumped='store: valid, 2048 sectors
header: magic 0x70416e53, valid 1, version 1, chunks of 8 sectors
area 0, chunk 1
  0: 7 in 2
  1-3: 100-102 in 3-5
  4: 5 in 6'
unchanged prints "$dumped
$end" dmcat cow-dump store
unchanged prints "store: $end: clean" dmcat cow-check store
unchanged prints "store: $end: clean" dmcat cow-check --origin mem:824s store
prints "store: $end: clean" dmcat cow-check --origin mem:817s store
prints "$(printf %s "$dumped" | sed '/1-3/c\  1: 100 in 3\n  2: 101 in 4\n  3: 102 in 5')
$end" dmcat cow-dump --all store
ends='"num_entries":5,"current_area":0,"terminated":true,"next_free_chunk":7'
ends=$ends',"allocated_sectors":56,"total_sectors":2048,"metadata_sectors":16'
header='{"magic":1883336275,"valid":1,"version":1,"chunk_sectors":8}'
prints '{"device":"store","size_sectors":2048,"header":'$header',"state":"valid",'\
'"chunk_sectors":8,"area_entries":256,"areas":[{"area":0,"chunk":1,"runs":['\
'{"index":0,"old_chunk":7,"new_chunk":2,"count":1},'\
'{"index":1,"old_chunk":100,"new_chunk":3,"count":3},'\
'{"index":4,"old_chunk":5,"new_chunk":6,"count":1}]}],'$ends'}' dmcat --json cow-dump store
prints '{"device":"store","size_sectors":2048,"problems":[],"counts":{},'$ends',"clean":true}' \
	dmcat cow-check --json store
# Through a mapped device.
prints "c: $end: clean" dmcat -d c='0 2048 linear store 0' cow-check c

# A full area, of 32 entries, and the next one.
old=0
while [ $old -lt 32 ]; do
	little 8 $((2 * old))
	little 8 $((old + 2))
	old=$((old + 1))
done > full
fill() { # FILE, of chunks of one sector
	put "$1" 512 < full
}
cow store 100 1
fill store
end='32 entries, next free chunk 35, status 35/100 3'
unchanged prints "store: $end: clean" dmcat cow-check store
dmcat cow-dump store | tail -n 2 > out
is "$(cat out)" "area 1, chunk 34
$end" 'the empty area'
entries store 1 0 1000 35
end='33 entries, next free chunk 36, status 36/100 3'
unchanged prints "store: $end: clean" dmcat cow-check store
dmcat cow-dump store | tail -n 4 > out
is "$(cat out)" "  31: 62 in 33
area 1, chunk 34
  0: 1000 in 35
$end" 'the second area'
# The chunk behind the highest is the third area's: the next free one is behind that.
entries store 1 0 1000 66
unchanged prints 'store: 33 entries, next free chunk 68, status 68/100 3: clean' \
	dmcat cow-check store

# As large as they come; only metadata are read.
cow store 21474836480 8
entries store 0 0 0 2
end='1 entries, next free chunk 3, status 24/21474836480 16'
prints "store: $end: clean" dmcat cow-check store
cow store 21474836480 2097152
entries store 0 0 0 2
prints 'store: 1 entries, next free chunk 3, status 6291456/21474836480 4194304: clean' \
	dmcat cow-check store

# ---- headers that lie ----

cow store 2048 8 1 1 77
finds not-a-cow
no='no COW device of a persistent snapshot'
unchanged fails 1 "dmcat: cow-dump: store is $no (EINVAL)" dmcat cow-dump store
finds not-a-cow --chunk-size 8
is "$(grep -c '0 entries, next free chunk 2' out)" 1 'the entries behind a lost header'
works dmcat cow-dump --chunk-size 8 store
cow store 2048 8 1 1 0
finds new
prints 'store: new, 2048 sectors
header: magic 0x0, valid 1, version 1, chunks of 8 sectors' dmcat cow-dump store
cow store 2048 8 0
finds invalidated
prints 'store: invalidated, 2048 sectors
header: magic 0x70416e53, valid 0, version 1, chunks of 8 sectors
area 0, chunk 1
0 entries, next free chunk 2, status Invalid' dmcat cow-dump store
cow store 2048 8 2
finds odd-validity
cow store 2048 8 1 2
finds other-version
cant="dmcat: cow-dump: the entries of store can't be read: see cow-check (EINVAL)"
fails 1 "$cant" dmcat cow-dump store
for sectors in 0 3 4194304 2147483648; do
	cow store 2048 $sectors
	finds bad-chunk-size
	fails 1 "$cant" dmcat cow-dump store
done
cow store 2048 8
finds other-chunk-size --chunk-size 16
prints 'store: 0 entries, next free chunk 2, status 16/2048 16: clean' \
	dmcat cow-check --chunk-size 8 store
cow store 15 8
finds too-small
cow store 16 8
works dmcat cow-check store
cow store 2048 2097152
finds too-small

# ---- entries that lie ----

cow store 2048 8
entries store 0 0 10 2 11 256 12 3 13 4
finds new-behind-end
is "$(head -n 1 out)" "store: area 0, entry 1: chunk 11 in 256: error: new-behind-end: the device \
has 256 chunks (reads and writes of the old chunk fail)" 'the line'
prints '{"device":"store","size_sectors":2048,"problems":[{"kind":"new-behind-end",'\
'"severity":"error","area":0,"index":1,"old_chunk":11,"new_chunk":256,'\
'"text":"the device has 256 chunks","meaning":"reads and writes of the old chunk fail"}],'\
'"counts":{"new-behind-end":1},"num_entries":4,"current_area":0,"terminated":true,'\
'"next_free_chunk":257,"allocated_sectors":2056,'\
'"total_sectors":2048,"metadata_sectors":16,"clean":false}' sh -c '"$0" --json cow-check store; \
	[ $? = 1 ]' "$DMCAT"
# The device ends within the last chunk.
truncate -s $((2047 * 512)) store
entries store 0 1 11 255
finds new-behind-end
entries store 0 1 11 254
works dmcat cow-check store
entries store 0 1 11 1
finds new-is-metadata
entries store 0 1 11 -1
finds new-behind-end
cow store 2048 1
entries store 0 0 10 2 11 34 12 3
try dmcat cow-check store
is "$(grep -c ': new-is-metadata: area 1 is there' out)" 1 'the place of the second area'
entries store 0 1 11 35
finds new-too-early
cow store 2048 8
entries store 0 0 10 2 11 3 12 4
finds old-behind-end --origin mem:96s
is "$(grep -c 'entry 2: chunk 12 in 4: .*the origin has 12 chunks' out)" 1 'the chunk'
works dmcat cow-check --origin mem:97s store
entries store 0 1 -1 3
finds old-behind-end
is "$(grep -c 'no device has more than 2251799813685248 chunks' out)" 1 'the most chunks'
entries store 0 1 12 3
finds old-twice
is "$(grep -c 'entry 2: chunk 12 in 4: .*: area 0, entry 1 has old chunk 12 too' out)" 1 'the first'
entries store 0 1 11 4
finds new-twice
is "$(grep -c 'entry 2: chunk 12 in 4: .*: area 0, entry 1 has new chunk 4 too' out)" 1 'the first'
# Unsorted, and three times, across areas.
cow store 200 1
fill store
entries store 1 0 1 35 9 36 4 37 7 38 4 39
try dmcat cow-check store
is "$status" 1
is "$(grep 'old-twice' out | sed 's/ (.*//')" "\
store: area 1, entry 2: chunk 4 in 37: error: old-twice: area 0, entry 2 has old chunk 4 too
store: area 1, entry 4: chunk 4 in 39: error: old-twice: area 0, entry 2 has old chunk 4 too" thrice
is "$(tail -n 1 out)" 'store: 37 entries, next free chunk 40, status 40/200 3: 2 problems' 'the end'

# ---- areas that lie ----

cow store 2048 8
entries store 0 0 10 2 0 0 0 0 77 5 78 6
finds stale
is "$(grep -c "area 0: .*: 2 behind entry 1, .* first is entry 3: chunk 77 in 5 (" out)" 1 stale
entries store 0 3 0 0 0 0
works dmcat cow-check store
# The last place of the area counts, and what follows it doesn't.
entries store 0 255 1 0
finds stale
entries store 0 255 0 0 1 1
works dmcat cow-check store
# Far behind the terminator in a chunk that is mostly a hole.
cow store 8388608 2097152
entries store 0 0 10 2
entries store 0 67108863 0 9
try dmcat cow-check store
is "$status $(grep -c 'stale: 1 behind .* first is entry 67108863: chunk 0 in 9 ' out)" '1 1' last
entries store 0 67108863 0 0
entries store 0 65536 3 3
try dmcat cow-check store
is "$status $(grep -c 'stale: 1 behind .* first is entry 65536: chunk 3 in 3 ' out)" '1 1' middle

cow store 34 1
fill store
finds no-next-area
dmcat cow-dump store | tail -n 2 > out
is "$(cat out)" 'the device ends before the next area
32 entries, next free chunk 35' 'a list without an end'
cow store 4096 1
fill store
entries store 1 0 8000 9000 8001 9001 8002 36
dmcat cow-check store > out
is "$?" 1
is "$(grep 'garbage' out | sed 's/ (.*//')" \
	"store: area 1: error: garbage: 2 of 3 entries can't be any" 'an area of garbage'
# All of the device is garbage behind a header: what is printed of it has a bound.
cow store 4096 1
yes | tr 'y\n' '\377\376' | head -c $((4095 * 512)) | put store 512
try dmcat cow-check store
is "$status" 1
is "$(grep -c 'entry .*: new-behind-end: ' out)" 20 'entries of one kind'
is "$(grep -c 'new-behind-end: 3980 more; --all prints them' out)" 1 'the rest'
try dmcat cow-check --all store
is "$status" 1
is "$(grep -c 'entry .*: new-behind-end: ' out)" 4000 'all entries of one kind'

# ---- what can't be read ----

cow store 2048 8
fails 2 'dmcat: cow-check: none: No such file or directory (ENOENT)' dmcat cow-check none
fails 2 'dmcat: cow-check: none: No such file or directory (ENOENT)' \
	dmcat cow-check --origin none store
fails_like 2 '^dmcat: cow-check: .*(EIO)$' dmcat -t '0 2048 error' cow-check unnamed
printf '0 8 linear store 0\n8 2040 error\n' > broken.table
fails_like 2 '^dmcat: cow-check: .*(EIO)$' dmcat -d broken=@broken.table cow-check broken
fails_like 1 '^dmcat: cow-dump: .*(EIO)$' dmcat -d broken=@broken.table cow-dump broken
: > empty
fails_like 2 '^dmcat: cow-check: .*(EIO)$' dmcat cow-check empty
fails 2 'dmcat: cow-check: an argument is missing (EINVAL)' dmcat cow-check
fails 2 'dmcat: --chunk-size 12: not a power of two up to 2097152 (EINVAL)' \
	dmcat cow-check --chunk-size 12 store
fails 2 'dmcat: cow-dump: --origin is for cow-check (EINVAL)' dmcat cow-dump --origin store store
fails 2 'dmcat: read: --all is for cow-check and cow-dump (EINVAL)' dmcat --dev store --all read

# ---- a snapshot's own ----

head -c 64K /dev/zero | tr '\0' x > data
truncate -s 1M origin
rm -f store
truncate -s 1M store
cat > script << 'END'
create s 0 2048 snapshot origin store P 8
write s 8 8 data
write s 800 100 data
status s
remove s
END
prints '0 2048 snapshot 128/2048 16' dmcat run script
end='14 entries, next free chunk 16, status 128/2048 16'
unchanged prints "store: $end: clean" dmcat cow-check --origin origin store
prints "store: valid, 2048 sectors
header: magic 0x70416e53, valid 1, version 1, chunks of 8 sectors
area 0, chunk 1
  0: 1 in 2
  1-13: 100-112 in 3-15
$end" dmcat cow-dump store
# A stale tail is told of before a snapshot clears it.
entries store 0 20 400 30
finds stale
prints '0 2048 snapshot 128/2048 16' dmcat -q -t '0 2048 snapshot origin store P 8' status
prints "store: $end: clean" dmcat cow-check store

# ---- settle ----

fails_like 2 "too many words: the form is: settle NAME \[--timeout SECONDS\]" \
	sh -c 'echo settle a 1 | "$0" run -' "$DMCAT"
cat > script << 'END'
create a 0 2048 linear store 0
settle a
settle a --timeout 0
create b 0 8 zero
load b 0 8 error
settle b
echo settled
settle c
suspend a
settle a
END
try dmcat -k run script
is "$status" 2 'a script with errors'
is "$(cat out)" settled
is "$(cat err)" "script:8: settle: there is no mapped device 'c' (ENXIO)
script:10: settle: 'a' is suspended: resume it first, or put an & behind the line (EDEADLK)"

# A merge is held up, and let go; delay lets go what it holds when its table is replaced.
cp store merged
cat > script << 'END'
create low 0 2048 delay origin 0 0 origin 0 600000
create m 0 2048 snapshot-merge low merged P 8
settle m --timeout 0
settle m --timeout 0.05
load low 0 2048 linear origin 0
resume low
settle m
status m
END
try dmcat -k run script
is "$status $(wc -l < err)" '1 2' 'a merge that is held up'
late="settle: 'm' hasn't ended its work: 0 2048 snapshot-merge 128/2048 16 (ETIMEDOUT)"
is "$(cat err)" "script:3: $late
script:4: $late"
is "$(cat out)" '0 2048 snapshot-merge 16/2048 16' 'a merge that has ended'
dmcat --dev origin read 8 8 | cmp -s -n 4096 - data || failed 'the merged data are another'
prints 'merged: 0 entries, next free chunk 2, status 16/2048 16: clean' dmcat cow-check merged

# One that fails, and a snapshot that was invalid before.
cp store merged
cat > script << 'END'
create low
0 800 linear origin 0
800 1248 error
end
create m 0 2048 snapshot-merge low merged P 8
settle m
END
try dmcat -q run script
is "$status" 1 'a merge that fails'
is "$(cat err)" "script:6: settle: 'm' won't end its work: 0 2048 snapshot-merge Merge failed (EIO)"
cow merged 2048 8 0
echo 'create m 0 2048 snapshot-merge origin merged P 8
settle m' > script
fails 1 "script:2: settle: 'm' won't end its work: 0 2048 snapshot-merge Invalid (EIO)" \
	dmcat -q run script

finish
