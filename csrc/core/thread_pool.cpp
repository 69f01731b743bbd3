#include "core/thread_pool.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "wamcore/error.h"

namespace wam {
namespace {

using Clock = std::chrono::steady_clock;
// A kernel's work is tens of microseconds: spinning that long catches the next one without a system call. Yielding
// longer than a scheduler tick would burn a loaded machine for nothing.
constexpr auto kSpin = std::chrono::microseconds(30);
constexpr auto kYield = std::chrono::microseconds(200);

// The number of a job and its next share in one word: no pool has 2^16 threads, no process 2^48 jobs.
constexpr int kRankBits = 16;
constexpr uint64_t kRankMask = (uint64_t{1} << kRankBits) - 1;

thread_local bool inside_team = false;

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins, then yields; true as soon as done() is.
template <class Done>
bool wait_awake(bool may_spin, Done&& done) {
  if (may_spin) {
    for (const auto end = Clock::now() + kSpin; Clock::now() < end;)
      for (int i = 0; i < 16; ++i, cpu_pause())
        if (done()) return true;
  }
  for (const auto end = Clock::now() + kYield; Clock::now() < end; std::this_thread::yield())
    if (done()) return true;
  return done();
}

int checked_size(int threads) {
  if (threads < 1 || threads > kMostThreads)
    throw ConfigError("ThreadPool: wanted 1 to " + std::to_string(kMostThreads) + " threads, got " +
                      std::to_string(threads));
  return threads;
}

std::string list_of(const cpu_set_t& set) {
  std::string out;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) out += (out.empty() ? "" : ", ") + std::to_string(core);
  return out;
}

cpu_set_t only(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return set;
}

std::vector<int> checked_cores(std::vector<int> cores, int threads) {
  if (cores.empty()) return cores;
  if (static_cast<int>(cores.size()) != threads)
    throw ConfigError("ThreadPool: wanted a core for each of " + std::to_string(threads) + " threads, got " +
                      std::to_string(cores.size()));
  cpu_set_t mine, seen;
  CPU_ZERO(&seen);
  if (sched_getaffinity(0, sizeof mine, &mine) != 0)
    throw DeviceError(std::string("ThreadPool: cannot ask for this process's cores: ") + std::strerror(errno));
  for (const int core : cores) {
    if (core < 0 || core >= CPU_SETSIZE || !CPU_ISSET(core, &mine))
      throw ConfigError("ThreadPool: wanted cores among " + list_of(mine) + ", got " + std::to_string(core));
    if (CPU_ISSET(core, &seen)) throw ConfigError("ThreadPool: core " + std::to_string(core) + " is given twice");
    CPU_SET(core, &seen);
  }
  return cores;
}

}  // namespace

OnCore::OnCore(int core) {
  if (core < 0) return;
  const cpu_set_t there = only(core);
  if (sched_getaffinity(0, sizeof before_, &before_) != 0 || sched_setaffinity(0, sizeof there, &there) != 0)
    throw DeviceError("OnCore: cannot go to core " + std::to_string(core) + ": " + std::strerror(errno));
  moved_ = true;
}
OnCore::~OnCore() {
  if (moved_) sched_setaffinity(0, sizeof before_, &before_);
}

int available_cpus() {
  cpu_set_t set;
  int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : int(std::thread::hardware_concurrency());
  // cgroup v2: "<quota> <period>" in us, or "max <period>"
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  long quota = 0, period = 0;
  if (file >> quota >> period && quota > 0 && period > 0) cpus = std::min<long>(cpus, (quota + period - 1) / period);
  return std::clamp(cpus, 1, kMostThreads);
}

ThreadPool::ThreadPool(int threads, std::vector<int> cores)
    : size_(checked_size(threads)),
      cores_(checked_cores(std::move(cores), size_)),
      may_spin_(size_ <= available_cpus()),
      process_(getpid()),
      next_(size_) {
  workers_.reserve(size_ - 1);
  try {
    for (int i = 1; i < size_; ++i) {
      workers_.emplace_back([this] { work(); });
      if (cores_.empty()) continue;
      const cpu_set_t there = only(cores_[static_cast<size_t>(i)]);
      if (const int error = pthread_setaffinity_np(workers_.back().native_handle(), sizeof there, &there))
        throw std::system_error(error, std::generic_category());
    }
  } catch (const std::system_error& e) {
    quit_ = true;
    wake_.fetch_add(1);
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    throw DeviceError(std::string("ThreadPool: cannot start ") + std::to_string(size_) + " threads: " + e.what());
  }
}

ThreadPool::~ThreadPool() {
  const bool forked = process_ != getpid();
  quit_ = true;
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& worker : workers_) forked ? worker.detach() : worker.join();
}

bool ThreadPool::take_share() noexcept {
  uint64_t at = next_.load(std::memory_order_acquire);
  do {
    if (static_cast<int>(at & kRankMask) >= size_) return false;
    // The number of the job is part of what is compared: a thread that slept here cannot take a share of another job.
  } while (!next_.compare_exchange_weak(at, at + 1, std::memory_order_acq_rel, std::memory_order_acquire));
  const int rank = static_cast<int>(at & kRankMask);
  inside_team = true;
  try {
    if (!failed_.load(std::memory_order_relaxed)) call_(body_, kernels::Team{rank, size_});
  } catch (...) {
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
  inside_team = false;
  if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_one();
  return true;
}

void ThreadPool::work() noexcept {
  for (;;) {
    const uint32_t seen = wake_.load(std::memory_order_acquire);
    if (quit_) return;
    while (take_share()) {
    }
    if (wait_awake(may_spin_, [&] { return wake_.load(std::memory_order_acquire) != seen; })) continue;
    wake_.wait(seen, std::memory_order_acquire);
  }
}

void ThreadPool::run_erased(Call call, void* body) {
  if (inside_team) throw std::logic_error("ThreadPool::run: called from inside a team");
  if (size_ > 1 && process_ != getpid())
    throw std::logic_error("ThreadPool::run: the process was forked after the pool was made; make a new one");
  const uint32_t ticket = next_ticket_.fetch_add(1);
  for (uint32_t now; (now = now_serving_.load(std::memory_order_acquire)) != ticket;)
    if (!wait_awake(false, [&] { return now_serving_.load(std::memory_order_acquire) != now; }))
      now_serving_.wait(now, std::memory_order_acquire);

  call_ = call;
  body_ = body;
  failed_ = false;
  left_.store(size_, std::memory_order_relaxed);
  const uint64_t job = (next_.load(std::memory_order_relaxed) >> kRankBits) + 1;
  next_.store(job << kRankBits, std::memory_order_release);
  if (size_ > 1) {
    wake_.fetch_add(1, std::memory_order_release);
    wake_.notify_all();
  }
  while (take_share()) {
  }
  const auto done = [&] { return left_.load(std::memory_order_acquire) == 0; };
  if (!wait_awake(may_spin_, done))
    for (int left; (left = left_.load(std::memory_order_acquire)) != 0;) left_.wait(left, std::memory_order_acquire);

  const std::exception_ptr error = std::exchange(error_, nullptr);
  now_serving_.fetch_add(1, std::memory_order_release);
  now_serving_.notify_all();
  if (error) std::rethrow_exception(error);
}

}  // namespace wam
