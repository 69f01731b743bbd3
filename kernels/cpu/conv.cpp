#include "wamcore/kernels/conv.h"

#include "variants.h"

namespace wam::kernels {
namespace {

constexpr int64_t kHalf = kConvPanel / 2;  // width of the last panel where that suffices

// A stretch of weights that meets a contiguous stretch of input: one row of taps of one time tap.
struct Run {
  const float* x;  // for pixel 0 of the output row
  const float* w;  // [length, kConvPanel]
};

// One row of output pixels of one panel of channels.
struct Row {
  Run runs[kMaxConvRuns];
  int64_t count = 0;
  int64_t length = 0;         // floats of input in a run
  int64_t step = 0;           // floats from the input of one output pixel to that of the next
  int64_t out = 0, cols = 0;  // channels of y; of this panel
  alignas(64) float bias[kConvPanel] = {};
  float* y = nullptr;
  const float* residual = nullptr;
};

// Pixels of a tile and its width in vectors, so that its sums stay in registers: of 32 there are 24 for sums where
// they are two abreast, of 16 there are 12.
template <Isa I, int64_t Width>
struct Tile {
  static constexpr int vecs = std::min<int64_t>(2, Width / Simd<I>::lanes);
  static constexpr int pixels = kManyRegisters<I> ? 12 : 6;
};

// Adds to the sums of Pixels x vecs vectors what one run gives. Step: floats from the input of one pixel to that of the
// next, 0: as row.step says. One that the compiler knows becomes part of the addresses, which need no register a pixel
// then, nor a second one to add: the decoder takes such a multiply-add in one piece.
template <Isa I, int64_t Width, int Pixels, int64_t Step>
[[gnu::always_inline]] inline void add_run(const Row& row, const float* x, const float* w,
                                           typename Simd<I>::Vec (&a)[Pixels][Tile<I, Width>::vecs]) {
  using Vec = typename Simd<I>::Vec;
  constexpr int64_t kLanes = Simd<I>::lanes;
  constexpr int kVecs = Tile<I, Width>::vecs, kGroups = (Pixels + 2) / 3;
  const int64_t step = Step ? Step : row.step;
  const float* group[kGroups];  // a pointer for every third pixel: more would not fit the address registers
  for (int g = 0; g < kGroups; ++g) group[g] = x + 3 * g * step;
  const float* const end = w + row.length * Width;
  for (; w != end; w += Width) {
    Vec weight[kVecs];
    for (int v = 0; v < kVecs; ++v) load(weight[v], w + v * kLanes);
    for (int r = 0; r < Pixels; ++r) {
      const float value = Step ? x[r * Step] : group[r / 3][r % 3 * step];
      for (int v = 0; v < kVecs; ++v) a[r][v] += value * weight[v];
    }
    ++x;
    for (int g = 0; g < kGroups; ++g) ++group[g];
  }
}

// Sums of Pixels x (vecs * lanes) outputs, from channel `lane` of a panel that is Width channels wide. All loop bounds
// but the run's are constants, so that the sums stay in registers.
template <Isa I, int64_t Width, int Pixels, int64_t Step>
[[gnu::always_inline]] inline void tile(const Row& row, int64_t first, int64_t lane) {
  using Vec = typename Simd<I>::Vec;
  constexpr int64_t kLanes = Simd<I>::lanes;
  constexpr int kVecs = Tile<I, Width>::vecs;
  Vec a[Pixels][kVecs];
  for (int r = 0; r < Pixels; ++r)
    for (int v = 0; v < kVecs; ++v) load(a[r][v], row.bias + lane + v * kLanes);
  for (int64_t i = 0; i < row.count; ++i)
    add_run<I, Width, Pixels, Step>(row, row.runs[i].x + first * row.step, row.runs[i].w + lane, a);
  float* y = row.y + first * row.out + lane;
  const float* residual = row.residual ? row.residual + first * row.out + lane : nullptr;
  const int64_t cols = row.cols - lane;
  if (cols >= kVecs * kLanes) {
#pragma GCC unroll 12
    for (int r = 0; r < Pixels; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        Vec before = {};
        if (residual) load(before, residual + r * row.out + v * kLanes);
        store(y + r * row.out + v * kLanes, a[r][v] + before);
      }
    return;
  }
  float sums[Pixels][kVecs * kLanes];  // channels that are fewer than the vectors hold
  __builtin_memcpy(sums, a, sizeof sums);
  for (int r = 0; r < Pixels; ++r)
    for (int64_t j = 0; j < cols; ++j) y[r * row.out + j] = (residual ? residual[r * row.out + j] : 0.0f) + sums[r][j];
}

template <Isa I, int64_t Width, int Pixels>
[[gnu::always_inline]] inline void tile_of(int64_t pixels, const Row& row, int64_t first) {
  if constexpr (Pixels > 1) {
    if (pixels < Pixels) return tile_of<I, Width, Pixels - 1>(pixels, row, first);
  }
  constexpr int64_t kChannels = Tile<I, Width>::vecs * Simd<I>::lanes;
  for (int64_t lane = 0; lane < Width; lane += kChannels) {
    if constexpr (Pixels == Tile<I, Width>::pixels || Pixels == 6) {  // whole rows of small pictures are made of these
      if (Width == kHalf && row.step == 12) {  // squares of 2 x 2 pixels of three colours, as the codecs fold them
        tile<I, Width, Pixels, 12>(row, first, lane);
        continue;
      }
      if (row.step == 16) {
        tile<I, Width, Pixels, 16>(row, first, lane);
        continue;
      }
      if (row.step == 32) {
        tile<I, Width, Pixels, 32>(row, first, lane);
        continue;
      }
      if (row.step == 64) {
        tile<I, Width, Pixels, 64>(row, first, lane);
        continue;
      }
    }
    tile<I, Width, Pixels, 0>(row, first, lane);
  }
}

template <Isa I, int64_t Width>
[[gnu::always_inline]] inline void pixels_of_row(const ConvParams& p, const Row& row) {
  constexpr int64_t kMost = Tile<I, Width>::pixels;
  const int64_t tiles = (p.width + kMost - 1) / kMost;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t x = p.width * t / tiles;
    tile_of<I, Width, kMost>(p.width * (t + 1) / tiles - x, row, x);
  }
}

// Panels are 32 channels wide, but the last is 16 wide where that is enough.
int64_t panels(const ConvShape& s) { return (s.out + kConvPanel - 1) / kConvPanel; }
int64_t lanes(const ConvShape& s, int64_t panel) { return s.out - panel * kConvPanel <= kHalf ? kHalf : kConvPanel; }

Row row_of(const ConvParams& p, int64_t panel, int64_t frame, int64_t y) {
  const ConvShape& s = p.shape;
  const int64_t col = panel * kConvPanel, taps = s.rows * s.cols * s.in;
  const int64_t padded = (s.out + kHalf - 1) / kHalf * kHalf;
  Row row;  // without values for the runs that are not used
  row.length = s.cols * s.in;
  row.step = p.stride * s.in;
  row.out = s.out;
  row.cols = std::min(kConvPanel, s.out - col);
  row.y = p.y[frame] + y * p.ldy + col;
  if (p.residual) row.residual = p.residual[frame] + y * p.ldr + col;
  if (p.bias)
    for (int64_t j = 0; j < row.cols; ++j) row.bias[j] = p.bias[col + j];
  for (int64_t t = 0; t < s.time; ++t) {
    const float* x = p.x[frame * p.time_stride + t];
    if (!x || !(p.live >> t & 1)) continue;
    const float* w = p.w + t * padded * taps + col * taps;
    for (int64_t r = 0; r < s.rows; ++r)
      row.runs[row.count++] = {x + (y * p.stride + r - p.pad) * p.ldx - p.pad * s.in,
                               w + r * row.length * lanes(s, panel)};
  }
  return row;
}

// Work item i is (panel, frame, row), panel slowest: the weights of a panel stay in the cache.
template <Isa I>
[[gnu::always_inline]] inline void part_loop(const ConvParams& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t y = i % p.height, frame = i / p.height % p.frames, panel = i / (p.height * p.frames);
    const Row row = row_of(p, panel, frame, y);
    if (lanes(p.shape, panel) == kConvPanel)
      pixels_of_row<I, kConvPanel>(p, row);
    else
      pixels_of_row<I, kHalf>(p, row);
  }
}
WAMCORE_VARIANTS(part, (const ConvParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

int64_t packed_conv_size(const ConvShape& s) {
  return s.time * ((s.out + kHalf - 1) / kHalf * kHalf) * s.rows * s.cols * s.in;
}

uint32_t pack_conv(const float* w, const ConvShape& s, float* packed) {
  const int64_t taps = s.rows * s.cols;
  uint32_t live = 0;
  for (int64_t t = 0; t < s.time; ++t)
    for (int64_t panel = 0; panel < panels(s); ++panel)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t c = 0; c < s.in; ++c)
          for (int64_t j = 0; j < lanes(s, panel); ++j) {
            const int64_t o = panel * kConvPanel + j;
            const float value = o < s.out ? w[((o * s.in + c) * s.time + t) * taps + tap] : 0.0f;
            if (value != 0.0f) live |= 1u << t;
            *packed++ = value;
          }
  return live;
}

void conv(const ConvParams& p, const Team& team) {
  const auto [begin, end] = team.share(panels(p.shape) * p.frames * p.height);
  part(p, begin, end);
}

}  // namespace wam::kernels
