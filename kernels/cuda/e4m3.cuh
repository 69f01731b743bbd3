#pragma once

// Conversion to e4m3 as kernels do it. The instruction exists from compute capability 8.9 on.
#include "device.cuh"
#include "wamcore/kernels/cuda/fp8.h"

namespace wam::kernels::cuda {

/// What a row whose largest size is `top` is divided by, and the inverse of it. Both stay normal numbers: rows under
/// 448 times the least of these, 2^-126, do not use the whole range, but have an inverse.
__host__ __device__ __forceinline__ float scale_of_top(float top) {
  return top > 0.0f ? fmaxf(top / kLargestE4m3, 0x1p-126f) : 1.0f;
}
__host__ __device__ __forceinline__ float inverse_of_top(float top) {
  return top > 0.0f ? fminf(kLargestE4m3 / top, 0x1p126f) : 1.0f;
}

/// Four neighbours, the one at the lowest address in the lowest byte. `native`: by the instruction, in files that are
/// compiled for 8.9 or later alone.
template <bool native>
__device__ __forceinline__ uint32_t pack_e4m3(float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  static_assert(native);
  uint16_t low, high;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
  return uint32_t{low} | uint32_t{high} << 16;
#else
  return uint32_t{to_e4m3(a).bits} | uint32_t{to_e4m3(b).bits} << 8 | uint32_t{to_e4m3(c).bits} << 16 |
         uint32_t{to_e4m3(d).bits} << 24;
#endif
}

}  // namespace wam::kernels::cuda
