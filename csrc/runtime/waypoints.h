#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <vector>

#include "core/spsc_ring.h"
#include "spline.h"
#include "wamcore/chunk.h"

namespace wam {

/// A chunk and the spline through its rows. It is not changed between being queued and being given back.
struct Waypoints {
  ActionChunk chunk;
  std::vector<double> curvature;  // [horizon, dof] rad/s^2

  SplineRows rows() const { return {chunk.q.data(), curvature.data(), chunk.horizon, chunk.dof, chunk.dt}; }
};

/// Carries waypoints from the inference thread to the servo thread and the emptied ones back, without a lock and, after
/// the first round, without allocation. The servo thread keeps what it executes until it takes up the next.
class WaypointQueue {
 public:
  static constexpr size_t kSlots = 4;  // one executed, one queued, one being filled, one on its way back

  WaypointQueue() {
    for (Waypoints& slot : slots_) free_.push(&slot);
  }
  /// Inference thread: an empty slot; nullptr if the servo thread has stopped taking chunks.
  Waypoints* borrow() noexcept { return free_.pop().value_or(nullptr); }
  /// Inference thread: hands over a slot that has been filled.
  void send(Waypoints* filled) noexcept {
    ready_.push(filled);  // has room for every slot there is
    sent_.fetch_add(1, std::memory_order_relaxed);
  }
  /// Servo thread: the next filled slot; nullptr if there is none.
  Waypoints* take() noexcept { return ready_.pop().value_or(nullptr); }
  /// Servo thread: gives a slot back.
  void give_back(Waypoints* slot) noexcept { free_.push(slot); }
  /// Servo thread: says that it has decided about the slot it took last.
  void decided() noexcept { decided_.fetch_add(1, std::memory_order_relaxed); }
  /// Chunks that were sent, and chunks that were decided about.
  uint64_t sent_count() const noexcept { return sent_.load(std::memory_order_relaxed); }
  uint64_t decided_count() const noexcept { return decided_.load(std::memory_order_relaxed); }

 private:
  std::array<Waypoints, kSlots> slots_;
  SpscRing<Waypoints*, kSlots> free_;
  SpscRing<Waypoints*, kSlots> ready_;
  std::atomic<uint64_t> sent_{0};
  std::atomic<uint64_t> decided_{0};
};

}  // namespace wam
