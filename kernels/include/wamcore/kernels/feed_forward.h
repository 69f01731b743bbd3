#pragma once

#include <cstdint>

#include "wamcore/kernels/gemm.h"
#include "wamcore/kernels/norm.h"

namespace wam::kernels {

/// x += gate * (W2 gelu_tanh(W1 (LN(x) modulated) + b1) + b2): the whole feed-forward layer in one call.
struct FeedForwardParams {
  float* x = nullptr;  // [rows, dim], row stride ldx, updated in place
  int64_t rows = 0, dim = 0, hidden = 0, ldx = 0;
  float eps = 1e-6f;
  const float* shift = nullptr;  // [time rows, dim], row stride ldm
  const float* scale = nullptr;  // [time rows, dim], row stride ldm
  const float* gate = nullptr;   // [time rows, dim], row stride ldm
  int64_t ldm = 0;
  const int32_t* time_row = nullptr;  // [rows]
  Panels w1;                          // [hidden, dim]
  const float* b1 = nullptr;          // [hidden]
  Panels w2;                          // [dim, hidden]
  const float* b2 = nullptr;          // [dim]
  float* scratch = nullptr;           // feed_forward_scratch floats of the team
};

/// Most rows that a thread carries through the layer at once: their hidden activations stay in its cache.
inline constexpr int64_t kFeedForwardRows = 72;
/// Floats from row to row of such activations: a cache line behind `cols`, since rows that are a power of two apart
/// would meet in a few sets of the first cache.
inline int64_t feed_forward_stride(int64_t cols) { return (cols + 15) / 16 * 16 + 16; }
inline int64_t feed_forward_scratch(int64_t dim, int64_t hidden, int64_t threads) {
  return threads * kFeedForwardRows * (feed_forward_stride(dim) + feed_forward_stride(hidden));
}

/// Fused: every thread owns rows, so the layer needs no barrier.
void feed_forward(const FeedForwardParams& p, const Team& team);

}  // namespace wam::kernels
