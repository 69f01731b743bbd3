// ln_modulate against its definition in float64, at the widths of the models and at ragged ones.
#include "cuda/ln_modulate.cuh"

#include <cmath>

#include "launcher.h"
#include "planted.h"

using namespace sim;

namespace {

struct Case {
  int rows, cols;
  bool affine, modulated, based;
  bool wide = false;  // rows in float32
};

struct Data {
  explicit Data(const Case& c) : ldx(c.cols + 4), ldy(c.cols + 8), ldm(3 * c.cols), time_rows(3) {
    x = normal((c.rows - 1) * ldx + c.cols, 3.0, 0.5);  // a mean that would eat digits of E[x^2] - E[x]^2
    for (float& v : x) {
      narrow.push_back(to_bf16(v));
      if (!c.wide) v = to_float(narrow.back());
    }
    y.assign(size_t((c.rows - 1) * ldy + c.cols), kNan);
    weight = normal(c.cols), bias = normal(c.cols), modulation = normal(ldm * time_rows);
    shift_base = normal(c.cols), scale_base = normal(c.cols);
    for (int r = 0; r < c.rows; ++r) time_row.push_back(check::integer(0, time_rows - 1));
    p = {.x = narrow.data(), .y = y.data(), .rows = c.rows, .cols = c.cols, .ldx = ldx, .ldy = ldy, .eps = 1e-6f};
    if (c.wide) p.x = nullptr, p.x_wide = x.data();
    if (c.affine) p.weight = weight.data(), p.bias = bias.data();
    if (c.modulated) {
      p.shift = modulation.data() + c.cols, p.scale = modulation.data() + 2 * c.cols;
      p.ldm = ldm, p.time_row = time_row.data();
    }
    if (c.based) p.shift_base = shift_base.data(), p.scale_base = scale_base.data();
  }
  // Row r, column c, in float64; `scale` is how large the terms are that are summed.
  double want(int r, int c, double* scale) const {
    const float* row = x.data() + r * ldx;
    double mean = 0, var = 0;
    for (int j = 0; j < p.cols; ++j) mean += row[j];
    mean /= p.cols;
    for (int j = 0; j < p.cols; ++j) var += (row[j] - mean) * (row[j] - mean);
    double v = (row[c] - mean) / std::sqrt(var / p.cols + double(p.eps));
    *scale = 1.0 + std::abs(v);
    if (p.weight) *scale *= 1 + std::abs(p.weight[c]), v = v * p.weight[c] + p.bias[c];
    if (p.shift) {
      const int64_t m = time_row[size_t(r)] * ldm;
      const double s = p.scale[m + c] + (p.scale_base ? p.scale_base[c] : 0.0);
      *scale *= 2 + std::abs(s);
      v = v * (1 + s) + p.shift[m + c] + (p.shift_base ? p.shift_base[c] : 0.0);
    }
    return v;
  }
  int wrong(const Launcher& launch) {
    if (!launch_ln_modulate(p, launch)) return -1;
    int count = 0;
    for (int r = 0; r < p.rows; ++r) {
      for (int c = 0; c < int(ldy); ++c) {
        if (size_t(r * ldy + c) >= y.size()) break;
        const bf16 got = y[size_t(r * ldy + c)];
        double scale = 1;
        if (c < p.cols && p.cols > 64 && c % 7)
          continue;  // the definition is slow; the last column is always looked at
        count += c < p.cols ? !rounded(got, want(r, c, &scale), scale, 2e-5) : !is_nan(got);
      }
    }
    return count;
  }

  int64_t ldx, ldy, ldm;
  int time_rows;
  std::vector<float> x, weight, bias, modulation, shift_base, scale_base;
  std::vector<int32_t> time_row;
  std::vector<bf16> narrow, y;
  LnModulateParams p;
};

}  // namespace

TEST(equals_its_definition) {
  for (const int cols : {2, 5, 64, 100, 127, 512, 516, 1024, 1536, 3072, 5120, 5124, 8192})
    for (const auto& [affine, modulated, based] :
         {std::tuple{false, false, false}, {true, false, false}, {false, true, false}, {false, true, true}}) {
      Data d({cols > 2000 ? 2 : 5, cols, affine, modulated, based});
      const int wrong = d.wrong({.seed = seed()});
      if (wrong)
        std::printf("  cols %d affine %d modulated %d based %d: %d wrong\n", cols, affine, modulated, based, wrong);
      CHECK(wrong == 0);
    }
}

TEST(rows_in_float32) {
  for (const int cols : {3, 10, 1280, 8192})
    for (const bool affine : {false, true})
      CHECK(Data({2, cols, affine, false, false, true}).wrong({.seed = seed()}) == 0);
}

// e4m3 keeps 4 bits: an element is off by at most 2^-4 of its size, or half a step of the smallest.
TEST(rows_in_e4m3_with_a_scale) {
  for (const int cols : {16, 100, 512, 1024, 3072, 5120, 8192}) {
    Data d({3, cols, cols % 3 == 1, true, true});
    std::vector<e4m3> y(size_t(3 * d.ldy), e4m3{0x7f});
    std::vector<float> scale(3, NAN);
    d.p.y = nullptr, d.p.y_e4m3 = y.data(), d.p.y_scale = scale.data();
    CHECK(launch_ln_modulate_e4m3(d.p, Launcher{.seed = seed()}));
    for (int r = 0; r < 3; ++r) {
      double top = 0, size = 1;
      for (int c = 0; c < cols; ++c) top = std::max(top, std::abs(d.want(r, c, &size))), c += cols > 2000 ? 16 : 0;
      CHECK(scale[size_t(r)] * 448 > 0.999 * top);
      if (cols <= 2000) CHECK(scale[size_t(r)] * 448 < 1.001 * top);
      for (int c = 0; c < cols; c += cols > 64 ? 7 : 1) {
        const double want = d.want(r, c, &size), got = double(to_float(y[size_t(r * d.ldy + c)])) * scale[size_t(r)];
        CHECK(std::abs(got - want) <= std::abs(want) / 15 + scale[size_t(r)] / 500);
      }
      for (int64_t c = cols; c < d.ldy; ++c) CHECK(y[size_t(r * d.ldy + c)].bits == 0x7f);
    }
  }
}

TEST(a_missing_barrier_before_the_maximum_is_used_is_caught) {
  int caught = 0;
  for (unsigned s = 1; s <= 5; ++s) {
    // Whoever holds the largest and comes first misses nothing: in each row it is another warp's.
    Data d({4, 512, false, false, false});
    for (int row = 0; row < 4; ++row) d.narrow[size_t(row * (d.ldx + 128))] = to_bf16(100.0f);
    const auto run = [&](const char* bug) {
      std::vector<e4m3> y(size_t(4 * d.ldy));
      std::vector<float> scale(4);
      d.p.y = nullptr, d.p.y_e4m3 = y.data(), d.p.y_scale = scale.data();
      launch_ln_modulate_e4m3(d.p, Launcher{.seed = s, .planted = bug});
      std::string bytes(reinterpret_cast<const char*>(y.data()), y.size());
      return bytes.append(reinterpret_cast<const char*>(scale.data()), 4 * sizeof(float));
    };
    const std::string want = run("");
    try {
      caught += run("missing_barrier") != want;
    } catch (const simt::Fault&) {
      ++caught;
    }
  }
  CHECK(caught == 5);
}

TEST(unaligned_rows_take_the_narrow_path) {
  Data d({3, 64, false, true, false});
  d.narrow.insert(d.narrow.begin(), kNan);
  d.p.x = d.narrow.data() + 1;
  CHECK(!ln_modulate_by_four(d.p));
  Data aligned({3, 64, false, true, false});
  CHECK(ln_modulate_by_four(aligned.p));
}

TEST(impossible_sizes_are_refused) {
  Data d({1, 8, false, false, false});
  for (const auto& [rows, cols] : {std::pair{0, 8}, {1, 0}, {1, kLnMostColumns + 1}}) {
    LnModulateParams p = d.p;
    p.rows = rows, p.cols = cols;
    CHECK(!launch_ln_modulate(p, Launcher{}));
    p = d.p, p.x = nullptr;
    CHECK(!launch_ln_modulate(p, Launcher{}));
    p = d.p;
    CHECK(!launch_ln_modulate_e4m3(p, Launcher{}));  // nowhere to put it
    e4m3 byte{};
    p.y_e4m3 = &byte;
    CHECK(!launch_ln_modulate(p, Launcher{}));  // two places
  }
}

TEST(columns_too_many_are_caught) {
  const ChildResult r = run_in_child([] {
    Data d({2, 300, false, true, false});
    if (d.wrong({.seed = 1, .planted = "columns_out_of_bounds"}) != 0) throw std::runtime_error("wrong values");
  });
  CHECK(!r.clean);
}

TEST(a_missing_barrier_is_caught) {
  int caught = 0;
  for (unsigned s = 1; s <= 5; ++s) {
    Data d({2, 512, false, true, false});
    caught += d.wrong({.seed = s, .planted = "no_barrier"}) != 0;
  }
  CHECK(caught >= 3);  // in most orders of the threads; a few hide it
}

CHECK_MAIN()
