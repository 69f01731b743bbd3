#pragma once

#include <string>

#include "wamcore/runner.h"

namespace wam {

/// What a real-time thread asks of the operating system, for itself and its process; each returns 0 or an errno.
struct RealtimeCalls {
  int (*fifo)(int priority);
  int (*bind)(int cpu);
  int (*lock_memory)();
};
/// The operating system's own.
const RealtimeCalls& system_realtime_calls() noexcept;

/// Tries to make the calling thread a real-time thread, bound to core `cpu` unless that is -1, and to lock the
/// process's memory. Returns in words what was granted. Throws RobotError if `wish` is enforce and something was
/// refused. calls: tests put others in place.
std::string enter_realtime(Realtime wish, int priority, int cpu = -1,
                           const RealtimeCalls& calls = system_realtime_calls());

}  // namespace wam
