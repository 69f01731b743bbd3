#pragma once

#include <array>

#include "backend/cuda/program.h"

namespace wam::cuda {

/// Where a pass works that is one of several in a recording: which of its arrays lie outside of its workspace, and
/// which guidance branch it serves. The branches' arrays lie beside each other, so that one product can take both.
struct Site {
  std::vector<std::byte*> moved;  // [buffers of the plan]; nullptr: in the workspace
  int branch = 0, branches = 1;
  std::byte *live = nullptr, *slots = nullptr;  // the tables that every run uploads

  std::byte* array(const CudaProgram& program, std::byte* workspace, BufferId id) const;
};

/// Turns nodes into calls, with the addresses of one set of bindings.
class Lowering {
 public:
  /// `site`: nullptr for a pass on its own.
  Lowering(const CudaProgram& program, const Bindings& b, const Site* site = nullptr)
      : program_(program), weights_(program.weights()), b_(b), site_(site) {}
  std::vector<Step> take() { return std::move(steps_); }

  void node(const LinearNode& n, const std::string& label);
  void node(const ActivationNode& n, const std::string& label);
  void node(const SinusoidNode& n, const std::string& label);
  void node(const PatchifyNode& n, const std::string& label);
  void node(const UnpatchifyNode& n, const std::string& label);
  void node(const ModulationNode& n, const std::string& label);
  void node(const NormNode& n, const std::string& label);
  void node(const SelfAttentionNode& n, const std::string& label);
  void node(const CrossAttentionNode& n, const std::string& label);
  void node(const ContextKvNode& n, const std::string& label);
  void node(const FeedForwardNode& n, const std::string& label);

 private:
  /// Rows on the device.
  struct Array {
    std::byte* at = nullptr;
    bool wide = false;
    int64_t rows = 0, cols = 0, stride = 0;
    float* scale = nullptr;  // [rows]: the elements are e4m3
    e4m3* eight() const { return reinterpret_cast<e4m3*>(at); }
    bf16* narrow() const { return reinterpret_cast<bf16*>(at); }
    float* floats() const { return reinterpret_cast<float*>(at); }
  };
  /// y = act(x w^T + bias), or y += gate * (x w^T + bias).
  struct Product {
    Array x, y;
    DeviceMatrix w;
    WeightId bias = kNone;
    kernels::Activation act = kernels::Activation::none;
    bool residual = false;             // adds to what is in y
    Array gate = {};                   // [time rows, n] in float32; none: 1
    const float* gate_base = nullptr;  // [n]
    const int32_t* gate_row = nullptr;
  };
  /// Rows that a modulation node makes: a row of time and the layer's table, which the kernels that read them add.
  struct Modulation {
    const float* time = nullptr;  // [time rows, time_cols], row stride ld
    int64_t time_cols = 0, ld = 0;
    const float* table = nullptr;  // [cols]; nullptr: nothing is to be added
    const float* row(int64_t col) const { return time + col % time_cols; }
    const float* base(int64_t col) const { return table ? table + col : nullptr; }
  };
  /// One product for several matrices of the same input, and what the norms after it need.
  struct Projection {
    Array x;
    std::array<WeightId, 3> weights, biases;
    std::array<Array, 3> to;
    int count = 0;
    int normed = 0;  // the first so many get sums of squares
  };

  Array array(const Slice& s) const;
  Array rows_at(size_t offset, int64_t rows, int64_t cols) const;  // bf16 scratch
  float* floats_at(size_t offset, int64_t rows, int64_t cols) const;
  Array eight_bits(int64_t rows, int64_t cols) const;  // scratch in e4m3
  Array normed(const Slice& z, WeightId reader) const;
  Array quantised(const Array& x);
  void emit_fp8(kc::GemmParams g, const Array& x, const DeviceMatrix& w);
  std::byte* live_tables() const { return site_ ? site_->live : workspace() + program_.place().live; }
  std::byte* slots() const { return site_ ? site_->slots : workspace() + program_.place().slots; }
  std::byte* workspace() const { return reinterpret_cast<std::byte*>(b_.workspace); }
  void emit(Call call) { steps_.push_back({std::move(call), {}}); }
  void seen(const std::string& label, const Array& a);
  void product(const Product& p);
  void add_gated(Product p, const Modulation& m, int group, const std::vector<int32_t>& time_row);
  void linear(const Array& x, const Array& y, WeightId weight, WeightId bias);
  /// One launch where the matrices lie together and their columns allow it, and true: sums of squares are in the
  /// workspace. Else one for each.
  bool project(const Projection& p);
  void squares(kc::QkNormRopeCacheWriteParams& p, int64_t inner, int normed) const;
  Modulation modulation(const Slice& s) const;
  void norm(const Array& x, const Array& y, const Modulation* modulation, int shift,
            const std::vector<int32_t>& time_row, float eps, WeightId weight = kNone, WeightId bias = kNone);
  void divide(kc::AttentionParams& p, int64_t keys) const;
  void attend(const SelfAttentionNode& n, const Array& q, const Array& k, const Array& v, const Array& out);

  const CudaProgram& program_;
  const DeviceWeights& weights_;
  const Bindings& b_;
  const Site* site_;
  std::vector<Step> steps_;
  std::map<BufferId, Modulation> modulations_;
  size_t next_live_ = 0;  // tables used so far
};

/// The shape of an attention of `rows` queries, for questions about it.
kc::AttentionParams attention_shape(int64_t rows, int64_t heads, int64_t pitch);

/// Groups of query spans that one attention call takes; each has its table of live rows.
size_t attention_calls(const SelfAttentionNode& n);

/// Where a pass's K/V go in the memory.
kc::CacheSlots cache_slots(const MemoryView& memory);

/// Fills the tables of live rows of all attention calls, in the order of the calls.
void fill_live(const Plan& plan, const MemoryView* memory, kc::LiveRows* tables);

}  // namespace wam::cuda
