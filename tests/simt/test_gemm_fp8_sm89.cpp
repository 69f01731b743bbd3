// The e4m3 GEMM of mma.sync: its own source, run on the CPU, fed by the kernel that quantises.
#include "check.h"
#include "cuda/gemm_sm80.cuh"
#include "gemm_cases.h"
#include "launcher.h"
#include "planted.h"
#include "quantised.h"

using namespace gemm_cases;

namespace {

// Measured against the product of the quantised numbers: 1.7e-3, the rounding of results to bf16. Against the product
// of the numbers before: 2.7e-2, which is what e4m3 costs. Twice that is allowed.
constexpr double kTolerance = 3.4e-3, kQuantisedTolerance = 5.4e-2;

struct Result {
  double against_quantised, against_original;
  simt::Counts counts;
};

Result run(const Case& c, int tile, unsigned seed, const char* bug = "") {
  Data data(c, seed);
  const Quantised x(data.p.x, c.m, c.k, data.p.ldx), w(data.p.w, c.n, c.k, data.p.ldw);
  Result r{};
  CHECK(launch_gemm_fp8_sm89({data.p, operands(x, w)}, tile,
                             sim::Launcher{.seed = seed, .planted = bug, .counts = &r.counts}));
  r.against_quantised = error(data, x, w);
  r.against_original = data.error();
  if (c.epilogue == GemmEpilogue::qkv) CHECK(data.square_error() < 1e-6);
  return r;
}

void check_tile(int tile) {
  const unsigned seed = sim::seed();
  for (const Case& c :
       {Case{"bias", GemmEpilogue::bias, 131, 136, 144},
        Case{"no bias, one row", GemmEpilogue::bias, 1, 136, 16, false},
        Case{"gelu", GemmEpilogue::bias_gelu, 70, 72, 208},
        Case{"gate of three times", GemmEpilogue::gate_residual, 67, 200, 48},
        Case{"gate and the layer's table", GemmEpilogue::gate_residual, 30, 72, 80, true, true, 3, 2, true},
        Case{"qkv", GemmEpilogue::qkv, 66, 3 * 64, 80},
        Case{"keys and values", GemmEpilogue::qkv, 33, 2 * 128, 48, true, true, 2, 1}}) {
    const Result r = run(c, tile, seed);
    std::printf("  tile %d %-26s seed %10u: %.2e, before quantisation %.2e\n", tile, c.name, seed, r.against_quantised,
                r.against_original);
    CHECK(r.against_quantised <= kTolerance);
    CHECK(c.m == 1 || r.against_original <= kQuantisedTolerance);  // sixteen numbers' rounding is anyone's guess
    CHECK(r.counts.bank_conflicts == 0 && r.counts.mma > 0);
  }
}

const Case ragged{"bias", GemmEpilogue::bias, 65, 136, 64 * 3 + 16};

}  // namespace

TEST(tile_128x128_matches_the_definition) { check_tile(0); }
TEST(tile_64x128_matches_the_definition) { check_tile(1); }
TEST(tile_64x64_matches_the_definition) { check_tile(2); }

TEST(rows_and_columns_too_many_are_caught) {
  for (const char* bug : {"row_out_of_bounds", "depth_out_of_bounds", "store_out_of_bounds"}) {
    const ChildResult child = run_in_child([bug] { run(ragged, 0, 1, bug); });
    CHECK(!child.clean && child.says("AddressSanitizer"));
  }
}

TEST(missing_synchronisation_is_caught) {
  for (const int tile : {0, 1})
    for (const char* bug : {"missing_wait", "missing_barrier", "early_release"})
      CHECK_THROWS(run(ragged, tile, 1, bug), simt::Fault, "race: ");
}

TEST(the_tile_follows_the_waves) {
  // 128 multiprocessors. 1785 rows: 14 x 40 tiles of 128 x 128 are 4.4 waves of one on each.
  CHECK(gemm_tile_fp8_sm89(1785, 15360, 128) == 0);
  CHECK(gemm_tile_fp8_sm89(125, 3072, 128) == 2);  // 24 large tiles leave most of the device idle
}

TEST(impossible_sizes_are_refused) {
  const Case c{"bias", GemmEpilogue::bias, 8, 64, 64};
  Data data(c, 1);
  const Quantised x(data.p.x, c.m, c.k, data.p.ldx), w(data.p.w, c.n, c.k, data.p.ldw);
  const auto refuses = [&](auto spoil) {
    Fp8Product p{data.p, operands(x, w)};
    spoil(p);
    return !launch_gemm_fp8_sm89(p, 0, sim::Launcher{});
  };
  CHECK(!refuses([](Fp8Product&) {}));
  CHECK(refuses([](Fp8Product& p) { p.gemm.k = 56; }));
  CHECK(refuses([](Fp8Product& p) { p.operands.x_scale = nullptr; }));
  CHECK(refuses([](Fp8Product& p) { p.operands.w_scale = nullptr; }));
  CHECK(refuses([](Fp8Product& p) { p.operands.w = nullptr; }));
  CHECK(refuses([](Fp8Product& p) { ++p.operands.x; }));
  CHECK(refuses([](Fp8Product& p) { p.operands.ldw -= 8; }));
  CHECK(refuses([](Fp8Product& p) { p.operands.ldx = 48; }));
}

CHECK_MAIN()
