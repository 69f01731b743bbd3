#pragma once

#include "backend/cpu_backend.h"

namespace wam {

/// Runs a plan node by node, each node as a loop over operations: the reference every faster program is compared with.
class CpuProgram : public Program {
 public:
  CpuProgram(Plan plan, std::shared_ptr<const PackedWeights> weights, CpuOps& ops);
  void run(const Bindings& b) const override;
  int64_t workspace_floats() const final { return floats_; }

 protected:
  struct Array {  // a slice made concrete
    float* data;
    int64_t rows, cols, stride;
  };
  struct Modulation {             // from one of its column groups on
    const float* data = nullptr;  // [time rows, cols], row stride ld
    int64_t ld = 0;
    const int32_t* time_row = nullptr;  // of each row that is modulated
  };
  Array at(const Slice& s, const Bindings& b) const;
  static Array rows_of(const Array& a, int64_t from, int64_t rows);
  const Plan& plan() const { return plan_; }
  void run_node(size_t i, const Bindings& b) const;
  const float* weight(WeightId id) const { return weights_->data(id); }
  kernels::Panels matrix(WeightId id) const { return weights_->panels(id); }
  void tap(const Bindings& b, const std::string& label, const Array& a, const char* part = "") const;
  CpuOps& ops() const { return ops_; }
  int64_t reserve(int64_t floats);  // more workspace, for a derived program's own scratch; gives its offset

  // Layers over some of their rows, with any operations `O`; label: nullptr hides inner values (see cpu_layers.h).
  template <class O>
  void linear(O& ops, const Array& in, const Array& out, WeightId weight, WeightId bias) const;
  template <class O>
  static void modulated_norm(O& ops, const Array& in, const Array& out, const Modulation& m, float eps);
  template <class O>
  void add_linear(O& ops, const Array& in, const Array& hidden, WeightId weight, WeightId bias,
                  const Modulation& gate) const;
  template <class O>
  void norm_rope(O& ops, const SelfAttentionNode& n, WeightId norm, int64_t token, const Array& from, float* to) const;
  template <class To>
  void key_places(const SelfAttentionNode& n, const Bindings& b, int64_t from, int64_t end, To&& to) const;
  template <class O>
  void project(O& ops, const SelfAttentionNode& n, const SelfAttentionPart& part, int64_t from, int64_t end,
               const std::string* label, const Bindings& b) const;
  template <class O>
  void attend(O& ops, const SelfAttentionNode& n, int64_t from, int64_t end, const Bindings& b) const;
  template <class O>
  void close_attention(O& ops, const SelfAttentionNode& n, const SelfAttentionPart& part, int64_t from, int64_t end,
                       const Bindings& b) const;
  template <class O>
  void cross(O& ops, const CrossAttentionNode& n, int64_t row, int64_t rows, const std::string* label,
             const Bindings& b) const;

  virtual void node(const FeedForwardNode& n, const std::string& label, const Bindings& b) const;

 private:
  void node(const LinearNode& n, const std::string& label, const Bindings& b) const;
  void node(const ActivationNode& n, const std::string& label, const Bindings& b) const;
  void node(const SinusoidNode& n, const std::string& label, const Bindings& b) const;
  void node(const PatchifyNode& n, const std::string& label, const Bindings& b) const;
  void node(const UnpatchifyNode& n, const std::string& label, const Bindings& b) const;
  void node(const ModulationNode& n, const std::string& label, const Bindings& b) const;
  void node(const NormNode& n, const std::string& label, const Bindings& b) const;
  void node(const SelfAttentionNode& n, const std::string& label, const Bindings& b) const;
  void node(const CrossAttentionNode& n, const std::string& label, const Bindings& b) const;
  void node(const ContextKvNode& n, const std::string& label, const Bindings& b) const;

  Plan plan_;
  std::shared_ptr<const PackedWeights> weights_;
  CpuOps& ops_;
  std::vector<int64_t> offset_;  // of every workspace buffer
  int64_t floats_ = 0;
};

}  // namespace wam
