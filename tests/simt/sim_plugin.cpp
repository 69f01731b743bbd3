// A plugin whose GPU is the simulated machine and whose device memory is the host's: what wamcore.kernels hands to a
// plugin reaches the kernels' own source, through the loader and the table of the real one. WAMCORE_CUDA_PLUGIN names
// it.
#include "backend/cuda/refusal.h"
#include "backend/cuda_kernels.h"
#include "backend/plugin.h"
#include "cuda/attention_sm80.cuh"
#include "cuda/embed.cuh"
#include "cuda/gemm_sm80.cuh"
#include "cuda/gemm_sm90.cuh"
#include "cuda/ln_modulate.cuh"
#include "cuda/qk_norm_rope_cachewrite.cuh"
#include "cuda/quantize_rows.cuh"
#include "cuda/sampler_step.cuh"
#include "launcher.h"
#include "tensor_maps.h"
#include "wamcore/version.h"

namespace {

using namespace wam;
using namespace wam::kernels::cuda;

enum Outcome { kDone = 0, kRefused = 1, kNotInOrder = 2 };
constexpr int kMultiprocessors = 2;

// Every call must be on the stream that the test names, as proof that it is the caller's.
int outcome(const CudaPlace& place, bool launched) {
  if (place.gpu != 0 || place.stream != reinterpret_cast<Stream>(0x57)) return kNotInOrder;
  return launched ? kDone : kRefused;
}

int multiprocessors(int) { return kMultiprocessors; }

int attention(const CudaPlace& place, const AttentionParams& given) {
  AttentionParams p = given;
  const size_t rows = size_t(p.splits) * size_t(p.rows) * size_t(p.heads);
  std::vector<float> out(rows * size_t(p.head_dim), NAN), lse(rows, NAN);
  p.split_out = out.data(), p.split_lse = lse.data();
  return outcome(place, launch_attention_sm80(p, sim::Launcher{}));
}

int gemm(const CudaPlace& place, const GemmParams& p) {
  return outcome(place, launch_gemm_sm80(p, gemm_tile_sm80(p.m, p.n, kMultiprocessors), sim::Launcher{}));
}

int gemm_fp8(const CudaPlace& place, const GemmParams& p, const Fp8Operands& operands) {
  GemmParamsSm90 plan;
  if (const PlanResult result = plan_gemm_fp8_sm90(&plan, p, operands, GemmChoiceSm90{2, 1}, {}, kMultiprocessors))
    return cuda::refuse("gemm_fp8_sm90", p, result);
  return outcome(place, launch_gemm_fp8_sm90(plan, sim::Launcher{}));
}

int layer_norm(const CudaPlace& place, const LnModulateParams& p) {
  return outcome(place,
                 p.y_e4m3 ? launch_ln_modulate_e4m3(p, sim::Launcher{}) : launch_ln_modulate(p, sim::Launcher{}));
}

int qk_norm_rope(const CudaPlace& place, const QkNormRopeCacheWriteParams& p) {
  return outcome(place, launch_qk_norm_rope_cachewrite(p, sim::Launcher{}));
}
int add(const CudaPlace& place, const AddParams& p) { return outcome(place, launch_add(p, sim::Launcher{})); }
int quantize(const CudaPlace& place, const QuantizeRowsParams& p) {
  return outcome(place, launch_quantize_rows(p, sim::Launcher{}));
}
int sampler(const CudaPlace& place, const SamplerStepParams& p) {
  return outcome(place, launch_sampler_step(p, sim::Launcher{}));
}

const char* explain(int error) {
  if (error == cuda::kRefusedPlan) return cuda::last_refusal().c_str();
  return error == kRefused ? "refused" : "not on GPU 0 and the caller's stream";
}

constexpr CudaKernels kKernels{
    .multiprocessors = multiprocessors,
    .attention = attention,
    .gemm = gemm,
    .gemm_fp8 = gemm_fp8,
    .ln_modulate = layer_norm,
    .qk_norm_rope_cachewrite = qk_norm_rope,
    .add = add,
    .quantize_rows = quantize,
    .sampler_step = sampler,
    .explain = explain,
};
constexpr int kReal[] = {90};
constexpr BackendPlugin kPlugin{.version = WAMCORE_VERSION,
                                .toolkit = 13000,
                                .real = kReal,
                                .real_count = 1,
                                .ptx = 0,
                                .make = nullptr,
                                .kernels = &kKernels};

}  // namespace

extern "C" __attribute__((visibility("default"))) const BackendPlugin* wam_backend_v1() { return &kPlugin; }
/// From now on the driver refuses every tensor map with this error; 0: it makes them.
extern "C" __attribute__((visibility("default"))) void sim_refuse_tensor_maps(int error) { tensor_map_refusal = error; }
