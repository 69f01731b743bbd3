#include "gemm_sm90.cuh"
#include "launch.cuh"

namespace wam::kernels::cuda {

LaunchResult gemm_fp8_sm90(const GemmParamsSm90& plan, Stream stream) {
  return launch_on(stream, plan, [](const auto& params, auto launch) { return launch_gemm_fp8_sm90(params, launch); });
}

}  // namespace wam::kernels::cuda
