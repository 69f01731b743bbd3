#include "wamcore/kernels/peak.h"

#include <atomic>

#include "variants.h"

namespace wam::kernels {
namespace {

// As many sums as hide a multiply-add's latency and fit the registers. |x| < 1 keeps them finite and normal.
template <Isa I>
[[gnu::always_inline]] inline void multiply_add_loop(int64_t flop, int64_t& done, float& keep) {
  using Vec = typename Simd<I>::Vec;
  constexpr int kSums = 12;
  Vec sum[kSums], x, y;
  for (int64_t l = 0; l < Simd<I>::lanes; ++l) x[l] = 0.5f, y[l] = 0.25f;
  for (int s = 0; s < kSums; ++s) sum[s] = y * static_cast<float>(s);
  const int64_t each = 2 * kSums * Simd<I>::lanes, times = flop / each + 1;
  for (int64_t i = 0; i < times; ++i)
    for (int s = 0; s < kSums; ++s) sum[s] = sum[s] * x + y;
  for (int s = 1; s < kSums; ++s) sum[0] += sum[s];
  keep = sum[0][0];
  done = each * times;
}
WAMCORE_VARIANTS(multiply_add, (int64_t flop, int64_t& done, float& keep), (flop, done, keep))

}  // namespace

int64_t multiply_adds(int64_t flop) {
  static std::atomic<float> seen;  // so that no compiler leaves the work out
  int64_t done = 0;
  float keep = 0.0f;
  multiply_add(flop, done, keep);
  seen.store(keep, std::memory_order_relaxed);
  return done;
}

}  // namespace wam::kernels
