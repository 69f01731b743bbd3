#pragma once

// A GPU for programs, played by the simulated machine: the same lists of calls, every kernel's own source.
#include <map>
#include <set>

#include "backend/cuda/device.h"
#include "call_work.h"
#include "cuda/attention_sm80.cuh"
#include "cuda/embed.cuh"
#include "cuda/gemm_plain.cuh"
#include "cuda/gemm_sm80.cuh"
#include "cuda/gemm_sm90.cuh"
#include "cuda/ln_modulate.cuh"
#include "cuda/qk_norm_rope_cachewrite.cuh"
#include "cuda/quantize_rows.cuh"
#include "cuda/sampler_step.cuh"
#include "launcher.h"
#include "tensor_maps.h"
#include "wamcore/error.h"

namespace sim {

using namespace wam::cuda;

class SimDevice : public Device {
 public:
  /// Fresh memory holds NaN in float32 and in bf16 alike, so that what nobody wrote cannot pass for a result.
  void* allocate(size_t bytes) override {
    if (bytes > free_bytes()) throw wam::DeviceError("SimDevice: out of memory");
    auto* p = static_cast<std::byte*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    std::memset(p, 0xff, bytes);
    ++blocks, ++allocations;
    sizes_[p] = bytes, held += bytes;
    return p;
  }
  void release(void* p) noexcept override {
    std::free(p);
    --blocks;
    held -= sizes_[p];
    sizes_.erase(p);
  }
  size_t free_bytes() const override { return capacity > held ? capacity - held : 0; }
  void upload(void* to, const void* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    uploaded_bytes += bytes;
    ++uploads;
  }
  void download(void* to, const void* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    downloaded_bytes += bytes;
    ++downloads;
  }
  void launch(const Call& call) override {
    if (fails_in >= 0 && fails_in-- == 0)
      throw wam::DeviceError("SimDevice: kernel " + std::string(kernel_name(call)) + " failed, as asked");
    work += work_of(call);
    const Launcher launcher{.seed = seed++};
    if (!start(call, launcher))
      throw wam::DeviceError("SimDevice: " + std::string(kernel_name(call)) + " refuses its parameters");
    ++launches[std::string(kernel_name(call))];
  }
  bool fp8() const override { return has_fp8; }
  int capability() const override { return has_fp8 ? 90 : 80; }
  int attention_splits(const AttentionParams&, int64_t) const override { return splits; }
  std::unique_ptr<Recording> record(std::span<const Call> calls) override {
    ++recordings;
    auto list = std::make_unique<List>();
    list->calls.assign(calls.begin(), calls.end());
    return list;
  }
  void replay(const Recording& recording) override {
    ++replays;
    for (const Call& call : static_cast<const List&>(recording).calls) launch(call);
  }

  unsigned seed = 1;
  bool has_fp8 = true;
  size_t capacity = SIZE_MAX, held = 0;  // bytes
  int splits = 1;                        // of all attentions' keys
  int fails_in = -1;                     // launches until one fails; -1: none does
  int blocks = 0, recordings = 0, replays = 0, uploads = 0, downloads = 0, allocations = 0;
  size_t uploaded_bytes = 0, downloaded_bytes = 0;
  std::map<std::string, int> launches;
  Work work;  // of all launches

 protected:
  /// Runs the kernel of a call; false where it refuses.
  virtual bool start(const Call& call, const Launcher& launcher) {
    bool possible = false;
    std::visit([&](const auto& p) { possible = run(p, launcher); }, call);
    return possible;
  }

 private:
  std::map<void*, size_t> sizes_;
  struct List : Recording {
    std::vector<Call> calls;
  };
  static bool run(const LnModulateParams& p, const Launcher& l) {
    return p.y_e4m3 ? launch_ln_modulate_e4m3(p, l) : launch_ln_modulate(p, l);
  }
  static bool run(const QuantizeRowsParams& p, const Launcher& l) { return launch_quantize_rows<true>(p, l); }
  static bool run(const Fp8Product& p, const Launcher& l) {
    GemmParamsSm90 plan;
    return plan_gemm_fp8_sm90(&plan, p.gemm, p.operands, {.tile = 2}, {}, /*multiprocessors=*/2) == 0 &&
           launch_gemm_fp8_sm90(plan, l);
  }
  static bool run(const QkNormRopeCacheWriteParams& p, const Launcher& l) {
    return launch_qk_norm_rope_cachewrite(p, l);
  }
  static bool run(const GemmParams& p, const Launcher& l) {
    return launch_gemm_sm80(p, gemm_tile_sm80(p.m, p.n, /*sms=*/1), l);
  }
  static bool run(const GemmPlainParams& p, const Launcher& l) { return launch_gemm_plain(p, l); }
  static bool run(const AttentionParams& p, const Launcher& l) { return launch_attention_sm80(p, l); }
  static bool run(const SinusoidParams& p, const Launcher& l) { return launch_sinusoid(p, l); }
  static bool run(const ActivationParams& p, const Launcher& l) { return launch_activation(p, l); }
  static bool run(const PatchifyParams& p, const Launcher& l) { return launch_patchify(p, l); }
  static bool run(const UnpatchifyParams& p, const Launcher& l) { return launch_unpatchify(p, l); }
  static bool run(const SamplerStepParams& p, const Launcher& l) { return launch_sampler_step(p, l); }
};

}  // namespace sim
