#pragma once

#include "activation.h"
#include "wamcore/kernels/gemm.h"

namespace wam::kernels {

// One row of them: Cols, known to the compiler where a panel is whole.
[[gnu::always_inline]] inline void finish_row(const GemmParams& p, int64_t row, int64_t col, int64_t cols, float* a) {
  if (p.bias)
    for (int64_t j = 0; j < cols; ++j) a[j] += p.bias[col + j];
  activate(p.activation, a, cols);
  if (p.gate) {
    const float* g = p.gate + (p.gate_row ? p.gate_row[row] : 0) * p.ldg + col;
    for (int64_t j = 0; j < cols; ++j) a[j] *= g[j];
  }
  float* y = p.y + row * p.ldy + col;
  if (p.residual) {
    const float* res = p.residual + row * p.ldr + col;
#pragma GCC ivdep
    for (int64_t j = 0; j < cols; ++j) y[j] = res[j] + a[j];
  } else {
    for (int64_t j = 0; j < cols; ++j) y[j] = a[j];
  }
}

// Bias, activation, gate and residual of sums acc [rows, kPanel], into columns [col, col + cols) of p's rows from
// `row`. Nearly all panels are whole; with as many columns as the compiler knows, their loops have no tails.
[[gnu::always_inline]] inline void finish(const GemmParams& p, int64_t row, int64_t rows, int64_t col, int64_t cols,
                                          float* acc) {
  if (cols == kPanel)
    for (int64_t r = 0; r < rows; ++r) finish_row(p, row + r, col, kPanel, acc + r * kPanel);
  else
    for (int64_t r = 0; r < rows; ++r) finish_row(p, row + r, col, cols, acc + r * kPanel);
}

}  // namespace wam::kernels
