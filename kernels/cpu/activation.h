#pragma once

#include <cmath>
#include <cstdint>

#include "wamcore/kernels/gemm.h"

namespace wam::kernels {

// exp of x within -87.5 to 88: 2^n * p(r), relative error below 2e-7, so that loops over it vectorise.
[[gnu::always_inline]] inline float exp_within(float x) {
  const float n = __builtin_floorf(x * 1.44269504088896341f + 0.5f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  return y * __builtin_bit_cast(float, bits);
}

[[gnu::always_inline]] inline float fast_exp(float x) {
  return exp_within(x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x));
}

// x / (1 + exp(-v)), NaN where x is. The bound is found in whole numbers: compilers turn comparisons of floats into
// branches up to the last division, and compute x / (1 + exp(88)) too for each x, which is subnormal and slow.
[[gnu::always_inline]] inline float times_sigmoid(float x, float v) {
  constexpr uint32_t kMost = 0x42ae0000, kSign = 0x80000000;  // 87
  const uint32_t bits = __builtin_bit_cast(uint32_t, -v), size = bits & ~kSign;
  const uint32_t bounded = (size < kMost ? size : kMost) | (bits & kSign);
  return x / (1.0f + exp_within(__builtin_bit_cast(float, bounded)));
}

// x * sigmoid(2u) equals 0.5 x (1 + tanh(u)), the tanh form of GELU.
[[gnu::always_inline]] inline float gelu_tanh(float x) {
  return times_sigmoid(x, 1.5957691216057308f * (x + 0.044715f * x * x * x));
}

[[gnu::always_inline]] inline void activate(Activation kind, float* a, int64_t n) {
  switch (kind) {
    case Activation::none:
      return;
    case Activation::gelu_tanh:
      for (int64_t j = 0; j < n; ++j) a[j] = gelu_tanh(a[j]);
      return;
    case Activation::gelu_erf:
      for (int64_t j = 0; j < n; ++j) a[j] = 0.5f * a[j] * (1.0f + std::erf(a[j] * 0.70710678118654752f));
      return;
    case Activation::silu:
      for (int64_t j = 0; j < n; ++j) a[j] = times_sigmoid(a[j], a[j]);
      return;
    case Activation::relu:
      for (int64_t j = 0; j < n; ++j) a[j] = a[j] < 0.0f ? 0.0f : a[j];
      return;
  }
}

}  // namespace wam::kernels
