#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace wam {

/// Hands the newest value from one writer thread to one reader thread; older values are overwritten unread.
/// A triple buffer: neither side ever waits, and neither ever sees a value that is being written. Room that the initial
/// value has allocated (vectors) is kept, so that filling a draft of the same size allocates nothing.
template <typename T>
class Mailbox {
 public:
  explicit Mailbox(const T& initial = T{}) : slots_{initial, initial, initial} {}
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  /// Writer: the value to fill in. It holds some older value, not necessarily the last one.
  T& draft() noexcept { return slots_[write_]; }
  /// Writer: makes the draft the newest value.
  void publish() noexcept {
    write_ = shared_.exchange(static_cast<uint8_t>(write_ | kFresh), std::memory_order_acq_rel) & kIndex;
  }
  /// Reader: moves on to the newest value; false if there is none since the last call.
  bool fetch() noexcept {
    if (!(shared_.load(std::memory_order_relaxed) & kFresh)) return false;
    read_ = shared_.exchange(read_, std::memory_order_acq_rel) & kIndex;
    return true;
  }
  /// Reader: the value that fetch() moved on to.
  const T& latest() const noexcept { return slots_[read_]; }

 private:
  static constexpr uint8_t kIndex = 3;
  static constexpr uint8_t kFresh = 4;
  std::array<T, 3> slots_;
  alignas(64) uint8_t write_ = 0;               // the writer's slot
  alignas(64) uint8_t read_ = 1;                // the reader's slot
  alignas(64) std::atomic<uint8_t> shared_{2};  // the third slot, and whether it is newer than the reader's
};

}  // namespace wam
