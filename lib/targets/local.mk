# SPDX-License-Identifier: MIT
# The list of targets. A file here is compiled and registered; that is all it takes.

targets_sources = \
	lib/targets/delay.c \
	lib/targets/delay/lanes.c \
	lib/targets/delay/lanes.h \
	lib/targets/dust.c \
	lib/targets/dust/badblocks.c \
	lib/targets/dust/badblocks.h \
	lib/targets/error.c \
	lib/targets/flakey.c \
	lib/targets/flakey/corrupt.c \
	lib/targets/flakey/corrupt.h \
	lib/targets/flakey/features.c \
	lib/targets/flakey/features.h \
	lib/targets/linear.c \
	lib/targets/log_writes.c \
	lib/targets/log_writes/lists.c \
	lib/targets/log_writes/memory.c \
	lib/targets/log_writes/run.c \
	lib/targets/log_writes/stack.h \
	lib/targets/log_writes/wlog.h \
	lib/targets/log_writes/write.c \
	lib/targets/mirror.c \
	lib/targets/mirror/arguments.c \
	lib/targets/mirror/behind.c \
	lib/targets/mirror/clean.c \
	lib/targets/mirror/log.c \
	lib/targets/mirror/mirror.h \
	lib/targets/mirror/recovery.c \
	lib/targets/mirror/regions.c \
	lib/targets/mirror/scrub.c \
	lib/targets/mirror/writes.c \
	lib/targets/snapshot.c \
	lib/targets/snapshot/arguments.c \
	lib/targets/snapshot/carriers.c \
	lib/targets/snapshot/discard.c \
	lib/targets/snapshot/exceptions.c \
	lib/targets/snapshot/exceptions.h \
	lib/targets/snapshot/exceptions_path.c \
	lib/targets/snapshot/exceptions_tree.c \
	lib/targets/snapshot/exceptions_tree.h \
	lib/targets/snapshot/load.c \
	lib/targets/snapshot/merge.c \
	lib/targets/snapshot/origin.c \
	lib/targets/snapshot/origin.h \
	lib/targets/snapshot/pending.c \
	lib/targets/snapshot/requests.c \
	lib/targets/snapshot/share.c \
	lib/targets/snapshot/snapshot.h \
	lib/targets/snapshot/store.c \
	lib/targets/snapshot_merge.c \
	lib/targets/snapshot_origin.c \
	lib/targets/striped.c \
	lib/targets/switch.c \
	lib/targets/unstriped.c \
	lib/targets/zero.c
