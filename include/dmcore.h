/* SPDX-License-Identifier: MIT */
/**
 * @file dmcore.h
 * The whole public interface of libdmcore: includes every header of dmcore/, and nothing else.
 */
#ifndef DMCORE_H
#define DMCORE_H

#include <dmcore/attr.h>
#include <dmcore/bdev.h>
#include <dmcore/bio.h>
#include <dmcore/context.h>
#include <dmcore/cow.h>
#include <dmcore/device.h>
#include <dmcore/dmio.h>
#include <dmcore/driver.h>
#include <dmcore/error.h>
#include <dmcore/event.h>
#include <dmcore/kcopyd.h>
#include <dmcore/limits.h>
#include <dmcore/logwrites.h>
#include <dmcore/queue.h>
#include <dmcore/sim.h>
#include <dmcore/stats.h>
#include <dmcore/table.h>
#include <dmcore/target.h>
#include <dmcore/version.h>

#endif
