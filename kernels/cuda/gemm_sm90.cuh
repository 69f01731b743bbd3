#pragma once

// y = epilogue(x w^T) with wgmma, fed by bulk copies: one producer thread, two warpgroups that multiply, a ring of
// stages between them. Blocks stay and walk over the tiles, so that the next tile's operands arrive during the
// epilogue.
#include "arch_sm90.cuh"
#include "gemm_epilogue.cuh"

namespace wam::kernels::cuda {

/// Each of the two warpgroups has 64 x `cols` of the tile. A slice of 64 channels is one line of the 128-byte swizzle.
template <int cols_>
struct GemmTileSm90 {
  static constexpr int rows = kGemmRowsSm90, cols = cols_, depth = 64, threads = 384;
  static constexpr int x_bytes = rows * depth * 2, w_bytes = cols * depth * 2, stage_bytes = x_bytes + w_bytes;
  static constexpr int stages = 200 * 1024 / stage_bytes;  // what is left of 227 KiB holds the barriers
  static constexpr int shared_bytes = stages * stage_bytes + 2 * stages * int(sizeof(uint64_t));
  static_assert(cols % kSquareStripe == 0 && stages >= 4 && shared_bytes <= 227 * 1024);
};

/// The tiles that a block works on: every gridDim.x-th, row tiles first, so that blocks at work together share w.
struct GemmTiles {
  __device__ GemmTiles(const GemmParams& p, int rows, int cols)
      : row_tiles((p.m + rows - 1) / rows), count(row_tiles * ((p.n + cols - 1) / cols)) {}
  int row_tiles, count;
};

template <class Tile>
__device__ __forceinline__ void gemm_produce(const GemmParamsSm90& p, unsigned char* stages, uint64_t* full,
                                             uint64_t* empty) {
  const GemmTiles tiles(p.gemm, Tile::rows, Tile::cols);
  const int slices = (p.gemm.k + Tile::depth - 1) / Tile::depth;
  RingPosition<Tile::stages> at;
  for (int tile = int(blockIdx.x); tile < tiles.count; tile += int(gridDim.x))
    for (int slice = 0; slice < slices; ++slice, at.advance()) {
      if (!WAM_PLANTED("no_wait_for_empty")) barrier_wait(&empty[at.stage], at.parity ^ 1);
      barrier_arrive_expect(&full[at.stage], Tile::stage_bytes);
      unsigned char* const stage = stages + at.stage * Tile::stage_bytes;
      copy_box(p.x, &full[at.stage], stage, slice * Tile::depth, tile % tiles.row_tiles * Tile::rows);
      copy_box(p.w, &full[at.stage], stage + Tile::x_bytes, slice * Tile::depth, tile / tiles.row_tiles * Tile::cols);
    }
}

template <class Tile, GemmEpilogue epilogue>
__device__ __forceinline__ void gemm_consume(const GemmParamsSm90& p, const unsigned char* stages, uint64_t* full,
                                             uint64_t* empty) {
  const GemmTiles tiles(p.gemm, Tile::rows, Tile::cols);
  const int slices = (p.gemm.k + Tile::depth - 1) / Tile::depth;
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32 - 4, group = warp / 4;
  RingPosition<Tile::stages> at;
  for (int tile = int(blockIdx.x); tile < tiles.count; tile += int(gridDim.x)) {
    float sums[Tile::cols / 8][4];
    int before = -1;  // the stage of the slice before, which one product may still read
    for (int slice = 0; slice < slices; ++slice, at.advance()) {
      if (!WAM_PLANTED("no_wait_for_full")) barrier_wait(&full[at.stage], at.parity);
      const unsigned char* const x = stages + at.stage * Tile::stage_bytes + group * 64 * 128;
      const unsigned char* const w = stages + at.stage * Tile::stage_bytes + Tile::x_bytes;
      hold(sums);
      wgmma_fence();
      WAM_UNROLL
      for (int k = 0; k < Tile::depth / 16; ++k)
        wgmma_ss<Tile::cols>(sums, operand_descriptor(x + k * 32, 1024), operand_descriptor(w + k * 32, 1024),
                             slice > 0 || k > 0);
      wgmma_commit();
      if (WAM_PLANTED("early_release")) before = at.stage;
      wgmma_wait<1>();
      if (before >= 0 && lane == 0) barrier_arrive(&empty[before]);
      before = WAM_PLANTED("early_release") ? -1 : at.stage;
    }
    wgmma_wait<0>();
    hold(sums);
    if (before >= 0 && lane == 0) barrier_arrive(&empty[before]);
    const int64_t row = tile % tiles.row_tiles * Tile::rows + warp * 16 + lane / 4;
    const int64_t col = int64_t{tile / tiles.row_tiles} * Tile::cols;
    WAM_UNROLL
    for (int stripe = 0; stripe < Tile::cols / kSquareStripe; ++stripe)
      store_stripe<epilogue>(p.gemm, row, col + stripe * kSquareStripe, sums + stripe * (kSquareStripe / 8));
  }
}

/// Grid [as many blocks as multiprocessors, or tiles if those are fewer].
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
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) gemm_produce<Tile>(p, stages, full, empty);
  } else {
    take_registers<232>();
    gemm_consume<Tile, epilogue>(p, stages, full, empty);
  }
}

/// Calls launch(shape, kernel, params) as planned.
template <typename Launch>
bool launch_gemm_sm90(const GemmParamsSm90& p, Launch&& launch) {
  const auto with = [&]<class Tile>(Tile) {
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
  };
  if (p.blocks < 1) return false;
  if (p.tile == 0) with(GemmTileSm90<kGemmColsSm90[0]>{});
  if (p.tile == 1) with(GemmTileSm90<kGemmColsSm90[1]>{});
  if (p.tile == 2) with(GemmTileSm90<kGemmColsSm90[2]>{});
  return true;
}

}  // namespace wam::kernels::cuda
