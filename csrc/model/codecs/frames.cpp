#include "model/codecs/frames.h"

#include <utility>

namespace wam {

Frame& Frame::operator=(Frame&& other) noexcept {
  if (this == &other) return *this;
  drop();
  bucket_ = std::exchange(other.bucket_, nullptr);
  data_ = std::exchange(other.data_, nullptr);
  origin_ = std::exchange(other.origin_, nullptr);
  return *this;
}

void Frame::drop() noexcept {
  if (data_) bucket_->free.push_back(data_);
  data_ = nullptr;
}

const FrameShape& Frame::shape() const { return bucket_->shape; }

Frame FramePool::take(const FrameShape& shape) {
  FrameBucket* bucket = nullptr;
  for (FrameBucket& b : buckets_)
    if (b.shape == shape) bucket = &b;
  if (!bucket) bucket = &buckets_.emplace_back(FrameBucket{shape, {}, {}});
  if (bucket->free.empty()) {
    bucket->free.reserve(bucket->owned.size() + 1);
    bucket->owned.push_back(Tensor({shape.pixels(), shape.channels}));
    bucket->free.push_back(bucket->owned.back().data<float>());
    bytes_ += static_cast<int64_t>(bucket->owned.back().nbytes());
  }
  Frame frame;
  frame.bucket_ = bucket;
  frame.data_ = bucket->free.back();
  frame.origin_ = frame.data_ + shape.apron * (shape.row() + shape.channels);
  bucket->free.pop_back();
  return frame;
}

Frames FramePool::take(int count, const FrameShape& shape) {
  Frames frames;
  for (int i = 0; i < count; ++i) frames.push(take(shape));
  return frames;
}

}  // namespace wam
