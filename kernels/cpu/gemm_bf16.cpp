#include "gemm_bf16.h"

#include <algorithm>

#include "amx.h"
#include "gemm_rounded.h"
#include "mmla.h"
#include "variants.h"

namespace wam::kernels {
namespace {

template <Isa>
[[gnu::always_inline]] inline void round_loop(const float* x, int64_t ldx, int64_t rows, int64_t k, float* y) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i)
      y[r * (k + kRoundedGap) + i] = __builtin_bit_cast(float, nearest_bf16(x[r * ldx + i]));
}
WAMCORE_VARIANTS(round, (const float* x, int64_t ldx, int64_t rows, int64_t k, float* y), (x, ldx, rows, k, y))

}  // namespace

void round_rows_bf16(const float* x, int64_t ldx, int64_t rows, int64_t k, float* y) { round(x, ldx, rows, k, y); }

int64_t packed_bf16_size(int64_t n, int64_t k) {
  const int64_t group = bf16_product().group;
  return packed_size(n, (k + group - 1) / group * group);
}

bool pack_halves(const HalvesToPack& p) {
  uint32_t top = 0;
  uint16_t* packed = p.packed;
  for (int64_t col = 0; col < p.n; col += kPanel)
    for (int64_t i = 0; i < p.k; i += p.group)
      for (int64_t j = col; j < col + kPanel; ++j)
        for (int64_t l = i; l < i + p.group; ++l) {
          const uint32_t near = j < p.n && l < p.k ? nearest_bf16(p.w[j * p.k + l]) : 0;
          *packed++ = uint16_t(near >> 16);
          top = std::max(top, near & 0x7fffffff);
        }
  return top < 0x7f800000;
}

bool pack_weight_bf16(const float* w, int64_t n, int64_t k, uint16_t* packed) {
  return pack_halves({.w = w, .n = n, .k = k, .group = bf16_product().group, .packed = packed});
}

Panels bf16_panels_of(const uint16_t* packed, int64_t, int64_t) {
  Panels out(packed);
  out.rounds = true;
  out.group = bf16_product().group;
  return out;
}

RoundedProduct bf16_product() {
  switch (bf16_isa()) {
    case Isa::amx:
      return amx_product(/*bytes=*/false);
    case Isa::neon_mmla:
      return mmla_product(/*bytes=*/false);
    default:
      return {};
  }
}

}  // namespace wam::kernels
