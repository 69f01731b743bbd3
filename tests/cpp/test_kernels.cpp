// Every fast kernel against its float64 definition, on fresh random inputs at ragged sizes.
#include <random>

#include "fresh.h"
#include "isa_main.h"
#include "wamcore/kernels/attention.h"
#include "wamcore/kernels/feed_forward.h"
#include "wamcore/kernels/gemm.h"
#include "wamcore/kernels/norm.h"

using namespace wam::kernels;

namespace {

std::mt19937 rng(uint32_t(check::fresh()()));
std::vector<float> randn(size_t n) {
  std::normal_distribution<float> d;
  std::vector<float> v(n);
  for (float& x : v) x = d(rng);
  return v;
}
int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); }

// Runs a kernel as a team of `size`, one rank after the other (none of these kernels has a barrier inside).
template <typename P>
void as_team(void (*kernel)(const P&, const Team&), const P& p, int size) {
  for (int rank = 0; rank < size; ++rank) kernel(p, Team{rank, size});
}

// The product p, whose operands are given, with what the bits of `round` say follows it.
void agrees_with_every_epilogue(GemmParams p, int round) {
  const auto bias = randn(p.n), residual = randn(p.m * p.n), gate = randn(3 * p.n);
  std::vector<int32_t> rows(p.m);
  for (auto& r : rows) r = int32_t(pick(0, 2));
  std::vector<float> y(p.m * p.n), want(p.m * p.n);
  p.y = y.data(), p.ldy = p.n;
  p.activation = Activation(round % 5);
  if (round & 1) p.bias = bias.data();
  if (round & 2) p.residual = residual.data(), p.ldr = p.n;
  if (round & 4) p.gate = gate.data(), p.ldg = p.n, p.gate_row = round & 8 ? rows.data() : nullptr;
  as_team(gemm, p, int(pick(1, 4)));
  p.y = want.data();
  gemm_ref(p);
  CHECK(check::relative_error(y, want, y.size(), std::sqrt(double(p.k))) < 4e-6);
}

}  // namespace

TEST(gemm_with_every_epilogue) {
  for (int round = 0; round < 60; ++round) {
    const bool large = round % 8 == 7;  // more rows, and deeper, than are carried at once
    const int64_t m = large ? pick(60, 160) : pick(1, 19), n = pick(1, 90), k = large ? pick(100, 400) : pick(1, 70);
    const auto x = randn(m * k);
    auto w = randn(n * k);
    const bool halves = pick(0, 1);
    if (halves)
      for (float& value : w) value = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, value) & 0xffff0000);
    std::vector<float> packed(packed_size(n, k));
    pack_weight(w.data(), n, k, packed.data());
    CHECK(is_bf16(packed.data(), packed.size()) == halves);
    std::vector<uint16_t> packed_halves(packed.size());
    to_bf16(packed.data(), packed.size(), packed_halves.data());
    GemmParams p{.x = x.data(), .w = packed.data(), .m = m, .n = n, .k = k, .ldx = k};
    if (halves) p.w = packed_halves.data();
    agrees_with_every_epilogue(p, round);
  }
}

// A weight in packed bytes; what the panels point at lies in `bytes`.
struct Int8Weight {
  std::vector<int32_t> bytes;
  Panels panels;
  Int8Weight(const std::vector<float>& w, int64_t n, int64_t k) : bytes(size_t(packed_int8_size(n, k) / 4)) {
    CHECK(pack_weight_int8(w.data(), n, k, bytes.data()));
    panels = int8_panels_of(bytes.data(), n, k);
  }
};

TEST(gemm_with_int8_weights_and_every_epilogue) {
  for (int round = 0; round < 48; ++round) {
    // Mostly shallow; some rounds go on past the 256 inputs whose weights are widened at once, and one is so deep that
    // fewer rows than there are fit the stack when they are rounded.
    const bool deepest = round == 9;
    const int64_t m = deepest ? 50 : pick(1, round % 4 ? 19 : 110), n = pick(1, deepest ? 40 : 90),
                  k = deepest ? pick(11'900, 12'100) : pick(1, round % 3 ? 200 : 700);
    const auto x = randn(m * k);
    const Int8Weight w(randn(n * k), n, k);
    GemmParams p{.x = x.data(), .w = w.panels, .m = m, .n = n, .k = k, .ldx = k};
    agrees_with_every_epilogue(p, round);
  }
}

TEST(activations_far_out) {
  const std::vector<float> x = {-3e4f, -200.0f, -90.0f, -87.5f, -20.0f, -1e-30f,
                                0.0f,  1e-30f,  20.0f,  87.5f,  200.0f, 3e4f};
  const int64_t m = int64_t(x.size()) + 1;
  const std::vector<float> w(1, 1.0f);
  std::vector<float> in = x, packed(packed_size(1, 1)), y(m), want(m);
  in.push_back(NAN);
  pack_weight(w.data(), 1, 1, packed.data());
  for (const Activation a : {Activation::gelu_tanh, Activation::gelu_erf, Activation::silu, Activation::relu}) {
    GemmParams p{.x = in.data(), .w = packed.data(), .y = y.data(), .m = m, .n = 1, .k = 1, .ldx = 1, .ldy = 1};
    p.activation = a;
    as_team(gemm, p, 1);
    p.y = want.data();
    gemm_ref(p);
    for (size_t i = 0; i < x.size(); ++i) CHECK_NEAR(y[i], want[i], 1e-6 * std::abs(x[i]) + 1e-30);
    CHECK(a == Activation::relu || std::isnan(y.back()));
  }
}

// A weight that is rounded to bfloat16, and makes products round their activations.
struct Bf16Weight {
  std::vector<uint16_t> halves;
  Panels panels;
  Bf16Weight(const std::vector<float>& w, int64_t n, int64_t k) : halves(size_t(packed_bf16_size(n, k))) {
    CHECK(pack_weight_bf16(w.data(), n, k, halves.data()));
    panels = bf16_panels_of(halves.data(), n, k);
  }
};

TEST(gemm_with_bf16_products_and_every_epilogue) {
  for (int round = 0; round < 48; ++round) {
    const int64_t m = pick(1, round % 4 ? 19 : 110), n = pick(1, 90), k = pick(1, round % 8 ? 200 : 2000);
    const auto x = randn(m * k);
    const Bf16Weight w(randn(n * k), n, k);
    GemmParams p{.x = x.data(), .w = w.panels, .m = m, .n = n, .k = k, .ldx = k};
    agrees_with_every_epilogue(p, round);
  }
}

TEST(bf16_rounds_to_the_nearest_and_keeps_what_is_not_finite) {
  // 1 + 2^-8 lies between two bfloat16 and goes to the even one, as 1 + 3 2^-8 does.
  const std::vector<float> x = {1.00390625f, 1.01171875f, 1.004f, -1.00390625f, 3.4e38f, NAN, -INFINITY};
  const float want[] = {1.0f, 1.015625f, 1.0078125f, -1.0f, INFINITY, NAN, -INFINITY};
  const int64_t m = int64_t(x.size());
  const Bf16Weight one({1.0f}, 1, 1);
  std::vector<float> y(x.size());
  as_team(gemm, GemmParams{.x = x.data(), .w = one.panels, .y = y.data(), .m = m, .n = 1, .k = 1, .ldx = 1, .ldy = 1},
          1);
  for (size_t i = 0; i < y.size(); ++i) CHECK(y[i] == want[i] || (std::isnan(y[i]) && std::isnan(want[i])));
  std::vector<uint16_t> halves(size_t(packed_bf16_size(1, 2)));
  for (const float bad : {NAN, INFINITY, -INFINITY, 3.4e38f}) {
    const float w[] = {1.0f, bad};
    CHECK(!pack_weight_bf16(w, 1, 2, halves.data()));
  }
}

TEST(int8_products_are_near_those_of_floats) {
  for (int round = 0; round < 8; ++round) {
    const int64_t m = pick(1, 20), n = pick(20, 90), k = pick(100, 700);
    const auto x = randn(m * k), w = randn(n * k);
    const Int8Weight rounded(w, n, k);
    std::vector<float> packed(packed_size(n, k)), y(m * n), want(m * n);
    pack_weight(w.data(), n, k, packed.data());
    GemmParams p{.x = x.data(), .w = rounded.panels, .y = y.data(), .m = m, .n = n, .k = k, .ldx = k, .ldy = n};
    as_team(gemm, p, 2);
    p.w = packed.data(), p.y = want.data();
    gemm_ref(p);
    double wrong = 0, size = 0;
    for (size_t i = 0; i < y.size(); ++i) wrong += std::pow(y[i] - want[i], 2), size += std::pow(want[i], 2);
    // A step is about 1/40 of the standard deviation on either side, and rounding errs by 0.29 of it: about 1 %.
    CHECK(std::sqrt(wrong / size) < 0.02);
    CHECK(std::sqrt(wrong / size) > 1e-4);  // they really were rounded
  }
}

TEST(int8_sums_do_not_saturate) {
  for (const int64_t k : {1, 3, 4097}) {
    const int64_t m = 13, n = 33;
    for (const float sign : {1.0f, -1.0f}) {
      const std::vector<float> x(size_t(m * k), 2.0f), w(size_t(n * k), 0.5f * sign);
      const Int8Weight rounded(w, n, k);
      std::vector<float> y(size_t(m * n));
      as_team(gemm,
              GemmParams{.x = x.data(), .w = rounded.panels, .y = y.data(), .m = m, .n = n, .k = k, .ldx = k, .ldy = n},
              1);
      for (const float value : y) CHECK_NEAR(value, sign * float(k), 1e-6 * double(k));
    }
  }
}

TEST(int8_keeps_zeros_and_what_is_not_finite) {
  const int64_t m = 5, n = 3, k = 9;
  auto x = randn(m * k), w = randn(n * k);
  std::fill_n(x.begin(), k, 0.0f), std::fill_n(w.begin(), k, 0.0f);
  x[size_t(2 * k + 1)] = NAN, x[size_t(3 * k + 4)] = -INFINITY;
  std::fill_n(x.begin() + 4 * k, k, 1e-38f);  // its inverse is not finite
  const Int8Weight rounded(w, n, k);
  std::vector<float> y(size_t(m * n), 7.0f);
  as_team(gemm,
          GemmParams{.x = x.data(), .w = rounded.panels, .y = y.data(), .m = m, .n = n, .k = k, .ldx = k, .ldy = n}, 1);
  for (int64_t j = 0; j < n; ++j) {
    CHECK(y[size_t(j)] == 0.0f && y[size_t(4 * n + j)] == 0.0f);
    CHECK(std::isnan(y[size_t(2 * n + j)]) && std::isnan(y[size_t(3 * n + j)]));
  }
  CHECK(y[size_t(n)] == 0.0f && y[size_t(n + 1)] != 0.0f);  // a row of weights that is zero
  std::vector<int32_t> bytes(size_t(packed_int8_size(n, k) / 4));
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    w[size_t(pick(0, n * k - 1))] = bad;
    CHECK(!pack_weight_int8(w.data(), n, k, bytes.data()));
  }
}

// Down to where an inverse would be infinite, and to numbers that are subnormal: a row's product is what float32 gives
// to within the steps of its bytes, or zero below 1e-30, and never NaN.
TEST(int8_of_tiny_rows_is_finite) {
  const int64_t m = 24, n = 33, k = 40;
  auto x = randn(m * k), w = randn(n * k);
  const auto shrink = [](std::vector<float>& rows, int64_t count) {
    for (int64_t r = 0; r < count; ++r) {
      const float size = std::pow(10.0f, -float(pick(20, 44)));
      for (int64_t i = 0; i < k; ++i) rows[size_t(r * k + i)] *= size;
    }
  };
  const auto top = [](const float* row) {
    float most = 0.0f;
    for (int64_t i = 0; i < k; ++i) most = std::max(most, std::abs(row[i]));
    return double(most);
  };
  shrink(x, m / 2), shrink(w, n / 2);
  const Int8Weight rounded(w, n, k);
  std::vector<float> y(size_t(m * n), NAN);
  as_team(gemm,
          GemmParams{.x = x.data(), .w = rounded.panels, .y = y.data(), .m = m, .n = n, .k = k, .ldx = k, .ldy = n}, 1);
  for (int64_t r = 0; r < m; ++r)
    for (int64_t j = 0; j < n; ++j) {
      const double most_x = top(&x[size_t(r * k)]), most_w = top(&w[size_t(j * k)]);
      double want = 0.0;
      for (int64_t i = 0; i < k; ++i) want += double(x[size_t(r * k + i)]) * double(w[size_t(j * k + i)]);
      // Half a step of each factor; all of a row or a weight that counts as zero; the smallest normal number.
      const double steps = std::min(most_x, most_w) < 1e-30 ? 1.0 : 1.01 / 127;
      CHECK(std::abs(double(y[size_t(r * n + j)]) - want) <= steps * k * most_x * most_w + 1.2e-38);
    }
}

TEST(attention_over_spans) {
  for (int round = 0; round < 40; ++round) {
    // Mostly few rows; some rounds have more than are carried at once, or the widest heads.
    const bool many = round % 8 == 6, wide = round % 20 == 9;
    const int64_t rows = many ? pick(40, 300) : pick(1, 60), heads = many || wide ? 1 : pick(1, 4),
                  d = wide ? kMaxHeadDim - pick(0, 1) : pick(1, 80), spans = pick(1, 4);
    const auto q = randn(rows * heads * d);
    std::vector<std::vector<float>> data;
    std::vector<KeySpan> list;
    int64_t keys = 0;
    for (int64_t s = 0; s < spans; ++s) {
      const int64_t n = pick(s == 0 ? 1 : 0, 40), pad = pick(0, 3);
      data.push_back(randn(n * (heads * d + pad)));
      data.push_back(randn(n * heads * d));
      list.push_back({data[2 * s].data(), data[2 * s + 1].data(), n, heads * d + pad, heads * d});
      keys += n;
    }
    auto bias = randn(heads * rows * keys);
    if (round & 4) {  // a masked key, and a row that sees but its last one
      bias[0] = -INFINITY;
      const int64_t row = pick(0, heads * rows - 1);
      std::fill_n(bias.begin() + row * keys, keys - 1, -INFINITY);
    }
    auto out = randn(rows * heads * d), want = out;
    AttentionParams p{.q = q.data(),
                      .out = out.data(),
                      .rows = rows,
                      .heads = heads,
                      .head_dim = d,
                      .ldq = heads * d,
                      .ldo = heads * d,
                      .spans = list.data(),
                      .span_count = spans,
                      .scale = 1 / std::sqrt(float(d))};
    p.accumulate = round & 1;
    if ((round & 2) && keys > 1) p.bias = bias.data();
    as_team(attention, p, int(pick(1, 3)));
    p.out = want.data();
    attention_ref(p);
    CHECK(check::relative_error(out, want, out.size(), 0.5) < 4e-6);
  }
}

TEST(feed_forward_is_its_operations) {
  for (int round = 0; round < 24; ++round) {
    const int64_t rows = pick(1, 3 * kFeedForwardRows), dim = pick(16, 70), hidden = pick(1, 150);
    const auto shift = randn(2 * dim), scale = randn(2 * dim), gate = randn(2 * dim), b1 = randn(hidden),
               b2 = randn(dim);
    const auto w1 = randn(hidden * dim), w2 = randn(dim * hidden);
    std::vector<float> packed1(packed_size(hidden, dim)), packed2(packed_size(dim, hidden));
    pack_weight(w1.data(), hidden, dim, packed1.data());
    pack_weight(w2.data(), dim, hidden, packed2.data());
    std::vector<int32_t> time(rows);
    for (auto& t : time) t = int32_t(pick(0, 1));
    auto x = randn(rows * dim);
    std::vector<float> z(rows * dim), up(rows * hidden), want(rows * dim);
    layer_norm_ref({.x = x.data(),
                    .y = z.data(),
                    .rows = rows,
                    .cols = dim,
                    .ldx = dim,
                    .ldy = dim,
                    .shift = shift.data(),
                    .scale = scale.data(),
                    .ldm = dim,
                    .time_row = time.data()});
    GemmParams first{.x = z.data(),
                     .w = packed1.data(),
                     .bias = b1.data(),
                     .y = up.data(),
                     .m = rows,
                     .n = hidden,
                     .k = dim,
                     .ldx = dim,
                     .ldy = hidden,
                     .activation = Activation::gelu_tanh};
    gemm_ref(first);
    gemm_ref({.x = up.data(),
              .w = packed2.data(),
              .bias = b2.data(),
              .y = want.data(),
              .m = rows,
              .n = dim,
              .k = hidden,
              .ldx = hidden,
              .ldy = dim,
              .residual = x.data(),
              .ldr = dim,
              .gate = gate.data(),
              .ldg = dim,
              .gate_row = time.data()});
    const int team = int(pick(1, 3));
    std::vector<float> scratch(feed_forward_scratch(dim, hidden, team));
    as_team(feed_forward,
            FeedForwardParams{.x = x.data(),
                              .rows = rows,
                              .dim = dim,
                              .hidden = hidden,
                              .ldx = dim,
                              .shift = shift.data(),
                              .scale = scale.data(),
                              .gate = gate.data(),
                              .ldm = dim,
                              .time_row = time.data(),
                              .w1 = packed1.data(),
                              .b1 = b1.data(),
                              .w2 = packed2.data(),
                              .b2 = b2.data(),
                              .scratch = scratch.data()},
            team);
    CHECK(check::relative_error(x, want, x.size(), std::sqrt(double(dim * hidden))) < 4e-6);
  }
}

TEST(layer_norm_with_modulation) {
  for (int round = 0; round < 24; ++round) {
    const int64_t rows = pick(1, 7), cols = pick(2, 130);
    const auto x = randn(rows * cols), weight = randn(cols), bias = randn(cols), shift = randn(2 * cols),
               scale = randn(2 * cols);
    std::vector<int32_t> row(rows);
    for (auto& r : row) r = int32_t(pick(0, 1));
    std::vector<float> y(rows * cols), want(rows * cols);
    LayerNormParams p{.x = x.data(), .y = y.data(), .rows = rows, .cols = cols, .ldx = cols, .ldy = cols};
    if (round & 1) p.weight = weight.data(), p.bias = bias.data();
    if (round & 2)
      p.shift = shift.data(), p.scale = scale.data(), p.ldm = cols, p.time_row = round & 4 ? row.data() : nullptr;
    as_team(layer_norm, p, int(pick(1, 3)));
    p.y = want.data();
    layer_norm_ref(p);
    // x - mean loses digits where a row varies little beside its size: two nearly equal numbers are such a row.
    double size = 0;
    for (int64_t r = 0; r < rows; ++r) {
      double mean = 0, var = 0, top = 0;
      for (int64_t c = 0; c < cols; ++c) mean += x[r * cols + c] / double(cols);
      for (int64_t c = 0; c < cols; ++c) var += std::pow(x[r * cols + c] - mean, 2) / double(cols);
      for (int64_t c = 0; c < cols; ++c) top = std::max(top, std::abs(double(x[r * cols + c])));
      size = std::max(size, top / std::sqrt(var + 1e-6));
    }
    CHECK(check::relative_error(y, want, y.size()) < 4e-6 + 4e-7 * size);
  }
}

TEST(qk_norm_and_rope) {
  for (int round = 0; round < 24; ++round) {
    const int64_t rows = pick(1, 7), heads = pick(1, 4), d = 2 * pick(1, 40), width = heads * d;
    const auto x = randn(rows * width), weight = randn(width), cos = randn(rows * d / 2), sin = randn(rows * d / 2);
    std::vector<float> y(rows * width), want(rows * width);
    QkNormRopeParams p{
        .x = x.data(), .y = y.data(), .rows = rows, .heads = heads, .head_dim = d, .ldx = width, .ldy = width};
    if (round & 1) p.weight = weight.data();
    if (round & 2) p.cos = cos.data(), p.sin = sin.data();
    as_team(qk_norm_rope, p, int(pick(1, 3)));
    p.y = want.data();
    qk_norm_rope_ref(p);
    CHECK(check::relative_error(y, want, y.size()) < 4e-6);
  }
}

CHECK_MAIN_ON_ISA()
