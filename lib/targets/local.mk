# SPDX-License-Identifier: MIT
# The list of targets. A file here is compiled and registered; that is all it takes.

targets_sources = \
	lib/targets/dust.c \
	lib/targets/dust/badblocks.c \
	lib/targets/dust/badblocks.h \
	lib/targets/error.c \
	lib/targets/linear.c \
	lib/targets/striped.c \
	lib/targets/switch.c \
	lib/targets/unstriped.c \
	lib/targets/zero.c
