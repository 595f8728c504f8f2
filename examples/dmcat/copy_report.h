/* SPDX-License-Identifier: MIT */
/* What a copy has come to, in words. */
#ifndef DMCAT_COPY_REPORT_H
#define DMCAT_COPY_REPORT_H

#include "copy.h"

struct copy_outcome {
	const struct kcopyd_job *job;    /* which has ended */
	struct kcopyd_progress progress;
	uint64_t elapsed_ns;
	bool is_interrupted;             /* by a signal */
	bool is_saved;                   /* the state is as it should be */
};

/* Prints what went wrong, and makes a line that sums it up. */
enum exit_status copy_report(struct session *session, struct copy *copy,
			     const struct copy_outcome *outcome);

/* Says that a destination differs, so many sectors behind the beginning of the range. */
enum exit_status copy_report_difference(struct session *session, const struct copy *copy,
					unsigned int index, uint64_t sector);

/* Names the destinations that couldn't be flushed. */
enum exit_status copy_report_flush(struct session *session, const struct copy *copy,
				   unsigned int flush_err);

#endif
