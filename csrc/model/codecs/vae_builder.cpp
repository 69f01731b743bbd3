#include "model/codecs/vae_layers.h"
#include "wamcore/error.h"

namespace wam {

VaeConv VaeBuilder::add(const std::string& name, const kernels::ConvShape& shape, Shape stored) {
  VaeConv conv{.shape = shape};
  conv.weight = table_.add(name + ".weight", std::move(stored), WeightUse::conv);
  conv.bias = table_.add(name + ".bias", {shape.out}, WeightUse::vector);
  if (shape.time > 1) conv.slot = slots_++;
  return conv;
}

VaeConv VaeBuilder::conv(const std::string& name, const kernels::ConvShape& s) {
  return add(name, s, {s.out, s.in, s.time, s.rows, s.cols});
}

VaeConv VaeBuilder::conv2d(const std::string& name, const kernels::ConvShape& s) {
  return add(name, s, {s.out, s.in, s.rows, s.cols});
}

int VaeBuilder::gamma(const std::string& name, int64_t channels, size_t axes) {
  Shape shape(axes + 1, 1);
  shape[0] = channels;
  return table_.add(name + ".gamma", std::move(shape), WeightUse::vector);
}

ResidualBlock VaeBuilder::residual(const std::string& name, int64_t in, int64_t out) {
  ResidualBlock block;
  block.gamma1 = gamma(name + ".residual.0", in);
  block.conv1 = conv(name + ".residual.2", {out, in, 3, 3, 3});
  block.gamma2 = gamma(name + ".residual.3", out);
  block.conv2 = conv(name + ".residual.6", {out, out, 3, 3, 3});
  if (in != out) block.shortcut = conv(name + ".shortcut", {out, in, 1, 1, 1});
  return block;
}

FrameAttention VaeBuilder::attention(const std::string& name, int64_t channels) {
  FrameAttention block;
  block.gamma = gamma(name + ".norm", channels, 2);
  block.qkv = conv2d(name + ".to_qkv", {3 * channels, channels});
  block.out = conv2d(name + ".proj", {channels, channels});
  return block;
}

Downsample VaeBuilder::downsample(const std::string& name, int64_t channels, bool temporal) {
  Downsample layer{conv2d(name + ".resample.1", {channels, channels, 1, 3, 3}), {}};
  if (temporal) layer.temporal = conv(name + ".time_conv", {channels, channels, 3, 1, 1});
  return layer;
}

Upsample VaeBuilder::upsample(const std::string& name, int64_t in, int64_t out, bool temporal) {
  Upsample layer{conv2d(name + ".resample.1", {out, in, 1, 3, 3}), {}};
  if (temporal) layer.temporal = conv(name + ".time_conv", {2 * in, in, 3, 1, 1});
  return layer;
}

}  // namespace wam
