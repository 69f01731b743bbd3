#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "servo.h"
#include "wamcore/hal.h"
#include "wamcore/observation.h"

namespace wam {

/// Collects what the policy sees. At every control tick it takes the newest frame of each camera and the measured
/// joints into a ring; from the ring it assembles observations with frames at the offsets the model was trained on.
/// One thread samples, another assembles.
class ObservationSource {
 public:
  /// `offsets` are ticks relative to the observation's, ascending, ending in 0. Throws ConfigError.
  ObservationSource(std::vector<CameraInfo> cameras, std::vector<int> offsets, int dof);

  /// Takes one sample for `tick`. A second sample of the newest tick replaces the first. False if a camera has not
  /// delivered its first frame yet. Throws RobotError if a camera fails or its frames have another size than it said.
  bool sample(Hal& hal, int64_t tick, uint64_t now_ns, const ServoView& joints);
  /// The tick of the newest sample and when it was taken; nothing before the first.
  struct Newest {
    int64_t tick;
    uint64_t sample_ns;
  };
  std::optional<Newest> newest() const;
  /// Fills `out` from the newest sample: state, and for each camera the frames at the offsets, oldest first. Where no
  /// sample was taken the nearest older one stands in, and at the beginning the oldest. Its time is that of the oldest
  /// part that claims to be current, so a camera or joint sensor that has frozen makes the observation old.
  void assemble(Observation& out) const;

 private:
  struct Frame {
    std::vector<uint8_t> rgb;  // [height, width, 3]
    uint64_t t_ns = 0;         // mid-exposure
  };
  struct Sample {
    int64_t tick = 0;
    uint64_t sample_ns = 0;     // when it was taken
    uint64_t state_ns = 0;      // when the joints were measured
    std::vector<Frame> frames;  // one for each camera
    std::vector<double> state;  // [dof] rad
  };
  const Sample& nearest(int64_t tick) const;

  std::vector<CameraInfo> cameras_;
  std::vector<int> offsets_;
  mutable std::mutex mutex_;
  std::vector<Sample> ring_;  // [reach + 1]
  size_t count_ = 0;          // samples ever committed
  Sample draft_;              // being filled, by the sampling thread only
};

}  // namespace wam
