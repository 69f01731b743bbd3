#pragma once

#include "device.cuh"
#include "wamcore/kernels/cuda/math.h"
#include "wamcore/kernels/cuda/sampler_step.h"

namespace wam::kernels::cuda {

/// m of this step and of the two before, in the ring.
struct SamplerHistory {
  float* m0;
  const float *m1, *m2;
};

// One element through guidance, pull, corrector and predictor. Terms with coefficient 0 are not read: before the second
// and third step what they point at has never been written.
__device__ __forceinline__ void sampler_element(const SamplerModality& m, const StepCoefficients& k, float pull,
                                                const SamplerHistory& at, int32_t i, bool executed) {
  float v;
  if (executed) {
    v = m.conditional[i];
    if (m.unconditional != nullptr) v = guide(v, m.unconditional[i], m.guidance);
    m.velocity[i] = v;
  } else {
    v = m.velocity[i];
  }
  const bool held = m.area > 0 && i / m.area % m.frames >= m.held;
  if (k.moves == 0 || held) return;
  const float x = m.x[i];
  if (pull != 0.0f) {
    const float weight = m.weight[i];
    if (weight != 0.0f) v -= pull * (m.target[i] - (WAM_PLANTED("pull_at_x") ? x : x - k.sigma * v)) * weight;
  }
  const float m0 = k.data_x * x + k.data_v * v;
  const float m1 = k.fix_m1 != 0.0f || k.next_m1 != 0.0f ? at.m1[i] : 0.0f;
  float c = k.fix_x * x + k.fix_m0 * m0 + k.fix_m1 * m1;
  if (k.fix_last != 0.0f) c += k.fix_last * m.last[i];
  if (k.fix_m2 != 0.0f) c += k.fix_m2 * at.m2[i];
  at.m0[i] = m0;
  m.last[i] = c;
  m.x[i] = k.next_x * c + k.next_m0 * m0 + k.next_m1 * m1;
}

// blockIdx.y is the modality. The block that finishes last counts the step up and sets the next timesteps, so that the
// following launch needs nothing from the host.
template <int Threads>
__global__ __launch_bounds__(Threads) void sampler_step_kernel(const __grid_constant__ SamplerStepParams p) {
  const int32_t step = *p.step;
  const SamplerModality& m = p.modality[blockIdx.y];
  if (step < p.steps && m.count > 0) {
    const StepCoefficients k = m.steps[step];
    const float pull = m.pull != nullptr ? m.pull[step] : 0.0f;
    const auto ring = [&](int32_t back) { return m.history + int64_t{(step + 3 - back) % 3} * m.count; };
    const SamplerHistory at{ring(0), ring(WAM_PLANTED("history_off_by_one") ? 2 : 1), ring(2)};
    const int32_t stride = static_cast<int32_t>(gridDim.x) * Threads;
    // 2^31 - 2^18 elements are more than any latent has; launch_sampler_step checks
    for (int32_t i = static_cast<int32_t>(blockIdx.x * Threads + threadIdx.x);
         i < m.count + (WAM_PLANTED("out_of_bounds") ? 1 : 0); i += stride)
      sampler_element(m, k, pull, at, i, p.executed);
  }
  if (!WAM_PLANTED("no_barrier")) __syncthreads();  // every thread of the block has read the step
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(p.ticket, 1u) != gridDim.x * gridDim.y - 1) return;
  *p.ticket = 0;
  if (step >= p.steps) return;
  *p.step = step + 1;
  if (step + 1 < p.steps)
    for (int32_t i = 0; i < p.time_rows; ++i) p.timesteps[i] = p.timestep_table[(step + 1) * p.time_rows + i];
}

/// Chooses the tile and calls launch(shape, kernel, params). Nothing is launched for impossible sizes: false.
template <typename Launch>
bool launch_sampler_step(const SamplerStepParams& p, Launch&& launch) {
  constexpr int kThreads = 256;
  const int32_t most = p.modality[0].count > p.modality[1].count ? p.modality[0].count : p.modality[1].count;
  if (most < 1 || most > (INT32_MAX - 1024 * kThreads) || p.steps < 1) return false;
  // One element a thread up to 1024 blocks, which are more than any GPU runs at once; loops beyond that.
  const unsigned blocks = static_cast<unsigned>((most + kThreads - 1) / kThreads);
  launch(LaunchShape{.grid_x = blocks < 1024u ? blocks : 1024u, .grid_y = 2, .threads = kThreads},
         sampler_step_kernel<kThreads>, p);
  return true;
}

}  // namespace wam::kernels::cuda
