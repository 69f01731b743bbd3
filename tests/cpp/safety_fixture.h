#pragma once

// Fresh random limits, poses and chunks, and a watch over commands, for the tests of the safety filter.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "fresh.h"
#include "wamcore/chunk.h"
#include "wamcore/safety.h"

namespace fixture {

using check::integer;
using check::uniform;
using wam::ActionChunk;
using wam::JointLimits;

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

inline JointLimits random_limits(int dof) {
  JointLimits limits;
  for (int j = 0; j < dof; ++j) {
    limits.names.push_back("joint" + std::to_string(j));
    const double middle = uniform(-2, 2), half = uniform(0.2, 3);
    limits.position_min.push_back(middle - half);
    limits.position_max.push_back(middle + half);
    limits.velocity.push_back(uniform(0.3, 4));
    limits.acceleration.push_back(std::pow(10.0, uniform(-0.5, 2)));
    limits.jerk.push_back(limits.acceleration.back() * std::pow(10.0, uniform(0, 3)));
  }
  return limits;
}

inline std::vector<double> random_pose(const JointLimits& limits) {
  std::vector<double> q;
  for (int j = 0; j < limits.dof(); ++j) q.push_back(uniform(limits.position_min[j], limits.position_max[j]));
  return q;
}

/// Watches a stream of commands and remembers the worst ratio to each limit.
struct Watch {
  const JointLimits& limits;
  double period;
  std::vector<double> q, v, a;
  double position = 0, velocity = 0, acceleration = 0, jerk = 0;
  bool finite = true;

  Watch(const JointLimits& l, double h, std::vector<double> start) : limits(l), period(h), q(std::move(start)) {
    v.assign(q.size(), 0.0);
    a.assign(q.size(), 0.0);
  }
  void see(const std::vector<double>& out) {
    for (size_t j = 0; j < q.size(); ++j) {
      finite &= std::isfinite(out[j]);
      const double speed = (out[j] - q[j]) / period;
      // positions are rounded to one ulp, so speeds to 2 ulp / h, accelerations to 4 ulp / h^2, jerks to 8 ulp / h^3
      const double ulp = 1e-15 * (1 + std::abs(out[j]));
      position = std::max({position, limits.position_min[j] - out[j], out[j] - limits.position_max[j]});
      velocity = std::max(velocity, (std::abs(speed) - 2 * ulp / period) / limits.velocity[j]);
      acceleration = std::max(acceleration,
                              (std::abs(speed - v[j]) / period - 4 * ulp / (period * period)) / limits.acceleration[j]);
      const double push = (speed - v[j]) / period;
      jerk = std::max(jerk, (std::abs(push - a[j]) / period - 8 * ulp / (period * period * period)) /
                                std::min(limits.jerk_of(static_cast<int>(j)), 2 * limits.acceleration[j] / period));
      a[j] = push;
      v[j] = speed;
      q[j] = out[j];
    }
  }
  void check_all() const {
    CHECK(finite);
    CHECK(position <= 0.0);
    CHECK(velocity <= 1.0 + 1e-9);
    CHECK(acceleration <= 1.0 + 1e-6);
    CHECK(jerk <= 1.0 + 1e-6);
  }
};

inline ActionChunk good_chunk(const JointLimits& limits, const std::vector<double>& q, int horizon = 8) {
  ActionChunk chunk;
  chunk.horizon = horizon;
  chunk.dof = limits.dof();
  chunk.dt = 0.1;
  chunk.sequence = 1;
  for (int i = 0; i < horizon; ++i) chunk.q.insert(chunk.q.end(), q.begin(), q.end());
  return chunk;
}

}  // namespace fixture
