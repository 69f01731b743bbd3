#pragma once

#include <cstdint>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

/// Width of a panel of packed convolution weights, in output channels; the last panel is half as wide if that suffices.
inline constexpr int64_t kConvPanel = 32;
/// Most time taps times rows of taps that a convolution may have; 3 x 3 x 3 has 9.
inline constexpr int64_t kMaxConvRuns = 32;

/// The weight of one convolution as torch stores it, [out, in, time, rows, cols].
struct ConvShape {
  int64_t out = 0, in = 0;
  int64_t time = 1, rows = 1, cols = 1;  // taps
};

/// y = conv(x) + bias [+ residual] over channels-last frames: output frame f reads the input frames f * time_stride +
/// t. Nothing tests for borders: where a tap reaches `pad` pixels outside a frame, the caller keeps pixels of zeros
/// there.
struct ConvParams {
  const float* const* x = nullptr;  // [frames in], each points at pixel (0, 0) of [., ., in]; nullptr: a frame of zeros
  const float* w = nullptr;         // packed, see pack_conv
  const float* bias = nullptr;      // [out], may be nullptr
  float* const* y = nullptr;        // [frames], each [height, width, out]
  const float* const* residual = nullptr;  // [frames], each [height, width, out], may equal y, may be nullptr
  ConvShape shape;
  uint32_t live = ~0u;                        // bit t clear: all weights of time tap t are zero (see pack_conv)
  int64_t frames = 0, height = 0, width = 0;  // of y
  int64_t time_stride = 1, stride = 1;        // in frames; in pixels, both ways
  int64_t pad = 0;                            // zero pixels the first tap reaches above and to the left
  int64_t ldx = 0, ldy = 0, ldr = 0;          // floats from one row of pixels to the next in x, y, residual
};

/// Floats that pack_conv writes.
int64_t packed_conv_size(const ConvShape& shape);
/// Packs w [out, in, time, rows, cols] into [time, panel, rows, cols, in, channel of the panel], zero padded.
/// Returns the mask of time taps that have a weight other than zero.
uint32_t pack_conv(const float* w, const ConvShape& shape, float* packed);

/// Fast path: implicit GEMM over rows of pixels. Time taps that are dead or meet a frame of zeros cost nothing.
void conv(const ConvParams& p, const Team& team);
/// The definition, in float64.
void conv_ref(const ConvParams& p);

}  // namespace wam::kernels
