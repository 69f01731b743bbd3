#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "wamcore/clock.h"
#include "wamcore/hal.h"

namespace wam {

/// The calls of a driver that can go wrong.
enum class HalCall : uint8_t { configure, activate, read, write, frame, deactivate };

/// Name of a call, as in Python.
WAMCORE_API const char* name(HalCall call) noexcept;

/// What goes wrong.
/// `answer`: the driver is not asked; the call answers `status`, a set-up call throws RobotError.
/// `drop`: a command is lost, though the answer is ok; read and frame have nothing new.
/// `freeze`: read and frame give what they gave last, with its old time; `stuck`: with a time that goes on.
/// `late`: read gives the measurement of `ticks` ticks before; the device gets a command that many ticks later.
/// `stall`: the call takes `seconds` longer; a ManualClock is moved, as if the machine had slept.
/// `skew`: the time stamps of read and frame are off by `seconds`, either way.
/// `offset`: joint `joint` (-1 = all) is measured off by `value`, which may be NaN.
enum class FaultKind : uint8_t { answer, drop, freeze, stuck, late, stall, skew, offset };

/// Name of a kind, as in Python.
WAMCORE_API const char* name(FaultKind kind) noexcept;

/// A fault and when it strikes. Time is counted in servo ticks: calls of read() since the last activate().
struct HalFault {
  HalCall call = HalCall::read;
  FaultKind kind = FaultKind::answer;
  uint64_t from = 0;            // first tick
  uint64_t count = UINT64_MAX;  // ticks
  double probability = 1.0;     // of each tick; the seed decides which
  Status status = Status::fault;
  int ticks = 1;         // late
  double seconds = 0.0;  // stall, skew
  int joint = -1;        // offset
  double value = 0.0;    // offset, rad
};

/// Any driver, with faults. Where none strikes it is the driver. The same faults, seed and calls give the same run.
class WAMCORE_API FaultInjector final : public Hal {
 public:
  /// Throws ConfigError without a driver or a clock. `clock` is the runner's.
  FaultInjector(std::shared_ptr<Hal> inner, std::shared_ptr<Clock> clock, uint64_t seed = 0);

  /// Adds a fault; before the run, or between the steps of a virtual one. Throws ConfigError if that call cannot fail
  /// so.
  void inject(const HalFault& fault);
  /// Calls of read() since the last activate().
  uint64_t tick() const { return tick_; }
  /// How many calls a fault has changed so far.
  uint64_t struck(HalCall call) const { return struck_[static_cast<size_t>(call)]; }
  const std::shared_ptr<Hal>& inner() const { return inner_; }

  Description configure(const HalConfig& config) override;
  void activate(Mode mode) override;
  Status read(State& state) noexcept override;
  Status write(const Command& command) noexcept override;
  void deactivate() override;
  void stop(StopKind kind) noexcept override { inner_->stop(kind); }
  void close() noexcept override { inner_->close(); }
  Status frame(int camera, FrameView& view) noexcept override;
  std::string error() const override;

 private:
  struct Sample {
    uint64_t t_ns = 0, valid_until_ns = 0;
    Mode mode = Mode::position;
    std::vector<double> q, dq, tau;  // [dof]; of a command no tau
    uint32_t fault_bits = 0;
  };
  const HalFault* strikes(HalCall call, uint64_t tick) noexcept;
  void set_up(HalCall call, const char* what);
  void stall(double seconds) noexcept;
  void change(const HalFault& fault, State& state) noexcept;
  Status write_late(const Command& command, int ticks) noexcept;

  std::shared_ptr<Hal> inner_;
  std::shared_ptr<Clock> clock_;
  uint64_t seed_;
  std::vector<HalFault> faults_;
  std::array<std::atomic<uint64_t>, 6> struck_{};
  size_t room_ = 1;                          // ticks that the rings hold
  std::atomic<bool> answered_{false};        // an injected fault was the last one
  std::atomic<uint64_t> tick_{0};            // calls of read() since activate()
  std::vector<Sample> measured_, commands_;  // rings over ticks, as long as the latest needs; of the servo thread
  uint64_t written_ = 0;                     // commands put into the ring
  std::vector<FrameView> views_;             // [camera] the last frame; of the thread that asks for frames
};

}  // namespace wam
