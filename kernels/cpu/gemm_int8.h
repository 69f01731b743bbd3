#pragma once

#include <cmath>
#include <cstdint>

#include "wamcore/kernels/gemm.h"

namespace wam::kernels {

// Column panels [begin, end) of a product with int8 weights, for all rows.
void int8_panels(const GemmParams& p, int64_t begin, int64_t end);

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

// The tile of an instruction set: writes up to `rows` x kPanel sums over 4 * steps bytes to acc [rows, kPanel]. sum: of
// the weights of each column.
struct Int8Tile {
  int64_t rows = 0;
  bool shifted = false;  // x is unsigned: each value plus 128, which `sum` of the weights makes good
  void (*run)(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
              int32_t* acc) = nullptr;
};
Int8Tile int8_tile();  // for int8_isa()

}  // namespace wam::kernels
