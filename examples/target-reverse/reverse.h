/* SPDX-License-Identifier: MIT */
/* The target type `reverse`, for dmcore_target_register(). */
#ifndef REVERSE_H
#define REVERSE_H

#include <dmcore/target.h>

extern const struct dmcore_target_type reverse_target;

#endif
