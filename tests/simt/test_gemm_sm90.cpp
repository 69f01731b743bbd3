// The wgmma GEMM's own source, run on the CPU: every tile width and epilogue at ragged sizes, and planted bugs.
#include "check.h"
#include "cuda/gemm_sm90.cuh"
#include "gemm_cases.h"
#include "launcher.h"
#include "planted.h"
#include "tensor_maps.h"

using namespace gemm_cases;

namespace {

// Measured: 1.7e-3, which is the rounding of results to bf16. Twice that is allowed.
constexpr double kTolerance = 3.4e-3;

constexpr int index_of(int cols) { return cols == 256 ? 0 : cols == 192 ? 1 : 2; }

// The plan for a device of `blocks` multiprocessors, with a width of the test's choice.
template <int cols>
simt::Counts run(const Data& data, unsigned seed, const char* bug = "", int blocks = 2, int splits = 1) {
  const GemmChoiceSm90 choice{index_of(cols), splits};
  std::vector<float> partial(size_t(gemm_split_floats(data.p.m, data.p.n, choice)), NAN);
  std::vector<int32_t> arrived(size_t(gemm_tiles_sm90(data.p.m, data.p.n, cols)));
  GemmParamsSm90 plan;
  CHECK(plan_gemm_sm90(&plan, data.p, choice, {partial.data(), arrived.data()}, blocks) == 0);
  simt::Counts counts;
  CHECK(launch_gemm_sm90(plan, sim::Launcher{.seed = seed, .planted = bug, .counts = &counts}));
  CHECK(std::all_of(arrived.begin(), arrived.end(), [](int32_t n) { return n == 0; }) || bug[0]);
  return counts;
}

template <int cols>
void check_tile(const std::vector<Case>& cases) {
  std::random_device device;
  const unsigned seed = device();
  for (const Case& c : cases) {
    Data data(c, seed);
    const simt::Counts counts = run<cols>(data, seed);
    const double error = data.error();
    std::printf("  128 x %d %-20s seed %10u: %.2e\n", cols, c.name, seed, error);
    CHECK(error <= kTolerance);
    CHECK(counts.wgmma > 0 && counts.bulk_copies > 0);
    if (c.epilogue == GemmEpilogue::qkv) CHECK(data.square_error() < 1e-6);
  }
}

const Case ragged{"bias", GemmEpilogue::bias, 130, 136, 64 * 9};

double error_with(const char* bug, unsigned seed) {
  Data data(ragged, seed);
  run<128>(data, seed, bug, 1);
  return data.error();
}

}  // namespace

TEST(tile_of_256_columns_matches_the_definition) {
  check_tile<256>({{"bias", GemmEpilogue::bias, 130, 264, 104}, {"gelu", GemmEpilogue::bias_gelu, 70, 72, 328}});
}
TEST(tile_of_192_columns_matches_the_definition) {
  check_tile<192>(
      {{"gate of three times", GemmEpilogue::gate_residual, 67, 200, 40}, {"qkv", GemmEpilogue::qkv, 66, 3 * 128, 72}});
}
TEST(tile_of_128_columns_matches_the_definition) {
  check_tile<128>({{"no bias, one row", GemmEpilogue::bias, 1, 136, 8, false},
                   {"more slices than stages", GemmEpilogue::bias, 257, 128, 64 * 8},
                   {"one gate", GemmEpilogue::gate_residual, 20, 64, 96, true, false}});
}

TEST(missing_synchronisation_is_caught) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    CHECK(error_with("", seed) <= kTolerance);
    CHECK_THROWS(error_with("no_wait_for_empty", seed), simt::Fault, "simt: ");
    CHECK_THROWS(error_with("no_wait_for_full", seed), simt::Fault, "race: ");
    CHECK_THROWS(error_with("early_release", seed), simt::Fault, "race: ");
    CHECK_THROWS(error_with("missing_barrier", seed), simt::Fault, "");
  }
}

TEST(writing_past_the_rows_is_caught) {
  const ChildResult child = run_in_child([] { error_with("store_out_of_bounds", 1); });
  CHECK(!child.clean && child.says("heap-buffer-overflow"));
}

TEST(parts_of_k_are_added_up) {
  for (const Case& c :
       {Case{"bias", GemmEpilogue::bias, 130, 136, 64 * 7}, Case{"qkv", GemmEpilogue::qkv, 3, 3 * 64, 72},
        Case{"gelu", GemmEpilogue::bias_gelu, 70, 264, 328}})
    for (const int splits : {2, (c.k + 63) / 64}) {
      std::vector<bf16> first;
      for (unsigned seed = 1; seed <= 2; ++seed) {
        Data data(c, 11);
        run<128>(data, seed, "", int(seed) + 1, splits);
        CHECK(data.error() <= kTolerance);
        if (c.epilogue == GemmEpilogue::qkv) CHECK(data.square_error() < 1e-6);
        for (int i = 0; i < c.m * c.n; ++i) {
          const bf16 y = data.result(i / c.n, i % c.n);
          if (seed == 1)
            first.push_back(y);
          else
            CHECK(y.bits == first[size_t(i)].bits);  // whatever the order of blocks
        }
      }
    }
  Data data(ragged, 1);
  CHECK(run<128>(data, 1, "no_wait_for_parts", 2, 3).planted_hits > 0);
  CHECK(!(data.error() <= kTolerance));  // parts that are not there yet are NaN
}

TEST(a_plan_gives_the_code_with_which_the_driver_refuses_a_map) {
  Data data(ragged, 1);
  GemmParamsSm90 plan;
  tensor_map_refusal = 801;
  CHECK(plan_gemm_sm90(&plan, data.p, 2, 132) == 801);
  tensor_map_refusal = 0;
  CHECK(plan_gemm_sm90(&plan, data.p, 2, 132) == 0);
}

TEST(impossible_plans_are_refused) {
  const auto refuses = [](GemmChoiceSm90 choice, int sms, auto spoil) {
    Data data(ragged, 1);
    spoil(data.p);
    GemmParamsSm90 plan;
    return plan_gemm_sm90(&plan, data.p, choice, {}, sms) == kImpossiblePlan;
  };
  CHECK(!refuses({2, 1}, 132, [](GemmParams&) {}));
  CHECK(refuses({2, 2}, 132, [](GemmParams&) {}));  // no scratch memory
  CHECK(refuses({3, 1}, 132, [](GemmParams&) {}));
  Data data(ragged, 1);
  GemmParamsSm90 plan;
  CHECK(plan_gemm_sm90(&plan, data.p, 2, 132) == 0 && plan.splits == 1 && plan.blocks == 4);
  CHECK(refuses({2, 1}, 0, [](GemmParams&) {}));
  CHECK(refuses({2, 1}, 132, [](GemmParams& p) { p.ldx += 4; }));
}

TEST(the_choice_follows_the_waves) {
  const auto is = [](GemmChoiceSm90 got, int cols, int splits) {
    return kGemmColsSm90[got.tile] == cols && got.splits == splits;
  };
  CHECK(is(gemm_choice_bf16_sm90(1785, 5120, 5120, 132), 192, 1));
  CHECK(kGemmColsSm90[gemm_tile_sm90(1785, 5120, 132)] == 192 && kGemmColsSm90[gemm_tile_sm90(125, 3072, 132)] == 128);
  CHECK(is(gemm_choice_bf16_sm90(1785, 15360, 5120, 132), 192, 1));
  CHECK(is(gemm_choice_bf16_sm90(1785, 13824, 5120, 132), 256, 1));
  CHECK(is(gemm_choice_bf16_sm90(1785, 5120, 13824, 132), 192, 1));
  CHECK(is(gemm_choice_bf16_sm90(3570, 15360, 5120, 132), 256, 1));
  // 24 tiles of 128 columns: k is divided until they fill the device.
  const GemmChoiceSm90 few = gemm_choice_bf16_sm90(125, 3072, 14336, 132);
  CHECK(kGemmColsSm90[few.tile] == 128 && few.splits == 5);
  CHECK(gemm_choice_bf16_sm90(125, 3072, 64, 132).splits == 1);
}

CHECK_MAIN()
