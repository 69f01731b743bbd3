#pragma once

#include <cstdint>

#include "wamcore/kernels/gemm.h"

namespace wam::kernels {

// The nearest bfloat16, ties to even, in the upper half of a word whose lower half is zero. NaN stays NaN.
[[gnu::always_inline]] inline uint32_t nearest_bf16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t near = bits + 0x7fff + ((bits >> 16) & 1);  // carries over to infinity, as it should
  return ((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : near) & 0xffff0000;
}

// Floats between rounded rows: where k is a power of two, rows without a gap meet in the same sets of the first cache.
inline constexpr int64_t kRoundedGap = 16;
// Rows of x [rows, k], row stride ldx, rounded to bfloat16 and kept as floats: y [rows, k], row stride k + kRoundedGap.
void round_rows_bf16(const float* x, int64_t ldx, int64_t rows, int64_t k, float* y);

// Rounds w [n, k] and packs it in groups of consecutive inputs. False where a weight is not finite then.
struct HalvesToPack {
  const float* w = nullptr;
  int64_t n = 0, k = 0, group = 1;
  uint16_t* packed = nullptr;
};
bool pack_halves(const HalvesToPack& p);

}  // namespace wam::kernels
