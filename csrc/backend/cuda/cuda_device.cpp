// Kernels and kernel_calls.cpp aside, the only file of the plugin that calls the CUDA runtime.
#include "backend/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <type_traits>
#include <variant>
#include <vector>

#include "backend/cuda/refusal.h"
#include "wamcore/error.h"

namespace wam::cuda {
namespace {

[[noreturn]] void fail(const std::string& what, cudaError_t error) {
  throw DeviceError("cuda: " + what + ": " + cudaGetErrorString(error));
}
void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail(what, error);
}

/// A call whose choices are made: the kernel, its tile, the tensor maps that it reads through. Made once for a
/// recording, whether that becomes a graph or not.
struct Ready {
#ifdef WAMCORE_WITH_SM90A
  std::variant<Call, kc::GemmParamsSm90, kc::AttentionParamsSm90> call;
#else
  std::variant<Call> call;
#endif
  std::string_view name;
};

/// A captured graph, ready to run; or its calls one by one.
struct Graph final : Recording {
  ~Graph() override {
    if (exec) cudaGraphExecDestroy(exec);
  }
  cudaGraphExec_t exec = nullptr;
  std::vector<Ready> calls;
  std::string kernels;  // by name, each once
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    check(cudaSetDevice(ordinal), "cudaSetDevice");
    check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, ordinal), "cudaDeviceGetAttribute");
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal), "cudaDeviceGetAttribute");
    const char* wanted = std::getenv("WAMCORE_CUDA_KERNELS");  // "sm80": as on any other GPU, to compare the two
    capability_ = 10 * major + minor;
    sm90_ = major == 9 && minor == 0 && !(wanted && std::string(wanted) == "sm80");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    if (!sm90_) return;
    try {
      scratch_.partial = static_cast<float*>(allocate(kScratchFloats * sizeof(float)));
      scratch_.arrived = static_cast<int32_t*>(allocate(kScratchCounters * sizeof(int32_t)));
    } catch (...) {
      close();
      throw;
    }
  }
  ~CudaDevice() override { close(); }

  void* allocate(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    use();
    void* p = nullptr;
    if (const cudaError_t error = cudaMalloc(&p, bytes); error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // the device goes on
      size_t free = 0, total = 0;
      check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
      throw DeviceError("cuda: out of memory: " + mib(bytes) + " more are needed, " + mib(free) + " of " + mib(total) +
                        " are free, " + mib(allocated_) + " are held by this model and its sessions");
    } else {
      check(error, "cudaMalloc");
    }
    // Kernels for sm_90a fetch whole tiles of keys, with rows that nobody has written: these must be finite numbers.
    check(cudaMemsetAsync(p, 0, bytes, stream_), "cudaMemsetAsync");
    allocated_ += bytes;
    sizes_[p] = bytes;
    return p;
  }

  void release(void* p) noexcept override {
    const std::lock_guard lock(mutex_);
    const auto it = sizes_.find(p);
    if (it == sizes_.end()) return;
    allocated_ -= it->second;
    sizes_.erase(it);
    cudaSetDevice(ordinal_);  // or a thread that never used a GPU would start the first one
    cudaFree(p);
  }

  size_t free_bytes() const override {
    const std::lock_guard lock(mutex_);
    use();
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return free;
  }

  // From pageable memory the runtime copies to a buffer of its own before it returns.
  void upload(void* to, const void* from, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    use();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "upload");
  }
  void download(void* to, const void* from, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    use();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "download");
    // What a kernel did wrong shows up here at the latest.
    if (const cudaError_t error = cudaStreamSynchronize(stream_); error != cudaSuccess) fail(culprits(), error);
    running_.clear();
  }

  void launch(const Call& call) override {
    const std::lock_guard lock(mutex_);
    use();
    launch(prepare(call));
  }

  int capability() const override { return capability_; }
  bool fp8() const override { return capability_ >= 89; }
  int attention_splits(const kc::AttentionParams& p, int64_t keys) const override {
    return kc::attention_splits(p, kc::attention_tile(sm90_, p.head_dim), multiprocessors_, keys);
  }

  std::unique_ptr<Recording> record(std::span<const Call> calls) override {
    const std::lock_guard lock(mutex_);  // or another session's calls would get into this graph
    use();
    auto recording = std::make_unique<Graph>();
    std::map<std::string_view, int> names;
    for (const Call& call : calls) ++names[kernel_name(call)];
    for (const auto& [name, times] : names)
      recording->kernels +=
          (recording->kernels.empty() ? "" : ", ") + std::string(name) + " x " + std::to_string(times);
    if (one_by_one_) {
      for (const Call& call : calls) recording->calls.push_back(prepare(call));
      return recording;
    }
    cudaGraph_t graph = nullptr;
    // Relaxed: a kernel that is met for the first time is loaded here, which the stricter modes may refuse. Nothing
    // else that they forbid is done, and the lock keeps other threads out.
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
    try {
      for (const Call& call : calls) launch(call);
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    const cudaError_t error = cudaGraphInstantiate(&recording->exec, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "cudaGraphInstantiate");
    return recording;
  }

  void replay(const Recording& recording) override {
    const std::lock_guard lock(mutex_);
    use();
    const Graph& graph = static_cast<const Graph&>(recording);
    for (const Ready& call : graph.calls) launch(call);
    if (!graph.exec) return;
    running_ = graph.kernels;
    if (const cudaError_t error = cudaGraphLaunch(graph.exec, stream_); error != cudaSuccess) fail(culprits(), error);
  }

 private:
  // For products that are divided, one after another on the one stream: 32 MiB, four times what the 5B model asks for.
  static constexpr int64_t kScratchFloats = int64_t{8} << 20, kScratchCounters = 4096;

  void close() noexcept {
    release(scratch_.partial), release(scratch_.arrived);
    cudaStreamDestroy(stream_);
  }

  // A graph does not say which of its kernels failed, and the device's context is lost with it: no way to ask again.
  std::string culprits() const {
    if (running_.empty()) return "a kernel failed";
    return "a kernel failed, most likely in the graph of " + running_ +
           " (run the same with WAMCORE_CUDA_ONE_BY_ONE=1 in the environment to see which)";
  }

  // The current device belongs to the thread, and sessions are used from any.
  void use() const { check(cudaSetDevice(ordinal_), "cudaSetDevice"); }

  void launch(const Ready& ready) {
    int error = 0;
    const auto run = [&](const auto& p) { error = start(p); };
    if (const auto* call = std::get_if<Call>(&ready.call))
      std::visit(run, *call);
    else
      std::visit(
          [&](const auto& p) {
            if constexpr (!std::is_same_v<std::decay_t<decltype(p)>, Call>) run(p);
          },
          ready.call);
    if (error == cudaSuccess && one_by_one_) error = cudaStreamSynchronize(stream_);
    if (error != cudaSuccess) fail("kernel " + std::string(ready.name), static_cast<cudaError_t>(error));
  }

  // What a plan of the sm_90a kernels refuses goes to the others, whose conditions are fewer.
  Ready prepare(const Call& call) {
    Ready ready{call, kernel_name(call)};
#ifdef WAMCORE_WITH_SM90A
    if (!sm90_) return ready;
    // Sizes and strides that a map cannot have do not come this far: the lists of calls hold what is possible.
    const auto planned = [&](kc::PlanResult result, const auto& plan, const auto& p) {
      if (result == 0)
        ready.call = plan;
      else
        detour(ready.name, refusal(p, result));
    };
    if (const auto* p = std::get_if<kc::GemmParams>(&call)) {
      kc::GemmParamsSm90 plan;
      kc::GemmChoiceSm90 choice = kc::gemm_choice_bf16_sm90(p->m, p->n, p->k, multiprocessors_);
      if (!fits_scratch(*p, choice)) choice = {kc::gemm_tile_sm90(p->m, p->n, multiprocessors_), 1};
      planned(kc::plan_gemm_sm90(&plan, *p, choice, scratch_, multiprocessors_), plan, *p);
    }
    if (const auto* p = std::get_if<kc::Fp8Product>(&call)) {
      const kc::GemmParams& g = p->gemm;
      kc::GemmParamsSm90 plan;
      kc::GemmChoiceSm90 choice = kc::gemm_choice_fp8_sm90(g.m, g.n, g.k, multiprocessors_);
      if (!fits_scratch(g, choice)) choice = kc::gemm_choice_sm90(g.m, g.n, 1, multiprocessors_, 1);
      planned(kc::plan_gemm_fp8_sm90(&plan, g, p->operands, choice, scratch_, multiprocessors_), plan, g);
    }
    if (const auto* p = std::get_if<kc::AttentionParams>(&call)) {
      kc::AttentionParamsSm90 plan;
      planned(kc::plan_attention_sm90(&plan, *p, multiprocessors_), plan, *p);
    }
#endif
    return ready;
  }
#ifdef WAMCORE_WITH_SM90A
  static bool fits_scratch(const kc::GemmParams& p, kc::GemmChoiceSm90 choice) {
    return kc::gemm_split_floats(p.m, p.n, choice) <= kScratchFloats &&
           kc::gemm_tiles_sm90(p.m, p.n, kc::kGemmColsSm90[choice.tile]) <= kScratchCounters;
  }
#endif

  int start(const kc::LnModulateParams& p) {
    return p.y_e4m3 ? kc::ln_modulate_e4m3(p, stream_) : kc::ln_modulate(p, stream_);
  }
  int start(const kc::QuantizeRowsParams& p) { return kc::quantize_rows_sm89(p, stream_); }  // for fp8() alone
  int start(const kc::QkNormRopeCacheWriteParams& p) { return kc::qk_norm_rope_cachewrite(p, stream_); }
  int start(const kc::GemmParams& p) { return kc::gemm_sm80(p, multiprocessors_, stream_); }
  int start(const kc::Fp8Product& p) { return kc::gemm_fp8_sm89(p, multiprocessors_, stream_); }
#ifdef WAMCORE_WITH_SM90A
  int start(const kc::GemmParamsSm90& p) {
    return p.x_scale ? kc::gemm_fp8_sm90(p, stream_) : kc::gemm_sm90(p, stream_);
  }
  int start(const kc::AttentionParamsSm90& p) { return kc::attention_sm90(p, stream_); }
#endif
  int start(const kc::GemmPlainParams& p) { return kc::gemm_plain(p, stream_); }
  int start(const kc::AttentionParams& p) { return kc::attention_sm80(p, stream_); }
  int start(const kc::SinusoidParams& p) { return kc::sinusoid(p, stream_); }
  int start(const kc::ActivationParams& p) { return kc::activation(p, stream_); }
  int start(const kc::PatchifyParams& p) { return kc::patchify(p, stream_); }
  int start(const kc::UnpatchifyParams& p) { return kc::unpatchify(p, stream_); }
  int start(const kc::SamplerStepParams& p) { return kc::sampler_step(p, stream_); }

  int ordinal_, multiprocessors_ = 0, capability_ = 0;
  bool sm90_ = false;
  kc::GemmScratch scratch_;
  cudaStream_t stream_ = nullptr;
  // Calls a captured graph's kernels one at a time and waits for each, so that an error names the kernel.
  const bool one_by_one_ = std::getenv("WAMCORE_CUDA_ONE_BY_ONE") != nullptr;
  mutable std::recursive_mutex mutex_;  // sessions of several threads share the stream
  std::string running_;                 // of the graph that was started last and not waited for
  size_t allocated_ = 0;
  std::map<void*, size_t> sizes_;
};

}  // namespace

std::shared_ptr<Device> open_device(int ordinal) { return std::make_shared<CudaDevice>(ordinal); }

}  // namespace wam::cuda
