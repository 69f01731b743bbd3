#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "wamcore/clock.h"
#include "wamcore/export.h"
#include "wamcore/hal.h"
#include "wamcore/limits.h"
#include "wamcore/policy.h"
#include "wamcore/safety.h"

namespace wam {

/// How chunks are executed.
/// `sync`: run execute_horizon rows, stand still, infer, go on. In all others the robot moves on while it is inferred:
/// `async_switch`: the newest chunk takes over with a jump; for comparison. `blend`: it takes over smoothly.
/// `rtc_guided`: the new chunk is sampled so that it continues the old one, and blended. `rtc_trained`: the same with
/// the rows that will have been executed as a clean prefix, for policies that were trained so. `temporal_ensemble`: an
/// inference as often as possible, and the mean of all chunks. `automatic`: rtc_guided or rtc_trained if the policy
/// can, else blend.
enum class Execution : uint8_t { automatic, sync, async_switch, blend, rtc_guided, rtc_trained, temporal_ensemble };

/// Name of a mode, as in Python and in statistics.
WAMCORE_API const char* name(Execution mode) noexcept;

/// Whether the servo thread asks for SCHED_FIFO and locked memory: no; yes, and says so if it is refused; yes, or
/// throws.
enum class Realtime : uint8_t { ignore, prefer, enforce };

/// A joint that is either open or closed. It is not interpolated: a row's value is a wish, which counts once it lies
/// more than half of `hysteresis` beyond the middle, so that a model that wavers does not make the gripper chatter. The
/// safety filter then moves the joint there within its limits.
struct Gripper {
  int joint = 0;            // number of the joint
  double open = 0.0;        // rad (or the joint's unit)
  double closed = 1.0;      // rad
  double hysteresis = 0.2;  // share of the way from open to closed in which a wish changes nothing
};

struct RunnerOptions {
  double control_hz = 200.0;  // servo rate, Hz
  Execution mode = Execution::automatic;
  int execute_horizon = 0;   // ticks between two inference starts; 0 = half a chunk
  double blend_ticks = 2.0;  // ticks over which a chunk takes over from the one before; 0 = a jump
  /// rtc_guided: rows after the frozen ones that the old chunk still pulls, less and less; -1 = all that it has. More
  /// make the motion hold on to what was seen before.
  int soft_ticks = 2;
  double ensemble_decay = 0.01;  // temporal_ensemble: each newer chunk weighs exp(-decay) of the one before it
  double max_obs_age = 0.0;      // s at admission; 0 = the length of a chunk, or 10 s in sync mode
  double max_chunk_age = 0.0;    // s since its observation during execution; 0 = until its rows run out
  /// What was measured on this rig: s from mid-exposure to the time that a camera's frames claim to be of (by its
  /// name), and from the moment at which joints are measured to the time that they claim. Observations are then put
  /// together of what belongs to one moment, and carry that moment's tick and time.
  std::map<std::string, double> camera_latency;
  double state_latency = 0.0;
  double max_state_age = 0.1;     // s without measured joints until the robot counts as blind
  double command_validity = 0.1;  // s after which the device must refuse a command
  double record = 30.0;           // s of servo cycles to keep: the flight recorder
  /// Folder for flight records, a file for each; empty = nowhere. One is written at the end of a run, and one 2 s after
  /// each emergency stop, so that standing on does not overwrite the motion.
  std::string dump;
  Realtime realtime = Realtime::ignore;
  int priority = 80;              // of SCHED_FIFO
  int cpu = -1;                   // the servo thread's core, if `realtime` is not ignore; -1 = any
  std::vector<Gripper> grippers;  // joints on a channel of their own
  SafetyOptions safety;           // period, horizon, dt and max_obs_age are filled in by the runner
  HalConfig hal;                  // servo_hz is filled in by the runner
  std::shared_ptr<Clock> clock;   // nullptr = the machine's monotonic clock
};

/// Quantiles of a measured quantity, to within 1 %.
struct Quantiles {
  double p50 = 0.0;
  double p99 = 0.0;
  double p999 = 0.0;
  double max = 0.0;
  uint64_t count = 0;
};

/// What a run did so far.
struct RunnerStats {
  double seconds = 0.0;           // since start
  uint64_t cycles = 0;            // of the servo loop
  uint64_t overruns = 0;          // cycles that were skipped because one before came late
  uint64_t ticks = 0;             // control ticks that have passed
  uint64_t starved_ticks = 0;     // of them that began without a fresh command, after the first chunk
  uint64_t chunks = 0;            // admitted
  uint64_t refused_chunks = 0;    // refused by a safety stage
  uint64_t late_chunks = 0;       // admitted after the chunk before had run out
  uint64_t continued_chunks = 0;  // sampled as the continuation of the one before
  uint64_t skipped_rows = 0;      // rows that were past when their chunk arrived
  uint64_t stale_reads = 0;       // cycles without a new measurement
  uint64_t stale_writes = 0;      // commands the driver did not take at once
  uint32_t fault_bits = 0;        // every bit of its own code that the driver has reported in this run
  Quantiles inference;            // s from the start of an inference to its chunk
  Quantiles cycle;                // s of a servo cycle's own work, without the driver's
  Quantiles obs_age;              // s from observation to command, at every command that follows a chunk
  Quantiles seam_gap;             // rad between the two chunks at a switch: what an unblended switch would jump
  Quantiles seam_jump;            // rad by which the command moved more than the reference's velocity at a switch
  std::array<uint64_t, 32> delay_ticks{};   // [i] chunks whose first executed row was i; the last counts all above
  std::array<uint64_t, kReasons> safety{};  // [Reason] chunks refused or cycles changed
  Execution mode = Execution::automatic;    // what automatic came to
  Phase phase = Phase::unseeded;            // what the filter is doing
  std::string realtime;                     // what the servo thread got
  std::string watchdog = "not started";     // whether the device stops by itself when commands cease
  std::vector<std::string> dumps;           // flight records that were written, in order
  std::string dump_error;                   // why the last one that was not written was not
};

/// The servo cycles that were kept, oldest first; n of them.
struct RunRecord {
  int dof = 0;
  std::vector<uint64_t> t_ns;     // [n] monotonic, ns
  std::vector<double> tick;       // [n] position on the time line, in control ticks
  std::vector<double> command;    // [n, dof] rad
  std::vector<double> reference;  // [n, dof] rad before the safety filter; NaN where there was none
  std::vector<double> measured;   // [n, dof] rad
  std::vector<uint8_t> phase;     // [n] Phase
  std::vector<uint8_t> reason;    // [n] Reason
  std::vector<int64_t> chunk;     // [n] sequence number of the chunk in execution, -1 = none
  std::vector<double> obs_age;    // [n] s since that chunk's observation; NaN = none
  std::vector<double> seam;       // [n] rad between the two chunks where one took over in this cycle, else 0
};

/// What a record says about itself.
struct RecordNotes {
  std::string why;  // the run ended
  JointLimits limits;
};

/// Writes a flight record as a safetensors file: the columns of RunRecord by their names, the limits as `*_max` and
/// `position_min`, and as metadata `why`, `joints`, `phases` and `reasons` (the last three separated by commas, in the
/// order of the numbers in the columns). `wamcore.read_record` reads it, `wamcore inspect` plots it. Throws
/// ConfigError.
WAMCORE_API void write_record(const RunRecord& record, const RecordNotes& notes, const std::string& path);

/// Runs a policy on a robot: an inference thread, a thread that collects observations, and a servo thread whose every
/// command passes the SafetyFilter. All times are absolute control ticks and monotonic ns; nothing is estimated.
class WAMCORE_API Runner {
 public:
  /// Checks that policy, limits and options fit; touches nothing. Throws ConfigError.
  Runner(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits, RunnerOptions options = {});
  /// Stops.
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  /// Configures and activates the robot and starts the threads. A runner runs once. Throws RobotError, ConfigError.
  void start();
  /// Waits until `seconds` have passed or the run has ended; throws what stopped a thread.
  void wait(double seconds);
  /// Brakes to a stand, deactivates and closes the robot, joins the threads. May be called from anywhere, repeatedly.
  void stop() noexcept;
  /// Latches the emergency stop; the robot brakes and stands until reset().
  void estop() noexcept;
  /// Brakes to a stand and holds there, without the watchdog counting, until resume(). From any thread.
  void pause() noexcept;
  /// Goes on with a chunk from a fresh look at the scene; what was seen before counts no more.
  void resume() noexcept;
  /// Clears a latched emergency stop if command and measured joints stand; says whether it did. It waits for the servo
  /// thread to decide; asked for by a driver within a servo cycle it throws RobotError.
  bool reset();
  /// True from start() until the run has ended for whatever reason.
  bool running() const noexcept;
  /// What happened so far, from any thread.
  RunnerStats stats() const;
  /// The recorded servo cycles; call it after stop().
  RunRecord record() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the threads, in case one of them destroys the runner
};

}  // namespace wam
