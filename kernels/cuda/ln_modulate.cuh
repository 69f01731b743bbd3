#pragma once

#include "rows.cuh"
#include "wamcore/kernels/cuda/ln_modulate.h"

namespace wam::kernels::cuda {

// A block has one row; each thread keeps Items vectors of Width neighbours of it, so x is read once. The variance is
// summed around the mean: with x in registers the second pass is free, and large means cost no digits.
template <typename In, int Threads, int Items, int Width>
__global__ __launch_bounds__(Threads) void ln_modulate_kernel(const __grid_constant__ LnModulateParams p) {
  WAM_SHARED(float[Threads / kLanes], sums);
  WAM_SHARED(float[Threads / kLanes], squares);
  const int row = static_cast<int>(blockIdx.x);
  const In* x;  // [cols]
  if constexpr (std::is_same_v<In, float>)
    x = p.x_wide + row * p.ldx;
  else
    x = p.x + row * p.ldx;
  float v[Items][Width];
  float sum = 0.0f, square = 0.0f;
  WAM_UNROLL
  for (int i = 0; i < Items; ++i) {
    const int c = (i * Threads + static_cast<int>(threadIdx.x)) * Width;
    if (c < p.cols) {
      load<Width>(v[i], x + c);
      WAM_UNROLL
      for (int j = 0; j < Width; ++j) sum += v[i][j];
    }
  }
  const float mean = block_sum<Threads>(sum, sums) / static_cast<float>(p.cols);
  WAM_UNROLL
  for (int i = 0; i < Items; ++i) {
    const int c = (i * Threads + static_cast<int>(threadIdx.x)) * Width;
    if (c < p.cols) {
      WAM_UNROLL
      for (int j = 0; j < Width; ++j) v[i][j] -= mean, square += v[i][j] * v[i][j];
    }
  }
  const float rstd = inverse_root(block_sum<Threads>(square, squares), p.cols, p.eps);
  const int64_t m = p.shift == nullptr ? 0 : p.ldm * (p.time_row == nullptr ? 0 : p.time_row[row]);
  WAM_UNROLL
  for (int i = 0; i < Items; ++i) {
    const int c = (i * Threads + static_cast<int>(threadIdx.x)) * Width;
    if (c >= p.cols) continue;
    WAM_UNROLL
    for (int j = 0; j < Width; ++j) v[i][j] *= rstd;
    if (p.weight != nullptr) {
      float w[Width], b[Width];
      load<Width>(w, p.weight + c), load<Width>(b, p.bias + c);
      WAM_UNROLL
      for (int j = 0; j < Width; ++j) v[i][j] = v[i][j] * w[j] + b[j];
    }
    if (p.shift != nullptr) {
      float scale[Width], shift[Width];
      load<Width>(scale, p.scale + m + c), load<Width>(shift, p.shift + m + c);
      if (p.shift_base != nullptr) {
        float scale_base[Width], shift_base[Width];
        load<Width>(scale_base, p.scale_base + c), load<Width>(shift_base, p.shift_base + c);
        WAM_UNROLL
        for (int j = 0; j < Width; ++j) scale[j] += scale_base[j], shift[j] += shift_base[j];
      }
      WAM_UNROLL
      for (int j = 0; j < Width; ++j) v[i][j] = modulate(v[i][j], scale[j], shift[j]);
    }
    store<Width>(p.y + row * p.ldy + c, v[i]);
  }
}

inline bool ln_modulate_by_four(const LnModulateParams& p) {
  bool four = p.cols % 4 == 0 && (p.x ? aligned<4>(p.x, p.ldx) : aligned<4>(p.x_wide, p.ldx)) && aligned<4>(p.y, p.ldy);
  if (p.weight) four = four && aligned<4>(p.weight, 0) && aligned<4>(p.bias, 0);
  if (p.shift) four = four && aligned<4>(p.shift, p.ldm) && aligned<4>(p.scale, p.ldm);
  if (p.shift_base) four = four && aligned<4>(p.shift_base, 0) && aligned<4>(p.scale_base, 0);
  return four;
}

/// Chooses the tile and calls launch(shape, kernel, params). Nothing is launched for impossible sizes: false.
template <typename Launch>
bool launch_ln_modulate(const LnModulateParams& p, Launch&& launch) {
  if (p.rows < 1 || p.cols < 1 || p.cols > kLnMostColumns || (p.x == nullptr) == (p.x_wide == nullptr)) return false;
  const auto rows = [&](auto kernel, unsigned threads) {
    launch(LaunchShape{.grid_x = static_cast<unsigned>(p.rows), .threads = threads}, kernel, p);
    return true;
  };
  if (!ln_modulate_by_four(p))
    return p.x ? rows(ln_modulate_kernel<bf16, 256, 32, 1>, 256) : rows(ln_modulate_kernel<float, 256, 32, 1>, 256);
  if (p.x_wide) return rows(ln_modulate_kernel<float, 256, 8, 4>, 256);  // once a context: one tile will do
  // Threads x items x 4 columns; 5120 and 3072, the widths of the 14B and 5B models, fill their blocks exactly.
  if (p.cols <= 512) return rows(ln_modulate_kernel<bf16, 128, 1, 4>, 128);
  if (p.cols <= 1024) return rows(ln_modulate_kernel<bf16, 128, 2, 4>, 128);
  if (p.cols <= 3072) return rows(ln_modulate_kernel<bf16, 256, 3, 4>, 256);
  if (p.cols <= 5120) return rows(ln_modulate_kernel<bf16, 256, 5, 4>, 256);
  return rows(ln_modulate_kernel<bf16, 256, 8, 4>, 256);
}

}  // namespace wam::kernels::cuda
