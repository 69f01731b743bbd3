#pragma once

// What sm_90a adds: barriers in shared memory, bulk tensor copies, products of a warpgroup. A thin name for each
// instruction, so that a kernel reads the same on the device and on the machine of tests/simt.
#include "arch_sm80.cuh"
#include "wamcore/kernels/cuda/tensor_map.h"
#include "wgmma_sm90.cuh"

namespace wam::kernels::cuda {

#if defined(__CUDACC__)

/// A barrier in shared memory that takes `arrivals` arrivals a phase, and whatever bytes are announced.
__device__ __forceinline__ void barrier_init(uint64_t* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/// Called once after all barrier_init and before __syncthreads: bulk copies see the barriers too.
__device__ __forceinline__ void barrier_init_done() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/// Announces bytes that bulk copies will bring, and arrives.
__device__ __forceinline__ void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
/// Returns once the phase of this parity is over; of a fresh barrier, the phase before the first has parity 1.
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra ready;\n"
      "bra again;\n"
      "ready:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// Brings the map's box at (column, row) to shared memory and tells `barrier`.
__device__ __forceinline__ void copy_box(const TensorMap& map, uint64_t* barrier, void* shared, int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(shared_address(shared)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}
/// The same with four coordinates, the innermost first.
__device__ __forceinline__ void copy_box(const TensorMap& map, uint64_t* barrier, void* shared, const int (&at)[4]) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(shared_address(barrier)), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
      : "memory");
}

/// Before the first product after registers of operands or results changed.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// All committed groups but the `pending` youngest are done: results are there, operands may be overwritten.
template <int pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
/// Keeps the compiler from using results before the wait.
template <int blocks>
__device__ __forceinline__ void hold(float (&d)[blocks][4]) {
  WAM_UNROLL
  for (int i = 0; i < blocks * 4; ++i) asm volatile("" : "+f"(d[i / 4][i % 4])::"memory");
}

/// The same for an operand that products read out of registers: they stay what they are until here.
template <int blocks>
__device__ __forceinline__ void hold(uint32_t (&a)[blocks][4]) {
  WAM_UNROLL
  for (int i = 0; i < blocks * 4; ++i) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
}

/// Registers a thread may use from here on, of a whole warpgroup.
template <int count>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

/// Barrier `id` (1 to 15) among `threads` threads; the second form does not wait.
__device__ __forceinline__ void sync_some(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void arrive_some(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#else

inline uint32_t shared_address(const void* p) { return simt::shared_address(p); }
inline void barrier_init(uint64_t* barrier, unsigned arrivals) { simt::mbarrier_init(barrier, arrivals); }
inline void barrier_init_done() {}
inline void barrier_arrive(uint64_t* barrier) { simt::mbarrier_arrive(barrier); }
inline void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) { simt::mbarrier_arrive_expect(barrier, bytes); }
inline void barrier_wait(uint64_t* barrier, unsigned parity) { simt::mbarrier_wait(barrier, parity); }
inline void copy_box(const TensorMap& map, uint64_t* barrier, void* shared, int column, int row) {
  simt::bulk_copy(&map, barrier, shared, {column, row, 0, 0});
}
inline void copy_box(const TensorMap& map, uint64_t* barrier, void* shared, const int (&at)[4]) {
  simt::bulk_copy(&map, barrier, shared, at);
}
inline void wgmma_fence() { simt::wgmma_fence(); }
inline void wgmma_commit() { simt::wgmma_commit(); }
template <int pending>
void wgmma_wait() {
  simt::wgmma_wait(pending);
}
template <int blocks>
void hold(float (&)[blocks][4]) {}
template <int blocks>
void hold(uint32_t (&)[blocks][4]) {}
template <int count>
void give_registers() {}
template <int count>
void take_registers() {}
inline void sync_some(int id, int threads) { simt::Machine::now().sync(unsigned(id), unsigned(threads), nullptr); }
inline void arrive_some(int id, int threads) { simt::Machine::now().arrive(unsigned(id), unsigned(threads)); }

#endif

/// A thread that speaks for its warp.
__device__ __forceinline__ bool leads_warp() { return threadIdx.x % 32 == 0; }

/// Describes an operand of wgmma in shared memory with the 128-byte swizzle. `start` within its tile, whose eight-line
/// groups begin at multiples of 1024 bytes. Lines of 128 bytes in groups of eight that are `group` bytes apart; where
/// the contiguous dimension is not k, blocks of 64 of its elements are `block` bytes apart.
__device__ __forceinline__ uint64_t operand_descriptor(const void* start, uint32_t group, uint32_t block = 16) {
  constexpr uint64_t swizzle128 = uint64_t{1} << 62;
  return swizzle128 | uint64_t{group >> 4} << 32 | uint64_t{block >> 4} << 16 | (shared_address(start) & 0x3ffff) >> 4;
}

/// Where a ring of stages stands; the parity changes with every round.
template <int stages>
struct RingPosition {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace wam::kernels::cuda
