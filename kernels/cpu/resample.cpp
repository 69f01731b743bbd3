// Compiled with contraction off: what is one rounding and what is two is written out here.
#include "wamcore/kernels/resample.h"

#include <cmath>

#include "variants.h"

namespace wam::kernels {
namespace {

// The types are PyTorch's: float32 positions, halves added in float64.
void add_antialiased(ResampleWeights& a, int64_t i) {
  const float scale = static_cast<float>(a.from) / static_cast<float>(a.to);
  const float reach = scale >= 1.0f ? scale : 1.0f, inverse = scale >= 1.0f ? 1.0f / scale : 1.0f;
  const float center = static_cast<float>(scale * (static_cast<double>(i) + 0.5));
  const int64_t first = std::max<int64_t>(static_cast<int64_t>((center - reach) + 0.5), 0);
  const int64_t last = std::min(static_cast<int64_t>((center + reach) + 0.5), a.from);
  const int64_t count = std::min(last - first, a.taps);
  float total = 0.0f;
  for (int64_t j = 0; j < count; ++j) {
    const float distance = std::fabs(static_cast<float>((static_cast<float>(j + first) - center + 0.5) * inverse));
    a.weight.push_back(distance < 1.0f ? 1.0f - distance : 0.0f);
    total += a.weight.back();
  }
  for (int64_t j = 0; j < count; ++j) a.weight[static_cast<size_t>(i * a.taps + j)] /= total;
  a.first.push_back(static_cast<int32_t>(first));
  a.count.push_back(static_cast<int32_t>(count));
}

void add_bilinear(ResampleWeights& a, int64_t i) {
  const float scale = static_cast<float>(a.from) / static_cast<float>(a.to);
  const float position = std::max(scale * (static_cast<float>(i) + 0.5f) - 0.5f, 0.0f);
  const int64_t first = std::min(static_cast<int64_t>(position), a.from - 1);
  const float t = position - static_cast<float>(first);
  const bool pair = first + 1 < a.from;
  a.first.push_back(static_cast<int32_t>(first));
  a.count.push_back(pair ? 2 : 1);
  a.weight.push_back(pair ? 1.0f - t : 1.0f);
  if (pair) a.weight.push_back(t);
}

double cubic(double d) {
  return d <= 1.0 ? (1.25 * d - 2.25) * d * d + 1.0 : -0.75 * (((d - 5.0) * d + 8.0) * d - 4.0);
}

void add_bicubic(ResampleWeights& a, int64_t i) {
  const double position =
      (static_cast<double>(i) + 0.5) * static_cast<double>(a.from) / static_cast<double>(a.to) - 0.5;
  const int64_t base = static_cast<int64_t>(std::floor(position));
  const int64_t first = std::clamp<int64_t>(base - 1, 0, a.from - 1),
                last = std::clamp<int64_t>(base + 2, 0, a.from - 1);
  double weight[4] = {};
  for (int64_t k = base - 1; k <= base + 2; ++k)  // what lies outside counts as the border
    weight[std::clamp<int64_t>(k, 0, a.from - 1) - first] += cubic(std::fabs(position - static_cast<double>(k)));
  a.first.push_back(static_cast<int32_t>(first));
  a.count.push_back(static_cast<int32_t>(last - first + 1));
  for (int64_t j = 0; j <= last - first; ++j) a.weight.push_back(static_cast<float>(weight[j]));
}

// Tap q of n joins the sum. PyTorch's compiler multiplies blocks of four taps as vectors, so that their products are
// rounded before they are added one after the other; the taps left over, fewer than four, are fused.
[[gnu::always_inline]] inline float join(float sum, float x, float w, bool fused) {
  return fused ? __builtin_fmaf(x, w, sum) : sum + x * w;
}
[[gnu::always_inline]] inline bool is_fused(int64_t q, int64_t n) { return q > (n - 1) / 4 * 4; }

// One target sample of `inner` values; s points at its first source sample.
[[gnu::always_inline]] inline void sample(const float* s, const float* w, int64_t n, int64_t inner, float* y) {
  if (inner < 16) {
    for (int64_t c = 0; c < inner; ++c) {
      float sum = s[c] * w[0];
      for (int64_t q = 1; q < n; ++q) sum = join(sum, s[q * inner + c], w[q], is_fused(q, n));
      y[c] = sum;
    }
    return;
  }
  for (int64_t c = 0; c < inner; ++c) y[c] = s[c] * w[0];
  for (int64_t q = 1; q < n; ++q) {
    const float *x = s + q * inner, weight = w[q];
    if (is_fused(q, n))
#pragma GCC ivdep
      for (int64_t c = 0; c < inner; ++c) y[c] = join(y[c], x[c], weight, true);
    else
#pragma GCC ivdep
      for (int64_t c = 0; c < inner; ++c) y[c] = join(y[c], x[c], weight, false);
  }
}

// Work item i is (outer, target sample).
template <Isa>
[[gnu::always_inline]] inline void part_loop(const ResampleParams& p, int64_t begin, int64_t end) {
  const ResampleWeights& a = *p.weights;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t o = i / a.to, t = i % a.to;
    sample(p.x + o * p.ldx + a.first[static_cast<size_t>(t)] * p.inner, a.weight.data() + t * a.taps,
           a.count[static_cast<size_t>(t)], p.inner, p.y + o * p.ldy + t * p.inner);
  }
}
WAMCORE_VARIANTS(part, (const ResampleParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

ResampleWeights resample_weights(int64_t from, int64_t to, Resampling kind) {
  ResampleWeights a{.from = from, .to = to, .taps = kind == Resampling::bicubic ? 4 : 2};
  if (kind == Resampling::antialiased) {
    const float scale = static_cast<float>(from) / static_cast<float>(to);
    a.taps = static_cast<int64_t>(std::ceil(scale >= 1.0f ? scale : 1.0f)) * 2 + 1;
  }
  for (int64_t i = 0; i < to; ++i) {
    switch (kind) {
      case Resampling::antialiased:
        add_antialiased(a, i);
        break;
      case Resampling::bilinear:
        add_bilinear(a, i);
        break;
      case Resampling::bicubic:
        add_bicubic(a, i);
        break;
    }
    a.weight.resize(static_cast<size_t>((i + 1) * a.taps));
  }
  return a;
}

void resample(const ResampleParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.outer * p.weights->to);
  part(p, begin, end);
}

}  // namespace wam::kernels
