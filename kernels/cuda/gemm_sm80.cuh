#pragma once

// y = epilogue(x w^T) with mma.sync: tiles of x and w pass through a ring of stages in shared memory, fetched two
// slices of k ahead; one barrier a slice. Operands are bf16, or e4m3 with a scale a row (sm_89 and later).
#include "arch_sm80.cuh"
#include "gemm_epilogue.cuh"

namespace wam::kernels::cuda {

/// What a kernel for operands of Element is given.
template <class Element>
struct GemmGiven {
  using Params = GemmParams;
};
template <>
struct GemmGiven<e4m3> {
  using Params = Fp8Product;
};
__host__ __device__ __forceinline__ const GemmParams& operands_of(const GemmParams& p) { return p; }
__host__ __device__ __forceinline__ const GemmParams& product_of(const GemmParams& p) { return p; }
__host__ __device__ __forceinline__ const Fp8Operands& operands_of(const Fp8Product& p) { return p.operands; }
__host__ __device__ __forceinline__ const GemmParams& product_of(const Fp8Product& p) { return p.gemm; }

/// Warps with `warp_rows` x 64 of the tile each. A slice is 64 bytes of each row, 32 channels of bf16 or 64 of e4m3;
/// three stages of the largest tile are 48 KiB, two blocks of which fit every target (100 KiB being the least).
///
/// In bf16 a warp with 64 x 64 reads 128 bytes of shared memory an mma, half of what an A100 can deliver meanwhile; its
/// 128 sums leave room for the fragments. In e4m3 they do not, for a slice's sums stand beside them. Warps of 32 x 64
/// read 192 bytes an mma, where the largest multiprocessors that have this instruction can deliver 512: so the largest
/// tile has eight of them, and is alone.
template <int rows_, int cols_, int warp_rows_, class Element_>
struct GemmTile {
  using Element = Element_;
  using Params = typename GemmGiven<Element>::Params;
  static constexpr int rows = rows_, cols = cols_, warp_rows = warp_rows_, warp_cols = kSquareStripe;
  static constexpr int chunks = 4, chunk = 16 / int(sizeof(Element)), depth = chunks * chunk, stages = 3;
  static constexpr int warps_across = cols / warp_cols, threads = 32 * (rows / warp_rows) * warps_across;
  static constexpr int blocks = 256 / threads;  // on a multiprocessor
  static constexpr int stage_elements = (rows + cols) * depth;
  static constexpr int shared_bytes = stages * stage_elements * int(sizeof(Element));
  static_assert((threads == 128 || threads == 256) && warp_rows % 16 == 0);
};
template <int index, class Element>
struct GemmTileOf;
template <>
struct GemmTileOf<0, bf16> : GemmTile<128, 128, 64, bf16> {};
template <>
struct GemmTileOf<0, e4m3> : GemmTile<128, 128, 32, e4m3> {};
template <class Element>
struct GemmTileOf<1, Element> : GemmTile<64, 128, 32, Element> {};
template <class Element>
struct GemmTileOf<2, Element> : GemmTile<64, 64, 16, Element> {};

/// Where chunk `chunk` of row `row` lies in a tile with rows of 64 bytes: eight rows at one chunk touch all 32 banks.
__host__ __device__ __forceinline__ constexpr int swizzled_narrow(int row, int chunk) {
  return row * 4 + (chunk ^ (row / 2 & 3));
}

/// Columns [k0, k0 + depth) of `rows` rows of a matrix; what lies past its rows or columns becomes zeros.
template <class Tile, int rows, class Element = typename Tile::Element>
__device__ __forceinline__ void copy_slice(Element* tile, const Element* from, int64_t ld, int valid_rows,
                                           int valid_cols) {
  const int chunk = int(threadIdx.x) % Tile::chunks, first = int(threadIdx.x) / Tile::chunks;
  from += first * ld + chunk * Tile::chunk;
  constexpr int step = Tile::threads / Tile::chunks;
  WAM_UNROLL
  for (int row = first; row < rows; row += step, from += step * ld)
    copy_async(tile + swizzled_narrow(row, chunk) * Tile::chunk, from,
               (row < valid_rows || WAM_PLANTED("row_out_of_bounds")) &&
                   (chunk * Tile::chunk < valid_cols || WAM_PLANTED("depth_out_of_bounds")));
}

template <class Tile>
using GemmSums = float[Tile::warp_rows / 16][Tile::warp_cols / 8][4];

/// Where this lane's rows of x and w begin that load_matrices takes, as rows of the warp's part of the tile.
__device__ __forceinline__ int x_row_of_lane() { return int(threadIdx.x) % 16; }
__device__ __forceinline__ int w_row_of_lane() { return int(threadIdx.x) % 32 / 16 * 8 + int(threadIdx.x) % 8; }

/// One slice of bf16: sums += x w^T of the warp's rows from `row0` and columns from `col0` on.
template <class Tile>
__device__ __forceinline__ void multiply_slice(GemmSums<Tile>& sums, const bf16* x, const bf16* w, int row0, int col0) {
  const int lane = int(threadIdx.x) % 32;
  WAM_UNROLL
  for (int k = 0; k < Tile::depth / 16; ++k) {
    uint32_t a[Tile::warp_rows / 16][4];
    WAM_UNROLL
    for (int r = 0; r < Tile::warp_rows / 16; ++r)
      load_matrices(a[r], x + swizzled_narrow(row0 + r * 16 + x_row_of_lane(), 2 * k + lane / 16) * 8);
    WAM_UNROLL
    for (int c = 0; c < Tile::warp_cols / 16; ++c) {
      uint32_t b[4];
      load_matrices(b, w + swizzled_narrow(col0 + c * 16 + w_row_of_lane(), 2 * k + lane / 8 % 2) * 8);
      WAM_UNROLL
      for (int r = 0; r < Tile::warp_rows / 16; ++r) {
        mma_bf16(sums[r][2 * c], a[r], {b[0], b[1]});
        mma_bf16(sums[r][2 * c + 1], a[r], {b[2], b[3]});
      }
    }
  }
}

/// One slice of e4m3. These tensor cores keep about 14 bits of a running sum, so the 64 channels of a slice are summed
/// by themselves, eight columns at a time, and added in float32.
template <class Tile>
__device__ __forceinline__ void multiply_slice(GemmSums<Tile>& sums, const e4m3* x, const e4m3* w, int row0, int col0) {
  const int lane = int(threadIdx.x) % 32;
  uint32_t a[2][Tile::warp_rows / 16][4];
  WAM_UNROLL
  for (int k = 0; k < 2; ++k) {
    WAM_UNROLL
    for (int r = 0; r < Tile::warp_rows / 16; ++r)
      load_matrices(a[k][r], x + swizzled_narrow(row0 + r * 16 + x_row_of_lane(), 2 * k + lane / 16) * 16);
  }
  WAM_UNROLL
  for (int c = 0; c < Tile::warp_cols / 8; ++c) {
    uint32_t b[4];  // all 64 channels of eight columns
    load_matrices(b, w + swizzled_narrow(col0 + c * 8 + lane % 8, lane / 8) * 16);
    WAM_UNROLL
    for (int r = 0; r < Tile::warp_rows / 16; ++r) {
      float part[4] = {};
      mma_e4m3(part, a[0][r], {b[0], b[1]});
      mma_e4m3(part, a[1][r], {b[2], b[3]});
      WAM_UNROLL
      for (int i = 0; i < 4; ++i) sums[r][c][i] += part[i];
    }
  }
}

/// Grid [row tiles, column tiles]: neighbours share w, the larger of the two matrices.
template <class Tile, GemmEpilogue epilogue>
__global__ __launch_bounds__(Tile::threads,
                             Tile::blocks) void gemm_kernel(const __grid_constant__ typename Tile::Params given) {
  using Element = typename Tile::Element;
  WAM_DYNAMIC_SHARED(shared);
  Element* const stages = reinterpret_cast<Element*>(shared);
  const GemmParams& p = product_of(given);
  const auto& from = operands_of(given);
  const int row0 = int(blockIdx.x) * Tile::rows, col0 = int(blockIdx.y) * Tile::cols;
  const int slices = (p.k + Tile::depth - 1) / Tile::depth;
  const auto stage = [&](int slice) { return stages + slice % Tile::stages * Tile::stage_elements; };
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      const int k0 = slice * Tile::depth;
      copy_slice<Tile, Tile::rows>(stage(slice), from.x + row0 * from.ldx + k0, from.ldx, p.m - row0, p.k - k0);
      copy_slice<Tile, Tile::cols>(stage(slice) + Tile::rows * Tile::depth, from.w + col0 * from.ldw + k0, from.ldw,
                                   p.n - col0, p.k - k0);
    }
    copy_async_commit();  // an empty group past the end keeps the count of groups in flight the same
  };

  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  const int warp_row = warp / Tile::warps_across * Tile::warp_rows,
            warp_col = warp % Tile::warps_across * Tile::warp_cols;
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
    multiply_slice<Tile>(sums, stage(slice), stage(slice) + Tile::rows * Tile::depth, warp_row, warp_col);
  }
  copy_async_wait<0>();

  const int64_t row = row0 + warp_row + lane / 4, col = col0 + warp_col;
  WAM_UNROLL
  for (int r = 0; r < Tile::warp_rows / 16; ++r) {
    if constexpr (std::is_same_v<Element, e4m3>)
      scale_stripe(sums[r], p, from.x_scale, from.w_scale, row + r * 16, col);
    store_stripe<epilogue>(p, row + r * 16, col, sums[r]);
  }
}

/// Calls launch(shape, kernel, given) with tile `tile` of kGemmTilesSm80.
template <class Element, typename Launch>
void launch_gemm_tiles_sm80(const typename GemmGiven<Element>::Params& given, int tile, Launch&& launch) {
  const GemmParams& p = product_of(given);
  const auto with = [&]<class Tile>(Tile) {
    const auto blocks = [](int size, int part) { return unsigned((size + part - 1) / part); };
    const auto start = [&](auto kernel) {
      launch(LaunchShape{.grid_x = blocks(p.m, Tile::rows),
                         .grid_y = blocks(p.n, Tile::cols),
                         .threads = Tile::threads,
                         .shared_bytes = Tile::shared_bytes},
             kernel, given);
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
  if (tile == 0) with(GemmTileOf<0, Element>{});
  if (tile == 1) with(GemmTileOf<1, Element>{});
  if (tile == 2) with(GemmTileOf<2, Element>{});
}

/// Nothing is launched for impossible sizes: false.
template <typename Launch>
bool launch_gemm_sm80(const GemmParams& p, int tile, Launch&& launch) {
  if (!gemm_possible(p)) return false;
  launch_gemm_tiles_sm80<bf16>(p, tile, launch);
  return true;
}
template <typename Launch>
bool launch_gemm_fp8_sm89(const Fp8Product& p, int tile, Launch&& launch) {
  if (!gemm_fp8_possible(p.gemm, p.operands)) return false;
  launch_gemm_tiles_sm80<e4m3>(p, tile, launch);
  return true;
}

}  // namespace wam::kernels::cuda
