#pragma once

// What a list of calls asks of a device, counted from their parameters: arithmetic, and bytes that a launch has to
// read.
#include <algorithm>
#include <map>
#include <utility>

#include "backend/cuda/device.h"

namespace sim {

struct Work {
  double flop = 0;     // of products and attentions
  double weights = 0;  // bytes of matrices read
  double keys = 0;     // bytes of keys and values read, those that several query groups see once
  Work& operator+=(const Work& o) {
    flop += o.flop, weights += o.weights, keys += o.keys;
    return *this;
  }
  Work operator-(const Work& o) const { return {flop - o.flop, weights - o.weights, keys - o.keys}; }
};

inline Work product_work(double m, double n, double k, double element) {
  return {.flop = 2 * m * n * k, .weights = element * n * k};
}
inline Work work(const wam::kernels::cuda::GemmParams& p) { return product_work(p.m, p.n, p.k, 2); }
inline Work work(const wam::kernels::cuda::GemmPlainParams& p) { return product_work(p.m, p.n, p.k, 2); }
inline Work work(const wam::kernels::cuda::Fp8Product& p) { return product_work(p.gemm.m, p.gemm.n, p.gemm.k, 1); }
inline Work work(const wam::kernels::cuda::AttentionParams& p) {
  using namespace wam::kernels::cuda;
  Work out;
  std::map<std::pair<const bf16*, int>, int> read;  // where a segment begins, how many rows are seen at most
  for (int g = 0; g < p.group_count; ++g)
    for (int s = 0; s < p.groups[g].segment_count; ++s) {
      const KeySegment& at = p.groups[g].segments[s];
      const LiveRows seen = p.live ? p.live[g * kMaxKeySegments + s] : LiveRows{at.first_row, at.rows};
      out.flop += 4.0 * p.batch * p.groups[g].rows * seen.rows * p.heads * p.head_dim;
      int& rows = read[{at.k, seen.first_row}];
      rows = std::max(rows, seen.rows);
    }
  for (const auto& [where, rows] : read) out.keys += 4.0 * p.batch * rows * p.heads * p.head_dim;
  return out;
}
template <typename Params>
Work work(const Params&) {
  return {};
}
/// Before the launch: which rows an attention sees is read from the device's memory.
inline Work work_of(const wam::cuda::Call& call) {
  return std::visit([](const auto& p) { return work(p); }, call);
}

}  // namespace sim
