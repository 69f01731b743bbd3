#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define WAM_HD __host__ __device__
#else
#define WAM_HD
#endif

namespace wam::kernels::cuda {

/// A bfloat16 as its bits, so that headers need no CUDA.
struct bf16 {
  uint16_t bits;
};

WAM_HD inline float to_float(bf16 v) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(uint32_t{v.bits} << 16);
#else
  const uint32_t bits = uint32_t{v.bits} << 16;
  float out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
#endif
}

/// To the nearest, ties to even; NaN stays NaN.
WAM_HD inline bf16 to_bf16(float v) {
#ifdef __CUDA_ARCH__
  bf16 out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(v));
  return out;
#else
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
#endif
}

/// `v` as an element of an array of T.
template <typename T>
WAM_HD inline T to(float v);
template <>
WAM_HD inline float to<float>(float v) {
  return v;
}
template <>
WAM_HD inline bf16 to<bf16>(float v) {
  return to_bf16(v);
}

/// N neighbours that are read and written at once.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vec {
  T at[N];
};

}  // namespace wam::kernels::cuda
