#!/bin/sh
# SPDX-License-Identifier: MIT
# copy: where data land, what is refused before anything is written, errors, holes, comparison,
# rates, and copies that are cut off and go on.
. "$(dirname "$0")/lib.sh"

pattern 1048576 > source
sectors=2048

# Of the JSON object in the file out.
field() { sed "s/.*\"$1\":\([^,}]*\).*/\1/" out; }
position() { sed -n 's/^position //p' state 2> /dev/null; }

# refused MESSAGE ARGUMENT...: with status 1, and without a new file.
refused() {
	message=$1
	shift
	fails 1 "dmcat: copy: $message" dmcat "$@"
	[ ! -e new ] || failed "$*: there is a new file"
	rm -f new
}

# refused_usage MESSAGE ARGUMENT...
refused_usage() {
	message=$1
	shift
	fails 2 "dmcat: copy: $message (EINVAL)" dmcat "$@"
}

copies() {
	rm -f new* got*
	works dmcat copy source new
	same new source 'a new file'
	grep -q '^1\.0 MiB of 1\.0 MiB in [0-9.]* s, [0-9.]* .*/s$' out ||
		failed "sums: $(cat out)"
	works dmcat -q copy source file:new2
	same new2 source 'a new file by its driver'
	is "$(cat out)" '' 'sums when all is quiet'

	# A device that stands on several files, to eight places of all kinds.
	truncate -s 2M long
	tr 0-9 a-j < source >> long
	truncate -s 1M sized
	: > empty
	set='0 1024 linear source 0
1024 1024 linear source 1024'
	onto='0 2048 linear mapped 0'
	truncate -s 1M mapped
	works dmcat -d set="$set" -d onto="$onto" copy set long sized empty file:new3 onto new4 \
		mem:1M ./new5
	for name in sized empty new3 mapped new4 new5; do
		same $name source "$name of eight"
	done
	head -c 1048576 long > part
	same part source 'the beginning of a longer file'
	tail -c 2097152 long > part
	{ head -c 1048576 /dev/zero; tr 0-9 a-j < source; } > expected_rest
	same part expected_rest 'the rest of a longer file'

	# By the kernel, and past the page cache, where that can be.
	works dmcat --json --share copy source new6
	same new6 source 'shared'
	is "$(($(field copied) + $(field shared)))" $sectors 'copied or shared'
	try dmcat --direct --dev source info
	if [ "$status" = 0 ]; then
		works dmcat --direct copy source new7
		same new7 source 'direct'
	fi
	: > nothing
	works dmcat copy nothing new8
	same new8 nothing 'nothing at all'
}

ranges() {
	rm -f new*
	works dmcat copy source 3 100 new 50 new2 0
	dd if=source bs=512 skip=3 count=100 of=part 2> /dev/null
	same new2 part 'a range'
	{ head -c 25600 /dev/zero; cat part; } > expected_range
	same new expected_range 'a range behind a hole'
	# Within a device, overlapping, both ways.
	cp source moved
	works dmcat copy moved 0 1000 moved 100
	{ head -c 51200 source; head -c 512000 source; tail -c +563201 source; } > expected_range
	same moved expected_range 'moved towards the end'
	cp source moved
	works dmcat copy moved 100 1000 ./moved 7
	{
		head -c 3584 source
		dd if=source bs=512 skip=100 count=1000 2> /dev/null
		tail -c +515585 source
	} > expected_range
	same moved expected_range 'moved towards the beginning'
	rm -f new
	refused 'moved is the device that is to be read (EBUSY)' \
		--resume state copy moved 100 100 moved 7
	refused '8 sectors from 2041 on reach behind the end of source, which has 2048 (EIO)' \
		copy source 2041 8 new3 0
}

# What can be known to fail is refused, and nothing is changed.
refusals() {
	rm -f new small other
	head -c 65536 source > small
	cp small before
	text='small has 128 sectors, and is to take 2048 of source; --grow makes it longer (ENOSPC)'
	refused "$text" copy source small
	refused "$text" copy source new small
	same small before 'a file that is too small'
	refused 'mem:64k has 128 sectors, and is to take 2048 of source (ENOSPC)' \
		copy source new mem:64k
	works dmcat --grow copy source small
	same small source 'grown'

	cp source other
	refused './source is the device that is to be read (EBUSY)' copy source new ./source
	refused './other is a destination twice (EBUSY)' copy source other new ./other
	stack='0 2048 linear source 0'
	refused "source is a part of the device 'x' (EBUSY)" -d x="$stack" copy x new source
	refused "source is a part of the device 'x' (EBUSY)" -d x="$stack" copy source new x
	refused "x is a part of the device 'y' (EBUSY)" -d x="$stack" -d y='0 8 linear x 0' \
		copy y new x
	refused "'new' is open read-only (EROFS)" -r copy source new
	fails_like 1 '^dmcat: copy: absent: .*(ENOENT)$' dmcat copy absent new
	fails_like 1 '^dmcat: copy: /: .*(EINVAL)$' dmcat copy source new /
	fails_like 1 '^dmcat: copy: frob:1: .*(ENODEV)$' dmcat copy source new frob:1
	refused 'absent/new: No such file or directory (ENOENT)' copy source absent/new
	refused 'absent/new: No such file or directory (ENOENT)' copy source new absent/new
	head -c 1000 source > odd
	refused "odd has 1000 bytes, which aren't whole blocks: the last ones can't be copied \
(EINVAL)" copy odd new
	coarse=mem:1M,block=4096
	text="not multiples of the 8 sectors of a block of $coarse (EINVAL)"
	refused "1 sectors from 0 on: $text" -d x='0 1 zero' copy x $coarse
	same source other 'the source'

	refused_usage 'an argument is missing' copy source
	refused_usage '--save-every is for --resume' --save-every 1 copy source new
	refused_usage "--resume has to flush: it can't be with --no-flush" \
		--resume state --no-flush copy source new
	fails 2 'dmcat: copy: more than 8 destinations (E2BIG)' dmcat copy source 1 2 3 4 5 6 7 8 9
	fails 2 'dmcat: read: --sparse is for copy (EINVAL)' dmcat --sparse --dev source read
	text='not a number of bytes a second, from 1 on, with or without k, M, G or T'
	for rate in 0 1x k 1kk ''; do
		try dmcat --rate "$rate" copy source new
		is "$status" 2 "--rate '$rate'"
		grep -q "^dmcat: --rate $rate: $text (E[A-Z]*)\$" err || failed "$(cat err)"
	done
	fails 2 "dmcat: --rate 16777216T: $text (ERANGE)" dmcat --rate 16777216T copy source new
	fails 2 'dmcat: --save-every 0: not a number of seconds, from 0.001 on (ERANGE)' \
		dmcat --save-every 0 copy source new
	[ ! -e new ] || failed 'a refused option: there is a new file'
}

errors() {
	rm -f new*
	bad='0 1000 linear source 0
1000 1 error
1001 1047 linear source 1001'
	fails 1 'dmcat: copy: bad: reading sector 1000: Input/output error (EIO)' \
		dmcat -d bad="$bad" copy bad new
	text='bad: not all could be read; zeroes stand in its place (EIO)'
	fails 1 "dmcat: copy: $text" dmcat -d bad="$bad" --json --ignore-errors copy bad new2 new3
	is "$(field ok)" false 'ok, with errors that are ignored'
	is "$(field position)" $sectors 'position, with errors that are ignored'
	is "$(field failed)" 8 'failed sectors'
	{ head -c 512000 source; head -c 4096 /dev/zero; tail -c +516097 source; } > expected_bad
	same new2 expected_bad 'a copy with zeroes for a block'
	same new3 expected_bad 'another'

	# Blocks that are bad later, and again good.
	cat > script << 'END2'
create x
0 2048 dust source 0 512
end
message x 0 addbadblock 77
message x 0 enable
copy x new4
END2
	fails 1 'script:6: copy: x: reading sector 77: Input/output error (EIO)' dmcat run script

	# One of three destinations fails.
	truncate -s 1M under
	bad='0 1500 linear under 0
1500 548 error'
	fails_like 1 '^dmcat: copy: bad: writing failed at or behind sector [0-9]* (EIO)$' \
		dmcat -d bad="$bad" copy source new5 bad new6
	at=$(sed 's/.*sector \([0-9]*\).*/\1/' err)
	[ "$at" -le 1500 ] || failed "writing failed at or behind $at, not before 1500"
	for name in new5 under new6; do
		cmp -n $((at * 512)) source $name || failed "$name: not $at sectors"
	done
	fails 1 'dmcat: copy: bad: not all could be written (EIO)' \
		dmcat -d bad="$bad" --ignore-errors copy source new5 bad new6
	same new5 source 'beside one that fails'
	same new6 source 'beside one that fails'

	full() { dmcat copy source new7 > /dev/full; }
	fails 1 'dmcat: copy: standard output: No space left on device (ENOSPC)' full
	same new7 source 'without an output'
}

blocks_of() { stat -c %b "$1"; }

holes() {
	rm -f new* holey
	truncate -s 8M holey
	dd if=source of=holey bs=64k count=2 seek=5 conv=notrunc 2> /dev/null
	dd if=source of=holey bs=4k count=1 seek=1000 conv=notrunc 2> /dev/null
	works dmcat --json --sparse copy holey new new2
	same new holey 'with holes'
	same new2 holey 'with holes'
	is "$(field skipped)" $((16384 - 264)) 'sectors left out'
	is "$(field copied)" 264 'sectors of data'
	# A file full of zeroes is as good, and so is a mapped device.
	head -c 8388608 /dev/zero > full
	dd if=holey of=full bs=4k conv=notrunc 2> /dev/null
	works dmcat -d x='0 16384 linear full 0' --sparse copy x new3
	same new3 holey 'with zeroes'
	works dmcat copy holey new4
	same new4 holey 'without holes'
	# What was there is zeroed.
	tr '\0' x < full > new5
	works dmcat --json --sparse copy holey new5
	same new5 holey 'zeroed'
	is "$(field zeroed)" $((16384 - 264)) 'sectors zeroed'
	# Not every file system has holes.
	if [ "$(blocks_of holey)" -lt "$(blocks_of full)" ]; then
		most=$(($(blocks_of holey) + 128))
		for name in new new2 new3; do
			[ "$(blocks_of $name)" -le $most ] ||
				failed "$name has more than $most blocks"
		done
	fi
}

comparisons() {
	rm -f new* under
	works dmcat --json --verify copy source new new2
	is "$(field verified)" $sectors 'verified'
	is "$(field mismatch)" null 'no mismatch'
	is "$(field ok)" true 'ok'
	# A device that changes a byte of what is read from it.
	truncate -s 1M under
	lie='0 1024 linear under 0
1024 1024 flakey under 1024 0 1 5 corrupt_bio_byte 1 r 3 0'
	works dmcat -d lie="$lie" copy source lie
	fails_like 1 '^dmcat: copy: lie differs from source at sector 1[0-9]* (EILSEQ)$' \
		dmcat --json -d lie="$lie" --verify copy source lie
	at=$(field mismatch)
	[ "$at" -ge 1024 ] || failed "the first difference at $at"
	is "$(field ok)" false 'ok, with a difference'
}

rates() {
	rm -f new
	head -c 524288 source > half
	started=$(date +%s%N)
	works dmcat --rate 1M copy half new
	[ $(($(date +%s%N) - started)) -ge 400000000 ] || failed '512 KiB at 1 MiB a second: fast'
	same new half 'slow'
}

# What ignores hangups, as nohup does, has them ignored by all that it starts.
unignored='env --default-signal=HUP,TERM'
$unignored true 2> /dev/null || unignored=

# cut_off SIGNAL ARGUMENT...: begins a copy to `new`, and sends a signal when the state says that it
# is further than before. *status is the exit status, its output in out and err.
cut_off() {
	signal=$1 before=$(position) tries=0
	shift
	$unignored "$DMCAT" --rate 800k --resume state --save-every 0.01 "$@" > out 2> err &
	pid=$!
	while [ "$(position)" = '' ] || [ "$(position)" -le "${before:-0}" ]; do
		tries=$((tries + 1))
		[ $tries -lt 1000 ] || break
		sleep 0.02
	done
	kill "-$signal" $pid
	status=0
	# The shell tells of the death of what it has started.
	wait $pid 2> /dev/null || status=$?
	checks=$((checks + 1))
	[ $tries -lt 1000 ] || failed 'nothing is saved'
}

resumed() {
	rm -f new* state*
	for kill in 1 2 3; do
		cut_off KILL copy source new new2
		is "$status" 137 'the exit status of a kill'
		at=$(position)
		cmp -n $((at * 512)) source new || failed "$kill: less than $at sectors"
		cmp -n $((at * 512)) source new2 || failed "$kill: less than $at sectors"
	done
	[ "$at" -lt $sectors ] || failed 'it was too fast to be cut off'
	# What is copied isn't copied again.
	dd if=/dev/zero of=new bs=512 count=1 conv=notrunc 2> /dev/null
	works dmcat --json --resume state copy source new new2
	is "$(field resumed_at)" "$at" 'where it goes on'
	is "$(field copied)" $((sectors - at)) 'the rest'
	same new2 source 'resumed'
	{ head -c 512 /dev/zero; tail -c +513 source; } > expected_rest
	same new expected_rest 'what was copied before'
	is "$(ls state* 2> /dev/null)" '' 'states that are left'

	# Nor is it believed if it is to be compared.
	rm -f new*
	cut_off KILL copy source new
	cp state kept
	cp new kept.new
	dd if=/dev/zero of=new bs=512 count=1 conv=notrunc 2> /dev/null
	fails 1 'dmcat: copy: new differs from source at sector 0 (EILSEQ)' \
		dmcat --resume state --verify copy source new
	cp kept state
	cp kept.new new
	works dmcat --resume state --verify copy source new
	same new source 'resumed and compared'
}

# What the state says is there even if all is lost that no flush has made durable: a log of writes
# and flushes knows, in which a mark tells when the state was read.
marks() {
	echo 'create logged 0 2048 log-writes disk log'
	echo 'copy --rate 1M --resume state --save-every 0.01 source logged &'
	before=0 mark=0 tries=0
	while [ $mark -lt 5 ] && [ $tries -lt 500 ]; do
		tries=$((tries + 1))
		cp state state.now 2> /dev/null || : > state.now
		at=$(sed -n 's/^position //p' state.now)
		[ "${at:-0}" -gt "$before" ] || { sleep 0.01; continue; }
		before=$at
		mark=$((mark + 1))
		mv state.now state.$mark
		echo "message logged 0 mark m$mark"
	done
	echo join
}

durable() {
	rm -f state* disk log
	truncate -s 1M disk
	truncate -s 8M log
	run_marks() { marks | dmcat run -; }
	works run_marks
	same disk source 'copied to a device with a log'
	[ -e state.1 ] || failed 'nothing was saved'
	for mark in 1 2 3 4 5; do
		[ -e state.$mark ] || continue
		rm -f replayed
		truncate -s 1M replayed
		works dmcat replay --end-mark m$mark log replayed
		at=$(sed -n 's/^position //p' state.$mark)
		cmp -n $((at * 512)) source replayed || failed "$mark: $at sectors aren't durable"
	done
}

# num_flushes OPTION...: how many a copy makes.
num_flushes() {
	rm -f log
	truncate -s 8M log
	works dmcat "$@" -d logged='0 2048 log-writes disk log' copy source logged
	works dmcat replay log
	flushes=$(grep -c flush out)
}

flushes() {
	truncate -s 1M disk
	num_flushes
	[ "$flushes" -gt 0 ] || failed 'nothing was flushed'
	num_flushes --no-flush
	is "$flushes" 0 'flushes with --no-flush'
}

# What was given up before stays on record.
given_up() {
	rm -f new state
	cut_off KILL -d bad='0 8 error
8 2040 linear source 8' --ignore-errors copy bad new
	fails 1 'dmcat: copy: before it was resumed, 8 sectors were given up (EIO)' \
		dmcat -d bad='0 2048 linear source 0' --resume state copy bad new
	{ head -c 4096 /dev/zero; tail -c +4097 source; } > expected_bad
	same new expected_bad 'resumed behind what was given up'
}

# In order: it says how far it got.
signalled() {
	rm -f new* state*
	cut_off TERM copy source new
	is "$status" 143 'the exit status of SIGTERM'
	at=$(position)
	text="ended by a signal at $at of 2048 sectors; --resume state goes on from there"
	is "$(grep -v Terminated err)" "dmcat: copy: $text (ECANCELED)" 'its message'
	cut_off HUP --json copy source new
	is "$status" 129 'the exit status of SIGHUP'
	is "$(field resumed_at)" "$at" 'resumed after SIGTERM'
	is "$(field position)" "$(position)" 'the position in the state'
	is "$(field ok)" false 'ok, after a signal'
	works dmcat --resume state copy source new
	same new source 'resumed after signals'
	# A script doesn't go on behind it.
	printf 'copy --rate 400k --resume state source new2\necho too far\n' > script
	rm -f state
	tries=0
	"$DMCAT" -k run script > out 2> err &
	pid=$!
	while [ ! -e state ] && [ $tries -lt 1000 ]; do
		tries=$((tries + 1))
		sleep 0.02
	done
	kill -TERM $pid
	status=0
	wait $pid 2> /dev/null || status=$?
	is "$status" 143 'the exit status of a script'
	if grep -q 'too far' out; then failed 'the script went on'; fi
}

states() {
	rm -f new* state*
	cut_off KILL copy source new
	cp state kept
	here=$(pwd -P)
	text="it has 'dest 0 2048 $here/new', and this is 'dest 0 2048 $here/new2' (EEXIST)"
	fails 1 "dmcat: copy: state is the state of another copy: $text" \
		dmcat --resume state copy source new2
	[ ! -e new2 ] || failed 'a refused destination was made'
	ours="source 0 2048 2048 $here/source" theirs="source 0 2048 2048 $here/copied"
	text="it has '$ours', and this is '$theirs'"
	cp source copied
	fails 1 "dmcat: copy: state is the state of another copy: $text (EEXIST)" \
		dmcat --resume state copy copied new
	text="it has '', and this is 'dest 0 2048 $here/new2' (EEXIST)"
	fails 1 "dmcat: copy: state is the state of another copy: $text" \
		dmcat --resume state copy source new new2
	mv new away
	text='by state a part of new is written, but the file is gone (ENOENT)'
	fails 1 "dmcat: copy: $text" dmcat --resume state copy source new
	[ ! -e new ] || failed 'a destination that is gone was made'
	mv away new
	# Whatever is changed is noticed.
	text='state is no state of a copy, or is damaged; remove it to begin anew (EINVAL)'
	for edit in 's/^position ./position 9/' 's/^failed 0/failed 1/' '$d' 's/copy/copied/' \
		's/^check ./check z/' '$a more' '1d' 's/^failed/FAILED/' 's/^position /&0/'; do
		sed "$edit" kept > state
		fails 1 "dmcat: copy: $text" dmcat --resume state copy source new
	done
	for size in 0 1 18 40; do
		head -c $size kept > state
		try dmcat --resume state copy source new
		is "$status" 1 "the status with a state of $size bytes"
	done
	fails 1 'dmcat: copy: absent/state: No such file or directory (ENOENT)' \
		dmcat --resume absent/state copy source new
	fails 1 'dmcat: copy: .: Is a directory (EISDIR)' dmcat --resume . copy source new
	# From another folder it is the same copy.
	mkdir -p elsewhere
	cp kept state
	cd elsewhere || exit 1
	works dmcat --resume ../state copy ../source ../new
	cd .. || exit 1
	same new source 'resumed from another folder'

	# A destination that can't be flushed: the state stays behind.
	printf '0 2048 linear under 0\n' > table
	truncate -s 1M under
	rm -f state
	fails 1 'dmcat: copy: bad: writing failed at or behind sector 0 (EIO)' \
		dmcat -d bad='0 2048 error' --resume state copy source bad
	is "$(position)" 0 'the position when nothing could be written'
}

scripts() {
	rm -f new* got
	cat > script << 'END2'
create x 0 2048 linear source 0
copy x new
copy --sparse --verify new 8 16 new2 0 new3 4 &
join
suspend x
copy x new4 &
echo waits
resume x
join
END2
	works dmcat --json run script
	same new source 'of a script'
	same new4 source 'in the background'
	dd if=source bs=512 skip=8 count=16 of=part 2> /dev/null
	same new2 part 'a range in the background'
	is "$(wc -l < out)" 4 'lines of JSON'
	is "$(sed -n 's/.*{"echo.*/echo/p; s/.*"sectors":\([0-9]*\).*/\1/p' out | tr '\n' ' ')" \
		'2048 16 echo 2048 ' 'the order of what is printed'
	run_line() {
		printf '%s\n' "$1" > script
		dmcat run script
	}
	form='[OPTIONS] SRC DEST…, or SRC SECTOR COUNT DEST SECTOR… (EINVAL)'
	fails 2 "script:1: copy: too few words: the form is: copy $form" run_line 'copy x'
	fails 2 "script:1: copy: --frob is not an option here; the form is: copy $form" \
		run_line 'copy --frob x y'
	fails 2 'script:1: copy: --rate needs an argument (EINVAL)' \
		run_line 'copy source new5 --rate'
	fails 2 'script:1: copy: --save-every is for --resume (EINVAL)' \
		run_line 'copy --save-every 1 source new5'
	fails 1 "script:3: copy: 'x' is suspended: resume it first, or put an & behind the line \
(EDEADLK)" run_line 'create x 0 2048 linear source 0
suspend x
copy x new5'
	fails 1 'script:2: copy: x: reading sector 0: Input/output error (EIO)' \
		run_line 'create x 0 2048 error
copy x new6 &
join'
	[ ! -e new5 ] || failed 'a refused line has made a file'
}

each_backend copies
each_backend ranges
refusals
each_backend errors
each_backend holes
each_backend comparisons
rates
each_backend resumed
durable
flushes
given_up
signalled
states
each_backend scripts
finish
