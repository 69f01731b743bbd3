#include "model/codecs/vae_trunk.h"

#include <algorithm>

#include "wamcore/error.h"

namespace wam {
namespace {

// Two residual blocks with attention between them.
void add_middle(std::vector<VaeStage>& stages, VaeBuilder& build, const std::string& side, const std::string& tap,
                int64_t width) {
  const std::string name = side + ".middle.";
  stages.push_back({tap + ".middle.0", {build.residual(name + "0", width, width)}, {}});
  stages.push_back({tap + ".middle.1", {build.attention(name + "1", width)}, {}});
  stages.push_back({tap + ".middle.2", {build.residual(name + "2", width, width)}, {}});
}

// Collects the layers of the levels: numbered through in 2.1, grouped by level in 2.2.
class Levels {
 public:
  Levels(std::vector<VaeStage>& stages, const std::string& side, const std::string& tap, const std::string& part,
         bool wan22)
      : stages_(stages), name_(side + "." + part), tap_(tap + "." + part), part_(part), wan22_(wan22) {}

  /// The checkpoint's name of the next layer.
  std::string next() const {
    if (!wan22_) return name_ + "." + std::to_string(count_);
    return name_ + "." + std::to_string(level_) + "." + part_ + "." + std::to_string(layers_.size());
  }
  void push(VaeLayer layer) {
    if (wan22_)
      layers_.push_back(std::move(layer));
    else
      stages_.push_back({tap_ + "." + std::to_string(count_), {std::move(layer)}, {}});
    ++count_;
  }
  void end_level(std::optional<StageShortcut> shortcut) {
    if (wan22_) stages_.push_back({tap_ + "." + std::to_string(level_), std::move(layers_), shortcut});
    layers_.clear();
    ++level_;
  }

 private:
  std::vector<VaeStage>& stages_;
  std::string name_, tap_, part_;
  bool wan22_;
  std::vector<VaeLayer> layers_;
  int count_ = 0, level_ = 0;
};

void check_shortcut(const StageShortcut& s) {
  const int64_t fold = s.time * s.square * s.square, from = s.down ? s.in * fold : s.out * fold,
                to = s.down ? s.out : s.in;
  if (from % to != 0)
    throw ConfigError("VaeConfig: the shortcut of a stage from " + std::to_string(s.in) + " to " +
                      std::to_string(s.out) + " channels does not come out even");
}

}  // namespace

VaeTrunk VaeTrunk::encoder(const VaeConfig& c, VaeBuilder& build) {
  VaeTrunk trunk;
  trunk.enter = build.conv("encoder.conv1", {c.dim, 3 * c.patch_size * c.patch_size, 3, 3, 3});
  Levels levels(trunk.stages, "encoder", "enc", "downsamples", c.wan22);
  int64_t in = c.dim;
  for (size_t i = 0; i < c.dim_mult.size(); ++i) {
    const int64_t out = c.dim * c.dim_mult[i], enter = in;
    for (int64_t j = 0; j < c.num_res_blocks; ++j, in = out) levels.push(build.residual(levels.next(), in, out));
    const bool down = i + 1 < c.dim_mult.size(), temporal = down && c.temporal_downsample[i];
    if (down) levels.push(build.downsample(levels.next(), out, temporal));
    const StageShortcut shortcut{
        .down = true, .in = enter, .out = out, .time = temporal ? 2 : 1, .square = down ? 2 : 1};
    if (c.wan22) check_shortcut(shortcut);
    levels.end_level(shortcut);
  }
  add_middle(trunk.stages, build, "encoder", "enc", in);
  trunk.gamma = build.gamma("encoder.head.0", in);
  trunk.head = build.conv("encoder.head.2", {2 * c.z_dim, in, 3, 3, 3});
  trunk.latent = build.conv("conv1", {2 * c.z_dim, 2 * c.z_dim, 1, 1, 1});
  return trunk;
}

VaeTrunk VaeTrunk::decoder(const VaeConfig& c, VaeBuilder& build) {
  VaeTrunk trunk;
  trunk.latent = build.conv("conv2", {c.z_dim, c.z_dim, 1, 1, 1});
  int64_t in = c.dec_dim * c.dim_mult.back();
  trunk.enter = build.conv("decoder.conv1", {in, c.z_dim, 3, 3, 3});
  add_middle(trunk.stages, build, "decoder", "dec", in);
  Levels levels(trunk.stages, "decoder", "dec", "upsamples", c.wan22);
  const size_t count = c.dim_mult.size();
  for (size_t i = 0; i < count; ++i) {
    const int64_t out = c.dec_dim * c.dim_mult[count - 1 - i], enter = in;
    for (int64_t j = 0; j <= c.num_res_blocks; ++j, in = out) levels.push(build.residual(levels.next(), in, out));
    const bool up = i + 1 < count, temporal = up && c.temporal_downsample[count - 2 - i];
    if (up && !c.wan22) {  // 2.1 halves the channels as it enlarges the picture
      if (out % 2 != 0) throw ConfigError("VaeConfig: wanted an even number of channels, got " + std::to_string(out));
      in = out / 2;
    }
    if (up) levels.push(build.upsample(levels.next(), out, in, temporal));
    const StageShortcut shortcut{.down = false, .in = enter, .out = out, .time = temporal ? 2 : 1, .square = 2};
    if (c.wan22 && up) check_shortcut(shortcut);
    levels.end_level(up ? std::optional(shortcut) : std::nullopt);
  }
  trunk.gamma = build.gamma("decoder.head.0", in);
  trunk.head = build.conv("decoder.head.2", {3 * c.patch_size * c.patch_size, in, 3, 3, 3});
  return trunk;
}

}  // namespace wam
