#include "backend/backend.h"

#include "backend/cpu_backend.h"
#include "wamcore/error.h"

namespace wam {

std::shared_ptr<Backend> make_backend(const std::string& device, int threads) {
  if (threads < 0 || threads > 256)
    throw DeviceError("make_backend: threads must be 0 (all) to 256, got " + std::to_string(threads));
  if (device == "cpu" || device == "auto") return std::make_shared<CpuBackend>(threads, /*fused=*/true);
  if (device == "cpu-ops") return std::make_shared<CpuBackend>(threads, /*fused=*/false);
  throw DeviceError("make_backend: device must be auto, cpu or cpu-ops, got '" + device + "'");
}

}  // namespace wam
