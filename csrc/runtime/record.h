#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "wamcore/runner.h"

namespace wam {

/// One servo cycle, as it is recorded.
struct RecordRow {
  uint64_t t_ns;
  double tick;
  std::span<const double> command;    // [dof] rad
  std::span<const double> reference;  // [dof] rad; empty = none
  std::span<const double> measured;   // [dof] rad
  Phase phase;
  Reason reason;
  int64_t chunk;   // sequence number, -1 = none
  double obs_age;  // s; NaN = none
  double seam;     // rad between two chunks, in the cycle where one takes over
};

/// Keeps the last `capacity` servo cycles in memory that is allocated up front.
class RecordRing {
 public:
  RecordRing(int dof, size_t capacity);
  void append(const RecordRow& row) noexcept;
  /// The kept cycles, oldest first. Not while another thread appends.
  RunRecord unroll() const;

 private:
  size_t capacity_;
  size_t count_ = 0;  // rows ever appended
  RunRecord ring_;
};

/// The flight recorder: the last cycles, and beside them the evidence of an emergency stop, which stays as it was
/// `after` cycles behind the stop until somebody has taken it away, so that a long stand does not overwrite the motion.
class FlightRecorder {
 public:
  /// after: 0 = no evidence is kept apart.
  FlightRecorder(int dof, size_t capacity, size_t after);
  /// Servo.
  void append(const RecordRow& row) noexcept;
  /// The last cycles. Not while the servo appends.
  RunRecord last() const { return last_.unroll(); }

  /// From any one thread besides the servo's: whether there is evidence, what it is, and that it has been taken away.
  bool has_evidence() const noexcept { return frozen_.load(std::memory_order_acquire); }
  RunRecord evidence() const { return evidence_.unroll(); }
  void release_evidence() noexcept { frozen_.store(false, std::memory_order_release); }

 private:
  RecordRing last_, evidence_;
  size_t after_;
  size_t left_ = 0;  // cycles until the evidence is complete; 0 = nothing has happened
  Phase before_ = Phase::unseeded;
  std::atomic<bool> frozen_{false};  // the evidence is complete, and the servo leaves it alone
};

}  // namespace wam
