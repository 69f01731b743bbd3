#pragma once

#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "wamcore/runner.h"

namespace wam {

/// Quantiles of non-negative numbers to within 1 %, in fixed memory: bins that grow by 2 % from 1e-9 to 1e3.
/// One thread adds, any thread reads.
class Histogram {
 public:
  void add(double value) noexcept {
    const double clipped = value > 1e-9 ? (value < 1e3 ? value : 1e3) : 0.0;
    const size_t bin = clipped == 0.0 ? 0 : 1 + static_cast<size_t>(std::log(clipped / 1e-9) / kStep);
    bins_[bin < kBins ? bin : kBins - 1].fetch_add(1, std::memory_order_relaxed);
    if (value > max_.load(std::memory_order_relaxed)) max_.store(value, std::memory_order_relaxed);
  }
  Quantiles quantiles() const {
    Quantiles q;
    for (const auto& bin : bins_) q.count += bin.load(std::memory_order_relaxed);
    q.p50 = at(0.50, q.count);
    q.p99 = at(0.99, q.count);
    q.p999 = at(0.999, q.count);
    q.max = max_.load(std::memory_order_relaxed);
    return q;
  }

 private:
  static constexpr double kStep = 0.0198026272961797;  // log(1.02)
  static constexpr size_t kBins = 1400;

  double at(double fraction, uint64_t count) const {
    if (count == 0) return 0.0;
    const uint64_t rank = static_cast<uint64_t>(std::ceil(fraction * static_cast<double>(count)));
    uint64_t seen = 0;
    for (size_t i = 0; i < kBins; ++i) {
      seen += bins_[i].load(std::memory_order_relaxed);
      if (seen >= rank) return i == 0 ? 0.0 : 1e-9 * std::exp((static_cast<double>(i) - 0.5) * kStep);
    }
    return max_.load(std::memory_order_relaxed);
  }
  std::array<std::atomic<uint64_t>, kBins> bins_{};
  std::atomic<double> max_{0.0};
};

}  // namespace wam
