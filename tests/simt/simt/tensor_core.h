#pragma once

// The warp-wide instructions of sm_80, written from the fragment tables of the PTX ISA (sections on mma.m16n8k16,
// mma.m16n8k32, ldmatrix and cp.async) and from nothing else, so that a kernel's layouts are really tested.
#include <cstdint>

#include "simt/machine.h"

namespace simt {

/// The number that eight bits stand for.
float float_of_e4m3(uint8_t bits);

/// d += a * b with a [16, 16] and b [16, 8] in bf16, d [16, 8] in float32, all spread over the lanes of a warp.
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

/// The same with a [16, 32] and b [32, 8] in e4m3.
void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

/// Four 8x8 matrices of 16-bit elements; lane 8 * i + r names row r of matrix i in shared memory.
void ldmatrix_x4(uint32_t (&d)[4], const void* row, bool transposed);

/// 16 bytes from global to shared memory, some time before the wait for its group; zeros if not valid.
void cp_async_16(void* shared, const void* global, bool valid);
void cp_async_commit();
/// All groups but the `pending` youngest have landed, as far as the calling thread is concerned.
void cp_async_wait(int pending);

}  // namespace simt
