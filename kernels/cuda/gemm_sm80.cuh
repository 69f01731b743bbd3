#pragma once

// y = epilogue(x w^T) with mma.sync: tiles of x and w pass through a ring of stages in shared memory, fetched two
// slices of k ahead; one barrier a slice.
#include "arch_sm80.cuh"
#include "gemm_epilogue.cuh"

namespace wam::kernels::cuda {

/// Four warps, each with `warp_rows` x 64 of the tile. A slice of 32 channels has rows of 64 bytes; three stages of the
/// largest tile are 48 KiB, two blocks of which fit every target (100 KiB being the least). A warp with 64 x 64 reads
/// 128 bytes of shared memory an mma, half of what an A100 can deliver meanwhile; its 128 sums leave room for the
/// fragments.
template <int rows_, int cols_, int warp_rows_>
struct GemmTile {
  static constexpr int rows = rows_, cols = cols_, warp_rows = warp_rows_, warp_cols = kSquareStripe;
  static constexpr int depth = 32, stages = 3, chunks = depth / 8;
  static constexpr int warps_across = cols / warp_cols, threads = 32 * (rows / warp_rows) * warps_across;
  static constexpr int stage_elements = (rows + cols) * depth;
  static constexpr int shared_bytes = stages * stage_elements * int(sizeof(bf16));
  static_assert(threads == 128 && warp_rows % 16 == 0);
};
template <int index>
struct GemmTileOf;
template <>
struct GemmTileOf<0> : GemmTile<128, 128, 64> {};
template <>
struct GemmTileOf<1> : GemmTile<64, 128, 32> {};
template <>
struct GemmTileOf<2> : GemmTile<64, 64, 16> {};

/// Where chunk `chunk` of row `row` lies in a tile with rows of 64 bytes: eight rows at one chunk touch all 32 banks.
__host__ __device__ __forceinline__ constexpr int swizzled_narrow(int row, int chunk) {
  return row * 4 + (chunk ^ (row / 2 & 3));
}

/// Columns [k0, k0 + depth) of `rows` rows of a matrix; what lies past its rows or columns becomes zeros.
template <class Tile, int rows>
__device__ __forceinline__ void copy_slice(bf16* tile, const bf16* from, int64_t ld, int valid_rows, int valid_cols) {
  const int chunk = int(threadIdx.x) % Tile::chunks, first = int(threadIdx.x) / Tile::chunks;
  from += first * ld + chunk * 8;
  constexpr int step = Tile::threads / Tile::chunks;
  WAM_UNROLL
  for (int row = first; row < rows; row += step, from += step * ld)
    copy_async(tile + swizzled_narrow(row, chunk) * 8, from,
               (row < valid_rows || WAM_PLANTED("row_out_of_bounds")) &&
                   (chunk * 8 < valid_cols || WAM_PLANTED("depth_out_of_bounds")));
}

template <class Tile>
using GemmSums = float[Tile::warp_rows / 16][Tile::warp_cols / 8][4];

/// One slice: sums += x w^T of this warp's rows and columns.
template <class Tile>
__device__ __forceinline__ void multiply_slice(GemmSums<Tile>& sums, const bf16* x, const bf16* w) {
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int row0 = warp / Tile::warps_across * Tile::warp_rows, col0 = warp % Tile::warps_across * Tile::warp_cols;
  WAM_UNROLL
  for (int k = 0; k < Tile::depth / 16; ++k) {
    uint32_t a[Tile::warp_rows / 16][4];
    WAM_UNROLL
    for (int r = 0; r < Tile::warp_rows / 16; ++r)
      load_matrices(a[r], x + swizzled_narrow(row0 + r * 16 + lane % 16, 2 * k + lane / 16) * 8);
    WAM_UNROLL
    for (int c = 0; c < Tile::warp_cols / 16; ++c) {
      uint32_t b[4];
      load_matrices(b, w + swizzled_narrow(col0 + c * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2) * 8);
      WAM_UNROLL
      for (int r = 0; r < Tile::warp_rows / 16; ++r) {
        mma_bf16(sums[r][2 * c], a[r], {b[0], b[1]});
        mma_bf16(sums[r][2 * c + 1], a[r], {b[2], b[3]});
      }
    }
  }
}

/// Grid [row tiles, column tiles]: neighbours share w, the larger of the two matrices.
template <class Tile, GemmEpilogue epilogue>
__global__ __launch_bounds__(Tile::threads, 2) void gemm_kernel(const __grid_constant__ GemmParams p) {
  WAM_DYNAMIC_SHARED(shared);
  bf16* const stages = reinterpret_cast<bf16*>(shared);
  const int row0 = int(blockIdx.x) * Tile::rows, col0 = int(blockIdx.y) * Tile::cols;
  const int slices = (p.k + Tile::depth - 1) / Tile::depth;
  const auto stage = [&](int slice) { return stages + slice % Tile::stages * Tile::stage_elements; };
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      const int k0 = slice * Tile::depth;
      copy_slice<Tile, Tile::rows>(stage(slice), p.x + row0 * p.ldx + k0, p.ldx, p.m - row0, p.k - k0);
      copy_slice<Tile, Tile::cols>(stage(slice) + Tile::rows * Tile::depth, p.w + col0 * p.ldw + k0, p.ldw, p.n - col0,
                                   p.k - k0);
    }
    copy_async_commit();  // an empty group past the end keeps the count of groups in flight the same
  };

  GemmSums<Tile> sums;
  for (auto& r : sums)
    for (auto& c : r)
      for (float& x : c) x = 0.0f;
  for (int slice = 0; slice < Tile::stages - 1; ++slice) fetch(slice);
  for (int slice = 0; slice < slices; ++slice) {
    if (WAM_PLANTED("early_release")) fetch(slice + Tile::stages - 1);
    if (!WAM_PLANTED("missing_wait")) copy_async_wait<Tile::stages - 2>();
    if (!WAM_PLANTED("missing_barrier")) __syncthreads();  // this slice is here, and all are done with the one before
    if (!WAM_PLANTED("early_release")) fetch(slice + Tile::stages - 1);
    multiply_slice<Tile>(sums, stage(slice), stage(slice) + Tile::rows * Tile::depth);
  }
  copy_async_wait<0>();

  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int64_t row = row0 + warp / Tile::warps_across * Tile::warp_rows + lane / 4;
  const int64_t col = col0 + warp % Tile::warps_across * Tile::warp_cols;
  WAM_UNROLL
  for (int r = 0; r < Tile::warp_rows / 16; ++r) store_stripe<epilogue>(p, row + r * 16, col, sums[r]);
}

/// Calls launch(shape, kernel, params) with tile `tile` of kGemmTilesSm80. Nothing is launched for impossible sizes:
/// false.
template <typename Launch>
bool launch_gemm_sm80(const GemmParams& p, int tile, Launch&& launch) {
  if (!gemm_possible(p)) return false;
  const auto with = [&]<class Tile>(Tile) {
    const auto blocks = [](int size, int part) { return unsigned((size + part - 1) / part); };
    const auto start = [&](auto kernel) {
      launch(LaunchShape{.grid_x = blocks(p.m, Tile::rows),
                         .grid_y = blocks(p.n, Tile::cols),
                         .threads = Tile::threads,
                         .shared_bytes = Tile::shared_bytes},
             kernel, p);
    };
    switch (p.epilogue) {
      case GemmEpilogue::bias:
        return start(gemm_kernel<Tile, GemmEpilogue::bias>);
      case GemmEpilogue::bias_gelu:
        return start(gemm_kernel<Tile, GemmEpilogue::bias_gelu>);
      case GemmEpilogue::gate_residual:
        return start(gemm_kernel<Tile, GemmEpilogue::gate_residual>);
      case GemmEpilogue::qkv:
        return start(gemm_kernel<Tile, GemmEpilogue::qkv>);
    }
  };
  if (tile == 0) with(GemmTileOf<0>{});
  if (tile == 1) with(GemmTileOf<1>{});
  if (tile == 2) with(GemmTileOf<2>{});
  return true;
}

}  // namespace wam::kernels::cuda
