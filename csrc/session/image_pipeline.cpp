#include "session/image_pipeline.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/text.h"
#include "wamcore/error.h"

namespace wam {
namespace {

std::string size_text(int h, int w) { return std::to_string(h) + " x " + std::to_string(w); }

const CameraFrames& find(const Observation& obs, const std::string& name) {
  for (const CameraFrames& c : obs.cameras)
    if (c.name == name) return c;
  throw InputError("Session::infer: camera '" + name + "' is missing");
}

// What each byte means, before and after the scaling to [-1, 1].
using Levels = std::array<float, 256>;
constexpr Levels levels(bool scaled) {
  Levels out{};
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<float>(i) / 255.0f;
    if (scaled) out[i] = (out[i] - 0.5f) / 0.5f;
  }
  return out;
}
constexpr Levels kUnit = levels(false), kScaled = levels(true);

// Resizes [rows.from, cols.from, 3] to [rows.to, cols.to, 3]: along the rows of pixels first.
void resize(const float* x, const kernels::ResampleWeights& rows, const kernels::ResampleWeights& cols, float* wide,
            float* y) {
  const int64_t from = 3 * cols.from, to = 3 * cols.to;
  const kernels::Team alone;
  kernels::resample({.x = x, .y = wide, .outer = rows.from, .inner = 3, .ldx = from, .ldy = to, .weights = &cols},
                    alone);
  kernels::resample({.x = wide, .y = y, .outer = 1, .inner = to, .weights = &rows}, alone);
}

}  // namespace

ImagePipeline::ImagePipeline(const Embodiment& e, int target_height, int target_width)
    : composition_(e.composition), view_{e.view_hw[0], e.view_hw[1]}, target_{target_height, target_width} {
  for (const CameraSpec& camera : e.cameras) {
    View v{.name = camera.name, .height = camera.height, .width = camera.width};
    v.crop_height = static_cast<int>(camera.height * e.crop_scale);
    v.crop_width = static_cast<int>(camera.width * e.crop_scale);
    if (v.crop_height < 1 || v.crop_width < 1)
      throw ConfigError("embodiment: crop_scale leaves nothing of camera '" + v.name + "'");
    v.top = static_cast<int>(std::nearbyint((camera.height - v.crop_height) / 2.0));  // half to even, as Python rounds
    v.left = static_cast<int>(std::nearbyint((camera.width - v.crop_width) / 2.0));
    v.rows = kernels::resample_weights(v.crop_height, view_[0], kernels::Resampling::antialiased);
    v.cols = kernels::resample_weights(v.crop_width, view_[1], kernels::Resampling::antialiased);
    // A picture that keeps its size passes through: the truncation to bytes would only darken it.
    v.as_it_is = camera.height == view_[0] && camera.width == view_[1] && e.crop_scale == 1.0;
    views_.push_back(std::move(v));
  }
  const int grid = composition_ == "single" ? 1 : 2;
  composed_[0] = grid * view_[0], composed_[1] = grid * view_[1];
  if (!target_[0]) return;
  target_rows_ = kernels::resample_weights(composed_[0], target_[0], kernels::Resampling::bilinear);
  target_cols_ = kernels::resample_weights(composed_[1], target_[1], kernels::Resampling::bilinear);
}

void ImagePipeline::unknown_camera(const std::string& name) const {
  std::vector<std::string> known;
  for (const View& v : views_) known.push_back(v.name);
  const std::string best = nearest(name, known);
  throw InputError("Session::infer: unknown camera " + quote(name) + "; the model wants '" +
                   (best.empty() ? known[0] : best) + "'");
}

int ImagePipeline::check(const Observation& obs) const {
  for (size_t i = 0; i < obs.cameras.size(); ++i) {
    const std::string& name = obs.cameras[i].name;
    if (std::none_of(views_.begin(), views_.end(), [&](const View& v) { return v.name == name; })) unknown_camera(name);
    for (size_t j = 0; j < i; ++j)
      if (obs.cameras[j].name == name) throw InputError("Session::infer: camera '" + name + "' is given twice");
  }
  const int frames = find(obs, views_[0].name).frames;
  for (const View& v : views_) {
    const CameraFrames& c = find(obs, v.name);
    if (c.height != v.height || c.width != v.width)
      throw ShapeError("Session::infer: camera '" + v.name + "' wants frames of " + size_text(v.height, v.width) +
                       " pixels, got " + size_text(c.height, c.width));
    if (c.frames < 1 || c.frames != frames)
      throw ShapeError("Session::infer: camera '" + v.name + "' has " + std::to_string(c.frames) + " frames, '" +
                       views_[0].name + "' has " + std::to_string(frames));
    if (c.rgb.size() != static_cast<size_t>(c.frames) * static_cast<size_t>(c.height * c.width) * 3)
      throw ShapeError("Session::infer: camera '" + v.name + "' wants " + std::to_string(c.frames) + " x " +
                       size_text(c.height, c.width) + " x 3 bytes, got " + std::to_string(c.rgb.size()));
  }
  return frames;
}

// Crops, resizes and truncates one frame of a view into small_.
void ImagePipeline::resize_view(const View& v, const uint8_t* rgb) {
  small_.resize(static_cast<size_t>(3 * view_[0] * view_[1]));
  if (v.as_it_is) {
    std::copy_n(rgb, small_.size(), small_.begin());
    return;
  }
  const int row = 3 * v.crop_width;
  source_.resize(static_cast<size_t>(v.crop_height * row));
  wide_.resize(static_cast<size_t>(v.crop_height * 3 * view_[1]));
  tall_.resize(small_.size());
  for (int y = 0; y < v.crop_height; ++y) {
    const uint8_t* from = rgb + ((v.top + y) * v.width + v.left) * 3;
    std::transform(from, from + row, source_.begin() + y * row, [](uint8_t level) { return kUnit[level]; });
  }
  resize(source_.data(), v.rows, v.cols, wide_.data(), tall_.data());
  ++resized_;
  std::transform(tall_.begin(), tall_.end(), small_.begin(), [](float value) {  // truncated, not rounded, as upstream
    return static_cast<uint8_t>(std::clamp(value * 255.0f, 0.0f, 255.0f));
  });
}

// Puts small_ into its cell. droid: view 2 on top with every column twice, views 0 and 1 side by side below. grid: view
// 0 over view 1 on the left, view 2 over black on the right.
void ImagePipeline::place(size_t view, uint8_t* picture) const {
  const int h = view_[0], w = view_[1], stride = 3 * composed_[1];
  if (composition_ == "droid" && view == 2) {
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x)
        for (int ch = 0; ch < 3; ++ch)
          picture[y * stride + 6 * x + ch] = picture[y * stride + 6 * x + 3 + ch] =
              small_[static_cast<size_t>((y * w + x) * 3 + ch)];
    return;
  }
  const int index = static_cast<int>(view);
  const int row = composition_ == "droid" ? 1 : index == 1, column = composition_ == "droid" ? index : index == 2;
  for (int y = 0; y < h; ++y)
    std::copy_n(small_.data() + y * 3 * w, 3 * w, picture + (row * h + y) * stride + column * 3 * w);
}

void ImagePipeline::run(const Observation& obs, float* out) {
  const int frames = find(obs, views_[0].name).frames;
  const size_t picture = static_cast<size_t>(3 * composed_[0]) * static_cast<size_t>(composed_[1]);
  bytes_.assign(picture * static_cast<size_t>(frames), 0);  // what no view covers is black
  for (size_t i = 0; i < views_.size(); ++i) {
    const CameraFrames& c = find(obs, views_[i].name);
    for (int f = 0; f < frames; ++f) {
      resize_view(views_[i], c.rgb.data() + static_cast<size_t>(f) * static_cast<size_t>(3 * c.height * c.width));
      place(i, bytes_.data() + static_cast<size_t>(f) * picture);
    }
  }
  for (int f = 0; f < frames; ++f)
    scale(bytes_.data() + static_cast<size_t>(f) * picture,
          out + static_cast<size_t>(f) * static_cast<size_t>(3 * height() * width()));
}

// One composed picture to [-1, 1] and to its final size.
void ImagePipeline::scale(const uint8_t* picture, float* out) {
  const size_t n = static_cast<size_t>(3 * composed_[0] * composed_[1]);
  const auto value = [](uint8_t level) { return kScaled[level]; };
  if (!target_[0]) {
    std::transform(picture, picture + n, out, value);
    return;
  }
  source_.resize(n);
  wide_.resize(static_cast<size_t>(composed_[0] * 3 * target_[1]));
  std::transform(picture, picture + n, source_.begin(), value);
  resize(source_.data(), target_rows_, target_cols_, wide_.data(), out);
  ++resized_;
}

}  // namespace wam
