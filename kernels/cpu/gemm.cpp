#include "wamcore/kernels/gemm.h"

#include "activation.h"
#include "variants.h"

namespace wam::kernels {
namespace {

// How many outputs a tile has, so that its sums stay in registers: AVX-512 has 32 of them, 24 for sums and two for
// weights; the others have 16, of which 12 hold sums.
template <Isa I>
struct Tile {
  static constexpr int rows = I == Isa::avx512 ? 12 : 6;
  static constexpr int vecs = 2;
  static constexpr int64_t cols = vecs * Simd<I>::lanes;
};

// Sums Rows x Tile::cols outputs into acc [Rows, kPanel]; kept apart so that each row count is fully unrolled.
template <Isa I, int Rows>
[[gnu::always_inline]] inline void tile(const float* x, int64_t ldx, const float* w, int64_t k, float* acc) {
  using Vec = typename Simd<I>::Vec;
  constexpr int kGroups = (Rows + 2) / 3, kVecs = Tile<I>::vecs;
  constexpr int64_t kLanes = Simd<I>::lanes;
  const float* at[kGroups];  // a pointer for every third row: more would not fit the address registers
  for (int g = 0; g < kGroups; ++g) at[g] = x + 3 * g * ldx;
  Vec a[Rows][kVecs];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVecs; ++v) a[r][v] = Vec{};
  for (int64_t i = 0; i < k; ++i) {
    Vec weight[kVecs];
    for (int v = 0; v < kVecs; ++v) load(weight[v], w + i * kPanel + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const float value = at[r / 3][r % 3 * ldx + i];
      for (int v = 0; v < kVecs; ++v) a[r][v] += value * weight[v];
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVecs; ++v) store(acc + r * kPanel + v * kLanes, a[r][v]);
}

template <Isa I, int Rows>
[[gnu::always_inline]] inline void tile_rows(int64_t rows, const float* x, int64_t ldx, const float* w, int64_t k,
                                             float* acc) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return tile_rows<I, Rows - 1>(rows, x, ldx, w, k, acc);
  }
  for (int64_t col = 0; col < kPanel; col += Tile<I>::cols) tile<I, Rows>(x, ldx, w + col, k, acc + col);
}

[[gnu::always_inline]] inline void finish(const GemmParams& p, int64_t row, int64_t rows, int64_t col, int64_t cols,
                                         float* acc) {
  for (int64_t r = 0; r < rows; ++r) {
    float* a = acc + r * kPanel;
    if (p.bias)
      for (int64_t j = 0; j < cols; ++j) a[j] += p.bias[col + j];
    activate(p.activation, a, cols);
    if (p.gate) {
      const float* g = p.gate + (p.gate_row ? p.gate_row[row + r] : 0) * p.ldg + col;
      for (int64_t j = 0; j < cols; ++j) a[j] *= g[j];
    }
    float* y = p.y + (row + r) * p.ldy + col;
    if (p.residual) {
      const float* res = p.residual + (row + r) * p.ldr + col;
      for (int64_t j = 0; j < cols; ++j) y[j] = res[j] + a[j];
    } else {
      for (int64_t j = 0; j < cols; ++j) y[j] = a[j];
    }
  }
}

// Computes the column panels [begin, end) for all rows.
template <Isa I>
[[gnu::always_inline]] inline void panels_loop(const GemmParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kMost = Tile<I>::rows;
  const int64_t tiles = (p.m + kMost - 1) / kMost;
  alignas(64) float acc[kMost * kPanel];
  for (int64_t panel = begin; panel < end; ++panel) {
    const float* w = p.w + panel * kPanel * p.k;
    const int64_t col = panel * kPanel, cols = std::min(kPanel, p.n - col);
    for (int64_t t = 0; t < tiles; ++t) {  // rows in equal shares: 13 as 7 and 6, not as 12 and 1
      const int64_t row = p.m * t / tiles, rows = p.m * (t + 1) / tiles - row;
      tile_rows<I, kMost>(rows, p.x + row * p.ldx, p.ldx, w, p.k, acc);
      finish(p, row, rows, col, cols, acc);
    }
  }
}
WAMCORE_VARIANTS(panels, (const GemmParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

void pack_weight(const float* w, int64_t n, int64_t k, float* packed) {
  for (int64_t col = 0; col < n; col += kPanel)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < kPanel; ++j) *packed++ = col + j < n ? w[(col + j) * k + i] : 0.0f;
}

void gemm(const GemmParams& p, const Team& team) {
  const int64_t count = (p.n + kPanel - 1) / kPanel;
  if (count >= team.size) {
    const auto [begin, end] = team.share(count);
    panels(p, begin, end);
    return;
  }
  // Few columns (a head of a handful of outputs): share the rows instead.
  const auto [begin, end] = team.share(p.m);
  if (begin == end) return;
  GemmParams part = p;
  part.x += begin * p.ldx;
  part.y += begin * p.ldy;
  if (p.residual) part.residual += begin * p.ldr;
  if (p.gate_row) part.gate_row += begin;
  part.m = end - begin;
  panels(part, 0, count);
}

}  // namespace wam::kernels
