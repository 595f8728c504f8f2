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
	lib/targets/striped.c \
	lib/targets/switch.c \
	lib/targets/unstriped.c \
	lib/targets/zero.c
