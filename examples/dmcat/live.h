/* SPDX-License-Identifier: MIT */
/* The commands of a script that change a mapped device, or wait for it. */
#ifndef DMCAT_LIVE_H
#define DMCAT_LIVE_H

#include "script.h"

enum exit_status live_create(struct session *session, const struct call *call);
enum exit_status live_load(struct session *session, const struct call *call);
enum exit_status live_clear(struct session *session, const struct call *call);
enum exit_status live_suspend(struct session *session, const struct call *call);
enum exit_status live_resume(struct session *session, const struct call *call);
enum exit_status live_rename(struct session *session, const struct call *call);
enum exit_status live_remove(struct session *session, const struct call *call);
enum exit_status live_message(struct session *session, const struct call *call);
enum exit_status live_wait(struct session *session, const struct call *call);
enum exit_status live_settle(struct session *session, const struct call *call);

#endif
