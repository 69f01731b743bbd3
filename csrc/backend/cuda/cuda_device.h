#pragma once

#include <memory>

#include "backend/cuda/device.h"

namespace wam::cuda {

/// GPU `ordinal` through the CUDA runtime, one stream. Throws DeviceError.
std::shared_ptr<Device> open_device(int ordinal);

}  // namespace wam::cuda
