#pragma once

#include <string>
#include <string_view>

#include "wamcore/kernels/cuda/attention.h"
#include "wamcore/kernels/cuda/gemm.h"
#include "wamcore/kernels/cuda/tensor_map.h"

namespace wam::cuda {

/// Sizes of a call as messages name them.
inline std::string sizes_of(const kernels::cuda::GemmParams& p) {
  return std::to_string(p.m) + " x " + std::to_string(p.n) + " x " + std::to_string(p.k);
}
inline std::string sizes_of(const kernels::cuda::AttentionParams& p) {
  return std::to_string(p.rows) + " queries, " + std::to_string(p.heads) + " heads of " + std::to_string(p.head_dim);
}

/// Why there is no plan of an sm_90a kernel for a call; `result` is not 0.
template <typename Params>
std::string refusal(const Params& p, kernels::cuda::PlanResult result) {
  if (result == kernels::cuda::kImpossiblePlan) return "sizes or strides that sm_90a does not have: " + sizes_of(p);
  return "no tensor map for " + sizes_of(p) + ": the driver's error " + std::to_string(result);
}

/// Returned by a single call that was refused; what was refused is kept for the thread, to be explained.
inline constexpr int kRefusedPlan = -1;
inline std::string& last_refusal() {
  thread_local std::string text;
  return text;
}
template <typename Params>
int refuse(std::string_view kernel, const Params& p, kernels::cuda::PlanResult result) {
  last_refusal() = std::string(kernel) + ": " + refusal(p, result);
  return kRefusedPlan;
}

}  // namespace wam::cuda
