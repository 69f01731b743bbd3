#include "gemm_plain.cuh"
#include "launch.cuh"

namespace wam::kernels::cuda {

LaunchResult gemm_plain(const GemmPlainParams& p, Stream stream) {
  return launch_on(stream, p, [](const auto& params, auto launch) { return launch_gemm_plain(params, launch); });
}

}  // namespace wam::kernels::cuda
