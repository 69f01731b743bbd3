#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "wamcore/chunk.h"
#include "wamcore/export.h"
#include "wamcore/limits.h"

namespace wam {

/// Why a chunk was refused or a command changed, in the order in which the stages look.
enum class Reason : uint8_t {
  none,
  shape,         // chunk: wrong rows, columns or dt
  non_finite,    // chunk or target: NaN or infinite
  range,         // chunk: a row is far outside the position limits
  mismatch,      // chunk: it does not carry the tick and time of a past observation
  epoch,         // chunk: observed or computed before the last reset
  sequence,      // chunk: older than the one in execution, or the same again
  obs_age,       // chunk: its observation is too old
  chunk_age,     // chunk: all its rows lie in the past
  first_step,    // chunk: its first row is too far from the measured joints (zeros? relative targets?)
  position,      // command: clamped, or braked ahead of a position limit
  jerk,          // command: jerk-limited
  acceleration,  // command: acceleration-limited
  velocity,      // command: velocity-limited
  workspace,     // command: the workspace forbids the pose, or the one where the robot would come to a stand
  hold,          // watchdog: nothing fresh, velocity decays
  stop,          // watchdog: nothing fresh for too long, brakes and ends the run
  estop,         // emergency stop is latched
};
inline constexpr int kReasons = static_cast<int>(Reason::estop) + 1;

/// Name of a reason, as printed in statistics.
WAMCORE_API const char* name(Reason reason) noexcept;

/// What the filter is doing: nothing yet (no seed), tracking targets, slowing down for want of one, braking for good,
/// standing after that (the robot should be deactivated), or latched by the emergency stop.
enum class Phase : uint8_t { unseeded, follow, hold, stop, stopped, estop };

inline constexpr int kPhases = static_cast<int>(Phase::estop) + 1;

/// Name of a phase, as printed in statistics.
WAMCORE_API const char* name(Phase phase) noexcept;

/// Where the robot may be, for instance by self-collision or a fence. It is asked about the next pose and about the one
/// where the joints would come to a stand; while they brake, each in its own time, they may cut a corner, so it wants a
/// margin. It is asked on the servo thread: it allocates nothing, takes no lock and returns in microseconds.
class WAMCORE_API Workspace {
 public:
  virtual ~Workspace();
  /// May the joints be at `q` [dof] rad?
  virtual bool allows(std::span<const double> q) const noexcept = 0;
};

struct SafetyOptions {
  double period = 0.002;                                         // s between steps
  int horizon = 0;                                               // rows of a chunk; 0 = any
  double dt = 0.0;                                               // s between rows; 0 = any
  double max_obs_age = std::numeric_limits<double>::infinity();  // s, at admission
  double first_step_time = 0.2;        // s; a first row may be velocity limit times this away from the measured joint,
  std::vector<double> max_first_step;  // [dof] rad; unless it is given here
  double range_slack = 0.5;            // rad a row may lie outside the position limits before its chunk is refused
  double soft_margin = 0.0;            // rad that targets keep away from the position limits
  std::shared_ptr<const Workspace> workspace;  // nullptr = everywhere within the limits
  double hold_time = 0.5;                      // s without a fresh target until holding turns into stopping
  double hold_braking = 0.5;                   // fraction of the acceleration limit used while holding
  double standstill = 0.02;                    // rad/s; a measured joint slower than this stands
  double seed_slack = 0.005;  // rad a measured joint may lie outside its limits when the filter is seeded
};

/// What happened in one step.
struct Verdict {
  Phase phase = Phase::unseeded;
  Reason reason = Reason::none;  // the first stage that changed the command
};

/// Where the time line stands when a chunk is offered.
struct Moment {
  int64_t tick = 0;       // control tick that is being executed
  uint64_t t_ns = 0;      // monotonic time, ns
  uint32_t epoch = 0;     // epoch that counts
  uint64_t since_ns = 0;  // observations before this time are void (start of the run, or its last reset), ns
};

/// The last word before the robot. Whatever comes in, what goes out is finite and within the position, velocity,
/// acceleration and jerk limits (as differences of successive commands), and can be braked to a stand inside them.
/// This is NOT a certified safety function in the sense of ISO 10218 or ISO 13849: it guards against faults of a model,
/// not of a machine. Emergency stop, safe torque off and speed monitoring stay in the robot's own controller.
/// One thread steps it; vet, reject, estop and the counters may be used from any thread.
class WAMCORE_API SafetyFilter {
 public:
  /// Throws ConfigError for unusable limits or options.
  SafetyFilter(JointLimits limits, SafetyOptions options);
  SafetyFilter(const SafetyFilter&) = delete;
  SafetyFilter& operator=(const SafetyFilter&) = delete;

  /// Starts from measured joints at a stand. False, and no seed, if one is not finite or outside its limits, or if the
  /// workspace forbids the pose (which counts there): from such a pose no motion would ever be allowed.
  bool seed(std::span<const double> measured) noexcept;
  /// Checks what a chunk shows by itself: shape, finite, range. Counts and returns the first objection.
  Reason vet(const ActionChunk& chunk) noexcept;
  /// Decides whether a chunk may be executed from now on: vet, then freshness, then the first step.
  Reason admit(const ActionChunk& chunk, const Moment& now, std::span<const double> measured) noexcept;
  /// Computes the command of this period into `out` [dof]. An empty target means that nothing fresh exists.
  Verdict step(std::span<const double> target, std::span<double> out) noexcept;
  /// The same for a deliberate wait: comes to a stand and holds, without the watchdog counting.
  Verdict wait(std::span<double> out) noexcept;
  /// Brakes for good, as the watchdog would.
  void shut_down() noexcept { shut_down_.store(true, std::memory_order_relaxed); }

  /// Latches the emergency stop.
  void estop() noexcept { estops_.fetch_add(1, std::memory_order_relaxed); }
  /// Ends an emergency stop or a watchdog stop and seeds again, if command and measured joints stand inside their
  /// limits and the workspace.
  bool reset(std::span<const double> measured, std::span<const double> measured_velocity) noexcept;

  /// Counts a refusal that was decided elsewhere.
  void reject(Reason reason) noexcept { count(reason); }
  /// How many chunks a stage refused, or in how many periods it changed the command.
  uint64_t count_of(Reason reason) const noexcept;
  /// Last command: position (rad), velocity (rad/s) and acceleration (rad/s^2) of joint j.
  double position(int j) const noexcept;
  double velocity(int j) const noexcept;
  double acceleration(int j) const noexcept;
  const JointLimits& limits() const noexcept { return limits_; }
  const SafetyOptions& options() const noexcept { return options_; }
  ~SafetyFilter();

 private:
  struct Joint;
  void count(Reason reason) noexcept { counts_[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed); }
  Reason objection(const ActionChunk& chunk) const noexcept;
  Reason freshness(const ActionChunk& chunk, const Moment& now) const noexcept;
  bool fits(const ActionChunk& chunk) const noexcept;
  bool in_range(const ActionChunk& chunk) const noexcept;
  bool begins_here(const ActionChunk& chunk, const Moment& now, std::span<const double> measured) const noexcept;
  bool latched() const noexcept;
  Verdict follow_target(std::span<const double> target) noexcept;
  Verdict slow_down(Phase phase) noexcept;
  bool workspace_allows() noexcept;
  bool standing() const noexcept;

  JointLimits limits_;
  SafetyOptions options_;
  std::unique_ptr<Joint[]> joints_, before_;  // [dof] and, for a motion that has to be taken back, their last state
  std::vector<double> pose_;                  // [dof] rad, scratch
  Phase phase_ = Phase::unseeded;
  uint64_t starved_steps_ = 0;       // periods since the last fresh target
  uint64_t hold_steps_ = 0;          // how many of them are held before stopping
  bool has_sequence_ = false;        // a chunk has been admitted since the seed
  uint64_t sequence_ = 0;            // of the last admitted chunk
  uint32_t sequence_epoch_ = 0;      // and its epoch
  std::atomic<uint64_t> estops_{0};  // requests so far
  uint64_t estops_cleared_ = 0;      // how many of them reset() has cleared
  std::atomic<bool> shut_down_{false};
  std::array<std::atomic<uint64_t>, kReasons> counts_{};
};

}  // namespace wam
