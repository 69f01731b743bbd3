#include "wamcore/kernels/frames.h"

#include "variants.h"

namespace wam::kernels {
namespace {

[[gnu::always_inline]] inline float clamp(float x, float low, float high) {
  return x < low ? low : x > high ? high : x;
}

template <Isa>
[[gnu::always_inline]] inline void affine_rows_loop(const AffineParams& p, int64_t begin, int64_t end) {
  const int64_t n = p.channels;
  const bool together = p.at_x.channel == 1 && p.at_y.channel == 1;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < p.width; ++j) {
      const float* x = p.x + i * p.at_x.row + j * p.at_x.pixel;
      float* y = p.y + i * p.at_y.row + j * p.at_y.pixel;
      if (together && p.scale && p.shift) {
        for (int64_t c = 0; c < n; ++c) y[c] = clamp(x[c] * p.scale[c] + p.shift[c], p.low, p.high);
      } else {
        for (int64_t c = 0; c < n; ++c) {
          const float scaled = x[c * p.at_x.channel] * (p.scale ? p.scale[c] : 1.0f) + (p.shift ? p.shift[c] : 0.0f);
          y[c * p.at_y.channel] = clamp(scaled, p.low, p.high);
        }
      }
    }
}
WAMCORE_VARIANTS(affine_rows, (const AffineParams& p, int64_t begin, int64_t end), (p, begin, end))

template <Isa>
[[gnu::always_inline]] inline void upsample_rows_loop(const UpsampleParams& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < 2 * p.width; ++j) {
      const float* x = p.x + i / 2 * p.at_x.row + j / 2 * p.at_x.pixel;
      float* y = p.y + i * p.at_y.row + j * p.at_y.pixel;
      for (int64_t c = 0; c < p.channels; ++c) y[c] = x[c];
    }
}
WAMCORE_VARIANTS(upsample_rows, (const UpsampleParams& p, int64_t begin, int64_t end), (p, begin, end))

// Copies between the channels of a small picture and the squares of a large one, whichever way `copy` goes.
template <typename Copy>
[[gnu::always_inline]] inline void shuffled_rows(const PixelShuffleParams& p, const PixelStrides& small,
                                                 const PixelStrides& large, const Team& team, const Copy& copy) {
  const int64_t n = p.patch;
  const auto [begin, end] = team.share(p.height);
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x = 0; x < p.width; ++x)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t i = 0; i < n; ++i) {
          const int64_t from = y * small.row + x * small.pixel + (i * n + j) * small.channel;
          const int64_t to = (y * n + j) * large.row + (x * n + i) * large.pixel;
          for (int64_t c = 0; c < p.colours; ++c) copy(from + c * n * n * small.channel, to + c * large.channel);
        }
}

// With the codecs' own sizes as constants a square is a dozen moves without a loop, three times as fast.
template <typename Copy>
void shuffled(const PixelShuffleParams& p, PixelStrides small, PixelStrides large, const Team& team, Copy&& copy) {
  if (p.patch != 2 || p.colours != 3 || small.channel != 1 || large.channel != 1 || large.pixel != 3)
    return shuffled_rows(p, small, large, team, copy);
  PixelShuffleParams of_codec = p;
  of_codec.patch = 2, of_codec.colours = 3, small.channel = 1, large.channel = 1, large.pixel = 3;
  shuffled_rows(of_codec, small, large, team, copy);
}

constexpr int64_t kMaxFold = 128;  // pixels that fold into one; the codecs fold 2 x 2 x 2

// The folded list is (channel, place in the fold), place fastest; each output averages the next `count` of it.
[[gnu::always_inline]] inline void average_pixel(const float* const* source, int64_t fold, int64_t in, int64_t count,
                                                 float* y) {
  const float scale = 1.0f / static_cast<float>(count);
  int64_t place = 0, channel = 0;
  for (int64_t o = 0; channel < in; ++o) {
    float sum = 0.0f;
    for (int64_t k = 0; k < count; ++k) {
      if (source[place]) sum += source[place][channel];
      if (++place == fold) place = 0, ++channel;
    }
    y[o] += sum * scale;
  }
}

// The same where a channel's places make `parts` whole outputs: this goes along the channels.
[[gnu::always_inline]] inline void average_within_channels(const float* const* source, int64_t in, int64_t count,
                                                           int64_t parts, float* y) {
  const float scale = 1.0f / static_cast<float>(count);
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t k = 0; k < count; ++k) {
      const float* x = source[part * count + k];
      if (!x) continue;
#pragma GCC ivdep
      for (int64_t c = 0; c < in; ++c) y[c * parts + part] += x[c] * scale;
    }
}

template <Isa>
[[gnu::always_inline]] inline void average_down_rows_loop(const AverageDownParams& p, int64_t begin, int64_t end) {
  const int64_t fold = p.time * p.square * p.square, count = p.in * fold / p.out;
  const int64_t parts = fold % count == 0 ? fold / count : 0;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < p.width; ++j) {
      const float* source[kMaxFold];
      int64_t n = 0;
      for (int64_t t = 0; t < p.time; ++t)
        for (int64_t a = 0; a < p.square; ++a)
          for (int64_t b = 0; b < p.square; ++b)
            source[n++] =
                !p.x[t] ? nullptr : p.x[t] + (i * p.square + a) * p.at_x.row + (j * p.square + b) * p.at_x.pixel;
      float* y = p.y + i * p.at_y.row + j * p.at_y.pixel;
      if (parts)
        average_within_channels(source, p.in, count, parts, y);
      else
        average_pixel(source, fold, p.in, count, y);
    }
}
WAMCORE_VARIANTS(average_down_rows, (const AverageDownParams& p, int64_t begin, int64_t end), (p, begin, end))

// Output o repeats channel (o * fold + place) / repeats. Divisions are slow, so the quotient is carried along.
[[gnu::always_inline]] inline void repeat_pixel(const float* x, int64_t fold, int64_t repeats, int64_t place,
                                                int64_t out, float* y) {
  const int64_t step = fold / repeats, more = fold % repeats;
  int64_t channel = place / repeats, rest = place % repeats;
  for (int64_t o = 0; o < out; ++o) {
    y[o] += x[channel];
    channel += step;
    rest += more;
    if (rest >= repeats) rest -= repeats, ++channel;
  }
}

template <Isa>
[[gnu::always_inline]] inline void repeat_up_rows_loop(const RepeatUpParams& p, int64_t begin, int64_t end) {
  const int64_t fold = p.time * p.square * p.square, repeats = p.out * fold / p.in;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < p.width; ++j)
      for (int64_t b = 0; b < p.square; ++b)
        repeat_pixel(p.x + i / p.square * p.at_x.row + j * p.at_x.pixel, fold, repeats,
                     (p.at * p.square + i % p.square) * p.square + b, p.out,
                     p.y + i * p.at_y.row + (j * p.square + b) * p.at_y.pixel);
}
WAMCORE_VARIANTS(repeat_up_rows, (const RepeatUpParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

void affine(const AffineParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.height);
  affine_rows(p, begin, end);
}

void upsample(const UpsampleParams& p, const Team& team) {
  const auto [begin, end] = team.share(2 * p.height);
  upsample_rows(p, begin, end);
}

void pixel_unshuffle(const PixelShuffleParams& p, const Team& team) {
  shuffled(p, p.at_y, p.at_x, team, [&](int64_t small, int64_t large) { p.y[small] = p.x[large]; });
}

void pixel_shuffle(const PixelShuffleParams& p, const Team& team) {
  shuffled(p, p.at_x, p.at_y, team, [&](int64_t small, int64_t large) { p.y[large] = p.x[small]; });
}

void average_down(const AverageDownParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.height);
  average_down_rows(p, begin, end);
}

void repeat_up(const RepeatUpParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.height * p.square);
  repeat_up_rows(p, begin, end);
}

}  // namespace wam::kernels
