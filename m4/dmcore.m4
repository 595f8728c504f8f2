# SPDX-License-Identifier: MIT

# DMCORE_CFLAGS(VARIABLE, FLAGS): appends to VARIABLE those of FLAGS which the C compiler takes
# without a warning, and substitutes it.
AC_DEFUN([DMCORE_CFLAGS], [
	AC_REQUIRE([AC_PROG_CC])
	dmcore_saved_CFLAGS=$CFLAGS
	for dmcore_flag in $2; do
		AC_MSG_CHECKING([whether $CC takes $dmcore_flag])
		CFLAGS="$dmcore_saved_CFLAGS -Werror $dmcore_flag"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [
			AC_MSG_RESULT([yes])
			$1="$$1 $dmcore_flag"
		], [AC_MSG_RESULT([no])])
	done
	CFLAGS=$dmcore_saved_CFLAGS
	AC_SUBST([$1])
])
