#pragma once

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

}  // namespace wam
