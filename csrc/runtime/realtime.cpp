#include "realtime.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "wamcore/error.h"

namespace wam {

std::string enter_realtime(Realtime wish, int priority, int cpu) {
  if (wish == Realtime::ignore) return "not asked for";
  std::string granted, refused;
  const auto note = [](std::string& list, const std::string& what) { list += (list.empty() ? "" : ", ") + what; };

  sched_param param{};
  param.sched_priority = priority;
  if (const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &param); error == 0)
    note(granted, "SCHED_FIFO " + std::to_string(priority));
  else
    note(refused, "SCHED_FIFO " + std::to_string(priority) + " refused: " + std::strerror(error));
  if (cpu >= 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (cpu < CPU_SETSIZE) CPU_SET(static_cast<size_t>(cpu), &cores);
    const int error = pthread_setaffinity_np(pthread_self(), sizeof cores, &cores);
    note(error == 0 ? granted : refused,
         "core " + std::to_string(cpu) + (error == 0 ? "" : std::string(" refused: ") + std::strerror(error)));
  }
  if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
    note(granted, "memory locked");
  else
    note(refused, std::string("mlockall refused: ") + std::strerror(errno));

  if (refused.empty()) return granted;
  if (wish == Realtime::enforce) throw RobotError("Runner.start: no real-time thread: " + refused);
  return (granted.empty() ? "NOT REAL-TIME: " : granted + ", but NOT ALL: ") + refused;
}

}  // namespace wam
