#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "backend/ops.h"
#include "backend/weights.h"
#include "model/codecs/frames.h"

namespace wam {

// What a causal VAE is made of. A layer is a few weight ids and sizes; what runs it is VaePass.

/// A convolution; with time taps it is causal and keeps its last inputs in `slot` of the stream.
struct VaeConv {
  int weight = -1, bias = -1;
  kernels::ConvShape shape;
  int slot = -1;
};
/// RMS over the channels of each pixel, SiLU, convolution, twice, and a shortcut around them.
struct ResidualBlock {
  int gamma1 = -1, gamma2 = -1;
  VaeConv conv1, conv2;
  std::optional<VaeConv> shortcut;  // where the number of channels changes
};
/// One head of attention over the pixels of each frame.
struct FrameAttention {
  int gamma = -1;
  VaeConv qkv, out;
};
/// Halves the picture and, with `temporal`, the frame rate: the first frame of a stream passes alone.
struct Downsample {
  VaeConv spatial;
  std::optional<VaeConv> temporal;
};
/// Doubles the picture and, with `temporal`, the frame rate: the first latent of a stream makes one frame.
struct Upsample {
  VaeConv spatial;
  std::optional<VaeConv> temporal;  // makes the channels of two frames
};
using VaeLayer = std::variant<ResidualBlock, FrameAttention, Downsample, Upsample>;

/// The shortcut around a stage of the 2.2 codec; it has no weights.
struct StageShortcut {
  bool down = true;  // average pixels into channels, else repeat channels into pixels
  int64_t in = 0, out = 0, time = 1, square = 1;
};
/// Layers that run one after the other under one name.
struct VaeStage {
  std::string tap;  // e.g. "enc.downsamples.0"
  std::vector<VaeLayer> layers;
  std::optional<StageShortcut> shortcut;
};

/// Names the weights of layers as the published checkpoints do and hands out slots.
class VaeBuilder {
 public:
  explicit VaeBuilder(WeightTable& table) : table_(table) {}
  int slots() const { return slots_; }

  VaeConv conv(const std::string& name, const kernels::ConvShape& shape);
  VaeConv conv2d(const std::string& name, const kernels::ConvShape& shape);  // [out, in, rows, cols] in the checkpoint
  int gamma(const std::string& name, int64_t channels, size_t axes = 3);     // [channels, 1, 1, 1] for 3 axes
  ResidualBlock residual(const std::string& name, int64_t in, int64_t out);
  FrameAttention attention(const std::string& name, int64_t channels);
  Downsample downsample(const std::string& name, int64_t channels, bool temporal);
  Upsample upsample(const std::string& name, int64_t in, int64_t out, bool temporal);

 private:
  VaeConv add(const std::string& name, const kernels::ConvShape& shape, Shape stored);
  WeightTable& table_;
  int slots_ = 0;
};

/// Runs layers on the next group of frames of a stream.
class VaePass {
 public:
  /// `past` is indexed by the slots of the layers; `first`: this group starts the stream.
  VaePass(Ops& ops, const PackedWeights& weights, FramePool& pool, std::vector<Frames>& past, bool first)
      : ops_(ops), weights_(weights), pool_(pool), past_(past), first_(first) {}

  Frames run(const VaeStage& stage, const Frames& x);
  /// Causal convolution of x, which is kept for the groups to come.
  Frames causal(const VaeConv& conv, Frames x, const Frames* residual = nullptr);
  /// Convolution of each frame on its own, 1 x 1 or 3 x 3.
  Frames spatial(const VaeConv& conv, const Frames& x, const Frames* residual = nullptr, int64_t stride = 1);
  Frames norm(int gamma, const Frames& x, bool silu = true);

 private:
  Frames run(const ResidualBlock& block, const Frames& x);
  Frames run(const FrameAttention& block, const Frames& x);
  Frames run(const Downsample& layer, const Frames& x);
  Frames run(const Upsample& layer, const Frames& x);
  void attend(const FrameAttention& block, const Frame& z, const Frame& x, const Frame& y);
  void add(const StageShortcut& shortcut, const Frames& x, Frames& y);
  void remember(const VaeConv& conv, Frames x);
  Frame copy(const Frame& x);
  Frames convolve(const VaeConv& conv, std::span<const float* const> x, const FrameShape& x_shape,
                  kernels::ConvParams params, const Frames* residual);

  Ops& ops_;
  const PackedWeights& weights_;
  FramePool& pool_;
  std::vector<Frames>& past_;
  bool first_;
};

}  // namespace wam
