#pragma once

// Fresh data on all cores, and distances to a reference.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "wamcore/kernels/cuda/bf16.h"

namespace device_check {

using wam::kernels::cuda::bf16;

/// body(i) for all i under n, on all cores.
template <typename Body>
void parallel(int64_t n, Body body) {
  const int64_t workers = std::min<int64_t>(n, std::max(1u, std::thread::hardware_concurrency()));
  if (workers <= 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  std::atomic<int64_t> next{0};
  std::vector<std::jthread> threads;
  for (int64_t w = 0; w < workers; ++w)
    threads.emplace_back([&] {
      for (int64_t i; (i = next.fetch_add(1)) < n;) body(i);
    });
}

/// Well-mixed bits of a number (splitmix64).
inline uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Fresh numbers of mean 0 and deviation 1, each from its place alone, so that cores need not agree: four uniform ones
/// added up.
class Fresh {
 public:
  explicit Fresh(uint64_t seed) : seed_(seed) {}
  float at(uint64_t i) const {
    const uint64_t bits = mixed(seed_ ^ mixed(i));
    const int64_t sum =
        int64_t(bits & 0xffff) + int64_t(bits >> 16 & 0xffff) + int64_t(bits >> 32 & 0xffff) + int64_t(bits >> 48);
    return static_cast<float>(sum - 2 * 65535) * (1.0f / 37837.2f);  // 65535 * sqrt(4 / 12)
  }
  template <typename T>
  std::vector<T> array(size_t count, float deviation = 1.0f, float mean = 0.0f) {
    std::vector<T> values(count);
    constexpr size_t slice = 1 << 16;
    const uint64_t first = used_;
    parallel(int64_t((count + slice - 1) / slice), [&](int64_t s) {
      for (size_t i = size_t(s) * slice; i < std::min(count, (size_t(s) + 1) * slice); ++i)
        values[i] = wam::kernels::cuda::to<T>(mean + deviation * at(first + i));
    });
    used_ += count;
    return values;
  }
  /// A whole number under n.
  int64_t under(int64_t n) { return int64_t(mixed(seed_ ^ mixed(~used_++)) % uint64_t(n)); }
  /// `count` different numbers under n, the first and the last among them.
  std::vector<int64_t> some(int64_t n, int64_t count) {
    std::vector<int64_t> all;
    if (n <= count) {
      for (int64_t i = 0; i < n; ++i) all.push_back(i);
      return all;
    }
    all = {0, n - 1};
    while (int64_t(all.size()) < count) all.push_back(under(n));
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
  }

 private:
  uint64_t seed_, used_ = 0;
};

/// How far results are from a reference: all of them together, and the worst one. One wrong element among a million
/// does not show in the first.
struct Distance {
  double error = 0;  // ||got - want|| / ||want||
  double worst = 0;  // the largest |got - want| as a multiple of what one element may be off
};

/// Collects a Distance; NaN makes it NaN, whatever else is added.
class Collect {
 public:
  /// What one element may be off: `relative` of its value and `absolute`.
  Collect(double relative, double absolute) : relative_(relative), absolute_(absolute) {}
  void add(double got, double want, double scale = 1.0) {
    const double d = std::abs(got - want), units = d / (relative_ * std::abs(want) + absolute_ * scale);
    difference_ += d * d;
    size_ += want * want;
    if (units > worst_ || units != units) worst_ = worst_ == worst_ ? units : worst_;
  }
  void add(const Collect& other) {
    const std::lock_guard lock(mutex_);
    difference_ += other.difference_;
    size_ += other.size_;
    if (other.worst_ > worst_ || other.worst_ != other.worst_) worst_ = worst_ == worst_ ? other.worst_ : worst_;
  }
  Collect again() const { return {relative_, absolute_}; }
  Collect(const Collect& other)
      : relative_(other.relative_),
        absolute_(other.absolute_),
        difference_(other.difference_),
        size_(other.size_),
        worst_(other.worst_) {}
  Distance distance() const { return {size_ > 0 ? std::sqrt(difference_ / size_) : std::sqrt(difference_), worst_}; }

 private:
  double relative_, absolute_;
  double difference_ = 0, size_ = 0, worst_ = 0;
  std::mutex mutex_;
};

/// What rounding once to bf16 may cost: half a unit of the last of 8 bits, and the rounding of the float32 before it.
inline constexpr double kHalfUnitBf16 = 1.001 / 256;

}  // namespace device_check
