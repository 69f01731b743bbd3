#include "wamcore/trace.h"

#include <numeric>

namespace wam {

const char* stage_name(Stage stage) {
  static constexpr std::array<const char*, kStages> kNames = {"preprocess", "text",           "encode",      "memory",
                                                              "denoise",    "decode_actions", "decode_video"};
  return kNames.at(static_cast<size_t>(stage));
}

const char* counter_name(Counter counter) {
  static constexpr std::array<const char*, kCounters> kNames = {"images_decoded",     "dit_forwards",  "steps_run",
                                                                "steps_skipped",      "text_encodes",  "clip_encodes",
                                                                "vae_frames_encoded", "context_resets"};
  return kNames.at(static_cast<size_t>(counter));
}

uint64_t Trace::total_ns() const noexcept { return std::accumulate(ns.begin(), ns.end(), uint64_t{0}); }

void Trace::accumulate(const Trace& other) noexcept {
  for (size_t i = 0; i < kStages; ++i) ns[i] += other.ns[i], entries[i] += other.entries[i];
  for (size_t i = 0; i < kCounters; ++i) counts[i] += other.counts[i];
}

}  // namespace wam
