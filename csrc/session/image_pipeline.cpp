#include "session/image_pipeline.h"

#include <algorithm>
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

}  // namespace

// PyTorch's weights for antialiased bilinear, in float32 as it computes them.
ImagePipeline::Axis ImagePipeline::antialiased(int from, int to) {
  Axis a{.from = from, .to = to};
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  const float support = scale >= 1.0f ? scale : 1.0f, inverse = scale >= 1.0f ? 1.0f / scale : 1.0f;
  a.most = static_cast<int>(std::ceil(support)) * 2 + 1;
  a.weight.assign(static_cast<size_t>(to * a.most), 0.0f);
  for (int i = 0; i < to; ++i) {
    const float center = scale * (static_cast<float>(i) + 0.5f);
    const int first = std::max(static_cast<int>(center - support + 0.5f), 0);
    const int count = std::min(std::min(static_cast<int>(center + support + 0.5f), from) - first, a.most);
    float* w = a.weight.data() + i * a.most;
    float total = 0.0f;
    for (int j = 0; j < count; ++j) {
      const float x = std::abs((static_cast<float>(j + first) - center + 0.5f) * inverse);
      w[j] = x < 1.0f ? 1.0f - x : 0.0f;
      total += w[j];
    }
    for (int j = 0; j < count; ++j) w[j] /= total;
    a.first.push_back(first);
    a.count.push_back(count);
  }
  return a;
}

// Bilinear without antialiasing, align_corners off.
ImagePipeline::Axis ImagePipeline::plain(int from, int to) {
  Axis a{.from = from, .to = to, .most = 2};
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  for (int i = 0; i < to; ++i) {
    const float p = std::max((static_cast<float>(i) + 0.5f) * scale - 0.5f, 0.0f);
    const int first = std::min(static_cast<int>(p), from - 1);
    const float t = p - static_cast<float>(first);
    a.first.push_back(first);
    a.count.push_back(first + 1 < from ? 2 : 1);
    a.weight.push_back(first + 1 < from ? 1.0f - t : 1.0f);
    a.weight.push_back(t);
  }
  return a;
}

ImagePipeline::ImagePipeline(const Embodiment& e, int target_height, int target_width)
    : composition_(e.composition), view_{e.view_hw[0], e.view_hw[1]}, target_{target_height, target_width} {
  for (const CameraSpec& camera : e.cameras) {
    View v{.name = camera.name, .height = camera.height, .width = camera.width};
    v.crop_height = static_cast<int>(camera.height * e.crop_scale),
    v.crop_width = static_cast<int>(camera.width * e.crop_scale);
    if (v.crop_height < 1 || v.crop_width < 1)
      throw ConfigError("embodiment: crop_scale leaves nothing of camera '" + v.name + "'");
    v.top = static_cast<int>(std::nearbyint((camera.height - v.crop_height) / 2.0));  // half to even, as Python rounds
    v.left = static_cast<int>(std::nearbyint((camera.width - v.crop_width) / 2.0));
    v.rows = antialiased(v.crop_height, view_[0]), v.cols = antialiased(v.crop_width, view_[1]);
    // A picture that keeps its size passes through: the truncation to bytes would only darken it.
    v.as_it_is = camera.height == view_[0] && camera.width == view_[1] && e.crop_scale == 1.0;
    views_.push_back(std::move(v));
  }
  const int grid = composition_ == "single" ? 1 : 2;
  composed_[0] = grid * view_[0], composed_[1] = grid * view_[1];
  if (target_[0]) target_rows_ = plain(composed_[0], target_[0]), target_cols_ = plain(composed_[1], target_[1]);
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

// Crops, resizes (columns first, then rows) and truncates one frame of a view into small_.
void ImagePipeline::resize_view(const View& v, const uint8_t* rgb) {
  const size_t wide = static_cast<size_t>(3 * view_[1]);
  small_.resize(static_cast<size_t>(view_[0]) * wide);
  if (v.as_it_is) {
    std::copy_n(rgb, small_.size(), small_.begin());
    return;
  }
  wide_.resize(static_cast<size_t>(v.crop_height) * wide);
  row_.resize(static_cast<size_t>(3 * v.crop_width));
  for (int y = 0; y < v.crop_height; ++y) {
    const uint8_t* from = rgb + ((v.top + y) * v.width + v.left) * 3;
    for (size_t i = 0; i < row_.size(); ++i) row_[i] = static_cast<float>(from[i]) / 255.0f;
    for (int x = 0; x < view_[1]; ++x)
      for (int ch = 0; ch < 3; ++ch) {
        const float* w = v.cols.weight.data() + x * v.cols.most;
        const float* s = row_.data() + 3 * v.cols.first[static_cast<size_t>(x)] + ch;
        float sum = s[0] * w[0];
        for (int j = 1; j < v.cols.count[static_cast<size_t>(x)]; ++j) sum += s[3 * j] * w[j];
        wide_[static_cast<size_t>(y) * wide + static_cast<size_t>(3 * x + ch)] = sum;
      }
  }
  for (int y = 0; y < view_[0]; ++y) {
    const float* w = v.rows.weight.data() + y * v.rows.most;
    const float* s = wide_.data() + static_cast<size_t>(v.rows.first[static_cast<size_t>(y)]) * wide;
    for (size_t i = 0; i < wide; ++i) {
      float sum = s[i] * w[0];
      for (int j = 1; j < v.rows.count[static_cast<size_t>(y)]; ++j) sum += s[i + static_cast<size_t>(j) * wide] * w[j];
      small_[static_cast<size_t>(y) * wide + i] = static_cast<uint8_t>(std::clamp(sum * 255.0f, 0.0f, 255.0f));
    }
  }
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
  if (!target_[0]) {
    for (size_t i = 0; i < bytes_.size(); ++i) out[i] = (static_cast<float>(bytes_[i]) / 255.0f - 0.5f) / 0.5f;
    return;
  }
  const int w = composed_[1];
  for (int f = 0; f < frames; ++f) {
    const uint8_t* from = bytes_.data() + static_cast<size_t>(f) * picture;
    const auto value = [&](int y, int x, int ch) {
      return (static_cast<float>(from[(y * w + x) * 3 + ch]) / 255.0f - 0.5f) / 0.5f;
    };
    for (int y = 0; y < target_[0]; ++y)
      for (int x = 0; x < target_[1]; ++x)
        for (int ch = 0; ch < 3; ++ch) {
          const size_t iy = static_cast<size_t>(y), ix = static_cast<size_t>(x);
          float sum = 0.0f;
          for (int j = 0; j < target_rows_.count[iy]; ++j)
            for (int k = 0; k < target_cols_.count[ix]; ++k)
              sum += target_rows_.weight[2 * iy + static_cast<size_t>(j)] *
                     target_cols_.weight[2 * ix + static_cast<size_t>(k)] *
                     value(target_rows_.first[iy] + j, target_cols_.first[ix] + k, ch);
          *out++ = sum;
        }
  }
}

}  // namespace wam
