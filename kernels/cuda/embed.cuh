#pragma once

#include "rows.cuh"
#include "wamcore/kernels/cuda/math.h"

namespace wam::kernels::cuda {

// Small passes at the borders of the network: one thread an element, no reuse to speak of.
inline constexpr int kEmbedThreads = 256;
inline unsigned embed_blocks(int64_t elements) {
  return static_cast<unsigned>((elements + kEmbedThreads - 1) / kEmbedThreads);
}
template <int Threads>
__device__ __forceinline__ int64_t embed_index() {
  return int64_t{blockIdx.x} * Threads + threadIdx.x;
}

// A thread writes the two neighbours of one row of one patch: they are neighbours in both layouts.
template <int Threads>
__global__ __launch_bounds__(Threads) void patchify_kernel(const __grid_constant__ PatchifyParams p) {
  const int across = p.width / 2, down = p.height / 2, pairs = 2 * (p.channels[0] + p.channels[1]);
  const int64_t i = embed_index<Threads>();
  if (i >= int64_t{p.frames} * down * across * pairs && !WAM_PLANTED("out_of_bounds")) return;
  const int pair = static_cast<int>(i % pairs), dy = pair % 2;
  const int64_t token = i / pairs;
  const int px = static_cast<int>(token % across), py = static_cast<int>(token / across % down);
  const int frame = static_cast<int>(token / across / down);
  const int which = pair / 2 < p.channels[0] ? 0 : 1, channel = pair / 2 - (which ? p.channels[0] : 0);
  const float* from =
      p.source[which] + ((int64_t{channel} * p.frames + frame) * p.height + 2 * py + dy) * p.width + 2 * px;
  bf16* to = p.out + token * p.ldo + 2 * pair;
  to[0] = to_bf16(from[0]), to[1] = to_bf16(from[1]);
}

template <int Threads>
__global__ __launch_bounds__(Threads) void unpatchify_kernel(const __grid_constant__ UnpatchifyParams p) {
  const int64_t i = embed_index<Threads>(), plane = int64_t{p.height} * p.width;
  if (i >= plane * p.frames * p.channels && !WAM_PLANTED("out_of_bounds")) return;
  const int x = static_cast<int>(i % p.width), y = static_cast<int>(i / p.width % p.height);
  const int frame = static_cast<int>(i / plane % p.frames), channel = static_cast<int>(i / plane / p.frames);
  const int64_t token = (int64_t{frame} * (p.height / 2) + y / 2) * (p.width / 2) + x / 2;
  p.out[i] = p.x[token * p.ldx + (y % 2 * 2 + x % 2) * p.channels + channel];
}

template <int Threads>
__global__ __launch_bounds__(Threads) void sinusoid_kernel(const __grid_constant__ SinusoidParams p) {
  const int64_t i = embed_index<Threads>();
  const int half = p.cols / 2;
  if (i >= int64_t{p.rows} * half && !WAM_PLANTED("out_of_bounds")) return;
  const int row = static_cast<int>(i / half), k = static_cast<int>(i % half);
  const double angle = wave_angle(p.t[p.row == nullptr ? row : p.row[row]], k, half);
  float* out = p.out + row * p.ldo + k;
  out[p.cos_first ? 0 : half] = static_cast<float>(cos(angle));
  out[p.cos_first ? half : 0] = static_cast<float>(sin(angle));
}

template <int Threads>
__global__ __launch_bounds__(Threads) void activation_kernel(const __grid_constant__ ActivationParams p) {
  const int64_t i = embed_index<Threads>();
  if (i >= int64_t{p.rows} * p.cols && !WAM_PLANTED("out_of_bounds")) return;
  const int64_t row = i / p.cols, col = i % p.cols;
  const float y = activate(p.x[row * p.ldx + col], p.act);
  if (p.y != nullptr)
    p.y[row * p.ldy + col] = y;
  else
    p.y_narrow[row * p.ldy + col] = to_bf16(y);
}

// Eight neighbours a thread, 16 bytes; the last thread takes what is left.
template <int Threads>
__global__ __launch_bounds__(Threads) void add_kernel(const __grid_constant__ AddParams p) {
  const int64_t i = 8 * embed_index<Threads>();
  if (i >= p.count) return;
  if (i + 8 <= p.count && reinterpret_cast<uintptr_t>(p.x) % 16 == 0 && reinterpret_cast<uintptr_t>(p.y) % 16 == 0) {
    float x[8], y[8];
    load<8>(x, p.x + i), load<8>(y, p.y + i);
    WAM_UNROLL
    for (int j = 0; j < 8; ++j) y[j] += x[j];
    store<8>(p.y + i, y);
  } else {
    for (int64_t j = i; j < i + 8 && (j < p.count || WAM_PLANTED("out_of_bounds")); ++j)
      p.y[j] = to_bf16(to_float(p.x[j]) + to_float(p.y[j]));
  }
}

/// Each chooses the tile and calls launch(shape, kernel, params). Nothing is launched for impossible sizes: false.
template <typename Launch>
bool launch_patchify(const PatchifyParams& p, Launch&& launch) {
  const int64_t channels = p.channels[0] + p.channels[1];
  const int64_t pairs = 2 * channels * p.frames * (p.height / 2) * (p.width / 2);
  if (pairs < 1 || p.height % 2 || p.width % 2) return false;
  launch(LaunchShape{.grid_x = embed_blocks(pairs), .threads = kEmbedThreads}, patchify_kernel<kEmbedThreads>, p);
  return true;
}
template <typename Launch>
bool launch_unpatchify(const UnpatchifyParams& p, Launch&& launch) {
  const int64_t n = int64_t{p.channels} * p.frames * p.height * p.width;
  if (n < 1 || p.height % 2 || p.width % 2) return false;
  launch(LaunchShape{.grid_x = embed_blocks(n), .threads = kEmbedThreads}, unpatchify_kernel<kEmbedThreads>, p);
  return true;
}
template <typename Launch>
bool launch_sinusoid(const SinusoidParams& p, Launch&& launch) {
  if (p.rows < 1 || p.cols < 2 || p.cols % 2) return false;
  launch(LaunchShape{.grid_x = embed_blocks(int64_t{p.rows} * p.cols / 2), .threads = kEmbedThreads},
         sinusoid_kernel<kEmbedThreads>, p);
  return true;
}
template <typename Launch>
bool launch_activation(const ActivationParams& p, Launch&& launch) {
  if (p.rows < 1 || p.cols < 1 || (p.y == nullptr) == (p.y_narrow == nullptr)) return false;
  launch(LaunchShape{.grid_x = embed_blocks(int64_t{p.rows} * p.cols), .threads = kEmbedThreads},
         activation_kernel<kEmbedThreads>, p);
  return true;
}
template <typename Launch>
bool launch_add(const AddParams& p, Launch&& launch) {
  if (p.count < 1) return false;
  launch(LaunchShape{.grid_x = embed_blocks((p.count + 7) / 8), .threads = kEmbedThreads}, add_kernel<kEmbedThreads>,
         p);
  return true;
}

}  // namespace wam::kernels::cuda
