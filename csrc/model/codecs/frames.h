#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "wamcore/export.h"
#include "wamcore/tensor.h"

namespace wam {

/// A picture of features, channels last: [height, width, channels]. `apron` pixels of zeros surround it, so that
/// convolutions need no test for borders.
struct FrameShape {
  int64_t height = 0, width = 0, channels = 0, apron = 1;
  bool operator==(const FrameShape&) const = default;
  int64_t row() const { return (width + 2 * apron) * channels; }  // floats from one row of pixels to the next
  int64_t pixels() const { return (height + 2 * apron) * (width + 2 * apron); }  // with the apron
};

/// The frames of one shape, of a pool.
struct FrameBucket {
  FrameShape shape;
  std::vector<Tensor> owned;
  std::vector<float*> free;  // has room for all, so that giving back never allocates
};

/// A frame borrowed from a pool; it goes back when dropped. Whoever writes to it leaves the apron zero.
class WAMCORE_API Frame {
 public:
  Frame() = default;
  Frame(Frame&& other) noexcept { *this = std::move(other); }
  Frame& operator=(Frame&& other) noexcept;
  ~Frame() { drop(); }

  const FrameShape& shape() const;
  float* all() const { return data_; }       // first pixel of the apron
  float* pixels() const { return origin_; }  // pixel (0, 0)
  explicit operator bool() const { return data_ != nullptr; }

 private:
  friend class FramePool;
  void drop() noexcept;
  FrameBucket* bucket_ = nullptr;
  float *data_ = nullptr, *origin_ = nullptr;
};

/// Most frames that pass through a codec together.
inline constexpr int kMaxFrames = 16;

/// Consecutive frames of one shape.
struct Frames {
  int count = 0;
  std::array<Frame, kMaxFrames> at;

  const FrameShape& shape() const { return at[0].shape(); }
  Frame& operator[](int i) { return at[static_cast<size_t>(i)]; }
  const Frame& operator[](int i) const { return at[static_cast<size_t>(i)]; }
  void push(Frame frame) { at[static_cast<size_t>(count++)] = std::move(frame); }
};

/// Memory for frames, kept for reuse: once a codec has seen every shape it needs, nothing is allocated any more.
class FramePool {
 public:
  FramePool() = default;
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;

  /// A frame with arbitrary pixels and an apron of zeros.
  Frame take(const FrameShape& shape);
  Frames take(int count, const FrameShape& shape);
  int64_t bytes() const { return bytes_; }  // of all frames, in use or not

 private:
  std::deque<FrameBucket> buckets_;  // frames point at them
  int64_t bytes_ = 0;
};

}  // namespace wam
