#include "wamcore/kernels/attention.h"

#include <limits>

#include "activation.h"
#include "clones.h"

namespace wam::kernels {
namespace {

// One query row of one head: running maximum and sum (online softmax), so no score array is needed.
[[gnu::always_inline]] inline void row_of_head(const AttentionParams& p, int64_t row, int64_t head) {
  const int64_t d = p.head_dim;
  const float* q = p.q + row * p.ldq + head * d;
  alignas(64) float acc[kMaxHeadDim];
  for (int64_t i = 0; i < d; ++i) acc[i] = 0.0f;
  float top = -std::numeric_limits<float>::infinity(), sum = 0.0f;
  int64_t keys = 0;
  for (int64_t s = 0; s < p.span_count; ++s) keys += p.spans[s].rows;
  const float* bias = p.bias ? p.bias + (head * p.rows + row) * keys : nullptr;
  for (int64_t s = 0; s < p.span_count; ++s) {
    const KeySpan& span = p.spans[s];
    constexpr int64_t kTile = 16;
    for (int64_t begin = 0; begin < span.rows; begin += kTile) {
      const int64_t n = std::min(kTile, span.rows - begin);
      float score[kTile];
      float high = top;
      for (int64_t j = 0; j < n; ++j) {
        const float* k = span.k + (begin + j) * span.ldk + head * d;
        float dot[16] = {};  // sixteen partial sums: the compiler may not reorder a single one
        int64_t i = 0;
        for (; i + 16 <= d; i += 16)
          for (int64_t l = 0; l < 16; ++l) dot[l] += q[i + l] * k[i + l];
        float total = 0.0f;
        for (; i < d; ++i) total += q[i] * k[i];
        for (int64_t l = 0; l < 16; ++l) total += dot[l];
        score[j] = total * p.scale + (bias ? bias[j] : 0.0f);
        high = score[j] > high ? score[j] : high;
      }
      if (bias) bias += n;
      if (high == -std::numeric_limits<float>::infinity()) continue;  // every key so far is masked out
      if (high > top) {
        const float shrink = top == -std::numeric_limits<float>::infinity() ? 0.0f : fast_exp(top - high);
        sum *= shrink;
        for (int64_t i = 0; i < d; ++i) acc[i] *= shrink;
        top = high;
      }
      for (int64_t j = 0; j < n; ++j) score[j] = score[j] - top < -87.0f ? 0.0f : fast_exp(score[j] - top);
      for (int64_t j = 0; j < n; ++j) {
        const float* v = span.v + (begin + j) * span.ldv + head * d;
        const float weight = score[j];
        sum += weight;
        for (int64_t i = 0; i < d; ++i) acc[i] += weight * v[i];
      }
    }
  }
  float* out = p.out + row * p.ldo + head * d;
  const float scale = 1.0f / sum;
  if (p.accumulate)
    for (int64_t i = 0; i < d; ++i) out[i] += acc[i] * scale;
  else
    for (int64_t i = 0; i < d; ++i) out[i] = acc[i] * scale;
}

WAMCORE_CLONES void part(const AttentionParams& p, int64_t begin, int64_t end) {
  // Work item i is (head, row), head slowest: neighbours read the same keys.
  for (int64_t i = begin; i < end; ++i) row_of_head(p, i % p.rows, i / p.rows);
}

}  // namespace

void attention(const AttentionParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.rows * p.heads);
  part(p, begin, end);
}

}  // namespace wam::kernels
