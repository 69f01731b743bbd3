#pragma once

// The arithmetic of the kernels, one element at a time. Plain functions, so that the host's compiler can test them.
#include <cmath>

#include "wamcore/kernels/cuda/embed.h"
#include "wamcore/kernels/cuda/sampler_step.h"

namespace wam::kernels::cuda {

/// 1 / sqrt(mean of squares + eps), and with a mean removed, 1 / standard deviation.
WAM_HD inline float inverse_root(float sum, int32_t n, float eps) {
  return 1.0f / sqrtf(sum / static_cast<float>(n) + eps);
}

WAM_HD inline float modulate(float x, float scale, float shift) { return x * (1.0f + scale) + shift; }

/// The pair (a, b) as a complex number times (c, s).
struct Pair {
  float a, b;
};
WAM_HD inline Pair rotate(Pair p, float c, float s) { return {p.a * c - p.b * s, p.a * s + p.b * c}; }

WAM_HD inline float activate(float x, Act act) {
  switch (act) {
    case Act::none:
      break;
    case Act::gelu_tanh:
      return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case Act::gelu_erf:
      return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case Act::silu:
      return x / (1.0f + expf(-x));
    case Act::relu:
      return x > 0.0f ? x : (x == x ? 0.0f : x);  // NaN stays NaN
  }
  return x;
}

/// Guidance: u + g (c - u), written so that g = 1 gives c exactly.
WAM_HD inline float guide(float conditional, float unconditional, float g) {
  return g * conditional + (1.0f - g) * unconditional;
}

/// The wave of column k of `half` at time t.
WAM_HD inline double wave_angle(float t, int32_t k, int32_t half) {
  return static_cast<double>(t) * exp(-static_cast<double>(k) * (9.210340371976184 / half));
}

/// Where row i of the stored tokens lies in the memory.
template <typename Slots>
WAM_HD inline int32_t cache_row(const Slots& s, int32_t i) {
  return i < s.rows[0] ? s.begin[0] + i : s.begin[1] + (i - s.rows[0]);
}

}  // namespace wam::kernels::cuda
