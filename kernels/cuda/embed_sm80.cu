#include "embed.cuh"
#include "launch.cuh"

namespace wam::kernels::cuda {

LaunchResult patchify(const PatchifyParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_patchify(params, launch); });
}
LaunchResult unpatchify(const UnpatchifyParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_unpatchify(params, launch); });
}
LaunchResult sinusoid(const SinusoidParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_sinusoid(params, launch); });
}
LaunchResult activation(const ActivationParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_activation(params, launch); });
}
LaunchResult add(const AddParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_add(params, launch); });
}

}  // namespace wam::kernels::cuda
