#pragma once

// What GEMM kernels do with finished sums. mma.sync and wgmma leave them the same way: a lane has columns 2 c and 2 c +
// 1 of rows r and r + 8 in each block of 8 columns, with c = lane % 4 and r = lane / 4.
#include "device.cuh"
#include "wamcore/kernels/cuda/gemm.h"

namespace wam::kernels::cuda {

/// x * sigmoid(2 u), which is 0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3); 0 for very negative x, never
/// NaN.
__host__ __device__ __forceinline__ float gelu_tanh(float x) {
  const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return x / (1.0f + exp2f(-2.885390081777927f * u));
}

/// Two neighbours of row `row`, from column `col` on.
template <GemmEpilogue epilogue>
__device__ __forceinline__ float2 finish_pair(const GemmParams& p, int64_t row, int64_t col, float low, float high) {
  if (p.bias) {
    const bf16x2 bias = *reinterpret_cast<const bf16x2*>(p.bias + col);
    low += low_float(bias);
    high += high_float(bias);
  }
  if constexpr (epilogue == GemmEpilogue::bias_gelu) {
    low = gelu_tanh(low);
    high = gelu_tanh(high);
  }
  if constexpr (epilogue == GemmEpilogue::gate_residual) {
    float2 gate = *reinterpret_cast<const float2*>(p.gate + (p.gate_row ? p.gate_row[row] : 0) * p.ldg + col);
    if (p.gate_base) {
      const float2 base = *reinterpret_cast<const float2*>(p.gate_base + col);
      gate.x += base.x;
      gate.y += base.y;
    }
    const bf16x2 residual = *reinterpret_cast<const bf16x2*>(p.residual + row * p.ldr + col);
    low = low_float(residual) + gate.x * low;
    high = high_float(residual) + gate.y * high;
  }
  return make_float2(low, high);
}

/// Sums of quantised numbers to those of the numbers: a scale a row of x [m] and a row of w [n]. Rows and columns as
/// store_stripe has them.
__device__ __forceinline__ void scale_stripe(float (*sums)[4], const GemmParams& p, const float* x_scale,
                                             const float* w_scale, int64_t row, int64_t col) {
  const float upper = row < p.m ? x_scale[row] : 0.0f, lower = row + 8 < p.m ? x_scale[row + 8] : 0.0f;
  WAM_UNROLL
  for (int block = 0; block < kSquareStripe / 8; ++block) {
    WAM_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int64_t c = col + block * 8 + threadIdx.x % 4 * 2 + i;
      const float scale = c < p.n ? w_scale[c] : 0.0f;
      sums[block][i] *= upper * scale;
      sums[block][i + 2] *= lower * scale;
    }
  }
}

/// kSquareStripe columns from `col` on, of the rows `row` and `row + 8` (the lane's). All lanes of a warp call it
/// together.
template <GemmEpilogue epilogue>
__device__ __forceinline__ void store_stripe(const GemmParams& p, int64_t row, int64_t col, const float (*sums)[4]) {
  const int lane = int(threadIdx.x) % 32, width = epilogue == GemmEpilogue::qkv ? p.n / p.parts : 0;
  const int part = epilogue == GemmEpilogue::qkv ? int(col / width) : 0;
  WAM_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int64_t r = row + 8 * i;
    bf16* y = p.y + r * p.ldy;
    if constexpr (epilogue == GemmEpilogue::qkv)
      y = p.part[part < p.parts ? part : 0] + r * p.ld_part[part < p.parts ? part : 0] - part * width;
    float square = 0.0f;
    WAM_UNROLL
    for (int block = 0; block < kSquareStripe / 8; ++block) {
      const int64_t c = col + 8 * block + lane % 4 * 2;
      if ((r >= p.m && !WAM_PLANTED("store_out_of_bounds")) || c >= p.n) continue;
      const float2 v = finish_pair<epilogue>(p, r, c, sums[block][2 * i], sums[block][2 * i + 1]);
      const bf16x2 rounded = pack_bf16(v.x, v.y);
      *reinterpret_cast<bf16x2*>(y + c) = rounded;
      if constexpr (epilogue == GemmEpilogue::qkv)
        square += low_float(rounded) * low_float(rounded) + high_float(rounded) * high_float(rounded);
    }
    if constexpr (epilogue == GemmEpilogue::qkv) {
      square = sum_over_lanes<4>(square);
      if (p.square && part < p.normed && lane % 4 == 0 && r < p.m)
        p.square[(r * p.normed + part) * (width / kSquareStripe) + (col - part * width) / kSquareStripe] = square;
    }
  }
}

}  // namespace wam::kernels::cuda
