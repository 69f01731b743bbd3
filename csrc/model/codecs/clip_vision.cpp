#include "model/codecs/clip_vision.h"

#include <algorithm>
#include <cmath>

namespace wam {
namespace {

constexpr float kEps = 1e-5f;
constexpr int64_t kMost = int64_t{1} << 16;
constexpr double kMean[3] = {0.48145466, 0.4578275, 0.40821073}, kStd[3] = {0.26862954, 0.26130258, 0.27577711};

// Calls f(name, shape, use, read by the tower?) for every tensor.
template <typename F>
void each_weight(const ClipConfig& c, F&& f) {
  const int64_t d = c.vision_dim, mlp = d * c.vision_mlp_ratio;
  const auto vector = [&](const std::string& name, int64_t n, bool used) {
    f(name, Shape{n}, WeightUse::vector, used);
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool used) {
    f(name + ".weight", Shape{out, in}, WeightUse::matrix, used);
    vector(name + ".bias", out, used);
  };
  const auto norm = [&](const std::string& name, bool used) {
    vector(name + ".weight", d, used);
    vector(name + ".bias", d, used);
  };
  f("visual.cls_embedding", Shape{1, 1, d}, WeightUse::vector, true);
  f("visual.pos_embedding", Shape{1, c.tokens(), d}, WeightUse::vector, true);
  f("visual.patch_embedding.weight", Shape{d, 3, c.patch_size, c.patch_size}, WeightUse::matrix, true);
  norm("visual.pre_norm", true);
  for (int64_t i = 0; i < c.vision_layers; ++i) {
    const std::string key = "visual.transformer." + std::to_string(i) + ".";
    const bool used = i + 1 < c.vision_layers;
    norm(key + "norm1", used);
    linear(key + "attn.to_qkv", 3 * d, d, used);
    linear(key + "attn.proj", d, d, used);
    norm(key + "norm2", used);
    linear(key + "mlp.0", mlp, d, used);
    linear(key + "mlp.2", d, mlp, used);
  }
  norm("visual.post_norm", false);
  f("visual.head", Shape{d, c.embed_dim}, WeightUse::vector, false);
  f("log_scale", Shape{}, WeightUse::vector, false);
}

// Weights of the cubic kernel with a = -0.75 for the four taps around a position, t past the second of them.
void cubic_weights(double t, double* w) {
  constexpr double a = -0.75;
  const auto near = [&](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
  const auto far = [&](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  w[0] = far(t + 1), w[1] = near(t), w[2] = near(1 - t), w[3] = far(2 - t);
}

// Bicubic taps of each target position along one axis; indices stay inside the picture.
struct Taps {
  std::vector<int64_t> index;  // [to, 4]
  std::vector<double> weight;  // [to, 4]
};
Taps taps(int64_t from, int64_t to) {
  Taps out;
  for (int64_t i = 0; i < to; ++i) {
    const double p = (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5;
    const double base = std::floor(p);
    double w[4];
    cubic_weights(p - base, w);
    for (int64_t k = 0; k < 4; ++k) {
      out.index.push_back(std::clamp<int64_t>(static_cast<int64_t>(base) - 1 + k, 0, from - 1));
      out.weight.push_back(w[k]);
    }
  }
  return out;
}

}  // namespace

ClipConfig ClipConfig::parse(const json::Node& node) {
  json::Fields f = node.fields();
  ClipConfig c;
  c.embed_dim = f.need("embed_dim").integer(1, kMost);
  c.image_size = f.need("image_size").integer(1, 4096);
  c.patch_size = f.need("patch_size").integer(1, 4096);
  c.vision_dim = f.need("vision_dim").integer(1, kMost);
  c.vision_mlp_ratio = f.need("vision_mlp_ratio").integer(1, 64);
  c.vision_heads = f.need("vision_heads").integer(1, kMost);
  c.vision_layers = f.need("vision_layers").integer(2, 1024);
  f.finish();
  if (c.image_size % c.patch_size) f.fail("image_size must be a multiple of patch_size");
  if (c.vision_dim % c.vision_heads) f.fail("vision_dim must be a multiple of vision_heads");
  return c;
}

std::vector<KeySpec> ClipVision::keys(const ClipConfig& config) {
  std::vector<KeySpec> out;
  each_weight(config, [&](const std::string& name, const Shape& shape, WeightUse, bool used) {
    out.push_back({name, shape, used});
  });
  return out;
}

ClipVision::ClipVision(ClipConfig config, const WeightSource& source, std::shared_ptr<Backend> backend)
    : config_(config), backend_(std::move(backend)) {
  WeightTable table;
  std::vector<int> ids;
  each_weight(config_, [&](const std::string& name, const Shape& shape, WeightUse use, bool used) {
    if (used) ids.push_back(table.add(name, shape, use));
  });
  weights_ = backend_->pack(table, source);
  cls_ = ids[0], position_ = ids[1], patch_ = ids[2], pre_w_ = ids[3], pre_b_ = ids[4];
  for (size_t at = 5; at < ids.size(); at += 12)
    layers_.push_back({ids[at], ids[at + 1], ids[at + 2], ids[at + 3], ids[at + 4], ids[at + 5], ids[at + 6],
                       ids[at + 7], ids[at + 8], ids[at + 9], ids[at + 10], ids[at + 11]});
}

std::vector<float> ClipVision::preprocess(const Picture& picture) const {
  const int64_t size = config_.image_size;
  const Taps rows = taps(picture.height, size), cols = taps(picture.width, size);
  std::vector<double> wide(static_cast<size_t>(picture.height * size * 3));
  for (int64_t y = 0; y < picture.height; ++y)
    for (int64_t x = 0; x < size; ++x)
      for (int64_t ch = 0; ch < 3; ++ch) {
        double sum = 0;
        for (int64_t k = 0; k < 4; ++k)
          sum += cols.weight[static_cast<size_t>(4 * x + k)] *
                 picture.rgb[(y * picture.width + cols.index[static_cast<size_t>(4 * x + k)]) * 3 + ch];
        wide[static_cast<size_t>((y * size + x) * 3 + ch)] = sum;
      }
  std::vector<float> out(static_cast<size_t>(3 * size * size));
  for (int64_t ch = 0; ch < 3; ++ch)
    for (int64_t y = 0; y < size; ++y)
      for (int64_t x = 0; x < size; ++x) {
        double sum = 0;
        for (int64_t k = 0; k < 4; ++k)
          sum += rows.weight[static_cast<size_t>(4 * y + k)] *
                 wide[static_cast<size_t>((rows.index[static_cast<size_t>(4 * y + k)] * size + x) * 3 + ch)];
        out[static_cast<size_t>((ch * size + y) * size + x)] =
            static_cast<float>((sum * 0.5 + 0.5 - kMean[ch]) / kStd[ch]);
      }
  return out;
}

void ClipVision::encode(const Picture& picture, float* out, const Tap* tap) const {
  const ClipConfig& c = config_;
  const int64_t d = c.vision_dim, n = c.tokens(), mlp = d * c.vision_mlp_ratio, p = c.patch_size,
                side = c.image_size / p;
  Ops& ops = backend_->ops();
  const std::vector<float> pixels = preprocess(picture);
  if (tap) (*tap)("preprocessed", pixels.data(), 3 * c.image_size, c.image_size, c.image_size);
  Tensor patches({n - 1, 3 * p * p}), x({n, d}), z({n, d}), qkv({n, 3 * d}), a({n, d}), up({n, mlp});
  for (int64_t token = 0; token < n - 1; ++token)
    for (int64_t ch = 0; ch < 3; ++ch)
      for (int64_t y = 0; y < p; ++y)
        std::copy_n(pixels.data() + (ch * c.image_size + token / side * p + y) * c.image_size + token % side * p, p,
                    patches.data<float>() + (token * 3 + ch) * p * p + y * p);
  const auto linear = [&](const float* in, int64_t rows, int64_t k, int weight, int bias, float* to, int64_t cols) {
    return kernels::GemmParams{.x = in,
                               .w = weights_->panels(weight),
                               .bias = weights_->data(bias),
                               .y = to,
                               .m = rows,
                               .n = cols,
                               .k = k,
                               .ldx = k,
                               .ldy = cols};
  };
  const auto norm = [&](int weight, int bias, const float* from, float* to) {
    ops.layer_norm({.x = from,
                    .y = to,
                    .rows = n,
                    .cols = d,
                    .ldx = d,
                    .ldy = d,
                    .eps = kEps,
                    .weight = weights_->data(weight),
                    .bias = weights_->data(bias)});
  };
  float* h = x.data<float>();
  ops.gemm(linear(patches.data<float>(), n - 1, 3 * p * p, patch_, kNone, h + d, d));
  std::copy_n(weights_->data(cls_), d, h);
  for (int64_t i = 0; i < n * d; ++i) h[i] += weights_->data(position_)[i];
  norm(pre_w_, pre_b_, h, h);
  if (tap) (*tap)("pre_norm", h, n, d, d);
  const int64_t head_dim = d / c.vision_heads;
  for (size_t at = 0; at < layers_.size(); ++at) {
    const Layer& l = layers_[at];
    norm(l.norm1_w, l.norm1_b, h, z.data<float>());
    ops.gemm(linear(z.data<float>(), n, d, l.qkv_w, l.qkv_b, qkv.data<float>(), 3 * d));
    const float* q = qkv.data<float>();
    const kernels::KeySpan span{q + d, q + 2 * d, n, 3 * d, 3 * d};
    ops.attention({.q = q,
                   .out = a.data<float>(),
                   .rows = n,
                   .heads = c.vision_heads,
                   .head_dim = head_dim,
                   .ldq = 3 * d,
                   .ldo = d,
                   .spans = &span,
                   .span_count = 1,
                   .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))});
    kernels::GemmParams add = linear(a.data<float>(), n, d, l.proj_w, l.proj_b, h, d);
    add.residual = h, add.ldr = d;
    ops.gemm(add);
    norm(l.norm2_w, l.norm2_b, h, z.data<float>());
    kernels::GemmParams widen = linear(z.data<float>(), n, d, l.up_w, l.up_b, up.data<float>(), mlp);
    widen.activation = kernels::Activation::gelu_erf;
    ops.gemm(widen);
    add = linear(up.data<float>(), n, mlp, l.down_w, l.down_b, h, d);
    add.residual = h, add.ldr = d;
    ops.gemm(add);
    if (tap) (*tap)("block" + std::to_string(at), h, n, d, d);
  }
  std::copy_n(h, n * d, out);
}

}  // namespace wam
