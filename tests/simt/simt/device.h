#pragma once

// The words of CUDA C++ that kernels are written in, for a plain C++ compiler. A kernel's source includes this instead
// of CUDA's own headers when WAM_SIMT is defined (kernels/cuda/device.cuh).
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "simt/hopper.h"
#include "simt/machine.h"
#include "simt/tensor_core.h"

#define WAM_SIMT 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

#define WAM_SIMT_MIN_MAX(type)                              \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
WAM_SIMT_MIN_MAX(int)
WAM_SIMT_MIN_MAX(unsigned)
WAM_SIMT_MIN_MAX(long)
WAM_SIMT_MIN_MAX(long long)
#undef WAM_SIMT_MIN_MAX

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __uint_as_float(unsigned x) {
  float f;
  std::memcpy(&f, &x, 4);
  return f;
}
inline unsigned __float_as_uint(float f) {
  unsigned x;
  std::memcpy(&x, &f, 4);
  return x;
}
inline int __float_as_int(float f) { return int(__float_as_uint(f)); }
inline float __int_as_float(int x) { return __uint_as_float(unsigned(x)); }
template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T __ldcg(const T* p) {
  return *p;
}

// Blocks run one after another and threads change only at a rendezvous, so plain code is atomic here.
template <typename T>
T atomicAdd(T* p, std::type_identity_t<T> value) {
  const T old = *p;
  *p = old + value;
  return old;
}
template <typename T>
T atomicMax(T* p, std::type_identity_t<T> value) {
  const T old = *p;
  *p = old < value ? value : old;
  return old;
}
template <typename T>
T atomicMin(T* p, std::type_identity_t<T> value) {
  const T old = *p;
  *p = value < old ? value : old;
  return old;
}
template <typename T>
T atomicExch(T* p, std::type_identity_t<T> value) {
  return std::exchange(*p, value);
}
template <typename T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *p;
  if (old == expected) *p = value;
  return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

inline void __syncthreads(const simt::Site& site = simt::Site::current()) { simt::Machine::now().sync(0, 0, &site); }

namespace simt {

inline void warp_sync(const char* operation, uint32_t mask) {
  Machine::now().collective(operation, mask, {}, {}, [](Lanes&) {});
}

// Lane i receives the value of lane from(i). A lane that is not in the mask has no value to give.
template <typename T, typename From>
T shuffle(const char* operation, uint32_t mask, T value, From from) {
  static_assert(sizeof(T) <= 16);
  T result;
  const unsigned me = Machine::now().lane();
  const unsigned source = from(me) & 31;
  if (!(mask >> source & 1)) throw Fault(std::string("simt: ") + operation + " reads a lane outside of its mask");
  uint32_t sources[4] = {source};
  std::byte in[sizeof(T) + 4];
  std::memcpy(in, sources, 4);
  std::memcpy(in + 4, &value, sizeof(T));
  Machine::now().collective(operation, mask, in, std::as_writable_bytes(std::span(&result, 1)), [mask](Lanes& l) {
    for (unsigned i = 0; i < 32; ++i) {
      if (!(mask >> i & 1)) continue;
      uint32_t at;
      std::memcpy(&at, l.in[i], 4);
      std::memcpy(l.out[i], l.in[at] + 4, sizeof(T));
    }
  });
  return result;
}

}  // namespace simt

inline void __syncwarp(unsigned mask = 0xffffffffu) { simt::warp_sync("__syncwarp", mask); }
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return simt::shuffle("__shfl_sync", mask, value, [=](int me) { return (me & ~(width - 1)) + (lane & (width - 1)); });
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  return simt::shuffle("__shfl_xor_sync", mask, value, [=](int me) {
    const int from = me ^ lanes;
    return from / width <= me / width ? from : me;
  });
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  return simt::shuffle("__shfl_down_sync", mask, value, [=](int me) {
    const int from = me + int(lanes);
    return from / width == me / width ? from : me;
  });
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  return simt::shuffle("__shfl_up_sync", mask, value, [=](int me) {
    const int from = me - int(lanes);
    return from >= me / width * width ? from : me;
  });
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned result;
  const int value = predicate != 0;
  simt::Machine::now().collective("__ballot_sync", mask, std::as_bytes(std::span(&value, 1)),
                                  std::as_writable_bytes(std::span(&result, 1)), [mask](simt::Lanes& l) {
                                    unsigned votes = 0;
                                    for (unsigned i = 0; i < 32; ++i) {
                                      int vote = 0;
                                      if (mask >> i & 1) std::memcpy(&vote, l.in[i], 4);
                                      votes |= unsigned(vote) << i;
                                    }
                                    for (auto& out : l.out) std::memcpy(out, &votes, 4);
                                  });
  return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Storage in shared memory, see kernels/cuda/device.cuh.
#define WAM_SHARED(type, name)                            \
  auto& name = *static_cast<std::type_identity_t<type>*>( \
      simt::Machine::now().shared_variable(__PRETTY_FUNCTION__, __LINE__, sizeof(type)))
#define WAM_DYNAMIC_SHARED(name) \
  auto* const name = reinterpret_cast<unsigned char*>(simt::Machine::now().dynamic_shared())
#define WAM_PLANTED(name) simt::planted(name)
