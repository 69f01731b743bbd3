#include "wamcore/clock.h"

#include <cerrno>
#include <chrono>
#include <ctime>

namespace wam {

Clock::~Clock() = default;

uint64_t SystemClock::now_ns() const noexcept {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

void SystemClock::sleep_until(uint64_t deadline_ns) noexcept {
  timespec t{};
  t.tv_sec = static_cast<time_t>(deadline_ns / 1'000'000'000u);
  t.tv_nsec = static_cast<long>(deadline_ns % 1'000'000'000u);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) == EINTR) {
  }
}

ManualClock::ManualClock(uint64_t start_ns) : now_(start_ns) { deadlines_.reserve(64); }

uint64_t ManualClock::now_ns() const noexcept {
  const std::scoped_lock lock(mutex_);
  return now_;
}

void ManualClock::sleep_until(uint64_t deadline_ns) noexcept {
  std::unique_lock lock(mutex_);
  if (now_ >= deadline_ns) return;
  if (!free_) {
    deadlines_.push_back(deadline_ns);
    asleep_.notify_all();
    // advance() takes the due deadlines off the list, so that wait_for_sleepers never counts a thread that is waking.
    moved_.wait(lock, [&] { return now_ >= deadline_ns || free_; });
  }
  if (now_ < deadline_ns) {
    now_ = deadline_ns;
    std::erase_if(deadlines_, [this](uint64_t d) { return d <= now_; });
    moved_.notify_all();
  }
}

void ManualClock::run_free() noexcept {
  const std::scoped_lock lock(mutex_);
  free_ = true;
  deadlines_.clear();
  moved_.notify_all();
}

void ManualClock::advance(uint64_t ns) {
  const std::scoped_lock lock(mutex_);
  now_ += ns;
  std::erase_if(deadlines_, [this](uint64_t d) { return d <= now_; });
  moved_.notify_all();
}

bool ManualClock::wait_for_sleepers(int count, double patience) {
  std::unique_lock lock(mutex_);
  return asleep_.wait_for(lock, std::chrono::duration<double>(patience),
                          [&] { return static_cast<int>(deadlines_.size()) >= count; });
}

}  // namespace wam
