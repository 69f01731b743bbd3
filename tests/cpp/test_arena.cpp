// The arena hands out, gives back and refuses; the tracer charges time to the innermost stage.
#include <cstring>
#include <thread>

#include "check.h"
#include "core/arena.h"
#include "core/trace.h"
#include "wamcore/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

using namespace wam;

TEST(takes_are_aligned_and_apart) {
  Arena arena(1000);
  auto* a = static_cast<char*>(arena.take(1));
  auto* b = arena.take<float>(3);
  CHECK(reinterpret_cast<uintptr_t>(a) % 64 == 0 && reinterpret_cast<uintptr_t>(b) % 64 == 0);
  CHECK(reinterpret_cast<char*>(b) - a == 64);
  *a = 1, b[2] = 2;
  CHECK(arena.used() == 128);
}

TEST(scopes_nest_and_give_back) {
  Arena arena(1024);
  void* first = arena.take(64);
  void* again = nullptr;
  {
    Arena::Scope outer(arena);
    again = arena.take(128);
    {
      Arena::Scope inner(arena);
      std::memset(arena.take(512), 1, 512);
    }
    CHECK(arena.used() == 192);
  }
  CHECK(arena.used() == 64 && arena.peak() == 704);
  CHECK(arena.take(8) == again && first != again);
}

#if defined(__SANITIZE_ADDRESS__)
TEST(what_a_scope_gave_back_is_poisoned) {
  Arena arena(256);
  char* p = nullptr;
  {
    Arena::Scope scope(arena);
    p = arena.take<char>(10);
    CHECK(!__asan_address_is_poisoned(p + 9) && __asan_address_is_poisoned(p + 10));  // the padding is off limits too
  }
  CHECK(__asan_address_is_poisoned(p));
}
#elif !defined(NDEBUG)
TEST(what_a_scope_gave_back_is_overwritten) {
  Arena arena(256);
  float* p = nullptr;
  {
    Arena::Scope scope(arena);
    p = arena.take<float>(1);
    *p = 1;
  }
  CHECK(*p != *p);
}
#endif

TEST(too_much_is_refused_and_leaves_the_arena_usable) {
  Arena arena(256);
  arena.take(128);
  CHECK_THROWS(arena.take(129), DeviceError, "wanted 129 bytes, have 128 of 256");
  CHECK_THROWS(arena.take(SIZE_MAX), DeviceError, "have 128");
  CHECK_THROWS(arena.take<double>(INT64_MAX), DeviceError, "elements of 8");
  CHECK_THROWS(arena.take<float>(-1), DeviceError, "-1 elements");
  arena.take(128);
  CHECK(arena.used() == 256 && arena.take(0) != nullptr);
  CHECK_THROWS(arena.take(1), DeviceError, "have 0");
  CHECK_THROWS(Arena{SIZE_MAX}, DeviceError, "cannot reserve");
}

TEST(a_nested_stage_pauses_the_outer_one) {
  Tracer tracer;
  const auto begin = std::chrono::steady_clock::now();
  {
    ScopedStage outer(&tracer, Stage::denoise);
    ScopedStage inner(&tracer, Stage::memory);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const auto wall = uint64_t((std::chrono::steady_clock::now() - begin) / std::chrono::nanoseconds(1));
  const Trace& trace = tracer.trace();
  CHECK(trace.time_ns(Stage::memory) >= 5'000'000);
  CHECK(trace.total_ns() <= wall && trace.time_ns(Stage::denoise) <= wall - 5'000'000);
  CHECK(trace.entries[size_t(Stage::memory)] == 1 && trace.entries[size_t(Stage::text)] == 0);
}

TEST(traces_count_add_up_and_have_names) {
  Tracer tracer;
  tracer.add(Counter::dit_forwards, 4);
  tracer.add(Counter::dit_forwards);
  Trace sum;
  sum.accumulate(tracer.trace());
  sum.accumulate(tracer.trace());
  CHECK(sum.count(Counter::dit_forwards) == 10 && sum.count(Counter::images_decoded) == 0);
  tracer.clear();
  CHECK(tracer.trace().count(Counter::dit_forwards) == 0);
  ScopedStage nothing(nullptr, Stage::text);
  CHECK(std::string(stage_name(Stage::decode_video)) == "decode_video");
  CHECK(std::string(counter_name(Counter::context_resets)) == "context_resets");
}

CHECK_MAIN()
