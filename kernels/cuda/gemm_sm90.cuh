#pragma once

// y = epilogue(x w^T) with wgmma, fed by bulk copies: one producer thread, two warpgroups that multiply, a ring of
// stages between them. Blocks stay and walk over the tiles, so that the next tile's operands arrive during the
// epilogue.
#include "arch_sm90.cuh"
#include "gemm_epilogue.cuh"
#include "split.cuh"

namespace wam::kernels::cuda {

/// Each of the two warpgroups has 64 x `cols` of the tile. A slice is one line of the 128-byte swizzle: 64 channels of
/// bf16, or 128 of e4m3.
template <int cols_, int element_bytes_ = 2>
struct GemmTileSm90 {
  static constexpr int rows = kGemmRowsSm90, cols = cols_, element_bytes = element_bytes_, threads = 384;
  static constexpr int depth = 128 / element_bytes;
  static constexpr int x_bytes = rows * 128, w_bytes = cols * 128, stage_bytes = x_bytes + w_bytes;
  static constexpr int stages = 200 * 1024 / stage_bytes;  // what is left of 227 KiB holds the barriers
  static constexpr int shared_bytes = stages * stage_bytes + 2 * stages * int(sizeof(uint64_t)) + 16;
  static_assert(cols % kSquareStripe == 0 && stages >= 4 && shared_bytes <= 227 * 1024);
};

/// A tile of the result and a part of k. Blocks take every gridDim.x-th: parts of a tile first, then row tiles, so that
/// blocks at work together share w.
template <class Tile>
struct GemmItem {
  __device__ GemmItem(const GemmParamsSm90& p, int index) : split(index % p.splits), tile(index / p.splits) {
    const int row_tiles = (p.gemm.m + Tile::rows - 1) / Tile::rows;
    row = tile % row_tiles * Tile::rows;
    col = tile / row_tiles * Tile::cols;
    slices = split_range((p.gemm.k + Tile::depth - 1) / Tile::depth, split, p.splits);
  }
  static __device__ int count(const GemmParamsSm90& p) {
    return (p.gemm.m + Tile::rows - 1) / Tile::rows * ((p.gemm.n + Tile::cols - 1) / Tile::cols) * p.splits;
  }
  int split, tile, row, col;
  TileRange slices;
};

template <class Tile>
__device__ __forceinline__ void gemm_produce(const GemmParamsSm90& p, unsigned char* stages, uint64_t* full,
                                             uint64_t* empty) {
  RingPosition<Tile::stages> at;
  for (int index = int(blockIdx.x); index < GemmItem<Tile>::count(p); index += int(gridDim.x)) {
    const GemmItem<Tile> item(p, index);
    for (int slice = item.slices.begin; slice < item.slices.end; ++slice, at.advance()) {
      if (!WAM_PLANTED("no_wait_for_empty")) barrier_wait(&empty[at.stage], at.parity ^ 1);
      barrier_arrive_expect(&full[at.stage], Tile::stage_bytes);
      unsigned char* const stage = stages + at.stage * Tile::stage_bytes;
      copy_box(p.x, &full[at.stage], stage, slice * Tile::depth, item.row);
      copy_box(p.w, &full[at.stage], stage + Tile::x_bytes, slice * Tile::depth, item.col);
    }
  }
}

template <class Tile>
using GemmSumsSm90 = float[Tile::cols / 8][4];

/// What a multiplying warp sees of the ring.
template <class Tile>
struct GemmRing {
  const unsigned char* stages;
  uint64_t *full, *empty;
  RingPosition<Tile::stages> at;

  __device__ __forceinline__ void wait() {
    if (!WAM_PLANTED("no_wait_for_full")) barrier_wait(&full[at.stage], at.parity);
  }
  __device__ __forceinline__ void release(int stage) {
    if (stage >= 0 && leads_warp()) barrier_arrive(&empty[stage]);
  }
  /// Starts sums (+)= x w^T for the slice at hand and the 64 rows of warpgroup `group`.
  __device__ __forceinline__ void multiply(GemmSumsSm90<Tile>& sums, int group, bool accumulate) {
    const unsigned char* const x = stages + at.stage * Tile::stage_bytes + group * 64 * 128;
    const unsigned char* const w = stages + at.stage * Tile::stage_bytes + Tile::x_bytes;
    hold(sums);
    wgmma_fence();
    WAM_UNROLL
    for (int k = 0; k < 4; ++k) {  // 32 bytes of each line at a time
      const uint64_t a = operand_descriptor(x + k * 32, 1024), b = operand_descriptor(w + k * 32, 1024);
      if constexpr (Tile::element_bytes == 1)
        wgmma_e4m3<Tile::cols>(sums, a, b, accumulate || k > 0);
      else
        wgmma_ss<Tile::cols>(sums, a, b, accumulate || k > 0);
    }
    wgmma_commit();
  }
};

/// All slices of a tile in bf16: a slice is released when only the product after it can be in flight.
template <class Tile>
__device__ __forceinline__ void sum_slices(GemmSumsSm90<Tile>& sums, GemmRing<Tile>& ring, int slices, int group) {
  int before = -1;
  for (int slice = 0; slice < slices; ++slice, ring.at.advance()) {
    ring.wait();
    ring.multiply(sums, group, slice > 0);
    if (WAM_PLANTED("early_release")) before = ring.at.stage;
    wgmma_wait<1>();
    ring.release(before);
    before = WAM_PLANTED("early_release") ? -1 : ring.at.stage;
  }
  wgmma_wait<0>();
  hold(sums);
  ring.release(before);
}

/// All slices of a tile in e4m3. These tensor cores keep about 14 bits of a running sum, so each slice of 128 channels
/// is summed by itself and added in float32; meanwhile the other warpgroup multiplies.
template <class Tile>
__device__ __forceinline__ void sum_slices_exactly(GemmSumsSm90<Tile>& sums, GemmRing<Tile>& ring, int slices,
                                                   int group) {
  for (auto& block : sums)
    for (float& x : block) x = 0.0f;
  for (int slice = 0; slice < slices; ++slice, ring.at.advance()) {
    GemmSumsSm90<Tile> part;
    ring.wait();
    ring.multiply(part, group, false);
    if (WAM_PLANTED("early_release")) ring.release(ring.at.stage);
    wgmma_wait<0>();
    hold(part);
    if (!WAM_PLANTED("early_release")) ring.release(ring.at.stage);
    WAM_UNROLL
    for (int i = 0; i < Tile::cols / 2; ++i) sums[i / 4][i % 4] += part[i / 4][i % 4];
  }
}

/// Leaves a part's sums in memory. Who is the last of a tile's parts adds all of them up, in their order whatever
/// theirs was in time, and returns true. `note` is shared by the multiplying warps.
template <class Tile>
__device__ __forceinline__ bool gather_parts(GemmSumsSm90<Tile>& sums, const GemmParamsSm90& p,
                                             const GemmItem<Tile>& item, int* note) {
  constexpr int threads = 256, vectors = Tile::cols / 8;
  const int thread = int(threadIdx.x) - 128;
  float4* const parts =
      reinterpret_cast<float4*>(p.partial) + int64_t{item.tile} * p.splits * vectors * threads + thread;
  WAM_UNROLL
  for (int i = 0; i < vectors; ++i)
    parts[(item.split * vectors + i) * threads] = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
  __threadfence();
  sync_some(1, threads);
  if (thread == 0) {
    *note = atomicAdd(&p.arrived[item.tile], 1);
    if (*note == p.splits - 1) p.arrived[item.tile] = 0;  // for the next launch
  }
  sync_some(1, threads);
  if (*note != (WAM_PLANTED("no_wait_for_parts") ? 0 : p.splits - 1)) return false;
  __threadfence();
  WAM_UNROLL
  for (int i = 0; i < vectors; ++i) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
  for (int part = 0; part < p.splits; ++part) {
    WAM_UNROLL
    for (int i = 0; i < vectors; ++i) {
      const float4 v = __ldcg(&parts[(part * vectors + i) * threads]);
      sums[i][0] += v.x;
      sums[i][1] += v.y;
      sums[i][2] += v.z;
      sums[i][3] += v.w;
    }
  }
  return true;
}

template <class Tile, GemmEpilogue epilogue>
__device__ __forceinline__ void gemm_consume(const GemmParamsSm90& p, GemmRing<Tile> ring, int* note) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32 - 4;
  for (int index = int(blockIdx.x); index < GemmItem<Tile>::count(p); index += int(gridDim.x)) {
    const GemmItem<Tile> item(p, index);
    GemmSumsSm90<Tile> sums;
    if constexpr (Tile::element_bytes == 1)
      sum_slices_exactly<Tile>(sums, ring, item.slices.end - item.slices.begin, warp / 4);
    else
      sum_slices<Tile>(sums, ring, item.slices.end - item.slices.begin, warp / 4);
    if (p.splits > 1 && !gather_parts<Tile>(sums, p, item, note)) continue;
    const int64_t row = item.row + warp * 16 + lane / 4;
    WAM_UNROLL
    for (int stripe = 0; stripe < Tile::cols / kSquareStripe; ++stripe) {
      float(*const part)[4] = sums + stripe * (kSquareStripe / 8);
      const int64_t col = item.col + stripe * kSquareStripe;
      if constexpr (Tile::element_bytes == 1) scale_stripe(part, p.gemm, p.x_scale, p.w_scale, row, col);
      store_stripe<epilogue>(p.gemm, row, col, part);
    }
  }
}

/// Grid [as many blocks as multiprocessors, or items if those are fewer].
template <class Tile, GemmEpilogue epilogue>
__global__ __launch_bounds__(Tile::threads, 1) void gemm_kernel_sm90(const __grid_constant__ GemmParamsSm90 p) {
  WAM_DYNAMIC_SHARED(stages);
  uint64_t* const full = reinterpret_cast<uint64_t*>(stages + Tile::stages * Tile::stage_bytes);
  uint64_t* const empty = full + Tile::stages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile::stages; ++i) {
      barrier_init(&full[i], 1);
      barrier_init(&empty[i], 8);  // one arrival a multiplying warp
    }
    barrier_init_done();
  }
  if (!WAM_PLANTED("missing_barrier")) __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) gemm_produce<Tile>(p, stages, full, empty);
  } else {
    take_registers<232>();
    gemm_consume<Tile, epilogue>(p, GemmRing<Tile>{stages, full, empty, {}},
                                 reinterpret_cast<int*>(empty + Tile::stages));
  }
}

template <class Tile, typename Launch>
void launch_gemm_tile_sm90(const GemmParamsSm90& p, Launch&& launch) {
  const auto start = [&](auto kernel) {
    launch(LaunchShape{.grid_x = unsigned(p.blocks), .threads = Tile::threads, .shared_bytes = Tile::shared_bytes},
           kernel, p);
  };
  switch (p.gemm.epilogue) {
    case GemmEpilogue::bias:
      return start(gemm_kernel_sm90<Tile, GemmEpilogue::bias>);
    case GemmEpilogue::bias_gelu:
      return start(gemm_kernel_sm90<Tile, GemmEpilogue::bias_gelu>);
    case GemmEpilogue::gate_residual:
      return start(gemm_kernel_sm90<Tile, GemmEpilogue::gate_residual>);
    case GemmEpilogue::qkv:
      return start(gemm_kernel_sm90<Tile, GemmEpilogue::qkv>);
  }
}

/// Calls launch(shape, kernel, params) as planned.
template <typename Launch>
bool launch_gemm_sm90(const GemmParamsSm90& p, Launch&& launch) {
  if (p.blocks < 1 || p.x_scale) return false;
  if (p.tile == 0) launch_gemm_tile_sm90<GemmTileSm90<kGemmColsSm90[0]>>(p, launch);
  if (p.tile == 1) launch_gemm_tile_sm90<GemmTileSm90<kGemmColsSm90[1]>>(p, launch);
  if (p.tile == 2) launch_gemm_tile_sm90<GemmTileSm90<kGemmColsSm90[2]>>(p, launch);
  return true;
}

template <typename Launch>
bool launch_gemm_fp8_sm90(const GemmParamsSm90& p, Launch&& launch) {
  if (p.blocks < 1 || !p.x_scale || !p.w_scale) return false;
  if (p.tile == 1) launch_gemm_tile_sm90<GemmTileSm90<kGemmColsSm90[1], 1>>(p, launch);
  if (p.tile == 2) launch_gemm_tile_sm90<GemmTileSm90<kGemmColsSm90[2], 1>>(p, launch);
  return p.tile == 1 || p.tile == 2;
}

}  // namespace wam::kernels::cuda
