#include "wamcore/kernels/attention.h"

#include <limits>

#include "activation.h"
#include "variants.h"

namespace wam::kernels {
namespace {

constexpr int64_t kKeys = 32;       // keys of a tile
constexpr int64_t kRows = 256;      // most query rows that share a tile of keys while it is in the first cache
constexpr int64_t kFloats = 16384;  // of their sums: wide heads take fewer rows
constexpr float kNothing = -std::numeric_limits<float>::infinity();

typedef float Vec4 __attribute__((vector_size(16)));

// Query rows lie abreast in registers, so that keys and values are read where they are, number by number, and highest
// scores and sums of weights need nothing but vertical instructions. A group of rows is three registers wide.
template <Isa I>
inline constexpr int kVecs = 3;
template <Isa I>
inline constexpr int kDeep = kManyRegisters<I> ? 8 : 4;  // keys, or numbers of a head, that share a load of the rows

// What is known of some query rows of one head after a number of keys (online softmax: no score array is needed).
struct Group {
  const float* q = nullptr;  // [head_dim, width], scaled, zero beyond `rows`
  float* acc = nullptr;      // [head_dim, width], sum of exp(score - top) * value
  float* top = nullptr;      // [width], highest score
  float* sum = nullptr;      // [width], of exp(score - top)
  int64_t rows = 0;
};

// A tile of keys of one head.
struct Tile {
  const float *k = nullptr, *v = nullptr;  // [keys, head_dim], row strides ldk, ldv
  int64_t keys = 0, ldk = 0, ldv = 0, head_dim = 0;
  const float* bias = nullptr;  // [rows, keys], row stride ldb, of the group's first row and the first key
  int64_t ldb = 0;
};

// c [m, width] of a tile and b [k, width]: scores of keys, a [m, k]; or sums of values, a [k, m], which are added to
// shrunken ones.
struct Product {
  const float* a = nullptr;
  int64_t lda = 0, m = 0, k = 0;
  const float* b = nullptr;
  float* c = nullptr;
  const float* shrink = nullptr;  // [width], for values
};

// Loops over registers abreast say that they are unrolled: left to itself the compiler keeps sums on the stack with
// AVX2.
template <Isa I, bool Values, int M, int V>
[[gnu::always_inline]] inline void multiply_rows(const Product& p, int64_t first) {
  using Vec = typename Simd<I>::Vec;
  constexpr int64_t kLanes = Simd<I>::lanes, kWidth = V * kLanes;
  constexpr int kPointers = Values ? 1 : (M + 2) / 3;  // one for every third row, as many as there are registers for
  const float* at[kPointers];
  for (int i = 0; i < kPointers; ++i) at[i] = p.a + (Values ? first : (first + 3 * i) * p.lda);
  float* c = p.c + first * kWidth;
  Vec sum[M][V];
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) {
    Vec shrink = {};
    if constexpr (Values) load(shrink, p.shrink + v * kLanes);
    for (int m = 0; m < M; ++m) {
      sum[m][v] = Vec{};
      if constexpr (Values) {
        load(sum[m][v], c + m * kWidth + v * kLanes);
        sum[m][v] *= shrink;
      }
    }
  }
  for (int64_t i = 0; i < p.k; ++i) {
    Vec b[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) load(b[v], p.b + i * kWidth + v * kLanes);
    for (int m = 0; m < M; ++m) {
      const float value = Values ? at[0][i * p.lda + m] : at[m / 3 % kPointers][m % 3 * p.lda + i];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[m][v] += value * b[v];
    }
  }
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) store(c + m * kWidth + v * kLanes, sum[m][v]);
}

template <Isa I, bool Values, int M, int V>
[[gnu::always_inline]] inline void multiply(const Product& p, int64_t first = 0) {
  for (; first + M <= p.m; first += M) multiply_rows<I, Values, M, V>(p, first);
  if constexpr (M > 1) multiply<I, Values, M / 2, V>(p, first);
}

// What a tile of keys does to a group of V registers of rows.
template <Isa I, int V>
[[gnu::always_inline]] inline void attend(const Group& g, const Tile& t) {
  constexpr int64_t kWidth = V * Simd<I>::lanes;
  alignas(64) float weight[kKeys * kWidth], high[kWidth], shrink[kWidth];
  multiply<I, false, kDeep<I>, V>({.a = t.k, .lda = t.ldk, .m = t.keys, .k = t.head_dim, .b = g.q, .c = weight});
  if (t.bias)
    for (int64_t r = 0; r < g.rows; ++r)
      for (int64_t j = 0; j < t.keys; ++j) weight[j * kWidth + r] += t.bias[r * t.ldb + j];
  for (int64_t r = 0; r < kWidth; ++r) high[r] = g.top[r];
  for (int64_t j = 0; j < t.keys; ++j)
    for (int64_t r = 0; r < kWidth; ++r) {
      const float w = weight[j * kWidth + r];
      high[r] = w > high[r] ? w : high[r];
    }
  for (int64_t r = 0; r < kWidth; ++r) {
    const float base = high[r] == kNothing ? 0.0f : high[r];  // nothing: every key so far is masked out
    const float x = g.top[r] - base;
    shrink[r] = x < -87.0f ? 0.0f : exp_within(x < -87.0f ? -87.0f : x);
    g.top[r] = high[r];
    high[r] = base;
    g.sum[r] *= shrink[r];
  }
  for (int64_t j = 0; j < t.keys; ++j)
    for (int64_t r = 0; r < kWidth; ++r) {
      const float x = weight[j * kWidth + r] - high[r];
      const float w = exp_within(x < -87.0f ? -87.0f : x);
      weight[j * kWidth + r] = x < -87.0f ? 0.0f : w;
      g.sum[r] += weight[j * kWidth + r];
    }
  multiply<I, true, kDeep<I>, V>(
      {.a = t.v, .lda = t.ldv, .m = t.head_dim, .k = t.keys, .b = weight, .c = g.acc, .shrink = shrink});
}

// y [cols, rows] = x [rows, cols], row strides ldx and ldy; Add: added to y.
template <bool Add>
[[gnu::always_inline]] inline void transpose(int64_t rows, int64_t cols, const float* x, int64_t ldx, float* y,
                                             int64_t ldy) {
  const auto put = [](float* to, Vec4 v) [[gnu::always_inline]] {
    Vec4 old = {};
    if constexpr (Add) load(old, to);
    store(to, Add ? old + v : v);
  };
  const auto one = [&](int64_t r, int64_t c)
                       [[gnu::always_inline]] { y[c * ldy + r] = (Add ? y[c * ldy + r] : 0.0f) + x[r * ldx + c]; };
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      Vec4 a[4];
      for (int i = 0; i < 4; ++i) load(a[i], x + (r + i) * ldx + c);
      const Vec4 low01 = __builtin_shufflevector(a[0], a[1], 0, 4, 1, 5);
      const Vec4 low23 = __builtin_shufflevector(a[2], a[3], 0, 4, 1, 5);
      const Vec4 high01 = __builtin_shufflevector(a[0], a[1], 2, 6, 3, 7);
      const Vec4 high23 = __builtin_shufflevector(a[2], a[3], 2, 6, 3, 7);
      put(y + c * ldy + r, __builtin_shufflevector(low01, low23, 0, 1, 4, 5));
      put(y + (c + 1) * ldy + r, __builtin_shufflevector(low01, low23, 2, 3, 6, 7));
      put(y + (c + 2) * ldy + r, __builtin_shufflevector(high01, high23, 0, 1, 4, 5));
      put(y + (c + 3) * ldy + r, __builtin_shufflevector(high01, high23, 2, 3, 6, 7));
    }
    for (; c < cols; ++c)
      for (int64_t i = r; i < r + 4; ++i) one(i, c);
  }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) one(r, c);
}

// Calls with(width) as a constant number of registers, 1 to kVecs, which `rows` rows fill or all but fill.
template <Isa I, typename F>
[[gnu::always_inline]] inline void in_registers(int64_t rows, F&& with) {
  constexpr int64_t kLanes = Simd<I>::lanes;
  if (rows > 2 * kLanes) return with(std::integral_constant<int, 3>{});
  if (rows > kLanes) return with(std::integral_constant<int, 2>{});
  with(std::integral_constant<int, 1>{});
}

// Room for the rows of a block, groups one after the other.
struct Room {
  alignas(64) float q[kFloats];
  alignas(64) float acc[kFloats];
  alignas(64) float top[kRows];
  alignas(64) float sum[kRows];
};

// Rows [row, row + rows) of one head, which fit the room.
template <Isa I>
[[gnu::always_inline]] inline void block(const AttentionParams& p, int64_t head, int64_t row, int64_t rows,
                                         Room& room) {
  constexpr int64_t kLanes = Simd<I>::lanes, kWidest = kVecs<I> * kLanes;
  const int64_t d = p.head_dim, padded = (rows + kLanes - 1) / kLanes * kLanes;
  std::fill_n(room.top, padded, kNothing);
  std::fill_n(room.sum, padded, 0.0f);
  std::fill_n(room.acc, padded * d, 0.0f);
  std::fill_n(room.q, padded * d, 0.0f);
  const auto group = [&](int64_t first) [[gnu::always_inline]] {
    return Group{.q = room.q + first * d,
                 .acc = room.acc + first * d,
                 .top = room.top + first,
                 .sum = room.sum + first,
                 .rows = std::min(kWidest, rows - first)};
  };
  for (int64_t first = 0; first < rows; first += kWidest) {
    const Group g = group(first);
    const int64_t width = std::min(kWidest, padded - first);
    transpose<false>(g.rows, d, p.q + (row + first) * p.ldq + head * d, p.ldq, room.q + first * d, width);
  }
  for (int64_t i = 0; i < padded * d; ++i) room.q[i] *= p.scale;
  int64_t keys = 0;
  for (int64_t s = 0; s < p.span_count; ++s) keys += p.spans[s].rows;
  const float* bias = p.bias ? p.bias + (head * p.rows + row) * keys : nullptr;
  for (int64_t s = 0; s < p.span_count; ++s) {
    const KeySpan& span = p.spans[s];
    for (int64_t begin = 0; begin < span.rows; begin += kKeys) {
      Tile tile{.k = span.k + begin * span.ldk + head * d,
                .v = span.v + begin * span.ldv + head * d,
                .keys = std::min(kKeys, span.rows - begin),
                .ldk = span.ldk,
                .ldv = span.ldv,
                .head_dim = d,
                .ldb = keys};
      for (int64_t first = 0; first < rows; first += kWidest) {
        if (bias) tile.bias = bias + first * keys;
        const Group g = group(first);
        in_registers<I>(g.rows, [&](auto width) [[gnu::always_inline]] { attend<I, decltype(width)::value>(g, tile); });
      }
      if (bias) bias += tile.keys;
    }
  }
  for (int64_t first = 0; first < rows; first += kWidest) {
    const Group g = group(first);
    const int64_t width = std::min(kWidest, padded - first);
    in_registers<I>(g.rows, [&](auto registers) [[gnu::always_inline]] {
      constexpr int64_t kWidth = decltype(registers)::value * kLanes;
      for (int64_t r = 0; r < kWidth; ++r) g.sum[r] = 1.0f / g.sum[r];
      for (int64_t i = 0; i < d; ++i)
#pragma GCC ivdep
        for (int64_t r = 0; r < kWidth; ++r) g.acc[i * kWidth + r] *= g.sum[r];
    });
    float* out = p.out + (row + first) * p.ldo + head * d;
    if (p.accumulate)
      transpose<true>(d, g.rows, g.acc, width, out, p.ldo);
    else
      transpose<false>(d, g.rows, g.acc, width, out, p.ldo);
  }
}

// Work item i is (head, row), head slowest: neighbours read the same keys.
template <Isa I>
[[gnu::always_inline]] inline void part_loop(const AttentionParams& p, int64_t begin, int64_t end) {
  constexpr int64_t kLanes = Simd<I>::lanes;
  const int64_t most = std::min(kRows, kFloats / p.head_dim / kLanes * kLanes);
  Room room;
  for (int64_t i = begin; i < end;) {
    const int64_t row = i % p.rows, rows = std::min({most, p.rows - row, end - i});
    block<I>(p, i / p.rows, row, rows, room);
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
