#include "session/context.h"

#include <algorithm>

#include "wamcore/error.h"

namespace wam {
namespace {

constexpr int64_t kMaskChannels = 4;  // before the conditioning latents: one for the frame that is given, else zero

// Frames [from, from + count) of src [channels, frames, area] to dst [channels, count, area].
void slice_frames(const float* src, int64_t channels, int64_t frames, int64_t area, int64_t from, int64_t count,
                  float* dst) {
  for (int64_t c = 0; c < channels; ++c)
    std::copy_n(src + (c * frames + from) * area, count * area, dst + c * count * area);
}

}  // namespace

Context::Context(std::shared_ptr<const DreamZeroModel> model, Denoiser& denoiser)
    : model_(std::move(model)),
      denoiser_(denoiser),
      block_(static_cast<int>(model_->config.dit.num_frame_per_block)),
      window_(static_cast<int>(model_->config.dit.local_attn_size)),
      stream_(*model_->vae) {
  const DitConfig& c = model_->config.dit;
  const int64_t h = model_->dit->grid().height, w = model_->dit->grid().width;
  frame_pixels_ = int64_t{3} * model_->height * model_->width;
  latent_area_ = h * w;
  condition_frames_ = static_cast<int>(1 + (model_->config.num_frames - 1) / model_->vae->temporal_stride());
  first_ = Tensor({c.out_dim, 1, h, w});
  block_latents_ = Tensor({c.out_dim, block_, h, w});
  if (c.cond_channels()) {
    conditions_ = Tensor({c.cond_channels(), condition_frames_, h, w});
    condition_slice_ = Tensor({c.cond_channels(), block_, h, w});
    observed_slice_ = Tensor({c.cond_channels(), block_, h, w});
  }
  if (c.has_clip()) image_tokens_ = Tensor({c.clip_tokens, c.clip_dim});
  // No observation is stretched to more than twice the block's frames: see stretched().
  const int64_t most = 1 + 2 * block_ * model_->vae->temporal_stride();
  pixels_.reserve(static_cast<size_t>(std::max(most, conditions_ ? model_->config.num_frames : 0) * frame_pixels_));
  encoded_.reserve(static_cast<size_t>(c.out_dim * model_->vae->latent_frames(most, stream_) * latent_area_));
}

// The release expects 1 + block * stride frames (one before the block, then the block); it accepts fewer by repeating
// each, and puts a copy of the oldest before the block where it is missing.
int Context::stretched(int frames) const {
  const int stride = static_cast<int>(model_->vae->temporal_stride());
  if (frames < 1) throw InputError("Session::infer: an observation without frames");
  if ((frames - 1) / stride == block_) return frames;
  const int groups = frames / stride, times = groups > 0 ? block_ / groups : 0;
  if (groups == block_) return frames + 1;
  if (times == 0)
    throw InputError("Session::infer: wanted 1 or " + std::to_string(stride) + " to " +
                     std::to_string((block_ + 1) * stride) + " frames a camera, got " + std::to_string(frames));
  return frames * times + 1;
}

// Encodes frames of one video from its beginning; `out` gets the last `last` latent frames. Where no frame changes
// another's latents, only those are encoded.
const float* Context::encode(const float* video, int frames, int last, Tensor& out, Tracer& trace) {
  const ScopedStage stage(&trace, Stage::encode);
  const int64_t channels = model_->config.dit.out_dim;
  stream_.reset_encoder();
  if (model_->vae->encodes_frames_alone() && frames > last) {
    video += (frames - last) * frame_pixels_;
    frames = last;
  }
  const int64_t count = model_->vae->latent_frames(frames, stream_);
  encoded_.resize(static_cast<size_t>(channels * count * latent_area_));
  model_->vae->encode({video, frames, model_->height, model_->width}, encoded_.data(), stream_);
  trace.add(Counter::vae_frames_encoded, static_cast<uint64_t>(frames));
  slice_frames(encoded_.data(), channels, count, latent_area_, count - last, last, out.data<float>());
  return out.data<float>();
}

const float* Context::condition(int start, int frames, Tensor& slice) {
  if (!conditions_) return nullptr;
  // Past the window of conditions its last frames serve.
  const int from = start + frames <= condition_frames_ ? start : condition_frames_ - frames;
  slice_frames(conditions_.data<float>(), conditions_.dim(0), condition_frames_, latent_area_, from, frames,
               slice.data<float>());
  return slice.data<float>();
}

void Context::remember(int frames, int start, const float* latents) {
  observed_ = {.frames = frames, .start = start, .x = latents, .y = condition(start, frames, observed_slice_)};
}

void Context::restart(const float* video, int frames, Tracer& trace) {
  trace.add(Counter::context_resets);
  // At the release's own stride a picture count other than these two starts the context with the oldest frame.
  const int stride = static_cast<int>(model_->vae->temporal_stride());
  const bool newest = stride != 4 || frames == stride || frames == 1 + block_ * stride;
  const float* picture = video + (newest ? frames - 1 : 0) * frame_pixels_;
  if (image_tokens_) {
    const ScopedStage stage(&trace, Stage::encode);
    model_->clip->encode({picture, model_->height, model_->width}, image_tokens_.data<float>());
    trace.add(Counter::clip_encodes);
    denoiser_.set_image(image_tokens_.data<float>());
  }
  if (conditions_) {
    // The given frame followed by grey ones: their latents say "nothing known here" the way the model was trained.
    pixels_.assign(static_cast<size_t>(model_->config.num_frames * frame_pixels_), 0.0f);
    std::copy_n(picture, frame_pixels_, pixels_.begin());
    Tensor& all = conditions_;
    const int64_t channels = model_->config.dit.out_dim, n = condition_frames_ * latent_area_;
    std::fill_n(all.data<float>(), all.numel(), 0.0f);
    for (int64_t m = 0; m < kMaskChannels; ++m) std::fill_n(all.data<float>() + m * n, latent_area_, 1.0f);
    const ScopedStage stage(&trace, Stage::encode);
    stream_.reset_encoder();
    model_->vae->encode({pixels_.data(), model_->config.num_frames, model_->height, model_->width},
                        all.data<float>() + kMaskChannels * n, stream_);
    trace.add(Counter::vae_frames_encoded, static_cast<uint64_t>(model_->config.num_frames));
    slice_frames(all.data<float>() + kMaskChannels * n, channels, condition_frames_, latent_area_, 0, 1,
                 first_.data<float>());
  } else {
    encode(picture, 1, 1, first_, trace);
  }
  denoiser_.clear_memory();
  remember(1, 0, first_.data<float>());
  start_ = 1;
  fresh_ = false;
}

void Context::observe(const float* video, int frames, const float* latents, Tracer& trace) {
  if (!latents) {
    const int wanted = stretched(frames);
    if (wanted != frames) {
      const int times = (wanted - 1) / frames;
      pixels_.resize(static_cast<size_t>(wanted * frame_pixels_));
      std::copy_n(video, frame_pixels_, pixels_.begin());
      for (int i = 0; i < frames * times; ++i)
        std::copy_n(video + i / times * frame_pixels_, frame_pixels_, pixels_.begin() + (i + 1) * frame_pixels_);
      video = pixels_.data();
    }
    latents = encode(video, wanted, block_, block_latents_, trace);
  }
  remember(block_, start_ - block_, latents);
}

}  // namespace wam
