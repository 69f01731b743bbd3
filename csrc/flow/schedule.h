#pragma once

#include <vector>

namespace wam {

/// Noise levels of a few-step flow: x_sigma = (1 - sigma) data + sigma noise.
struct FlowSchedule {
  std::vector<double> sigma;  // [steps + 1], falling; the last is where the sample ends
  std::vector<int> timestep;  // [steps], trunc(1000 sigma), what the model is told
  int steps() const { return static_cast<int>(timestep.size()); }
};

/// Where a solver's walk starts, before the shift. UniPC takes logarithms and cannot start at pure noise.
inline constexpr double kFirstUnipc = 0.999, kFirstEuler = 1.0;

/// s_i = first (1 - i / steps), sigma = shift s / (1 + (shift - 1) s), ending at 0. Throws ConfigError.
FlowSchedule flow_schedule(int steps, double shift, double first);

/// The same steps squeezed so that they end at `final_noise` instead of 0: the video of a decoupled schedule.
FlowSchedule decoupled_schedule(const FlowSchedule& schedule, double final_noise);

}  // namespace wam
