#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "wamcore/kernels/attention.h"
#include "wamcore/kernels/conv.h"
#include "wamcore/kernels/feed_forward.h"
#include "wamcore/operation.h"

namespace wam {

/// Arithmetic of an operation's definition, and what it reads and writes at least.
struct Cost {
  double flop = 0, bytes = 0;
};
template <class Params>
Cost cost_of(const Params&) {
  return {};  // neither is worth a rate
}
Cost cost_of(const kernels::GemmParams& p);
Cost cost_of(const kernels::AttentionParams& p);
Cost cost_of(const kernels::ConvParams& p);
Cost cost_of(const kernels::FeedForwardParams& p);
Cost cost_of(const kernels::LayerNormParams& p);
Cost cost_of(const kernels::QkNormRopeParams& p);

/// Adds up where the time of operations goes, by the step of a program that asked for them. Only while somebody wants
/// to know: else no operation looks at a clock.
class OperationClock {
 public:
  using Time = std::chrono::steady_clock;
  static double since(Time::time_point began) {
    return std::chrono::duration<double, std::nano>(Time::now() - began).count();
  }

  bool on() const { return on_.load(std::memory_order_relaxed); }
  void start(bool on);  // from nothing
  struct Name {
    const char *step, *operation, *precision = "";
  };
  void add(const Name& name, uint64_t calls, double ns, Cost cost = {});
  std::vector<OperationTime> times() const;  // the longest first

 private:
  struct Sum {
    uint64_t calls = 0;
    double ns = 0;
    Cost cost;
  };
  std::atomic<bool> on_{false};
  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, std::string>, Sum> sums_;
};

}  // namespace wam
