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
/// What arrives at one moment was not captured at one moment: with stated latencies an observation is of the newest
/// tick that all cameras and the joints have reported on. One thread samples, another assembles.
class ObservationSource {
 public:
  /// How much later than it was captured something claims to be, ns.
  struct Latency {
    std::vector<int64_t> cameras;  // one for each camera; empty = none
    int64_t state = 0;
    int64_t tick = 1;  // ns of a control tick
  };
  /// `offsets` are ticks relative to the observation's, ascending, ending in 0. Throws ConfigError.
  ObservationSource(std::vector<CameraInfo> cameras, std::vector<int> offsets, int dof, Latency latency);
  ObservationSource(std::vector<CameraInfo> cameras, std::vector<int> offsets, int dof)
      : ObservationSource(std::move(cameras), std::move(offsets), dof, Latency{}) {}

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
  /// part that is of its tick, so a camera or joint sensor that has frozen makes the observation old. Returns the ticks
  /// by which it is older than the newest sample: the largest latency, and none while the robot stands and waits.
  int assemble(Observation& out) const;
  /// The largest latency in whole ticks.
  int lag() const noexcept { return lag_; }

 private:
  struct Frame {
    std::vector<uint8_t> rgb;  // [height, width, 3]
    uint64_t t_ns = 0;         // mid-exposure
  };
  struct Sample {
    int64_t tick = 0;
    bool paused = false;        // the robot stood and waited
    uint64_t sample_ns = 0;     // when it was taken
    uint64_t state_ns = 0;      // when the joints were measured
    std::vector<Frame> frames;  // one for each camera
    std::vector<double> state;  // [dof] rad
  };
  const Sample& nearest(int64_t tick) const;

  std::vector<CameraInfo> cameras_;
  std::vector<int> offsets_;
  Latency latency_;
  std::vector<int> camera_ticks_;  // latencies in whole ticks
  int state_ticks_ = 0;
  int lag_ = 0;  // the largest of them
  mutable std::mutex mutex_;
  std::vector<Sample> ring_;  // [reach + lag + 1]
  size_t count_ = 0;          // samples ever committed
  Sample draft_;              // being filled, by the sampling thread only
};

}  // namespace wam
