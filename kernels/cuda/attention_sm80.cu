#include "attention_sm80.cuh"
#include "launch.cuh"

namespace wam::kernels::cuda {

LaunchResult attention_sm80(const AttentionParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_attention_sm80(params, launch); });
}

}  // namespace wam::kernels::cuda
