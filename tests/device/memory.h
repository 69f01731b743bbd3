#pragma once

#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "rig.h"

namespace device_check {

/// The arrays of one check, in a rig's memory. Every array has bytes before and after it that nobody may write, and
/// that are NaN to whoever reads them; results begin as NaN, so that what was not written shows.
class Memory {
 public:
  explicit Memory(Rig& rig) : rig_(rig) {}
  Memory(const Memory&) = delete;
  ~Memory() {
    for (const Block& block : blocks_) rig_.release(block.base);
  }

  /// What a kernel reads. check() sees to it that it did not write there.
  template <typename T>
  T* input(const std::vector<T>& values) {
    T* at = array(values.data(), values.size());
    blocks_.back().original.assign(bytes_of(values.data()), bytes_of(values.data() + values.size()));
    return at;
  }
  /// What a kernel reads and writes.
  template <typename T>
  T* both(const std::vector<T>& values) {
    return array(values.data(), values.size());
  }
  /// What a kernel writes.
  template <typename T>
  T* output(size_t count) {
    return array<T>(nullptr, count);
  }
  template <typename T>
  std::vector<T> fetch(const T* at, size_t count) const {
    std::vector<T> values(count);
    rig_.download(values.data(), bytes_of(at), count * sizeof(T));
    return values;
  }
  /// Throws where a byte changed that no kernel may change.
  void check() const {
    for (const Block& block : blocks_) {
      std::vector<std::byte> all(block.bytes + 2 * kGuard);
      rig_.download(all.data(), block.base, all.size());
      for (size_t i = 0; i < kGuard; ++i) {
        if (all[i] != kFill) throw std::runtime_error("wrote before the beginning of an array");
        if (all[kGuard + block.bytes + i] != kFill) throw std::runtime_error("wrote past the end of an array");
      }
      if (!block.original.empty() && std::memcmp(all.data() + kGuard, block.original.data(), block.bytes) != 0)
        throw std::runtime_error("wrote to an input");
    }
  }

 private:
  static constexpr size_t kGuard = 1024;
  static constexpr std::byte kFill{0xff};  // NaN in float32, bf16 and e4m3
  struct Block {
    std::byte* base = nullptr;
    size_t bytes = 0;
    std::vector<std::byte> original;
  };

  template <typename T>
  static const std::byte* bytes_of(const T* at) {
    return reinterpret_cast<const std::byte*>(at);
  }
  template <typename T>
  T* array(const T* values, size_t count) {
    Block block{.base = nullptr, .bytes = count * sizeof(T), .original = {}};
    std::vector<std::byte> all(block.bytes + 2 * kGuard, kFill);
    if (values) std::memcpy(all.data() + kGuard, values, block.bytes);
    block.base = rig_.allocate(all.size());
    blocks_.push_back(std::move(block));
    rig_.upload(blocks_.back().base, all.data(), all.size());
    return reinterpret_cast<T*>(blocks_.back().base + kGuard);
  }

  Rig& rig_;
  std::vector<Block> blocks_;
};

}  // namespace device_check
