#include "backend/operation_clock.h"

#include <algorithm>
#include <bit>

namespace wam {
namespace {

double weight_bytes(const kernels::Panels& w, double count) { return count * (w.int8 ? 1 : w.bf16 ? 2 : 4); }

}  // namespace

Cost cost_of(const kernels::GemmParams& p) {
  const auto m = double(p.m), n = double(p.n), k = double(p.k);
  return {2 * m * n * k, weight_bytes(p.w, n * k) + 4 * (m * k + m * n)};
}

Cost cost_of(const kernels::AttentionParams& p) {
  double keys = 0;
  for (int64_t i = 0; i < p.span_count; ++i) keys += double(p.spans[i].rows);
  const double width = double(p.heads * p.head_dim);
  return {4 * double(p.rows) * keys * width, 4 * width * (2 * double(p.rows) + 2 * keys)};
}

// Time taps of zeros, and those that meet a frame of zeros, are no work.
Cost cost_of(const kernels::ConvParams& p) {
  const kernels::ConvShape& s = p.shape;
  const double pixels = double(p.height * p.width), tap = double(s.out * s.in * s.rows * s.cols);
  double taps = 0;
  for (int64_t f = 0; f < p.frames; ++f)
    for (int64_t t = 0; t < s.time; ++t) taps += (p.live >> t & 1) && p.x[f * p.time_stride + t];
  const double in = pixels * double(s.in * p.stride * p.stride), out = pixels * double(s.out);
  return {2 * pixels * tap * taps,
          4 * (double(std::min<int64_t>(std::popcount(p.live), s.time)) * tap + double(p.frames) * (in + out))};
}

Cost cost_of(const kernels::FeedForwardParams& p) {
  const auto rows = double(p.rows), weights = double(p.dim * p.hidden);
  return {4 * rows * weights, weight_bytes(p.w1, weights) + weight_bytes(p.w2, weights) + 8 * rows * double(p.dim)};
}

Cost cost_of(const kernels::LayerNormParams& p) { return {0, 8 * double(p.rows * p.cols)}; }

Cost cost_of(const kernels::QkNormRopeParams& p) { return {0, 8 * double(p.rows * p.heads * p.head_dim)}; }

void OperationClock::start(bool on) {
  const std::scoped_lock lock(mutex_);
  sums_.clear();
  on_ = on;
}

void OperationClock::add(const Name& name, uint64_t calls, double ns, Cost cost) {
  const std::scoped_lock lock(mutex_);
  Sum& sum = sums_[{name.step, name.operation, name.precision}];
  sum.calls += calls;
  sum.ns += ns;
  sum.cost.flop += cost.flop;
  sum.cost.bytes += cost.bytes;
}

std::vector<OperationTime> OperationClock::times() const {
  const std::scoped_lock lock(mutex_);
  std::vector<OperationTime> out;
  for (const auto& [name, sum] : sums_) {
    const auto& [step, operation, precision] = name;
    out.push_back({step, operation, precision, sum.calls, static_cast<uint64_t>(std::max(sum.ns, 0.0)), sum.cost.flop,
                   sum.cost.bytes});
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.ns > b.ns; });
  return out;
}

}  // namespace wam
