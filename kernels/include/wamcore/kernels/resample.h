#pragma once

#include <cstdint>
#include <vector>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

/// How a line of samples becomes one of another length; positions as in PyTorch with align_corners off.
enum class Resampling : uint8_t {
  antialiased,  // a triangle that is as wide as the target's samples are apart
  bilinear,     // two neighbours, whatever lies between the target's samples
  bicubic,      // four neighbours, a = -0.75; may overshoot
};

/// Target sample i is the sum of `count[i]` source samples from `first[i]`, each times its weight.
struct ResampleWeights {
  int64_t from = 0, to = 0, taps = 0;
  std::vector<int32_t> first, count;  // [to]
  std::vector<float> weight;          // [to, taps]
};
/// Computed in float32 step by step as PyTorch does, so that antialiased results agree bit by bit.
ResampleWeights resample_weights(int64_t from, int64_t to, Resampling kind);

/// Resamples the middle axis: pictures [height, width, channels] along the width with outer = height, inner = channels;
/// along the height with outer = 1, inner = width * channels.
struct ResampleParams {
  const float* x = nullptr;  // [outer, from, inner], outer stride ldx
  float* y = nullptr;        // [outer, to, inner], outer stride ldy
  int64_t outer = 1, inner = 1, ldx = 0, ldy = 0;
  const ResampleWeights* weights = nullptr;
};
void resample(const ResampleParams& p, const Team& team);
/// The same sums in float64.
void resample_ref(const ResampleParams& p);

}  // namespace wam::kernels
