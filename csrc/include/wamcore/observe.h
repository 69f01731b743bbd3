#pragma once

#include "wamcore/hal.h"
#include "wamcore/observation.h"

namespace wam {

/// One look at the robot, outside a run: the newest frame of each camera and the measured joints, as tick `tick`.
/// Configures the driver if it is not. A Runner collects its own observations. Throws RobotError.
WAMCORE_API Observation observe(Hal& hal, int64_t tick = 0);

}  // namespace wam
