// The e4m3 GEMM's own source, run on the CPU, fed by the kernel that quantises.
#include "check.h"
#include "cuda/gemm_sm90.cuh"
#include "gemm_cases.h"
#include "launcher.h"
#include "planted.h"
#include "quantised.h"
#include "tensor_maps.h"

using namespace gemm_cases;

namespace {

// Measured against the product of the quantised numbers: 1.7e-3, the rounding of results to bf16. Against the product
// of the numbers before: 2.7e-2, which is what e4m3 costs. Twice that is allowed.
constexpr double kTolerance = 3.4e-3, kQuantisedTolerance = 5.4e-2;

struct Result {
  double against_quantised, against_original;
  simt::Counts counts;
};

Result run(const Case& c, int tile, unsigned seed, const char* bug = "", int splits = 1) {
  Data data(c, seed);
  const Quantised x(data.p.x, c.m, c.k, data.p.ldx), w(data.p.w, c.n, c.k, data.p.ldw);
  const GemmChoiceSm90 choice{tile, splits};
  std::vector<float> partial(size_t(gemm_split_floats(c.m, c.n, choice)), NAN);
  std::vector<int32_t> arrived(size_t(gemm_tiles_sm90(c.m, c.n, kGemmColsSm90[tile])));
  GemmParamsSm90 plan;
  CHECK(plan_gemm_fp8_sm90(&plan, data.p, operands(x, w), choice, {partial.data(), arrived.data()}, 2) == 0);
  Result r{};
  CHECK(launch_gemm_fp8_sm90(plan, sim::Launcher{.seed = seed, .planted = bug, .counts = &r.counts}));
  r.against_quantised = error(data, x, w);
  r.against_original = data.error();
  return r;
}

void check_tile(int tile, const std::vector<Case>& cases) {
  const unsigned seed = sim::seed();
  for (const Case& c : cases) {
    const Result r = run(c, tile, seed);
    std::printf("  128 x %d %-20s seed %10u: %.2e, before quantisation %.2e\n", kGemmColsSm90[tile], c.name, seed,
                r.against_quantised, r.against_original);
    CHECK(r.against_quantised <= kTolerance);
    CHECK(r.against_original <= kQuantisedTolerance);
    CHECK(r.counts.wgmma > 0);
  }
}

const Case ragged{"bias", GemmEpilogue::bias, 130, 136, 128 * 9};

}  // namespace

TEST(tile_of_192_columns_matches_the_definition) {
  check_tile(1, {{"bias", GemmEpilogue::bias, 130, 200, 208}, {"qkv", GemmEpilogue::qkv, 66, 3 * 128, 144}});
}
TEST(tile_of_128_columns_matches_the_definition) {
  check_tile(2, {{"gelu", GemmEpilogue::bias_gelu, 70, 72, 336},
                 {"gate of three times", GemmEpilogue::gate_residual, 67, 136, 48},
                 {"more slices than stages", GemmEpilogue::bias, 5, 24, 128 * 9}});
}

TEST(missing_synchronisation_is_caught) {
  CHECK(run(ragged, 2, 1).against_quantised <= kTolerance);
  for (unsigned seed = 1; seed <= 2; ++seed) {
    CHECK_THROWS(run(ragged, 2, seed, "no_wait_for_empty"), simt::Fault, "simt: ");
    CHECK_THROWS(run(ragged, 2, seed, "no_wait_for_full"), simt::Fault, "race: ");
    CHECK_THROWS(run(ragged, 2, seed, "early_release"), simt::Fault, "race: ");
    CHECK_THROWS(run(ragged, 2, seed, "missing_barrier"), simt::Fault, "");
  }
}

TEST(writing_past_the_rows_is_caught) {
  const ChildResult child = run_in_child([] { run(ragged, 2, 1, "store_out_of_bounds"); });
  CHECK(!child.clean && child.says("heap-buffer-overflow"));
}

TEST(impossible_sizes_are_refused) {
  Data data(ragged, 1);
  std::vector<e4m3> bytes(size_t(136) * ragged.k);
  std::vector<float> scale(136);
  const Fp8Operands good{.x = bytes.data(),
                         .w = bytes.data(),
                         .x_scale = scale.data(),
                         .w_scale = scale.data(),
                         .ldx = ragged.k,
                         .ldw = ragged.k};
  const auto refuses = [&](auto spoil, int tile = 2) {
    GemmParams p = data.p;
    Fp8Operands operands = good;
    spoil(p, operands);
    GemmParamsSm90 plan;
    return plan_gemm_fp8_sm90(&plan, p, operands, {tile, 1}, {}, 132) == kImpossiblePlan;
  };
  CHECK(!refuses([](GemmParams&, Fp8Operands&) {}));
  GemmParamsSm90 plan;
  tensor_map_refusal = 801;  // the driver's own answer is kept
  CHECK(plan_gemm_fp8_sm90(&plan, data.p, good, {2, 1}, {}, 132) == 801);
  tensor_map_refusal = 0;
  CHECK(refuses([](GemmParams&, Fp8Operands&) {}, 0));  // 256 columns do not fit the registers
  CHECK(refuses([](GemmParams& p, Fp8Operands&) { p.k -= 8; }));
  CHECK(refuses([](GemmParams&, Fp8Operands& o) { o.ldx += 8; }));
  CHECK(refuses([](GemmParams&, Fp8Operands& o) { o.w_scale = nullptr; }));
  CHECK(refuses([](GemmParams&, Fp8Operands& o) { o.w = nullptr; }));
}

TEST(parts_of_k_are_added_up) { CHECK(run(ragged, 2, 1, "", 3).against_quantised <= kTolerance); }

TEST(the_choice_follows_the_waves) {
  CHECK(kGemmColsSm90[gemm_choice_fp8_sm90(1785, 5120, 5120, 132).tile] == 192);
  CHECK(gemm_choice_fp8_sm90(1785, 5120, 5120, 132).splits == 1);
  CHECK(gemm_choice_fp8_sm90(125, 3072, 14336, 132).splits > 1);
}

CHECK_MAIN()
