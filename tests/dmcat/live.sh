#!/bin/sh
# SPDX-License-Identifier: MIT
# Devices that change while a script runs: suspended, reloaded under I/O, renamed, removed when they
# are closed; their messages and events; and what goes on in the background.
. "$(dirname "$0")/lib.sh"

pattern 4194304 > payload

# run_script TEXT [OPTION...]: from a file called `script`.
run_script() {
	printf '%s\n' "$1" > script
	shift
	dmcat "$@" run script
}

# refused STATUS LINE MESSAGE TEXT
refused() {
	fails "$1" "script:$2: $3" run_script "$4"
}

# facts LABEL...: those lines of info, in the file out.
facts() {
	for label in "$@"; do
		sed -n "s/^\($label:\) */\1 /p" out
	done
}

# ---- tables ----

tables() {
	rm -f a b
	truncate -s 4M a b
	prints "before: resume
0 8192 linear a 0
0 8192 linear b 0
0 8192 linear$blank
x: 0 8192 linear b 0
after: resume
0 8192 linear b 0
x: 0 8192 linear b 0" run_script 'create x 0 8192 linear a 0
load x
# of the other file
0 8192 linear b 0
end
echo before: resume
table x
table x --inactive
status --inactive x
table --inactive
resume x
echo after: resume
table x
table --inactive x
table'
	# A slot that is cleared, or loaded over.
	prints "0 8184 linear b 8
0 8192 linear a 0" run_script 'create x 0 8192 linear a 0
load x 0 8192 linear b 0
clear x
table --inactive x
clear x
load x 0 16 linear b 0
load x 0 8184 linear b 8
table --inactive x
clear x
resume x
table x'
	# Quoted words of a table in the line itself, and what is behind them.
	cp a 'with # and space'
	prints '0 8 linear with\ \#\ and\ space 0' \
		run_script 'create x 0 8 linear with\ \#\ and\ space 0 # a comment
table x'
}

# Growing and shrinking: the range ends where the table does.
sizes() {
	rm -f a
	truncate -s 4M a
	refused 1 7 'read: 8 sectors from 4090 on reach behind the end of x, which has 4096 (EIO)' \
		'create x 0 2048 linear a 0
load x 0 8192 linear a 0
resume x
write x 8184 8 payload
load x 0 4096 linear a 0
resume x
read x 4090 8 got'
	head -c 4096 payload > expected
	tail -c 4096 a > got
	same got expected 'a write to what has been added'
}

# A write in the background meets with a suspension, a new table, and the end of it.
under_io() {
	rm -f a b got
	truncate -s 4M a b
	prints '0 8192 linear b 0' run_script 'create x 0 8192 linear a 0
suspend x
write x 0 8192 payload &
load x 0 8192 linear b 0
resume x
join
table x'
	same b payload 'a write that has waited'
	[ -z "$(tr -d '\0' < a)" ] || failed 'it went to the table before'

	# Swapped while it is written: each piece ends up in one of the files.
	rm -f a b
	truncate -s 4M a b
	works run_script 'create x 0 8192 linear a 0
write x 0 8192 payload &
load x 0 8192 linear b 0
resume x
load x 0 8192 linear a 0
resume x
suspend x --noflush --timeout 60
resume x
join
load x 0 4096 linear b 0
resume x
read x 0 4096 got &
load x 0 4096 linear b 0
resume x
rename x y
read y 0 4096 got2 &
flush y &'
	for piece in 0 1 2 3; do
		for file in a b; do
			tail -c +$((piece * 1048576 + 1)) $file | head -c 1048576 > $file.piece
		done
		[ -z "$(tr -d '\0' < a.piece)" ] || mv a.piece b.piece
		cat b.piece
	done > both
	same both payload 'a write to either table'
	head -c 2097152 b > expected
	same got expected 'a read in the background'
	same got2 expected 'reads are waited for at the end'

	# Those that wait below, too.
	rm -f a
	truncate -s 4M a
	try run_script 'create x 0 8192 linear a 0
create y 0 8192 linear x 0
suspend x
write y 0 2048 payload &
write y 2048 6144 payload 2048 &
join
info x
resume x
join' -k
	same a payload 'writes to a device above'
	is "$(cat err)" "script:6: join: requests wait for 'x', which is suspended (EDEADLK)" 'join'
	grep -q '^Requests waiting: *[1-9][0-9]*$' out || failed "waiting: $(cat out)"
}

each_backend tables
each_backend sizes
each_backend under_io

# ---- suspended ----

truncate -s 1M a b
works run_script 'create x 0 8 linear a 0
suspend x
suspend x
info x
resume x
resume x
info x
suspend --timeout 0.5 x --noflush
load x 0 16 zero
info x'
is "$(facts State 'Tables present' 'Number of targets' 'Inactive targets' 'Inactive size')" \
	'State: SUSPENDED
State: ACTIVE
State: SUSPENDED
Tables present: LIVE
Tables present: LIVE
Tables present: LIVE & INACTIVE
Number of targets: 1
Number of targets: 1
Number of targets: 1
Inactive targets: 1
Inactive size: 16 sectors' 'info of a device that is suspended'
hint='resume it first, or put an & behind the line'
for verb in 'write y 0 8 payload' 'read y 0 8 got' 'flush y' 'zero y 0 8' 'discard y 0 8'; do
	refused 1 4 "${verb%% *}: 'x' is suspended: $hint (EDEADLK)" "create x 0 8 linear a 0
create y 0 8 striped 1 8 x 0
suspend x
$verb"
done
works run_script 'create x 0 8 linear a 0
suspend x
read a 0 8 got
create z 0 8 zero
read z 0 8 got'
waits="requests wait for 'x', which is suspended (EDEADLK)"
stuck='create x 0 8 linear a 0
suspend x
write x 0 8 payload &'
refused 1 4 "join: $waits" "$stuck
join"
refused 1 3 "end: $waits" "$stuck"
head -c 4096 payload > expected
head -c 4096 a > got
same got expected 'a write that had to be let go at the end of the script'

# A device whose requests wait in one below it can't be suspended in time, and runs on.
try run_script 'create x 0 8 linear a 0
create y 0 8 linear x 0
suspend x
write y 0 8 payload &
join
suspend y --timeout 0.05
info y
resume x
join
suspend y --timeout 60' -k
is "$(sed 1d err)" 'script:6: suspend: y: 1 requests are still in flight (ETIMEDOUT)' 'a time-out'
is "$(facts State)" 'State: ACTIVE' 'a device that was not suspended in time'

# ---- names ----

prints "0 8 linear z 0
z: 0 8 zero$blank
y: 0 8 linear z 0" run_script 'create x 0 8 zero
create y 0 8 linear x 0
rename x z
table y
table'
works run_script 'create x 0 8 zero
rename x --setuuid one\ and\ only
info x'
is "$(facts UUID)" 'UUID: one and only' 'a uuid'
two='create x 0 8 zero
create y 0 8 zero
'
refused 1 3 'rename: device y exists (EBUSY)' "${two}rename x y"
refused 1 3 'rename: a/b: a device name is no path (EINVAL)' "${two}rename x a/b"
refused 2 3 "rename: there is no mapped device 'z' (ENXIO)" "${two}rename z x"
refused 1 4 'rename: uuid me is that of device x (EBUSY)' "${two}rename x --setuuid me
rename y --setuuid me"
refused 1 4 'rename: x: its uuid is set already, to me (EINVAL)' "${two}rename --setuuid x me
rename --setuuid x you"

# ---- messages ----

one='create x 0 8 zero
'
refused 1 2 'message: x: Target type does not support messages (EINVAL)' "${one}message x 0 hello"
refused 1 2 'message: x: Target message sector outside device. (EINVAL)' "${one}message x 8 hello"
refused 1 2 'message: x: Unsupported message sent to DM core: @hello (EINVAL)' \
	"${one}message x 0 @hello"
refused 2 2 "message: 'hello' is not a number of sectors (EINVAL)" "${one}message x hello you"
refused 2 1 "message: there is no mapped device 'x' (ENXIO)" 'message x 0 hello'
refused 2 1 'message: too few words: the form is: message NAME SECTOR WORD… (EINVAL)' 'message x 0'

# What is answered, and how words are quoted on the way.
prints '0
0: 0+8 8 me and you a # sign
x y' run_script "${one}message x 0 @stats_create - 8 me\\ and\\ you a\\ \\#\\ sign # a comment
message x 0 @stats_list
message x 0 @stats_clear 0
echo x y"

# ---- removal ----

refused 1 3 'remove: device x is open (EBUSY)' "${one}create y 0 8 linear x 0
remove x"
prints "--
x: 0 8 zero$blank
--" run_script "${one}create y 0 8 linear x 0
remove --deferred x
message x 0 @cancel_deferred_remove
remove y
echo --
table
create y 0 8 linear x 0
remove x --deferred
remove y
echo --
table"
works run_script "${one}create y 0 8 linear x 0
remove --deferred x
info x"
is "$(facts State)" 'State: ACTIVE (DEFERRED REMOVE)' 'a device that goes when it is closed'
works run_script "${one}remove --deferred x
create x 0 8 zero
read x 0 8 got &
remove --deferred x
join
create x 0 8 zero"

# ---- events ----

flaky='create bad 0 8 error
create x 0 16 striped 2 8 bad 0 a 0
'
refused 1 3 'wait: no event in that time (ETIMEDOUT)' "${flaky}wait x --timeout 0.05"
refused 1 3 'wait: no event in that time (ETIMEDOUT)' "${flaky}wait x 0 --timeout 0"
prints '0
0 16 striped 2 bad a 1 AA' run_script "${flaky}wait x 7
status x"
try run_script "${flaky}read x 0 1 got &
wait x 0 --timeout 60
status x
join" -k
is "$(sed 1d out)" '0 16 striped 2 bad a 1 DA' 'the status after an event'
grep -qx '[1-9][0-9]*' out || failed "the number of the event: $(cat out)"
is "$(cat err)" 'script:3: read: sector 0: Input/output error (EIO)' 'the error that was an event'
prints 1 run_script "${one}rename x y
wait y 0"
refused 2 3 "wait: 'soon' is not the number of an event (EINVAL)" "${flaky}wait x soon"
refused 2 3 "wait: '4294967296' is not the number of an event (ERANGE)" "${flaky}wait x 4294967296"

# ---- bad input ----

refused 2 1 "load: there is no mapped device 'x' (ENXIO)" 'load x
0 8 zero
end'
for verb in clear suspend resume wait 'remove --deferred'; do
	refused 2 1 "${verb%% *}: there is no mapped device 'x' (ENXIO)" "$verb x"
done
form='the form is: suspend NAME [--noflush] [--timeout SECONDS] (EINVAL)'
refused 2 1 "suspend: too many words: $form" 'suspend x now'
refused 2 1 "suspend: --deferred is not an option here; $form" 'suspend --deferred x'
form='the form is: remove [--deferred] NAME (EINVAL)'
refused 2 1 "remove: --force is not an option here; $form" 'remove --force x'
refused 2 1 'suspend: --timeout needs seconds (EINVAL)' 'suspend x --timeout'
for seconds in -1 soon 1s .5 1.5.5; do
	refused 2 1 "wait: '$seconds' is not a number of seconds (EINVAL)" \
		"wait x --timeout $seconds"
done
refused 2 1 "wait: '99999999999' is not a number of seconds (ERANGE)" 'wait x --timeout 99999999999'
fails_like 2 '^script:3: load: linear: Device lookup failed: absent: .*(ENOENT)$' \
	run_script "${one}load x
0 8 linear absent 0
end"
fails_like 2 '^script:2: load: striped: .*(EINVAL)$' run_script "${one}load x 0 8 striped 2"
fails_like 2 '^script:3: load: .*would stand on itself.*(ELOOP)$' \
	run_script "${one}create y 0 8 linear x 0
load x 0 8 linear y 0"
refused 2 2 'load: the script ends before the `end` of the table (EINVAL)' "${one}load x
0 8 zero"
refused 2 1 'table: only reads and writes can go on in the background (EINVAL)' 'table &'
refused 2 1 "read: '-' can't be used in the background (EINVAL)" 'read a 0 8 - &'
refused 2 1 "write: '-' can't be used in the background (EINVAL)" 'write a 0 8 - &'
touch short
refused 1 1 'write: short has 0 bytes left, of 4096 that are to be written (ENODATA)' \
	'write a 0 8 short &'
prints 'echo &' run_script 'echo echo &'
# The line of the one that failed, and what comes behind join isn't done.
refused 1 2 'read: sector 0: Input/output error (EIO)' 'create x 0 8 error
read x 0 8 got &

join
echo not this'

finish
