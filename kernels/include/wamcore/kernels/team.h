#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace wam::kernels {

/// The threads that run one kernel together. Kernels know nothing of who made the threads.
struct Team {
  int rank = 0;                   // this thread
  int size = 1;                   // all threads
  void (*wait)(void*) = nullptr;  // barrier; may be nullptr when size is 1
  void* barrier = nullptr;

  void sync() const {
    if (size > 1) wait(barrier);
  }
  /// This thread's part of [0, n), in multiples of `grain`.
  std::pair<int64_t, int64_t> share(int64_t n, int64_t grain = 1) const {
    const int64_t units = (n + grain - 1) / grain, each = units / size, extra = units % size;
    const int64_t begin = rank * each + std::min<int64_t>(rank, extra);
    const int64_t end = begin + each + (rank < extra ? 1 : 0);
    return {std::min(begin * grain, n), std::min(end * grain, n)};
  }
};

}  // namespace wam::kernels
