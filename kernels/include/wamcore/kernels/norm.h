#pragma once

#include <cstdint>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

/// y = LN(x) [* weight + bias] [* (1 + scale[row]) + shift[row]]
struct LayerNormParams {
  const float* x = nullptr;  // [rows, cols], row stride ldx
  float* y = nullptr;        // [rows, cols], row stride ldy
  int64_t rows = 0, cols = 0, ldx = 0, ldy = 0;
  float eps = 1e-6f;
  const float* weight = nullptr;  // [cols], may be nullptr (with bias)
  const float* bias = nullptr;    // [cols], may be nullptr
  const float* shift = nullptr;   // [time rows, cols], row stride ldm, may be nullptr (with scale)
  const float* scale = nullptr;   // [time rows, cols], row stride ldm
  int64_t ldm = 0;
  const int32_t* time_row = nullptr;  // [rows]; nullptr: row 0 for all
};
void layer_norm(const LayerNormParams& p, const Team& team);
void layer_norm_ref(const LayerNormParams& p);

/// y = rope(x / rms(x) * weight): RMS over the whole width, then pairs (2i, 2i+1) of every head are rotated.
/// y may be a slot of the K/V memory, so the cache write costs nothing extra.
struct QkNormRopeParams {
  const float* x = nullptr;  // [rows, heads, head_dim], row stride ldx
  float* y = nullptr;        // [rows, heads, head_dim], row stride ldy; may equal x
  int64_t rows = 0, heads = 0, head_dim = 0, ldx = 0, ldy = 0;
  float eps = 1e-6f;
  const float* weight = nullptr;  // [heads * head_dim]; nullptr: no norm
  const float* cos = nullptr;     // [rows, head_dim / 2]; nullptr: no rotation
  const float* sin = nullptr;     // [rows, head_dim / 2]
};
void qk_norm_rope(const QkNormRopeParams& p, const Team& team);
void qk_norm_rope_ref(const QkNormRopeParams& p);

/// y = act(x / max(|x|, 1e-12) * sqrt(cols) * gamma), |x| the length of a row: a pixel's channels. Zero rows stay zero.
struct ChannelNormParams {
  const float* x = nullptr;  // [rows, cols]
  float* y = nullptr;        // [rows, cols], may equal x
  int64_t rows = 0, cols = 0;
  const float* gamma = nullptr;  // [cols]
  bool silu = false;             // act is x * sigmoid(x), else nothing
};
void channel_norm(const ChannelNormParams& p, const Team& team);
void channel_norm_ref(const ChannelNormParams& p);

}  // namespace wam::kernels
