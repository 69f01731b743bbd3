#pragma once

#include <string>

#include "wamcore/runner.h"

namespace wam {

/// Tries to make the calling thread a real-time thread, bound to core `cpu` unless that is -1, and to lock the
/// process's memory. Returns in words what was granted. Throws RobotError if `wish` is enforce and something was
/// refused.
std::string enter_realtime(Realtime wish, int priority, int cpu = -1);

}  // namespace wam
