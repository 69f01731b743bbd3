#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "wamcore/export.h"

namespace wam {

/// Parts of one inference. Time belongs to the innermost stage that is open, so the totals add up to the whole.
enum class Stage : uint8_t { preprocess, text, encode, memory, denoise, decode_actions, decode_video };
inline constexpr size_t kStages = 7;

/// Things worth counting. `images_decoded` proves that no picture is made on the action path.
enum class Counter : uint8_t {
  images_decoded,
  dit_forwards,
  steps_run,
  steps_skipped,
  text_encodes,
  clip_encodes,
  vae_frames_encoded,
  context_resets
};
inline constexpr size_t kCounters = 8;

WAMCORE_API const char* stage_name(Stage stage);
WAMCORE_API const char* counter_name(Counter counter);

/// Where the time of one inference went, and what it did. A plain value: copying it allocates nothing. In a session's
/// trace the figures of the text run on from chunk to chunk, for prompts are encoded between chunks.
struct WAMCORE_API Trace {
  std::array<uint64_t, kStages> ns{};       // time inside each stage, ns
  std::array<uint32_t, kStages> entries{};  // how often each stage was entered
  std::array<uint64_t, kCounters> counts{};

  uint64_t time_ns(Stage stage) const noexcept { return ns[static_cast<size_t>(stage)]; }
  uint64_t count(Counter counter) const noexcept { return counts[static_cast<size_t>(counter)]; }
  uint64_t total_ns() const noexcept;
  void add(Counter counter, uint64_t n = 1) noexcept { counts[static_cast<size_t>(counter)] += n; }
  void clear() noexcept { *this = Trace{}; }
  /// Adds the figures of another trace to this one.
  void accumulate(const Trace& other) noexcept;
};

}  // namespace wam
