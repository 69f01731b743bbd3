#pragma once

// Operands in e4m3 of the cases of gemm_cases.h, by the kernel that quantises.
#include "check.h"
#include "cuda/quantize_rows.cuh"
#include "gemm_cases.h"
#include "launcher.h"

namespace gemm_cases {

/// Rows with NaN between them, in an allocation of exact size.
struct Quantised {
  Quantised(const bf16* x, int rows, int cols, int64_t ldx)
      : ld((cols + 15) / 16 * 16 + 16), values(size_t(rows * ld), e4m3{0x7f}), scale(size_t(rows)) {
    CHECK(launch_quantize_rows(
        {.x = x, .y = values.data(), .scale = scale.data(), .rows = rows, .cols = cols, .ldx = ldx, .ldy = ld},
        sim::Launcher{}));
  }
  double at(int row, int col) const { return double(to_float(values[size_t(row * ld + col)])) * scale[size_t(row)]; }
  int64_t ld;
  std::vector<e4m3> values;
  std::vector<float> scale;
};

inline Fp8Operands operands(const Quantised& x, const Quantised& w) {
  return {.x = x.values.data(),
          .w = w.values.data(),
          .x_scale = x.scale.data(),
          .w_scale = w.scale.data(),
          .ldx = x.ld,
          .ldw = w.ld};
}

/// Distance of the result from the product of the quantised numbers.
inline double error(const Data& data, const Quantised& x, const Quantised& w) {
  return data.error(data.reference([&](int i, int l) { return x.at(i, l); }, [&](int j, int l) { return w.at(j, l); }));
}

}  // namespace gemm_cases
