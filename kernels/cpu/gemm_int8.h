#pragma once

#include <cmath>
#include <cstdint>

#include "wamcore/kernels/gemm.h"

namespace wam::kernels {

// How a row of x becomes bytes: x is about scale * lround(x * inverse). Kernel and definition share it, since a value
// halfway between two steps must fall to the same side in both.
struct RowScale {
  float scale = 0.0f, inverse = 0.0f;
};
// top: the bits of the largest magnitude in the row. A row with NaN or infinity gives NaN, one of zeros gives zeros.
inline RowScale row_scale(uint32_t top) {
  constexpr uint32_t kInfinity = 0x7f800000;
  if (top >= kInfinity) return {__builtin_nanf(""), 0.0f};
  const float most = __builtin_bit_cast(float, top);
  if (most < 1e-30f) return {};  // its inverse might be infinite
  return {most / 127.0f, 127.0f / most};
}

}  // namespace wam::kernels
