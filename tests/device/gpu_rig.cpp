#include "gpu_rig.h"

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace device_check {
namespace {

void check(int error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // one that can be forgotten is
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(static_cast<cudaError_t>(error)));
}

class GpuRig final : public Rig {
 public:
  GpuRig() {
    check(cudaSetDevice(0), "cudaSetDevice");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&major_, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor_, cudaDevAttrComputeCapabilityMinor, 0), "cudaDeviceGetAttribute");
  }
  ~GpuRig() override { cudaStreamDestroy(stream_); }

  std::byte* allocate(size_t bytes) override {
    void* p = nullptr;
    check(cudaMalloc(&p, bytes), "cudaMalloc");
    return static_cast<std::byte*>(p);
  }
  void release(std::byte* p) noexcept override { cudaFree(p); }
  void upload(std::byte* to, const void* from, size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "upload");
    check(cudaStreamSynchronize(stream_), "upload");
  }
  void download(void* to, const std::byte* from, size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "download");
    check(cudaStreamSynchronize(stream_), "download");
  }
  void start(const Work& work) override {
    int error = 0;
    std::visit([&](const auto& w) { error = run(w); }, work);
    check(error, "launch");
    check(cudaGetLastError(), "launch");
    check(cudaStreamSynchronize(stream_), "kernel");
  }
#ifdef WAMCORE_WITH_SM90A
  bool has_sm90() const override { return major_ == 9 && minor_ == 0; }
#else
  bool has_sm90() const override { return false; }
#endif
  bool has_fp8() const override { return 10 * major_ + minor_ >= 89; }
  int multiprocessors() const override { return multiprocessors_; }

 private:
  int run(const AttentionSm80& w) { return attention_sm80(w.p, stream_); }
  int run(const GemmSm80& w) { return gemm_sm80(w.p, w.multiprocessors, stream_); }
#ifdef WAMCORE_WITH_SM90A
  int run(const AttentionSm90& w) {
    AttentionParamsSm90 plan;
    return planned(plan_attention_sm90(&plan, w.p, multiprocessors_)) ? attention_sm90(plan, stream_) : refused();
  }
  int run(const GemmSm90& w) {
    GemmParamsSm90 plan;
    return planned(plan_gemm_sm90(&plan, w.p, w.choice, w.scratch, multiprocessors_)) ? gemm_sm90(plan, stream_)
                                                                                      : refused();
  }
  int run(const GemmFp8Sm90& w) {
    GemmParamsSm90 plan;
    return planned(plan_gemm_fp8_sm90(&plan, w.p, w.operands, w.choice, w.scratch, multiprocessors_))
               ? gemm_fp8_sm90(plan, stream_)
               : refused();
  }
#else
  int run(const AttentionSm90&) { return refused(); }
  int run(const GemmSm90&) { return refused(); }
  int run(const GemmFp8Sm90&) { return refused(); }
#endif
  int run(const GemmFp8Sm89& w) { return gemm_fp8_sm89(w.p, w.multiprocessors, stream_); }
  int run(const LnModulateParams& p) { return p.y_e4m3 ? ln_modulate_e4m3(p, stream_) : ln_modulate(p, stream_); }
  int run(const QuantizeRowsSm89& w) { return quantize_rows_sm89(w.p, stream_); }
  int run(const GemmPlainParams& p) { return gemm_plain(p, stream_); }
  int run(const QkNormRopeCacheWriteParams& p) { return qk_norm_rope_cachewrite(p, stream_); }
  int run(const QuantizeRowsParams& p) { return quantize_rows(p, stream_); }
  int run(const SamplerStepParams& p) { return sampler_step(p, stream_); }
  int run(const SinusoidParams& p) { return sinusoid(p, stream_); }
  int run(const ActivationParams& p) { return activation(p, stream_); }
  int run(const PatchifyParams& p) { return patchify(p, stream_); }
  int run(const UnpatchifyParams& p) { return unpatchify(p, stream_); }
  int run(const AddParams& p) { return add(p, stream_); }
  static int refused() { return cudaErrorInvalidValue; }
  static bool planned(PlanResult result) {
    if (result > 0) throw std::runtime_error("no tensor map: the driver's error " + std::to_string(result));
    return result == 0;
  }

  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 0, major_ = 0, minor_ = 0;
};

}  // namespace

std::unique_ptr<Rig> open_gpu() { return std::make_unique<GpuRig>(); }

std::string describe_gpu() {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
  return std::string(p.name) + ", compute capability " + std::to_string(p.major) + "." + std::to_string(p.minor);
}

bool gpu_is_well() {
  void* p = nullptr;
  const bool well = cudaDeviceSynchronize() == cudaSuccess && cudaMalloc(&p, 256) == cudaSuccess;
  if (well) cudaFree(p);
  return well;
}

}  // namespace device_check
