#pragma once

#include <memory>
#include <string>

#include "rig.h"

namespace device_check {

/// GPU 0. Throws std::runtime_error.
std::unique_ptr<Rig> open_gpu();
/// "NVIDIA H200, compute capability 9.0"
std::string describe_gpu();
/// False after an error that no later call on this GPU survives: only another process can go on.
bool gpu_is_well();

}  // namespace device_check
