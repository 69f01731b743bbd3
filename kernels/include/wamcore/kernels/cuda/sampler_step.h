#pragma once

#include "wamcore/kernels/cuda/launch.h"

namespace wam::kernels::cuda {

/// One solver step as the numbers it multiplies with. UniPC (order 2, predicting the data) and Euler are both
///   m0 = data_x x + data_v v
///   c  = fix_x x + fix_last last + fix_m0 m0 + fix_m1 m1 + fix_m2 m2      (m1, m2: m0 of the two steps before)
///   x' = next_x c + next_m0 m0 + next_m1 m1
/// where `last` is c of the step before. Terms whose coefficient is zero are not read.
struct StepCoefficients {
  float data_x = 0, data_v = 0;
  float fix_x = 1, fix_last = 0, fix_m0 = 0, fix_m1 = 0, fix_m2 = 0;
  float next_x = 1, next_m0 = 0, next_m1 = 0;
  float sigma = 0;    // noise level of x, for the pull
  int32_t moves = 1;  // 0: this modality has arrived, x stays
};

/// What the solver does to one modality.
struct SamplerModality {
  float* x = nullptr;                       // [count], updated in place
  const float* conditional = nullptr;       // [count], velocity of this step; unused when the step is skipped
  const float* unconditional = nullptr;     // [count]; nullptr: no guidance
  float* velocity = nullptr;                // [count], the combined velocity, kept for skipped steps
  float* last = nullptr;                    // [count], corrected sample of the step before
  float* history = nullptr;                 // [3, count], m of the last three steps, as a ring
  const StepCoefficients* steps = nullptr;  // [steps], in device memory
  int32_t count = 0;
  float guidance = 1.0f;
  // Element e belongs to frame (e / area) % frames; frames from `held` on stay as they are. area 0: nothing is held.
  int32_t area = 0, frames = 1, held = 1;
  // What the step is taken with is v - pull (target - (x - sigma v)) weight; the kept velocity stays the model's own.
  const float* pull = nullptr;    // [steps], in device memory; nullptr: nothing pulls
  const float* target = nullptr;  // [count]; not read where pull or weight is 0
  const float* weight = nullptr;  // [count], 0 to 1; not read where pull is 0
};

/// Guidance, pull toward a plan and solver update of video and actions in one launch.
struct SamplerStepParams {
  SamplerModality modality[2];  // video, action
  bool executed = true;         // false: a skipped step, which reuses the velocity
  int32_t* step = nullptr;      // in device memory: which step this is; the last block counts it up
  uint32_t* ticket = nullptr;   // in device memory, 0 between launches: blocks that are done
  int32_t steps = 0;
  const float* timestep_table = nullptr;  // [steps, time_rows]
  float* timesteps = nullptr;             // [time_rows], set to the row of the next step, if there is one
  int32_t time_rows = 0;
};

LaunchResult sampler_step(const SamplerStepParams& p, Stream stream);

}  // namespace wam::kernels::cuda
