# SPDX-License-Identifier: MIT
# Shared by the tests of dmcat, which source it: a temporary folder to work in, and checks that say
# what failed. A test ends with `finish`.

DMCAT=${DMCAT:-${top_builddir:?}/examples/dmcat/dmcat}
here=$(cd "$(dirname "$0")" && pwd)
top_srcdir=${top_srcdir:-$(cd "$here/../.." && pwd)}
unset DMCORE_BACKEND
LC_ALL=C
export LC_ALL top_srcdir

[ -x "$DMCAT" ] || { echo "$DMCAT has not been built"; exit 77; }
folder=$(mktemp -d) || exit 1
trap 'cd / && rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
cd "$folder" || exit 1

# A line of status or table ends with one where the target has nothing to say.
blank=' '
checks=0
failures=0

dmcat() { "$DMCAT" "$@"; }

failed() {
	failures=$((failures + 1))
	printf '%s\n' "FAILED${DMCORE_BACKEND:+ ($DMCORE_BACKEND)}: $*"
}

# Runs a command; its output is in the files out and err, its status in $status.
try() {
	status=0
	"$@" > out 2> err || status=$?
	checks=$((checks + 1))
}

# works COMMAND...: ends with 0 and says nothing on standard error.
works() {
	try "$@"
	if [ "$status" != 0 ] || [ -s err ]; then
		failed "$*"
		echo "  status $status, 0 expected; standard error:"
		sed 's/^/  /' err
	fi
}

# prints TEXT COMMAND...: works, and prints that to standard output.
prints() {
	wanted_text=$1
	shift
	works "$@"
	printf '%s\n' "$wanted_text" > expected
	if ! cmp -s expected out; then
		failed "$*"
		diff expected out | head -n 20 | sed 's/^/  /'
	fi
}

# fails STATUS MESSAGE COMMAND...: ends with STATUS, and MESSAGE is all there is on standard error.
fails() {
	wanted_status=$1 wanted_text=$2
	shift 2
	try "$@"
	printf '%s\n' "$wanted_text" > expected
	if [ "$status" != "$wanted_status" ] || ! cmp -s expected err; then
		failed "$*"
		echo "  status $status, $wanted_status expected; standard error:"
		head -c 2000 err | sed 's/^/  /'
		echo "  expected:"
		sed 's/^/  /' expected
	fi
}

# fails_like STATUS PATTERN COMMAND...: the same, with one line that matches. For the library's own
# messages, of which only a part is promised.
fails_like() {
	wanted_status=$1 wanted_text=$2
	shift 2
	try "$@"
	if [ "$status" != "$wanted_status" ] || [ "$(wc -l < err)" != 1 ] ||
		! grep -qe "$wanted_text" err; then
		failed "$*"
		echo "  status $status, $wanted_status expected; standard error:"
		head -c 2000 err | sed 's/^/  /'
		echo "  expected: $wanted_text"
	fi
}

# same FILE FILE [TEXT]: the files are equal.
same() {
	checks=$((checks + 1))
	cmp "$1" "$2" > difference 2>&1 || failed "${3:-$1 and $2}: $(cat difference)"
}

# is TEXT EXPECTED [NAME]
is() {
	checks=$((checks + 1))
	[ "$1" = "$2" ] || failed "${3:-value}: '$1', not '$2'"
}

# each_backend FUNCTION: runs it with DMCORE_BACKEND set to each that works here.
each_backend() {
	for DMCORE_BACKEND in io_uring pread; do
		export DMCORE_BACKEND
		if "$DMCAT" --dev mem:4k info > /dev/null 2>&1; then
			"$1"
		elif [ "$DMCORE_BACKEND" = pread ]; then
			failed "the pread backend doesn't work"
		fi
	done
	unset DMCORE_BACKEND
}

# pattern BYTES: data in which no sector is like another.
pattern() {
	awk -v bytes="$1" 'BEGIN {
		for (at = 0; at < bytes; at += 16)
			printf "%015d\n", at
	}' | head -c "$1"
}

finish() {
	echo "$(basename "$0"): $checks checks, $failures failed"
	[ "$failures" = 0 ]
	exit
}
