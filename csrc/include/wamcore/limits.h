#pragma once

#include <string>
#include <vector>

#include "wamcore/export.h"

namespace wam {

/// What each joint may do, in the order of the robot's joints. All vectors have one entry per joint.
struct WAMCORE_API JointLimits {
  std::vector<std::string> names;
  std::vector<double> position_min;  // [dof] rad (or the embodiment's stated unit)
  std::vector<double> position_max;  // [dof] rad
  std::vector<double> velocity;      // [dof] rad/s
  std::vector<double> acceleration;  // [dof] rad/s^2

  /// Number of joints.
  int dof() const { return static_cast<int>(names.size()); }
  /// Throws ConfigError unless every vector has `dof` finite entries of at most 1e6, min < max, rates are positive and
  /// names are unique.
  void validate() const;
};

}  // namespace wam
