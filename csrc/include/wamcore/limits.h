#pragma once

#include <string>
#include <vector>

#include "wamcore/export.h"

namespace wam {

/// What each joint may do, in the order of the robot's joints. All vectors have one entry per joint.
struct WAMCORE_API JointLimits {
  std::vector<std::string> names;
  std::vector<double> position_min;          // [dof] rad (or the embodiment's stated unit)
  std::vector<double> position_max;          // [dof] rad
  std::vector<double> velocity;              // [dof] rad/s
  std::vector<double> acceleration;          // [dof] rad/s^2
  std::vector<double> jerk;                  // [dof] rad/s^3; empty: each acceleration limit over kJerkTime
  static constexpr double kJerkTime = 0.02;  // s

  /// Number of joints.
  int dof() const { return static_cast<int>(names.size()); }
  /// Jerk limit of joint j, rad/s^3.
  double jerk_of(int j) const {
    const auto i = static_cast<size_t>(j);
    return jerk.empty() ? acceleration[i] / kJerkTime : jerk[i];
  }
  /// Throws ConfigError unless every vector has `dof` finite entries of at most 1e6 (jerk: 1e9), min < max, rates are
  /// at least 1e-6 and names are unique.
  void validate() const;
};

}  // namespace wam
