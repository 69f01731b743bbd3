#include "wamcore/kernels/norm.h"

#include <cmath>

#include "activation.h"
#include "variants.h"

namespace wam::kernels {
namespace {

typedef float Vec4 __attribute__((vector_size(16)));
typedef float Vec8 __attribute__((vector_size(32)));

// The sum of sixteen floats by halving: shuffles, no detour through memory.
[[gnu::always_inline]] inline float sum16(const float* x) {
  Vec8 low, high;
  __builtin_memcpy(&low, x, sizeof low);
  __builtin_memcpy(&high, x + 8, sizeof high);
  low += high;
  Vec4 quarter, other;
  __builtin_memcpy(&quarter, &low, sizeof quarter);
  __builtin_memcpy(&other, reinterpret_cast<const float*>(&low) + 4, sizeof other);
  quarter += other;
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

// Sixteen partial sums let the compiler vectorise a reduction without fast-math.
template <typename F>
[[gnu::always_inline]] inline float reduce(int64_t n, F&& f) {
  float part[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t l = 0; l < 16; ++l) part[l] += f(i + l);
  float total = 0.0f;
  for (; i < n; ++i) total += f(i);
  return total + sum16(part);
}

template <Isa>
[[gnu::always_inline]] inline void layer_norm_rows_loop(const LayerNormParams& p, int64_t begin, int64_t end) {
  const int64_t n = p.cols;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = p.x + row * p.ldx;
    float* y = p.y + row * p.ldy;
    const float mean = reduce(n, [&](int64_t i) { return x[i]; }) / static_cast<float>(n);
    const float var = reduce(n, [&](int64_t i) { return (x[i] - mean) * (x[i] - mean); }) / static_cast<float>(n);
    const float inv = 1.0f / std::sqrt(var + p.eps);
    if (p.weight)
      for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * inv * p.weight[i] + p.bias[i];
    else
      for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * inv;
    if (p.shift) {
      const int64_t at = (p.time_row ? p.time_row[row] : 0) * p.ldm;
      const float *shift = p.shift + at, *scale = p.scale + at;
      for (int64_t i = 0; i < n; ++i) y[i] = y[i] * (1.0f + scale[i]) + shift[i];
    }
  }
}
WAMCORE_VARIANTS(layer_norm_rows, (const LayerNormParams& p, int64_t begin, int64_t end), (p, begin, end))

template <Isa>
[[gnu::always_inline]] inline void qk_norm_rope_rows_loop(const QkNormRopeParams& p, int64_t begin, int64_t end) {
  const int64_t width = p.heads * p.head_dim, half = p.head_dim / 2;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = p.x + row * p.ldx;
    float* y = p.y + row * p.ldy;
    if (p.weight) {
      const float square = reduce(width, [&](int64_t i) { return x[i] * x[i]; });
      const float inv = 1.0f / std::sqrt(square / static_cast<float>(width) + p.eps);
      for (int64_t i = 0; i < width; ++i) y[i] = x[i] * inv * p.weight[i];
    } else if (y != x) {
      for (int64_t i = 0; i < width; ++i) y[i] = x[i];
    }
    if (!p.cos) continue;
    const float *c = p.cos + row * half, *s = p.sin + row * half;
    for (int64_t head = 0; head < p.heads; ++head) {
      float* h = y + head * p.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const float a = h[2 * i], b = h[2 * i + 1];
        h[2 * i] = a * c[i] - b * s[i];
        h[2 * i + 1] = a * s[i] + b * c[i];
      }
    }
  }
}
WAMCORE_VARIANTS(qk_norm_rope_rows, (const QkNormRopeParams& p, int64_t begin, int64_t end), (p, begin, end))

// A pixel has few channels: the activation runs over many at once.
template <Isa>
[[gnu::always_inline]] inline void channel_norm_rows_loop(const ChannelNormParams& p, int64_t begin, int64_t end) {
  const int64_t n = p.cols, block = std::max<int64_t>(1, 2048 / n);
  const float length = std::sqrt(static_cast<float>(n));
  for (int64_t first = begin; first < end; first += block) {
    const int64_t last = std::min(first + block, end);
    for (int64_t row = first; row < last; ++row) {
      const float* x = p.x + row * n;
      float* y = p.y + row * n;
      const float norm = std::sqrt(reduce(n, [&](int64_t i) { return x[i] * x[i]; }));
      const float inv = length / (norm < 1e-12f ? 1e-12f : norm);
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inv * p.gamma[i];
    }
    if (p.silu) activate(Activation::silu, p.y + first * n, (last - first) * n);
  }
}
WAMCORE_VARIANTS(channel_norm_rows, (const ChannelNormParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

void layer_norm(const LayerNormParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.rows);
  layer_norm_rows(p, begin, end);
}

void qk_norm_rope(const QkNormRopeParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.rows);
  qk_norm_rope_rows(p, begin, end);
}

void channel_norm(const ChannelNormParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.rows);
  channel_norm_rows(p, begin, end);
}

}  // namespace wam::kernels
