#pragma once

#include "backend/cpu_program.h"

namespace wam {

class LoneOps;

/// As CpuProgram, with whole layers in two steps: norm, q, K and V of all rows; then for each row attention, output,
/// cross-attention and feed-forward. Within a step a thread carries its rows alone, so a layer has two meetings of the
/// threads instead of some fifteen. Values inside a layer are not shown to taps.
class FusedCpuProgram final : public CpuProgram {
 public:
  FusedCpuProgram(Plan plan, std::shared_ptr<const PackedWeights> weights, CpuOps& ops);
  void run(const Bindings& b) const override;

 protected:
  void node(const FeedForwardNode& n, const std::string& label, const Bindings& b) const override;

 private:
  struct Layer {
    size_t self = 0, end = 0;  // its nodes: self-attention, and what follows it row by row
  };
  bool enough_rows(const SelfAttentionNode& n) const;
  void layer(const Layer& l, const Bindings& b) const;
  void feed_forward(LoneOps& alone, const FeedForwardNode& n, int64_t row, int64_t rows, int rank,
                    const Bindings& b) const;

  std::vector<Layer> layers_;
  int64_t scratch_ = 0, scratch_each_ = 0;  // floats: where, and of a thread
};

}  // namespace wam
