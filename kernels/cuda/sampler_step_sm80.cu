#include "launch.cuh"
#include "sampler_step.cuh"

namespace wam::kernels::cuda {

LaunchResult sampler_step(const SamplerStepParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_sampler_step(params, launch); });
}

}  // namespace wam::kernels::cuda
