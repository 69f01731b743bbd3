#pragma once

#include "backend/cpu_backend.h"

namespace wam {

/// Runs a plan node by node, each node as a loop over operations: the reference every faster program is compared with.
class CpuProgram : public Program {
 public:
  CpuProgram(Plan plan, std::shared_ptr<const PackedWeights> weights, CpuOps& ops);
  void run(const Bindings& b) const final;
  int64_t workspace_floats() const final { return floats_; }

 protected:
  struct Array {  // a slice made concrete
    float* data;
    int64_t rows, cols, stride;
  };
  Array at(const Slice& s, const Bindings& b) const;
  const float* weight(WeightId id) const { return weights_->data(id); }
  kernels::Panels matrix(WeightId id) const { return weights_->panels(id); }
  void tap(const Bindings& b, const std::string& label, const Array& a, const char* part = "") const;
  CpuOps& ops() const { return ops_; }
  int64_t reserve(int64_t floats);  // more workspace, for a derived program's own scratch; gives its offset

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
  void keys_and_values(const SelfAttentionNode& n, const SelfAttentionPart& part, const std::string& label,
                       const Bindings& b) const;
  void linear(const Array& in, const Array& out, WeightId weight, WeightId bias) const;

  Plan plan_;
  std::shared_ptr<const PackedWeights> weights_;
  CpuOps& ops_;
  std::vector<int64_t> offset_;  // of every workspace buffer
  int64_t floats_ = 0;
};

/// As CpuProgram, with the feed-forward layer as one fused call: each thread carries its rows through the whole layer.
class FusedCpuProgram final : public CpuProgram {
 public:
  FusedCpuProgram(Plan plan, std::shared_ptr<const PackedWeights> weights, CpuOps& ops);

 protected:
  void node(const FeedForwardNode& n, const std::string& label, const Bindings& b) const override;

 private:
  int64_t scratch_ = 0;
};

}  // namespace wam
