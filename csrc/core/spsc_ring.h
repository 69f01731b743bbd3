#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <optional>
#include <type_traits>

namespace wam {

/// A queue of up to `capacity` small values from one producer thread to one consumer thread, without a lock.
template <typename T, size_t capacity>
class SpscRing {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  /// Producer: false if the ring is full.
  bool push(T value) noexcept {
    const size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == capacity) return false;
    slots_[tail % capacity] = value;
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }
  /// Consumer: the oldest value, if there is one.
  std::optional<T> pop() noexcept {
    const size_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_.load(std::memory_order_acquire)) return std::nullopt;
    const T value = slots_[head % capacity];
    head_.store(head + 1, std::memory_order_release);
    return value;
  }

 private:
  std::array<T, capacity> slots_{};
  alignas(64) std::atomic<size_t> head_{0};  // values taken out so far
  alignas(64) std::atomic<size_t> tail_{0};  // values put in so far
};

}  // namespace wam
