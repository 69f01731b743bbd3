#include "wamcore/kernels/gemm.h"

#include <algorithm>

#include "gemm_bf16.h"
#include "gemm_epilogue.h"
#include "gemm_rounded.h"
#include "variants.h"

namespace wam::kernels {
namespace {

constexpr int64_t kRows = 72;    // most rows that share a stretch of weights while it is in the first cache
constexpr int64_t kDepth = 128;  // its length: 16 KiB of floats

// How many outputs a tile has, so that its sums stay in registers: of 32 there are 24 for sums and two for weights,
// of 16 there are 12 for sums.
template <Isa I>
struct Tile {
  static constexpr int rows = kManyRegisters<I> ? 12 : 6;
  static constexpr int vecs = 2;
  static constexpr int64_t cols = vecs * Simd<I>::lanes;
};

// A vector of weights: a bfloat16 is the upper half of a float.
template <Isa I>
[[gnu::always_inline]] inline void load_weight(typename Simd<I>::Vec& v, const float* w) {
  load(v, w);
}
template <Isa I>
[[gnu::always_inline]] inline void load_weight(typename Simd<I>::Vec& v, const uint16_t* w) {
  typename Simd<I>::Halves halves;
  __builtin_memcpy(&halves, w, sizeof halves);
  const auto words = __builtin_convertvector(halves, typename Simd<I>::Words) << 16;
  __builtin_memcpy(&v, &words, sizeof v);
}

// What rows meet of a panel: k of its depth.
template <typename Weight>
struct Stretch {
  const float* x = nullptr;  // [rows, k], row stride ldx
  int64_t ldx = 0;
  const Weight* w = nullptr;  // [k, kPanel]
  int64_t k = 0;
  const void* next = nullptr;  // the stretch that follows, fetched into the second cache meanwhile; nullptr: none
};

// Adds Rows x Tile::cols sums over k to acc [Rows, kPanel]; kept apart so that each row count is fully unrolled. ahead:
// k cache lines that are fetched meanwhile.
template <Isa I, int Rows, typename Weight>
[[gnu::always_inline]] inline void tile(const Stretch<Weight>& s, int64_t col, const char* ahead, float* acc) {
  using Vec = typename Simd<I>::Vec;
  constexpr int kGroups = (Rows + 2) / 3, kVecs = Tile<I>::vecs;
  constexpr int64_t kLanes = Simd<I>::lanes;
  const float* at[kGroups];  // a pointer for every third row: more would not fit the address registers
  for (int g = 0; g < kGroups; ++g) at[g] = s.x + 3 * g * s.ldx;
  const Weight* w = s.w + col;
  Vec a[Rows][kVecs];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVecs; ++v) load(a[r][v], acc + r * kPanel + v * kLanes);
#pragma GCC unroll 4
  for (int64_t i = 0; i < s.k; ++i) {
    Vec weight[kVecs];
    for (int v = 0; v < kVecs; ++v) load_weight<I>(weight[v], w + i * kPanel + v * kLanes);
    __builtin_prefetch(ahead + i * kLine, /*rw=*/0, /*locality=*/2);
    for (int r = 0; r < Rows; ++r) {
      const float value = at[r / 3][r % 3 * s.ldx + i];
      for (int v = 0; v < kVecs; ++v) a[r][v] += value * weight[v];
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < kVecs; ++v) store(acc + r * kPanel + v * kLanes, a[r][v]);
}

// Row tile `index` of a block: `rows` rows, Rows at most.
template <Isa I, int Rows, typename Weight>
[[gnu::always_inline]] inline void tile_rows(int64_t rows, const Stretch<Weight>& s, int64_t index, float* acc) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return tile_rows<I, Rows - 1>(rows, s, index, acc);
  }
  // The first tiles share what is to be fetched, a cache line in each step. The others fetch what is there.
  constexpr int64_t kTiles = kPanel / Tile<I>::cols, kShares = kPanel * sizeof(Weight) / kLine;
  for (int64_t t = 0; t < kTiles; ++t) {
    const int64_t share = index * kTiles + t;
    const void* ahead = s.next && share < kShares ? s.next : s.w;
    tile<I, Rows>(s, t * Tile<I>::cols, static_cast<const char*>(ahead) + share % kShares * s.k * kLine,
                  acc + t * Tile<I>::cols);
  }
}

// All tiles of `rows` rows, in equal shares: 13 as 7 and 6, not as 12 and 1.
template <Isa I, typename Weight>
[[gnu::always_inline]] inline void block(int64_t rows, Stretch<Weight> s, float* acc) {
  constexpr int64_t kMost = Tile<I>::rows;
  const int64_t tiles = (rows + kMost - 1) / kMost;
  const float* x = s.x;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t row = rows * t / tiles;
    s.x = x + row * s.ldx;
    tile_rows<I, kMost>(rows * (t + 1) / tiles - row, s, t, acc + row * kPanel);
  }
}

// The same for bfloat16 weights: where several tiles read them they are widened once.
template <Isa I>
[[gnu::always_inline]] inline void block_of(int64_t rows, const Stretch<uint16_t>& s, float* acc) {
  if (rows <= Tile<I>::rows) return block<I>(rows, s, acc);
  alignas(64) float wide[kDepth * kPanel];
  typename Simd<I>::Vec v;
  for (int64_t i = 0; i < s.k * kPanel; i += Simd<I>::lanes) {
    load_weight<I>(v, s.w + i);
    store(wide + i, v);
  }
  block<I>(rows, Stretch<float>{.x = s.x, .ldx = s.ldx, .w = wide, .k = s.k}, acc);
}
template <Isa I>
[[gnu::always_inline]] inline void block_of(int64_t rows, const Stretch<float>& s, float* acc) {
  block<I>(rows, s, acc);
}

// Computes the column panels [begin, end) for all rows.
template <Isa I, typename Weight>
[[gnu::always_inline]] inline void panels_of(const GemmParams& p, const Weight* weights, int64_t begin, int64_t end) {
  alignas(64) float acc[kRows * kPanel];
  const int64_t blocks = (p.m + kRows - 1) / kRows;
  for (int64_t panel = begin; panel < end; ++panel) {
    const Weight* w = weights + panel * kPanel * p.k;
    const int64_t col = panel * kPanel, cols = std::min(kPanel, p.n - col);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t row = p.m * b / blocks, rows = p.m * (b + 1) / blocks - row;
      const bool more = b + 1 == blocks && panel + 1 < end;  // panels lie one after another
      std::fill_n(acc, rows * kPanel, 0.0f);
      for (int64_t i = 0; i < p.k; i += kDepth) {
        const Weight* next = w + (i + kDepth) * kPanel;
        block_of<I>(rows,
                    Stretch<Weight>{.x = p.x + row * p.ldx + i,
                                    .ldx = p.ldx,
                                    .w = w + i * kPanel,
                                    .k = std::min(kDepth, p.k - i),
                                    .next = i + kDepth < p.k || more ? std::min(next, w + p.k * kPanel) : nullptr},
                    acc);
      }
      finish(p, row, rows, col, cols, acc);
    }
  }
}

template <Isa I>
[[gnu::always_inline]] inline void panels_loop(const GemmParams& p, int64_t begin, int64_t end) {
  if (p.w.bf16)
    panels_of<I>(p, p.w.bf16, begin, end);
  else
    panels_of<I>(p, p.w.f32, begin, end);
}
WAMCORE_VARIANTS(panels, (const GemmParams& p, int64_t begin, int64_t end), (p, begin, end))

// The same panels, of x rounded to bfloat16, where no instruction multiplies such: products of two are exact in
// float32.
void widened_panels(const GemmParams& p, int64_t begin, int64_t end) {
  alignas(64) float x[kMaxBf16Depth + kRoundedGap];
  const int64_t most = std::clamp<int64_t>(kMaxBf16Depth / (p.k + kRoundedGap), 1, kRows);
  for (int64_t row = 0; row < p.m; row += most) {
    GemmParams part = rows_of(p, row, std::min(p.m, row + most));
    round_rows_bf16(part.x, part.ldx, part.m, p.k, x);
    part.x = x, part.ldx = p.k + kRoundedGap;
    panels(part, begin, end);
  }
}

}  // namespace

void pack_weight(const float* w, int64_t n, int64_t k, float* packed) {
  for (int64_t col = 0; col < n; col += kPanel)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < kPanel; ++j) *packed++ = col + j < n ? w[(col + j) * k + i] : 0.0f;
}

bool is_bf16(const float* w, int64_t count) {
  return std::all_of(w, w + count, [](float x) { return (__builtin_bit_cast(uint32_t, x) & 0xffff) == 0; });
}

void to_bf16(const float* w, int64_t count, uint16_t* halves) {
  std::transform(w, w + count, halves, [](float x) { return uint16_t(__builtin_bit_cast(uint32_t, x) >> 16); });
}

void gemm(const GemmParams& p, const Team& team) {
  const auto compute = [](const GemmParams& part, int64_t from, int64_t to) {
    if (part.w.int8 || part.w.group > 1) return rounded_panels(part, from, to);
    part.w.rounds ? widened_panels(part, from, to) : panels(part, from, to);
  };
  const int64_t count = (p.n + kPanel - 1) / kPanel;
  if (count >= team.size) {
    const auto [begin, end] = team.share(count);
    compute(p, begin, end);
    return;
  }
  // Few columns (a head of a handful of outputs): share the rows instead.
  const auto [begin, end] = team.share(p.m);
  if (begin == end) return;
  compute(rows_of(p, begin, end), 0, count);
}

}  // namespace wam::kernels
