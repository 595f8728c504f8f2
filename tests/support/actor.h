/* SPDX-License-Identifier: MIT */
/*
 * What tests of devices that change while they run stand on: a target that does as it is told and
 * keeps a log of what is done to it, and short ways to load tables and to look at devices.
 *
 *	0 64 actor 3 DEVICE 16    linear, under the name 3
 *	0 64 actor 3              without a device: every request succeeds, reads as they are
 *
 * The type "actor" may push requests back; "mute" is the same without that feature.
 */
#ifndef DMCORE_TESTS_SUPPORT_ACTOR_H
#define DMCORE_TESTS_SUPPORT_ACTOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>
#include <dmcore/driver.h>

#include "stage.h"

#define ACTORS_MAX 10
#define ACTOR_KEPT_MAX 64

/* What it does with a bio in map. */
enum actor_map {
	ACTOR_PASS,
	ACTOR_KEEP,    /* until actor_let_go() */
	ACTOR_REQUEUE,
	ACTOR_KILL,
};

/* What tests tell the actors of one number, whatever table they are in. All of it zero at first. */
struct actor {
	_Atomic int map;                /* enum actor_map */
	_Atomic int map_times;          /* if not 0: after so many bios it passes them again */
	_Atomic bool end_requeues;      /* end_io pushes bios back */
	_Atomic bool end_keeps;         /* end_io takes bios again */
	_Atomic bool frees_in_presuspend; /* presuspend pushes back what is kept */
	_Atomic int preresume_error;
	_Atomic unsigned int maps;
	_Atomic unsigned int ends;
	_Atomic(struct dmcore_target *) target; /* constructed last */
	unsigned int copies;            /* of a flush or discard; 0: one */
	/* In every hook, with its name; in a constructor and in a message too. */
	void (*in_hook)(unsigned int nr, const char *hook);
};

extern struct actor actors[ACTORS_MAX];

/* Registers both types. */
void actor_register(struct dmcore *core);
/* The log since the last call: "ctr 1, presuspend 1"; good until the next call. */
const char *actor_log(void);
/* Ends the bios that actors of this number have kept, oldest first, from any thread. */
void actor_let_go(unsigned int nr, int status);
unsigned int actor_num_kept(unsigned int nr);

/* ---- devices ---- */

/* Makes a device without a table; stage_close() removes it. */
struct dmcore_device *actor_device(struct stage *stage, const char *name);
/* The device behind stage_map(). */
struct dmcore_device *actor_mapped(struct stage *stage, const char *name, const char *text);
/* Puts a table into the inactive slot; and makes it live too. */
void actor_load(struct dmcore_device *device, const char *text);
void actor_reload(struct dmcore_device *device, const char *text);
/* That a suspend or a resume works. */
void actor_suspend(struct dmcore_device *device, unsigned int flags);
void actor_resume(struct dmcore_device *device);
struct dmcore_device_info actor_info(struct dmcore_device *device);
/* The stage doesn't remove it any more. */
void actor_forget(struct stage *stage, struct dmcore_device *device);

/* ---- threads ---- */

/* As cr_assert(), which a test only notices on its own thread: this one ends the process. */
#define actor_require(condition)                                                                   \
	do {                                                                                       \
		if (!(condition))                                                                  \
			actor_die(#condition, __FILE__, __LINE__);                                 \
	} while (0)
void actor_die(const char *condition, const char *file, int line);

/* Waits until *word is `value`, or more. */
void actor_await(_Atomic unsigned int *word, unsigned int value);
/* Waits until so many requests wait for the device to be resumed. */
void actor_await_deferred(struct dmcore_device *device, uint64_t count);
/* Waits until a call is suspending or resuming the device. */
void actor_await_changing(struct dmcore_device *device);

#endif
