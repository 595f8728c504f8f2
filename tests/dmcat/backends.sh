#!/bin/sh
# SPDX-License-Identifier: MIT
# Which backend is chosen, and that data pass by each: also where io_uring is forbidden, or no
# memory can be locked.
. "$(dirname "$0")/lib.sh"

forbid=${FORBID:-${top_builddir:-.}/tests/support/forbid}
pattern 3000000 > payload
truncate -s 4M disk

backend() {
	"$@" --dev disk --json info | sed 's/.*"backend":"\([a-z_]*\)".*/\1/'
}

# round_trip COMMAND...: of dmcat, with what launches it.
round_trip() {
	truncate -s 0 disk
	truncate -s 4M disk
	write_payload() { "$@" -t '0 8192 linear disk 0' write < payload; }
	works write_payload "$@"
	cmp -n 3000000 payload disk || failed "write by $*"
	works "$@" -t '0 8192 linear disk 0' read 0 5000
	cmp -n 2560000 payload out || failed "read by $*"
}

is "$(backend dmcat -b pread)" pread '-b pread'
round_trip dmcat -b pread
round_trip dmcat -b pread --workers 4
round_trip dmcat
export DMCORE_BACKEND=pread
is "$(backend dmcat)" pread 'DMCORE_BACKEND=pread'
unset DMCORE_BACKEND
if dmcat -b io_uring --dev disk info > /dev/null 2>&1; then
	is "$(backend dmcat -b io_uring)" io_uring '-b io_uring'
	is "$(backend dmcat)" io_uring 'no -b'
	round_trip dmcat -b io_uring
	DMCORE_BACKEND=pread
	export DMCORE_BACKEND
	is "$(backend dmcat -b io_uring)" io_uring '-b io_uring against DMCORE_BACKEND=pread'
	unset DMCORE_BACKEND
fi

if [ -x "$forbid" ]; then
	for mode in enosys eperm; do
		"$forbid" $mode true || continue
		is "$(backend "$forbid" $mode "$DMCAT")" pread "io_uring fails with $mode"
		works "$forbid" $mode "$DMCAT" --dev disk info
		grep -q '^Backend: .*io_uring' out || failed "$mode: $(grep Backend out)"
		fails_like 2 '(EOPNOTSUPP)$' "$forbid" $mode "$DMCAT" -b io_uring --dev disk info
		round_trip "$forbid" $mode "$DMCAT"
	done
	if "$forbid" memlock0 true; then
		round_trip "$forbid" memlock0 "$DMCAT"
	fi
fi

finish
