#pragma once

// Puts the splits of an attention together: each row's parts, weighted with the share of the softmax that they saw.
#include "device.cuh"
#include "wamcore/kernels/cuda/attention.h"

namespace wam::kernels::cuda {

inline constexpr int kMergeThreads = 128;

/// 4 channels a thread; grid [ceil(rows * heads * head_dim / 4 / threads), batch].
template <int threads>
__global__ __launch_bounds__(threads) void attention_merge_kernel(const __grid_constant__ AttentionParams p) {
  const int64_t vectors = p.head_dim / 4, i = int64_t{blockIdx.x} * threads + threadIdx.x;
  const int64_t row = i / vectors / p.heads, head = i / vectors % p.heads, at = i % vectors * 4;
  if (row >= p.rows) return;
  const int64_t b = blockIdx.y;
  const auto lse_at = [&](int s) { return p.split_lse[((s * p.batch + b) * p.heads + head) * p.rows + row]; };
  float top = -INFINITY;
  for (int s = 0; s < p.splits; ++s) top = fmaxf(top, lse_at(s));
  float total = 0.0f, out[4] = {};
  for (int s = 0; s < p.splits; ++s) {
    const float lse = lse_at(s);
    if (lse == -INFINITY) continue;  // saw no key and wrote no row
    const float share = expf(lse - top);
    const float4 part = *reinterpret_cast<const float4*>(
        p.split_out + (((s * p.batch + b) * p.rows + row) * p.heads + head) * p.head_dim + at);
    total += share;
    out[0] += share * part.x;
    out[1] += share * part.y;
    out[2] += share * part.z;
    out[3] += share * part.w;
  }
  const float inverse = total > 0.0f ? 1.0f / total : 0.0f;
  uint2 v = make_uint2(pack_bf16(out[0] * inverse, out[1] * inverse), pack_bf16(out[2] * inverse, out[3] * inverse));
  uint2* const to = reinterpret_cast<uint2*>(p.out + b * p.out_batch + row * p.ldo + head * p.head_dim + at);
  if (p.add) v = make_uint2(add_bf16(v.x, to->x), add_bf16(v.y, to->y));
  *to = v;
  if (p.lse && at == 0) p.lse[(b * p.heads + head) * p.rows + row] = total > 0.0f ? top + logf(total) : -INFINITY;
}

template <typename Launch>
void launch_attention_merge(const AttentionParams& p, Launch&& launch) {
  const int64_t threads = int64_t{p.rows} * p.heads * p.head_dim / 4;
  launch(LaunchShape{.grid_x = unsigned((threads + kMergeThreads - 1) / kMergeThreads),
                     .grid_y = unsigned(p.batch),
                     .threads = kMergeThreads},
         attention_merge_kernel<kMergeThreads>, p);
}

}  // namespace wam::kernels::cuda
