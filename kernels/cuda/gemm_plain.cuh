#pragma once

#include "device.cuh"
#include "wamcore/kernels/cuda/gemm_plain.h"
#include "wamcore/kernels/cuda/math.h"

namespace wam::kernels::cuda {

/// 16 rows, so that the three timesteps of a pass or the 24 actions of a chunk waste little; 64 columns, so that
/// hundreds of blocks read a wide weight at once. Such products read each weight once and are bound by that.
struct PlainTile {
  static constexpr int rows = 16, cols = 64, depth = 32, threads = 128;
  static constexpr int rows_each = 2, cols_each = 4;  // of a thread
};

__device__ __forceinline__ void plain_finish(const GemmPlainParams& p, int r, int c, float sum) {
  if ((r >= p.m && !WAM_PLANTED("store_out_of_bounds")) || c >= p.n) return;
  float y = activate(sum + (p.bias != nullptr ? to_float(p.bias[c]) : 0.0f), p.act);
  if (p.gate != nullptr)
    y *= p.gate[(p.gate_row != nullptr ? p.gate_row[r] : 0) * p.ldg + c] + (p.gate_base ? p.gate_base[c] : 0.0f);
  if (p.residual != nullptr) y += to_float(p.residual[r * p.ldr + c]);
  if (p.y != nullptr)
    p.y[r * p.ldy + c] = to_bf16(y);
  else
    p.y_wide[r * p.ldy + c] = y;
}

// Each thread has 2 rows times 4 columns, 16 columns apart, so that neighbours read neighbouring rows of the w tile;
// the padding of one float keeps those in different banks.
template <class Tile>
__global__ __launch_bounds__(Tile::threads) void gemm_plain_kernel(const __grid_constant__ GemmPlainParams p) {
  WAM_SHARED(float[Tile::rows][Tile::depth + 1], xs);
  WAM_SHARED(float[Tile::cols][Tile::depth + 1], ws);
  constexpr int across = Tile::cols / Tile::cols_each;
  const int thread = int(threadIdx.x), row0 = int(blockIdx.y) * Tile::rows, col0 = int(blockIdx.x) * Tile::cols;
  const int row = thread / across * Tile::rows_each, col = thread % across;
  float sum[Tile::rows_each][Tile::cols_each] = {};
  for (int k0 = 0; k0 < p.k; k0 += Tile::depth) {
    for (int i = thread; i < Tile::rows * Tile::depth; i += Tile::threads) {
      const int r = i / Tile::depth, k = i % Tile::depth;
      const bool there = (row0 + r < p.m || WAM_PLANTED("row_out_of_bounds")) && k0 + k < p.k;
      const int64_t at = (row0 + r) * p.ldx + k0 + k;
      xs[r][k] = !there ? 0.0f : p.x != nullptr ? to_float(p.x[at]) : p.x_wide[at];
    }
    for (int i = thread; i < Tile::cols * Tile::depth; i += Tile::threads) {
      const int c = i / Tile::depth, k = i % Tile::depth;
      const bool there = col0 + c < p.n && k0 + k < p.k;
      ws[c][k] = there ? to_float(p.w[(col0 + c) * p.ldw + k0 + k]) : 0.0f;
    }
    if (!WAM_PLANTED("missing_barrier")) __syncthreads();
    for (int k = 0; k < Tile::depth; ++k) {
      WAM_UNROLL
      for (int i = 0; i < Tile::rows_each; ++i) {
        WAM_UNROLL
        for (int j = 0; j < Tile::cols_each; ++j) sum[i][j] += xs[row + i][k] * ws[col + j * across][k];
      }
    }
    __syncthreads();
  }
  WAM_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    WAM_UNROLL
    for (int j = 0; j < Tile::cols_each; ++j) plain_finish(p, row0 + row + i, col0 + col + j * across, sum[i][j]);
  }
}

/// Chooses the tile and calls launch(shape, kernel, params). Nothing is launched for impossible sizes: false.
template <typename Launch>
bool launch_gemm_plain(const GemmPlainParams& p, Launch&& launch) {
  if (p.m < 1 || p.n < 1 || p.k < 1) return false;
  if ((p.x == nullptr) == (p.x_wide == nullptr) || (p.y == nullptr) == (p.y_wide == nullptr)) return false;
  using Tile = PlainTile;
  launch(LaunchShape{.grid_x = unsigned((p.n + Tile::cols - 1) / Tile::cols),
                     .grid_y = unsigned((p.m + Tile::rows - 1) / Tile::rows),
                     .threads = Tile::threads},
         gemm_plain_kernel<Tile>, p);
  return true;
}

}  // namespace wam::kernels::cuda
