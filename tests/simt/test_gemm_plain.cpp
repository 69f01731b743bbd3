// The product for everything that tensor cores do not take, against float64: any shape, both types at either end.
#include "cuda/gemm_plain.cuh"

#include "launcher.h"
#include "planted.h"

using namespace sim;

namespace {

struct Case {
  int m, n, k;
  bool x_wide = false, y_wide = false, bias = true, residual = false, gate = false;
  Act act = Act::none;
};

int wrong(const Case& c, const Launcher& launch) {
  const int64_t ldx = c.k + 3, ldw = c.k + 1, ldy = c.n + 2, ldg = c.n + 5;
  const std::vector<bf16> x = normal_bf16((c.m - 1) * ldx + c.k), w = normal_bf16((c.n - 1) * ldw + c.k),
                          bias = normal_bf16(c.n), residual = normal_bf16((c.m - 1) * ldy + c.n);
  const std::vector<float> x_wide = normal(int64_t(x.size())), gate = normal(3 * ldg);
  std::vector<int32_t> gate_row;
  for (int i = 0; i < c.m; ++i) gate_row.push_back(check::integer(0, 2));
  std::vector<bf16> y = residual;  // the sum is made in place, as the residual stream is
  std::vector<float> y_wide(y.size(), NAN);
  GemmPlainParams p{.w = w.data(), .m = c.m, .n = c.n, .k = c.k, .ldx = ldx, .ldw = ldw, .ldy = ldy, .act = c.act};
  if (c.x_wide)
    p.x_wide = x_wide.data();
  else
    p.x = x.data();
  if (c.y_wide)
    p.y_wide = y_wide.data();
  else
    p.y = y.data();
  if (c.bias) p.bias = bias.data();
  if (c.residual) p.residual = y.data(), p.ldr = ldy;
  if (c.gate) p.gate = gate.data(), p.gate_row = gate_row.data(), p.ldg = ldg;
  if (!launch_gemm_plain(p, launch)) return -1;
  int count = 0;
  for (int i = 0; i < c.m; ++i)
    for (int j = 0; j < c.n; ++j) {
      double sum = c.bias ? to_float(bias[size_t(j)]) : 0.0, size = std::abs(sum);
      for (int k = 0; k < c.k; ++k) {
        const size_t at = size_t(i * ldx + k);
        const double product = (c.x_wide ? x_wide[at] : to_float(x[at])) * double(to_float(w[size_t(j * ldw + k)]));
        sum += product, size += std::abs(product);
      }
      double want = c.act == Act::none ? sum : double(activate(float(sum), c.act));
      if (c.gate) want *= gate[size_t(gate_row[size_t(i)] * ldg + j)];
      const size_t at = size_t(i * ldy + j);
      if (c.residual) want += to_float(residual[at]);
      const double scale = 3 + size;
      count += c.y_wide ? !(std::abs(y_wide[at] - want) <= 2e-6 * scale) : !rounded(y[at], want, scale, 2e-6);
    }
  return count;
}

}  // namespace

TEST(equals_its_definition) {
  for (const Case& c :
       {Case{1, 1, 1}, Case{3, 70, 33}, Case{24, 64, 32, true}, Case{17, 130, 5, false, true},
        Case{3, 192, 100, true, true, false}, Case{40, 67, 65, false, false, true, true, true},
        Case{16, 64, 64, false, false, true, true}, Case{5, 20, 12, true, false, true, false, false, Act::relu},
        Case{5, 20, 12, false, true, true, false, false, Act::silu}}) {
    const int bad = wrong(c, {.seed = seed()});
    if (bad) std::printf("  %d x %d x %d: %d wrong\n", c.m, c.n, c.k, bad);
    CHECK(bad == 0);
  }
}

TEST(a_missing_barrier_is_caught) {
  int caught = 0;
  for (unsigned s = 1; s <= 3; ++s) caught += wrong({16, 64, 64}, {.seed = s, .planted = "missing_barrier"}) != 0;
  CHECK(caught >= 2);  // in most orders of the threads; a few hide it
}

TEST(rows_too_many_are_caught) {
  for (const char* bug : {"row_out_of_bounds", "store_out_of_bounds"}) {
    const ChildResult r = run_in_child([&] { wrong({17, 64, 33, true}, {.seed = 1, .planted = bug}); });
    CHECK(!r.clean && r.says("AddressSanitizer"));
  }
}

TEST(impossible_parameters_are_refused) {
  const bf16 one{};
  bf16 y{};
  float y_wide = 0;
  const GemmPlainParams good{.x = &one, .w = &one, .y = &y, .m = 1, .n = 1, .k = 1};
  GemmPlainParams p = good;
  p.k = 0;
  CHECK(!launch_gemm_plain(p, Launcher{}));
  p = good, p.x = nullptr;
  CHECK(!launch_gemm_plain(p, Launcher{}));
  p = good, p.y_wide = &y_wide;
  CHECK(!launch_gemm_plain(p, Launcher{}));
}

CHECK_MAIN()
