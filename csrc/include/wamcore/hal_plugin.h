#pragma once

#include <memory>
#include <string>

#include "wamcore/export.h"
#include "wamcore/hal.h"

namespace wam {

/// Loads a driver from a shared library that speaks wamcore/hal_abi.h. `library` is a path, or a name that the system's
/// loader finds; `name` chooses among the library's drivers. Throws RobotError: no such library or driver, another ABI,
/// or a function is missing.
WAMCORE_API std::shared_ptr<Hal> load_hal(const std::string& library, const std::string& name = {});

}  // namespace wam
