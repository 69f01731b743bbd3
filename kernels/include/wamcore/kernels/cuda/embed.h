#pragma once

#include "wamcore/kernels/cuda/bf16.h"
#include "wamcore/kernels/cuda/launch.h"

namespace wam::kernels::cuda {

/// Cuts latents into patches of 1 x 2 x 2, channel slowest. Sources are concatenated along the channels.
struct PatchifyParams {
  const float* source[2] = {};                // each [channels[i], frames, height, width]
  int32_t channels[2] = {0, 0};               // 0: no such source
  int32_t frames = 0, height = 0, width = 0;  // height and width are even
  bf16* out = nullptr;                        // [frames * height/2 * width/2, 4 * sum(channels)], row stride ldo
  int64_t ldo = 0;
};
LaunchResult patchify(const PatchifyParams& p, Stream stream);

/// The inverse for a head whose columns are (row in patch, column in patch, channel), channel fastest.
struct UnpatchifyParams {
  const float* x = nullptr;  // [frames * height/2 * width/2, 4 * channels], row stride ldx
  float* out = nullptr;      // [channels, frames, height, width]
  int32_t channels = 0, frames = 0, height = 0, width = 0;
  int64_t ldx = 0;
};
LaunchResult unpatchify(const UnpatchifyParams& p, Stream stream);

/// out[i] = [cos(t w_k) | sin(t w_k)] with w_k = 10000^(-k / (cols / 2)); sin first on request. Angles in float64.
struct SinusoidParams {
  const float* t = nullptr;      // [time rows], timesteps 0..999
  const int32_t* row = nullptr;  // [rows], which t each output row uses; nullptr: row i uses t[i]
  float* out = nullptr;          // [rows, cols], row stride ldo
  int32_t rows = 0, cols = 0;    // cols is even
  int64_t ldo = 0;
  bool cos_first = true;
};
LaunchResult sinusoid(const SinusoidParams& p, Stream stream);

enum class Act : uint8_t { none, gelu_tanh, gelu_erf, silu, relu };
/// y = act(x)
struct ActivationParams {
  const float* x = nullptr;  // [rows, cols], row stride ldx
  float* y = nullptr;        // [rows, cols], row stride ldy; may equal x; or y_narrow
  bf16* y_narrow = nullptr;  // the same, rounded
  int32_t rows = 0, cols = 0;
  int64_t ldx = 0, ldy = 0;
  Act act = Act::none;
};
LaunchResult activation(const ActivationParams& p, Stream stream);

/// y += x
struct AddParams {
  const bf16* x = nullptr;  // [count]
  bf16* y = nullptr;        // [count]
  int64_t count = 0;
};
LaunchResult add(const AddParams& p, Stream stream);

}  // namespace wam::kernels::cuda
