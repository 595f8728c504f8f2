/* SPDX-License-Identifier: MIT */
/* What status, table, info and targets print, as dmsetup does or as JSON. */
#ifndef DMCAT_SHOW_H
#define DMCAT_SHOW_H

#include "session.h"

/* The table or status of a device. flags: DMCORE_TEXT_*. */
enum exit_status show_text(struct session *session, struct dmcore_device *device,
			   enum dmcore_text_kind kind, unsigned int flags);
/* The same of all devices, with their names. */
enum exit_status show_all_texts(struct session *session, enum dmcore_text_kind kind,
				unsigned int flags);

/* A device of any kind and its queue. */
enum exit_status show_info(struct session *session, const char *spec);

enum exit_status show_targets(struct session *session);

#endif
