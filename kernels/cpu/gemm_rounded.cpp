#include "gemm_rounded.h"

#include <algorithm>

#include "gemm_bf16.h"
#include "gemm_epilogue.h"
#include "gemm_int8.h"
#include "variants.h"

namespace wam::kernels {
namespace {

const RoundedProduct& product_of(const Panels& w) {
  static const RoundedProduct bytes = int8_product(), halves = bf16_product();
  return w.int8 ? bytes : halves;
}

struct Rounding {
  const float* x = nullptr;  // [rows, k], row stride ldx
  int64_t rows = 0, k = 0, ldx = 0;
  int8_t* to = nullptr;
  int64_t stride = 0;  // bytes
  int shift = 0;
  bool wide = false;
};

template <typename Value>
[[gnu::always_inline]] inline void round_rows(const Rounding& p) {
  // Bytes may alias everything: what the loops need is read before they write.
  const int64_t k = p.k, values = (p.stride - kLine) / static_cast<int64_t>(sizeof(Value));
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* x = p.x + r * p.ldx;
    auto* __restrict y = reinterpret_cast<Value*>(p.to + r * p.stride);
    uint32_t top = 0;
    for (int64_t i = 0; i < k; ++i) top = std::max(top, __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffff);
    const RowScale s = row_scale(top);
    __builtin_memcpy(y + values, &s.scale, sizeof s.scale);
    const int shift = p.shift;
    if (s.inverse == 0.0f) {
      std::fill_n(y, values, static_cast<Value>(shift));
      continue;
    }
    const float inverse = s.inverse;
    for (int64_t i = 0; i < k; ++i)
      y[i] = static_cast<Value>(static_cast<int32_t>(__builtin_rintf(x[i] * inverse)) + shift);
    std::fill(y + k, y + values, Value{0});  // meets weights that are zero
  }
}

template <Isa>
[[gnu::always_inline]] inline void round_bytes_loop(const Rounding& p) {
  p.wide ? round_rows<int16_t>(p) : round_rows<int8_t>(p);
}
WAMCORE_VARIANTS(round_bytes, (const Rounding& p), (p))

template <Isa>
[[gnu::always_inline]] inline void round_halves_loop(const Rounding& p) {
  const int64_t k = p.k, values = (p.stride - kLine) / 2;
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* x = p.x + r * p.ldx;
    auto* __restrict y = reinterpret_cast<uint16_t*>(p.to + r * p.stride);
    for (int64_t i = 0; i < k; ++i) y[i] = static_cast<uint16_t>(nearest_bf16(x[i]) >> 16);
    std::fill(y + k, y + values, uint16_t{0});
  }
}
WAMCORE_VARIANTS(round_halves, (const Rounding& p), (p))

template <Isa>
[[gnu::always_inline]] inline void close_loop(const GemmParams& p, const RoundedRows& x, const ClosedRows& c) {
  const int64_t col = c.panel * kPanel, cols = std::min(kPanel, p.n - col);
  if (!p.w.int8) return finish(p, c.row, c.rows, col, cols, static_cast<float*>(c.acc));
  const auto* sums = static_cast<const int32_t*>(c.acc);
  alignas(64) float acc[kMostRows * kPanel];
  for (int64_t r = 0; r < c.rows; ++r) {
    const float scale = x.scale(c.row + r);
    for (int64_t j = 0; j < kPanel; ++j)
      acc[r * kPanel + j] = static_cast<float>(sums[r * kPanel + j]) * (scale * p.w.scale[col + j]);
  }
  finish(p, c.row, c.rows, col, cols, acc);
}
WAMCORE_VARIANTS(close, (const GemmParams& p, const RoundedRows& x, const ClosedRows& c), (p, x, c))

// All panels of at most `most` rows, tile by tile in equal shares.
void tiles(const RoundedProduct& by, const GemmParams& p, const RoundedRows& x, int64_t begin, int64_t end) {
  alignas(64) unsigned char acc[kMostRows * kPanel * sizeof(int32_t)];
  const int64_t steps = group_steps(p.w, p.k), count = (p.m + by.rows - 1) / by.rows;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int8_t* w = panel_of(p, panel);
    for (int64_t t = 0; t < count; ++t) {
      const int64_t first = p.m * t / count;
      by.tile(p.m * (t + 1) / count - first, x.row(first), x.stride, w, steps,
              p.w.int8 ? p.w.sum + panel * kPanel : nullptr,
              acc + first * kPanel * static_cast<int64_t>(sizeof(int32_t)));
    }
    close_rows(p, x, {.row = 0, .rows = p.m, .panel = panel, .acc = acc});
  }
}

}  // namespace

void close_rows(const GemmParams& p, const RoundedRows& x, const ClosedRows& c) { close(p, x, c); }

void rounded_panels(const GemmParams& p, int64_t begin, int64_t end) {
  const RoundedProduct& by = product_of(p.w);
  alignas(64) unsigned char own[kRoundedBytes];
  Rounding rounding{.k = p.k,
                    .ldx = p.ldx,
                    .to = reinterpret_cast<int8_t*>(own),
                    .stride = rounded_stride(p.k, p.w.int8 && !by.wide ? 1 : 2),
                    .shift = by.shifted ? 128 : 0,
                    .wide = by.wide};
  const int64_t most = std::min(by.most, kRoundedBytes / rounding.stride);
  for (int64_t row = 0; row < p.m; row += most) {
    const GemmParams part = rows_of(p, row, std::min(p.m, row + most));
    rounding.x = part.x, rounding.rows = part.m;
    p.w.int8 ? round_bytes(rounding) : round_halves(rounding);
    const RoundedRows x{rounding.to, part.m, rounding.stride};
    by.panels ? by.panels(part, x, begin, end) : tiles(by, part, x, begin, end);
  }
}

GemmParams rows_of(const GemmParams& p, int64_t begin, int64_t end) {
  GemmParams part = p;
  part.x += begin * p.ldx;
  part.y += begin * p.ldy;
  if (p.residual) part.residual += begin * p.ldr;
  if (p.gate_row) part.gate_row += begin;
  part.m = end - begin;
  return part;
}

}  // namespace wam::kernels
