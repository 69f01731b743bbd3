#pragma once

#include "wamcore/hal.h"
#include "wamcore/observation.h"

namespace wam {

/// One look at the robot, outside a run: the newest frame of each camera and the measured joints, as tick `tick`.
/// Calls configure({}) for the description. A Runner collects its own observations. Throws RobotError.
WAMCORE_API Observation observe(Hal& hal, int64_t tick = 0);
/// The same of a driver that has been configured: `description` is what that gave, and it is not configured again.
WAMCORE_API Observation observe(Hal& hal, const Description& description, int64_t tick = 0);

}  // namespace wam
