#include "flow/schedule.h"

#include <cmath>
#include <string>

#include "wamcore/error.h"

namespace wam {
namespace {

constexpr int kMostSteps = 1000;  // there are only 1000 distinct timesteps

void set_timesteps(FlowSchedule& s) {
  s.timestep.clear();
  for (size_t i = 0; i + 1 < s.sigma.size(); ++i)
    s.timestep.push_back(static_cast<int>(1000.0 * s.sigma[i] + 1e-9));  // 1e-9: 0.833 * 1000 must not become 832
}

}  // namespace

FlowSchedule flow_schedule(int steps, double shift, double first) {
  if (steps < 1 || steps > kMostSteps)
    throw ConfigError("flow_schedule: steps must be 1 to " + std::to_string(kMostSteps) + ", got " +
                      std::to_string(steps));
  if (!(shift > 0.0) || !std::isfinite(shift))
    throw ConfigError("flow_schedule: shift must be positive, got " + std::to_string(shift));
  FlowSchedule out;
  for (int i = 0; i < steps; ++i) {
    const double s = first * (1.0 - static_cast<double>(i) / steps);
    out.sigma.push_back(shift * s / (1.0 + (shift - 1.0) * s));
  }
  out.sigma.push_back(0.0);
  set_timesteps(out);
  return out;
}

FlowSchedule decoupled_schedule(const FlowSchedule& schedule, double final_noise) {
  if (!(final_noise >= 0.0 && final_noise < 1.0))
    throw ConfigError("decoupled_schedule: final_noise must be in [0, 1), got " + std::to_string(final_noise));
  FlowSchedule out = schedule;
  const double top = schedule.sigma.front();
  for (double& s : out.sigma) s = s * (top - final_noise) / top + final_noise;
  set_timesteps(out);
  return out;
}

}  // namespace wam
