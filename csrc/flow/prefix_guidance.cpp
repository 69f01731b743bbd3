#include "flow/prefix_guidance.h"

#include <algorithm>
#include <cmath>

namespace wam {

void prefix_weights(int frozen, int rows, std::span<float> weights) {
  const int start = std::min(frozen, rows);
  std::fill(weights.begin(), weights.end(), 0.0f);
  for (int i = 0; i < std::min(rows, static_cast<int>(weights.size())); ++i) {
    const double c = std::clamp(static_cast<double>(rows - i) / (rows - start + 1), 0.0, 1.0);
    weights[static_cast<size_t>(i)] = i < start ? 1.0f : static_cast<float>(c * std::expm1(c) / std::expm1(1.0));
  }
}

double prefix_pull(double sigma, double next, double strength, bool multistep) {
  const double t = 1.0 - sigma, whole = 1.0 / sigma;  // the latter takes away the whole error
  if (next == 0.0) return std::min(strength, whole);
  const double formula = t > 0.0 ? (t * t + sigma * sigma) / (t * sigma) : strength;
  return std::min({strength, formula, multistep ? whole : strength});
}

void guide_velocity(const PrefixGuidance& g, double sigma, double pull, const float* x, const float* velocity,
                    float* out, int64_t size) {
  const float s = static_cast<float>(sigma), p = static_cast<float>(pull);
  for (int64_t i = 0; i < size; ++i) {
    const float error = g.weight[i] == 0.0f ? 0.0f : g.target[i] - (x[i] - s * velocity[i]);
    out[i] = velocity[i] - p * error * g.weight[i];
  }
}

}  // namespace wam
