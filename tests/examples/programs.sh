#!/bin/sh
# SPDX-License-Identifier: MIT
# The example programs do what they say.
programs=${EXAMPLES:-${top_builddir:?}/examples}
. "$(dirname "$0")/../dmcat/lib.sh"

head -c 1050000 /dev/zero | tr '\0' '\1' > disk
truncate -s 1M a.img b.img
pattern 16777216 > long.img
truncate -s 16M sparse.img
head -c 4096 long.img | dd of=sparse.img bs=4096 seek=5 conv=notrunc 2> /dev/null

# migrates [OLD NEW]: the volume moves, and the load notices nothing but a pause.
migrates() {
	works "$programs/live-migrate" "$@"
	grep -q "^0 32768 linear ${2:-new\.......} 0\$" out || failed "the table: $(cat out)"
	grep -q '^[1-9][0-9]* requests served, 0 failed, 0 with wrong data$' out ||
		failed "requests: $(cat out)"
	grep -q '^16 swaps, longest pause [0-9.]* ms$' out || failed "swaps: $(cat out)"
	is "$(find . -name 'old.??????' -o -name 'new.??????')" '' 'what is left'
}

# A leg fails under load and is replaced; nothing is lost.
replaces_a_leg() {
	works "$programs/mirror-replace-leg"
	grep -q '^0 32768 mirror 2 one\....... second [0-9]*/256 1 AD 3 disk log\....... A$' out ||
		failed "the leg that failed: $(cat out)"
	grep -q '^0 32768 mirror 2 one\....... three\....... 256/256 1 AA 3 disk log' out ||
		failed "the one in its place: $(cat out)"
	grep -q '^[1-9][0-9]* requests served, 0 failed, 0 with wrong data$' out ||
		failed "requests: $(cat out)"
	is "$(ls one.* two.* three.* log.* 2> /dev/null)" '' 'what is left'
}

# Both mistakes are found, each with its state and the events before the cut; the same each time.
finds_what_is_wrong() {
	works "$programs/test-your-own-storage"
	grep -q '^no flush: state 1 fails: cut after event 40: log: 20 old, ' out ||
		failed "no flush: $(cat out)"
	grep -q '^header too early: state [0-9]* fails: cut after event [0-9]*: log: ' out ||
		failed "header: $(cat out)"
	grep -q '^    40 0 log submit flush 0+0 0 0*$' out || failed "events: $(cat out)"
	is "$(sed -n '$p' out)" 'right: all 6038 states pass' 'the store without a mistake'
	mv out first
	works "$programs/test-your-own-storage" 1
	same first out 'two runs of one seed'
}

# A copy is stopped once it has noted a position; the rest is copied from there.
copies_on() {
	rm -f note
	checks=$((checks + 1))
	"$programs/copy-with-kcopyd" -m 1 -n note long.img to.img > out 2> err &
	tries=0
	while [ ! -s note ] && [ $((tries += 1)) -lt 600 ]; do
		sleep 0.1
	done
	kill -INT $!
	wait $! && failed "a copy that is stopped ends with 0"
	grep -q "^ECANCELED: .* $(cat note) done in all\$" out || failed "stopped: $(cat out err)"
	is "$(cmp -n $(($(cat note) * 512)) long.img to.img)" '' 'what has been copied so far'
	prints "OK: $((32768 - $(cat note))) sectors copied, 0 zeroed, 32768 done in all" \
		"$programs/copy-with-kcopyd" -n note long.img to.img
	same long.img to.img
	is "$(ls note* 2> /dev/null)" '' 'the note'
}

copies() {
	rm -f to.img other.img
	truncate -s 16M to.img other.img
	prints 'OK: 2050 sectors copied, 0 zeroed, 2050 done in all' \
		"$programs/copy-with-kcopyd" disk to.img other.img
	is "$(cmp -n 1049600 disk to.img; cmp -n 1049600 disk other.img)" '' 'the copies'
	prints 'OK: 8 sectors copied, 32760 zeroed, 32768 done in all' \
		"$programs/copy-with-kcopyd" -s sparse.img to.img
	same sparse.img to.img
	copies_on
}

# The store is found again by the next run, with all that the runs before have noted.
keeps_notes() {
	rm -f store.img
	truncate -s 10M store.img
	prints 'terabyte 0: one
0 21474836480 snapshot 384/20480 256' "$programs/sparse-device" store.img one
	prints 'terabyte 0: one
terabyte 1: two
0 21474836480 snapshot 512/20480 256' "$programs/sparse-device" store.img two
}

# The backup is of one moment, and so is the image, at its end or back at the backup.
backs_up() {
	works "$programs/backup-while-writing" image cow backup
	is "$(sed -n '$p' out)" 'the backup has the first writes, the image all' 'a backup'
	works "$programs/backup-while-writing" -r image cow backup
	is "$(sed -n '$p' out)" 'the backup has the first writes, the image as many' 'going back'
	is "$(cmp -n 4194304 image backup)" '' 'the image that has been put back'
	is "$(ls cow 2> /dev/null)" '' 'what is left'
}

run_programs() {
	prints '0 2048 linear a.img 0
2048 2048 linear b.img 0
Half of me is in the first file, half in the second.' "$programs/hello-linear" a.img b.img
	is "$(tail -c 512 a.img | head -c 11)" 'Half of me ' 'the end of the first file'
	prints '2048 sectors read, 0 reads failed, the sum of all bytes is 1048576' \
		"$programs/poll-loop" disk
	prints "$(for i in 1 2 3 4 5 6 7 8; do echo 'read: OK'; done)" "$programs/epoll-loop" disk
	prints 'around the middle: ab' "$programs/threads"
	migrates
	migrates old.img new.img
	prints 'sector 501, sector 502, sector 503' "$programs/custom-driver"
	copies
	keeps_notes
	backs_up
	replaces_a_leg
	finds_what_is_wrong
}
each_backend run_programs

fails_like 1 '^open: absent: .*(ENOENT)' "$programs/poll-loop" absent
fails_like 1 '^open: absent: .*(ENOENT)' "$programs/hello-linear" absent b.img
fails_like 2 "^usage: .*live-migrate \\[OLD NEW\\]\$" "$programs/live-migrate" old.img
fails_like 2 '^a name is longer than' "$programs/live-migrate" "$(printf '%0500d' 0)" new.img
fails_like 2 '^usage: .*copy-with-kcopyd ' "$programs/copy-with-kcopyd" disk
fails_like 2 '^usage: .*sparse-device STORE TEXT$' "$programs/sparse-device" disk
fails_like 1 '^resume: .*Invalid or corrupt snapshot.*(ENXIO)' "$programs/sparse-device" disk text
fails_like 2 '^usage: .*backup-while-writing ' "$programs/backup-while-writing" -r image cow
fails 1 'b.img: too small' "$programs/copy-with-kcopyd" long.img b.img
fails 1 'absent/old: No such file or directory' "$programs/live-migrate" absent/old new.img

finish
