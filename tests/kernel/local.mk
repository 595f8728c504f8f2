# SPDX-License-Identifier: MIT
# What a running Linux says, in QEMU: make check-kernel KERNEL_SEED=7. Not part of make check.

EXTRA_DIST += tests/kernel/run

.PHONY: check-kernel

KERNEL_SEED = 100001

# Skipping isn't failing.
check-kernel: check-programs check-needs
	$(AM_V_at)$(PYTHON) $(srcdir)/tests/kernel/run --seed '$(KERNEL_SEED)' --cc '$(CC)' \
		--work kernel.build tests/golden || [ $$? = 77 ]
