#include "gemm_int8.h"

#include <algorithm>

#include "gemm_rounded.h"

namespace wam::kernels {
namespace {

int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }
// Of k inputs, in whole groups.
int64_t depth(int64_t k, int64_t group) { return (k + group - 1) / group * group; }

}  // namespace

int64_t packed_int8_size(int64_t n, int64_t k) {
  return padded(n) * (depth(k, int8_product().group) + static_cast<int64_t>(sizeof(float) + sizeof(int32_t)));
}

Panels int8_panels_of(const void* packed, int64_t n, int64_t k) {
  Panels out;
  out.group = int8_product().group;
  out.int8 = static_cast<const int8_t*>(packed);
  out.scale = reinterpret_cast<const float*>(out.int8 + padded(n) * depth(k, out.group));
  out.sum = reinterpret_cast<const int32_t*>(out.scale + padded(n));
  return out;
}

bool pack_weight_int8(const float* w, int64_t n, int64_t k, void* packed) {
  const int64_t group = int8_product().group, deep = depth(k, group);
  auto* bytes = static_cast<int8_t*>(packed);
  auto* scale = reinterpret_cast<float*>(bytes + padded(n) * deep);
  auto* sum = reinterpret_cast<int32_t*>(scale + padded(n));
  std::fill_n(bytes, packed_int8_size(n, k), int8_t{0});
  for (int64_t j = 0; j < n; ++j) {
    uint32_t top = 0;
    for (int64_t i = 0; i < k; ++i) top = std::max(top, __builtin_bit_cast(uint32_t, w[j * k + i]) & 0x7fffffff);
    const RowScale s = row_scale(top);
    if (s.scale != s.scale) return false;
    scale[j] = s.scale;
    int8_t* panel = bytes + j / kPanel * kPanel * deep + j % kPanel * group;
    for (int64_t i = 0; i < k; ++i) {
      const auto step = static_cast<int32_t>(__builtin_rintf(w[j * k + i] * s.inverse));
      panel[i / group * kPanel * group + i % group] = static_cast<int8_t>(step);
      sum[j] += step;
    }
  }
  return true;
}

}  // namespace wam::kernels
