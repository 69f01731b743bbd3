#include "model/planner.h"

#include "model/plan_builder.h"
#include "wamcore/error.h"

namespace wam {

Planner::Planner(std::vector<ExpertSpec> experts, std::vector<ContextSpec> contexts, WeightTable& weights)
    : experts_(std::move(experts)), contexts_(std::move(contexts)), weights_(weights) {
  for (const ExpertSpec& e : experts_)
    if (e.heads != experts_[0].heads || e.head_dim != experts_[0].head_dim || e.layers != experts_[0].layers)
      throw ConfigError("Planner: experts must share heads, head_dim and layers");
}

namespace {

// What all layers of one expert share in a pass.
struct Stream {
  const ExpertSpec* spec = nullptr;
  int expert = 0;
  int64_t begin = 0, tokens = 0;  // its rows among all tokens
  std::vector<int32_t> time_row;  // [tokens]
  Slice hidden, z, up, time, time6, modulation;
};

struct Shared {
  std::vector<Stream> streams;
  Slice q, k, v, out;
  std::vector<QuerySpan> queries;
  int64_t store_begin = 0, store_rows = 0;
};

Shared streams(Builder& b, const Planner& planner, const Layout& layout, bool external_hidden) {
  Shared s;
  s.queries = compile_attention(layout);
  int64_t row = 0;
  for (const Segment& segment : layout.segments) {
    if (s.streams.empty() || s.streams.back().spec != &planner.experts()[static_cast<size_t>(segment.expert)]) {
      s.streams.push_back(
          {.spec = &planner.experts().at(static_cast<size_t>(segment.expert)), .expert = segment.expert, .begin = row});
    }
    Stream& stream = s.streams.back();
    stream.tokens += segment.tokens;
    stream.time_row.insert(stream.time_row.end(), segment.time_row.begin(), segment.time_row.end());
    if (segment.store) {
      if (s.store_rows == 0) s.store_begin = row;
      if (s.store_begin + s.store_rows != row)
        throw ShapeError("layout '" + layout.name + "': stored rows must lie together");
      s.store_rows += segment.tokens;
    }
    row += segment.tokens;
  }
  int64_t ffn = 0;
  for (size_t i = 0; i < s.streams.size(); ++i) {
    Stream& stream = s.streams[i];
    const std::string id = std::to_string(i);
    const int64_t dim = stream.spec->dim;
    stream.hidden = b.buffer("hidden" + id, stream.tokens, dim, external_hidden);
    stream.z = b.buffer("z" + id, stream.tokens, dim);
    stream.up = b.buffer("up" + id, stream.tokens, stream.spec->ffn_dim);
    stream.modulation = b.buffer("modulation" + id, layout.time_rows, 6 * dim);
    ffn = std::max(ffn, stream.spec->ffn_dim);
  }
  const int64_t inner = planner.experts()[0].heads * planner.experts()[0].head_dim;
  s.q = b.buffer("q", row, inner);
  s.k = b.buffer("k", row, inner);
  s.v = b.buffer("v", row, inner);
  s.out = b.buffer("attention", row, inner);
  b.plan().ropes.push_back(rope_table(layout, planner.experts()[0].head_dim));
  return s;
}

void time_embedding(Builder& b, Stream& s, const std::string& id, Slice timesteps) {
  const ExpertSpec& e = *s.spec;
  const int64_t rows = timesteps.rows;
  const Slice wave = b.buffer("wave" + id, rows, e.freq_dim), mid = b.buffer("time_mid" + id, rows, e.dim);
  s.time = b.buffer("time" + id, rows, e.dim);
  const Slice act = b.buffer("time_act" + id, rows, e.dim);
  s.time6 = b.buffer("time6_" + id, rows, 6 * e.dim);
  std::vector<int32_t> each(static_cast<size_t>(rows));
  for (size_t i = 0; i < each.size(); ++i) each[i] = static_cast<int32_t>(i);
  b.emit("time_sinusoid", SinusoidNode{timesteps.buffer, each, wave, true});
  b.linear(e.prefix + "time_embedding.0", wave, mid, Activation::silu);
  b.linear(e.prefix + "time_embedding.2", mid, s.time);
  b.emit("time_silu", ActivationNode{s.time, act, Activation::silu});
  b.linear(e.prefix + "time_projection.1", act, s.time6);
}

void enter(Builder& b, const Segment& s, const Stream& stream, Slice out, BufferId timesteps) {
  const ExpertSpec& e = *stream.spec;
  const std::string in_name = s.name + ".in";
  switch (s.entry) {
    case Entry::hidden:
      throw ShapeError("Planner: segment '" + s.name + "' has no entry");
    case Entry::patch: {
      PatchifyNode cut{{}, s.grid.frames, s.grid.height, s.grid.width, {}};
      const int64_t area = s.grid.frames * s.grid.height * s.grid.width;
      cut.latents.push_back(b.buffer(in_name, s.in_features, area, true).buffer);
      if (s.cond_channels) cut.latents.push_back(b.buffer(s.name + ".cond", s.cond_channels, area, true).buffer);
      const int64_t channels = s.in_features + s.cond_channels;
      cut.out = b.buffer(s.name + ".patches", s.tokens, 4 * channels);
      const Slice patches = cut.out;
      b.emit(s.name + ".patchify", std::move(cut));
      const std::string key = e.prefix + "patch_embedding";
      const Shape shape = e.patch_is_linear ? Shape{e.dim, 4 * channels} : Shape{e.dim, channels, 1, 2, 2};
      b.emit(key, LinearNode{patches, out, b.weight(key + ".weight", shape, WeightUse::matrix),
                             b.weight(key + ".bias", {e.dim})});
      return;
    }
    case Entry::linear:
      return b.linear(e.prefix + "action_encoder", b.buffer(in_name, s.tokens, s.in_features, true), out);
    case Entry::action_mlp: {
      const std::string key = e.prefix + "action_encoder.";
      const Slice both = b.buffer(s.name + ".with_time", s.tokens, 2 * e.dim);
      const Slice mid = b.buffer(s.name + ".mid", s.tokens, e.dim);
      b.category(key + "W1", b.buffer(in_name, s.tokens, s.in_features, true), cols_of(both, 0, e.dim));
      b.emit(key + "sinusoid", SinusoidNode{timesteps, s.time_row, cols_of(both, e.dim, e.dim), false});
      b.category(key + "W2", both, mid, Activation::silu);
      return b.category(key + "W3", mid, out);
    }
    case Entry::state_mlp: {
      const std::string key = e.prefix + "state_encoder.";
      const Slice mid = b.buffer(s.name + ".mid", s.tokens, e.mlp_dim);
      b.category(key + "layer1", b.buffer(in_name, s.tokens, s.in_features, true), mid, Activation::relu);
      return b.category(key + "layer2", mid, out);
    }
  }
}

void leave(Builder& b, const Segment& s, const Stream& stream, Slice hidden, Slice z) {
  const ExpertSpec& e = *stream.spec;
  const std::string out_name = s.name + ".out";
  switch (s.exit) {
    case Exit::none:
    case Exit::hidden:
      return;
    case Exit::linear:
      return b.linear(e.prefix + "head", hidden, b.buffer(out_name, s.tokens, s.out_features, true));
    case Exit::mlp: {
      const std::string key = e.prefix + "action_decoder.";
      const Slice mid = b.buffer(s.name + ".decoded", s.tokens, e.mlp_dim);
      b.category(key + "layer1", hidden, mid, Activation::relu);
      return b.category(key + "layer2", mid, b.buffer(out_name, s.tokens, s.out_features, true));
    }
    case Exit::adaln_linear: {
      const std::string key = e.prefix + "head.";
      const Slice m = b.buffer(s.name + ".head_modulation", stream.time.rows, 2 * e.dim);
      b.emit(key + "modulation", ModulationNode{b.weight(key + "modulation", {1, 2, e.dim}), stream.time, m});
      b.emit(key + "norm", NormNode{hidden, z, kNone, kNone, e.eps, m, 0, 1, s.time_row});
      if (s.entry != Entry::patch) return b.linear(key + "head", z, b.buffer(out_name, s.tokens, s.out_features, true));
      const Slice patches = b.buffer(s.name + ".velocity_patches", s.tokens, 4 * s.out_features);
      b.linear(key + "head", z, patches);
      const int64_t area = s.grid.frames * s.grid.height * s.grid.width;
      b.emit(s.name + ".unpatchify", UnpatchifyNode{patches, b.buffer(out_name, s.out_features, area, true).buffer,
                                                    s.grid.frames, s.grid.height, s.grid.width});
      return;
    }
  }
}

SelfAttentionPart attention_part(Builder& b, const Stream& s, int64_t layer) {
  const ExpertSpec& e = *s.spec;
  const int64_t inner = e.heads * e.head_dim;
  const std::string key = block_key(e, layer) + "self_attn.";
  SelfAttentionPart part{
      .hidden = s.hidden, .z = s.z, .modulation = s.modulation, .time_row = s.time_row, .begin = s.begin};
  part.wq = b.layer_matrix(key + "q.weight", inner, e.dim), part.bq = b.weight(key + "q.bias", {inner});
  part.wk = b.layer_matrix(key + "k.weight", inner, e.dim), part.bk = b.weight(key + "k.bias", {inner});
  part.wv = b.layer_matrix(key + "v.weight", inner, e.dim), part.bv = b.weight(key + "v.bias", {inner});
  part.wo = b.layer_matrix(key + "o.weight", e.dim, inner), part.bo = b.weight(key + "o.bias", {e.dim});
  b.join({part.wq, part.wk, part.wv}), b.join({part.bq, part.bk, part.bv});
  part.norm_q = b.weight(key + "norm_q.weight", {inner});
  part.norm_k = b.weight(key + "norm_k.weight", {inner});
  return part;
}

void cross_attention(Builder& b, const Stream& s, const Shared& shared, int64_t layer, const std::vector<int>& groups) {
  const ExpertSpec& e = *s.spec;
  const int64_t inner = e.heads * e.head_dim;
  const std::string block = block_key(e, layer), key = block + "cross_attn.";
  CrossAttentionNode n{.layer = static_cast<int>(layer),
                       .expert = s.expert,
                       .heads = e.heads,
                       .head_dim = e.head_dim,
                       .eps = e.eps,
                       .hidden = s.hidden,
                       .z = s.z,
                       .q = rows_of(shared.q, s.begin, s.tokens),
                       .out = rows_of(shared.out, s.begin, s.tokens)};
  n.norm_weight = b.weight(block + "norm3.weight", {e.dim});
  n.norm_bias = b.weight(block + "norm3.bias", {e.dim});
  n.wq = b.layer_matrix(key + "q.weight", inner, e.dim), n.bq = b.weight(key + "q.bias", {inner});
  n.wo = b.layer_matrix(key + "o.weight", e.dim, inner), n.bo = b.weight(key + "o.bias", {e.dim});
  n.norm_q = b.weight(key + "norm_q.weight", {inner});
  n.groups = groups;
  b.emit(block + "cross", std::move(n));
}

void feed_forward(Builder& b, const Stream& s, int64_t layer) {
  const ExpertSpec& e = *s.spec;
  const std::string block = block_key(e, layer), key = block + "ffn.";
  FeedForwardNode n{
      .hidden = s.hidden, .z = s.z, .up = s.up, .modulation = s.modulation, .time_row = s.time_row, .eps = e.eps};
  n.w1 = b.layer_matrix(key + "0.weight", e.ffn_dim, e.dim), n.b1 = b.weight(key + "0.bias", {e.ffn_dim});
  n.w2 = b.layer_matrix(key + "2.weight", e.dim, e.ffn_dim), n.b2 = b.weight(key + "2.bias", {e.dim});
  b.emit(block + "ffn", std::move(n));
}

void layer(Builder& b, const Shared& shared, const std::vector<int>& groups, int64_t at, bool kv_only) {
  SelfAttentionNode n{.layer = static_cast<int>(at),
                      .heads = shared.streams[0].spec->heads,
                      .head_dim = shared.streams[0].spec->head_dim,
                      .eps = shared.streams[0].spec->eps};
  for (const Stream& s : shared.streams) {
    const std::string key = block_key(*s.spec, at);
    b.emit(key + "modulation",
           ModulationNode{b.weight(key + "modulation", {1, 6, s.spec->dim}), s.time6, s.modulation});
    n.parts.push_back(attention_part(b, s, at));
  }
  n.q = shared.q, n.k = shared.k, n.v = shared.v, n.out = shared.out;
  n.rope = 0;
  n.queries = shared.queries;
  n.store_begin = shared.store_begin, n.store_rows = shared.store_rows;
  n.kv_only = kv_only;
  b.emit(block_key(*shared.streams[0].spec, at) + "self", std::move(n));
  if (kv_only) return;
  for (const Stream& s : shared.streams) {
    cross_attention(b, s, shared, at, groups);
    feed_forward(b, s, at);
  }
}

}  // namespace

Plan Planner::forward(const Layout& layout) const {
  Builder b(*this, weights_, layout.name);
  Shared shared = streams(b, *this, layout, /*external_hidden=*/false);
  const Slice timesteps = b.buffer("timesteps", layout.time_rows, 1, true);
  for (size_t i = 0; i < shared.streams.size(); ++i) time_embedding(b, shared.streams[i], std::to_string(i), timesteps);
  const auto each_segment = [&](auto&& f) {
    for (size_t i = 0, at = 0; i < layout.segments.size(); ++i) {
      while (layout.begin(i) >= shared.streams[at].begin + shared.streams[at].tokens) ++at;
      const Stream& s = shared.streams[at];
      f(layout.segments[i], s, layout.begin(i) - s.begin);
    }
  };
  each_segment([&](const Segment& s, const Stream& stream, int64_t row) {
    enter(b, s, stream, rows_of(stream.hidden, row, s.tokens), timesteps.buffer);
  });
  const int64_t layers = experts_[0].layers;
  for (int64_t i = 0; i < layers; ++i) layer(b, shared, layout.groups, i, layout.want == Want::kv && i + 1 == layers);
  if (layout.want == Want::head)
    each_segment([&](const Segment& s, const Stream& stream, int64_t row) {
      leave(b, s, stream, rows_of(stream.hidden, row, s.tokens), rows_of(stream.z, row, s.tokens));
    });
  return b.take();
}

Plan Planner::block(const Layout& layout, int at) const {
  Builder b(*this, weights_, layout.name);
  Shared shared = streams(b, *this, layout, /*external_hidden=*/true);
  for (size_t i = 0; i < shared.streams.size(); ++i)
    shared.streams[i].time6 =
        b.buffer("e0_" + std::to_string(i), layout.time_rows, 6 * shared.streams[i].spec->dim, true);
  layer(b, shared, layout.groups, at, /*kv_only=*/false);
  return b.take();
}

}  // namespace wam
