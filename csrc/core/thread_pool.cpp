#include "core/thread_pool.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
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

thread_local bool inside_team = false;

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` is no longer `old`: spins, yields, sleeps.
template <class T>
void wait_while(const std::atomic<T>& value, T old, bool may_spin) {
  if (may_spin) {
    for (const auto end = Clock::now() + kSpin; Clock::now() < end;)
      for (int i = 0; i < 16; ++i, cpu_pause())
        if (value.load(std::memory_order_acquire) != old) return;
  }
  for (const auto end = Clock::now() + kYield; Clock::now() < end; std::this_thread::yield())
    if (value.load(std::memory_order_acquire) != old) return;
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

int checked_size(int threads) {
  constexpr int kMost = 1024;
  if (threads < 0 || threads > kMost)
    throw ConfigError("ThreadPool: wanted 0 to " + std::to_string(kMost) + " threads, got " + std::to_string(threads));
  return threads == 0 ? available_cpus() : threads;
}

}  // namespace

int available_cpus() {
  cpu_set_t set;
  int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : int(std::thread::hardware_concurrency());
  // cgroup v2: "<quota> <period>" in us, or "max <period>"
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  long quota = 0, period = 0;
  if (file >> quota >> period && quota > 0 && period > 0) cpus = std::min<long>(cpus, (quota + period - 1) / period);
  return std::max(cpus, 1);
}

void TeamBarrier::begin(int size, bool may_spin) noexcept {
  size_ = size;
  may_spin_ = may_spin;
  arrived_ = 0;
  left_ = 0;
  stopped_ = false;
}

void TeamBarrier::stop() noexcept {
  stopped_ = true;
  generation_.fetch_add(1);
  generation_.notify_all();
}

void TeamBarrier::wait() {
  const uint32_t generation = generation_.load(std::memory_order_acquire);
  if (stopped_) throw TeamStopped{};
  if (arrived_.fetch_add(1) + 1 == size_) {
    arrived_ = 0;
    generation_.fetch_add(1, std::memory_order_acq_rel);
    generation_.notify_all();
    return;
  }
  // sequentially consistent with leave(): at least one of the two sees the other
  if (left_.load() > 0 && generation_.load() == generation)
    throw std::logic_error("ThreadPool: a rank waits at a barrier that another rank has left behind");
  wait_while(generation_, generation, may_spin_);
  if (stopped_) throw TeamStopped{};
}

void TeamBarrier::leave() {
  left_.fetch_add(1);
  if (arrived_.load() > 0 && !stopped_)
    throw std::logic_error("ThreadPool: a rank returned while others wait for it at a barrier");
}

ThreadPool::ThreadPool(int threads)
    : size_(checked_size(threads)), may_spin_(size_ <= available_cpus()), process_(getpid()) {
  workers_.reserve(size_ - 1);
  try {
    for (int rank = 1; rank < size_; ++rank) workers_.emplace_back([this, rank] { work(rank); });
  } catch (const std::system_error& e) {
    quit_ = true;
    job_.fetch_add(1);
    job_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    throw DeviceError(std::string("ThreadPool: cannot start ") + std::to_string(size_) + " threads: " + e.what());
  }
}

ThreadPool::~ThreadPool() {
  const bool forked = process_ != getpid();
  quit_ = true;
  job_.fetch_add(1);
  job_.notify_all();
  for (std::thread& worker : workers_) forked ? worker.detach() : worker.join();
}

void ThreadPool::fail() noexcept {
  if (!failed_.exchange(true)) error_ = std::current_exception();
  barrier_.stop();
}

void ThreadPool::take_part(int rank) noexcept {
  inside_team = true;
  try {
    call_(body_, kernels::Team{rank, size_, [](void* b) { static_cast<TeamBarrier*>(b)->wait(); }, &barrier_});
    barrier_.leave();
  } catch (const TeamBarrier::TeamStopped&) {
    // the rank that stopped the team has reported why
  } catch (...) {
    fail();
  }
  inside_team = false;
}

void ThreadPool::work(int rank) noexcept {
  for (uint32_t done = 0;; ++done) {
    wait_while(job_, done, may_spin_);
    if (quit_) return;
    take_part(rank);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

void ThreadPool::run_erased(Call call, void* body) {
  if (inside_team) throw std::logic_error("ThreadPool::run: called from inside a team");
  if (size_ > 1 && process_ != getpid())
    throw std::logic_error("ThreadPool::run: the process was forked after the pool was made; make a new one");
  const uint32_t ticket = next_ticket_.fetch_add(1);
  for (uint32_t now; (now = now_serving_.load(std::memory_order_acquire)) != ticket;)
    wait_while(now_serving_, now, false);

  call_ = call;
  body_ = body;
  failed_ = false;
  barrier_.begin(size_, may_spin_);
  busy_.store(size_ - 1, std::memory_order_relaxed);
  if (size_ > 1) {
    job_.fetch_add(1, std::memory_order_release);
    job_.notify_all();
  }
  take_part(0);
  for (int left; (left = busy_.load(std::memory_order_acquire)) != 0;) wait_while(busy_, left, may_spin_);

  const std::exception_ptr error = std::exchange(error_, nullptr);
  now_serving_.fetch_add(1, std::memory_order_release);
  now_serving_.notify_all();
  if (error) std::rethrow_exception(error);
}

}  // namespace wam
