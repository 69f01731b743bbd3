#pragma once

#include <cstdint>

namespace wam::kernels::cuda {

struct bf16;

/// What happens to a product before it is stored.
enum class GemmEpilogue {
  bias,           // y = x w^T + bias
  bias_gelu,      // y = gelu_tanh(x w^T + bias)
  gate_residual,  // y = residual + gate * (x w^T + bias), the gate chosen by the row's time
  qkv,            // the columns go to three places; sums of squares of queries and keys for the norm that follows
};

/// Sums of squares are kept per this many columns, so that no two blocks add to one number and order never matters.
inline constexpr int kSquareStripe = 64;

/// y = epilogue(x w^T + bias), all in bf16 with float32 sums.
struct GemmParams {
  const bf16* x = nullptr;     // [m, k], row stride ldx
  const bf16* w = nullptr;     // [n, k], row stride ldw: a Linear as PyTorch keeps it
  const bf16* bias = nullptr;  // [n]; may be nullptr
  bf16* y = nullptr;           // [m, n], row stride ldy; unused by qkv
  int32_t m = 0, n = 0, k = 0;
  int64_t ldx = 0, ldw = 0, ldy = 0;
  // gate_residual
  const float* gate = nullptr;        // [time rows, n], row stride ldg
  const int32_t* gate_row = nullptr;  // [m], the time row of each row; nullptr: row 0 for all
  const bf16* residual = nullptr;     // [m, n], row stride ldr; may be y
  int64_t ldg = 0, ldr = 0;
  // qkv, where n is three times a multiple of kSquareStripe
  bf16* part[3] = {};       // queries, keys, values: [m, n / 3] each, row strides ld_part
  int64_t ld_part[3] = {};  //
  float* square = nullptr;  // [m, 2, n / 3 / kSquareStripe] of queries and keys as stored; may be nullptr
};

/// The mma.sync kernel's tiles, rows x columns.
struct GemmTileShape {
  int rows, cols;
};
inline constexpr GemmTileShape kGemmTilesSm80[] = {{128, 128}, {64, 128}, {64, 64}};

/// Index of the tile that ends first on `sms` multiprocessors, two blocks on each. A full tile costs its area; the
/// smaller ones read more of shared memory per product (3/2 and 5/2 of the largest one's), of which a half hides. What
/// is left of the last wave runs as long as a whole one.
constexpr int gemm_tile_sm80(int m, int n, int sms) {
  constexpr int cost_of_area[] = {8, 10, 14};  // eighths
  int best = 0;
  int64_t best_cost = 0;
  for (int i = 0; i < 3; ++i) {
    const GemmTileShape t = kGemmTilesSm80[i];
    const int64_t tiles = int64_t{(m + t.rows - 1) / t.rows} * ((n + t.cols - 1) / t.cols);
    const int64_t cost = (tiles + 2 * sms - 1) / (2 * sms) * t.rows * t.cols * cost_of_area[i];
    if (i == 0 || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

/// The wgmma kernel's tiles: 128 rows, this many columns.
inline constexpr int kGemmRowsSm90 = 128;
inline constexpr int kGemmColsSm90[] = {256, 192, 128};

/// Index of the width that ends first on `sms` multiprocessors, one block on each. A wave costs its columns, and
/// sixteen more for what a slice of k costs at any width (its barriers, and its 64 rows of x: an mma of 256, 192 and
/// 128 columns reads 80, 85 and 96 bytes of shared memory a cycle, of 128 that are there). At 1785 rows and 132
/// multiprocessors, 5120 columns are three waves of 256 (70 % full) or three of 192 (95 % full).
constexpr int gemm_tile_sm90(int m, int n, int sms) {
  int best = 0, best_cost = 0;
  for (int i = 0; i < 3; ++i) {
    const int cols = kGemmColsSm90[i];
    const int tiles = (m + kGemmRowsSm90 - 1) / kGemmRowsSm90 * ((n + cols - 1) / cols);
    const int cost = (tiles + sms - 1) / sms * (cols + 16);
    if (i == 0 || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace wam::kernels::cuda
