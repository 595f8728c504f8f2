/* SPDX-License-Identifier: MIT */
/*
 * Runs Criterion test programs without Criterion's library: one fork per test, nothing else.
 * Criterion 2.4 aborts under ThreadSanitizer, whose address space has no place for Criterion's
 * shared arena; and a debugger or valgrind follows a plain fork more easily than its sandbox.
 *
 * Covers what this tree uses of <criterion/criterion.h>: Test, ParameterizedTest, TestSuite, their
 * init, fini, signal, exit_code, disabled and timeout, the classic cr_assert and cr_expect macros,
 * cr_skip and cr_log. A test that needs more does not link, which says so clearly.
 */
#include <fnmatch.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <criterion/alloc.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

/* The linker gathers the tests and suites of a program here. */
extern struct criterion_test *__start_cr_tst[] __attribute__((weak));
extern struct criterion_test *__stop_cr_tst[] __attribute__((weak));
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *__stop_cr_sts[] __attribute__((weak));

struct criterion_options criterion_options;

static const struct criterion_test_extra_data no_data;

/* What the test that runs has to say; its process shares it with the runner. */
struct report {
	_Atomic unsigned int failed;
	_Atomic bool skipped;
};

static struct report *report;
static const struct criterion_test_extra_data *current_suite = &no_data;
static const struct criterion_test_extra_data *current_test = &no_data;
static void *current_parameter;

static struct {
	unsigned int tested;
	unsigned int passing;
	unsigned int failing;
	unsigned int crashing;
} total;

static struct {
	const char *filter;
	double timeout;
	bool verbose;
	bool list;
	bool no_fork;
} options = { .filter = "*" };

/* ---- what the macros of criterion.h call --------------------------------------------------- */

char *cr_translate_assert_msg(int index, ...)
{
	static const char *const formats[] = {
		[CRITERION_ASSERT_MSG_FAIL] = "The conditions for this assertion were not met.",
		[CRITERION_ASSERT_MSG_EXPR_FALSE] = "The expression %s is false.",
		[CRITERION_ASSERT_MSG_EXPR_AS_STRINGS_FALSE] =
			"The expression (as strings) %s is false: actual=`%s` expected=`%s`.",
		[CRITERION_ASSERT_MSG_IS_NULL] = "%s is null.",
		[CRITERION_ASSERT_MSG_IS_NOT_NULL] = "%s is not null.",
		[CRITERION_ASSERT_MSG_IS_EMPTY] = "%s is empty.",
		[CRITERION_ASSERT_MSG_IS_NOT_EMPTY] = "%s (`%s`) is not empty.",
	};
	bool known = index >= 0 && (size_t)index < sizeof(formats) / sizeof(formats[0]);
	char *message = NULL;
	va_list values;

	va_start(values, index);
	if (vasprintf(&message, known ? formats[index] : "Assertion failed.", values) < 0)
		message = NULL;
	va_end(values);
	return message;
}

int cr_asprintf(char **result, const char *format, ...)
{
	va_list values;
	int length;

	va_start(values, format);
	length = vasprintf(result, format, values);
	va_end(values);
	return length;
}

void cr_asprintf_free(char *text)
{
	free(text);
}

void cri_asserts_passed_incr(void)
{
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (stats->passed)
		return;
	fprintf(stderr, "[----] %s:%u: Assertion Failed\n[----]\n[----]   %s\n[----]\n",
		stats->file, stats->line, stats->message);
}

void criterion_continue_test(void)
{
	atomic_fetch_add(&report->failed, 1);
}

/* Any thread of the test may come here, so there is no way back into the test's fini. */
void criterion_abort_test(void)
{
	criterion_continue_test();
	_exit(EXIT_FAILURE);
}

void criterion_test_die(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	criterion_abort_test();
}

void criterion_skip_test(const char *format, ...)
{
	va_list values;

	fprintf(stderr, "[SKIP] %s: ", current_test->identifier_);
	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fprintf(stderr, "\n");
	atomic_store(&report->skipped, true);
	_exit(EXIT_SUCCESS);
}

void cr_log(enum criterion_severity severity, const char *format, ...)
{
	va_list values;

	if (severity == CR_LOG_INFO && !options.verbose)
		return;
	fprintf(stderr, "[----] ");
	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fprintf(stderr, "\n");
}

void *cr_malloc(size_t size)
{
	return malloc(size);
}

void *cr_calloc(size_t count, size_t size)
{
	return calloc(count, size);
}

void *cr_realloc(void *memory, size_t size)
{
	return realloc(memory, size);
}

void cr_free(void *memory)
{
	free(memory);
}

void criterion_internal_test_setup(void)
{
	if (current_suite->init)
		current_suite->init();
	if (current_test->init)
		current_test->init();
}

void criterion_internal_test_main(void (*body)(void))
{
	if (current_test->kind_ == CR_TEST_PARAMETERIZED)
		((void (*)(void *))body)(current_parameter);
	else
		body();
}

void criterion_internal_test_teardown(void)
{
	if (current_test->fini)
		current_test->fini();
	if (current_suite->fini)
		current_suite->fini();
}

/* ---- the runner ---------------------------------------------------------------------------- */

static const struct criterion_test_extra_data *suite_of(const struct criterion_test *test)
{
	for (struct criterion_suite **suite = __start_cr_sts; suite < __stop_cr_sts; suite++) {
		if (strcmp((*suite)->name, test->category) == 0)
			return (*suite)->data;
	}
	return &no_data;
}

static void start_timer(void)
{
	double seconds = current_test->timeout;
	struct itimerval timer = { 0 };

	if (seconds <= 0)
		seconds = current_suite->timeout > 0 ? current_suite->timeout : options.timeout;
	timer.it_value.tv_sec = (time_t)seconds;
	timer.it_value.tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6);
	setitimer(ITIMER_REAL, &timer, NULL);
}

/* Runs in its own process. exit(), not _exit(): sanitizers report and set the status there. */
static _Noreturn void run_child(const struct criterion_test *test)
{
	start_timer();
	test->test();
	exit(atomic_load(&report->failed) ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int expected(int of_test, int of_suite)
{
	return of_test ? of_test : of_suite;
}

static void judge(const struct criterion_test *test, int status)
{
	int signal = expected(current_test->signal, current_suite->signal);
	int exit_code = expected(current_test->exit_code, current_suite->exit_code);
	bool died = WIFSIGNALED(status);
	bool as_expected = died ? WTERMSIG(status) == signal :
				  signal == 0 && WEXITSTATUS(status) == exit_code;

	if (atomic_load(&report->skipped))
		return;
	total.tested++;
	if (as_expected && atomic_load(&report->failed) == 0) {
		total.passing++;
		if (options.verbose)
			fprintf(stderr, "[PASS] %s::%s\n", test->category, test->name);
		return;
	}
	total.failing++;
	fprintf(stderr, "[FAIL] %s::%s", test->category, test->name);
	if (died && WTERMSIG(status) == SIGALRM) {
		fprintf(stderr, ": Timed out.\n");
	} else if (died) {
		total.crashing++;
		fprintf(stderr, ": CRASH! (%s)\n", strsignal(WTERMSIG(status)));
	} else {
		fprintf(stderr, ": exit status %d\n", WEXITSTATUS(status));
	}
}

static void run_once(const struct criterion_test *test)
{
	int status = 0;
	pid_t pid;

	if (options.verbose)
		fprintf(stderr, "[RUN ] %s::%s\n", test->category, test->name);
	atomic_store(&report->failed, 0);
	atomic_store(&report->skipped, false);
	fflush(NULL);
	if (options.no_fork)
		run_child(test);
	pid = fork();
	if (pid == 0)
		run_child(test);
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("plain_runner");
		exit(EXIT_FAILURE);
	}
	judge(test, status);
}

static void run_test(const struct criterion_test *test)
{
	struct criterion_test_params params;

	current_test = test->data;
	current_suite = suite_of(test);
	if (options.list) {
		printf("%s\n", current_test->identifier_);
		return;
	}
	if (current_test->disabled || current_suite->disabled) {
		fprintf(stderr, "[SKIP] %s: Test is disabled\n", current_test->identifier_);
		return;
	}
	if (current_test->kind_ != CR_TEST_PARAMETERIZED) {
		run_once(test);
		return;
	}
	params = current_test->param_();
	for (size_t i = 0; i < params.length; i++) {
		current_parameter = (char *)params.params + i * params.size;
		run_once(test);
	}
	if (params.cleanup)
		params.cleanup(&params);
}

static void read_options(int argc, char **argv)
{
	/* Criterion's own, so that callers need not know which runner a program has. */
	static const struct option known[] = {
		{ "filter", required_argument, NULL, 'f' },
		{ "timeout", required_argument, NULL, 't' },
		{ "jobs", required_argument, NULL, 'j' },
		{ "verbose", optional_argument, NULL, 'v' },
		{ "list", no_argument, NULL, 'l' },
		{ "no-fork", no_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "lj:", known, NULL)) != -1) {
		if (option == 'f')
			options.filter = optarg;
		else if (option == 't')
			options.timeout = strtod(optarg, NULL);
		else if (option == 'v')
			options.verbose = true;
		else if (option == 'l')
			options.list = true;
		else if (option == 'n')
			options.no_fork = true;
		else if (option != 'j')
			exit(EXIT_FAILURE);
	}
}

int main(int argc, char **argv)
{
	read_options(argc, argv);
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (report == MAP_FAILED) {
		perror("plain_runner");
		return EXIT_FAILURE;
	}
	for (struct criterion_test **test = __start_cr_tst; test < __stop_cr_tst; test++) {
		if (fnmatch(options.filter, (*test)->data->identifier_, FNM_EXTMATCH) == 0)
			run_test(*test);
	}
	if (options.list)
		return EXIT_SUCCESS;
	fprintf(stderr, "[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: %u\n",
		total.tested, total.passing, total.failing, total.crashing);
	return total.failing ? EXIT_FAILURE : EXIT_SUCCESS;
}
