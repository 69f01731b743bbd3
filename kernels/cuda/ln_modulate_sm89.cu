// With e4m3 results: the conversion is an instruction of 8.9 and later, which the files for compute_80 cannot name.
#include "launch.cuh"
#include "ln_modulate.cuh"

namespace wam::kernels::cuda {

LaunchResult ln_modulate_e4m3(const LnModulateParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_ln_modulate_e4m3(params, launch); });
}

}  // namespace wam::kernels::cuda
