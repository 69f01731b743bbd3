#include "wamcore/kernels/attention.h"

#include <limits>

#include "activation.h"
#include "variants.h"

namespace wam::kernels {
namespace {

constexpr int64_t kKeys = 16;  // keys of a tile
constexpr int64_t kRows = 48;  // query rows that share a transposed tile of keys
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// What is known of some query rows of one head after a number of keys (online softmax: no score array is needed).
struct State {
  alignas(64) float top[kRows];  // highest score
  alignas(64) float sum[kRows];  // of exp(score - top)
  float* acc = nullptr;          // [kRows, head_dim], sum of exp(score - top) * value
};

// A tile of keys of one head.
struct Tile {
  const float* kt = nullptr;  // [head_dim, kKeys], transposed, zero beyond `keys`
  const float* v = nullptr;   // [keys, head_dim], row stride ldv
  int64_t keys = 0, ldv = 0;
};

// The scores of N query rows, and what they do to the rows' states. q points at the first row's head, bias at its
// first key.
template <Isa I, int N>
[[gnu::always_inline]] inline void rows_of_tile(const AttentionParams& p, const float* q, const Tile& tile,
                                                const float* bias, int64_t ldb, State& state, int64_t first) {
  using Vec = typename Simd<I>::Vec;
  constexpr int64_t kLanes = Simd<I>::lanes;
  constexpr int kParts = kKeys / kLanes;
  const int64_t d = p.head_dim;
  Vec score[N][kParts];
  for (int r = 0; r < N; ++r)
    for (int c = 0; c < kParts; ++c) score[r][c] = Vec{};
  for (int64_t i = 0; i < d; ++i) {
    Vec k[kParts];
    for (int c = 0; c < kParts; ++c) load(k[c], tile.kt + i * kKeys + c * kLanes);
    for (int r = 0; r < N; ++r)
      for (int c = 0; c < kParts; ++c) score[r][c] += q[r * p.ldq + i] * k[c];
  }
  alignas(64) float weight[N][kKeys];
  for (int r = 0; r < N; ++r) {
    for (int c = 0; c < kParts; ++c) store(weight[r] + c * kLanes, score[r][c]);
    for (int64_t j = 0; j < tile.keys; ++j) weight[r][j] *= p.scale;
    float &top = state.top[first + r], &sum = state.sum[first + r], high = top;
    if (bias)
      for (int64_t j = 0; j < tile.keys; ++j) weight[r][j] += bias[r * ldb + j];
    for (int64_t j = tile.keys; j < kKeys; ++j) weight[r][j] = kNothing;
    for (int64_t j = 0; j < tile.keys; ++j) high = weight[r][j] > high ? weight[r][j] : high;
    float* acc = state.acc + (first + r) * d;
    if (high == kNothing) {  // every key so far is masked out
      for (int64_t j = 0; j < kKeys; ++j) weight[r][j] = 0.0f;
      continue;
    }
    if (high > top) {
      const float shrink = top == kNothing ? 0.0f : fast_exp(top - high);
      sum *= shrink;
      for (int64_t i = 0; i < d; ++i) acc[i] *= shrink;
      top = high;
    }
    for (int64_t j = 0; j < kKeys; ++j) {
      const float x = weight[r][j] - high;
      weight[r][j] = x < -87.0f ? 0.0f : fast_exp(x);
    }
    for (int64_t j = 0; j < tile.keys; ++j) sum += weight[r][j];
  }
  const auto add = [&](int64_t i, auto width) [[gnu::always_inline]] {
    constexpr int kVecs = decltype(width)::value;
    Vec a[N][kVecs];
    for (int r = 0; r < N; ++r)
      for (int c = 0; c < kVecs; ++c) load(a[r][c], state.acc + (first + r) * d + i + c * kLanes);
    for (int64_t j = 0; j < tile.keys; ++j) {
      Vec v[kVecs];
      for (int c = 0; c < kVecs; ++c) load(v[c], tile.v + j * tile.ldv + i + c * kLanes);
      for (int r = 0; r < N; ++r)
        for (int c = 0; c < kVecs; ++c) a[r][c] += weight[r][j] * v[c];
    }
    for (int r = 0; r < N; ++r)
      for (int c = 0; c < kVecs; ++c) store(state.acc + (first + r) * d + i + c * kLanes, a[r][c]);
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= d; i += 2 * kLanes) add(i, std::integral_constant<int, 2>{});
  for (; i + kLanes <= d; i += kLanes) add(i, std::integral_constant<int, 1>{});
  for (; i < d; ++i)
    for (int r = 0; r < N; ++r)
      for (int64_t j = 0; j < tile.keys; ++j) state.acc[(first + r) * d + i] += weight[r][j] * tile.v[j * tile.ldv + i];
}

template <Isa I, int N>
[[gnu::always_inline]] inline void some_rows(int64_t rows, const AttentionParams& p, const float* q, const Tile& tile,
                                             const float* bias, int64_t ldb, State& state, int64_t first) {
  if constexpr (N > 1) {
    if (rows < N) return some_rows<I, N - 1>(rows, p, q, tile, bias, ldb, state, first);
  }
  rows_of_tile<I, N>(p, q, tile, bias, ldb, state, first);
}

// Rows [row, row + rows) of one head, rows <= kRows.
template <Isa I>
[[gnu::always_inline]] inline void block(const AttentionParams& p, int64_t head, int64_t row, int64_t rows,
                                         State& state, float* kt) {
  const int64_t d = p.head_dim;
  const float* q = p.q + row * p.ldq + head * d;
  std::fill(state.top, state.top + rows, kNothing);
  std::fill(state.sum, state.sum + rows, 0.0f);
  std::fill(state.acc, state.acc + rows * d, 0.0f);
  int64_t keys = 0;
  for (int64_t s = 0; s < p.span_count; ++s) keys += p.spans[s].rows;
  const float* bias = p.bias ? p.bias + (head * p.rows + row) * keys : nullptr;
  for (int64_t s = 0; s < p.span_count; ++s) {
    const KeySpan& span = p.spans[s];
    for (int64_t begin = 0; begin < span.rows; begin += kKeys) {
      const Tile tile{.kt = kt,
                      .v = span.v + begin * span.ldv + head * d,
                      .keys = std::min(kKeys, span.rows - begin),
                      .ldv = span.ldv};
      const float* k = span.k + begin * span.ldk + head * d;
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < kKeys; ++j) kt[i * kKeys + j] = j < tile.keys ? k[j * span.ldk + i] : 0.0f;
      // Rows that share what is loaded of a tile.
      constexpr int kQueries = I == Isa::avx512 ? 6 : I == Isa::avx2 || I == Isa::neon ? 4 : 2;
      for (int64_t r = 0; r < rows; r += kQueries)
        some_rows<I, kQueries>(std::min<int64_t>(kQueries, rows - r), p, q + r * p.ldq, tile,
                               bias ? bias + r * keys : nullptr, keys, state, r);
      if (bias) bias += tile.keys;
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* out = p.out + (row + r) * p.ldo + head * d;
    const float* acc = state.acc + r * d;
    const float scale = 1.0f / state.sum[r];
    if (p.accumulate)
      for (int64_t i = 0; i < d; ++i) out[i] += acc[i] * scale;
    else
      for (int64_t i = 0; i < d; ++i) out[i] = acc[i] * scale;
  }
}

// Work item i is (head, row), head slowest: neighbours read the same keys.
template <Isa I>
[[gnu::always_inline]] inline void part_loop(const AttentionParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kFloats = 8192;  // of sums at once: wide heads take fewer rows
  alignas(64) float acc[kFloats], kt[kMaxHeadDim * kKeys];
  const int64_t most = std::min(kRows, kFloats / p.head_dim);
  State state;
  state.acc = acc;
  for (int64_t i = begin; i < end;) {
    const int64_t row = i % p.rows, rows = std::min({most, p.rows - row, end - i});
    block<I>(p, i / p.rows, row, rows, state, kt);
    i += rows;
  }
}
WAMCORE_VARIANTS(part, (const AttentionParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

void attention(const AttentionParams& p, const Team& team) {
  const auto [begin, end] = team.share(p.rows * p.heads);
  part(p, begin, end);
}

}  // namespace wam::kernels
