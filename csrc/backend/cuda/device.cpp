#include "backend/cuda/device.h"

namespace wam::cuda {

std::string mib(size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

std::string_view kernel_name(const Call& call) {
  struct Name {
    std::string_view operator()(const kc::LnModulateParams&) const { return "ln_modulate"; }
    std::string_view operator()(const kc::QkNormRopeCacheWriteParams&) const { return "qk_norm_rope_cachewrite"; }
    std::string_view operator()(const kc::GemmParams&) const { return "gemm"; }
    std::string_view operator()(const kc::GemmPlainParams&) const { return "gemm_plain"; }
    std::string_view operator()(const kc::AttentionParams&) const { return "attention"; }
    std::string_view operator()(const kc::SinusoidParams&) const { return "sinusoid"; }
    std::string_view operator()(const kc::ActivationParams&) const { return "activation"; }
    std::string_view operator()(const kc::PatchifyParams&) const { return "patchify"; }
    std::string_view operator()(const kc::UnpatchifyParams&) const { return "unpatchify"; }
    std::string_view operator()(const kc::QuantizeRowsParams&) const { return "quantize_rows"; }
    std::string_view operator()(const kc::Fp8Product&) const { return "gemm_fp8"; }
    std::string_view operator()(const kc::SamplerStepParams&) const { return "sampler_step"; }
  };
  return std::visit(Name{}, call);
}

}  // namespace wam::cuda
