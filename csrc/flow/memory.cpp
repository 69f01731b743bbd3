#include "flow/memory.h"

#include <algorithm>
#include <string>

#include "wamcore/error.h"

namespace wam {

Memory::Memory(Size size, std::shared_ptr<Backend> backend) : size_(size), backend_(std::move(backend)) {
  frames_.reserve(static_cast<size_t>(size.window) + 1);
  for (int64_t layer = 0; layer < size.layers; ++layer) {
    for (std::vector<float*>* list : {&k_, &v_}) {
      storage_.push_back(backend_->allocate_keys(size.window * size.frame_rows, size.heads, size.inner / size.heads));
      list->push_back(storage_.back().get());
    }
  }
}

MemoryView Memory::view() const {
  MemoryView view;
  view.k = k_;
  view.v = v_;
  view.capacity = size_.window * size_.frame_rows;
  return view;
}

// Appends the rows of frames [from, to) as runs of neighbouring slots.
void Memory::add(RowRange* list, int& count, size_t from, size_t to) const {
  for (size_t i = from; i < to; ++i) {
    const int64_t begin = frames_[i].slot * size_.frame_rows;
    if (i > from && list[count - 1].begin + list[count - 1].rows == begin)
      list[count - 1].rows += size_.frame_rows;
    else
      list[count++] = {begin, size_.frame_rows};
  }
}

MemoryView Memory::store(int64_t first_id, int count, Origin origin) {
  if (count < 1 || count > size_.window)
    throw InputError("Memory::store: wanted 1 to " + std::to_string(size_.window) + " frames, got " +
                     std::to_string(count));
  const int kept = std::min(static_cast<int>(frames_.size()), size_.window - count);
  frames_.erase(frames_.begin(), frames_.end() - kept);
  for (int i = 0; i < count; ++i) {
    const int slot = frames_.empty() ? 0 : (frames_.back().slot + 1) % size_.window;
    frames_.push_back({first_id + i, slot, origin});
  }
  MemoryView out = view();
  add(out.write, out.writes, static_cast<size_t>(kept), frames_.size());
  add(out.read, out.reads, 0, frames_.size());
  return out;
}

MemoryView Memory::replace(int64_t first_id, int count, Origin origin) {
  const auto it = std::find_if(frames_.begin(), frames_.end(), [&](const Frame& f) { return f.id == first_id; });
  const size_t from = static_cast<size_t>(it - frames_.begin()), to = from + static_cast<size_t>(count);
  if (count < 1 || to > frames_.size())
    throw InputError("Memory::replace: frames " + std::to_string(first_id) + " to " +
                     std::to_string(first_id + count - 1) + " are not in memory");
  for (size_t i = from; i < to; ++i) frames_[i].origin = origin;
  MemoryView out = view();
  add(out.write, out.writes, from, to);
  add(out.read, out.reads, 0, to);
  return out;
}

MemoryView Memory::read(int most) const {
  MemoryView out = view();
  const size_t n = frames_.size(), shown = std::min(n, static_cast<size_t>(std::max(most, 0)));
  add(out.read, out.reads, n - shown, n);
  return out;
}

void Memory::copy(int64_t layer, std::vector<float>& k, std::vector<float>& v) const {
  const size_t at = static_cast<size_t>(layer), each = static_cast<size_t>(size_.frame_rows * size_.inner);
  k.resize(frames_.size() * each);
  v.resize(frames_.size() * each);
  for (size_t i = 0; i < frames_.size(); ++i) {
    const RowRange rows{frames_[i].slot * size_.frame_rows, size_.frame_rows};
    backend_->read_keys(k_[at], rows, size_.heads, size_.inner / size_.heads, k.data() + i * each);
    backend_->read_keys(v_[at], rows, size_.heads, size_.inner / size_.heads, v.data() + i * each);
  }
}

}  // namespace wam
