#include "launch.cuh"
#include "ln_modulate.cuh"

namespace wam::kernels::cuda {

LaunchResult ln_modulate(const LnModulateParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_ln_modulate(params, launch); });
}

}  // namespace wam::kernels::cuda
