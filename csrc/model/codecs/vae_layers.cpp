#include "model/codecs/vae_layers.h"

#include <algorithm>
#include <cmath>

namespace wam {

using kernels::ConvParams;
using kernels::PixelStrides;

namespace {

PixelStrides strides(const FrameShape& s) { return {s.row(), s.channels}; }

constexpr int kMaxInputs = kMaxFrames + 2;  // of a convolution: two frames of the past, then the group

}  // namespace

Frames VaePass::run(const VaeStage& stage, const Frames& x) {
  Frames y;
  const Frames* in = &x;
  for (const VaeLayer& layer : stage.layers) {
    y = std::visit([&](const auto& l) { return run(l, *in); }, layer);
    in = &y;
  }
  if (stage.shortcut) add(*stage.shortcut, x, y);
  return y;
}

Frames VaePass::norm(int gamma, const Frames& x, bool silu) {
  const FrameShape& s = x.shape();
  Frames y = pool_.take(x.count, s);
  for (int i = 0; i < x.count; ++i)  // the apron, too: its zeros stay zeros
    ops_.channel_norm({.x = x[i].all(),
                       .y = y[i].all(),
                       .rows = s.pixels(),
                       .cols = s.channels,
                       .gamma = weights_.data(gamma),
                       .silu = silu});
  return y;
}

Frames VaePass::convolve(const VaeConv& conv, std::span<const float* const> x, const FrameShape& x_shape, ConvParams p,
                         const Frames* residual) {
  const int64_t count = (static_cast<int64_t>(x.size()) - conv.shape.time) / p.time_stride + 1;
  const FrameShape shape{x_shape.height / p.stride, x_shape.width / p.stride, conv.shape.out};
  Frames y = pool_.take(static_cast<int>(count), shape);
  float* out[kMaxFrames];
  const float* before[kMaxFrames];
  for (int i = 0; i < y.count; ++i) {
    out[i] = y[i].pixels();
    if (residual) before[i] = (*residual)[i].pixels();
  }
  p.x = x.data();
  p.w = weights_.data(conv.weight);
  p.live = weights_.live_taps(conv.weight);
  p.bias = weights_.data(conv.bias);
  p.y = out;
  p.residual = residual ? before : nullptr;
  p.shape = conv.shape;
  p.frames = count;
  p.height = shape.height;
  p.width = shape.width;
  p.ldx = x_shape.row();
  p.ldy = shape.row();
  p.ldr = residual ? residual->shape().row() : 0;
  ops_.conv(p);
  return y;
}

Frames VaePass::causal(const VaeConv& conv, Frames x, const Frames* residual) {
  const Frames& past = past_[static_cast<size_t>(conv.slot)];
  const float* in[kMaxInputs];
  int n = 0;
  for (int64_t i = past.count; i < conv.shape.time - 1; ++i) in[n++] = nullptr;  // before the stream all is zero
  for (int i = 0; i < past.count; ++i) in[n++] = past[i].pixels();
  for (int i = 0; i < x.count; ++i) in[n++] = x[i].pixels();
  Frames y = convolve(conv, {in, static_cast<size_t>(n)}, x.shape(), {.pad = conv.shape.rows / 2}, residual);
  remember(conv, std::move(x));
  return y;
}

// Keeps the last two inputs, unless every tap that would meet them is zero.
void VaePass::remember(const VaeConv& conv, Frames x) {
  const uint32_t past_taps = (1u << (conv.shape.time - 1)) - 1;
  if (!(weights_.live_taps(conv.weight) & past_taps)) return;
  Frames& past = past_[static_cast<size_t>(conv.slot)];
  Frames kept;
  if (x.count == 1 && past.count > 0) kept.push(std::move(past[past.count - 1]));
  for (int i = std::max(0, x.count - 2); i < x.count; ++i) kept.push(std::move(x[i]));
  past = std::move(kept);
}

Frames VaePass::spatial(const VaeConv& conv, const Frames& x, const Frames* residual, int64_t stride) {
  const float* in[kMaxFrames];
  for (int i = 0; i < x.count; ++i) in[i] = x[i].pixels();
  // A stride of 2 has its padding on the right and below, where the apron is.
  const ConvParams p{.stride = stride, .pad = stride == 1 ? conv.shape.rows / 2 : 0};
  return convolve(conv, {in, static_cast<size_t>(x.count)}, x.shape(), p, residual);
}

Frames VaePass::run(const ResidualBlock& block, const Frames& x) {
  Frames h = causal(block.conv1, norm(block.gamma1, x));
  h = norm(block.gamma2, h);
  if (!block.shortcut) return causal(block.conv2, std::move(h), &x);
  const Frames skip = spatial(*block.shortcut, x);
  return causal(block.conv2, std::move(h), &skip);
}

Frames VaePass::run(const FrameAttention& block, const Frames& x) {
  const Frames z = norm(block.gamma, x, false);
  Frames y = pool_.take(x.count, x.shape());
  for (int i = 0; i < x.count; ++i) attend(block, z[i], x[i], y[i]);
  return y;
}

void VaePass::attend(const FrameAttention& block, const Frame& z, const Frame& x, const Frame& y) {
  const FrameShape& s = x.shape();
  const int64_t c = s.channels, pixels = s.height * s.width;
  const Frame qkv = pool_.take({s.height, s.width, 3 * c, 0}), mixed = pool_.take({s.height, s.width, c, 0});
  const auto project = [&](const VaeConv& conv, const Frame& in, const Frame& out, const float* residual) {
    const float* from = in.pixels();
    float* to = out.pixels();
    ops_.conv({.x = &from,
               .w = weights_.data(conv.weight),
               .bias = weights_.data(conv.bias),
               .y = &to,
               .residual = residual ? &residual : nullptr,
               .shape = conv.shape,
               .frames = 1,
               .height = s.height,
               .width = s.width,
               .ldx = in.shape().row(),
               .ldy = out.shape().row(),
               .ldr = s.row()});
  };
  project(block.qkv, z, qkv, nullptr);
  const kernels::KeySpan keys{qkv.pixels() + c, qkv.pixels() + 2 * c, pixels, 3 * c, 3 * c};
  ops_.attention({.q = qkv.pixels(),
                  .out = mixed.pixels(),
                  .rows = pixels,
                  .heads = 1,
                  .head_dim = c,
                  .ldq = 3 * c,
                  .ldo = c,
                  .spans = &keys,
                  .span_count = 1,
                  .scale = 1.0f / std::sqrt(static_cast<float>(c))});
  project(block.out, mixed, y, x.pixels());
}

Frames VaePass::run(const Downsample& layer, const Frames& x) {
  Frames y = spatial(layer.spatial, x, nullptr, 2);
  if (!layer.temporal) return y;
  Frames& past = past_[static_cast<size_t>(layer.temporal->slot)];
  if (first_) {
    past = Frames{};
    past.push(copy(y[y.count - 1]));
    return y;
  }
  const float* in[kMaxInputs];
  int n = 0;
  in[n++] = past[0].pixels();
  for (int i = 0; i < y.count; ++i) in[n++] = y[i].pixels();
  Frames z = convolve(*layer.temporal, {in, static_cast<size_t>(n)}, y.shape(), {.time_stride = 2}, nullptr);
  past[0] = std::move(y[y.count - 1]);
  return z;
}

Frames VaePass::run(const Upsample& layer, const Frames& x) {
  const bool twice = layer.temporal && !first_;
  const int64_t channels = x.shape().channels;
  Frames pairs;  // the channels of two frames side by side
  if (twice) {
    Frames own;  // the convolution keeps its input, but x is not ours
    for (int i = 0; i < x.count; ++i) own.push(copy(x[i]));
    pairs = causal(*layer.temporal, std::move(own));
  }
  const Frames& source = twice ? pairs : x;
  const FrameShape& s = source.shape();
  Frames large = pool_.take(twice ? 2 * x.count : x.count, {2 * s.height, 2 * s.width, channels});
  for (int i = 0; i < large.count; ++i) {
    const float* from = twice ? source[i / 2].pixels() + i % 2 * channels : source[i].pixels();
    ops_.upsample({.x = from,
                   .y = large[i].pixels(),
                   .at_x = strides(s),
                   .at_y = strides(large.shape()),
                   .height = s.height,
                   .width = s.width,
                   .channels = channels});
  }
  return spatial(layer.spatial, large);
}

Frame VaePass::copy(const Frame& x) {
  Frame y = pool_.take(x.shape());
  const int64_t n = x.shape().pixels() * x.shape().channels;
  ops_.combine({.out = y.all(), .n = n, .count = 1, .term = {x.all()}, .coefficient = {1.0}});
  return y;
}

void VaePass::add(const StageShortcut& c, const Frames& x, Frames& y) {
  const FrameShape &from = x.shape(), &to = y.shape();
  if (c.down) {
    // Time folds from the end: a lone first frame is averaged with a frame of zeros before it.
    const int missing = static_cast<int>(c.time) * y.count - x.count;
    for (int i = 0; i < y.count; ++i) {
      const float* in[kMaxFrames];
      for (int a = 0; a < c.time; ++a) {
        const int at = i * static_cast<int>(c.time) + a - missing;
        in[a] = at < 0 ? nullptr : x[at].pixels();
      }
      ops_.average_down({.x = in,
                         .y = y[i].pixels(),
                         .at_x = strides(from),
                         .at_y = strides(to),
                         .height = to.height,
                         .width = to.width,
                         .in = c.in,
                         .out = c.out,
                         .time = c.time,
                         .square = c.square});
    }
    return;
  }
  const int64_t dropped = c.time * x.count - y.count;  // the first frames, on the first group
  for (int i = 0; i < y.count; ++i) {
    const int64_t at = i + dropped;
    ops_.repeat_up({.x = x[static_cast<int>(at / c.time)].pixels(),
                    .y = y[i].pixels(),
                    .at_x = strides(from),
                    .at_y = strides(to),
                    .height = from.height,
                    .width = from.width,
                    .in = c.in,
                    .out = c.out,
                    .time = c.time,
                    .square = c.square,
                    .at = at % c.time});
  }
}

}  // namespace wam
