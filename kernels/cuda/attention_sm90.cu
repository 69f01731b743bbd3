#include "attention_sm90.cuh"
#include "launch.cuh"

namespace wam::kernels::cuda {

PlanResult plan_attention_sm90(AttentionParamsSm90* plan, const AttentionParams& p, int multiprocessors) {
  return make_attention_plan_sm90(plan, p, multiprocessors);
}

LaunchResult attention_sm90(const AttentionParamsSm90& plan, Stream stream) {
  return launch_on(stream, plan, [](const auto& params, auto launch) { return launch_attention_sm90(params, launch); });
}

}  // namespace wam::kernels::cuda
