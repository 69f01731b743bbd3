// The attention nodes of the plain program: self-attention over this pass and memory, cross-attention to context.
#include "backend/cpu_layers.h"

namespace wam {

void CpuProgram::node(const SelfAttentionNode& n, const std::string& label, const Bindings& b) const {
  for (const SelfAttentionPart& part : n.parts)
    project(ops_, n, part, part.begin, part.begin + at(part.hidden, b).rows, &label, b);
  if (n.kv_only) return;
  const Array out = at(n.out, b);
  attend(ops_, n, 0, out.rows, b);
  tap(b, label, out, ".attention");
  for (const SelfAttentionPart& part : n.parts) {
    const Array hidden = at(part.hidden, b);
    close_attention(ops_, n, part, part.begin, part.begin + hidden.rows, b);
    tap(b, label, hidden);
  }
}

void CpuProgram::node(const CrossAttentionNode& n, const std::string& label, const Bindings& b) const {
  const Array hidden = at(n.hidden, b);
  cross(ops_, n, 0, hidden.rows, &label, b);
  tap(b, label, hidden);
}

void CpuProgram::node(const ContextKvNode& n, const std::string&, const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim;
  const auto& group = b.context->groups[static_cast<size_t>(n.expert * b.context->groups_per_expert + n.group)];
  const Array in = at(n.in, b);
  const int64_t offset = (n.layer * group.rows + n.row) * inner;
  const Array k{group.k + offset, in.rows, inner, inner};
  linear(ops_, in, k, n.wk, n.bk);
  linear(ops_, in, {group.v + offset, in.rows, inner, inner}, n.wv, n.bv);
  ops_.qk_norm_rope({.x = k.data,
                     .y = k.data,
                     .rows = k.rows,
                     .heads = n.heads,
                     .head_dim = n.head_dim,
                     .ldx = inner,
                     .ldy = inner,
                     .eps = n.eps,
                     .weight = weight(n.norm_k)});
}

}  // namespace wam
