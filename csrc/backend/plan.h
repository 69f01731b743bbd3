#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "wamcore/export.h"
#include "wamcore/kernels/gemm.h"

namespace wam {

// A Plan is what a model asks of a backend: buffers, and nodes that read and write them in order. Model code is written
// once against it; a backend may run the nodes one by one, fuse them, or record them into a graph.

using BufferId = int;
using WeightId = int;
inline constexpr int kNone = -1;

/// Rows of floats. External buffers are bound at run time; the others live in the workspace.
struct BufferSpec {
  std::string name;
  int64_t rows = 0, cols = 0;
  bool external = false;
};

/// A rectangle of a buffer.
struct Slice {
  BufferId buffer = kNone;
  int64_t row = 0, rows = 0, col = 0, cols = 0;
};

/// The rows of K/V that one query span reads: rows of this pass, or everything the memory view shows.
struct KeyRange {
  bool memory = false;
  int64_t begin = 0, rows = 0;  // of this pass; unused when memory
};
/// Rows of this pass that read the same keys.
struct QuerySpan {
  int64_t begin = 0, rows = 0;
  std::vector<KeyRange> keys;
};

/// out = act(in W^T + b)
struct LinearNode {
  Slice in, out;
  WeightId weight = kNone, bias = kNone;
  kernels::Activation activation = kernels::Activation::none;
};
/// out = act(in)
struct ActivationNode {
  Slice in, out;
  kernels::Activation activation = kernels::Activation::none;
};
struct SinusoidNode {
  BufferId t = kNone;             // [time rows, 1]
  std::vector<int32_t> time_row;  // [rows]
  Slice out;
  bool cos_first = true;
};
struct PatchifyNode {
  std::vector<BufferId> latents;  // each [channels, frames * height * width]
  int64_t frames = 0, height = 0, width = 0;
  Slice out;
};
struct UnpatchifyNode {
  Slice in;
  BufferId latents = kNone;  // [channels, frames * height * width]
  int64_t frames = 0, height = 0, width = 0;
};
/// out[r] = table + time[r]
struct ModulationNode {
  WeightId table = kNone;
  Slice time, out;
};
/// out = LN(in), affine, modulated, or neither
struct NormNode {
  Slice in, out;
  WeightId weight = kNone, bias = kNone;
  float eps = 1e-6f;
  Slice modulation;               // [time rows, k * dim]; buffer kNone: none
  int shift = 0, scale = 1;       // which dim-wide column groups of it
  std::vector<int32_t> time_row;  // [rows]
};

/// One expert's share of a joint self-attention layer.
struct SelfAttentionPart {
  Slice hidden;                   // [tokens, dim], updated in place
  Slice z;                        // scratch [tokens, dim]
  Slice modulation;               // [time rows, 6 * dim]: shift, scale, gate of attention, then of feed-forward
  std::vector<int32_t> time_row;  // [tokens]
  int64_t begin = 0;              // its first token in q, k, v
  WeightId wq = kNone, bq = kNone, wk = kNone, bk = kNone, wv = kNone, bv = kNone, wo = kNone, bo = kNone;
  WeightId norm_q = kNone, norm_k = kNone;
};
struct SelfAttentionNode {
  int layer = 0;
  int64_t heads = 0, head_dim = 0;
  float eps = 1e-6f;
  std::vector<SelfAttentionPart> parts;
  Slice q, k, v, out;  // [all tokens, heads * head_dim]
  int rope = kNone;    // index of the plan's table [tokens, head_dim / 2]
  std::vector<QuerySpan> queries;
  int64_t store_begin = 0, store_rows = 0;  // tokens whose K/V go to the memory's write slots
  bool kv_only = false;                     // stop after K/V
};

/// hidden += Wo (sum over groups of attention to the group's cached K/V)
struct CrossAttentionNode {
  int layer = 0, expert = 0;
  int64_t heads = 0, head_dim = 0;
  float eps = 1e-6f;
  Slice hidden, z, q, out;
  WeightId norm_weight = kNone, norm_bias = kNone, wq = kNone, bq = kNone, wo = kNone, bo = kNone, norm_q = kNone;
  std::vector<int> groups;  // context groups, each with its own softmax
};
/// K/V of some rows of a context group, kept until the group's lifetime ends.
struct ContextKvNode {
  int layer = 0, expert = 0, group = 0;
  int64_t heads = 0, head_dim = 0;
  float eps = 1e-6f;
  Slice in;         // [rows, dim]
  int64_t row = 0;  // first row of the group that is written
  WeightId wk = kNone, bk = kNone, wv = kNone, bv = kNone, norm_k = kNone;
};
struct FeedForwardNode {
  Slice hidden, z, up;  // [tokens, dim], scratch [tokens, dim], scratch [tokens, ffn]
  Slice modulation;
  std::vector<int32_t> time_row;
  float eps = 1e-6f;
  WeightId w1 = kNone, b1 = kNone, w2 = kNone, b2 = kNone;
};

using Node = std::variant<LinearNode, ActivationNode, SinusoidNode, PatchifyNode, UnpatchifyNode, ModulationNode,
                          NormNode, SelfAttentionNode, CrossAttentionNode, ContextKvNode, FeedForwardNode>;

/// cos and sin of every token's rotation, [tokens, head_dim / 2] each.
struct RopeTable {
  std::vector<float> cos, sin;
};

struct WAMCORE_API Plan {
  std::string name;
  std::vector<BufferSpec> buffers;
  std::vector<RopeTable> ropes;
  std::vector<Node> nodes;
  std::vector<std::string> labels;  // one a node, for taps and traces

  BufferId buffer(const std::string& id) const;  // throws Error when there is none
};

}  // namespace wam
