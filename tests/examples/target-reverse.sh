#!/bin/sh
# SPDX-License-Identifier: MIT
# A target type outside the tree: examples/target-reverse is copied away and built by its own
# makefile against an installed library.
set -eu
: "${top_srcdir:?}" "${top_builddir:?}" "${MAKE:=make}" "${PKG_CONFIG:=pkg-config}"
command -v "$PKG_CONFIG" > /dev/null || { echo 'no pkg-config'; exit 77; }
if [ -n "${SANITIZER_FLAGS:-}" ]; then
	echo "a sanitizer's runtime would have to be linked as well"
	exit 77
fi
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
root=$temp/root

# libtool links in the build folder what it installs: two at once are in each other's way.
one_by_one=
command -v flock > /dev/null && one_by_one="flock install.lock"
(cd "$top_builddir" && $one_by_one $MAKE install DESTDIR="$root") > "$temp/log" 2>&1 ||
	{ cat "$temp/log"; exit 1; }
pc=$(find "$root" -name dmcore.pc)
PKG_CONFIG_PATH=${pc%/*}${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
PKG_CONFIG_SYSROOT_DIR=$root
export PKG_CONFIG PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
lib=$(find "$root" -name 'libdmcore.so.*' | head -n 1)
[ -n "$lib" ] || { echo 'no shared library is built'; exit 77; }

cp -r "$top_srcdir/examples/target-reverse" "$temp/outside"
chmod -R u+w "$temp/outside"
# The makefile of this tree has its own flags, which are not meant for that one.
unset MAKEFLAGS MFLAGS MAKELEVEL
for backend in io_uring pread; do
	DMCORE_BACKEND=$backend LD_LIBRARY_PATH=${lib%/*} $MAKE -C "$temp/outside" check \
		> "$temp/log" 2>&1 && continue
	grep -q 'io_uring.*EOPNOTSUPP' "$temp/log" && continue
	cat "$temp/log"
	exit 1
done
! grep -i 'warning' "$temp/log"

# What else is installed works from there, too.
dmcat=$(find "$root" -name dmcat -path '*/bin/*')
LD_LIBRARY_PATH=${lib%/*} "$dmcat" -t '0 8 zero' table
find "$root" -path '*/bash-completion/completions/dmcat' | grep -q . ||
	{ echo 'the completion is not installed'; exit 1; }
find "$root" -path '*/man1/dmcat.1' | grep -q . || { echo 'no dmcat(1)'; exit 1; }
