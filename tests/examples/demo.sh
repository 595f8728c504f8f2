#!/bin/sh
# SPDX-License-Identifier: MIT
# The demo succeeds with each backend, leaves nothing behind, and fails when something is wrong.
. "$(dirname "$0")/../dmcat/lib.sh"

demo=$top_srcdir/examples/demo.sh
mkdir tmp
TMPDIR=$folder/tmp
export TMPDIR

run_demo() {
	works sh "$demo" "$DMCAT"
	is "$(tail -n 1 out)" ok 'the last line'
	is "$(ls tmp)" '' 'what is left'
}
each_backend run_demo

from_environment() { DMCAT=$DMCAT sh "$demo"; }
works from_environment

# A dmcat that reads something else.
printf '#!/bin/sh\ncase "$*" in *read*) "%s" "$@" | tr 5 6 ;; *) exec "%s" "$@" ;; esac\n' \
	"$DMCAT" "$DMCAT" > broken
chmod +x broken
try sh "$demo" ./broken
is "$status" 1 'the exit status for a dmcat that reads wrong data'
is "$(ls tmp)" '' 'what is left'

finish
