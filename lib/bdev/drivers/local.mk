# SPDX-License-Identifier: MIT
# The list of drivers. A file here is compiled and registered; that is all it takes. The files in a
# driver's own folder help it and register nothing.

drivers_sources = \
	lib/bdev/drivers/file.c \
	lib/bdev/drivers/file/copy.c \
	lib/bdev/drivers/file/extent.c \
	lib/bdev/drivers/file/file.h \
	lib/bdev/drivers/file/open.c \
	lib/bdev/drivers/file/range.c \
	lib/bdev/drivers/file/request.c \
	lib/bdev/drivers/file/sync.c \
	lib/bdev/drivers/file/transfer.c \
	lib/bdev/drivers/mem.c
