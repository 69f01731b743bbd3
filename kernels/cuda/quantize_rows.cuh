#pragma once

// Rows of bf16 to rows of e4m3 with a scale each.
#include "e4m3.cuh"
#include "rows.cuh"

namespace wam::kernels::cuda {

/// A block has one row, which it reads twice: the second time out of the cache. 8 elements a thread and step.
template <int threads, bool native>
__global__ __launch_bounds__(threads) void quantize_rows_kernel(const __grid_constant__ QuantizeRowsParams p) {
  WAM_SHARED(float[threads / 32], tops);
  const bf16* const x = p.x + blockIdx.x * p.ldx;
  e4m3* const y = p.y + blockIdx.x * p.ldy;
  float top = 0.0f;
  const int cols = p.cols + (WAM_PLANTED("columns_out_of_bounds") ? 8 : 0);
  for (int i = int(threadIdx.x) * 8; i < cols; i += threads * 8) {
    const uint4 v = *reinterpret_cast<const uint4*>(x + i);
    for (const bf16x2 pair : {v.x, v.y, v.z, v.w})
      top = fmaxf(top, fmaxf(fabsf(low_float(pair)), fabsf(high_float(pair))));
  }
  top = block_max<threads>(top, tops);
  const float inverse = inverse_of_top(top);
  if (threadIdx.x == 0) p.scale[blockIdx.x] = scale_of_top(top);
  for (int i = int(threadIdx.x) * 8; i < cols; i += threads * 8) {
    const uint4 v = *reinterpret_cast<const uint4*>(x + i);
    const auto four = [inverse](bf16x2 a, bf16x2 b) {
      return pack_e4m3<native>(low_float(a) * inverse, high_float(a) * inverse, low_float(b) * inverse,
                               high_float(b) * inverse);
    };
    *reinterpret_cast<uint2*>(y + i) = make_uint2(four(v.x, v.y), four(v.z, v.w));
  }
}

template <bool native = false, typename Launch>
bool launch_quantize_rows(const QuantizeRowsParams& p, Launch&& launch) {
  const auto aligned = [](const void* pointer) { return pointer && reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  if (p.rows < 1 || p.cols < 8 || p.cols % 8 || p.ldx % 8 || p.ldy % 16 || p.ldx < p.cols || p.ldy < p.cols)
    return false;
  if (!aligned(p.x) || !aligned(p.y) || !p.scale) return false;
  launch(LaunchShape{.grid_x = unsigned(p.rows), .threads = 256}, quantize_rows_kernel<256, native>, p);
  return true;
}

}  // namespace wam::kernels::cuda
