#pragma once

#include <array>
#include <atomic>

#include "backend/backend.h"
#include "backend/operation_clock.h"
#include "core/thread_pool.h"

namespace wam {

/// What is counted apart: operations whose kernels are chosen together.
enum class CpuOperation : uint8_t {
  gemm,
  gemm_bf16,
  gemm_rounded,
  gemm_int8,
  feed_forward,
  feed_forward_bf16,
  feed_forward_rounded,
  feed_forward_int8,
  attention,
  norm,
  activation,
  conv,
  frames,
  rearrange,
  other
};
inline constexpr size_t kCpuOperations = static_cast<size_t>(CpuOperation::other) + 1;
inline CpuOperation gemm_operation(const kernels::GemmParams& p) {
  return p.w.int8     ? CpuOperation::gemm_int8
         : p.w.rounds ? CpuOperation::gemm_rounded
         : p.w.bf16   ? CpuOperation::gemm_bf16
                      : CpuOperation::gemm;
}

OperationClock::Name name_of(CpuOperation operation, const char* step);

/// Operations on the CPU, each shared by the pool's threads.
class CpuOps final : public Ops {
 public:
  explicit CpuOps(int threads, std::vector<int> cores = {}) : pool_(threads, std::move(cores)) {}
  int caller_core() const { return pool_.caller_core(); }
  int threads() const { return pool_.size(); }

  void gemm(const kernels::GemmParams& p) override;
  void attention(const kernels::AttentionParams& p) override;
  void layer_norm(const kernels::LayerNormParams& p) override;
  void qk_norm_rope(const kernels::QkNormRopeParams& p) override;
  void activation(const kernels::ActivationParams& p) override;
  void sinusoid(const kernels::SinusoidParams& p) override;
  void patchify(const kernels::PatchifyParams& p) override;
  void unpatchify(const kernels::UnpatchifyParams& p) override;
  void modulation(const kernels::ModulationParams& p) override;
  void combine(const kernels::CombineParams& p) override;
  void conv(const kernels::ConvParams& p) override;
  void channel_norm(const kernels::ChannelNormParams& p) override;
  void affine(const kernels::AffineParams& p) override;
  void upsample(const kernels::UpsampleParams& p) override;
  void pixel_unshuffle(const kernels::PixelShuffleParams& p) override;
  void pixel_shuffle(const kernels::PixelShuffleParams& p) override;
  void average_down(const kernels::AverageDownParams& p) override;
  void repeat_up(const kernels::RepeatUpParams& p) override;
  /// Runs body(const kernels::Team&) once for each thread's share. What LoneOps do not claim of its time is waiting.
  template <class F>
  void share(F&& body) {
    if (!clock_.on()) return pool_.run(body);
    const auto began = OperationClock::Time::now();
    pool_.run(body);
    clock_.add({"layers", "wait"}, 1, OperationClock::since(began));
  }
  /// The step of a program that this thread's operations belong to from here on; nullptr: none.
  static void step(const char* name);
  OperationClock& clock() { return clock_; }
  void count(CpuOperation operation) { runs_[static_cast<size_t>(operation)].fetch_add(1, std::memory_order_relaxed); }

  std::vector<OperationReport> operations() const;
  std::vector<OperationTime> times() const { return clock_.times(); }

 private:
  template <typename Params>
  void run(CpuOperation operation, int64_t work, const Params& p, void (*kernel)(const Params&, const kernels::Team&));

  ThreadPool pool_;
  OperationClock clock_;
  std::array<std::atomic<uint64_t>, kCpuOperations> runs_{};
};

inline constexpr Precision kCpuPrecisions[] = {Precision::float32, Precision::bfloat16,
                                               Precision::int8};  // the first is "auto"

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, std::vector<int> cores, bool fused) : ops_(threads, std::move(cores)), fused_(fused) {}
  std::string_view name() const override { return fused_ ? "cpu" : "cpu-ops"; }
  int threads() const override { return ops_.threads(); }
  int caller_core() const override { return ops_.caller_core(); }
  Ops& ops() override { return ops_; }
  std::shared_ptr<const PackedWeights> pack(const WeightTable& table, const WeightSource& source) override;
  std::shared_ptr<const ProgramWeights> load(const WeightTable& table, const WeightSource& source,
                                             Precision wanted) override;
  std::unique_ptr<Program> compile(Plan plan, std::shared_ptr<const ProgramWeights> weights) override;
  std::vector<OperationReport> operations() const override { return ops_.operations(); }
  void time_operations(bool on) override { ops_.clock().start(on); }
  std::vector<OperationTime> operation_times() const override { return ops_.times(); }

 private:
  CpuOps ops_;
  bool fused_;
};

}  // namespace wam
