#pragma once

#include "wamcore/kernels/cuda/bf16.h"
#include "wamcore/kernels/cuda/fp8.h"
#include "wamcore/kernels/cuda/launch.h"

namespace wam::kernels::cuda {

/// y = LN(x) [* weight + bias] [* (1 + scale) + shift]: one pass over x, rounded once at the end.
struct LnModulateParams {
  const bf16* x = nullptr;        // [rows, cols], row stride ldx; or x_wide
  const float* x_wide = nullptr;  // the same in float32, for rows that come from outside
  bf16* y = nullptr;              // [rows, cols], row stride ldy; or y_e4m3
  e4m3* y_e4m3 = nullptr;         // the same divided by a scale a row: what the FP8 product after it reads
  float* y_scale = nullptr;       // [rows], with y_e4m3
  int32_t rows = 0, cols = 0;
  int64_t ldx = 0, ldy = 0;
  float eps = 1e-6f;
  const float* weight = nullptr;      // [cols], may be nullptr (with bias)
  const float* bias = nullptr;        // [cols], may be nullptr
  const float* shift = nullptr;       // [time rows, cols], row stride ldm, may be nullptr (with scale)
  const float* scale = nullptr;       // [time rows, cols], row stride ldm
  const float* shift_base = nullptr;  // [cols], added to each row of shift: the layer's table; nullptr: none
  const float* scale_base = nullptr;  // [cols], added to each row of scale; nullptr: none
  int64_t ldm = 0;
  const int32_t* time_row = nullptr;  // [rows]; nullptr: row 0 for all
};

/// Most columns a row may have: a block keeps its row in registers.
inline constexpr int32_t kLnMostColumns = 8192;

LaunchResult ln_modulate(const LnModulateParams& p, Stream stream);
/// With y_e4m3, where the columns and all strides are multiples of 4. On sm_89 and later.
LaunchResult ln_modulate_e4m3(const LnModulateParams& p, Stream stream);

}  // namespace wam::kernels::cuda
