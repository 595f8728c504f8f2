# SPDX-License-Identifier: MIT
# Programs that others have written judge mapped devices. make check-judges JUDGES='mirror pread'

EXTRA_DIST += \
	tests/judges/below.py \
	tests/judges/bench.py \
	tests/judges/filesystems.py \
	tests/judges/network.py \
	tests/judges/run

.PHONY: check-judges

# Exits with 77 where nothing can be judged, having said why.
check-judges: all-am
	$(AM_V_at)$(PYTHON) $(srcdir)/tests/judges/run --logs judges --filter '$(JUDGES)' \
		--plugin examples/nbdkit/.libs/nbdkit-dmcore-plugin.so \
		--dmcat examples/dmcat/dmcat; \
	status=$$?; test $$status = 77 || exit $$status
