#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace wam {

/// Scratch memory reserved once and handed out by moving a mark. Nothing is freed piece by piece: a Scope gives back
/// all that was taken inside it. Not for sharing between threads.
class Arena {
 public:
  static constexpr size_t kAlignment = 64;

  explicit Arena(size_t reserved_bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Uninitialised bytes, aligned to 64. Throws DeviceError when the reserved size does not suffice.
  void* take(size_t bytes);
  /// Uninitialised array of n elements.
  template <class T>
  T* take(int64_t n) {
    return static_cast<T*>(take(array_bytes(n, sizeof(T))));
  }

  /// Gives back on exit what was taken since it was made. Debug builds fill it with 0xff (NaN as float) and
  /// AddressSanitizer builds poison it, so that use after the scope shows.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.release_to(mark_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t mark_;
  };

  size_t used() const { return used_; }          // bytes, with padding
  size_t peak() const { return peak_; }          // largest used() so far, bytes
  size_t reserved() const { return reserved_; }  // bytes

 private:
  static size_t array_bytes(int64_t n, size_t element);
  void release_to(size_t mark) noexcept;

  struct Free {
    void operator()(std::byte* p) const noexcept;
  };
  size_t reserved_ = 0, used_ = 0, peak_ = 0;
  std::unique_ptr<std::byte[], Free> memory_;
};

}  // namespace wam
