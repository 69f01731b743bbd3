#pragma once

#include <array>
#include <string>
#include <vector>

#include "wamcore/export.h"
#include "wamcore/limits.h"

namespace wam {

/// A camera as the model was trained with it.
struct CameraSpec {
  std::string name;
  int height = 0, width = 0;  // pixels of the frames it must deliver
};

/// Statistics of one channel group; [rows][dim], one row, or one for each step of the horizon.
struct ChannelStatistics {
  int rows = 1, dim = 0;
  std::vector<double> min, max, mean, std, q01, q99;  // [rows * dim] those that the mode uses, the rest empty
};

/// A group of state or action channels that are normalised alike.
struct ChannelGroup {
  std::string key;  // e.g. "joint_position"
  int dim = 0;
  std::string mode;          // "q99", "min_max", "mean_std", "binary", "scale" or "none"
  bool relative = false;     // actions only: predicted relative to the state of the same key
  bool per_horizon = false;  // actions only: statistics for each step of the horizon
  ChannelStatistics statistics;
};

/// Everything about the robot that a checkpoint was trained for: a file, not code.
struct WAMCORE_API Embodiment {
  std::string name;
  double control_hz = 0.0;  // rows of a chunk a second
  std::vector<CameraSpec> cameras;
  std::string composition;         // "single", "droid" or "grid"
  double crop_scale = 1.0;         // centre crop, fraction of each side
  std::array<int, 2> view_hw{};    // each view after the crop, pixels
  std::vector<int> frame_offsets;  // control ticks of the frames of an observation, ending with 0
  std::vector<ChannelGroup> state, action;
  JointLimits limits;           // empty when the file names no joints
  std::string prompt_template;  // every {} is the instruction

  int state_dim() const;
  int action_dim() const;
  /// Reads embodiment.json. Throws ConfigError on unknown, missing and contradictory fields.
  static Embodiment read(const std::string& path);
};

}  // namespace wam
