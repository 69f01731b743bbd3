// The wgmma GEMM's own source, run on the CPU: every tile width and epilogue at ragged sizes, and planted bugs.
#include "check.h"
#include "cuda/gemm_sm90.cuh"
#include "gemm_cases.h"
#include "launcher.h"
#include "tensor_maps.h"

using namespace gemm_cases;

namespace {

// Measured: 1.7e-3, which is the rounding of results to bf16. Twice that is allowed.
constexpr double kTolerance = 3.4e-3;

// The plan for a device of `blocks` multiprocessors, with a width of the test's choice.
template <int cols>
simt::Counts run(const Data& data, unsigned seed, const char* bug = "", int blocks = 2) {
  GemmParamsSm90 plan;
  for (int i = 0; i < 3; ++i)
    if (kGemmColsSm90[i] == cols) CHECK(plan_gemm_sm90(&plan, data.p, i, blocks));
  simt::Counts counts;
  CHECK(launch_gemm_sm90(plan, sim::Launcher{.seed = seed, .planted = bug, .counts = &counts}));
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
  }
}

TEST(the_width_follows_the_waves) {
  CHECK(kGemmColsSm90[gemm_tile_sm90(1785, 5120, 132)] == 192);
  CHECK(kGemmColsSm90[gemm_tile_sm90(1785, 13824, 132)] == 256);
  CHECK(kGemmColsSm90[gemm_tile_sm90(3570, 13824, 132)] == 256);
  CHECK(kGemmColsSm90[gemm_tile_sm90(125, 3072, 132)] == 128);  // 24 tiles: narrow ones end sooner
}

CHECK_MAIN()
