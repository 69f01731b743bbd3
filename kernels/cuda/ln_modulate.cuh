#pragma once

#include "e4m3.cuh"
#include "rows.cuh"
#include "wamcore/kernels/cuda/ln_modulate.h"

namespace wam::kernels::cuda {

// A block has one row; each thread keeps Items vectors of Width neighbours of it, so x is read once. The variance is
// summed around the mean: with x in registers the second pass is free, and large means cost no digits. So is the row's
// maximum, where Out is e4m3.
template <typename In, typename Out, int Threads, int Items, int Width>
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
    if (c < p.cols || WAM_PLANTED("columns_out_of_bounds")) {
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
  float top = 0.0f;
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
    if constexpr (std::is_same_v<Out, bf16>) {
      store<Width>(p.y + row * p.ldy + c, v[i]);
    } else {
      WAM_UNROLL
      for (int j = 0; j < Width; ++j) top = fmaxf(top, fabsf(v[i][j]));
    }
  }
  if constexpr (std::is_same_v<Out, e4m3>) {
    static_assert(Width == 4);
    WAM_SHARED(float[Threads / kLanes], tops);
    top = block_max<Threads>(top, tops);
    if (threadIdx.x == 0) p.y_scale[row] = scale_of_top(top);
    const float inverse = inverse_of_top(top);
    WAM_UNROLL
    for (int i = 0; i < Items; ++i) {
      const int c = (i * Threads + static_cast<int>(threadIdx.x)) * Width;
      if (c < p.cols)
        *reinterpret_cast<uint32_t*>(p.y_e4m3 + row * p.ldy + c) =
            pack_e4m3<true>(v[i][0] * inverse, v[i][1] * inverse, v[i][2] * inverse, v[i][3] * inverse);
    }
  }
}

inline bool ln_modulate_by_four(const LnModulateParams& p) {
  bool four = p.cols % 4 == 0 && (p.x ? aligned<4>(p.x, p.ldx) : aligned<4>(p.x_wide, p.ldx));
  four = four && (p.y ? aligned<4>(p.y, p.ldy) : aligned<4>(p.y_e4m3, p.ldy));
  if (p.weight) four = four && aligned<4>(p.weight, 0) && aligned<4>(p.bias, 0);
  if (p.shift) four = four && aligned<4>(p.shift, p.ldm) && aligned<4>(p.scale, p.ldm);
  if (p.shift_base) four = four && aligned<4>(p.shift_base, 0) && aligned<4>(p.scale_base, 0);
  return four;
}

/// Calls launch(shape, kernel, params) with the tile for rows of bf16 that can be read four at a time: threads x items
/// x 4 columns; 5120 and 3072, the widths of the 14B and 5B models, fill their blocks exactly.
template <typename Out, typename Launch>
void launch_ln_by_four(const LnModulateParams& p, Launch&& launch) {
  const auto rows = [&](auto kernel, unsigned threads) {
    launch(LaunchShape{.grid_x = static_cast<unsigned>(p.rows), .threads = threads}, kernel, p);
  };
  if (p.cols <= 512) return rows(ln_modulate_kernel<bf16, Out, 128, 1, 4>, 128);
  if (p.cols <= 1024) return rows(ln_modulate_kernel<bf16, Out, 128, 2, 4>, 128);
  if (p.cols <= 3072) return rows(ln_modulate_kernel<bf16, Out, 256, 3, 4>, 256);
  if (p.cols <= 5120) return rows(ln_modulate_kernel<bf16, Out, 256, 5, 4>, 256);
  rows(ln_modulate_kernel<bf16, Out, 256, 8, 4>, 256);
}

/// Chooses the tile and calls launch(shape, kernel, params). Nothing is launched for impossible sizes: false.
template <typename Launch>
bool launch_ln_modulate(const LnModulateParams& p, Launch&& launch) {
  if (p.rows < 1 || p.cols < 1 || p.cols > kLnMostColumns || (p.x == nullptr) == (p.x_wide == nullptr)) return false;
  if (!p.y || p.y_e4m3) return false;
  const auto rows = [&](auto kernel, unsigned threads) {
    launch(LaunchShape{.grid_x = static_cast<unsigned>(p.rows), .threads = threads}, kernel, p);
    return true;
  };
  if (!ln_modulate_by_four(p))
    return p.x ? rows(ln_modulate_kernel<bf16, bf16, 256, 32, 1>, 256)
               : rows(ln_modulate_kernel<float, bf16, 256, 32, 1>, 256);
  if (p.x_wide) return rows(ln_modulate_kernel<float, bf16, 256, 8, 4>, 256);  // once a context: one tile will do
  launch_ln_by_four<bf16>(p, launch);
  return true;
}

template <typename Launch>
bool launch_ln_modulate_e4m3(const LnModulateParams& p, Launch&& launch) {
  if (p.rows < 1 || p.cols < 1 || p.cols > kLnMostColumns || !p.x || p.x_wide) return false;
  if (!p.y_e4m3 || !p.y_scale || p.y || !ln_modulate_by_four(p)) return false;
  launch_ln_by_four<e4m3>(p, launch);
  return true;
}

}  // namespace wam::kernels::cuda
