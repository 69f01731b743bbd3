#include "model/codecs/text_encoder.h"

#include <algorithm>
#include <cmath>

#include "wamcore/error.h"

namespace wam {
namespace {

constexpr float kEps = 1e-6f;
constexpr int64_t kMost = int64_t{1} << 20;
constexpr double kFarthest = 128.0;  // distances from here on share a bucket

std::string layer_key(int64_t i) { return "blocks." + std::to_string(i) + "."; }

// Registers every weight in the order of the checkpoint's keys.
template <typename F>
void each_weight(const TextEncoderConfig& c, F&& f) {
  f("token_embedding.weight", Shape{c.vocab, c.dim}, WeightUse::vector);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string key = layer_key(i);
    f(key + "norm1.weight", Shape{c.dim}, WeightUse::vector);
    for (const char* part : {"q", "k", "v"})
      f(key + "attn." + part + ".weight", Shape{c.dim_attn, c.dim}, WeightUse::matrix);
    f(key + "attn.o.weight", Shape{c.dim, c.dim_attn}, WeightUse::matrix);
    f(key + "norm2.weight", Shape{c.dim}, WeightUse::vector);
    f(key + "ffn.gate.0.weight", Shape{c.dim_ffn, c.dim}, WeightUse::matrix);
    f(key + "ffn.fc1.weight", Shape{c.dim_ffn, c.dim}, WeightUse::matrix);
    f(key + "ffn.fc2.weight", Shape{c.dim, c.dim_ffn}, WeightUse::matrix);
    f(key + "pos_embedding.embedding.weight", Shape{c.num_buckets, c.num_heads}, WeightUse::vector);
  }
  f("norm.weight", Shape{c.dim}, WeightUse::vector);
}

}  // namespace

TextEncoderConfig TextEncoderConfig::parse(const json::Node& node) {
  json::Fields f = node.fields();
  TextEncoderConfig c;
  c.vocab = f.need("vocab").integer(1, kMost);
  c.dim = f.need("dim").integer(1, kMost);
  c.dim_attn = f.need("dim_attn").integer(1, kMost);
  c.dim_ffn = f.need("dim_ffn").integer(1, kMost);
  c.num_heads = f.need("num_heads").integer(1, kMost);
  c.num_layers = f.need("num_layers").integer(1, kMost);
  c.num_buckets = f.need("num_buckets").integer(4, kMost);
  if (f.need("shared_pos").boolean()) f.fail("shared_pos: wanted false, every layer has its own bias table");
  f.finish();
  if (c.dim_attn % c.num_heads) f.fail("dim_attn must be a multiple of num_heads");
  if (c.num_buckets % 4) f.fail("num_buckets must be a multiple of 4");
  return c;
}

int64_t relative_bucket(int64_t distance, int64_t buckets) {
  const int64_t side = buckets / 2, exact = side / 2, d = std::abs(distance);
  int64_t bucket = d;
  if (d >= exact) {
    const double part = std::log(static_cast<double>(d) / static_cast<double>(exact)) /
                        std::log(kFarthest / static_cast<double>(exact));
    bucket = std::min(side - 1, exact + static_cast<int64_t>(part * static_cast<double>(side - exact)));
  }
  return bucket + (distance > 0 ? side : 0);
}

std::vector<KeySpec> TextEncoder::keys(const TextEncoderConfig& config) {
  std::vector<KeySpec> out;
  each_weight(config, [&](const std::string& name, const Shape& shape, WeightUse) { out.push_back({name, shape}); });
  return out;
}

TextEncoder::TextEncoder(TextEncoderConfig config, const WeightSource& source, std::shared_ptr<Backend> backend)
    : config_(config), backend_(std::move(backend)) {
  WeightTable table;
  std::vector<int> ids;
  each_weight(config_, [&](const std::string& name, const Shape& shape, WeightUse use) {
    ids.push_back(table.add(name, shape, use));
  });
  weights_ = backend_->pack(table, source);
  embedding_ = ids.front(), norm_ = ids.back();
  for (size_t at = 1; at + 1 < ids.size(); at += 10)
    layers_.push_back({.norm1 = ids[at],
                       .q = ids[at + 1],
                       .k = ids[at + 2],
                       .v = ids[at + 3],
                       .o = ids[at + 4],
                       .norm2 = ids[at + 5],
                       .gate = ids[at + 6],
                       .fc1 = ids[at + 7],
                       .fc2 = ids[at + 8],
                       .bias = ids[at + 9]});
}

// bias[head, query, key] from the layer's table of buckets.
void TextEncoder::position_bias(const Layer& layer, int64_t n, float* bias) const {
  const float* table = weights_->data(layer.bias);
  for (int64_t h = 0; h < config_.num_heads; ++h)
    for (int64_t q = 0; q < n; ++q)
      for (int64_t k = 0; k < n; ++k)
        *bias++ = table[relative_bucket(k - q, config_.num_buckets) * config_.num_heads + h];
}

void TextEncoder::encode(const std::vector<int64_t>& ids, int64_t text_len, float* out, const Tap* tap) const {
  const TextEncoderConfig& c = config_;
  const int64_t n = static_cast<int64_t>(ids.size()), inner = c.dim_attn;
  if (n > text_len)
    throw InputError("TextEncoder::encode: wanted at most " + std::to_string(text_len) + " tokens, got " +
                     std::to_string(n));
  std::fill_n(out, text_len * c.dim, 0.0f);
  if (n == 0) return;
  Ops& ops = backend_->ops();
  Tensor x({n, c.dim}), z({n, c.dim}), q({n, inner}), k({n, inner}), v({n, inner}), a({n, inner}), gate({n, c.dim_ffn}),
      up({n, c.dim_ffn}), bias({c.num_heads, n, n});
  const auto data = [](Tensor& t) { return t.data<float>(); };
  const auto show = [&](const std::string& label, Tensor& t) {
    if (tap) (*tap)(label, data(t), t.dim(0), t.dim(1), t.dim(1));
  };
  const auto norm = [&](int weight, Tensor& from, float* to) {  // the RMS norm of a whole row
    ops.qk_norm_rope({.x = data(from),
                      .y = to,
                      .rows = n,
                      .heads = 1,
                      .head_dim = c.dim,
                      .ldx = c.dim,
                      .ldy = c.dim,
                      .eps = kEps,
                      .weight = weights_->data(weight)});
  };
  const auto matrix = [&](int weight, Tensor& from, Tensor& to) {
    return kernels::GemmParams{.x = data(from),
                               .w = weights_->panels(weight),
                               .y = data(to),
                               .m = n,
                               .n = to.dim(1),
                               .k = from.dim(1),
                               .ldx = from.dim(1),
                               .ldy = to.dim(1)};
  };
  const auto add = [&](int weight, Tensor& from, Tensor& to) {  // to += from W^T
    kernels::GemmParams p = matrix(weight, from, to);
    p.residual = data(to), p.ldr = to.dim(1);
    ops.gemm(p);
  };
  std::vector<int32_t> each(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    each[static_cast<size_t>(i)] = static_cast<int32_t>(i);
    const int64_t id = ids[static_cast<size_t>(i)];
    if (id < 0 || id >= c.vocab)
      throw InputError("TextEncoder::encode: token " + std::to_string(id) + " is not in the vocabulary of " +
                       std::to_string(c.vocab));
    std::copy_n(weights_->data(embedding_) + id * c.dim, c.dim, data(x) + i * c.dim);
  }
  for (size_t at = 0; at < layers_.size(); ++at) {
    const Layer& layer = layers_[at];
    norm(layer.norm1, x, data(z));
    ops.gemm(matrix(layer.q, z, q));
    ops.gemm(matrix(layer.k, z, k));
    ops.gemm(matrix(layer.v, z, v));
    position_bias(layer, n, data(bias));
    const kernels::KeySpan span{data(k), data(v), n, inner, inner};
    ops.attention({.q = data(q),
                   .out = data(a),
                   .rows = n,
                   .heads = c.num_heads,
                   .head_dim = inner / c.num_heads,
                   .ldq = inner,
                   .ldo = inner,
                   .spans = &span,
                   .span_count = 1,
                   .scale = 1.0f,
                   .bias = data(bias)});
    add(layer.o, a, x);
    norm(layer.norm2, x, data(z));
    kernels::GemmParams p = matrix(layer.gate, z, gate);
    p.activation = kernels::Activation::gelu_tanh;
    ops.gemm(p);
    p = matrix(layer.fc1, z, up);  // fc1(z) * gelu(gate(z)): the gate of the epilogue, one row each
    p.gate = data(gate), p.ldg = c.dim_ffn, p.gate_row = each.data();
    ops.gemm(p);
    add(layer.fc2, up, x);
    show("block" + std::to_string(at), x);
  }
  norm(norm_, x, out);
}

}  // namespace wam
