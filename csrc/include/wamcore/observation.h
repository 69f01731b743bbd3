#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wam {

/// Frames of one camera, oldest first.
struct CameraFrames {
  std::string name;          // as the embodiment names it
  int frames = 0;            // how many
  int height = 0;            // pixels
  int width = 0;             // pixels
  std::vector<uint8_t> rgb;  // [frames, height, width, 3]
};

/// What the robot saw and felt at one control tick.
struct Observation {
  std::vector<CameraFrames> cameras;
  std::vector<double> state;  // [state_dim] in the embodiment's order, rad (or its stated unit)
  int64_t tick = 0;           // absolute control tick of the newest frame and the state
  uint64_t t_ns = 0;          // monotonic time of the same, ns
};

}  // namespace wam
