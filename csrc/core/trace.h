#pragma once

#include <chrono>

#include "wamcore/trace.h"

namespace wam {

/// Fills a Trace while an inference runs. One thread at a time.
class Tracer {
 public:
  /// The figures so far. An open stage is charged when it closes.
  const Trace& trace() const noexcept { return trace_; }
  void clear() noexcept { trace_.clear(); }
  /// Begins the figures of the next chunk. Those of the text run on: a prompt is encoded between two chunks, and
  /// whoever reads the trace after a chunk must still find it.
  void next_chunk() noexcept {
    constexpr auto kText = static_cast<size_t>(Stage::text);
    const uint64_t ns = trace_.ns[kText], encodes = trace_.count(Counter::text_encodes);
    const uint32_t entries = trace_.entries[kText];
    trace_.clear();
    trace_.ns[kText] = ns, trace_.entries[kText] = entries;
    trace_.add(Counter::text_encodes, encodes);
  }
  void add(Counter counter, uint64_t n = 1) noexcept { trace_.add(counter, n); }

 private:
  friend class ScopedStage;
  static constexpr size_t kNone = kStages;
  /// Charges the time since the last switch to the open stage and opens another; returns the one that was open.
  size_t switch_to(size_t stage) noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (open_ != kNone)
      trace_.ns[open_] +=
          static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now - since_).count());
    const size_t before = open_;
    open_ = stage;
    since_ = now;
    return before;
  }

  Trace trace_;
  size_t open_ = kNone;
  std::chrono::steady_clock::time_point since_;
};

/// Times one stage; an enclosing stage pauses meanwhile. A null tracer is allowed and costs nothing.
class ScopedStage {
 public:
  ScopedStage(Tracer* tracer, Stage stage) noexcept : tracer_(tracer) {
    if (!tracer_) return;
    before_ = tracer_->switch_to(static_cast<size_t>(stage));
    ++tracer_->trace_.entries[static_cast<size_t>(stage)];
  }
  ~ScopedStage() {
    if (tracer_) tracer_->switch_to(before_);
  }
  ScopedStage(const ScopedStage&) = delete;
  ScopedStage& operator=(const ScopedStage&) = delete;

 private:
  Tracer* tracer_;
  size_t before_ = 0;
};

}  // namespace wam
