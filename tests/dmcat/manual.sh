#!/bin/sh
# SPDX-License-Identifier: MIT
# The examples of dmcat(1) work, the page names every option, and the completion offers them.
. "$(dirname "$0")/lib.sh"

page=$top_srcdir/docs/man/dmcat.1
plain() { sed 's/\\-/-/g; s/\\fR\|\\fP\|\\fB\|\\fI//g; s/\\e/\\/g' "$page"; }

plain | awk '
	/^\.SH / { section = $2 }
	section == "EXAMPLES" && /^\.EX/ { print "# example"; inside = 1; next }
	/^\.EE/ { inside = 0 }
	inside && section == "EXAMPLES"' > examples
is "$(grep -c '^# example' examples)" 7 'examples in the page'
{
	printf 'set -e\ndmcat() { "%s" "$@"; }\n' "$DMCAT"
	cat examples
} > run_examples
try sh run_examples
is "$status" 0 'the exit status of the examples'
is "$(cat err)" 'stdin:6: read: sector 8192: Input/output error (EIO)' 'their only error'
grep -q '^0 16384 striped 2 a.img b.img 1 AA$' out || failed 'no status'
grep -q '^Number of targets: 2$' out || failed 'no info'
grep -q '^{"name":"a.img","mapped":false,' out || failed 'no JSON'
grep -q '^exit status 1$' out || failed 'no exit status'
is "$(wc -c < rescued)" 98304 'what was rescued'
is "$(wc -c < moved)" 524288 'what was moved'
is "$(wc -c < two.img)" 8388608 'what was copied'

works dmcat --help
sed '/^Commands:/q' out > command_line
for option in $(grep -oe '-[-a-zA-Z]*' out | grep -e '^-[a-zA-Z]$' -e '^--[a-z]*$' | sort -u); do
	alone="\(^\|[^-a-zA-Z]\)$option\([^-a-zA-Z]\|\$\)"
	plain | grep -qe "$alone" || failed "dmcat(1) has no $option"
	# Those of scripts aren't typed.
	grep -qe "$alone" command_line || continue
	grep -qe "$alone" "$top_srcdir/examples/dmcat/completion.bash" ||
		failed "the completion has no $option"
done

command -v bash > /dev/null || finish
cat > complete.bash << 'END'
. "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_dmcat 2> /dev/null
printf '%s\n' "${COMPREPLY[@]}" | sort | tr '\n' ' '
echo
END
completed() { bash complete.bash "$top_srcdir/examples/dmcat/completion.bash" dmcat "$@"; }
mkdir completing
cd completing || exit 1
cp ../complete.bash .
touch set.table set.img
prints 'copy cow-check cow-dump info read replay run scrub status table targets write ' completed ''
prints 'read replay run ' completed --dev a.img r
prints 'set.img set.table ' completed --chunk-size 8 cow-check s
prints 'set.img set.table ' completed cow-check --origin s
prints 'cow-check cow-dump ' completed cow
prints 'repair ' completed scrub r
prints 'read replay run ' completed --watch = 0.5 r
prints '--watch --workers ' completed --w
prints 'auto io_uring pread ' completed -b ''
prints '--dev --direct ' completed --d
prints '@set.table ' completed -t @set.t
prints '@set.table ' completed -d x = @set.t
prints 'set set.img set.table ' completed -d set = 'table' --dev s
prints 'set.img set.table ' completed run s
prints 'set.img set.table ' completed replay --limit 3 s
prints '--save-every --share --sparse --start-entry --start-mark ' completed copy --s
prints 'set.img set.table ' completed --rate 1M --resume state copy s
prints 'set.img set.table ' completed copy --resume s
prints ' ' completed copy --rate s

finish
