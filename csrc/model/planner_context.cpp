// Plans that compute the K/V of context rows, once a prompt or once a context.
#include "model/plan_builder.h"

namespace wam {

namespace {

void context_kv(Builder& b, const ExpertSpec& e, int expert, int group, const ContextSpec& c, Slice rows) {
  const int64_t inner = e.heads * e.head_dim;
  for (int64_t layer = 0; layer < e.layers; ++layer) {
    const std::string key = block_key(e, layer) + "cross_attn.";
    ContextKvNode n{.layer = static_cast<int>(layer),
                    .expert = expert,
                    .group = group,
                    .heads = e.heads,
                    .head_dim = e.head_dim,
                    .eps = e.eps,
                    .in = rows};
    n.wk = b.matrix(key + "k" + c.suffix + ".weight", inner, e.dim);
    n.bk = b.weight(key + "k" + c.suffix + ".bias", {inner});
    n.wv = b.matrix(key + "v" + c.suffix + ".weight", inner, e.dim);
    n.bv = b.weight(key + "v" + c.suffix + ".bias", {inner});
    b.join({n.wk, n.wv}), b.join({n.bk, n.bv});
    n.norm_k = b.weight(key + "norm_k" + c.suffix + ".weight", {inner});
    b.emit(key + "context" + c.suffix, std::move(n));
  }
}

}  // namespace

Plan Planner::text_context(int group) const {
  Builder b(*this, weights_, "text_context");
  const ContextSpec& c = contexts_.at(static_cast<size_t>(group));
  const Slice text = b.buffer("text", c.rows, c.in_features, true);
  for (size_t i = 0; i < experts_.size(); ++i) {
    const ExpertSpec& e = experts_[i];
    const Slice mid = b.buffer("mid" + std::to_string(i), c.rows, e.dim);
    const Slice rows = b.buffer("rows" + std::to_string(i), c.rows, e.dim);
    b.linear(e.prefix + "text_embedding.0", text, mid, Activation::gelu_tanh);
    b.linear(e.prefix + "text_embedding.2", mid, rows);
    context_kv(b, e, static_cast<int>(i), group, c, rows);
  }
  return b.take();
}

Plan Planner::embedded_context(int group) const {
  Builder b(*this, weights_, "embedded_context");
  const ContextSpec& c = contexts_.at(static_cast<size_t>(group));
  context_kv(b, experts_[0], 0, group, c, b.buffer("rows", c.rows, experts_[0].dim, true));
  return b.take();
}

Plan Planner::image_context(int group) const {
  Builder b(*this, weights_, "image_context");
  const ContextSpec& c = contexts_.at(static_cast<size_t>(group));
  constexpr float kEps = 1e-5f;  // of the two norms of img_emb, unlike the blocks'
  const Slice image = b.buffer("image", c.rows, c.in_features, true);
  for (size_t i = 0; i < experts_.size(); ++i) {
    const ExpertSpec& e = experts_[i];
    const std::string id = std::to_string(i), proj = e.prefix + "img_emb.proj.";
    const Slice normed = b.buffer("normed" + id, c.rows, c.in_features),
                mid = b.buffer("mid" + id, c.rows, c.in_features);
    const Slice wide = b.buffer("wide" + id, c.rows, e.dim), rows = b.buffer("rows" + id, c.rows, e.dim);
    b.emit(proj + "0", NormNode{image,
                                normed,
                                b.weight(proj + "0.weight", {c.in_features}),
                                b.weight(proj + "0.bias", {c.in_features}),
                                kEps,
                                {},
                                0,
                                1,
                                {}});
    b.linear(proj + "1", normed, mid, Activation::gelu_erf);
    b.linear(proj + "3", mid, wide);
    b.emit(
        proj + "4",
        NormNode{
            wide, rows, b.weight(proj + "4.weight", {e.dim}), b.weight(proj + "4.bias", {e.dim}), kEps, {}, 0, 1, {}});
    context_kv(b, e, static_cast<int>(i), group, c, rows);
  }
  return b.take();
}

}  // namespace wam
