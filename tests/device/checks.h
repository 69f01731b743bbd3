#pragma once

// The rows of the check. A row is one kernel at one shape, on fresh data, against its definition in float64: of every
// element where that is quick, else of sampled ones that meet every tile.
#include <functional>
#include <string>
#include <vector>

#include "measure.h"
#include "memory.h"

namespace device_check {

/// tiny: what the simulated machine can do in seconds, and what the sanitizers of a device get to see; large: the
/// shapes of DreamZero-14B, of the 5B and of the bundled model, and ragged ones.
enum class Sizes { tiny, large };

struct Check {
  std::string kernel, shape;
  double tolerance = 0;  // of Distance::error; Distance::worst may be 1
  bool sm90 = false;     // needs sm_90a
  bool fp8 = false;      // needs sm_89 or later
  std::function<Distance(Rig& rig, Fresh& fresh)> run;
};

struct Row {
  std::string kernel, shape, verdict, why;                  // verdict: "ok", "FAILED", "skipped"
  double error = 0, worst = 0, tolerance = 0, seconds = 0;  // error NaN: there is none to tell
};

std::vector<Check> attention_checks(Sizes sizes);
std::vector<Check> gemm_checks(Sizes sizes);
std::vector<Check> row_checks(Sizes sizes);  // kernels that take a row or an element at a time
std::vector<Check> all_checks(Sizes sizes);

/// Never throws: whatever happens is a verdict.
Row run_check(const Check& check, Rig& rig, uint64_t seed);

}  // namespace device_check
