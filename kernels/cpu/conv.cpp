#include "wamcore/kernels/conv.h"

#include "clones.h"

namespace wam::kernels {
namespace {

typedef float Vec __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;
constexpr int64_t kMaxPixels = 12;  // in a tile

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
  Vec bias[2] = {};
  float* y = nullptr;
  const float* residual = nullptr;
};

// By reference: a Vec as a result would have another calling convention on each instruction set.
[[gnu::always_inline]] inline void load(Vec& v, const float* x) { __builtin_memcpy(&v, x, sizeof v); }

// Pixels x (16 * Vecs) outputs. All loop bounds but the run's are constants, so that the sums stay in registers.
template <int Vecs, int Pixels>
[[gnu::always_inline]] inline void tile(const Row& row, int64_t first) {
  constexpr int kGroups = (Pixels + 2) / 3;
  Vec a[Pixels][Vecs];
  for (int r = 0; r < Pixels; ++r)
    for (int v = 0; v < Vecs; ++v) a[r][v] = row.bias[v];
  const int64_t step = row.step;
  for (int64_t i = 0; i < row.count; ++i) {
    // A pointer for every third pixel: more would not fit the address registers.
    const float* x[kGroups];
    for (int g = 0; g < kGroups; ++g) x[g] = row.runs[i].x + (first + 3 * g) * step;
    const float* w = row.runs[i].w;
    for (int64_t l = 0; l < row.length; ++l) {
      Vec weight[Vecs];
      for (int v = 0; v < Vecs; ++v) load(weight[v], w + (l * Vecs + v) * kLanes);
      for (int r = 0; r < Pixels; ++r) {
        const float value = x[r / 3][r % 3 * step + l];
        for (int v = 0; v < Vecs; ++v) a[r][v] += value * weight[v];
      }
    }
  }
  for (int r = 0; r < Pixels; ++r)
    for (int v = 0; v < Vecs; ++v) {
      const int64_t at = (first + r) * row.out + v * kLanes, cols = std::min(kLanes, row.cols - v * kLanes);
      if (cols == kLanes) {
        Vec before = {};
        if (row.residual) load(before, row.residual + at);
        a[r][v] += before;
        __builtin_memcpy(row.y + at, &a[r][v], sizeof(Vec));
      } else {
        for (int64_t j = 0; j < cols; ++j) row.y[at + j] = (row.residual ? row.residual[at + j] : 0.0f) + a[r][v][j];
      }
    }
}

template <int Vecs>
[[gnu::always_inline]] inline void tile_of(int64_t pixels, const Row& row, int64_t first) {
  switch (pixels) {
    case 1:
      return tile<Vecs, 1>(row, first);
    case 2:
      return tile<Vecs, 2>(row, first);
    case 3:
      return tile<Vecs, 3>(row, first);
    case 4:
      return tile<Vecs, 4>(row, first);
    case 5:
      return tile<Vecs, 5>(row, first);
    case 6:
      return tile<Vecs, 6>(row, first);
    default:
      break;
  }
  if constexpr (Vecs == 1) {  // two vectors fill the registers with 6 pixels
    switch (pixels) {
      case 7:
        return tile<1, 7>(row, first);
      case 8:
        return tile<1, 8>(row, first);
      case 9:
        return tile<1, 9>(row, first);
      case 10:
        return tile<1, 10>(row, first);
      case 11:
        return tile<1, 11>(row, first);
      case 12:
        return tile<1, 12>(row, first);
      default:
        break;
    }
  }
}

// Panels are 32 channels wide, but the last is 16 wide where that is enough.
int64_t panels(const ConvShape& s) { return (s.out + kConvPanel - 1) / kConvPanel; }
int64_t lanes(const ConvShape& s, int64_t panel) { return s.out - panel * kConvPanel <= kLanes ? kLanes : kConvPanel; }

Row row_of(const ConvParams& p, int64_t panel, int64_t frame, int64_t y) {
  const ConvShape& s = p.shape;
  const int64_t col = panel * kConvPanel, taps = s.rows * s.cols * s.in;
  const int64_t padded = (s.out + kLanes - 1) / kLanes * kLanes;
  Row row{.length = s.cols * s.in,
          .step = p.stride * s.in,
          .out = s.out,
          .cols = std::min(kConvPanel, s.out - col),
          .y = p.y[frame] + y * p.ldy + col,
          .residual = p.residual ? p.residual[frame] + y * p.ldr + col : nullptr};
  if (p.bias)
    for (int64_t j = 0; j < row.cols; ++j) row.bias[j / kLanes][j % kLanes] = p.bias[col + j];
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
WAMCORE_CLONES void part(const ConvParams& p, int64_t begin, int64_t end, int64_t single) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t y = i % p.height, frame = i / p.height % p.frames, panel = i / (p.height * p.frames);
    const Row row = row_of(p, panel, frame, y);
    const bool pair = lanes(p.shape, panel) == kConvPanel;
    const int64_t most = pair ? 6 : single;
    for (int64_t x = 0; x < p.width; x += most) {
      const int64_t pixels = std::min(most, p.width - x);
      if (pair)
        tile_of<2>(pixels, row, x);
      else
        tile_of<1>(pixels, row, x);
    }
  }
}

// Pixels of a tile one vector wide: AVX-512 has registers for 12 and to spare, AVX2 just for 6.
int64_t single_vector_tile() {
#if defined(__x86_64__)
  static const bool wide = __builtin_cpu_supports("avx512f");
  return wide ? kMaxPixels : 6;
#else
  return 6;
#endif
}

}  // namespace

int64_t packed_conv_size(const ConvShape& s) {
  return s.time * ((s.out + kLanes - 1) / kLanes * kLanes) * s.rows * s.cols * s.in;
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
  part(p, begin, end, single_vector_tile());
}

}  // namespace wam::kernels
