#ifndef WAMCORE_HAL_ABI_H_
#define WAMCORE_HAL_ABI_H_

/* A robot driver as a shared library in plain C: it exports one function, wamcore_hal_open, and is loaded by name with
 * wam::load_hal or wamcore.hal.load. Life cycle, threads and units are those of wam::Hal in wamcore/hal.h: rad (m for
 * sliding joints), rad/s, N m, monotonic ns. Functions that return int answer with a wamcore_hal_status. */
#include <stdint.h> /* NOLINT: plain C */

#ifdef __cplusplus
extern "C" {
#endif

#define WAMCORE_HAL_ABI 1u

typedef enum {
  WAMCORE_HAL_OK = 0,
  WAMCORE_HAL_STALE = 1, /* nothing new */
  WAMCORE_HAL_RETRY = 2, /* a passing hiccup */
  WAMCORE_HAL_FAULT = 3, /* ends the run; error() says why */
  WAMCORE_HAL_ESTOP = 4
} wamcore_hal_status;

typedef struct {
  const char* name;
  double position_min, position_max, velocity, acceleration, jerk; /* infinite = not stated */
  uint32_t modes; /* bit 0 position, 1 velocity, 2 effort, 3 impedance */
} wamcore_hal_joint;

typedef struct {
  const char* name;
  int32_t height, width; /* pixels */
  double hz;             /* 0 = on demand */
} wamcore_hal_camera;

typedef struct {
  const wamcore_hal_joint* joints;
  int32_t joint_count;
  const wamcore_hal_camera* cameras;
  int32_t camera_count;
  double servo_hz;         /* fastest command rate; 0 = any */
  int32_t has_hw_watchdog; /* the device itself refuses commands after valid_until_ns */
} wamcore_hal_description;

typedef struct {
  uint64_t t_ns;        /* when it was measured; 0 = at the call */
  double *q, *dq, *tau; /* [joint_count], of the caller */
  uint32_t fault_bits;
} wamcore_hal_state;

typedef struct {
  uint64_t t_ns, valid_until_ns; /* after valid_until_ns the device must refuse it and stop */
  int32_t mode;
  const double *q, *dq, *tau, *kp, *kd; /* [joint_count], or null = not commanded */
} wamcore_hal_command;

typedef struct {
  const uint8_t* rgb; /* [height, width, 3], valid until the next call for the same camera */
  int32_t height, width;
  uint64_t t_ns;
} wamcore_hal_frame;

typedef struct {
  uint32_t abi;  /* WAMCORE_HAL_ABI of the driver */
  uint32_t size; /* sizeof(wamcore_hal) of the driver */
  void* self;    /* given to every function */
  /* The description stays valid until close(). `keys` and `values` are `parameters` strings each. */
  int (*configure)(void* self, double servo_hz, const char* const* keys, const char* const* values, int32_t parameters,
                   const wamcore_hal_description** out);
  int (*activate)(void* self, int32_t mode);
  int (*read)(void* self, wamcore_hal_state* state);            /* on the servo thread: no allocation, no lock */
  int (*write)(void* self, const wamcore_hal_command* command); /* likewise */
  int (*deactivate)(void* self);
  void (*stop)(void* self, int32_t kind); /* 0 hold, 1 soft stop, 2 cut; from any thread */
  void (*close)(void* self);
  int (*frame)(void* self, int32_t camera, wamcore_hal_frame* out); /* null if there are no cameras */
  const char* (*error)(void* self);                                 /* may be null */
  void (*destroy)(void* self);                                      /* may be null; the last call */
} wamcore_hal;

/* Fills `out` for the driver of that name (a library may have several; the name may be ""); 0 if there is one. */
typedef int (*wamcore_hal_open_function)(const char* name, wamcore_hal* out);

#ifdef __cplusplus
}
#endif

#endif /* WAMCORE_HAL_ABI_H_ */
