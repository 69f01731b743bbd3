#pragma once

// Starts kernels on the simulated device the way kernels/cuda/launch.cuh does on a real one.
#include <cmath>

#include "check.h"
#include "cuda/device.cuh"
#include "fresh.h"
#include "wamcore/kernels/cuda/launch.h"

namespace sim {

using namespace wam::kernels::cuda;

struct Launcher {
  unsigned seed = 1;
  const char* planted = "";
  simt::Counts* counts = nullptr;  // of the last launch

  template <typename Params>
  void operator()(const LaunchShape& shape, void (*kernel)(Params), const Params& p) const {
    const simt::Counts seen = simt::launch({.grid = {shape.grid_x, shape.grid_y, shape.grid_z},
                                            .block = {shape.threads},
                                            .shared_bytes = shape.shared_bytes,
                                            .seed = seed,
                                            .planted = planted},
                                           [&] { kernel(p); });
    if (counts) *counts = seen;
  }
};

/// Fresh normal numbers, each array an allocation of exact size, so that the address sanitizer sees its end.
inline std::vector<float> normal(int64_t n, double mean = 0.0, double deviation = 1.0) {
  std::normal_distribution<double> d(mean, deviation);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = static_cast<float>(d(check::fresh()));
  return v;
}
inline std::vector<bf16> normal_bf16(int64_t n) {
  std::vector<bf16> v(static_cast<size_t>(n));
  const std::vector<float> f = normal(n);
  for (size_t i = 0; i < v.size(); ++i) v[i] = to_bf16(f[i]);
  return v;
}
inline unsigned seed() { return static_cast<unsigned>(check::fresh()()); }

inline const bf16 kNan = {0x7fff};
inline bool is_nan(bf16 v) { return (v.bits & 0x7fff) > 0x7f80; }

/// A bf16 result of the float64 value `want` that was computed in float32 to `slack` of `scale` and rounded once: no
/// further away than half a unit in the last place and that.
inline bool rounded(bf16 got, double want, double scale, double slack = 4e-6) {
  const double half = want == 0 ? 0 : std::ldexp(1.0, std::ilogb(want) - 8);
  return std::abs(double(to_float(got)) - want) <= half * (1 + 1e-3) + slack * scale;
}

}  // namespace sim
