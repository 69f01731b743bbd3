// The passes at the network's borders, each against its definition.
#include "cuda/embed.cuh"

#include <cmath>

#include "launcher.h"
#include "planted.h"

using namespace sim;

TEST(patches_are_cut_channel_slowest) {
  for (const auto& [c0, c1, frames, h, w] :
       {std::tuple{1, 0, 1, 2, 2}, {3, 0, 2, 4, 6}, {2, 5, 3, 6, 2}, {16, 20, 2, 8, 10}}) {
    const std::vector<float> a = normal(int64_t{c0} * frames * h * w), b = normal(int64_t{c1} * frames * h * w);
    const int cols = 4 * (c0 + c1), ldo = cols + 2, tokens = frames * h * w / 4;
    std::vector<bf16> out(size_t(tokens * ldo), kNan);
    CHECK(launch_patchify({.source = {a.data(), b.data()},
                           .channels = {c0, c1},
                           .frames = frames,
                           .height = h,
                           .width = w,
                           .out = out.data(),
                           .ldo = ldo},
                          Launcher{.seed = seed()}));
    for (int f = 0; f < frames; ++f)
      for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x)
          for (int c = 0; c < c0 + c1; ++c) {
            const std::vector<float>& from = c < c0 ? a : b;
            const float want = from[size_t((((c < c0 ? c : c - c0) * frames + f) * h + y) * w + x)];
            const int token = (f * (h / 2) + y / 2) * (w / 2) + x / 2;
            CHECK(out[size_t(token * ldo + c * 4 + y % 2 * 2 + x % 2)].bits == to_bf16(want).bits);
          }
    for (int t = 0; t < tokens; ++t)
      CHECK(is_nan(out[size_t(t * ldo + cols)]) && is_nan(out[size_t(t * ldo + cols + 1)]));
  }
}

TEST(patches_go_back_channel_fastest) {
  for (const auto& [channels, frames, h, w] : {std::tuple{1, 1, 2, 2}, {3, 2, 4, 6}, {16, 2, 8, 10}}) {
    const int ldx = 4 * channels + 3, tokens = frames * h * w / 4;
    const std::vector<float> x = normal((tokens - 1) * ldx + 4 * channels);
    std::vector<float> out(size_t(channels * frames * h * w), NAN);
    CHECK(launch_unpatchify(
        {.x = x.data(), .out = out.data(), .channels = channels, .frames = frames, .height = h, .width = w, .ldx = ldx},
        Launcher{.seed = seed()}));
    for (int c = 0; c < channels; ++c)
      for (int f = 0; f < frames; ++f)
        for (int i = 0; i < h * w; ++i) {
          const int y = i / w, col = i % w, token = (f * (h / 2) + y / 2) * (w / 2) + col / 2;
          CHECK(out[size_t((c * frames + f) * h * w + i)] ==
                x[size_t(token * ldx + (y % 2 * 2 + col % 2) * channels + c)]);
        }
  }
}

TEST(waves_have_the_angles_of_float64) {
  for (const auto& [rows, cols] : {std::pair{1, 2}, {3, 256}, {24, 130}})
    for (const bool cos_first : {true, false}) {
      const std::vector<float> t = {999.0f, 0.0f, 437.0f};
      std::vector<int32_t> row;
      for (int i = 0; i < rows; ++i) row.push_back(check::integer(0, 2));
      std::vector<float> out(size_t(rows * (cols + 1)), NAN);
      CHECK(launch_sinusoid({.t = t.data(),
                             .row = row.data(),
                             .out = out.data(),
                             .rows = rows,
                             .cols = cols,
                             .ldo = cols + 1,
                             .cos_first = cos_first},
                            Launcher{.seed = seed()}));
      for (int i = 0; i < rows; ++i)
        for (int k = 0; k < cols / 2; ++k) {
          const double angle = t[size_t(row[size_t(i)])] * std::pow(10000.0, -double(k) / (cols / 2));
          const float* at = out.data() + i * (cols + 1) + k;
          CHECK_NEAR(at[cos_first ? 0 : cols / 2], std::cos(angle), 1.2e-7);
          CHECK_NEAR(at[cos_first ? cols / 2 : 0], std::sin(angle), 1.2e-7);
        }
    }
}

TEST(activations) {
  const int rows = 5, cols = 77;
  const std::vector<float> x = normal(rows * cols, 0, 3);
  for (const Act act : {Act::none, Act::gelu_tanh, Act::gelu_erf, Act::silu, Act::relu}) {
    std::vector<float> y(x.size(), NAN);
    CHECK(launch_activation(
        {.x = x.data(), .y = y.data(), .rows = rows, .cols = cols, .ldx = cols, .ldy = cols, .act = act},
        Launcher{.seed = seed()}));
    for (size_t i = 0; i < x.size(); ++i) CHECK(y[i] == activate(x[i], act));
  }
}

TEST(rounding_and_adding) {
  for (const int n : {1, 7, 8, 4099}) {
    const std::vector<float> x = normal(n);
    std::vector<bf16> y(static_cast<size_t>(n), kNan);
    CHECK(launch_activation({.x = x.data(), .y_narrow = y.data(), .rows = 1, .cols = n, .ldx = n, .ldy = n},
                            Launcher{.seed = seed()}));
    for (size_t i = 0; i < x.size(); ++i) CHECK(y[i].bits == to_bf16(x[i]).bits);
    const std::vector<bf16> more = normal_bf16(n), before = y;
    CHECK(launch_add({.x = more.data(), .y = y.data(), .count = n}, Launcher{.seed = seed()}));
    for (size_t i = 0; i < x.size(); ++i) CHECK(y[i].bits == to_bf16(to_float(before[i]) + to_float(more[i])).bits);
  }
}

TEST(impossible_sizes_are_refused) {
  CHECK(!launch_patchify({.channels = {1, 0}, .frames = 1, .height = 3, .width = 2}, Launcher{}));
  CHECK(!launch_unpatchify({.channels = 1, .frames = 0, .height = 2, .width = 2}, Launcher{}));
  CHECK(!launch_sinusoid({.rows = 1, .cols = 3}, Launcher{}));
  CHECK(!launch_activation({.rows = 0, .cols = 3}, Launcher{}));
  CHECK(!launch_add({.count = 0}, Launcher{}));
}

TEST(an_element_too_many_is_caught) {
  const std::vector<float> x = normal(24);
  const std::vector<bf16> narrow = normal_bf16(13);
  const float t = 999.0f;
  std::vector<float> wide(24);
  std::vector<bf16> out(24);
  const std::function<void(const Launcher&)> passes[] = {
      [&](const Launcher& l) {
        launch_patchify({.source = {x.data()},
                         .channels = {1, 0},
                         .frames = 1,
                         .height = 4,
                         .width = 6,
                         .out = out.data(),
                         .ldo = 4},
                        l);
      },
      [&](const Launcher& l) {
        launch_unpatchify(
            {.x = x.data(), .out = wide.data(), .channels = 1, .frames = 1, .height = 4, .width = 6, .ldx = 4}, l);
      },
      [&](const Launcher& l) { launch_sinusoid({.t = &t, .out = wide.data(), .rows = 1, .cols = 24, .ldo = 24}, l); },
      [&](const Launcher& l) {
        launch_activation({.x = x.data(), .y = wide.data(), .rows = 1, .cols = 24, .ldx = 24, .ldy = 24}, l);
      },
      [&](const Launcher& l) {
        std::vector<bf16> y = narrow;
        launch_add({.x = narrow.data(), .y = y.data(), .count = 13}, l);
      }};
  for (const auto& pass : passes) {
    CHECK(run_in_child([&] { pass({.seed = 1}); }).clean);
    const ChildResult r = run_in_child([&] { pass({.seed = 1, .planted = "out_of_bounds"}); });
    CHECK(!r.clean && r.says("AddressSanitizer"));
  }
}

CHECK_MAIN()
