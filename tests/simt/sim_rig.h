#pragma once

// The simulated machine as a rig of tests/device.
#include <map>
#include <stdexcept>

#include "cuda/attention_sm80.cuh"
#include "cuda/attention_sm90.cuh"
#include "cuda/embed.cuh"
#include "cuda/gemm_plain.cuh"
#include "cuda/gemm_sm80.cuh"
#include "cuda/gemm_sm90.cuh"
#include "cuda/ln_modulate.cuh"
#include "cuda/qk_norm_rope_cachewrite.cuh"
#include "cuda/quantize_rows.cuh"
#include "cuda/sampler_step.cuh"
#include "device/rig.h"
#include "launcher.h"
#include "tensor_maps.h"

namespace sim {

using namespace device_check;

class SimRig : public Rig {
 public:
  std::byte* allocate(size_t bytes) override {
    auto* p = static_cast<std::byte*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    sizes[p] = bytes;
    return p;
  }
  void release(std::byte* p) noexcept override {
    sizes.erase(p);
    std::free(p);
  }
  void upload(std::byte* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const std::byte* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  bool has_sm90() const override { return true; }
  bool has_fp8() const override { return true; }
  int multiprocessors() const override { return 2; }
  void start(const Work& work) override {
    bool possible = false;
    std::visit([&](const auto& w) { possible = run(w); }, work);
    if (!possible) throw std::runtime_error("refuses its parameters");
  }

  const char* planted = "";
  std::map<std::byte*, size_t> sizes;

 private:
  Launcher launcher() { return {.seed = seed_++, .planted = planted}; }
  bool run(const AttentionSm80& w) { return launch_attention_sm80(w.p, launcher()); }
  bool run(const AttentionSm90& w) {
    AttentionParamsSm90 plan;
    return make_attention_plan_sm90(&plan, w.p, multiprocessors()) == 0 && launch_attention_sm90(plan, launcher());
  }
  bool run(const GemmSm80& w) {
    return launch_gemm_sm80(w.p, gemm_tile_sm80(w.p.m, w.p.n, w.multiprocessors), launcher());
  }
  bool run(const GemmSm90& w) {
    GemmParamsSm90 plan;
    return plan_gemm_sm90(&plan, w.p, w.choice, w.scratch, multiprocessors()) == 0 &&
           launch_gemm_sm90(plan, launcher());
  }
  bool run(const GemmFp8Sm90& w) {
    GemmParamsSm90 plan;
    return plan_gemm_fp8_sm90(&plan, w.p, w.operands, w.choice, w.scratch, multiprocessors()) == 0 &&
           launch_gemm_fp8_sm90(plan, launcher());
  }
  bool run(const GemmFp8Sm89& w) {
    const GemmParams& g = w.p.gemm;
    return launch_gemm_fp8_sm89(w.p, gemm_tile_fp8_sm89(g.m, g.n, w.multiprocessors), launcher());
  }
  bool run(const GemmPlainParams& p) { return launch_gemm_plain(p, launcher()); }
  bool run(const LnModulateParams& p) {
    return p.y_e4m3 ? launch_ln_modulate_e4m3(p, launcher()) : launch_ln_modulate(p, launcher());
  }
  bool run(const QkNormRopeCacheWriteParams& p) { return launch_qk_norm_rope_cachewrite(p, launcher()); }
  bool run(const QuantizeRowsParams& p) { return launch_quantize_rows(p, launcher()); }
  bool run(const QuantizeRowsSm89& w) { return launch_quantize_rows<true>(w.p, launcher()); }
  bool run(const SamplerStepParams& p) { return launch_sampler_step(p, launcher()); }
  bool run(const SinusoidParams& p) { return launch_sinusoid(p, launcher()); }
  bool run(const ActivationParams& p) { return launch_activation(p, launcher()); }
  bool run(const PatchifyParams& p) { return launch_patchify(p, launcher()); }
  bool run(const UnpatchifyParams& p) { return launch_unpatchify(p, launcher()); }
  bool run(const AddParams& p) { return launch_add(p, launcher()); }

  unsigned seed_ = 1;
};

}  // namespace sim
