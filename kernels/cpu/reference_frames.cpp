// The definitions of the kernels on frames in float64, written for reading. Tests compare every fast version with
// these.
#include <algorithm>
#include <cmath>
#include <vector>

#include "wamcore/kernels/conv.h"
#include "wamcore/kernels/frames.h"
#include "wamcore/kernels/norm.h"
#include "wamcore/kernels/resample.h"

namespace wam::kernels {
namespace {

int64_t place(const PixelStrides& s, int64_t y, int64_t x, int64_t c) {
  return y * s.row + x * s.pixel + c * s.channel;
}

// Unpacks weight (o, c, t, r, q): panels are kConvPanel wide, the last 16 where that is enough.
float conv_weight(const ConvParams& p, int64_t o, int64_t c, int64_t t, int64_t r, int64_t q) {
  const ConvShape& s = p.shape;
  const int64_t panel = o / kConvPanel * kConvPanel, lanes = s.out - panel <= 16 ? 16 : kConvPanel;
  const int64_t taps = s.rows * s.cols * s.in, padded = (s.out + 15) / 16 * 16;
  return p.w[(t * padded + panel) * taps + ((r * s.cols + q) * s.in + c) * lanes + o % kConvPanel];
}

double conv_sum(const ConvParams& p, int64_t f, int64_t y, int64_t x, int64_t o) {
  const ConvShape& s = p.shape;
  double sum = p.bias ? p.bias[o] : 0.0;
  for (int64_t t = 0; t < s.time; ++t) {
    const float* frame = p.x[f * p.time_stride + t];
    if (!frame) continue;
    for (int64_t r = 0; r < s.rows; ++r)
      for (int64_t q = 0; q < s.cols; ++q)
        for (int64_t c = 0; c < s.in; ++c)
          sum += double(frame[(y * p.stride + r - p.pad) * p.ldx + (x * p.stride + q - p.pad) * s.in + c]) *
                 conv_weight(p, o, c, t, r, q);
  }
  return sum;
}

}  // namespace

void conv_ref(const ConvParams& p) {
  for (int64_t f = 0; f < p.frames; ++f)
    for (int64_t y = 0; y < p.height; ++y)
      for (int64_t x = 0; x < p.width; ++x)
        for (int64_t o = 0; o < p.shape.out; ++o) {
          const double before = p.residual ? p.residual[f][y * p.ldr + x * p.shape.out + o] : 0.0;
          p.y[f][y * p.ldy + x * p.shape.out + o] = float(before + conv_sum(p, f, y, x, o));
        }
}

void channel_norm_ref(const ChannelNormParams& p) {
  for (int64_t r = 0; r < p.rows; ++r) {
    double square = 0;
    for (int64_t c = 0; c < p.cols; ++c) square += double(p.x[r * p.cols + c]) * p.x[r * p.cols + c];
    for (int64_t c = 0; c < p.cols; ++c) {
      const double z =
          p.x[r * p.cols + c] / std::max(std::sqrt(square), 1e-12) * std::sqrt(double(p.cols)) * p.gamma[c];
      p.y[r * p.cols + c] = float(p.silu ? z / (1 + std::exp(-z)) : z);
    }
  }
}

void affine_ref(const AffineParams& p) {
  for (int64_t i = 0; i < p.height; ++i)
    for (int64_t j = 0; j < p.width; ++j)
      for (int64_t c = 0; c < p.channels; ++c) {
        const double x = p.x[place(p.at_x, i, j, c)];
        const double y = x * (p.scale ? p.scale[c] : 1.0f) + (p.shift ? p.shift[c] : 0.0f);
        p.y[place(p.at_y, i, j, c)] = float(std::min<double>(std::max<double>(y, p.low), p.high));
      }
}

void upsample_ref(const UpsampleParams& p) {
  for (int64_t i = 0; i < 2 * p.height; ++i)
    for (int64_t j = 0; j < 2 * p.width; ++j)
      for (int64_t c = 0; c < p.channels; ++c) p.y[place(p.at_y, i, j, c)] = p.x[place(p.at_x, i / 2, j / 2, c)];
}

void pixel_unshuffle_ref(const PixelShuffleParams& p) {
  const int64_t n = p.patch;
  for (int64_t y = 0; y < p.height * n; ++y)
    for (int64_t x = 0; x < p.width * n; ++x)
      for (int64_t c = 0; c < p.colours; ++c)
        p.y[place(p.at_y, y / n, x / n, (c * n + x % n) * n + y % n)] = p.x[place(p.at_x, y, x, c)];
}

void pixel_shuffle_ref(const PixelShuffleParams& p) {
  const int64_t n = p.patch;
  for (int64_t y = 0; y < p.height * n; ++y)
    for (int64_t x = 0; x < p.width * n; ++x)
      for (int64_t c = 0; c < p.colours; ++c)
        p.y[place(p.at_y, y, x, c)] = p.x[place(p.at_x, y / n, x / n, (c * n + x % n) * n + y % n)];
}

void average_down_ref(const AverageDownParams& p) {
  for (int64_t i = 0; i < p.height; ++i)
    for (int64_t j = 0; j < p.width; ++j) {
      std::vector<double> folded;
      for (int64_t c = 0; c < p.in; ++c)
        for (int64_t a = 0; a < p.time; ++a)
          for (int64_t b = 0; b < p.square; ++b)
            for (int64_t q = 0; q < p.square; ++q)
              folded.push_back(p.x[a] ? p.x[a][place(p.at_x, i * p.square + b, j * p.square + q, c)] : 0.0);
      const size_t count = folded.size() / size_t(p.out);
      for (int64_t o = 0; o < p.out; ++o) {
        double sum = 0;
        for (size_t k = 0; k < count; ++k) sum += folded[size_t(o) * count + k];
        p.y[place(p.at_y, i, j, o)] += float(sum / double(count));
      }
    }
}

void repeat_up_ref(const RepeatUpParams& p) {
  const int64_t repeats = p.out * p.time * p.square * p.square / p.in;
  for (int64_t i = 0; i < p.height; ++i)
    for (int64_t j = 0; j < p.width; ++j) {
      std::vector<float> repeated;  // reads as [out, time, square, square]
      for (int64_t c = 0; c < p.in; ++c)
        for (int64_t k = 0; k < repeats; ++k) repeated.push_back(p.x[place(p.at_x, i, j, c)]);
      for (int64_t o = 0; o < p.out; ++o)
        for (int64_t b = 0; b < p.square; ++b)
          for (int64_t q = 0; q < p.square; ++q)
            p.y[place(p.at_y, i * p.square + b, j * p.square + q, o)] +=
                repeated[size_t(((o * p.time + p.at) * p.square + b) * p.square + q)];
    }
}

void resample_ref(const ResampleParams& p) {
  const ResampleWeights& a = *p.weights;
  for (int64_t o = 0; o < p.outer; ++o)
    for (int64_t t = 0; t < a.to; ++t)
      for (int64_t c = 0; c < p.inner; ++c) {
        double sum = 0;
        for (int64_t q = 0; q < a.count[size_t(t)]; ++q)
          sum += double(p.x[o * p.ldx + (a.first[size_t(t)] + q) * p.inner + c]) * a.weight[size_t(t * a.taps + q)];
        p.y[o * p.ldy + t * p.inner + c] = float(sum);
      }
}

}  // namespace wam::kernels
