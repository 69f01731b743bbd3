#pragma once

// What every kernel is written in: CUDA C++, or, for a plain C++ compiler, a machine that understands the same words.
// Whoever compiles a kernel without a CUDA compiler names that machine's header in WAMCORE_SIMT_HEADER (tests/simt
// does).
#if defined(__CUDACC__)
#include <cuda_runtime.h>
#elif defined(WAMCORE_SIMT_HEADER)
#include WAMCORE_SIMT_HEADER
#else
#error "A kernel needs nvcc, or WAMCORE_SIMT_HEADER"
#endif

#include <cstdint>
#include <type_traits>

#include "wamcore/kernels/cuda/bf16.h"

#if defined(__CUDACC__)
/// A variable that the block shares: WAM_SHARED(float[4], sums).
#define WAM_SHARED(type, name) __shared__ std::type_identity_t<type> name
/// The block's dynamic shared memory as `unsigned char*`, aligned to 1024 bytes (what a swizzled bulk copy needs).
#define WAM_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
/// True where a test plants the bug of this name, to see that it is caught. Never in a device build.
#define WAM_PLANTED(name) false
#define WAM_UNROLL _Pragma("unroll")
#else
#define WAM_UNROLL
#endif

namespace wam::kernels::cuda {

/// Two neighbouring values in a register, the one at the lower address in the lower half.
using bf16x2 = uint32_t;

__device__ __forceinline__ float low_float(bf16x2 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(bf16x2 pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ bf16x2 pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__)
  bf16x2 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
#else
  return uint32_t{to_bf16(low).bits} | uint32_t{to_bf16(high).bits} << 16;
#endif
}

/// Both halves of each summed in float32.
__device__ __forceinline__ bf16x2 add_bf16(bf16x2 a, bf16x2 b) {
  return pack_bf16(low_float(a) + low_float(b), high_float(a) + high_float(b));
}

/// 2^x, to about two units in the last place; values under 2^-126 become 0.
__device__ __forceinline__ float exp2_fast(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

/// Both halves of a warp-wide sum or maximum over groups of `lanes` neighbouring lanes; every lane gets the result.
template <int lanes = 32>
__device__ __forceinline__ float sum_over_lanes(float x) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
template <int lanes = 32>
__device__ __forceinline__ float max_over_lanes(float x) {
  for (int step = lanes / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

}  // namespace wam::kernels::cuda
