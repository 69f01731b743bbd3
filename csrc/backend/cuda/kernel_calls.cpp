// Single kernels on the caller's memory and stream: what wamcore.kernels reaches on a GPU.
#include "backend/cuda/kernel_calls.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "backend/cuda/refusal.h"

namespace wam::cuda {
namespace {

namespace kc = kernels::cuda;

/// A GPU as the choice of a kernel needs to know it.
struct Gpu {
  int error = cudaSuccess;
  int multiprocessors = 0;
  bool sm90 = false;
  bool fp8 = false;  // has instructions for e4m3
};

Gpu ask(int ordinal) {
  Gpu gpu;
  int major = 0, minor = 0;
  const auto attribute = [&](int* to, cudaDeviceAttr what) {
    if (gpu.error == cudaSuccess) gpu.error = cudaDeviceGetAttribute(to, what, ordinal);
  };
  attribute(&gpu.multiprocessors, cudaDevAttrMultiProcessorCount);
  attribute(&major, cudaDevAttrComputeCapabilityMajor);
  attribute(&minor, cudaDevAttrComputeCapabilityMinor);
  gpu.fp8 = 10 * major + minor >= 89;
  const char* wanted = std::getenv("WAMCORE_CUDA_KERNELS");  // as for programs, see cuda_device.cpp
  gpu.sm90 = major == 9 && minor == 0 && !(wanted && std::string(wanted) == "sm80");
  return gpu;
}

const Gpu& gpu_of(int ordinal) {
  static std::mutex mutex;
  static std::map<int, Gpu> known;
  const std::lock_guard lock(mutex);
  const auto it = known.find(ordinal);
  return it != known.end() ? it->second : known.emplace(ordinal, ask(ordinal)).first->second;
}

/// Scratch memory of one GPU and stream, at least `floats` of it, and zeroed counters of split products.
struct Scratch {
  float* at = nullptr;
  size_t floats = 0;
  int32_t* arrived = nullptr;
};
constexpr int64_t kCounters = 4096;

int scratch_for(const CudaPlace& place, size_t floats, Scratch* out) {
  static std::mutex mutex;
  static std::map<std::pair<int, kc::Stream>, Scratch> blocks;
  const std::lock_guard lock(mutex);
  Scratch& block = blocks[{place.gpu, place.stream}];
  int error = cudaSuccess;
  if (!block.arrived) {
    error = cudaMalloc(reinterpret_cast<void**>(&block.arrived), kCounters * sizeof(int32_t));
    if (error == cudaSuccess)
      error = cudaMemsetAsync(block.arrived, 0, kCounters * sizeof(int32_t), static_cast<cudaStream_t>(place.stream));
  }
  if (error == cudaSuccess && block.floats < floats) {  // what was there stays: a captured graph may use it
    error = cudaMalloc(reinterpret_cast<void**>(&block.at), floats * sizeof(float));
    block.floats = error == cudaSuccess ? floats : 0;
  }
  *out = block;
  return error;
}

/// Makes the GPU current for one call, and gives the thread its own back.
class Current {
 public:
  explicit Current(int gpu) {
    error = cudaGetDevice(&before_);
    if (error == cudaSuccess && before_ != gpu) error = cudaSetDevice(gpu);
  }
  ~Current() { cudaSetDevice(before_); }
  int error;

 private:
  int before_ = 0;
};

int multiprocessors(int ordinal) {
  const Gpu& gpu = gpu_of(ordinal);
  return gpu.error == cudaSuccess ? gpu.multiprocessors : -gpu.error;
}

/// `start(gpu)` with the caller's GPU current.
template <typename Start>
int on(const CudaPlace& place, Start start) {
  const Gpu& gpu = gpu_of(place.gpu);
  if (gpu.error != cudaSuccess) return gpu.error;
  const Current current(place.gpu);
  return current.error == cudaSuccess ? start(gpu) : current.error;
}

int attention(const CudaPlace& place, const kc::AttentionParams& given) {
  return on(place, [&]([[maybe_unused]] const Gpu& gpu) -> int {
    kc::AttentionParams p = given;
    if (p.splits > 1) {
      const size_t rows = size_t(p.splits) * size_t(p.batch) * size_t(p.rows) * size_t(p.heads);
      Scratch scratch;
      if (const int error = scratch_for(place, rows * size_t(p.head_dim + 1), &scratch)) return error;
      p.split_out = scratch.at;
      p.split_lse = scratch.at + rows * size_t(p.head_dim);
    }
#ifdef WAMCORE_WITH_SM90A
    if (gpu.sm90) {
      kc::AttentionParamsSm90 plan;
      if (const kc::PlanResult result = kc::plan_attention_sm90(&plan, p, gpu.multiprocessors))
        return refuse("attention_sm90", p, result);
      return kc::attention_sm90(plan, place.stream);
    }
#endif
    return kc::attention_sm80(p, place.stream);
  });
}

#ifdef WAMCORE_WITH_SM90A
/// A choice and the scratch memory that it needs; without splits where the counters do not suffice.
int scratch_of(const CudaPlace& place, int m, int n, kc::GemmChoiceSm90* choice, kc::GemmScratch* out) {
  if (kc::gemm_tiles_sm90(m, n, kc::kGemmColsSm90[choice->tile]) > kCounters) choice->splits = 1;
  if (choice->splits == 1) return cudaSuccess;
  Scratch scratch;
  const int error = scratch_for(place, size_t(kc::gemm_split_floats(m, n, *choice)), &scratch);
  *out = {scratch.at, scratch.arrived};
  return error;
}
#endif

int gemm(const CudaPlace& place, const kc::GemmParams& p) {
  return on(place, [&]([[maybe_unused]] const Gpu& gpu) -> int {
#ifdef WAMCORE_WITH_SM90A
    if (gpu.sm90) {
      kc::GemmParamsSm90 plan;
      kc::GemmScratch scratch;
      kc::GemmChoiceSm90 choice = kc::gemm_choice_bf16_sm90(p.m, p.n, p.k, gpu.multiprocessors);
      if (const int error = scratch_of(place, p.m, p.n, &choice, &scratch)) return error;
      if (const kc::PlanResult result = kc::plan_gemm_sm90(&plan, p, choice, scratch, gpu.multiprocessors))
        return refuse("gemm_sm90", p, result);
      return kc::gemm_sm90(plan, place.stream);
    }
#endif
    return kc::gemm_sm80(p, gpu.multiprocessors, place.stream);
  });
}

int gemm_fp8(const CudaPlace& place, const kc::GemmParams& p, const kc::Fp8Operands& operands) {
  return on(place, [&](const Gpu& gpu) -> int {
    if (!gpu.fp8) return cudaErrorNoKernelImageForDevice;
#ifdef WAMCORE_WITH_SM90A
    if (gpu.sm90) {
      kc::GemmParamsSm90 plan;
      kc::GemmScratch scratch;
      kc::GemmChoiceSm90 choice = kc::gemm_choice_fp8_sm90(p.m, p.n, p.k, gpu.multiprocessors);
      if (const int error = scratch_of(place, p.m, p.n, &choice, &scratch)) return error;
      if (const kc::PlanResult result =
              kc::plan_gemm_fp8_sm90(&plan, p, operands, choice, scratch, gpu.multiprocessors))
        return refuse("gemm_fp8_sm90", p, result);
      return kc::gemm_fp8_sm90(plan, place.stream);
    }
#endif
    return kc::gemm_fp8_sm89({p, operands}, gpu.multiprocessors, place.stream);
  });
}

int ln_modulate(const CudaPlace& place, const kc::LnModulateParams& p) {
  return on(place, [&](const Gpu& gpu) -> int {
    if (!p.y_e4m3) return kc::ln_modulate(p, place.stream);
    return gpu.fp8 ? kc::ln_modulate_e4m3(p, place.stream) : int(cudaErrorNoKernelImageForDevice);
  });
}

int quantize_rows(const CudaPlace& place, const kc::QuantizeRowsParams& p) {
  return on(place, [&](const Gpu& gpu) {
    return gpu.fp8 ? kc::quantize_rows_sm89(p, place.stream) : kc::quantize_rows(p, place.stream);
  });
}

/// A kernel that is the same on every GPU.
template <auto kKernel, typename Params>
int plain(const CudaPlace& place, const Params& p) {
  return on(place, [&](const Gpu&) { return kKernel(p, place.stream); });
}

const char* explain(int error) {
  return error == kRefusedPlan ? last_refusal().c_str() : cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace

constexpr CudaKernels kKernelCalls{
    .multiprocessors = multiprocessors,
    .attention = attention,
    .gemm = gemm,
    .gemm_fp8 = gemm_fp8,
    .ln_modulate = ln_modulate,
    .qk_norm_rope_cachewrite = plain<kc::qk_norm_rope_cachewrite, kc::QkNormRopeCacheWriteParams>,
    .add = plain<kc::add, kc::AddParams>,
    .quantize_rows = quantize_rows,
    .sampler_step = plain<kc::sampler_step, kc::SamplerStepParams>,
    .explain = explain,
};

}  // namespace wam::cuda
