#pragma once

#include <algorithm>
#include <cmath>

#include "backend/cpu_program.h"
#include "wamcore/kernels/feed_forward.h"

// The layers of a transformer over some of their rows, written once: the plain program calls them for all rows with
// operations that threads share, the fused one for each thread's rows with operations that the thread does alone.

namespace wam {

/// The same operations as CpuOps, all on the calling thread. The first share counts them for all.
class LoneOps {
 public:
  LoneOps(CpuOps& ops, const kernels::Team& team)
      : counter_(team.rank == 0 ? &ops : nullptr), clock_(ops.clock().on() ? &ops.clock() : nullptr), team_(team) {}
  ~LoneOps() {
    if (clock_) clock_->add({"layers", "wait"}, 0, -claimed_);
  }
  LoneOps(const LoneOps&) = delete;
  LoneOps& operator=(const LoneOps&) = delete;
  void step(const char* name) { step_ = name; }

  void gemm(const kernels::GemmParams& p) { run(gemm_operation(p), p, kernels::gemm); }
  void attention(const kernels::AttentionParams& p) { run(CpuOperation::attention, p, kernels::attention); }
  void layer_norm(const kernels::LayerNormParams& p) { run(CpuOperation::norm, p, kernels::layer_norm); }
  void qk_norm_rope(const kernels::QkNormRopeParams& p) { run(CpuOperation::norm, p, kernels::qk_norm_rope); }
  void feed_forward(const kernels::FeedForwardParams& p) {
    run(p.w1.int8                ? CpuOperation::feed_forward_int8
        : p.w1.rounds            ? CpuOperation::feed_forward_rounded
        : p.w1.bf16 || p.w2.bf16 ? CpuOperation::feed_forward_bf16
                                 : CpuOperation::feed_forward,
        p, kernels::feed_forward);
  }

 private:
  template <class Params>
  void run(CpuOperation operation, const Params& p, void (*kernel)(const Params&, const kernels::Team&)) {
    if (counter_) counter_->count(operation);
    if (!clock_) return kernel(p, {});
    const auto began = OperationClock::Time::now();
    kernel(p, {});
    const double ns = OperationClock::since(began) / team_.size;  // the shares of a team run at once
    claimed_ += ns;
    clock_->add(name_of(operation, step_), counter_ ? 1 : 0, ns, cost_of(p));
  }
  CpuOps* counter_;
  OperationClock* clock_;
  kernels::Team team_;
  const char* step_ = "layers";
  double claimed_ = 0.0;  // ns of the step's wall time
};

/// Rows [from, from + rows) of an array.
inline CpuProgram::Array CpuProgram::rows_of(const Array& a, int64_t from, int64_t rows) {
  return {a.data + from * a.stride, rows, a.cols, a.stride};
}

template <class O>
void CpuProgram::linear(O& ops, const Array& in, const Array& out, WeightId weight_id, WeightId bias) const {
  ops.gemm({.x = in.data,
            .w = matrix(weight_id),
            .bias = weight(bias),
            .y = out.data,
            .m = out.rows,
            .n = out.cols,
            .k = in.cols,
            .ldx = in.stride,
            .ldy = out.stride});
}

/// out = LN(in) with the shift and the scale of each row's timestep, two column groups of m.
template <class O>
void CpuProgram::modulated_norm(O& ops, const Array& in, const Array& out, const Modulation& m, float eps) {
  ops.layer_norm({.x = in.data,
                  .y = out.data,
                  .rows = in.rows,
                  .cols = in.cols,
                  .ldx = in.stride,
                  .ldy = out.stride,
                  .eps = eps,
                  .shift = m.data,
                  .scale = m.data + in.cols,
                  .ldm = m.ld,
                  .time_row = m.time_row});
}

/// hidden += gate * (in W^T + bias), the gate of each row's timestep; an empty one is 1.
template <class O>
void CpuProgram::add_linear(O& ops, const Array& in, const Array& hidden, WeightId weight_id, WeightId bias,
                            const Modulation& gate) const {
  ops.gemm({.x = in.data,
            .w = matrix(weight_id),
            .bias = weight(bias),
            .y = hidden.data,
            .m = hidden.rows,
            .n = hidden.cols,
            .k = in.cols,
            .ldx = in.stride,
            .ldy = hidden.stride,
            .residual = hidden.data,
            .ldr = hidden.stride,
            .gate = gate.data,
            .ldg = gate.ld,
            .gate_row = gate.time_row});
}

/// q and K rows: norm over the full width, then rotation.
template <class O>
void CpuProgram::norm_rope(O& ops, const SelfAttentionNode& n, WeightId norm, int64_t token, const Array& from,
                           float* to) const {
  const int64_t half = n.head_dim / 2;
  const RopeTable* rope = n.rope == kNone ? nullptr : &plan_.ropes[static_cast<size_t>(n.rope)];
  ops.qk_norm_rope({.x = from.data,
                    .y = to,
                    .rows = from.rows,
                    .heads = n.heads,
                    .head_dim = n.head_dim,
                    .ldx = from.stride,
                    .ldy = from.stride,
                    .eps = n.eps,
                    .weight = weight(norm),
                    .cos = rope ? rope->cos.data() + token * half : nullptr,
                    .sin = rope ? rope->sin.data() + token * half : nullptr});
}

/// Calls to(first token, tokens, K, V) for each run of tokens [from, end) whose K/V go to one place: the scratch
/// arrays of this pass, or a slot of the memory where the pass stores them.
template <class To>
void CpuProgram::key_places(const SelfAttentionNode& n, const Bindings& b, int64_t from, int64_t end, To&& to) const {
  const int64_t inner = n.heads * n.head_dim, stop = n.store_begin + n.store_rows;
  float *k = at(n.k, b).data, *v = at(n.v, b).data;
  const auto run = [&](int64_t low, int64_t high, float* key, float* value) {  // key, value: of token `low`'s origin
    const int64_t first = std::max(low, from), last = std::min(high, end);
    if (first < last) to(first, last - first, key + (first - low) * inner, value + (first - low) * inner);
  };
  if (n.store_rows == 0) return run(from, end, k + from * inner, v + from * inner);
  run(0, n.store_begin, k, v);
  const size_t layer = static_cast<size_t>(n.layer);
  int64_t token = n.store_begin;
  for (int i = 0; i < b.memory->writes; ++i) {
    const RowRange& slot = b.memory->write[i];
    run(token, token + slot.rows, b.memory->k[layer] + slot.begin * inner, b.memory->v[layer] + slot.begin * inner);
    token += slot.rows;
  }
  run(stop, end, k + stop * inner, v + stop * inner);
}

/// Tokens [from, end) of one part: norm, q, and K/V straight into their places.
template <class O>
void CpuProgram::project(O& ops, const SelfAttentionNode& n, const SelfAttentionPart& part, int64_t from, int64_t end,
                         const std::string* label, const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim, row = from - part.begin, rows = end - from;
  const Array hidden = rows_of(at(part.hidden, b), row, rows), z = rows_of(at(part.z, b), row, rows);
  const Array m = at(part.modulation, b), k{at(n.k, b).data + from * inner, rows, inner, inner};
  ops.step("q, k, v");
  modulated_norm(ops, hidden, z, {m.data, m.stride, part.time_row.data() + row}, n.eps);
  if (label) tap(b, *label, z, ".norm1");
  linear(ops, z, k, part.wk, part.bk);
  if (label) tap(b, *label, k, ".k");
  key_places(n, b, from, end, [&](int64_t token, int64_t count, float* key, float* value) {
    norm_rope(ops, n, part.norm_k, token, rows_of(k, token - from, count), key);
    linear(ops, rows_of(z, token - from, count), {value, count, inner, inner}, part.wv, part.bv);
  });
  if (n.kv_only) return;
  const Array q{at(n.q, b).data + from * inner, rows, inner, inner};
  linear(ops, z, q, part.wq, part.bq);
  if (label) tap(b, *label, q, ".q");
  norm_rope(ops, n, part.norm_q, from, q, q.data);
  if (label) tap(b, *label, q, ".q_roped");
}

/// Attention of tokens [from, end), over keys that are complete.
template <class O>
void CpuProgram::attend(O& ops, const SelfAttentionNode& n, int64_t from, int64_t end, const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim;
  const Array q = at(n.q, b), k = at(n.k, b), v = at(n.v, b), out = at(n.out, b);
  ops.step("self-attention");
  for (const QuerySpan& query : n.queries) {
    const int64_t first = std::max(from, query.begin), last = std::min(end, query.begin + query.rows);
    if (first >= last) continue;
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
    ops.attention({.q = q.data + first * inner,
                   .out = out.data + first * inner,
                   .rows = last - first,
                   .heads = n.heads,
                   .head_dim = n.head_dim,
                   .ldq = inner,
                   .ldo = inner,
                   .spans = spans,
                   .span_count = count,
                   .scale = 1.0f / std::sqrt(static_cast<float>(n.head_dim))});
  }
}

/// hidden += gate * Wo attention, of tokens [from, end) of one part.
template <class O>
void CpuProgram::close_attention(O& ops, const SelfAttentionNode& n, const SelfAttentionPart& part, int64_t from,
                                 int64_t end, const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim, row = from - part.begin;
  const Array hidden = rows_of(at(part.hidden, b), row, end - from), m = at(part.modulation, b);
  const Array out{at(n.out, b).data + from * inner, hidden.rows, inner, inner};
  ops.step("output of self-attention");
  add_linear(ops, out, hidden, part.wo, part.bo, {m.data + 2 * hidden.cols, m.stride, part.time_row.data() + row});
}

/// Rows [row, row + rows) of a cross-attention layer.
template <class O>
void CpuProgram::cross(O& ops, const CrossAttentionNode& n, int64_t row, int64_t rows, const std::string* label,
                       const Bindings& b) const {
  const int64_t inner = n.heads * n.head_dim;
  const Array hidden = rows_of(at(n.hidden, b), row, rows), z = rows_of(at(n.z, b), row, rows);
  const Array q = rows_of(at(n.q, b), row, rows), out = rows_of(at(n.out, b), row, rows);
  ops.step("cross-attention");
  ops.layer_norm({.x = hidden.data,
                  .y = z.data,
                  .rows = rows,
                  .cols = hidden.cols,
                  .ldx = hidden.stride,
                  .ldy = z.stride,
                  .eps = n.eps,
                  .weight = weight(n.norm_weight),
                  .bias = weight(n.norm_bias)});
  if (label) tap(b, *label, z, ".norm3");
  linear(ops, z, q, n.wq, n.bq);
  ops.qk_norm_rope({.x = q.data,
                    .y = q.data,
                    .rows = rows,
                    .heads = n.heads,
                    .head_dim = n.head_dim,
                    .ldx = q.stride,
                    .ldy = q.stride,
                    .eps = n.eps,
                    .weight = weight(n.norm_q)});
  if (label) tap(b, *label, q, ".q");
  bool first = true;
  for (const int id : n.groups) {
    const auto& group = b.context->groups[static_cast<size_t>(n.expert * b.context->groups_per_expert + id)];
    const int64_t offset = n.layer * group.rows * inner;
    const kernels::KeySpan span{group.k + offset, group.v + offset, group.rows, inner, inner};
    ops.attention({.q = q.data,
                   .out = out.data,
                   .rows = rows,
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
  if (label) tap(b, *label, out, ".attention");
  add_linear(ops, out, hidden, n.wo, n.bo, {});
}

}  // namespace wam
