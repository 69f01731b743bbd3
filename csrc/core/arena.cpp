#include "core/arena.h"

#include <cstring>
#include <new>
#include <string>

#include "wamcore/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace wam {
namespace {

#ifdef NDEBUG
constexpr bool kFillReleased = false;
#else
constexpr bool kFillReleased = true;
#endif

size_t round_up(size_t bytes) {
  size_t padded = 0;
  if (__builtin_add_overflow(bytes, Arena::kAlignment - 1, &padded))
    throw DeviceError("arena: cannot reserve " + std::to_string(bytes) + " bytes");
  return padded / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

void Arena::Free::operator()(std::byte* p) const noexcept { ::operator delete[](p, std::align_val_t{kAlignment}); }

Arena::Arena(size_t reserved_bytes) : reserved_(round_up(reserved_bytes)) {
  memory_.reset(static_cast<std::byte*>(::operator new[](reserved_, std::align_val_t{kAlignment})));
  ASAN_POISON_MEMORY_REGION(memory_.get(), reserved_);
}

Arena::~Arena() { ASAN_UNPOISON_MEMORY_REGION(memory_.get(), reserved_); }

void* Arena::take(size_t bytes) {
  // reserved_ and used_ are multiples of the alignment, so what fits unpadded fits padded
  if (bytes > reserved_ - used_)
    throw DeviceError("arena: wanted " + std::to_string(bytes) + " bytes, have " + std::to_string(reserved_ - used_) +
                      " of " + std::to_string(reserved_) + " reserved");
  std::byte* const start = memory_.get() + used_;
  ASAN_UNPOISON_MEMORY_REGION(start, bytes);
  used_ += round_up(bytes);
  if (used_ > peak_) peak_ = used_;
  return start;
}

size_t Arena::array_bytes(int64_t n, size_t element) {
  size_t bytes = 0;
  if (n < 0 || __builtin_mul_overflow(static_cast<uint64_t>(n), element, &bytes))
    throw DeviceError("arena: cannot hold " + std::to_string(n) + " elements of " + std::to_string(element) + " bytes");
  return bytes;
}

void Arena::release_to(size_t mark) noexcept {
  std::byte* const start = memory_.get() + mark;
  if constexpr (kFillReleased) {
    ASAN_UNPOISON_MEMORY_REGION(start, used_ - mark);
    std::memset(start, 0xff, used_ - mark);
  }
  ASAN_POISON_MEMORY_REGION(start, used_ - mark);
  used_ = mark;
}

}  // namespace wam
