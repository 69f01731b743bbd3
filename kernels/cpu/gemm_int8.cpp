#include "gemm_int8.h"

#include <algorithm>

#include "gemm_epilogue.h"
#include "variants.h"

namespace wam::kernels {
namespace {

constexpr int64_t kRows = 48;           // rows that share a panel while it is in the cache
constexpr int64_t kBytes = 256 * 1024;  // of rounded rows on the stack; deep products take fewer rows at once

int64_t steps(int64_t k) { return (k + 3) / 4; }
int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

// Rounded rows, and what a step of each is worth.
struct Rounded {
  alignas(64) int8_t x[kBytes];  // [rows, stride]
  float scale[kRows];
  int64_t stride = 0;
};

// Rows [row, row + rows) of x as bytes.
template <Isa>
[[gnu::always_inline]] inline void round_rows_loop(const GemmParams& p, int64_t row, int64_t rows, int shift,
                                                   Rounded& out) {
  // Bytes may alias everything: what the loops need is read before they write.
  const int64_t k = p.k, stride = out.stride;
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = p.x + (row + r) * p.ldx;
    int8_t* __restrict y = out.x + r * stride;
    uint32_t top = 0;
    for (int64_t i = 0; i < k; ++i) top = std::max(top, __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffff);
    const RowScale s = row_scale(top);
    out.scale[r] = s.scale;
    if (s.inverse == 0.0f) {
      std::fill_n(y, stride, static_cast<int8_t>(shift));
      continue;
    }
    const float inverse = s.inverse;
    for (int64_t i = 0; i < k; ++i)
      y[i] = static_cast<int8_t>(static_cast<int32_t>(__builtin_rintf(x[i] * inverse)) + shift);
    std::fill(y + k, y + stride, int8_t{0});  // meets weights that are zero
  }
}
WAMCORE_VARIANTS(round_rows, (const GemmParams& p, int64_t row, int64_t rows, int shift, Rounded& out),
                 (p, row, rows, shift, out))

// Sums of one panel and some rows, in steps, to floats and through the epilogue.
template <Isa>
[[gnu::always_inline]] inline void close_loop(const GemmParams& p, int64_t row, int64_t rows, int64_t col,
                                              const float* scale, const int32_t* sums) {
  alignas(64) float acc[kRows * kPanel];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < kPanel; ++j)
      acc[r * kPanel + j] = static_cast<float>(sums[r * kPanel + j]) * (scale[r] * p.w.scale[col + j]);
  finish(p, row, rows, col, std::min(kPanel, p.n - col), acc);
}
WAMCORE_VARIANTS(close,
                 (const GemmParams& p, int64_t row, int64_t rows, int64_t col, const float* scale, const int32_t* sums),
                 (p, row, rows, col, scale, sums))

}  // namespace

void int8_panels(const GemmParams& p, int64_t begin, int64_t end) {
  static const Int8Tile tile = int8_tile();
  alignas(64) int32_t sums[kRows * kPanel];
  Rounded rounded;
  rounded.stride = 4 * steps(p.k);
  const int64_t most = std::min(kRows, kBytes / rounded.stride);
  for (int64_t row = 0; row < p.m; row += most) {
    const int64_t rows = std::min(most, p.m - row), tiles = (rows + tile.rows - 1) / tile.rows;
    round_rows(p, row, rows, tile.shifted ? 128 : 0, rounded);
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t col = panel * kPanel;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t first = rows * t / tiles;
        tile.run(rows * (t + 1) / tiles - first, rounded.x + first * rounded.stride, rounded.stride,
                 p.w.int8 + panel * steps(p.k) * kPanel * 4, steps(p.k), p.w.sum + col, sums + first * kPanel);
      }
      close(p, row, rows, col, rounded.scale, sums);
    }
  }
}

int64_t packed_int8_size(int64_t n, int64_t k) {
  return padded(n) * (4 * steps(k) + static_cast<int64_t>(sizeof(float) + sizeof(int32_t)));
}

Panels int8_panels_of(const void* packed, int64_t n, int64_t k) {
  Panels out;
  out.int8 = static_cast<const int8_t*>(packed);
  out.scale = reinterpret_cast<const float*>(out.int8 + padded(n) * 4 * steps(k));
  out.sum = reinterpret_cast<const int32_t*>(out.scale + padded(n));
  return out;
}

bool pack_weight_int8(const float* w, int64_t n, int64_t k, void* packed) {
  const int64_t depth = 4 * steps(k);
  auto* bytes = static_cast<int8_t*>(packed);
  auto* scale = reinterpret_cast<float*>(bytes + padded(n) * depth);
  auto* sum = reinterpret_cast<int32_t*>(scale + padded(n));
  std::fill_n(bytes, packed_int8_size(n, k), int8_t{0});
  for (int64_t j = 0; j < n; ++j) {
    uint32_t top = 0;
    for (int64_t i = 0; i < k; ++i) top = std::max(top, __builtin_bit_cast(uint32_t, w[j * k + i]) & 0x7fffffff);
    const RowScale s = row_scale(top);
    if (s.scale != s.scale) return false;
    scale[j] = s.scale;
    int8_t* panel = bytes + j / kPanel * kPanel * depth + j % kPanel * 4;
    for (int64_t i = 0; i < k; ++i) {
      const auto step = static_cast<int32_t>(__builtin_rintf(w[j * k + i] * s.inverse));
      panel[i / 4 * kPanel * 4 + i % 4] = static_cast<int8_t>(step);
      sum[j] += step;
    }
  }
  return true;
}

}  // namespace wam::kernels
