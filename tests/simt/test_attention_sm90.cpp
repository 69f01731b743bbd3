// The wgmma attention kernel's own source, run on the CPU: its results and planted bugs.
#include "attention_cases.h"
#include "check.h"
#include "cuda/attention_sm90.cuh"
#include "launcher.h"
#include "planted.h"
#include "tensor_maps.h"

using namespace attention_cases;

namespace {

// Measured on these cases over a few seeds: out 2.4e-3, lse 8e-7, as with mma.sync. Twice that is allowed.
constexpr double kOutTolerance = 4.8e-3, kLseTolerance = 1.6e-6;

// Few multiprocessors, so that blocks walk over several tiles each.
simt::Counts run(const Data& data, unsigned seed, const char* bug, int multiprocessors) {
  AttentionParamsSm90 plan;
  CHECK(make_attention_plan_sm90(&plan, data.p, multiprocessors) == 0);
  simt::Counts counts;  // of the attention, not of the merge
  bool first = true;
  const auto launch = [&](const LaunchShape& shape, auto kernel, const auto& p) {
    sim::Launcher{.seed = seed, .planted = bug, .counts = first ? &counts : nullptr}(shape, kernel, p);
    first = false;
  };
  CHECK(launch_attention_sm90(plan, launch));
  return counts;
}

Errors errors_of(const Case& c, unsigned seed, const char* bug = "", simt::Counts* counts = nullptr) {
  Data data(c, seed);
  const simt::Counts n = run(data, seed, bug, 2);
  if (counts) *counts = n;
  return errors(c, data);
}

void check_all(int head_dim) {
  std::random_device device;
  const unsigned seed = device();
  std::vector<Case> all = cases(head_dim);
  all.push_back({"many tiles of keys", head_dim, 1, 1, {{150, {{5, 300, 7}, {0, 129, 0}, {0, 260, 0}}}}});
  for (const Case& c : all) {
    simt::Counts counts;
    const Errors e = errors_of(c, seed, "", &counts);
    std::printf("  %-34s head_dim %3d seed %10u: out %.2e lse %.2e wgmma %lld copies %lld\n", c.name, head_dim, seed,
                e.out, e.lse, (long long)counts.wgmma, (long long)counts.bulk_copies);
    CHECK(e.out <= kOutTolerance);
    CHECK(e.lse <= kLseTolerance);
  }
}

const Case& ragged() {
  static const Case c{"many ragged tiles", 64, 1, 1, {{140, {{3, 300, 9}, {0, 77, 140}}}}};
  return c;
}

}  // namespace

TEST(matches_the_definition_head_dim_64) { check_all(64); }
TEST(matches_the_definition_head_dim_128) { check_all(128); }

TEST(order_of_threads_does_not_change_a_bit) {
  std::vector<bf16> first;
  for (unsigned seed = 1; seed <= 3; ++seed) {
    Data data(ragged(), 7);
    run(data, seed, "", int(seed));
    if (seed == 1) first = data.out;
    CHECK(std::equal(first.begin(), first.end(), data.out.begin(), [](bf16 a, bf16 b) { return a.bits == b.bits; }));
  }
}

TEST(wrong_rows_are_caught) {
  for (const char* bug : {"mask_off_by_one", "row_off_by_one"}) {
    simt::Counts counts;
    const Errors e = errors_of(ragged(), 1, bug, &counts);
    CHECK(counts.planted_hits > 0);
    CHECK(!(e.out <= 2 * kOutTolerance));
  }
}

TEST(missing_synchronisation_is_caught) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    CHECK_THROWS(errors_of(ragged(), seed, "no_wait_for_empty"), simt::Fault, "simt: ");
    CHECK_THROWS(errors_of(ragged(), seed, "early_release"), simt::Fault, "race: ");
    CHECK_THROWS(errors_of(ragged(), seed, "no_wait_for_values"), simt::Fault, "race: ");
    CHECK_THROWS(errors_of(ragged(), seed, "missing_barrier"), simt::Fault, "");
  }
}

TEST(writing_past_the_rows_is_caught) {
  const ChildResult child = run_in_child([] { errors_of(ragged(), 1, "store_out_of_bounds"); });
  CHECK(!child.clean && child.says("heap-buffer-overflow"));
}

TEST(a_plan_gives_the_code_with_which_the_driver_refuses_a_map) {
  Data data(ragged(), 1);
  AttentionParamsSm90 plan;
  tensor_map_refusal = 801;
  CHECK(make_attention_plan_sm90(&plan, data.p, 132) == 801);
  tensor_map_refusal = 0;
  CHECK(make_attention_plan_sm90(&plan, data.p, 132) == 0);
}

TEST(impossible_sizes_are_refused) {
  const auto refuses = [](auto spoil) {
    Data data(ragged(), 1);
    spoil(data.p);
    AttentionParamsSm90 plan;
    return make_attention_plan_sm90(&plan, data.p, 132) == kImpossiblePlan;
  };
  CHECK(!refuses([](AttentionParams&) {}));
  CHECK(refuses([](AttentionParams& p) { p.groups[0].segments[0].buffer_rows = 300; }));
  CHECK(refuses([](AttentionParams& p) { p.groups[0].segments[1].ld = 60; }));
  CHECK(refuses([](AttentionParams& p) { p.head_dim = 32; }));
}

CHECK_MAIN()
