#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "wamcore/clock.h"
#include "wamcore/embodiment.h"
#include "wamcore/hal.h"

namespace wam {

/// Where a mock robot can be made to fail.
enum class MockCall : uint8_t { configure, activate, read, write, frame, deactivate };

/// A fault to come: from call number `after` on (0 = the first), for `count` calls, the call answers `status`. A set-up
/// call throws RobotError instead.
struct MockFault {
  MockCall call = MockCall::read;
  uint64_t after = 0;
  uint64_t count = UINT64_MAX;
  Status status = Status::fault;
};

struct WAMCORE_API MockOptions {
  std::vector<JointInfo> joints;
  std::vector<CameraInfo> cameras;
  std::vector<double> start;    // [dof] rad; empty = zeros
  double time_constant = 0.05;  // s, of the first-order plant; 0 = it is where it is told to be
  size_t record_commands = 0;   // how many commands to keep

  /// The joints, their limits and the cameras that a model was trained with; it starts in the middle of the limits.
  static MockOptions like(const Embodiment& embodiment);
};

/// A robot that exists only in memory: a first-order plant that follows position commands, with the watchdog a real
/// device should have: it stands where it is as soon as the last command has expired. It moves with its clock, whenever
/// it is read or written. Its cameras show one grey level, which counts their frames.
class WAMCORE_API MockHal final : public Hal {
 public:
  /// Throws ConfigError for unusable options. `clock` is the runner's clock.
  MockHal(std::shared_ptr<Clock> clock, MockOptions options);

  Description configure(const HalConfig& config) override;
  void activate(Mode mode) override;
  Status read(State& state) noexcept override;
  Status write(const Command& command) noexcept override;
  void deactivate() override;
  void stop(StopKind kind) noexcept override;
  void close() noexcept override;
  Status frame(int camera, FrameView& view) noexcept override;
  std::string error() const override;

  /// Adds a fault; before the run.
  void inject(const MockFault& fault);
  /// From call number `after` of frame() on, every frame is the same one, with its old time.
  void freeze_cameras(uint64_t after) { freeze_after_ = after; }
  /// What the joint sensors report from now on, instead of the plant; empty = the plant.
  void lie(std::vector<double> q);

  /// Where the plant is, rad.
  std::vector<double> position() const;
  /// The kept commands, oldest first: their times (ns) and positions [n, dof] (rad).
  std::vector<uint64_t> command_times() const;
  std::vector<double> commands() const;
  /// How often the watchdog found the last command expired.
  uint64_t lapses() const;
  /// How often each was called.
  uint64_t calls(MockCall call) const { return calls_[static_cast<size_t>(call)]; }
  /// Stops so far, and the last of them.
  uint64_t stops() const { return stops_; }
  StopKind last_stop() const { return last_stop_; }
  bool active() const { return active_; }

 private:
  bool faulty(MockCall call, Status& status) noexcept;
  void set_up(MockCall call, const char* what);
  void advance() noexcept;

  std::shared_ptr<Clock> clock_;
  MockOptions options_;
  std::vector<MockFault> faults_;
  uint64_t freeze_after_ = UINT64_MAX;
  std::array<std::atomic<uint64_t>, 6> calls_{};
  std::atomic<uint64_t> stops_{0};
  std::atomic<StopKind> last_stop_{StopKind::hold};
  std::atomic<bool> active_{false};
  std::atomic<bool> halted_{false};  // stop() was called: commands are ignored until the next activate()

  mutable std::mutex mutex_;                 // a mock's luxury: a real driver's read and write take no lock
  std::vector<double> q_, dq_, goal_, lie_;  // [dof] rad, rad/s
  uint64_t now_ns_ = 0;                      // when the plant was advanced last
  uint64_t valid_until_ns_ = 0;
  bool lapsed_ = true;  // the command in force has expired
  uint64_t lapses_ = 0;
  std::vector<uint64_t> kept_times_;          // [n] ns
  std::vector<double> kept_;                  // [n, dof] rad
  std::vector<std::vector<uint8_t>> images_;  // [camera][height, width, 3]
  std::vector<uint64_t> image_times_;         // [camera] ns
  std::vector<uint64_t> frames_;              // [camera] delivered
};

}  // namespace wam
