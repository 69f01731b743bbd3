#pragma once

#include <pybind11/pybind11.h>

#include <functional>

#include "wamcore/runner.h"

// What bind_safety.cpp and bind_runner.cpp share.
namespace wam::bindings {

/// SafetyOptions from keyword arguments. Throws ConfigError for unknown names.
SafetyOptions safety_options(const pybind11::dict& given);

/// {reason: count} of all reasons but none.
pybind11::dict reason_counts(const std::function<uint64_t(Reason)>& count);

}  // namespace wam::bindings
