#!/bin/sh
# SPDX-License-Identifier: MIT
# --json: what is printed is JSON, whatever the names.
. "$(dirname "$0")/lib.sh"

PYTHON=${PYTHON:-python3}
command -v "$PYTHON" > /dev/null || { echo 'no python3'; exit 77; }

truncate -s 1M a.img
strange=$(printf 'q"uo\\te\tt\303\244b\377.img')
cp a.img "$strange"
quoted=$(printf '%s' "$strange" | sed 's/[\\ 	"]/\\&/g')

# value EXPRESSION: of the JSON value v in the file out.
value() {
	"$PYTHON" -c "
import json, sys
v = json.load(open('out', encoding='utf-8'))
print($1)" 2>&1
}

linear='{"start":0,"length":8,"type":"linear","params":"a.img 5"}'
zero='{"start":8,"length":8,"type":"zero","params":""}'
prints '{"devices":[{"name":"x","targets":['"$linear,$zero"']}]}' \
	dmcat --json -d x='0 8 linear a.img 5
8 8 zero' table
works dmcat --json -d x='0 16 striped 2 8 a.img 0 a.img 8' status
is "$(value "v['devices'][0]['targets'][0]['params']")" '2 a.img a.img 1 AA' 'status'
works dmcat --json -d "$strange"="0 8 linear ./$quoted 0" table
is "$(value "v['devices'][0]['name']")" "$(printf 'q"uo\\te\tt\303\244b\357\277\275.img')" 'a name'
works dmcat --json targets
# Whatever others there are.
is "$(value "[t['name'] for t in v['targets'] if t['name'] in ('error', 'linear')]")" \
	"['error', 'linear']" 'targets'
is "$(value "all(len(t['version']) == 3 for t in v['targets'])")" True 'versions'
works dmcat --json -d x='0 8 linear a.img 5' info
is "$(value "(v['name'], v['mapped'], v['size_sectors'], v['num_targets'], v['suspended'])")" \
	"('x', True, 8, 1, False)" 'info'
is "$(value "v['limits']['logical_block_bytes']")" 512 'info: limits'
is "$(value "v['queue']['backend'] in ('io_uring', 'pread') and v['queue']['reason'] != ''")" True \
	'info: queue'
works dmcat --json -r --dev a.img info
is "$(value "(v['name'], v['mapped'], v['read_only'], v['size_sectors'])")" \
	"('a.img', False, True, 2048)" 'info of a file'
works dmcat --json --dev "mem:8k" info
is "$(value "v['limits']['capabilities']")" "['fua', 'discard', 'discard-zeroes', 'write-zeroes']" \
	'capabilities'

works dmcat --json copy "$strange" "$strange.copy" mem:1M
is "$(value "(v['source'] == v['destinations'][0][:-5], len(v['destinations']), v['copied'])")" \
	'(True, 2, 2048)' 'copy'
is "$(value "(v['mismatch'], v['ok'], type(v['seconds']).__name__)")" "(None, True, 'float')" 'copy'

# In a script, a value a line.
cat > script << 'END'
create x
0 8 zero
end
create y
0 8 linear x 0
end
status
table y
wait x 1
message y 0 @stats_create - /1
message y 0 @stats_clear 0
info y
echo a "b" \\ c
END
works dmcat --json run script
lines=0
while read -r line; do
	lines=$((lines + 1))
	printf '%s\n' "$line" | "$PYTHON" -m json.tool > /dev/null || failed "no JSON: $line"
done < out
is $lines 7 'lines'
cp out all
sed -n 3p all > out
is "$(value "v['event_nr']")" 0 'wait'
sed -n 4p all > out
is "$(value "v['reply']")" 0 'message'
sed -n 5p all > out
is "$(value "repr(v['reply'])")" "''" 'message without an answer'
sed -n 6p all > out
is "$(value "v['deferred_remove'], v['inactive_table'], v['num_deferred']")" 'False False 0' 'info'
sed -n 7p all > out
is "$(value "v['echo']")" "['a', '\"b\"', '\\\\', 'c']" 'echo'

finish
