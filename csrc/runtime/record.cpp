#include "record.h"

#include <algorithm>
#include <limits>

namespace wam {

RecordRing::RecordRing(int dof, size_t capacity) : capacity_(capacity) {
  const size_t wide = capacity * static_cast<size_t>(dof);
  ring_.dof = dof;
  ring_.t_ns.resize(capacity);
  ring_.tick.resize(capacity);
  ring_.command.resize(wide);
  ring_.reference.resize(wide);
  ring_.measured.resize(wide);
  ring_.phase.resize(capacity);
  ring_.reason.resize(capacity);
  ring_.chunk.resize(capacity);
  ring_.obs_age.resize(capacity);
  ring_.seam.resize(capacity);
}

void RecordRing::append(const RecordRow& row) noexcept {
  if (capacity_ == 0) return;
  const size_t i = count_++ % capacity_, dof = static_cast<size_t>(ring_.dof);
  ring_.t_ns[i] = row.t_ns;
  ring_.tick[i] = row.tick;
  std::copy(row.command.begin(), row.command.end(), &ring_.command[i * dof]);
  std::copy(row.measured.begin(), row.measured.end(), &ring_.measured[i * dof]);
  if (row.reference.empty())
    std::fill_n(&ring_.reference[i * dof], dof, std::numeric_limits<double>::quiet_NaN());
  else
    std::copy(row.reference.begin(), row.reference.end(), &ring_.reference[i * dof]);
  ring_.phase[i] = static_cast<uint8_t>(row.phase);
  ring_.reason[i] = static_cast<uint8_t>(row.reason);
  ring_.chunk[i] = row.chunk;
  ring_.obs_age[i] = row.obs_age;
  ring_.seam[i] = row.seam;
}

FlightRecorder::FlightRecorder(int dof, size_t capacity, size_t after)
    : last_(dof, capacity), evidence_(dof, after ? capacity : 0), after_(after) {}

void FlightRecorder::append(const RecordRow& row) noexcept {
  last_.append(row);
  if (after_ == 0) return;
  // A second stop while the evidence of the first is being taken away, or before it is complete, belongs to it.
  if (row.phase == Phase::estop && before_ != Phase::estop && left_ == 0) left_ = after_ + 1;
  before_ = row.phase;
  if (frozen_.load(std::memory_order_acquire)) return;
  evidence_.append(row);
  if (left_ > 0 && --left_ == 0) frozen_.store(true, std::memory_order_release);
}

RunRecord RecordRing::unroll() const {
  RunRecord out = ring_;
  const size_t kept = std::min(count_, capacity_), first = count_ > capacity_ ? count_ % capacity_ : 0;
  const auto turn = [&](auto& column, size_t width) {
    std::rotate(column.begin(), column.begin() + static_cast<ptrdiff_t>(first * width), column.end());
    column.resize(kept * width);
  };
  const size_t dof = static_cast<size_t>(ring_.dof);
  turn(out.t_ns, 1);
  turn(out.tick, 1);
  turn(out.command, dof);
  turn(out.reference, dof);
  turn(out.measured, dof);
  turn(out.phase, 1);
  turn(out.reason, 1);
  turn(out.chunk, 1);
  turn(out.obs_age, 1);
  turn(out.seam, 1);
  return out;
}

}  // namespace wam
