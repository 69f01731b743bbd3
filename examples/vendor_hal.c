/* A driver as a shared library in plain C. Build it and load it by name:
 *   cc -shared -fPIC -I$(python -m wamcore --include-dir) vendor_hal.c -o libvendor_hal.so
 *   python -c "import wamcore; print(wamcore.hal.load('./libvendor_hal.so').configure(wamcore.HalConfig()).joints)"
 * The robot is two joints in memory that are where they were told to be. They have a dead-man's watch: once the last
 * command has expired they stand where they are, report it, and take no command until they are activated again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "wamcore/hal_abi.h"

enum { DOF = 2, LAPSED = 1 }; /* LAPSED: a fault bit */

typedef struct {
  double q[DOF]; /* rad */
  int active, stopped;
  uint32_t faults;
  uint64_t until_ns; /* when the last command expires, by the device's clock; 0 = there was none */
  const char* why;
} Vendor;

/* A real device counts by a clock of its own from the moment a command arrives, so it needs no clock in common. */
static uint64_t device_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A device does this in a timer of its own, whether anybody calls or not. */
static void watch(Vendor* v) {
  if (v->until_ns && device_ns() > v->until_ns) v->stopped = 1, v->faults |= LAPSED;
}

static const wamcore_hal_joint joints[DOF] = {{"shoulder", -2.0, 2.0, 3.0, INFINITY, INFINITY, 1u},
                                              {"elbow", -2.0, 2.0, 3.0, INFINITY, INFINITY, 1u}};
static const wamcore_hal_description description = {joints, DOF, NULL, 0, 1000.0, 1};

static int configure(void* self, double servo_hz, const char* const* keys, const char* const* values,
                     int32_t parameters, const wamcore_hal_description** out) {
  Vendor* v = (Vendor*)self;
  (void)servo_hz;
  for (int32_t i = 0; i < parameters; ++i)
    if (strcmp(keys[i], "port") != 0) { /* refuse what is not understood */
      v->why = "knows the parameter 'port' only";
      return WAMCORE_HAL_FAULT;
    } else if (strcmp(values[i], "/dev/null") == 0) {
      v->why = "nobody answers on that port";
      return WAMCORE_HAL_FAULT;
    }
  *out = &description;
  return WAMCORE_HAL_OK;
}

static int activate(void* self, int32_t mode) {
  Vendor* v = (Vendor*)self;
  v->active = mode == 0; /* holds the measured position */
  v->stopped = 0, v->faults = 0, v->until_ns = 0;
  return v->active ? WAMCORE_HAL_OK : WAMCORE_HAL_FAULT;
}

static int read_joints(void* self, wamcore_hal_state* state) {
  Vendor* v = (Vendor*)self;
  watch(v);
  state->fault_bits = v->faults;
  for (int j = 0; j < DOF; ++j) state->q[j] = v->q[j], state->dq[j] = state->tau[j] = 0.0;
  return WAMCORE_HAL_OK;
}

static int write_command(void* self, const wamcore_hal_command* command) {
  Vendor* v = (Vendor*)self;
  if (!v->active || !command->q || command->valid_until_ns <= command->t_ns) return WAMCORE_HAL_FAULT;
  watch(v);
  if (v->stopped) return v->faults ? WAMCORE_HAL_FAULT : WAMCORE_HAL_OK;
  memcpy(v->q, command->q, sizeof v->q);
  v->until_ns = device_ns() + (command->valid_until_ns - command->t_ns);
  return WAMCORE_HAL_OK;
}

static int deactivate(void* self) {
  Vendor* v = (Vendor*)self;
  v->active = 0, v->until_ns = 0; /* holds by itself: nobody needs to command it */
  return WAMCORE_HAL_OK;
}
static void stop(void* self, int32_t kind) { (void)kind, ((Vendor*)self)->stopped = 1; }
static void close_port(void* self) { ((Vendor*)self)->active = 0; }
static const char* error(void* self) { return ((const Vendor*)self)->why; }

#if defined(_WIN32)
#error "not a library for Windows"
#endif
#ifdef __cplusplus
extern "C"
#endif
    __attribute__((visibility("default"))) int
    wamcore_hal_open(const char* name, wamcore_hal* out) {
  Vendor* v = (Vendor*)calloc(1, sizeof *v);
  if (!v || (*name && strcmp(name, "vendor") != 0)) return free(v), 1;
  v->why = "";
  wamcore_hal hal = {WAMCORE_HAL_ABI, sizeof hal, v,    configure,  activate, read_joints, write_command,
                     deactivate,      stop,       close_port, NULL, error,    free};
  *out = hal;
  return 0;
}
