#pragma once

#include "wamcore/kernels/cuda/embed.h"

namespace wam::kernels::cuda {

/// y = residual + gate * act(x w^T + bias), for what the tensor-core kernels do not take: float32 at either end, a few
/// rows, odd sizes. Any shape, any stride.
struct GemmPlainParams {
  const bf16* x = nullptr;        // [m, k], row stride ldx; or x_wide
  const float* x_wide = nullptr;  // the same in float32
  const bf16* w = nullptr;        // [n, k], row stride ldw
  const bf16* bias = nullptr;     // [n]; may be nullptr
  bf16* y = nullptr;              // [m, n], row stride ldy; or y_wide
  float* y_wide = nullptr;        // the same in float32
  int32_t m = 0, n = 0, k = 0;
  int64_t ldx = 0, ldw = 0, ldy = 0;
  Act act = Act::none;
  const bf16* residual = nullptr;     // [m, n], row stride ldr; may be y; nullptr: none
  const float* gate = nullptr;        // [time rows, n], row stride ldg; nullptr: 1
  const float* gate_base = nullptr;   // [n], added to each row of the gate; nullptr: none
  const int32_t* gate_row = nullptr;  // [m], the time row of each row; nullptr: row 0 for all
  int64_t ldr = 0, ldg = 0;
};
LaunchResult gemm_plain(const GemmPlainParams& p, Stream stream);

}  // namespace wam::kernels::cuda
