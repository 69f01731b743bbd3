#pragma once

// What kernels share that keep one row of a matrix in the registers of one block.
#include "device.cuh"
#include "wamcore/kernels/cuda/math.h"

namespace wam::kernels::cuda {

inline constexpr int kLanes = 32;

/// The sum over all threads, in every thread. `partial` [Threads / 32] is not to be used again before a barrier.
template <int Threads>
__device__ __forceinline__ float block_sum(float v, float* partial) {
  v = sum_over_lanes(v);
  if (threadIdx.x % kLanes == 0) partial[threadIdx.x / kLanes] = v;
  if (!WAM_PLANTED("no_barrier")) __syncthreads();
  float sum = 0.0f;
  WAM_UNROLL
  for (int i = 0; i < Threads / kLanes; ++i) sum += partial[i];  // one order for all threads
  return sum;
}

/// The maximum over all threads, in every thread. `partial` [Threads / 32] is not to be used again before a barrier.
template <int Threads>
__device__ __forceinline__ float block_max(float v, float* partial) {
  v = max_over_lanes(v);
  if (threadIdx.x % kLanes == 0) partial[threadIdx.x / kLanes] = v;
  if (!WAM_PLANTED("missing_barrier")) __syncthreads();
  WAM_UNROLL
  for (int i = 0; i < Threads / kLanes; ++i) v = fmaxf(v, partial[i]);
  return v;
}

__device__ __forceinline__ float as_float(bf16 v) { return to_float(v); }
__device__ __forceinline__ float as_float(float v) { return v; }

/// N neighbours as floats.
template <int N, typename T>
__device__ __forceinline__ void load(float (&to)[N], const T* from) {
  const auto v = *reinterpret_cast<const Vec<T, N>*>(from);
  WAM_UNROLL
  for (int j = 0; j < N; ++j) to[j] = as_float(v.at[j]);
}
template <int N, typename T>
__device__ __forceinline__ void store(T* to_place, const float (&from)[N]) {
  Vec<T, N> v;
  WAM_UNROLL
  for (int j = 0; j < N; ++j) v.at[j] = to<T>(from[j]);
  *reinterpret_cast<Vec<T, N>*>(to_place) = v;
}

/// Whether rows that start at p and lie `stride` elements apart can be read N elements at a time.
template <int N, typename T>
inline bool aligned(const T* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % (sizeof(T) * N) == 0 && stride % N == 0;
}

}  // namespace wam::kernels::cuda
