# SPDX-License-Identifier: MIT
# Modules that tests load: one that works, and all that bad.c makes.

check_LTLIBRARIES = \
	tests/modules/driver-bad_abi.la \
	tests/modules/driver-letters.la \
	tests/modules/driver-no_driver.la \
	tests/modules/driver-no_symbol.la \
	tests/modules/driver-opens_itself.la \
	tests/modules/driver-other_name.la \
	tests/modules/driver-refuses.la

# -rpath: without one libtool makes no shared object of it. Nothing is installed.
test_module_ldflags = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nowhere

tests_modules_driver_bad_abi_la_SOURCES = tests/modules/bad.c
tests_modules_driver_bad_abi_la_LDFLAGS = $(test_module_ldflags)
tests_modules_driver_bad_abi_la_LIBADD =
tests_modules_driver_bad_abi_la_CPPFLAGS = $(AM_CPPFLAGS) -DMODULE_KIND=BAD_ABI \
	-DMODULE_NAME='"bad_abi"' -DMODULE_SYMBOL=dmcore_driver_module
tests_modules_driver_letters_la_SOURCES = tests/modules/letters.c
tests_modules_driver_letters_la_LDFLAGS = $(test_module_ldflags)
tests_modules_driver_letters_la_LIBADD =
tests_modules_driver_no_driver_la_SOURCES = tests/modules/bad.c
tests_modules_driver_no_driver_la_LDFLAGS = $(test_module_ldflags)
tests_modules_driver_no_driver_la_LIBADD =
tests_modules_driver_no_driver_la_CPPFLAGS = $(AM_CPPFLAGS) -DMODULE_KIND=NO_DRIVER \
	-DMODULE_NAME='"no_driver"' -DMODULE_SYMBOL=dmcore_driver_module
tests_modules_driver_no_symbol_la_SOURCES = tests/modules/bad.c
tests_modules_driver_no_symbol_la_LDFLAGS = $(test_module_ldflags)
tests_modules_driver_no_symbol_la_LIBADD =
tests_modules_driver_no_symbol_la_CPPFLAGS = $(AM_CPPFLAGS) -DMODULE_KIND=NO_SYMBOL \
	-DMODULE_NAME='"no_symbol"' -DMODULE_SYMBOL=dmcore_other_symbol
tests_modules_driver_opens_itself_la_SOURCES = tests/modules/bad.c
tests_modules_driver_opens_itself_la_LDFLAGS = $(test_module_ldflags)
tests_modules_driver_opens_itself_la_LIBADD =
tests_modules_driver_opens_itself_la_CPPFLAGS = $(AM_CPPFLAGS) -DMODULE_KIND=OPENS_ITSELF \
	-DMODULE_NAME='"opens_itself"' -DMODULE_SYMBOL=dmcore_driver_module
tests_modules_driver_other_name_la_SOURCES = tests/modules/bad.c
tests_modules_driver_other_name_la_LDFLAGS = $(test_module_ldflags)
tests_modules_driver_other_name_la_LIBADD =
tests_modules_driver_other_name_la_CPPFLAGS = $(AM_CPPFLAGS) -DMODULE_KIND=OTHER_NAME \
	-DMODULE_NAME='"other_name"' -DMODULE_SYMBOL=dmcore_driver_module
tests_modules_driver_refuses_la_SOURCES = tests/modules/bad.c
tests_modules_driver_refuses_la_LDFLAGS = $(test_module_ldflags)
tests_modules_driver_refuses_la_LIBADD =
tests_modules_driver_refuses_la_CPPFLAGS = $(AM_CPPFLAGS) -DMODULE_KIND=REFUSES \
	-DMODULE_NAME='"refuses"' -DMODULE_SYMBOL=dmcore_driver_module
