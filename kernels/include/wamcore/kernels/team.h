#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace wam::kernels {

/// One of the equal shares that a kernel's work is cut into. Kernels know nothing of the threads that run the shares,
/// and no share waits for another.
struct Team {
  int rank = 0;  // of this share
  int size = 1;  // all shares

  /// This share's part of [0, n), in multiples of `grain`.
  std::pair<int64_t, int64_t> share(int64_t n, int64_t grain = 1) const {
    const int64_t units = (n + grain - 1) / grain, each = units / size, extra = units % size;
    const int64_t begin = rank * each + std::min<int64_t>(rank, extra);
    const int64_t end = begin + each + (rank < extra ? 1 : 0);
    return {std::min(begin * grain, n), std::min(end * grain, n)};
  }
};

}  // namespace wam::kernels
