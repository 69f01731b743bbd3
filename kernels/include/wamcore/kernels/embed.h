#pragma once

#include <cstdint>

#include "wamcore/kernels/gemm.h"
#include "wamcore/kernels/team.h"

namespace wam::kernels {

/// y = act(x)
struct ActivationParams {
  const float* x = nullptr;  // [rows, cols], row stride ldx
  float* y = nullptr;        // [rows, cols], row stride ldy; may equal x
  int64_t rows = 0, cols = 0, ldx = 0, ldy = 0;
  Activation activation = Activation::none;
};
void activation(const ActivationParams& p, const Team& team);

/// out[i] = [cos(t w_k) | sin(t w_k)] with w_k = 10000^(-k / (cols / 2)); sin first on request. Angles in float64.
struct SinusoidParams {
  const float* t = nullptr;      // [time rows], timesteps 0..999
  const int32_t* row = nullptr;  // [rows], which t each output row uses; nullptr: row i uses t[i]
  float* out = nullptr;          // [rows, cols], row stride ldo
  int64_t rows = 0, cols = 0, ldo = 0;
  bool cos_first = true;
};
void sinusoid(const SinusoidParams& p, const Team& team);

/// Cuts latents into patches of 1 x 2 x 2, channel slowest, as a Conv3d with kernel = stride reads them.
/// Several sources are concatenated along the channels.
struct PatchifyParams {
  const float* const* sources = nullptr;  // each [channels[i], frames, height, width]
  const int64_t* channels = nullptr;      // [count]
  int64_t count = 0, frames = 0, height = 0, width = 0;
  float* out = nullptr;  // [frames * height/2 * width/2, 4 * sum(channels)], row stride ldo
  int64_t ldo = 0;
};
void patchify(const PatchifyParams& p, const Team& team);

/// The inverse for a head whose columns are (row in patch, column in patch, channel), channel fastest.
struct UnpatchifyParams {
  const float* x = nullptr;  // [frames * height/2 * width/2, 4 * channels], row stride ldx
  float* out = nullptr;      // [channels, frames, height, width]
  int64_t channels = 0, frames = 0, height = 0, width = 0, ldx = 0;
};
void unpatchify(const UnpatchifyParams& p, const Team& team);

/// out[r, j] = table[j] + time[r, broadcast ? j % time_cols : j]: a block's modulation for every distinct timestep.
struct ModulationParams {
  const float* table = nullptr;  // [cols]
  const float* time = nullptr;   // [rows, time_cols], row stride ldt
  float* out = nullptr;          // [rows, cols], row stride ldo
  int64_t rows = 0, cols = 0, time_cols = 0, ldt = 0, ldo = 0;
};
void modulation(const ModulationParams& p, const Team& team);

/// out = sum_i coefficient[i] * term[i]: guidance, Euler and UniPC updates are all of this form.
struct CombineParams {
  float* out = nullptr;  // [n]; may equal a term
  int64_t n = 0;
  int count = 0;              // terms, at most 6
  const float* term[6] = {};  // each [n]
  double coefficient[6] = {};
};
void combine(const CombineParams& p, const Team& team);

}  // namespace wam::kernels
