/* SPDX-License-Identifier: MIT */
/* What a status says of work that targets do by themselves: merging, recovering. */
#ifndef DMCAT_BACKGROUND_H
#define DMCAT_BACKGROUND_H

/* The greater one counts for a device. */
enum background {
	BACKGROUND_NONE,      /* it has ended, or there was none */
	BACKGROUND_UNDER_WAY,
	BACKGROUND_FAILING,   /* what has failed is tried again, now and then */
	BACKGROUND_FAILED,    /* it won't end */
};

/* Of the target whose line of status this is. The line stays as it is. */
enum background background_of_line(const char *line);

#endif
