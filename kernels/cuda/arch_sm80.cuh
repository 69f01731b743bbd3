#pragma once

// The instructions that sm_80 and everything after it have for tensor cores: a thin name for each, so that a kernel
// reads the same on the device and on the machine of tests/simt.
#include "device.cuh"

namespace wam::kernels::cuda {

#if defined(__CUDACC__)

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

/// d += a * b with a [16, 16] and b [16, 8] in bf16, d [16, 8] in float32, spread over the warp.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The same with a [16, 32] and b [32, 8] in e4m3. From sm_89 on.
__device__ __forceinline__ void mma_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Four 8x8 matrices of 16-bit elements; lane 8 * i + r names row r of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&d)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&d)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(shared_address(row))
               : "memory");
}

/// Starts to copy 16 bytes past the registers; writes zeros and does not read `global` where it is not valid.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// All groups that this thread committed have landed, but for the `pending` youngest.
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#else

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  simt::mma_m16n8k16_bf16(d, a, b);
}
inline void mma_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  simt::mma_m16n8k32_e4m3(d, a, b);
}
inline void load_matrices(uint32_t (&d)[4], const void* row) { simt::ldmatrix_x4(d, row, false); }
inline void load_matrices_transposed(uint32_t (&d)[4], const void* row) { simt::ldmatrix_x4(d, row, true); }
inline void copy_async(void* shared, const void* global, bool valid) { simt::cp_async_16(shared, global, valid); }
inline void copy_async_commit() { simt::cp_async_commit(); }
template <int pending>
void copy_async_wait() {
  simt::cp_async_wait(pending);
}

#endif

/// Where 16-byte chunk `chunk` of row `row` lies in a tile with rows of `chunks` chunks: eight rows at one chunk touch
/// all 32 banks, for writes by copy_async and for reads by load_matrices alike.
template <int chunks>
__host__ __device__ __forceinline__ constexpr int swizzled(int row, int chunk) {
  static_assert(chunks % 8 == 0);
  return row * chunks + (chunk ^ (row & 7));
}

}  // namespace wam::kernels::cuda
