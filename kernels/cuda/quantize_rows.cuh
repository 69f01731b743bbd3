#pragma once

// Rows of bf16 to rows of e4m3 with a scale each.
#include "device.cuh"
#include "wamcore/kernels/cuda/fp8.h"

namespace wam::kernels::cuda {

/// A block has one row, which it reads twice: the second time out of the cache. 8 elements a thread and step.
template <int threads>
__global__ __launch_bounds__(threads) void quantize_rows_kernel(const __grid_constant__ QuantizeRowsParams p) {
  WAM_SHARED(float[threads / 32], tops);
  const bf16* const x = p.x + blockIdx.x * p.ldx;
  e4m3* const y = p.y + blockIdx.x * p.ldy;
  float top = 0.0f;
  for (int i = int(threadIdx.x) * 8; i < p.cols; i += threads * 8) {
    const uint4 v = *reinterpret_cast<const uint4*>(x + i);
    for (const bf16x2 pair : {v.x, v.y, v.z, v.w})
      top = fmaxf(top, fmaxf(fabsf(low_float(pair)), fabsf(high_float(pair))));
  }
  top = max_over_lanes(top);
  if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
  if (!WAM_PLANTED("missing_barrier")) __syncthreads();
  for (const float t : tops) top = fmaxf(top, t);
  const float inverse = top > 0.0f ? kLargestE4m3 / top : 1.0f;
  if (threadIdx.x == 0) p.scale[blockIdx.x] = top > 0.0f ? top / kLargestE4m3 : 1.0f;
  for (int i = int(threadIdx.x) * 8; i < p.cols; i += threads * 8) {
    const uint4 v = *reinterpret_cast<const uint4*>(x + i);
    const bf16x2 pairs[4] = {v.x, v.y, v.z, v.w};
    uint32_t out[2] = {};
    for (int j = 0; j < 8; ++j) {
      const float value = j % 2 ? high_float(pairs[j / 2]) : low_float(pairs[j / 2]);
      out[j / 4] |= uint32_t{to_e4m3(value * inverse).bits} << (j % 4 * 8);
    }
    *reinterpret_cast<uint2*>(y + i) = make_uint2(out[0], out[1]);
  }
}

template <typename Launch>
bool launch_quantize_rows(const QuantizeRowsParams& p, Launch&& launch) {
  const auto aligned = [](const void* pointer) { return pointer && reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  if (p.rows < 1 || p.cols < 8 || p.cols % 8 || p.ldx % 8 || p.ldy % 16 || p.ldx < p.cols || p.ldy < p.cols)
    return false;
  if (!aligned(p.x) || !aligned(p.y) || !p.scale) return false;
  launch(LaunchShape{.grid_x = unsigned(p.rows), .threads = 256}, quantize_rows_kernel<256>, p);
  return true;
}

}  // namespace wam::kernels::cuda
