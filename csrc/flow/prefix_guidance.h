#pragma once

#include <cstdint>
#include <span>

#include "wamcore/export.h"

namespace wam {

/// Real-time chunking at inference time (Black, Galliker, Levine, arXiv 2506.07339), with the identity in place of the
/// model's Jacobian, so that no backward pass is needed. Row i of a chunk of weights.size() weighs 1 while it is frozen
/// (i < frozen), then c (e^c - 1) / (e - 1) with c falling linearly to zero at row `rows`, the end of the plan before.
WAMCORE_API void prefix_weights(int frozen, int rows, std::span<float> weights);

/// What the actions are guided toward while they are sampled.
struct PrefixGuidance {
  const float* target = nullptr;  // [horizon, action_dim] in the model's range; anything where the weight is zero
  const float* weight = nullptr;  // [horizon, action_dim], 0 to 1
  double strength = 5.0;          // the most that the pull weighs against the model's velocity
  /// Leading rows that are given clean instead, with timestep 0, to a model that was trained so. Then nothing pulls.
  int64_t clean_rows = 0;
};

/// The pull's weight at noise level `sigma` when the step ends at `next`: min(strength, (1 - t) / (t r^2)) in the
/// paper's time t = 1 - sigma; never more than what takes away the whole error if the solver is `multistep`, which
/// works on the predicted data. In the last step it is that, or `strength` if less: the formula would leave a part of
/// the error below sigma = 1/2, which nothing later takes away.
WAMCORE_API double prefix_pull(double sigma, double next, double strength, bool multistep);

/// out = velocity - pull * (target - x1) * weight with x1 = x - sigma * velocity, the data predicted from x; [size].
/// Velocities point from data to noise.
WAMCORE_API void guide_velocity(const PrefixGuidance& guidance, double sigma, double pull, const float* x,
                                const float* velocity, float* out, int64_t size);

}  // namespace wam
