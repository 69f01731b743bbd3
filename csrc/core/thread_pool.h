#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "wamcore/kernels/team.h"

namespace wam {

/// Barrier of one team. Waiters spin briefly, then yield, then sleep. A rank that throws, or that leaves while others
/// wait, releases everyone: the others see TeamStopped instead of hanging.
class TeamBarrier {
 public:
  void begin(int size, bool may_spin) noexcept;
  void wait();           // throws TeamStopped or std::logic_error
  void leave();          // a rank returned; throws std::logic_error if others wait for it
  void stop() noexcept;  // a rank threw
  struct TeamStopped {};

 private:
  std::atomic<int> arrived_{0}, left_{0};
  std::atomic<uint32_t> generation_{0};
  std::atomic<bool> stopped_{false};
  int size_ = 1;
  bool may_spin_ = true;
};

/// A fixed set of threads that run one function together, the caller among them as rank 0. Sessions may share a pool:
/// their calls take turns in the order they came. run() allocates nothing.
class ThreadPool {
 public:
  /// `threads` counts the caller; 0 means one per CPU this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  /// Calls body(const kernels::Team&) on every thread and returns when all have. Rethrows the first exception of any.
  /// Throws std::logic_error when called from inside a team, and when the process was forked since the pool was made.
  template <class F>
  void run(F&& body) {
    using Body = std::remove_reference_t<F>;
    run_erased([](void* f, const kernels::Team& team) { (*static_cast<Body*>(f))(team); },
               const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

 private:
  using Call = void (*)(void*, const kernels::Team&);
  void run_erased(Call call, void* body);
  void work(int rank) noexcept;
  void take_part(int rank) noexcept;
  void fail() noexcept;

  const int size_;
  const bool may_spin_;  // false when there are more threads than CPUs: spinning would only steal time
  const long process_;   // threads do not survive fork()
  TeamBarrier barrier_;
  // the job, written before `job_` changes and read after
  Call call_ = nullptr;
  void* body_ = nullptr;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> quit_{false};
  alignas(64) std::atomic<uint32_t> job_{0};  // number of the current job
  alignas(64) std::atomic<int> busy_{0};      // workers that have not finished it
  alignas(64) std::atomic<uint32_t> next_ticket_{0};
  std::atomic<uint32_t> now_serving_{0};
  std::vector<std::thread> workers_;
};

/// CPUs that this process may use: its affinity mask and, in a container, its quota; at least 1.
int available_cpus();

}  // namespace wam
