#pragma once

#include <cstdint>

#include "wamcore/kernels/team.h"

namespace wam::kernels {

/// Where the pixels of a frame lie: channel c of pixel (y, x) is at y * row + x * pixel + c * channel, in floats.
struct PixelStrides {
  int64_t row = 0, pixel = 0, channel = 1;
};

/// y = min(max(x * scale + shift, low), high) per channel. Also how frames change their layout.
struct AffineParams {
  const float* x = nullptr;  // [height, width, channels], strides at_x
  float* y = nullptr;        // [height, width, channels], strides at_y; may equal x if the strides do
  PixelStrides at_x, at_y;
  int64_t height = 0, width = 0, channels = 0;
  const float* scale = nullptr;  // [channels]; nullptr: 1
  const float* shift = nullptr;  // [channels]; nullptr: 0
  float low = -__builtin_inff(), high = __builtin_inff();
};
void affine(const AffineParams& p, const Team& team);
void affine_ref(const AffineParams& p);

/// Every pixel becomes 2 x 2 equal ones.
struct UpsampleParams {
  const float* x = nullptr;                     // [height, width, channels]
  float* y = nullptr;                           // [2 * height, 2 * width, channels]
  PixelStrides at_x, at_y;                      // channels lie together
  int64_t height = 0, width = 0, channels = 0;  // of x
};
void upsample(const UpsampleParams& p, const Team& team);
void upsample_ref(const UpsampleParams& p);

/// Squares of patch x patch pixels become channels, or back: channel (c * patch + i) * patch + j of the small picture
/// is colour c of the pixel in column i, row j of the square.
struct PixelShuffleParams {
  const float* x = nullptr;  // unshuffle: [height * patch, width * patch, colours]; shuffle: [height, width, ...]
  float* y = nullptr;        // the other one
  PixelStrides at_x, at_y;
  int64_t height = 0, width = 0;  // of the small picture
  int64_t colours = 0, patch = 1;
};
void pixel_unshuffle(const PixelShuffleParams& p, const Team& team);
void pixel_unshuffle_ref(const PixelShuffleParams& p);
void pixel_shuffle(const PixelShuffleParams& p, const Team& team);
void pixel_shuffle_ref(const PixelShuffleParams& p);

/// y += averages of x: time x square x square pixels fold into channels (channel slowest, column fastest), then every
/// in * time * square^2 / out neighbours of that list are averaged.
struct AverageDownParams {
  const float* const* x = nullptr;  // [time], each [height * square, width * square, in]; nullptr: a frame of zeros
  float* y = nullptr;               // [height, width, out]
  PixelStrides at_x, at_y;
  int64_t height = 0, width = 0, in = 0, out = 0;
  int64_t time = 1, square = 1;
};
void average_down(const AverageDownParams& p, const Team& team);
void average_down_ref(const AverageDownParams& p);

/// y += x enlarged: channels are repeated and unfold into time x square x square pixels (channel slowest). Makes the
/// frame of index `at` of the `time` ones.
struct RepeatUpParams {
  const float* x = nullptr;  // [height, width, in]
  float* y = nullptr;        // [height * square, width * square, out]
  PixelStrides at_x, at_y;
  int64_t height = 0, width = 0, in = 0, out = 0;
  int64_t time = 1, square = 1, at = 0;
};
void repeat_up(const RepeatUpParams& p, const Team& team);
void repeat_up_ref(const RepeatUpParams& p);

}  // namespace wam::kernels
