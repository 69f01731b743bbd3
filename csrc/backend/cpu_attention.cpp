// The attention nodes of the plain program: self-attention over this pass and memory, cross-attention to context.
#include <algorithm>
#include <cmath>

#include "backend/cpu_program.h"

namespace wam {

// K is normalised, rotated and written, V projected, straight into the memory's slots where the pass stores them.
void CpuProgram::keys_and_values(const SelfAttentionNode& n, const SelfAttentionPart& part, const std::string& label,
                                 const Bindings& b) const {
  const Array z = at(part.z, b), k = at(n.k, b), v = at(n.v, b);
  const int64_t inner = n.heads * n.head_dim, half = n.head_dim / 2, end = part.begin + z.rows;
  const RopeTable* rope = n.rope == kNone ? nullptr : &plan_.ropes[static_cast<size_t>(n.rope)];
  linear(z, {k.data + part.begin * inner, z.rows, inner, inner}, part.wk, part.bk);
  tap(b, label, {k.data + part.begin * inner, z.rows, inner, inner}, ".k");
  // Writes tokens [from, from + rows) of this part to `key` and `value`.
  const auto write = [&](int64_t from, int64_t rows, float* key, float* value) {
    ops_.qk_norm_rope({.x = k.data + from * inner,
                       .y = key,
                       .rows = rows,
                       .heads = n.heads,
                       .head_dim = n.head_dim,
                       .ldx = inner,
                       .ldy = inner,
                       .eps = n.eps,
                       .weight = weight(part.norm_k),
                       .cos = rope ? rope->cos.data() + from * half : nullptr,
                       .sin = rope ? rope->sin.data() + from * half : nullptr});
    linear({z.data + (from - part.begin) * z.stride, rows, z.cols, z.stride}, {value, rows, inner, inner}, part.wv,
           part.bv);
  };
  const int64_t store = std::max(part.begin, n.store_begin), stop = std::min(end, n.store_begin + n.store_rows);
  if (store >= stop) return write(part.begin, z.rows, k.data + part.begin * inner, v.data + part.begin * inner);
  if (store > part.begin)
    write(part.begin, store - part.begin, k.data + part.begin * inner, v.data + part.begin * inner);
  int64_t token = store;
  const size_t layer = static_cast<size_t>(n.layer);
  for (int i = 0; i < b.memory->writes; ++i) {
    const RowRange& slot = b.memory->write[i];
    write(token, slot.rows, b.memory->k[layer] + slot.begin * inner, b.memory->v[layer] + slot.begin * inner);
    token += slot.rows;
  }
  if (token < end) write(token, end - token, k.data + token * inner, v.data + token * inner);
}

void CpuProgram::node(const SelfAttentionNode& n, const std::string& label, const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim, half = n.head_dim / 2;
  const Array q = at(n.q, b), k = at(n.k, b), v = at(n.v, b), out = at(n.out, b);
  const RopeTable* rope = n.rope == kNone ? nullptr : &plan_.ropes[static_cast<size_t>(n.rope)];
  for (const SelfAttentionPart& part : n.parts) {
    const Array hidden = at(part.hidden, b), z = at(part.z, b), m = at(part.modulation, b);
    ops_.layer_norm({.x = hidden.data,
                     .y = z.data,
                     .rows = hidden.rows,
                     .cols = hidden.cols,
                     .ldx = hidden.stride,
                     .ldy = z.stride,
                     .eps = n.eps,
                     .shift = m.data,
                     .scale = m.data + hidden.cols,
                     .ldm = m.stride,
                     .time_row = part.time_row.data()});
    tap(b, label, z, ".norm1");
    keys_and_values(n, part, label, b);
    if (n.kv_only) continue;
    const Array mine{q.data + part.begin * inner, hidden.rows, inner, inner};
    linear(z, mine, part.wq, part.bq);
    tap(b, label, mine, ".q");
    ops_.qk_norm_rope({.x = mine.data,
                       .y = mine.data,
                       .rows = mine.rows,
                       .heads = n.heads,
                       .head_dim = n.head_dim,
                       .ldx = inner,
                       .ldy = inner,
                       .eps = n.eps,
                       .weight = weight(part.norm_q),
                       .cos = rope ? rope->cos.data() + part.begin * half : nullptr,
                       .sin = rope ? rope->sin.data() + part.begin * half : nullptr});
    tap(b, label, mine, ".q_roped");
  }
  if (n.kv_only) return;
  for (const QuerySpan& query : n.queries) {
    kernels::KeySpan spans[16];
    int64_t count = 0;
    const auto add = [&](const float* key, const float* value, int64_t rows) {
      if (rows > 0) spans[count++] = {key, value, rows, inner, inner};
    };
    for (const KeyRange& range : query.keys) {
      if (!range.memory) {
        add(k.data + range.begin * inner, v.data + range.begin * inner, range.rows);
        continue;
      }
      for (int i = 0; b.memory && i < b.memory->reads; ++i) {
        const int64_t at_row = b.memory->read[i].begin * inner;
        add(b.memory->k[static_cast<size_t>(n.layer)] + at_row, b.memory->v[static_cast<size_t>(n.layer)] + at_row,
            b.memory->read[i].rows);
      }
    }
    ops_.attention({.q = q.data + query.begin * inner,
                    .out = out.data + query.begin * inner,
                    .rows = query.rows,
                    .heads = n.heads,
                    .head_dim = n.head_dim,
                    .ldq = inner,
                    .ldo = inner,
                    .spans = spans,
                    .span_count = count,
                    .scale = 1.0f / std::sqrt(static_cast<float>(n.head_dim))});
  }
  tap(b, label, out, ".attention");
  for (const SelfAttentionPart& part : n.parts) {
    const Array hidden = at(part.hidden, b), m = at(part.modulation, b);
    ops_.gemm({.x = out.data + part.begin * inner,
               .w = matrix(part.wo),
               .bias = weight(part.bo),
               .y = hidden.data,
               .m = hidden.rows,
               .n = hidden.cols,
               .k = inner,
               .ldx = inner,
               .ldy = hidden.stride,
               .residual = hidden.data,
               .ldr = hidden.stride,
               .gate = m.data + 2 * hidden.cols,
               .ldg = m.stride,
               .gate_row = part.time_row.data()});
    tap(b, label, hidden);
  }
}

void CpuProgram::node(const CrossAttentionNode& n, const std::string& label, const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim;
  const Array hidden = at(n.hidden, b), z = at(n.z, b), q = at(n.q, b), out = at(n.out, b);
  ops_.layer_norm({.x = hidden.data,
                   .y = z.data,
                   .rows = hidden.rows,
                   .cols = hidden.cols,
                   .ldx = hidden.stride,
                   .ldy = z.stride,
                   .eps = n.eps,
                   .weight = weight(n.norm_weight),
                   .bias = weight(n.norm_bias)});
  tap(b, label, z, ".norm3");
  linear(z, q, n.wq, n.bq);
  ops_.qk_norm_rope({.x = q.data,
                     .y = q.data,
                     .rows = q.rows,
                     .heads = n.heads,
                     .head_dim = n.head_dim,
                     .ldx = q.stride,
                     .ldy = q.stride,
                     .eps = n.eps,
                     .weight = weight(n.norm_q)});
  tap(b, label, q, ".q");
  bool first = true;
  for (const int id : n.groups) {
    const auto& group = b.context->groups[static_cast<size_t>(n.expert * b.context->groups_per_expert + id)];
    const int64_t offset = n.layer * group.rows * inner;
    const kernels::KeySpan span{group.k + offset, group.v + offset, group.rows, inner, inner};
    ops_.attention({.q = q.data,
                    .out = out.data,
                    .rows = q.rows,
                    .heads = n.heads,
                    .head_dim = n.head_dim,
                    .ldq = q.stride,
                    .ldo = out.stride,
                    .spans = &span,
                    .span_count = 1,
                    .scale = 1.0f / std::sqrt(static_cast<float>(n.head_dim)),
                    .accumulate = !first});
    first = false;
  }
  tap(b, label, out, ".attention");
  ops_.gemm({.x = out.data,
             .w = matrix(n.wo),
             .bias = weight(n.bo),
             .y = hidden.data,
             .m = hidden.rows,
             .n = hidden.cols,
             .k = inner,
             .ldx = out.stride,
             .ldy = hidden.stride,
             .residual = hidden.data,
             .ldr = hidden.stride});
  tap(b, label, hidden);
}

void CpuProgram::node(const ContextKvNode& n, const std::string&, const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim;
  const auto& group = b.context->groups[static_cast<size_t>(n.expert * b.context->groups_per_expert + n.group)];
  const Array in = at(n.in, b);
  const int64_t offset = (n.layer * group.rows + n.row) * inner;
  const Array k{group.k + offset, in.rows, inner, inner};
  linear(in, k, n.wk, n.bk);
  linear(in, {group.v + offset, in.rows, inner, inner}, n.wv, n.bv);
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
