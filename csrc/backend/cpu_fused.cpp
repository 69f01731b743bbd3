#include "backend/cpu_fused.h"

#include "backend/cpu_layers.h"

namespace wam {
namespace {

bool same(const Slice& a, const Slice& b) {
  return a.buffer == b.buffer && a.row == b.row && a.rows == b.rows && a.col == b.col && a.cols == b.cols;
}

}  // namespace

FusedCpuProgram::FusedCpuProgram(Plan plan, std::shared_ptr<const PackedWeights> weights, CpuOps& ops)
    : CpuProgram(std::move(plan), std::move(weights), ops) {
  const auto& nodes = this->plan().nodes;
  const Slice* hidden = nullptr;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto* self = std::get_if<SelfAttentionNode>(&nodes[i]);
    const auto* feed = std::get_if<FeedForwardNode>(&nodes[i]);
    const auto* cross_node = std::get_if<CrossAttentionNode>(&nodes[i]);
    if (feed)
      scratch_each_ =
          std::max(scratch_each_, kernels::feed_forward_scratch(feed->hidden.cols, feed->up.cols, /*threads=*/1));
    hidden = feed ? &feed->hidden : cross_node ? &cross_node->hidden : nullptr;
    // What follows a self-attention layer row by row belongs to it.
    const auto of_layer = [&](const SelfAttentionPart& part) { return hidden && same(part.hidden, *hidden); };
    if (self && !self->kv_only && enough_rows(*self)) {
      layers_.push_back({.self = i, .end = i + 1});
    } else if (!layers_.empty() && layers_.back().end == i) {
      const auto& parts = std::get<SelfAttentionNode>(nodes[layers_.back().self]).parts;
      if (std::any_of(parts.begin(), parts.end(), of_layer)) layers_.back().end = i + 1;
    }
  }
  scratch_ = reserve(scratch_each_ * ops.threads());
}

// With fewer rows a thread the weights would be read by all for little work: there all threads share each matrix.
bool FusedCpuProgram::enough_rows(const SelfAttentionNode& n) const {
  constexpr int64_t kLeast = 4;
  return n.q.rows >= kLeast * ops().threads();
}

void FusedCpuProgram::run(const Bindings& b) const {
  auto next = layers_.begin();
  for (size_t i = 0; i < plan().nodes.size();) {
    if (next != layers_.end() && next->self == i) {
      layer(*next, b);
      i = (next++)->end;
    } else {
      run_node(i++, b);
    }
  }
}

void FusedCpuProgram::layer(const Layer& l, const Bindings& b) const {
  const auto& n = std::get<SelfAttentionNode>(plan().nodes[l.self]);
  const int64_t tokens = n.q.rows;
  // Tokens [from, end) of a part that are this share's.
  const auto each_part = [&](const kernels::Team& team, auto&& body) {
    const auto [from, end] = team.share(tokens);
    for (const SelfAttentionPart& part : n.parts) {
      const int64_t first = std::max(from, part.begin), last = std::min(end, part.begin + part.hidden.rows);
      if (first < last) body(part, first, last);
    }
  };
  ops().share([&](const kernels::Team& team) {
    LoneOps alone(ops(), team);
    each_part(team, [&](const SelfAttentionPart& part, int64_t from, int64_t end) {
      project(alone, n, part, from, end, nullptr, b);
    });
  });
  // All keys are there; from here on a row needs no other.
  ops().share([&](const kernels::Team& team) {
    LoneOps alone(ops(), team);
    each_part(team, [&](const SelfAttentionPart& part, int64_t from, int64_t end) {
      attend(alone, n, from, end, b);
      close_attention(alone, n, part, from, end, b);
      const int64_t row = from - part.begin, rows = end - from;
      for (size_t i = l.self + 1; i < l.end; ++i) {
        const Node& any = plan().nodes[i];
        if (const auto* c = std::get_if<CrossAttentionNode>(&any); c && same(c->hidden, part.hidden))
          cross(alone, *c, row, rows, nullptr, b);
        if (const auto* f = std::get_if<FeedForwardNode>(&any); f && same(f->hidden, part.hidden))
          feed_forward(alone, *f, row, rows, team.rank, b);
      }
    });
  });
  for (const SelfAttentionPart& part : n.parts) tap(b, plan().labels[l.end - 1], at(part.hidden, b));
}

void FusedCpuProgram::feed_forward(LoneOps& alone, const FeedForwardNode& n, int64_t row, int64_t rows, int rank,
                                   const Bindings& b) const {
  const Array hidden = rows_of(at(n.hidden, b), row, rows), m = at(n.modulation, b);
  const int64_t dim = hidden.cols;
  alone.step("feed-forward");
  alone.feed_forward({.x = hidden.data,
                      .rows = rows,
                      .dim = dim,
                      .hidden = n.up.cols,
                      .ldx = hidden.stride,
                      .eps = n.eps,
                      .shift = m.data + 3 * dim,
                      .scale = m.data + 4 * dim,
                      .gate = m.data + 5 * dim,
                      .ldm = m.stride,
                      .time_row = n.time_row.data() + row,
                      .w1 = matrix(n.w1),
                      .b1 = weight(n.b1),
                      .w2 = matrix(n.w2),
                      .b2 = weight(n.b2),
                      .scratch = b.workspace + scratch_ + rank * scratch_each_});
}

void FusedCpuProgram::node(const FeedForwardNode& n, const std::string& label, const Bindings& b) const {
  const int64_t tokens = n.hidden.rows;
  ops().share([&](const kernels::Team& team) {
    const auto [from, end] = team.share(tokens);
    LoneOps alone(ops(), team);
    if (from < end) feed_forward(alone, n, from, end - from, team.rank, b);
  });
  tap(b, label, at(n.hidden, b));
}

}  // namespace wam
