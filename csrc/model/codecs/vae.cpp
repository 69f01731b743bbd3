#include "model/codecs/vae.h"

#include <algorithm>

#include "model/codecs/vae_trunk.h"
#include "wamcore/error.h"

namespace wam {

VaeStream::VaeStream(const Vae& vae) {
  encoder_.past.resize(static_cast<size_t>(vae.encoder_slots_));
  decoder_.past.resize(static_cast<size_t>(vae.decoder_slots_));
}
VaeStream::~VaeStream() = default;

void VaeStream::reset_encoder() {
  for (Frames& past : encoder_.past) past = Frames{};
  encoder_.groups = 0;
}
void VaeStream::reset_decoder() {
  for (Frames& past : decoder_.past) past = Frames{};
  decoder_.groups = 0;
}

Vae::Vae(VaeConfig config, const WeightSource& source, std::shared_ptr<Backend> backend, bool with_decoder)
    : config_(std::move(config)), backend_(std::move(backend)) {
  config_.check();
  WeightTable table;
  VaeBuilder encoder(table), decoder(table);
  encoder_ = std::make_unique<VaeTrunk>(VaeTrunk::encoder(config_, encoder));
  const size_t encoder_weights = table.specs().size();
  if (with_decoder) decoder_ = std::make_unique<VaeTrunk>(VaeTrunk::decoder(config_, decoder));
  encoder_slots_ = encoder.slots();
  decoder_slots_ = decoder.slots();
  weights_ = backend_->pack(table, source);
  frames_alone_ = temporal_stride() == 1;
  for (size_t id = 0; id < encoder_weights; ++id) {
    const WeightSpec& spec = table.specs()[id];
    if (spec.use != WeightUse::conv || spec.shape.size() < 5) continue;  // a picture's convolution has no time
    const uint32_t past_taps = (1u << (spec.shape[2] - 1)) - 1;
    if (weights_->live_taps(static_cast<int>(id)) & past_taps) frames_alone_ = false;
  }
  for (size_t i = 0; i < config_.latents_mean.size(); ++i) {
    to_latent_scale_.push_back(1.0f / config_.latents_std[i]);
    to_latent_shift_.push_back(-config_.latents_mean[i] / config_.latents_std[i]);
  }
}
Vae::~Vae() = default;

std::vector<KeySpec> Vae::keys(const VaeConfig& config) {
  WeightTable table;
  VaeBuilder build(table);
  VaeTrunk::encoder(config, build);
  VaeTrunk::decoder(config, build);
  std::vector<KeySpec> keys;
  for (const WeightSpec& spec : table.specs()) keys.push_back({spec.name, spec.shape});
  return keys;
}

bool Vae::is_decoder_key(const std::string& name) { return name.starts_with("decoder.") || name.starts_with("conv2."); }

int64_t Vae::latent_frames(int64_t frames, const VaeStream& stream) const {
  if (stream.encoder_.groups > 0) return frames / temporal_stride();
  return frames < 1 ? 0 : 1 + (frames - 1) / temporal_stride();
}

int64_t Vae::pixel_frames(int64_t latents, const VaeStream& stream) const {
  const bool starts = stream.decoder_.groups == 0 && latents > 0;
  return latents * temporal_stride() - (starts ? temporal_stride() - 1 : 0);
}

namespace {

std::string size_string(int64_t height, int64_t width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

// A stream that failed half-way is of no use: the next video starts afresh.
template <typename Body, typename Reset>
void or_reset(Body&& body, Reset&& reset) {
  try {
    body();
  } catch (...) {
    reset();
    throw;
  }
}

Frames run_trunk(const VaeTrunk& trunk, VaePass& pass, Frames x, int64_t group, const VaeTap& tap) {
  x = pass.causal(trunk.enter, std::move(x));
  for (const VaeStage& stage : trunk.stages) {
    x = pass.run(stage, x);
    if (tap) tap(stage.tap + ".chunk" + std::to_string(group), x);
  }
  return pass.causal(trunk.head, pass.norm(trunk.gamma, x));
}

// The size of a video may change only where a new one starts.
template <typename Side>
void check_size(const char* who, Side& side, int64_t height, int64_t width) {
  if (side.groups > 0 && (side.height != height || side.width != width))
    throw ShapeError(std::string(who) + ": the stream has frames of " + size_string(side.height, side.width) +
                     ", got " + size_string(height, width));
  side.height = height;
  side.width = width;
}

}  // namespace

// Frames that pass through the encoder together. Those that change nothing in each other's latents may go several
// abreast: each weight is then read once for all. Taps are named by latent frame, so with them they go one by one.
int Vae::group_size(int64_t groups, int64_t left, bool one_by_one) const {
  constexpr int64_t kAbreast = 4;  // more would only take more memory
  if (frames_alone_ && !one_by_one) return static_cast<int>(std::min(left, kAbreast));
  return groups == 0 ? 1 : static_cast<int>(temporal_stride());
}

void Vae::encode(const Video& v, float* latents, VaeStream& stream, const VaeTap& tap) const {
  const int64_t s = spatial_stride();
  if (v.frames < 1 || v.height < s || v.width < s || v.height % s != 0 || v.width % s != 0)
    throw ShapeError("Vae::encode: wanted frames of multiples of " + std::to_string(s) + " pixels, got " +
                     std::to_string(v.frames) + " of " + size_string(v.height, v.width));
  check_size("Vae::encode", stream.encoder_, v.height, v.width);
  const int64_t count = latent_frames(v.frames, stream);
  auto& side = stream.encoder_;
  or_reset(
      [&] {
        for (int64_t i = 0, at = 0; i < count;) {
          const int group = group_size(side.groups, count - i, tap != nullptr);
          VaePass pass(backend_->ops(), *weights_, stream.pool_, side.past, side.groups == 0);
          Frames x = run_trunk(*encoder_, pass, pixels_in(v, at, group, stream), side.groups, tap);
          if (tap) tap("encoder_out_chunk" + std::to_string(side.groups), x);
          const Frames z = pass.spatial(encoder_->latent, x);
          for (int f = 0; f < z.count; ++f) latent_out(z[f], i + f, count, latents);
          at += group;
          i += z.count;
          side.groups += z.count;
        }
      },
      [&] { stream.reset_encoder(); });
}

void Vae::decode(const Latents& z, float* video, VaeStream& stream, bool clamp, const VaeTap& tap) const {
  if (!decoder_) throw WeightError("Vae::decode: the decoder was not loaded");
  if (z.frames < 1 || z.height < 1 || z.width < 1)
    throw ShapeError("Vae::decode: wanted latent frames, got " + std::to_string(z.frames) + " of " +
                     size_string(z.height, z.width));
  check_size("Vae::decode", stream.decoder_, z.height, z.width);
  auto& side = stream.decoder_;
  const int64_t frame = z.height * z.width * spatial_stride() * spatial_stride() * 3;
  or_reset(
      [&] {
        for (int64_t i = 0; i < z.frames; ++i) {
          VaePass pass(backend_->ops(), *weights_, stream.pool_, side.past, side.groups == 0);
          Frames x = pass.spatial(decoder_->latent, latent_in(z, i, stream));
          x = run_trunk(*decoder_, pass, std::move(x), side.groups, tap);
          pixels_out(x, video, clamp);
          video += x.count * frame;
          ++side.groups;
        }
      },
      [&] { stream.reset_decoder(); });
}

Frames Vae::pixels_in(const Video& v, int64_t first, int count, VaeStream& stream) const {
  const int64_t n = config_.patch_size;
  Frames x = stream.pool_.take(count, {v.height / n, v.width / n, 3 * n * n});
  for (int i = 0; i < count; ++i)
    backend_->ops().pixel_unshuffle({.x = v.data + (first + i) * v.height * v.width * 3,
                                     .y = x[i].pixels(),
                                     .at_x = {v.width * 3, 3},
                                     .at_y = {x.shape().row(), x.shape().channels},
                                     .height = v.height / n,
                                     .width = v.width / n,
                                     .colours = 3,
                                     .patch = n});
  return x;
}

void Vae::pixels_out(const Frames& x, float* video, bool clamp) const {
  const FrameShape& s = x.shape();
  const int64_t n = config_.patch_size, height = s.height * n, width = s.width * n;
  for (int i = 0; i < x.count; ++i, video += height * width * 3) {
    backend_->ops().pixel_shuffle({.x = x[i].pixels(),
                                   .y = video,
                                   .at_x = {s.row(), s.channels},
                                   .at_y = {width * 3, 3},
                                   .height = s.height,
                                   .width = s.width,
                                   .colours = 3,
                                   .patch = n});
    if (clamp)
      backend_->ops().affine({.x = video,
                              .y = video,
                              .at_x = {width * 3, 3},
                              .at_y = {width * 3, 3},
                              .height = height,
                              .width = width,
                              .channels = 3,
                              .low = -1.0f,
                              .high = 1.0f});
  }
}

void Vae::latent_out(const Frame& x, int64_t at, int64_t frames, float* latents) const {
  const FrameShape& s = x.shape();
  const int64_t plane = s.height * s.width;  // the second half of the channels, the log-variance, is not used
  backend_->ops().affine({.x = x.pixels(),
                          .y = latents + at * plane,
                          .at_x = {s.row(), s.channels},
                          .at_y = {s.width, 1, frames * plane},
                          .height = s.height,
                          .width = s.width,
                          .channels = config_.z_dim,
                          .scale = to_latent_scale_.data(),
                          .shift = to_latent_shift_.data()});
}

Frames Vae::latent_in(const Latents& z, int64_t at, VaeStream& stream) const {
  Frames x = stream.pool_.take(1, {z.height, z.width, config_.z_dim});
  const int64_t plane = z.height * z.width;
  backend_->ops().affine({.x = z.data + at * plane,
                          .y = x[0].pixels(),
                          .at_x = {z.width, 1, z.frames * plane},
                          .at_y = {x.shape().row(), config_.z_dim},
                          .height = z.height,
                          .width = z.width,
                          .channels = config_.z_dim,
                          .scale = config_.latents_std.data(),
                          .shift = config_.latents_mean.data()});
  return x;
}

}  // namespace wam
