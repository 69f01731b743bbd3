#pragma once

// What sm_90a adds: mbarriers, bulk tensor copies (TMA) and asynchronous products of a warpgroup (wgmma), written from
// the PTX ISA. Operands in shared memory are found through the bits of their 64-bit descriptors, as the hardware does
// it.
#include <cstdint>

#include "simt/machine.h"

namespace simt {

/// A shared memory address as instructions see it.
uint32_t shared_address(const void* p);

void mbarrier_init(uint64_t* barrier, unsigned arrivals);
void mbarrier_arrive(uint64_t* barrier);
/// Announces bytes that bulk copies will bring, and arrives.
void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes);
/// Returns once the phase of this parity is over.
void mbarrier_wait(uint64_t* barrier, unsigned parity);

/// A tensor for bulk copies; the innermost dimension comes first and is contiguous.
struct TensorMapFields {
  const void* base;
  uint32_t element_bytes;
  uint32_t rank;
  uint64_t sizes[4];
  uint64_t strides[3];  // bytes, of dimensions 1 to 3
  uint32_t box[4];
};

/// Brings a box to shared memory with the 128-byte swizzle, some time later; what lies outside of the tensor is zero.
/// Bytes are told to `barrier`.
void bulk_copy(const void* tensor_map, uint64_t* barrier, void* shared, const int (&at)[4]);

/// Nothing has happened until the wait: registers and shared memory are read and d is written at its latest moment.
void wgmma(const WgmmaOperands& operands);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int pending);

}  // namespace simt
