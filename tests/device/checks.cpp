#include "checks.h"

#include <chrono>

namespace device_check {

std::vector<Check> all_checks(Sizes sizes) {
  std::vector<Check> all = row_checks(sizes);
  for (auto list : {gemm_checks(sizes), attention_checks(sizes)}) all.insert(all.end(), list.begin(), list.end());
  return all;
}

Row run_check(const Check& check, Rig& rig, uint64_t seed) {
  Row row{.kernel = check.kernel, .shape = check.shape, .verdict = "ok", .why = "", .tolerance = check.tolerance};
  if ((check.sm90 && !rig.has_sm90()) || (check.fp8 && !rig.has_fp8())) {
    row.verdict = "skipped";
    row.why = std::string("needs compute capability ") + (check.sm90 ? "9.0" : "8.9 or later");
    return row;
  }
  const auto began = std::chrono::steady_clock::now();
  try {
    Fresh fresh(seed);
    const Distance d = check.run(rig, fresh);
    row.error = d.error, row.worst = d.worst;
    if (!(d.error <= check.tolerance)) row.verdict = "FAILED", row.why = "all elements together are too far off";
    if (!(d.worst <= 1)) row.verdict = "FAILED", row.why = "one element is too far off";
  } catch (const std::exception& e) {
    row.verdict = "FAILED", row.why = e.what();
    row.error = row.worst = std::nan("");
  }
  row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return row;
}

}  // namespace device_check
