#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backend/plan.h"
#include "backend/weights.h"
#include "model/layout.h"
#include "wamcore/export.h"

namespace wam {

/// One stack of transformer blocks. Experts of one model share heads, head_dim and layers, so that one attention runs
/// over all their tokens; each has its own width.
struct ExpertSpec {
  std::string prefix;  // before the keys of its blocks and embeddings
  int64_t dim = 0, heads = 0, head_dim = 0, layers = 0, ffn_dim = 0;
  int64_t freq_dim = 0;  // columns of the timestep's sinusoid
  int64_t mlp_dim = 0;   // hidden columns of state encoder and action decoder
  float eps = 1e-6f;
  bool patch_is_linear = false;  // patch weights are stored [dim, 4 channels] rather than as a Conv3d
};

/// Where a context group's rows come from and which projections it uses.
struct ContextSpec {
  std::string suffix;       // of cross_attn.k / v / norm_k: "" for text, "_img" for image tokens
  int64_t rows = 0;         // rows of the group
  int64_t in_features = 0;  // columns coming in
};

/// Turns layouts into plans for the Wan kind of block. Keys are the upstream names; `key` renames them for families
/// whose checkpoints spell them differently.
class WAMCORE_API Planner {
 public:
  Planner(std::vector<ExpertSpec> experts, std::vector<ContextSpec> contexts, WeightTable& weights);
  std::function<std::string(const std::string&)> key = [](const std::string& k) { return k; };

  /// A denoise, prefill or training pass.
  Plan forward(const Layout& layout) const;
  /// Only layer `layer` of `layout`, hidden rows and e0 rows [time_rows, 6 dim] given: for tests of one block.
  Plan block(const Layout& layout, int layer) const;
  /// K/V of text rows: external "text" [rows, in_features].
  Plan text_context(int group) const;
  /// K/V of image tokens: external "image" [rows, in_features].
  Plan image_context(int group) const;
  /// K/V of rows that are embedded already, for the first expert: external "rows" [rows, dim].
  Plan embedded_context(int group) const;

  const std::vector<ExpertSpec>& experts() const { return experts_; }
  const std::vector<ContextSpec>& contexts() const { return contexts_; }

 private:
  std::vector<ExpertSpec> experts_;
  std::vector<ContextSpec> contexts_;
  WeightTable& weights_;
};

}  // namespace wam
