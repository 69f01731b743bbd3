/* A driver as a shared library in plain C. Build it and load it by name:
 *   cc -shared -fPIC -I$(python -m wamcore --include-dir) vendor_hal.c -o libvendor_hal.so
 *   python -c "import wamcore; print(wamcore.hal.load('./libvendor_hal.so').configure(wamcore.HalConfig()).joints)"
 * The robot is two joints in memory that are where they were told to be. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "wamcore/hal_abi.h"

enum { DOF = 2 };

typedef struct {
  double q[DOF]; /* rad */
  int active, stopped;
  const char* why;
} Vendor;

static const wamcore_hal_joint joints[DOF] = {{"shoulder", -2.0, 2.0, 3.0, INFINITY, INFINITY, 1u},
                                              {"elbow", -2.0, 2.0, 3.0, INFINITY, INFINITY, 1u}};
static const wamcore_hal_description description = {joints, DOF, NULL, 0, 1000.0, 0};

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
  v->stopped = 0;
  return v->active ? WAMCORE_HAL_OK : WAMCORE_HAL_FAULT;
}

static int read_joints(void* self, wamcore_hal_state* state) {
  const Vendor* v = (const Vendor*)self;
  for (int j = 0; j < DOF; ++j) state->q[j] = v->q[j], state->dq[j] = state->tau[j] = 0.0;
  return WAMCORE_HAL_OK;
}

static int write_command(void* self, const wamcore_hal_command* command) {
  Vendor* v = (Vendor*)self;
  if (!v->active || !command->q) return WAMCORE_HAL_FAULT; /* a real one also compares valid_until_ns with its clock */
  if (!v->stopped) memcpy(v->q, command->q, sizeof v->q);
  return WAMCORE_HAL_OK;
}

static int deactivate(void* self) { return ((Vendor*)self)->active = 0, WAMCORE_HAL_OK; }
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
