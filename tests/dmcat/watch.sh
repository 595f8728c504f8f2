#!/bin/sh
# SPDX-License-Identifier: MIT
# --watch: what is printed while devices are at work, and that nothing is missing in it.
. "$(dirname "$0")/lib.sh"

PYTHON=${PYTHON:-python3}

headings='time device r/s rMB/s w/s wMB/s inflight r_await w_await %util'

# Without repeated blanks, and with a 0 for each number but that of a name or a sector.
plain() { sed 's/^ *//; s/  */ /g'; }
no_numbers() { plain | sed 's/[0-9][0-9]*\.[0-9]*/N/g'; }

# run_script TEXT [OPTION...]: from a file called `script`.
run_script() {
	printf '%s\n' "$1" > script
	shift
	dmcat "$@" run script
}

# total EXPRESSION: of the objects v in the file err.
total() {
	"$PYTHON" -c "
import json
v = [json.loads(line) for line in open('err', encoding='utf-8')]
print($1)" 2>&1
}

# ---- for people ----

truncate -s 2M a b
try dmcat --watch=100 -t '0 2048 linear a 0
2048 2048 linear b 0' read 0 2048
is "$status" 0 'a read that is watched'
is "$(wc -c < out)" 1048576 'its data'
is "$(no_numbers < err)" "$headings
N unnamed N N N N 0 N N N
N 0 linear N N N N 0 N N N" 'lines for the device, and for the target that was at work'
awk 'NR > 1 && ($3 + 0 <= 0 || $4 + 0 <= 0 || $5 + 0 != 0 || $6 + 0 != 0) && $2 == "unnamed"' err |
	grep . && failed "reads only: $(cat err)"

try dmcat --watch -t '0 8 zero' read 0 0
is "$(no_numbers < err)" "$headings
N unnamed N N N N 0 N N N" 'a device that did nothing, and has one target'

# Until there is something to write, several intervals pass.
slow_write() {
	{
		sleep 0.3
		head -c 1048576 /dev/zero
	} | dmcat --watch=0.01 "$@" -t '0 4096 linear a 0' write
}
try slow_write
is "$status" 0 'a write that is watched'
[ "$(grep -c unnamed err)" -ge 2 ] || failed "a line an interval: $(cat err)"
is "$(plain < err | head -n 1)" "$headings" 'headings first'

# ---- for programs ----

command -v "$PYTHON" > /dev/null || finish

try slow_write --json
is "$(total "len(v) >= 2, sum(l['write_sectors'] for l in v), sum(l['reads'] for l in v)")" \
	'True 2048 0' 'the sum of all lines'

# Tables that change, names that change, and devices that go.
head -c 2097152 /dev/zero > payload
swaps() {
	try run_script 'create x 0 4096 linear a 0
create y 0 4096 linear x 0
write y 0 4096 payload &
load x
0 1024 linear b 0
1024 3072 linear a 1024
end
resume x
join
read x 0 2048 got
load x 0 6144 striped 3 8 a 0 b 0 a 2048
resume x
rename y z
read z 0 4096 got
read x 4096 2048 got
zero x 0 2048
remove z
remove x
create x 0 8 zero
read x 0 8 got' --json --watch=100
	is "$status $(cat out)" '0 ' 'a script that is watched'
	whole="for l in v if 'type' not in l and l['device']"
	is "$(total "sum(l['write_sectors'] $whole in 'yz')")" 4096 'writes of the device above'
	is "$(total "sum(l['write_sectors'] $whole == 'x')")" 6144 'writes of the device below'
	is "$(total "sum(l['read_sectors'] $whole == 'x')")" 8200 'reads of the device below'
	is "$(total "sum(l['read_sectors'] for l in v if l.get('type') == 'linear')")" 2048 \
		'reads by target'
	is "$(total "sorted({(l['start'], l['type']) for l in v if 'type' in l})")" \
		"[(0, 'linear'), (1024, 'linear')]" 'targets'
	is "$(total "[l['device'] for l in v][-1], v[-1]['in_flight']")" 'x 0' 'the last line'
}
each_backend swaps

# ---- what is refused ----

for seconds in 0 soon -1 1s ''; do
	fails_like 2 "^dmcat: --watch=$seconds: not a number of seconds, from 0.001 on (E" \
		dmcat --watch="$seconds" -t '0 8 zero' read
done
for command in table status info targets; do
	fails 2 "dmcat: $command: --watch is for read, write, copy and run (EINVAL)" \
		dmcat --watch -t '0 8 zero' $command
done

finish
