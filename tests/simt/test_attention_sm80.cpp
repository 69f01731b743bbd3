// The mma.sync attention kernel's own source, run on the CPU: its results, its access pattern, and planted bugs.
#include "attention_cases.h"
#include "check.h"
#include "cuda/attention_sm80.cuh"
#include "launcher.h"
#include "planted.h"

using namespace attention_cases;

namespace {

// Measured on these cases over nine seeds: out 2.4e-3, lse 8.2e-7. The tolerance is twice that. An output is rounded to
// bf16 once (1.7e-3 on average) and its weights before that.
constexpr double kOutTolerance = 4.8e-3, kLseTolerance = 1.6e-6;

simt::Counts run(const Data& data, unsigned seed, const char* bug) {
  simt::Counts counts;  // of the attention, not of the merge
  bool first = true;
  const auto launch = [&](const LaunchShape& shape, auto kernel, const AttentionParams& p) {
    sim::Launcher{.seed = seed, .planted = bug, .counts = first ? &counts : nullptr}(shape, kernel, p);
    first = false;
  };
  CHECK(launch_attention_sm80(data.p, launch));
  return counts;
}

Errors errors_of(const Case& c, unsigned seed, const char* bug = "", simt::Counts* counts = nullptr) {
  Data data(c, seed);
  const simt::Counts n = run(data, seed, bug);
  if (counts) *counts = n;
  return errors(c, data);
}

void check_all(int head_dim) {
  std::random_device device;
  const unsigned seed = device();
  for (const Case& c : cases(head_dim)) {
    simt::Counts counts;
    const Errors e = errors_of(c, seed, "", &counts);
    std::printf("  %-34s head_dim %3d seed %10u: out %.2e lse %.2e mma %lld\n", c.name, head_dim, seed, e.out, e.lse,
                (long long)counts.mma);
    CHECK(e.out <= kOutTolerance);
    CHECK(e.lse <= kLseTolerance);
    CHECK(counts.bank_conflicts == 0);
  }
}

const Case& ragged() {
  static const Case c = cases(128)[2];
  return c;
}

}  // namespace

TEST(matches_the_definition_head_dim_64) { check_all(64); }
TEST(matches_the_definition_head_dim_128) { check_all(128); }

TEST(outgrown_references_are_replaced) {
  // Scores that climb by more than the headroom from tile to tile, up to 2^60 and more.
  const Case c{"climbing scores", 64, 1, 1, {{33, {{0, 300, 0}}}}};
  Data data(c, 5);
  for (int row = 0; row < 300; ++row)
    for (int i = 0; i < 64; ++i) {
      bf16& k = (*data.buffers[0])[size_t(row * 64 + i)];
      k = to_bf16(to_float(k) + 0.04f * float(row) * to_float(data.q[size_t(i)]));
    }
  run(data, 5, "");
  const Errors e = errors(c, data);
  CHECK(e.out <= kOutTolerance);
  CHECK(e.lse <= 1e-4);  // of values around 100
}

TEST(order_of_threads_does_not_change_a_bit) {
  std::vector<bf16> first;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    Data data(ragged(), 7);
    run(data, seed, "");
    if (seed == 1) first = data.out;
    CHECK(std::equal(first.begin(), first.end(), data.out.begin(), [](bf16 a, bf16 b) { return a.bits == b.bits; }));
  }
}

TEST(a_mask_off_by_one_is_caught) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    simt::Counts counts;
    const Errors e = errors_of(ragged(), seed, "mask_off_by_one", &counts);
    CHECK(counts.planted_hits > 0);
    CHECK(e.out > 2 * kOutTolerance);
  }
}

TEST(missing_synchronisation_is_caught) {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    CHECK_THROWS(errors_of(ragged(), seed, "missing_wait"), simt::Fault, "reads what a copy in flight writes");
    CHECK_THROWS(errors_of(ragged(), seed, "missing_barrier"), simt::Fault, "race: ");
    CHECK_THROWS(errors_of(ragged(), seed, "early_release"), simt::Fault, "race: ");
  }
}

TEST(reading_past_a_segment_is_caught) {
  const ChildResult child = run_in_child([] { errors_of(ragged(), 1, "row_out_of_bounds"); });
  CHECK(!child.clean && child.says("heap-buffer-overflow"));
}

TEST(splits_fill_the_device) {
  CHECK(attention_splits(432, 216, 70) == 1);  // two full waves
  CHECK(attention_splits(24, 216, 70) == 8);   // a ninth of a wave
  CHECK(attention_splits(24, 216, 1) == 1);    // nothing to split
  CHECK(attention_splits(108, 216, 70) == 2);
  // 560 tiles on 132 multiprocessors, 128 keys a tile: 5305 and 7945 keys.
  CHECK(attention_splits(560, 132, 28) == 1 && attention_splits(560, 132, 42) == 2);
  CHECK(attention_splits(560, 132, 63) == 3);
  // As programs ask: wgmma's tiles, then those of mma.sync, of which two share a multiprocessor.
  AttentionParams p{.rows = 1785, .heads = 40, .head_dim = 128, .group_count = 1};
  p.groups[0].rows = p.rows;
  CHECK(attention_splits(p, attention_tile(true, 128), 132, 5305) == 2);
  CHECK(attention_splits(p, attention_tile(true, 128), 132, 7945) == 3);
  CHECK(attention_splits(p, attention_tile(false, 128), 108, 5305) == attention_splits(1120, 216, 83));
}

TEST(impossible_sizes_are_refused) {
  const auto refuses = [](auto spoil) {
    Data data(ragged(), 1);
    spoil(data.p);
    return !launch_attention_sm80(data.p, sim::Launcher{});
  };
  CHECK(refuses([](AttentionParams& p) { p.head_dim = 96; }));
  CHECK(refuses([](AttentionParams& p) { p.rows += 1; }));
  CHECK(refuses([](AttentionParams& p) { p.groups[0].segment_count = kMaxKeySegments + 1; }));
  CHECK(refuses([](AttentionParams& p) { p.groups[0].segments[1].v = nullptr; }));
  CHECK(refuses([](AttentionParams& p) { ++p.q; }));
  CHECK(refuses([](AttentionParams& p) { p.ldo -= 4; }));
  CHECK(refuses([](AttentionParams& p) { p.splits = 2; }));
}

CHECK_MAIN()
