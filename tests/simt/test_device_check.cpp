// The checks that judge a GPU (tests/device), judged themselves: on the simulated machine every row passes, and fails
// where a kernel has a planted bug, does nothing, or writes where it must not.
#include <set>

#include "device/checks.h"
#include "fresh.h"
#include "sim_rig.h"

using namespace sim;

namespace {

enum class Lie { none, does_nothing, writes_past_the_end, writes_to_an_input };

/// Runs the kernel, then does to memory what a wrong kernel would have done.
class LiarRig final : public SimRig {
 public:
  explicit LiarRig(Lie lie) : lie_(lie) {}
  void start(const Work& work) override {
    if (lie_ == Lie::does_nothing) return;
    std::map<std::byte*, std::vector<std::byte>> before;
    for (const auto& [p, bytes] : sizes) before[p].assign(p, p + bytes);
    SimRig::start(work);
    for (const auto& [p, bytes] : sizes) {
      const bool changed = !std::equal(p, p + bytes, before[p].begin());
      if (lie_ == Lie::writes_past_the_end && changed) p[bytes - 1024] = std::byte{0};
      if (lie_ == Lie::writes_to_an_input && !changed) p[1024] ^= std::byte{1};
    }
  }

 private:
  Lie lie_;
};

Row run(const Check& check, Rig& rig) {
  const uint64_t seed = check::fresh()();
  const Row row = run_check(check, rig, seed);
  std::printf("  %-24s %-46s %.2e of %.2e, worst %.2f  %s %s\n", row.kernel.c_str(), row.shape.c_str(), row.error,
              row.tolerance, row.worst, row.verdict.c_str(), row.why.c_str());
  return row;
}

const Check& first_of(const std::vector<Check>& all, const std::string& kernel, const std::string& words = "") {
  for (const Check& check : all)
    if (check.kernel == kernel && check.shape.find(words) != std::string::npos) return check;
  throw std::runtime_error("no row of " + kernel + " with " + words);
}

}  // namespace

TEST(every_row_passes) {
  for (const Check& check : all_checks(Sizes::tiny)) {
    SimRig rig;
    CHECK(run(check, rig).verdict == "ok");
    CHECK(rig.sizes.empty());
  }
}

TEST(planted_bugs_fail) {
  const std::vector<Check> all = all_checks(Sizes::tiny);
  const struct {
    const char *kernel, *words, *bug;
  } bugs[] = {
      {"attention_sm80", "cache, video", "mask_off_by_one"},
      {"attention_sm80", "cache, video", "missing_barrier"},
      {"attention_sm90", "cache, video", "mask_off_by_one"},
      {"attention_sm90", "cache, video", "row_off_by_one"},
      {"attention_sm90", "cache, video", "no_wait_for_values"},
      {"gemm_sm80", "bias", "missing_barrier"},
      {"gemm_sm90", "k in 2", "no_wait_for_parts"},
      {"gemm_sm90", "bias", "early_release"},
      {"gemm_fp8_sm90", "bias", "no_wait_for_full"},
      {"gemm_fp8_sm89", "bias", "missing_barrier"},
      {"ln_modulate", "", "no_barrier"},
      {"qk_norm_rope_cachewrite", "stored", "slot_off_by_one"},
      {"quantize_rows", "", "missing_barrier"},
      {"ln_modulate_e4m3", "", "no_barrier"},
      {"gemm_plain", "", "missing_barrier"},
  };
  for (const auto& b : bugs) {
    SimRig rig;
    rig.planted = b.bug;
    CHECK(run(first_of(all, b.kernel, b.words), rig).verdict == "FAILED");
  }
}

TEST(lies_fail_for_every_kernel) {
  std::set<std::string> met;
  for (const Check& check : all_checks(Sizes::tiny)) {
    if (!met.insert(check.kernel).second) continue;  // one row each
    for (const Lie lie : {Lie::does_nothing, Lie::writes_past_the_end, Lie::writes_to_an_input}) {
      LiarRig rig(lie);
      CHECK(run(check, rig).verdict == "FAILED");
    }
  }
}

CHECK_MAIN()
