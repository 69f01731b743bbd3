#include "realtime.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "wamcore/error.h"

namespace wam {
namespace {

int fifo(int priority) {
  sched_param param{};
  param.sched_priority = priority;
  return pthread_setschedparam(pthread_self(), SCHED_FIFO, &param);
}

int bind(int cpu) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (cpu < CPU_SETSIZE) CPU_SET(static_cast<size_t>(cpu), &cores);
  return pthread_setaffinity_np(pthread_self(), sizeof cores, &cores);
}

int lock_memory() { return mlockall(MCL_CURRENT | MCL_FUTURE) == 0 ? 0 : errno; }

}  // namespace

const RealtimeCalls& system_realtime_calls() noexcept {
  static constexpr RealtimeCalls kCalls{fifo, bind, lock_memory};
  return kCalls;
}

std::string enter_realtime(Realtime wish, int priority, int cpu, const RealtimeCalls& calls) {
  if (wish == Realtime::ignore) return "not asked for";
  std::string granted, refused;
  const auto ask = [&](const std::string& what, int error) {
    std::string& list = error == 0 ? granted : refused;
    list += (list.empty() ? "" : ", ") + what + (error == 0 ? "" : std::string(" refused: ") + std::strerror(error));
  };
  ask("SCHED_FIFO " + std::to_string(priority), calls.fifo(priority));
  if (cpu >= 0) ask("core " + std::to_string(cpu), calls.bind(cpu));
  ask("locked memory", calls.lock_memory());

  if (refused.empty()) return granted;
  if (wish == Realtime::enforce) throw RobotError("Runner.start: no real-time thread: " + refused);
  return (granted.empty() ? "NOT REAL-TIME: " : granted + ", but NOT ALL: ") + refused;
}

}  // namespace wam
