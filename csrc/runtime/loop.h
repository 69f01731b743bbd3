#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

#include "ensemble.h"
#include "histogram.h"
#include "observation_source.h"
#include "scheduler.h"
#include "servo.h"
#include "wamcore/runner.h"
#include "waypoints.h"

namespace wam {

/// Everything a run consists of, without threads: three parts that are stepped by three threads (Runner) or in turn by
/// one loop in virtual time (VirtualRunner). Each method says whose it is.
class Loop {
 public:
  /// Checks what can be checked without the robot. Throws ConfigError.
  Loop(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits, RunnerOptions options);

  /// Configures and activates the robot, seeds the filter. Throws RobotError, ConfigError; the robot is then closed.
  void open(uint64_t now_ns);
  /// Stops the robot in the way the run ended, then deactivates it. Throws RobotError.
  void leave();
  /// Closes the driver.
  void close() noexcept;
  /// Writes the flight record if there is a folder for it. Throws ConfigError. Not while the servo runs.
  void dump(const std::string& why);
  /// Observer: writes the evidence of an emergency stop, if there is any. A folder that cannot be written ends no run.
  void dump_evidence() noexcept;
  /// Throws RobotError if the run ended by itself. Not while the servo runs.
  void check_ending() const;

  /// Servo: one cycle; false if the run has ended.
  bool cycle(uint64_t now_ns) noexcept { return servo_->cycle(now_ns); }
  /// Observer: takes a sample if one is due; true if the inference should look again. Throws RobotError.
  bool observe(uint64_t now_ns);
  /// Observer: when it should look again.
  uint64_t next_look(uint64_t now_ns) const noexcept;
  /// Inference: is it time to start?
  bool inference_due() noexcept;
  /// Inference: one chunk from the newest observation; nullptr if it was refused. Throws what the policy throws.
  Waypoints* infer();
  /// Inference: hands the chunk of infer() to the servo; it took `ticks` control ticks.
  void send(Waypoints* chunk, int ticks);

  const RunnerOptions& options() const noexcept { return options_; }
  Clock& clock() noexcept { return *options_.clock; }
  uint64_t period_ns() const noexcept { return servo_options_.period_ns; }
  int64_t tick_ns() const noexcept { return servo_options_.tick_ns; }
  SafetyFilter& filter() noexcept { return *filter_; }
  Servo& servo() noexcept { return *servo_; }
  const Servo& servo() const noexcept { return *servo_; }
  /// Counters so far; the runner adds what it alone knows.
  RunnerStats stats() const;

 private:
  static constexpr uint64_t kMaxRefusals = 10;  // chunks in a row; a policy that is refused so often will not recover

  void abandon() noexcept;
  void check_description(const Description& description) const;
  uint64_t refused() const noexcept;
  void give_up_after_refusals();
  bool plan_to_continue(int64_t obs_tick, int lag);
  ObservationSource::Latency latencies(const Description& description) const;
  void write(const RunRecord& record, const std::string& why);

  std::shared_ptr<Policy> policy_;
  std::shared_ptr<Hal> hal_;
  RunnerOptions options_;
  ServoOptions servo_options_;
  std::unique_ptr<SafetyFilter> filter_;
  WaypointQueue queue_;
  std::unique_ptr<Servo> servo_;
  std::unique_ptr<ObservationSource> source_;  // from open() on
  std::unique_ptr<ChunkScheduler> scheduler_;  // from open() on

  // What the observer last saw of the servo, for the inference.
  struct Seen {
    bool paused = true;
    uint64_t decided = 0;
    int64_t executing = -1;
  };
  std::mutex dumping_;  // one flight record is written at a time
  mutable std::mutex mutex_;
  std::string watchdog_ = "not started";  // the device's own, in words
  std::vector<std::string> dumps_;        // flight records that were written
  std::string dump_error_;                // why one was not
  Seen seen_;

  // Inference only.
  Observation observation_;
  std::array<ActionChunk, WaypointQueue::kSlots> sent_;  // a ring of what was sent last; one of them is in execution
  size_t sent_count_ = 0;
  Continuation plan_;
  Ensemble ensemble_;
  std::atomic<uint64_t> continued_{0};
  std::atomic<bool> thinking_{false};  // an inference runs
  Waypoints* spare_ = nullptr;         // a borrowed slot whose chunk was refused
  uint64_t refused_before_ = 0;        // refusals when the last inference started
  uint64_t admitted_before_ = 0;       // and admissions
  uint64_t streak_start_ = 0;          // refusals when a chunk was admitted last
  std::atomic<uint64_t> refused_here_{0};
  Histogram inference_;
};

}  // namespace wam
