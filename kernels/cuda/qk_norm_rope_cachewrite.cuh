#pragma once

#include "rows.cuh"
#include "wamcore/kernels/cuda/qk_norm_rope_cachewrite.h"

namespace wam::kernels::cuda {

/// A row's sum of squares from its parts, the same in every lane of every warp.
__device__ __forceinline__ float sum_of_parts(const float* square, int count) {
  float sum = 0.0f;
  for (int i = int(threadIdx.x) % kLanes; i < count; i += kLanes) sum += square[i];
  return sum_over_lanes(sum);
}

// A block has one part of one token: all its heads, in registers. Width divides head_dim, so that a vector lies in one
// head and holds whole pairs. Where the product before has left the sums of squares, no warp waits for another.
template <int Threads, int Items, int Width>
__global__ __launch_bounds__(Threads) void qk_norm_rope_cachewrite_kernel(
    const __grid_constant__ QkNormRopeCacheWriteParams p) {
  WAM_SHARED(float[Threads * Items], partial);  // per head: the squares of each vector
  const int token = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const HeadRows& part = p.part[blockIdx.y];
  const int inner = p.heads * p.head_dim;
  const int stored = token - p.store_begin;
  const bool to_cache = part.cache != nullptr && stored >= 0 && stored < p.store_rows;
  const int64_t row = to_cache ? cache_row(*p.slots, stored + (WAM_PLANTED("slot_off_by_one") ? 1 : 0)) : token;
  bf16* y = (to_cache ? part.cache : part.y) + row * p.heads * p.pitch;  // [heads, pitch]
  const bf16* x = part.x + token * part.ldx;                             // [heads, head_dim]
  const bool rope = part.rope && p.cos != nullptr;
  if (part.norm == nullptr && !rope && x == y) return;  // values that stay where they are

  float v[Items][Width];
  float squares = 0.0f;
  WAM_UNROLL
  for (int i = 0; i < Items; ++i) {
    const int at = i * Threads + thread, c = at * Width;
    if (c >= inner && !WAM_PLANTED("columns_out_of_bounds")) continue;
    load<Width>(v[i], x + c);
    float mine = 0.0f;
    WAM_UNROLL
    for (int j = 0; j < Width; ++j) mine += v[i][j] * v[i][j];
    if (p.per_head) partial[at] = mine;
    squares += mine;
  }
  float rstd = 1.0f;
  if (part.norm != nullptr && part.square != nullptr)
    rstd = inverse_root(sum_of_parts(part.square + token * part.ld_square, p.squares), inner, p.eps);
  else if (part.norm != nullptr && !p.per_head)
    rstd = inverse_root(block_sum<Threads>(squares, partial), inner, p.eps);
  else
    __syncthreads();  // partial is complete

  const int half = p.head_dim / 2;
  WAM_UNROLL
  for (int i = 0; i < Items; ++i) {
    const int c = (i * Threads + thread) * Width;
    if (c >= inner) continue;
    const int head = c / p.head_dim, d = c - head * p.head_dim;
    if (part.norm != nullptr) {
      if (p.per_head) {
        const int vectors = p.head_dim / Width;
        float sum = 0.0f;
        for (int k = 0; k < vectors; ++k) sum += partial[head * vectors + k];
        rstd = inverse_root(sum, p.head_dim, p.eps);
      }
      float w[Width];
      load<Width>(w, part.norm + (p.per_head ? d : c));
      WAM_UNROLL
      for (int j = 0; j < Width; ++j) v[i][j] *= rstd * w[j];
    }
    if (rope) {
      float cosine[Width / 2], sine[Width / 2];
      load<Width / 2>(cosine, p.cos + static_cast<int64_t>(token) * half + d / 2);
      load<Width / 2>(sine, p.sin + static_cast<int64_t>(token) * half + d / 2);
      WAM_UNROLL
      for (int j = 0; j < Width / 2; ++j) {
        const Pair r = rotate({v[i][2 * j], v[i][2 * j + 1]}, cosine[j], sine[j]);
        v[i][2 * j] = r.a, v[i][2 * j + 1] = r.b;
      }
    }
    store<Width>(y + head * p.pitch + d, v[i]);
  }
  const int pad = p.pitch - p.head_dim;
  for (int i = thread; i < p.heads * pad; i += Threads) y[i / pad * p.pitch + p.head_dim + i % pad] = to_bf16(0.0f);
}

inline bool qk_by_eight(const QkNormRopeCacheWriteParams& p) {
  bool eight = p.head_dim % 8 == 0 && p.pitch % 8 == 0;
  if (p.cos) eight = eight && aligned<4>(p.cos, p.head_dim / 2) && aligned<4>(p.sin, p.head_dim / 2);
  for (int i = 0; i < p.parts; ++i) {
    const HeadRows& r = p.part[i];
    eight = eight && aligned<8>(r.x, r.ldx) && (!r.y || aligned<8>(r.y, 0)) && (!r.cache || aligned<8>(r.cache, 0));
    if (r.norm) eight = eight && aligned<8>(r.norm, 0);
  }
  return eight;
}

/// The least that a load of two neighbours asks for.
inline bool qk_by_two(const QkNormRopeCacheWriteParams& p) {
  bool two = true;
  for (int i = 0; i < p.parts; ++i) {
    const HeadRows& r = p.part[i];
    two = two && aligned<2>(r.x, r.ldx) && aligned<2>(r.y, 0) && aligned<2>(r.cache, 0) && aligned<2>(r.norm, 0);
  }
  return two;
}

/// Chooses the tile and calls launch(shape, kernel, params). Nothing is launched for impossible sizes: false.
template <typename Launch>
bool launch_qk_norm_rope_cachewrite(const QkNormRopeCacheWriteParams& p, Launch&& launch) {
  const int inner = p.heads * p.head_dim;
  if (p.tokens < 1 || p.parts < 1 || p.parts > 3 || inner < 2 || inner > kQkMostColumns) return false;
  if (p.head_dim % 2 || p.pitch < p.head_dim || p.pitch % 2 || !qk_by_two(p)) return false;
  for (int i = 0; i < p.parts; ++i)
    if (p.part[i].square && (p.per_head || p.squares < 1)) return false;
  const auto rows = [&](auto kernel, unsigned threads) {
    launch(
        LaunchShape{
            .grid_x = static_cast<unsigned>(p.tokens), .grid_y = static_cast<unsigned>(p.parts), .threads = threads},
        kernel, p);
    return true;
  };
  if (!qk_by_eight(p)) return rows(qk_norm_rope_cachewrite_kernel<256, 16, 2>, 256);
  // Threads x items x 8 columns; 5120 and 3072 fill their blocks exactly.
  if (inner <= 1024) return rows(qk_norm_rope_cachewrite_kernel<128, 1, 8>, 128);
  if (inner <= 3072) return rows(qk_norm_rope_cachewrite_kernel<128, 3, 8>, 128);
  if (inner <= 5120) return rows(qk_norm_rope_cachewrite_kernel<128, 5, 8>, 128);
  return rows(qk_norm_rope_cachewrite_kernel<128, 8, 8>, 128);
}

}  // namespace wam::kernels::cuda
