#include "session/noise.h"

#include <cmath>

namespace wam {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): every counter value gives an independent 64-bit word.
uint64_t word(uint64_t& state) {
  uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double uniform(uint64_t& state) { return (static_cast<double>(word(state) >> 11) + 0.5) * 0x1p-53; }

}  // namespace

void fill_normal(uint64_t seed, float* out, int64_t n) {
  uint64_t state = seed;
  for (int64_t i = 0; i < n; i += 2) {  // Box-Muller; std::normal_distribution differs between standard libraries
    const double radius = std::sqrt(-2.0 * std::log(uniform(state))), angle = 2.0 * M_PI * uniform(state);
    out[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < n) out[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

}  // namespace wam
