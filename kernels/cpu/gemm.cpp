#include "wamcore/kernels/gemm.h"

#include "activation.h"
#include "clones.h"

namespace wam::kernels {
namespace {

// Rows of x that one pass over a weight panel serves: 6 rows x 32 columns keep 12 AVX-512 accumulators busy.
constexpr int64_t kRows = 6;

// Accumulates Rows x kPanel outputs; kept apart so that each row count is fully unrolled.
template <int Rows>
[[gnu::always_inline]] inline void tile(const float* x, int64_t ldx, const float* w, int64_t k, float* acc) {
  typedef float Vec __attribute__((vector_size(64)));
  Vec a[Rows][2];
  for (int r = 0; r < Rows; ++r) a[r][0] = a[r][1] = Vec{};
  for (int64_t i = 0; i < k; ++i) {
    Vec w0, w1;
    __builtin_memcpy(&w0, w + i * kPanel, 64);
    __builtin_memcpy(&w1, w + i * kPanel + 16, 64);
    for (int r = 0; r < Rows; ++r) {
      const float xi = x[r * ldx + i];
      a[r][0] += xi * w0;
      a[r][1] += xi * w1;
    }
  }
  for (int r = 0; r < Rows; ++r) {
    __builtin_memcpy(acc + r * kPanel, &a[r][0], 64);
    __builtin_memcpy(acc + r * kPanel + 16, &a[r][1], 64);
  }
}

[[gnu::always_inline]] inline void tile_rows(int64_t rows, const float* x, int64_t ldx, const float* w, int64_t k,
                                             float* acc) {
  switch (rows) {
    case 1:
      return tile<1>(x, ldx, w, k, acc);
    case 2:
      return tile<2>(x, ldx, w, k, acc);
    case 3:
      return tile<3>(x, ldx, w, k, acc);
    case 4:
      return tile<4>(x, ldx, w, k, acc);
    case 5:
      return tile<5>(x, ldx, w, k, acc);
    default:
      return tile<6>(x, ldx, w, k, acc);
  }
}

[[gnu::always_inline]] inline void store(const GemmParams& p, int64_t row, int64_t rows, int64_t col, int64_t cols,
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
WAMCORE_CLONES void panels(const GemmParams& p, int64_t begin, int64_t end) {
  alignas(64) float acc[kRows * kPanel];
  for (int64_t panel = begin; panel < end; ++panel) {
    const float* w = p.w + panel * kPanel * p.k;
    const int64_t col = panel * kPanel, cols = std::min(kPanel, p.n - col);
    for (int64_t row = 0; row < p.m; row += kRows) {
      const int64_t rows = std::min(kRows, p.m - row);
      tile_rows(rows, p.x + row * p.ldx, p.ldx, w, p.k, acc);
      store(p, row, rows, col, cols, acc);
    }
  }
}

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
  const auto [begin, end] = team.share(p.m, kRows);
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
