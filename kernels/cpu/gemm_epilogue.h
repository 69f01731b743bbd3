#pragma once

#include "activation.h"
#include "wamcore/kernels/gemm.h"

namespace wam::kernels {

// Bias, activation, gate and residual of sums acc [rows, kPanel], into columns [col, col + cols) of p's rows from
// `row`.
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

}  // namespace wam::kernels
