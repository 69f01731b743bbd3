#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "wamcore/kernels/team.h"

namespace wam {

inline constexpr int kMostThreads = 1024;

/// Threads that run the shares of one piece of work after another, the caller among them. A thread takes the next share
/// when it is free, so that one which the system has put aside holds nobody up: the caller does its part. Sessions may
/// use a pool together: their calls take turns in the order they came. run() allocates nothing.
class ThreadPool {
 public:
  /// `threads`, 1 to kMostThreads, counts the caller. With `cores`, one a thread, thread i stays on core i of them; the
  /// first is for the caller, who goes there with OnCore. Throws ConfigError for cores that are not this process's.
  explicit ThreadPool(int threads, std::vector<int> cores = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }
  int caller_core() const { return cores_.empty() ? -1 : cores_.front(); }  // -1: any

  /// Calls body(const kernels::Team&) once for each rank 0 .. size() - 1 and returns when all have ended. Ranks may run
  /// on any thread, one after the other or together: they must not wait for each other. Rethrows the first exception of
  /// any; ranks that had not begun by then are left out. Throws std::logic_error when called from inside a team, and
  /// when the process was forked since the pool was made.
  template <class F>
  void run(F&& body) {
    using Body = std::remove_reference_t<F>;
    run_erased([](void* f, const kernels::Team& team) { (*static_cast<Body*>(f))(team); },
               const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

 private:
  using Call = void (*)(void*, const kernels::Team&);
  void run_erased(Call call, void* body);
  void work() noexcept;
  bool take_share() noexcept;  // false when none is left

  const int size_;
  const std::vector<int> cores_;  // [size] or none
  const bool may_spin_;           // false when there are more threads than CPUs: spinning would only steal time
  const long process_;            // threads do not survive fork()
  // The work in hand: written before `next_` names it, read only by threads that hold a share of it.
  Call call_ = nullptr;
  void* body_ = nullptr;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> quit_{false};
  alignas(64) std::atomic<uint64_t> next_;     // number of the job, and its next share
  alignas(64) std::atomic<int> left_{0};       // shares that have not ended
  alignas(64) std::atomic<uint32_t> wake_{0};  // changes with every job; what idle threads sleep on
  alignas(64) std::atomic<uint32_t> next_ticket_{0};
  std::atomic<uint32_t> now_serving_{0};
  std::vector<std::thread> workers_;
};

/// Keeps the calling thread on one core for as long as this lives, and lets it go where it could before then.
class OnCore {
 public:
  /// -1: changes nothing. Throws DeviceError when the thread may not run there any more.
  explicit OnCore(int core);
  ~OnCore();
  OnCore(const OnCore&) = delete;
  OnCore& operator=(const OnCore&) = delete;

 private:
  bool moved_ = false;
  cpu_set_t before_;
};

/// CPUs that this process may use: its affinity mask and, in a container, its quota; 1 to kMostThreads.
int available_cpus();

}  // namespace wam
