#include "gemm_bf16.h"

#include <algorithm>

#include "variants.h"

namespace wam::kernels {
namespace {

template <Isa>
[[gnu::always_inline]] inline void round_loop(const float* x, int64_t ldx, int64_t rows, int64_t k, float* y) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) y[r * k + i] = __builtin_bit_cast(float, nearest_bf16(x[r * ldx + i]));
}
WAMCORE_VARIANTS(round, (const float* x, int64_t ldx, int64_t rows, int64_t k, float* y), (x, ldx, rows, k, y))

}  // namespace

void round_rows_bf16(const float* x, int64_t ldx, int64_t rows, int64_t k, float* y) { round(x, ldx, rows, k, y); }

int64_t packed_bf16_size(int64_t n, int64_t k) { return packed_size(n, k); }

bool pack_weight_bf16(const float* w, int64_t n, int64_t k, uint16_t* packed) {
  uint32_t top = 0;
  for (int64_t col = 0; col < n; col += kPanel)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < kPanel; ++j) {
        const uint32_t near = col + j < n ? nearest_bf16(w[(col + j) * k + i]) : 0;
        *packed++ = uint16_t(near >> 16);
        top = std::max(top, near & 0x7fffffff);
      }
  return top < 0x7f800000;
}

Panels bf16_panels_of(const uint16_t* packed, int64_t, int64_t) {
  Panels out(packed);
  out.rounds = true;
  return out;
}

}  // namespace wam::kernels
