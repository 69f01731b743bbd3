// Every fast kernel on frames against its float64 definition, on fresh random inputs at ragged sizes.
#include "fresh.h"
#include "isa_main.h"
#include "wamcore/kernels/conv.h"
#include "wamcore/kernels/frames.h"
#include "wamcore/kernels/norm.h"
#include "wamcore/kernels/resample.h"

using namespace wam::kernels;

namespace {

std::vector<float> randn(int64_t n) {
  std::normal_distribution<float> d;
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = d(check::fresh());
  return v;
}
int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(check::fresh()); }

template <typename P>
void as_team(void (*kernel)(const P&, const Team&), const P& p) {
  const int size = int(pick(1, 4));
  for (int rank = 0; rank < size; ++rank) kernel(p, Team{rank, size});
}

// Runs the kernel and its definition on the same start values of y and compares all of y.
template <typename P>
void compare(void (*fast)(const P&, const Team&), void (*ref)(const P&), P p, int64_t size, double tolerance = 2e-6) {
  const std::vector<float> start = randn(size);
  auto y = start, want = start;
  p.y = y.data();
  as_team(fast, p);
  p.y = want.data();
  ref(p);
  CHECK(check::relative_error(y, want, y.size()) <= tolerance);
}

}  // namespace

TEST(conv_with_past_frames_strides_and_residual) {
  for (int round = 0; round < 80; ++round) {
    const int64_t k = 2 * pick(0, 1) + 1, stride = pick(1, 2), time_stride = pick(1, 2), frames = pick(1, 3);
    const int64_t widths[] = {pick(1, 20), 12, 16, 32, 64};  // tiles of their own have pixels 12, 16, 32 or 64 apart
    ConvShape s{.out = pick(1, 70), .in = widths[pick(0, 4)], .time = 2 * pick(0, 1) + 1, .rows = k, .cols = k};
    const int64_t height = pick(1, 5), width = pick(1, 30), pad = stride == 1 ? k / 2 : 0;
    const int64_t in_h = height * stride + k, in_w = width * stride + k;  // with room for the pad
    const int64_t count = (frames - 1) * time_stride + s.time;
    std::vector<std::vector<float>> input;
    std::vector<const float*> x;
    for (int64_t i = 0; i < count; ++i) {
      input.push_back(randn(in_h * in_w * s.in));
      x.push_back(pick(0, 3) ? input.back().data() + (in_w + 1) * pad * s.in : nullptr);
    }
    auto w = randn(s.out * s.in * s.time * k * k);
    const bool kill = round & 1;  // all but the last time tap
    for (size_t i = 0; kill && i < w.size(); ++i)
      if (int64_t(i) / (k * k) % s.time != s.time - 1) w[i] = 0;
    std::vector<float> packed(static_cast<size_t>(packed_conv_size(s)));
    const uint32_t live = pack_conv(w.data(), s, packed.data());
    CHECK(live == (kill ? 1u << (s.time - 1) : (1u << s.time) - 1));
    const auto bias = randn(s.out), residual = randn(frames * height * width * s.out);
    ConvParams p{.x = x.data(),
                 .w = packed.data(),
                 .shape = s,
                 .live = live,
                 .frames = frames,
                 .height = height,
                 .width = width,
                 .time_stride = time_stride,
                 .stride = stride,
                 .pad = pad,
                 .ldx = in_w * s.in,
                 .ldy = width * s.out};
    if (round & 2) p.bias = bias.data();
    std::vector<float> got(residual.size()), want(residual.size());
    std::vector<float*> y, y_ref;
    std::vector<const float*> r;
    for (int64_t f = 0; f < frames; ++f) {
      y.push_back(got.data() + f * height * width * s.out);
      y_ref.push_back(want.data() + f * height * width * s.out);
      r.push_back(residual.data() + f * height * width * s.out);
    }
    if (round & 4) p.residual = r.data(), p.ldr = p.ldy;
    if (round & 8) got = want = residual, p.residual = y.data(), p.ldr = p.ldy;  // in place
    p.y = y.data();
    as_team(conv, p);
    p.y = y_ref.data();
    if (round & 8) p.residual = y_ref.data();
    conv_ref(p);
    const double typical = std::sqrt(double(s.in * s.time * k * k));  // of a sum of so many products
    CHECK(check::relative_error(got, want, got.size(), typical) < 4e-6);
  }
}

TEST(conv_reads_weights_in_torch_order) {  // the definition shares the packing with the kernel: check it by hand
  const ConvShape s{.out = 50, .in = 3, .time = 3, .rows = 3, .cols = 3};
  const auto w = randn(s.out * s.in * 27), bias = randn(s.out);
  std::vector<float> packed(static_cast<size_t>(packed_conv_size(s)));
  pack_conv(w.data(), s, packed.data());
  std::vector<std::vector<float>> input;
  for (int i = 0; i < 3; ++i) input.push_back(randn(27));
  const float* x[] = {input[0].data(), input[1].data(), input[2].data()};
  std::vector<float> got(50);
  float* y[] = {got.data()};
  conv({.x = x,
        .w = packed.data(),
        .bias = bias.data(),
        .y = y,
        .shape = s,
        .frames = 1,
        .height = 1,
        .width = 1,
        .ldx = 9,
        .ldy = 50},
       Team{});
  for (size_t o = 0; o < 50; ++o) {
    double sum = bias[o];
    for (size_t c = 0; c < 3; ++c)
      for (size_t t = 0; t < 3; ++t)
        for (size_t i = 0; i < 9; ++i) sum += double(w[((o * 3 + c) * 3 + t) * 9 + i]) * input[t][i * 3 + c];
    CHECK_NEAR(got[o], sum, 1e-4);
  }
}

TEST(channel_norm_and_silu) {
  for (int round = 0; round < 30; ++round) {
    const int64_t rows = pick(1, 40), cols = pick(1, 100);
    auto x = randn(rows * cols);
    for (int64_t c = 0; c < cols; ++c) x[size_t(c)] = 0;  // a pixel of zeros stays zero
    const auto gamma = randn(cols);
    const ChannelNormParams p{.x = x.data(), .rows = rows, .cols = cols, .gamma = gamma.data(), .silu = round % 2 == 1};
    compare(channel_norm, channel_norm_ref, p, rows * cols);
  }
}

TEST(affine_changes_layout_scales_and_clamps) {
  for (int round = 0; round < 30; ++round) {
    const int64_t h = pick(1, 6), w = pick(1, 9), c = pick(1, 40);
    const auto x = randn(h * w * c), scale = randn(c), shift = randn(c);
    AffineParams p{.x = x.data(), .at_x = {w * c, c}, .at_y = {w * c, c}, .height = h, .width = w, .channels = c};
    if (round & 1) p.at_y = {w, 1, h * w};
    if (round & 2) p.scale = scale.data();
    if (round & 4) p.shift = shift.data();
    if (round & 8) p.low = -1, p.high = 1;
    compare(affine, affine_ref, p, h * w * c);
  }
}

TEST(upsample_doubles) {
  for (int round = 0; round < 20; ++round) {
    const int64_t h = pick(1, 6), w = pick(1, 9), c = pick(1, 40), extra = pick(0, 5);
    const auto x = randn(h * w * (c + extra));
    const UpsampleParams p{.x = x.data(),
                           .at_x = {w * (c + extra), c + extra},
                           .at_y = {2 * w * c, c},
                           .height = h,
                           .width = w,
                           .channels = c};
    compare(upsample, upsample_ref, p, 4 * h * w * c, 0);
  }
}

TEST(pixel_shuffle_both_ways) {
  for (int round = 0; round < 20; ++round) {
    const int64_t h = pick(1, 6), w = pick(1, 6), codec = round % 4 == 0, colours = codec ? 3 : pick(1, 3),
                  n = codec ? 2 : pick(1, 3), c = colours * n * n;
    const auto x = randn(h * w * c);
    const PixelStrides small{w * c, c}, large{w * n * colours, colours};
    const PixelShuffleParams down{
        .x = x.data(), .at_x = large, .at_y = small, .height = h, .width = w, .colours = colours, .patch = n};
    compare(pixel_unshuffle, pixel_unshuffle_ref, down, h * w * c, 0);
    const PixelShuffleParams up{
        .x = x.data(), .at_x = small, .at_y = large, .height = h, .width = w, .colours = colours, .patch = n};
    compare(pixel_shuffle, pixel_shuffle_ref, up, h * w * c, 0);
  }
}

TEST(shortcuts_around_stages) {
  for (int round = 0; round < 40; ++round) {
    const int64_t time = pick(1, 2), square = pick(1, 2), fold = time * square * square;
    const int64_t unit = pick(1, 9), h = pick(1, 5), w = pick(1, 5);
    const int64_t in = unit << pick(0, 2), out = unit << pick(0, 2);  // ratios of 1/4 to 4
    if (in * fold % out == 0) {
      const auto first = randn(h * w * square * square * in), second = first;
      const float* x[] = {time == 2 && (round & 1) ? nullptr : first.data(), second.data()};
      compare(average_down, average_down_ref,
              AverageDownParams{.x = x,
                                .at_x = {w * square * in, in},
                                .at_y = {w * out, out},
                                .height = h,
                                .width = w,
                                .in = in,
                                .out = out,
                                .time = time,
                                .square = square},
              h * w * out);
    }
    if (out * fold % in == 0) {
      const auto x = randn(h * w * in);
      compare(repeat_up, repeat_up_ref,
              RepeatUpParams{.x = x.data(),
                             .at_x = {w * in, in},
                             .at_y = {w * square * out, out},
                             .height = h,
                             .width = w,
                             .in = in,
                             .out = out,
                             .time = time,
                             .square = square,
                             .at = pick(0, time - 1)},
              h * w * square * square * out, 0);
    }
  }
}

TEST(resample_along_either_axis) {
  for (int round = 0; round < 45; ++round) {
    const auto kind = Resampling(round % 3);
    const int64_t from = pick(1, 40), to = pick(1, 40), outer = pick(1, 5),
                  inner = round % 2 ? pick(1, 4) : pick(16, 50);
    const auto x = randn(outer * from * inner);
    const ResampleWeights weights = resample_weights(from, to, kind);
    compare(
        resample, resample_ref,
        ResampleParams{
            .x = x.data(), .outer = outer, .inner = inner, .ldx = from * inner, .ldy = to * inner, .weights = &weights},
        outer * to * inner);
  }
}

// The formula of the triangle, in float64.
double triangle(int64_t from, int64_t to, int64_t i, int64_t j) {
  const double scale = double(from) / double(to), reach = std::max(scale, 1.0), center = (double(i) + 0.5) * scale;
  double total = 0;
  for (int64_t k = 0; k < from; ++k) total += std::max(0.0, 1 - std::abs(double(k) + 0.5 - center) / reach);
  return std::max(0.0, 1 - std::abs(double(j) + 0.5 - center) / reach) / total;
}

// The weight of a sample at a distance from the position, in float64.
double kernel_at(Resampling kind, double distance) {
  const double d = std::abs(distance);
  if (kind == Resampling::bilinear) return std::max(0.0, 1 - d);
  if (d <= 1) return 1.25 * d * d * d - 2.25 * d * d + 1;
  return d < 2 ? -0.75 * (d * d * d - 5 * d * d + 8 * d - 4) : 0;
}

TEST(resample_weights_follow_their_formula) {
  for (int round = 0; round < 60; ++round) {
    const int64_t from = pick(1, 90), to = pick(1, 90);
    for (const auto kind : {Resampling::antialiased, Resampling::bilinear, Resampling::bicubic}) {
      const ResampleWeights a = resample_weights(from, to, kind);
      for (int64_t i = 0; i < to; ++i) {
        std::vector<double> dense(static_cast<size_t>(from));
        double sum = 0;
        CHECK(a.first[size_t(i)] >= 0 && a.first[size_t(i)] + a.count[size_t(i)] <= from);
        for (int64_t q = 0; q < a.count[size_t(i)]; ++q) {
          const double w = a.weight[size_t(i * a.taps + q)];
          dense[size_t(a.first[size_t(i)] + q)] += w;
          sum += w;
        }
        CHECK_NEAR(sum, 1, 1e-5);
        const double exact = (double(i) + 0.5) * double(from) / double(to) - 0.5;
        if (kind == Resampling::antialiased)
          for (int64_t j = 0; j < from; ++j) CHECK_NEAR(dense[size_t(j)], triangle(from, to, i, j), 1e-4);
        else if (exact >= 1 && exact <= double(from) - 3)  // away from the borders
          for (int64_t j = 0; j < from; ++j) CHECK_NEAR(dense[size_t(j)], kernel_at(kind, double(j) - exact), 1e-4);
      }
    }
  }
}

CHECK_MAIN_ON_ISA()
