#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/mailbox.h"
#include "histogram.h"
#include "interpolator.h"
#include "record.h"
#include "timeline.h"
#include "wamcore/clock.h"
#include "waypoints.h"

namespace wam {

struct ServoOptions {
  uint64_t period_ns = 0;  // of the servo loop
  int64_t tick_ns = 0;     // of one control tick
  Execution mode = Execution::blend;
  int execute_horizon = 0;           // ticks, sync mode: rows to run before waiting
  int64_t blend_ns = 0;              // length of a seam blend
  uint64_t max_chunk_age_ns = 0;     // since its observation
  uint64_t max_state_age_ns = 0;     // without measured joints until the robot counts as blind
  uint64_t command_validity_ns = 0;  // after which the device must refuse a command
  size_t record_rows = 0;            // servo cycles to keep
  size_t record_after = 0;           // of them after an emergency stop in what is kept apart of it; 0 = nothing is
  std::vector<Gripper> grippers;     // joints that are not interpolated
  const Clock* clock = nullptr;      // the runner's; it outlives the servo
};

/// What the servo shows to the observer: where the time line stands and the newest measured joints.
struct ServoView {
  int64_t position_ns = 0;  // on the time line
  int64_t origin_ns = 0;    // monotonic time of position 0, while it runs
  bool paused = true;       // the robot waits for a chunk
  uint64_t decided = 0;     // chunks admitted or refused so far
  int64_t executing = -1;   // sequence number of the chunk in execution, -1 = none
  uint64_t state_ns = 0;    // monotonic time of q
  std::vector<double> q;    // [dof] rad, measured
};

/// Why a servo ended.
enum class Ending : uint8_t { none, asked, watchdog, read_fault, write_fault, write_stall };

/// Counters of the servo; written by it, read by anybody.
struct ServoCounters {
  std::atomic<uint64_t> cycles{0}, ticks{0}, starved_ticks{0}, chunks{0}, refused_chunks{0}, late_chunks{0},
      skipped_rows{0}, stale_reads{0}, stale_writes{0};
  std::array<std::atomic<uint64_t>, 32> delay_ticks{};
  Histogram cycle, obs_age, seam_gap, seam_jump;
  std::atomic<Phase> phase{Phase::unseeded};
  std::atomic<uint32_t> fault_bits{0};  // every bit so far
};

/// The real-time half of a run, one cycle at a time: read the joints, take up chunks, interpolate, filter, command.
/// A thread or a virtual-time loop calls cycle(); after start() nothing here allocates, locks or throws.
class Servo {
 public:
  Servo(Hal& hal, SafetyFilter& filter, WaypointQueue& queue, const ServoOptions& options);

  /// Reads the joints and seeds the filter with them. Throws RobotError.
  void start(uint64_t now_ns);
  /// One cycle; false if the run has ended.
  bool cycle(uint64_t now_ns) noexcept;
  /// Brakes to a stand and ends; from any thread.
  void shut_down() noexcept;
  /// Chunks of other epochs are void from the next cycle on; from any thread.
  void set_epoch(uint32_t epoch) noexcept { epoch_.store(epoch, std::memory_order_relaxed); }
  /// Asks for a reset of the emergency stop in the next cycle; from any thread.
  void request_reset() noexcept { reset_.store(Reset::requested, std::memory_order_release); }
  /// Stands still and takes no chunks until told to go on; from any thread.
  void set_paused(bool paused) noexcept { pause_.store(paused, std::memory_order_relaxed); }
  bool pause_wanted() const noexcept { return pause_.load(std::memory_order_relaxed); }
  /// True once a requested reset has been decided; `done` says how.
  bool reset_decided(bool& done) const noexcept;

  /// Mailbox whose reader is the observer.
  Mailbox<ServoView>& view() noexcept { return view_; }
  const ServoCounters& counters() const noexcept { return counters_; }
  Ending ending() const noexcept { return ending_; }
  /// The control tick of the last cycle; on the thread that calls cycle().
  int64_t tick() const noexcept { return timeline_.tick_at(last_position_ns_); }
  RunRecord record() const { return record_.last(); }
  FlightRecorder& recorder() noexcept { return record_; }
  /// The safety stages that objected, with their counts; from any thread.
  std::string objections() const;
  /// Why it ended, with the last measured and commanded joints. Not while cycle() runs.
  std::string last_words() const;

 private:
  enum class Reset : uint8_t { none, requested, done, refused };

  void read_joints(uint64_t now_ns) noexcept;
  void handle_reset(uint64_t now_ns) noexcept;
  void handle_epoch() noexcept;
  void handle_pause(uint64_t now_ns) noexcept;
  void take_chunks(uint64_t now_ns) noexcept;
  void switch_to(Waypoints* next, uint64_t now_ns) noexcept;
  void motion_before(int64_t position_ns) noexcept;
  void void_current() noexcept;
  bool reference_at(int64_t position_ns, uint64_t now_ns) noexcept;
  void decide_grippers(int64_t position_ns) noexcept;
  void write_command(uint64_t now_ns) noexcept;
  void account(bool fresh, uint64_t now_ns) noexcept;
  void show(uint64_t now_ns) noexcept;
  bool seeing(uint64_t now_ns) const noexcept;

  Hal& hal_;
  SafetyFilter& filter_;
  WaypointQueue& queue_;
  const ServoOptions options_;
  Timeline timeline_;
  Interpolator interpolator_;
  Mailbox<ServoView> view_;
  FlightRecorder record_;
  ServoCounters counters_;

  size_t dof_;
  std::vector<double> read_q_, read_dq_, read_tau_;     // what the driver fills in
  std::vector<double> q_, dq_;                          // [dof] last good measurement, rad and rad/s
  uint64_t state_ns_ = 0;                               // its time
  std::vector<double> ref_q_, ref_v_, ref_a_;           // [dof] reference of this cycle
  std::vector<double> from_q_, from_v_, from_a_;        // [dof] motion before a switch
  std::vector<double> command_, last_command_, speed_;  // [dof] this cycle's and the last cycle's; rad, rad/s
  std::vector<bool> closed_;                            // [grippers] what was decided last
  Verdict verdict_;
  bool on_reference_ = false;  // the last command was the reference itself
  bool switched_ = false;      // a chunk was taken up in this cycle
  double seam_ = 0.0;          // rad between it and the one before
  bool executed_any_ = false;  // a chunk has been admitted
  int64_t last_position_ns_ = 0;
  uint64_t since_ns_ = 0;               // observations before it are void: the last reset
  std::optional<uint64_t> refused_ns_;  // since when the driver has taken no command
  Ending ending_ = Ending::none;
  std::atomic<bool> asked_{false};
  std::atomic<bool> pause_{false};
  bool pausing_ = false;  // pause_ has been acted upon
  std::atomic<uint32_t> epoch_{0};
  uint32_t current_epoch_ = 0;
  std::atomic<Reset> reset_{Reset::none};
};

}  // namespace wam
