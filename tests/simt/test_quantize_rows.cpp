// Rounding to e4m3 and the kernel that quantises rows.
#include "cuda/quantize_rows.cuh"
#include "launcher.h"
#include "planted.h"

using namespace wam::kernels::cuda;

TEST(e4m3_rounds_to_the_nearest_of_all_codes) {
  for (int code = 0; code < 256; ++code) {
    const e4m3 v{uint8_t(code)};
    if ((code & 0x7f) == 0x7f) {
      CHECK(std::isnan(to_float(v)));
      continue;
    }
    if (code != 0x80) CHECK(to_e4m3(to_float(v)).bits == v.bits);  // -0 may come back as 0
  }
  CHECK(to_float(e4m3{0x7e}) == 448.0f && to_float(e4m3{0x01}) == std::ldexp(1.0f, -9));
  CHECK(to_float(e4m3{0xb8}) == -1.0f && to_float(e4m3{0x39}) == 1.125f);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 20000; ++i) {
    const float x = normal(check::fresh()) * std::ldexp(1.0f, int(check::fresh()() % 24) - 14);
    double best = INFINITY;
    for (int code = 0; code < 256; ++code)
      if ((code & 0x7f) != 0x7f) best = std::min(best, std::abs(double(to_float(e4m3{uint8_t(code)})) - x));
    CHECK(std::abs(double(to_float(to_e4m3(x))) - x) == best);
  }
  CHECK(to_e4m3(1.0625f).bits == 0x38 && to_e4m3(1.1875f).bits == 0x3a);  // ties to even
  CHECK(to_e4m3(1e9f).bits == 0x7e && to_e4m3(-1e9f).bits == 0xfe && to_e4m3(NAN).bits == 0x7f);
}

namespace {

struct Rows {
  Rows(int rows, int cols)
      : x(sim::normal_bf16(int64_t{rows} * (cols + 8))), y(size_t(rows) * (cols + 16)), scale(size_t(rows), NAN) {
    p = {.x = x.data(),
         .y = y.data(),
         .scale = scale.data(),
         .rows = rows,
         .cols = cols,
         .ldx = cols + 8,
         .ldy = (cols + 31) / 16 * 16};
    y.assign(size_t(rows * p.ldy), e4m3{0x7f});
    p.y = y.data();
  }
  std::vector<bf16> x;
  std::vector<e4m3> y;
  std::vector<float> scale;
  QuantizeRowsParams p;
};

}  // namespace

TEST(rows_use_the_whole_range) {
  for (const int cols : {8, 72, 2048, 5120}) {
    Rows r(5, cols);
    for (int i = 0; i < cols; ++i) r.x[size_t(3 * r.p.ldx + i)] = {0};  // a row of zeros
    CHECK(launch_quantize_rows(r.p, sim::Launcher{.seed = sim::seed()}));
    for (int row = 0; row < 5; ++row) {
      double top = 0, largest = 0;
      for (int i = 0; i < cols; ++i) top = std::max(top, std::abs(double(to_float(r.x[size_t(row * r.p.ldx + i)]))));
      CHECK_NEAR(r.scale[size_t(row)], row == 3 ? 1.0 : top / 448, 1e-6 * top);
      for (int i = 0; i < cols; ++i) {
        const double got = to_float(r.y[size_t(row * r.p.ldy + i)]),
                     want = to_float(r.x[size_t(row * r.p.ldx + i)]) / double(r.scale[size_t(row)]);
        largest = std::max(largest, std::abs(got));
        CHECK(std::abs(got - want) <= std::max(std::abs(want) / 16 * 1.0001, std::ldexp(1.0, -10) * 1.0001));
      }
      CHECK(largest == (row == 3 ? 0 : 448));
      for (int64_t i = cols; i < r.p.ldy; ++i) CHECK(r.y[size_t(row * r.p.ldy + i)].bits == 0x7f);  // untouched
    }
  }
}

// Down to the smallest number that bf16 has: nothing becomes NaN or infinite, scales stay normal, and what comes back
// is as near as e4m3 allows with such a scale.
TEST(rows_of_the_smallest_numbers_keep_their_values) {
  for (const int exponent : {-110, -119, -120, -126, -130, -133}) {
    Rows r(3, 72);
    for (int i = 0; i < 72; ++i) {
      const int steps = int(check::fresh()() % 255) - 127;  // seven bits and a sign
      for (int row = 0; row < 3; ++row)
        r.x[size_t(row * r.p.ldx + i)] = to_bf16(std::ldexp(float(row == 2 && i ? 0
                                                                  : row == 1    ? (i % 3 - 1) * 128
                                                                                : steps),
                                                            exponent - 7));
    }
    r.x[size_t(2 * r.p.ldx)] = bf16{1};  // 2^-133, alone
    CHECK(launch_quantize_rows(r.p, sim::Launcher{.seed = sim::seed()}));
    for (int row = 0; row < 3; ++row) {
      double top = 0;
      for (int i = 0; i < 72; ++i) top = std::max(top, std::abs(double(to_float(r.x[size_t(row * r.p.ldx + i)]))));
      const double scale = r.scale[size_t(row)], want = top > 0 ? std::max(top / 448, std::ldexp(1.0, -126)) : 1.0;
      CHECK(std::abs(scale / want - 1) < 1e-6);
      for (int i = 0; i < 72; ++i) {
        const double x = to_float(r.x[size_t(row * r.p.ldx + i)]),
                     got = to_float(r.y[size_t(row * r.p.ldy + i)]) * scale;
        CHECK(std::abs(got - x) <= std::max(std::abs(x) / 16, std::ldexp(scale, -10)) * 1.0001);
      }
    }
  }
}

TEST(a_missing_barrier_is_caught) {
  int caught = 0;
  for (unsigned seed = 1; seed <= 5; ++seed) {
    // Whoever holds the largest and comes first misses nothing: in each row it is another warp's.
    Rows clean(8, 2048);
    for (int row = 0; row < 8; ++row) clean.x[size_t(row * (clean.p.ldx + 256))] = to_bf16(100.0f);
    Rows bug = clean;
    bug.p = clean.p;
    bug.p.y = bug.y.data();
    bug.p.scale = bug.scale.data();
    launch_quantize_rows(clean.p, sim::Launcher{.seed = seed});
    launch_quantize_rows(bug.p, sim::Launcher{.seed = seed, .planted = "missing_barrier"});
    caught += bug.scale != clean.scale || std::memcmp(bug.y.data(), clean.y.data(), clean.y.size()) != 0;
  }
  CHECK(caught == 5);
}

TEST(columns_too_many_are_caught) {
  const ChildResult r = run_in_child([] {
    Rows clean(3, 72);
    Rows bug = clean;
    bug.p = clean.p;
    bug.p.y = bug.y.data();
    bug.p.scale = bug.scale.data();
    launch_quantize_rows(clean.p, sim::Launcher{.seed = 1});
    launch_quantize_rows(bug.p, sim::Launcher{.seed = 1, .planted = "columns_out_of_bounds"});
    if (std::memcmp(bug.y.data(), clean.y.data(), clean.y.size()) != 0) throw std::runtime_error("wrong values");
  });
  CHECK(!r.clean);
}

TEST(impossible_sizes_are_refused) {
  const auto refuses = [](auto spoil) {
    Rows r(2, 64);
    spoil(r.p);
    return !launch_quantize_rows(r.p, sim::Launcher{});
  };
  CHECK(refuses([](QuantizeRowsParams& p) { p.cols = 60; }));
  CHECK(refuses([](QuantizeRowsParams& p) { p.ldy = 72; }));
  CHECK(refuses([](QuantizeRowsParams& p) { p.ldx = 56; }));
  CHECK(refuses([](QuantizeRowsParams& p) { p.scale = nullptr; }));
  CHECK(refuses([](QuantizeRowsParams& p) { ++p.x; }));
}

CHECK_MAIN()
