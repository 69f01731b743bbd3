#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace wam {

/// A horizon of absolute joint targets. Row i is the command to issue at control tick obs_tick + i.
struct ActionChunk {
  int horizon = 0;        // rows
  int dof = 0;            // columns
  double dt = 0.0;        // s between rows
  int64_t obs_tick = 0;   // tick of the observation it was computed from
  uint64_t obs_ns = 0;    // monotonic time of that observation, ns
  uint64_t sequence = 0;  // counts chunks of one session
  uint32_t epoch = 0;     // changes at every session reset; chunks of an old epoch are void
  std::vector<double> q;  // [horizon, dof] rad (or the embodiment's stated unit)

  const double* row(int i) const { return q.data() + static_cast<size_t>(i) * dof; }
};

}  // namespace wam
