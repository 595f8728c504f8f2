/* SPDX-License-Identifier: MIT */
/* Random programs in a simulated world; see simprogram.h. Called by tests and by a fuzzer. */
#include "simprogram.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "simprogram_inner.h"

/* The world is chosen by decisions of their own, as if it were a step behind the last. */
#define WORLD_STEP SIMPROGRAM_STEPS
/* Programs whose crash states are all looked at are shorter. */
#define RECORDED_STEPS 24
/* Of a disk that writes back by itself: more than what is on its way at once. */
#define CACHE_SECTORS (SLOTS * RANGES_MAX * RANGE_SECTORS_MAX + 64)

struct program program;
struct simmodel sectors;

void program_fail(const char *format, ...)
{
	struct simprogram_result *result = program.result;
	va_list args;
	int length;

	if (result->failed)
		return;
	result->failed = true;
	length = snprintf(result->why, sizeof(result->why), "step %u: ", program.step);
	va_start(args, format);
	vsnprintf(result->why + length, sizeof(result->why) - (size_t)length, format, args);
	va_end(args);
	program_trace("FAILED: %s", result->why);
}

void program_trace(const char *format, ...)
{
	va_list args;

	if (!program.options->trace)
		return;
	va_start(args, format);
	vfprintf(program.options->trace, format, args);
	va_end(args);
	fputc('\n', program.options->trace);
}

static struct simchoice choice_of_step(unsigned int step)
{
	const struct simprogram_options *options = program.options;
	size_t from = SIMPROGRAM_WORLD_BYTES + (size_t)step * SIMPROGRAM_STEP_BYTES;
	size_t count = SIMPROGRAM_STEP_BYTES;

	if (!options->bytes)
		return simchoice_of_seed(options->seed, step);
	if (step == WORLD_STEP) {
		from = 0;
		count = SIMPROGRAM_WORLD_BYTES;
	}
	if (from > options->num_bytes)
		from = options->num_bytes;
	if (count > options->num_bytes - from)
		count = options->num_bytes - from;
	return simchoice_of_bytes(options->bytes + from, count);
}

/* ---- the world ------------------------------------------------------------------------------ */

static void stuck(struct dmcore_sim *sim, void *context)
{
	(void)sim;
	(void)context;
	program_fail("a wait can't end");
	longjmp(program.give_up, 1);
}

static void choose_disk(unsigned int i)
{
	static const uint32_t units[] = { 16, 64, 256, 512, 512, 512, 1024, 4096 };
	struct dmcore_sim_disk_options *disk = &program.disk_options[i];
	bool is_slow = choose(4) != 0;

	*disk = (struct dmcore_sim_disk_options){ .struct_size = sizeof(*disk) };
	disk->sectors = 256 + 64 * (uint64_t)choose(5);
	disk->flags = choose(3) ? 0 : choose(16);
	disk->logical_block_bytes = program.tables.unit > 1 && choose(2) ? 4096 : 512;
	disk->atomic_bytes = units[choose(8)];
	disk->discard = (enum dmcore_sim_discard)choose(3);
	disk->max_io_sectors = choose(3) ? 0 : 8 + 8 * choose(4);
	disk->depth = choose(3) ? 0 : 1 + choose(4);
	if (is_slow) {
		disk->read_ns = choose(100000);
		disk->write_ns = choose(100000);
		disk->flush_ns = choose(1000000);
		disk->sector_ns = choose(1000);
		disk->spread_ns = choose(2) ? choose(300000) : 0;
	}
	if (!program.records && choose(4) == 0)
		disk->cache_units = CACHE_SECTORS * (disk->atomic_bytes < 512 ?
							     512 / disk->atomic_bytes : 1);
	if (program.options->defect == SIMPROGRAM_LIES)
		disk->flags |= DMCORE_SIM_LIES;
	program.tables.sizes[i] = disk->sectors;
}

static void say(size_t *length, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(size_t *length, const char *format, ...)
{
	size_t room = sizeof(program.result->world) - *length;
	va_list args;
	int ret;

	va_start(args, format);
	ret = vsnprintf(program.result->world + *length, room, format, args);
	va_end(args);
	*length += (size_t)ret < room ? (size_t)ret : room - 1;
}

static void say_world(void)
{
	size_t length = 0;

	say(&length, "unit %u, copies by %u pages%s\n", program.tables.unit, program.copy_pages,
	    program.records ? ", every crash state" : "");
	for (unsigned int i = 0; i < program.tables.num_disks; i++) {
		const struct dmcore_sim_disk_options *disk = &program.disk_options[i];

		say(&length,
		    "d%u: %" PRIu64 " sectors, flags %x, block %u, atomic %u, discard %d, "
		    "max %u, depth %u, ns %" PRIu64 "/%" PRIu64 "/%" PRIu64 "+%" PRIu64 "+%" PRIu64
		    ", cache %" PRIu64 "\n",
		    i, disk->sectors, disk->flags, disk->logical_block_bytes, disk->atomic_bytes,
		    (int)disk->discard, disk->max_io_sectors, disk->depth, disk->read_ns,
		    disk->write_ns, disk->flush_ns, disk->sector_ns, disk->spread_ns,
		    disk->cache_units);
	}
	for (unsigned int i = SIMTABLE_DISKS; i < SIMTABLE_DEVICES; i++) {
		char text[1024];

		simtable_text(&program.tables.live[i], text, sizeof(text));
		say(&length, "%s:\n%s", simtable_device_name(i), text);
	}
}

static void choose_world(void)
{
	program.choice = choice_of_step(WORLD_STEP);
	program.records = choose(4) == 0;
	program.tables.unit = choose(4) ? 1 : 8;
	program.tables.num_disks = 2 + choose(SIMTABLE_DISKS - 1);
	program.tables.has_switch = choose(2);
	program.tables.has_flakey = choose(8) == 0;
	for (unsigned int i = 0; i < program.tables.num_disks; i++)
		choose_disk(i);
	program.tables.sizes[4] = 128;
	program.tables.sizes[5] = 128;
	program.tables.sizes[SIMTABLE_TOP] = 192;
	for (unsigned int i = SIMTABLE_DISKS; i < SIMTABLE_DEVICES; i++)
		simtable_choose(&program.tables, i, &program.choice, &program.tables.live[i]);
	program.copy_pages = 1 + choose(16);
	say_world();
}

static void make_world(void)
{
	struct dmcore_sim_options options = {
		.struct_size = sizeof(options),
		.seed = simchoice_next(&program.choice),
		.stuck = stuck,
	};

	simmodel_reset(&sectors);
	program.next_value = 1;
	PROGRAM_CHECK(dmcore_sim_create(&options, &program.sim) == 0, "no world");
	for (unsigned int i = 0; i < program.tables.num_disks && !program_failed(); i++) {
		char name[] = { 'd', (char)('0' + i), 0 };

		PROGRAM_CHECK(dmcore_sim_disk_create(program.sim, name, &program.disk_options[i],
						     &program.disks[i]) == 0,
			      "%s", dmcore_error_message());
		simmodel_add_disk(&sectors, (uint32_t)program.disk_options[i].sectors);
	}
}

static void boot(void)
{
	PROGRAM_CHECK(dmcore_sim_core(program.sim, NULL, &program.core) == 0, "no core");
	if (program_failed())
		return;
	PROGRAM_CHECK(dmcore_queue_create(program.core, NULL, &program.queue) == 0, "no queue");
	PROGRAM_CHECK(dmio_client_create(program.queue, 0, &program.client) == 0, "no client");
	copy_boot();
	for (unsigned int i = 0; i < program.tables.num_disks; i++)
		PROGRAM_CHECK(dmcore_bdev_open(program.core, simtable_device_name(i), 0,
					       &program.bdevs[i]) == 0,
			      "%s", dmcore_error_message());
	for (unsigned int i = SIMTABLE_DISKS; i < SIMTABLE_DEVICES && !program_failed(); i++) {
		simtable_renew(&program.tables.live[i]);
		control_create(i);
	}
	control_clear_rules();
}

/* ---- the end of a core ---------------------------------------------------------------------- */

/* Faults off: all that is on its way ends in time. */
static void finish_requests(void)
{
	for (unsigned int i = SIMTABLE_DISKS; i < SIMTABLE_DEVICES; i++) {
		if (program.has_next[i])
			PROGRAM_CHECK(dmcore_device_clear(program.devices[i]) == 0, "clear");
		program.has_next[i] = false;
		if (program.is_suspended[i])
			control_resume(i);
	}
	control_clear_rules();
	io_drain(LIVENESS_NS);
	PROGRAM_CHECK(program.num_running == 0, "%u requests don't end", program.num_running);
}

static void finish_timers(void)
{
	for (unsigned int i = 0; i < TIMERS; i++) {
		if (program.timers[i].is_running && !has_power()) {
			dmcore_timer_cancel(program.queue, &program.timers[i].timer);
			program.timers[i].is_running = false;
		}
		while (program.timers[i].is_running && !program_failed()) {
			int ret = dmcore_queue_poll(program.queue, 1, UINT32_MAX, LIVENESS_NS);

			PROGRAM_CHECK(ret > 0, "a timer doesn't run: %d", ret);
		}
	}
}

/* Nothing is left behind. */
static void shut_down(void)
{
	for (unsigned int i = SIMTABLE_DEVICES; i-- > SIMTABLE_DISKS;) {
		if (program.devices[i])
			PROGRAM_CHECK(dmcore_device_remove(program.devices[i]) == 0, "%s",
				      dmcore_error_message());
		program.devices[i] = NULL;
	}
	copy_shut_down();
	PROGRAM_CHECK(dmio_client_destroy(program.client) == 0, "%s", dmcore_error_message());
	PROGRAM_CHECK(dmcore_queue_destroy(program.queue) == 0, "%s", dmcore_error_message());
	for (unsigned int i = 0; i < program.tables.num_disks; i++)
		PROGRAM_CHECK(dmcore_bdev_close(program.bdevs[i]) == 0, "%s",
			      dmcore_error_message());
	PROGRAM_CHECK(dmcore_destroy(program.core) == 0, "%s", dmcore_error_message());
	program.core = NULL;
}

/* ---- power cuts ----------------------------------------------------------------------------- */

static bool check_disk(unsigned int disk, uint64_t cut_nr, bool all)
{
	const unsigned char *data = dmcore_sim_disk_data(program.disks[disk]);
	uint32_t atomic_bytes = program.disk_options[disk].atomic_bytes;

	for (uint32_t i = 0; i < program.disk_options[disk].sectors; i++) {
		if ((all || sectors.heads[disk][i]) &&
		    !simmodel_may_be_left(&sectors, disk, i, data + (size_t)i * 512, cut_nr,
					  atomic_bytes)) {
			program_fail("sector %u of disk %u isn't what a cut after event %" PRIu64
				     " may leave", i, disk, cut_nr);
			return false;
		}
	}
	return true;
}

static void check_disks(uint64_t cut_nr, bool all)
{
	for (unsigned int i = 0; i < program.tables.num_disks; i++) {
		if (!check_disk(i, cut_nr, all))
			return;
	}
}

/* The power has gone: the program ends, and another goes on with what the disks hold. */
static void recover(void)
{
	program.result->num_cuts++;
	program_trace("  the power has gone");
	finish_requests();
	finish_timers();
	if (program_failed())
		return;
	shut_down();
	dmcore_sim_power_on(program.sim);
	check_disks(SIMMODEL_NEVER - 1, true);
	for (unsigned int i = 0; i < program.tables.num_disks; i++)
		simmodel_load(&sectors, i, dmcore_sim_disk_data(program.disks[i]));
	if (!program_failed())
		boot();
}

/* Every content that a cut may have left at any moment of the program. */
static void check_states(void)
{
	struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = choose(4) ? DMCORE_SIM_CUTS_EPOCHS : DMCORE_SIM_CUTS_EVENTS,
		.states_per_cut = 16,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	int ret = dmcore_sim_states_open(program.sim, &options, &states);

	PROGRAM_CHECK(ret == 0, "states: %s", dmcore_error_message());
	if (ret)
		return;
	while (!program_failed() && dmcore_sim_states_next(states) == 1) {
		dmcore_sim_states_info(states, &state);
		check_disks(state.cut_nr, state.nr % 64 == 0);
		program.result->num_states++;
	}
	PROGRAM_CHECK(dmcore_sim_states_close(states) == 0, "%s", dmcore_error_message());
}

/* ---- a run ---------------------------------------------------------------------------------- */

static void poll_some(void)
{
	unsigned int min = choose(2);
	int64_t timeout_ns = choose(200000);
	int ret = dmcore_queue_poll(program.queue, min, UINT32_MAX, timeout_ns);

	PROGRAM_CHECK(ret >= 0, "poll: %d", ret);
}

static void step(unsigned int nr)
{
	unsigned int kind;

	program.step = nr;
	program.choice = choice_of_step(nr);
	kind = choose(64);
	program_trace("step %u at %" PRIu64, nr, dmcore_sim_now_ns(program.sim));
	if (kind < 36)
		io_step(kind % 16);
	else if (kind < 41)
		poll_some();
	else if (kind < 44)
		io_drain(STEP_NS);
	else if (kind < 47 && !program.records)
		dmcore_sim_cut_after(program.sim, choose(40));
	else if (kind == 47)
		dmcore_sim_pass(program.sim, choose(200000));
	else
		control_step(kind - 48);
	if (!has_power() && !program_failed())
		recover();
	/* Between requests the model may forget, except for crash states of the past. */
	if (!program.num_running && !program.records)
		simmodel_settle(&sectors);
}

static void finish(void)
{
	program.step = WORLD_STEP;
	program.choice = choice_of_step(WORLD_STEP + 1);
	dmcore_sim_cut_after(program.sim, 0);
	finish_requests();
	finish_timers();
	for (unsigned int i = 0; i < SIMTABLE_DEVICES && !program_failed(); i++) {
		if (program.tables.sizes[i])
			io_read_all(i);
	}
	if (program.records && !program_failed())
		check_states();
	if (!program_failed())
		shut_down();
}

/* As much as can be, after a failure: the power goes, and so all ends. */
static void abandon(void)
{
	struct simprogram_result keep = *program.result;

	if (program.sim && program.core) {
		dmcore_sim_cut(program.sim);
		for (unsigned int i = SIMTABLE_DISKS; i < SIMTABLE_DEVICES; i++) {
			if (!program.devices[i])
				continue;
			dmcore_device_clear(program.devices[i]);
			if (program.is_suspended[i] && dmcore_device_resume(program.devices[i]))
				program_trace("  %s", dmcore_error_message());
		}
		if (program.queue) {
			io_drain(STEP_NS);
			for (unsigned int i = 0; i < TIMERS; i++)
				dmcore_timer_cancel(program.queue, &program.timers[i].timer);
			shut_down();
		}
	}
	*program.result = keep;
}

static void carry_out(void)
{
	const struct simprogram_options *options = program.options;
	unsigned int num_steps = program.records ? RECORDED_STEPS : SIMPROGRAM_STEPS;
	size_t num_given = options->num_bytes < SIMPROGRAM_WORLD_BYTES ?
				   0 : (options->num_bytes - SIMPROGRAM_WORLD_BYTES +
					SIMPROGRAM_STEP_BYTES - 1) / SIMPROGRAM_STEP_BYTES;
	size_t kept = 0;

	boot();
	if (program.records && !program_failed())
		PROGRAM_CHECK(dmcore_sim_record(program.sim) == 0, "%s", dmcore_error_message());
	for (unsigned int i = 0; i < num_steps && !program_failed(); i++) {
		while (options->steps && kept < options->num_steps && options->steps[kept] < i)
			kept++;
		if (options->steps && (kept == options->num_steps || options->steps[kept] != i))
			continue;
		if (options->bytes && i >= num_given)
			break;
		step(i);
	}
	if (!program_failed())
		finish();
}

void simprogram_run(const struct simprogram_options *options, struct simprogram_result *result)
{
	memset(result, 0, sizeof(*result));
	memset(&program, 0, offsetof(struct program, slots));
	for (unsigned int i = 0; i < SLOTS; i++)
		program.slots[i].is_running = false;
	program.options = options;
	program.result = result;
	program.step = WORLD_STEP;
	choose_world();
	program_trace("%s", result->world);
	make_world();
	if (setjmp(program.give_up) == 0) {
		if (!program_failed())
			carry_out();
		if (program_failed())
			abandon();
	}
	if (program.sim) {
		result->hash = dmcore_sim_log_hash(program.sim);
		result->num_events = dmcore_sim_num_events(program.sim);
	}
	if (dmcore_sim_destroy(program.sim))
		program_fail("%s", dmcore_error_message());
}

/* ---- shrinking ------------------------------------------------------------------------------ */

struct shrink {
	struct simprogram_options options;
	struct simprogram_result *result;
};


static bool fails(const uint32_t *steps, size_t num_steps, void *context)
{
	struct shrink *shrink = context;

	shrink->options.steps = steps;
	shrink->options.num_steps = num_steps;
	simprogram_run(&shrink->options, shrink->result);
	return shrink->result->failed;
}

size_t simprogram_shrink(const struct simprogram_options *options, uint32_t *steps,
			 struct simprogram_result *result)
{
	struct shrink shrink = { .options = *options, .result = result };
	FILE *trace = options->trace;
	size_t num = SIMPROGRAM_STEPS;

	for (uint32_t i = 0; i < SIMPROGRAM_STEPS; i++)
		steps[i] = i;
	shrink.options.trace = NULL;
	num = dmcore_sim_shrink(steps, num, fails, &shrink, 2000);
	shrink.options.trace = trace;
	fails(steps, num, &shrink);
	return num;
}
