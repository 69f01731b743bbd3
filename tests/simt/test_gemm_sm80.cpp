// The mma.sync GEMM's own source, run on the CPU: every tile and epilogue at ragged sizes, and planted bugs.
#include "check.h"
#include "cuda/gemm_sm80.cuh"
#include "gemm_cases.h"
#include "launcher.h"
#include "planted.h"

using namespace gemm_cases;

namespace {

// Measured: 1.7e-3, which is the rounding of results to bf16. Twice that is allowed.
constexpr double kTolerance = 3.4e-3;

template <int tile>
simt::Counts run(const Data& data, unsigned seed, const char* bug = "") {
  simt::Counts counts;
  CHECK(launch_gemm_sm80(data.p, tile, sim::Launcher{.seed = seed, .planted = bug, .counts = &counts}));
  return counts;
}

template <int tile>
void check_tile() {
  std::random_device device;
  const unsigned seed = device();
  for (const Case& c :
       {Case{"bias", GemmEpilogue::bias, 131, 136, 104}, Case{"no bias, one row", GemmEpilogue::bias, 1, 136, 8, false},
        Case{"gelu", GemmEpilogue::bias_gelu, 70, 72, 64},
        Case{"gate of three times", GemmEpilogue::gate_residual, 67, 200, 40},
        Case{"one gate", GemmEpilogue::gate_residual, 20, 64, 96, true, false},
        Case{"gate and the layer's table", GemmEpilogue::gate_residual, 30, 72, 40, true, true, 3, 2, true},
        Case{"qkv", GemmEpilogue::qkv, 66, 3 * 192, 48},
        Case{"keys and values", GemmEpilogue::qkv, 33, 2 * 192, 40, true, true, 2, 1},
        Case{"queries", GemmEpilogue::qkv, 17, 128, 40, true, true, 1, 1}}) {
    Data data(c, seed);
    const simt::Counts counts = run<tile>(data, seed);
    const double error = data.error();
    std::printf("  tile %d %-20s seed %10u: %.2e\n", tile, c.name, seed, error);
    CHECK(error <= kTolerance);
    CHECK(counts.bank_conflicts == 0);
    if (c.epilogue == GemmEpilogue::qkv) CHECK(data.square_error() < 1e-6);
  }
}

const Case ragged{"bias", GemmEpilogue::bias, 131, 136, 136};

double error_with(const char* bug, unsigned seed) {
  Data data(ragged, seed);
  CHECK(run<1>(data, seed, bug).planted_hits > 0);
  return data.error();
}

}  // namespace

TEST(tile_128x128_matches_the_definition) { check_tile<0>(); }
TEST(tile_64x128_matches_the_definition) { check_tile<1>(); }
TEST(tile_64x64_matches_the_definition) { check_tile<2>(); }

TEST(rows_and_columns_too_many_are_caught) {
  for (const char* bug : {"row_out_of_bounds", "depth_out_of_bounds"}) {
    const ChildResult child = run_in_child([bug] { error_with(bug, 1); });
    CHECK(!child.clean && child.says("AddressSanitizer"));
  }
}

TEST(missing_synchronisation_is_caught) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    CHECK_THROWS(error_with("missing_wait", seed), simt::Fault, "race: ");
    CHECK_THROWS(error_with("missing_barrier", seed), simt::Fault, "race: ");
    CHECK_THROWS(error_with("early_release", seed), simt::Fault, "race: ");
  }
}

TEST(gelu_holds_at_both_ends) {
  CHECK(gelu_tanh(-1e30f) == 0.0f && gelu_tanh(1e30f) == 1e30f && gelu_tanh(0.0f) == 0.0f);
  for (float x = -8; x < 8; x += 0.01f) {
    const double d = x, want = 0.5 * d * (1 + std::tanh(std::sqrt(2 / M_PI) * (d + 0.044715 * d * d * d)));
    CHECK_NEAR(gelu_tanh(x), want, 1e-6);
  }
}

TEST(the_tile_follows_the_waves) {
  // 108 multiprocessors hold 216 blocks. 1785 rows: 14 x 40 tiles of 128 x 128 are 2.6 waves, 28 x 40 halves 5.2.
  CHECK(gemm_tile_sm80(1785, 5120, 108) == 0);
  CHECK(gemm_tile_sm80(1785, 15360, 108) == 0);
  CHECK(gemm_tile_sm80(125, 3072, 108) == 2);  // 24 large tiles leave most of the device idle
  CHECK(gemm_tile_sm80(1024, 2048, 108) == 0);
}

TEST(impossible_sizes_are_refused) {
  const sim::Launcher launcher;
  const auto refuses = [&](auto spoil) {
    Data data({"bias", GemmEpilogue::bias, 8, 64, 64}, 1);
    spoil(data.p);
    return !launch_gemm_sm80(data.p, 0, launcher);
  };
  CHECK(refuses([](GemmParams& p) { p.k = 63; }));
  CHECK(refuses([](GemmParams& p) { p.n = 12; }));
  CHECK(refuses([](GemmParams& p) { p.m = 0; }));
  CHECK(refuses([](GemmParams& p) { p.ldx = 56; }));
  CHECK(refuses([](GemmParams& p) { ++p.w; }));
  CHECK(refuses([](GemmParams& p) { p.y = nullptr; }));
  CHECK(refuses([](GemmParams& p) { p.epilogue = GemmEpilogue::gate_residual; }));
  CHECK(refuses([](GemmParams& p) { p.epilogue = GemmEpilogue::qkv; }));
}

CHECK_MAIN()
