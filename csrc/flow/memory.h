#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "wamcore/export.h"

namespace wam {

/// Did the robot see this frame, or did the model imagine it? DreamZero remembers only what was seen. Families that go
/// on from what they imagined, as LingBot-VA does, remember predicted frames until the cameras have caught up with
/// them.
enum class Origin : uint8_t { observed, predicted };

/// K/V of past latent frames of one guidance branch: a ring of whole frames, oldest evicted first, read in place.
class WAMCORE_API Memory {
 public:
  struct Size {
    int64_t layers = 0, inner = 0, frame_rows = 0;  // inner = heads * head_dim
    int window = 0;                                 // frames kept
    int64_t heads = 1;
  };
  struct Frame {
    int64_t id = 0;  // position in the context
    int slot = 0;
    Origin origin = Origin::observed;
  };

  /// Rows as `backend` keeps keys and values.
  Memory(Size size, std::shared_ptr<Backend> backend);
  void clear() { frames_.clear(); }

  /// For a pass that stores `count` new frames with ids first_id, ...: evicts what no longer fits, and shows the new
  /// frames' slots to write and everything kept, new frames included, to read.
  MemoryView store(int64_t first_id, int count, Origin origin);
  /// For a pass that writes frames again that are already there, an observation over a prediction: reads end with them.
  /// The step by which LingBot-VA's kind of memory turns from predicted to observed; nothing that DreamZero runs needs
  /// it, so today only tests call it. Throws InputError when the frames are not there.
  MemoryView replace(int64_t first_id, int count, Origin origin);
  /// For a pass that only reads: the newest `most` frames.
  MemoryView read(int most) const;

  const std::vector<Frame>& frames() const { return frames_; }
  const Size& size() const { return size_; }
  /// Copies of a layer's keys and values in order, float32 [rows, inner] each.
  void copy(int64_t layer, std::vector<float>& k, std::vector<float>& v) const;

 private:
  MemoryView view() const;
  void add(RowRange* list, int& count, size_t from, size_t to) const;

  Size size_;
  std::vector<Frame> frames_;  // oldest first
  std::shared_ptr<Backend> backend_;
  std::vector<std::shared_ptr<float>> storage_;
  std::vector<float*> k_, v_;
};

}  // namespace wam
