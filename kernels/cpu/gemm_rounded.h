#pragma once

#include <cstdint>

#include "wamcore/kernels/gemm.h"

namespace wam::kernels {

inline constexpr int64_t kLine = 64;                  // bytes of a cache line, and of a row of an AMX tile
inline constexpr int64_t kRoundedBytes = 512 * 1024;  // of rounded rows on the stack; deep products take fewer at once
inline constexpr int64_t kMostRows = 48;              // that share a panel while it is in the cache

// Rounded rows of x, as bytes (or what bytes hold, in 16 bits each) or as bfloat16. Each begins on a cache line and is
// padded to the next with zeros. One line lies behind it, since rows of 4096 bytes would meet in one set of the first
// cache; with bytes it holds the row's scale.
struct RoundedRows {
  const int8_t* data = nullptr;
  int64_t rows = 0, stride = 0;  // bytes from row to row

  const int8_t* row(int64_t r) const { return data + r * stride; }
  float scale(int64_t r) const {
    float value;
    __builtin_memcpy(&value, row(r + 1) - kLine, sizeof value);
    return value;
  }
};
// Of one rounded row of k values.
inline int64_t rounded_stride(int64_t k, int64_t value_bytes) {
  return (k * value_bytes + kLine - 1) / kLine * kLine + kLine;
}
inline int64_t group_steps(const Panels& w, int64_t k) { return (k + w.group - 1) / w.group; }
// Panel `panel` of rounded weights.
inline const int8_t* panel_of(const GemmParams& p, int64_t panel) {
  const int64_t bytes = group_steps(p.w, p.k) * p.w.group * kPanel * (p.w.int8 ? 1 : 2);
  return (p.w.int8 ? p.w.int8 : reinterpret_cast<const int8_t*>(p.w.bf16)) + panel * bytes;
}

// How an instruction set multiplies rounded rows with rounded weights: tile by tile, or all panels in one call.
struct RoundedProduct {
  int64_t group = 1;         // of the weights
  int64_t most = kMostRows;  // rows at once
  int64_t rows = 0;          // of a tile
  bool wide = false;         // bytes of x are kept in 16 bits each
  bool shifted = false;      // bytes of x are unsigned: each value plus 128, which the sums of the weights make good
  // Writes `rows` x kPanel sums over `steps` groups to acc [rows, kPanel], int32 of bytes and float of bfloat16. sum:
  // of the weights of each column.
  void (*tile)(int64_t rows, const int8_t* x, int64_t ldx, const int8_t* w, int64_t steps, const int32_t* sum,
               void* acc) = nullptr;
  void (*panels)(const GemmParams& p, const RoundedRows& x, int64_t begin, int64_t end) = nullptr;
};
RoundedProduct int8_product();  // of int8_isa()
RoundedProduct bf16_product();  // of bf16_isa(); neither function where it has none and floats are multiplied

// Sums of rows [row, row + rows) of x and p, and of one panel, become outputs.
struct ClosedRows {
  int64_t row = 0, rows = 0, panel = 0;
  void* acc = nullptr;  // [rows, kPanel], int32 or float; floats are changed
};
void close_rows(const GemmParams& p, const RoundedRows& x, const ClosedRows& c);

// Column panels [begin, end) of a product with rounded weights, for all rows.
void rounded_panels(const GemmParams& p, int64_t begin, int64_t end);
// Rows [begin, end) of a product.
GemmParams rows_of(const GemmParams& p, int64_t begin, int64_t end);

}  // namespace wam::kernels
