#pragma once

#include <memory>
#include <vector>

#include "wamcore/runner.h"

namespace wam {

/// The same run as a Runner's, single-threaded in virtual time: the clock moves by one servo period a step, and an
/// inference takes as many control ticks as it is told to. The same inputs give the same bits, on any machine.
class WAMCORE_API VirtualRunner {
 public:
  /// `delay_ticks` are the delays of successive inferences, repeated from the start when they run out; in sync
  /// mode the robot stands that long. `options.clock` must be a ManualClock or nullptr. Throws ConfigError.
  VirtualRunner(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits,
                RunnerOptions options = {}, std::vector<int> delay_ticks = {1});
  /// Stops.
  ~VirtualRunner();
  VirtualRunner(const VirtualRunner&) = delete;
  VirtualRunner& operator=(const VirtualRunner&) = delete;

  /// Configures and activates the robot. Throws RobotError, ConfigError.
  void start();
  /// Runs one servo cycle; false once the run has ended. Throws what ended it.
  bool step();
  /// Runs `seconds` of virtual time, rounded up to a whole cycle, or until the run ends.
  void run(double seconds);
  /// Runs until control tick `tick` begins, or until the run ends.
  void run_until(int64_t tick);
  /// Brakes to a stand, deactivates and closes the robot. Throws RobotError if the driver refuses.
  void stop();
  void estop() noexcept;
  /// Brakes to a stand and holds there, without the watchdog counting, until resume(). From any thread.
  void pause() noexcept;
  /// Goes on with a chunk from a fresh look at the scene; what was seen before counts no more.
  void resume() noexcept;
  /// As Runner::reset.
  bool reset();
  bool running() const noexcept;
  /// The control tick being executed.
  int64_t tick() const noexcept;
  /// Virtual time; the robot driver may share the clock.
  const std::shared_ptr<ManualClock>& clock() const noexcept;
  RunnerStats stats() const;
  RunRecord record() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wam
