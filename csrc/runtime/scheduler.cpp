#include "scheduler.h"

#include <algorithm>

namespace wam {

int ChunkScheduler::delay() const noexcept {
  const size_t n = std::min(count_, kWindow);
  if (n == 0) return 1;
  std::array<int, kWindow> sorted = delays_;
  const size_t rank = (95 * n + 99) / 100 - 1;  // nearest rank
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(rank),
                   sorted.begin() + static_cast<ptrdiff_t>(n));
  return std::max(1, sorted[rank]);
}

bool ChunkScheduler::due(int64_t tick, uint64_t sample_ns, bool waiting, bool retry) const noexcept {
  if (last_tick_ == std::numeric_limits<int64_t>::min()) return true;
  if (waiting) return sample_ns > last_sample_ns_;  // from a newer look at the scene than the last time
  if (mode_ == Execution::sync) return false;
  // The rows of a chunk last until horizon - 1 ticks after its observation; one tick is kept in reserve.
  const int interval = retry ? 1 : std::clamp(horizon_ - 2 - delay(), 1, execute_horizon_);
  return tick >= last_tick_ + interval;
}

void ChunkScheduler::started(int64_t tick, uint64_t sample_ns) noexcept {
  last_tick_ = tick;
  last_sample_ns_ = sample_ns;
}

void ChunkScheduler::finished(int ticks) noexcept { delays_[count_++ % kWindow] = ticks; }

}  // namespace wam
