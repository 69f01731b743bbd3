#pragma once

#include <cstdint>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

/// Largest head_dim: it bounds the accumulators that kernels keep on the stack.
inline constexpr int64_t kMaxHeadDim = 1024;

/// A run of keys and values that lie together, read in place.
struct KeySpan {
  const float* k = nullptr;  // [rows, heads, head_dim], row stride ldk
  const float* v = nullptr;  // [rows, heads, head_dim], row stride ldv
  int64_t rows = 0, ldk = 0, ldv = 0;
};

/// out = softmax(scale * q K^T + bias) V over the rows of all spans together. No mask, no concatenation.
struct AttentionParams {
  const float* q = nullptr;  // [rows, heads, head_dim], row stride ldq
  float* out = nullptr;      // [rows, heads, head_dim], row stride ldo
  int64_t rows = 0, heads = 0, head_dim = 0, ldq = 0, ldo = 0;
  const KeySpan* spans = nullptr;
  int64_t span_count = 0;
  float scale = 1.0f;
  bool accumulate = false;      // add to out instead of overwriting (summed context groups)
  const float* bias = nullptr;  // [heads, rows, keys], keys counted over all spans; may be nullptr
};

/// Fast path: online softmax over tiles of keys, query rows abreast in registers.
void attention(const AttentionParams& p, const Team& team);
/// The definition, in float64.
void attention_ref(const AttentionParams& p);

}  // namespace wam::kernels
