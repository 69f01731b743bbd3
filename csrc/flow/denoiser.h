#pragma once

#include <memory>
#include <vector>

#include "flow/memory.h"
#include "model/families/dreamzero.h"

namespace wam {

/// One session's running state of a DreamZero transformer: context K/V and memory of each guidance branch, workspace.
class WAMCORE_API Denoiser {
 public:
  enum Branch { kConditional = 0, kUnconditional = 1 };
  /// What a denoise pass reads and writes; shapes as in DitProgram.
  struct Arrays {
    const float *x = nullptr, *y = nullptr, *timesteps = nullptr, *action = nullptr, *state = nullptr;
    float *velocity = nullptr, *action_velocity = nullptr;
  };

  Denoiser(std::shared_ptr<const DreamZero> model, int branches);

  /// Caches the prompt's K/V: text [text_len, text_dim].
  void set_text(int branch, const float* text);
  /// Caches the image tokens' K/V, the same for all branches: image [clip_tokens, clip_dim].
  void set_image(const float* image);
  void clear_memory();

  /// Clean frames [start, start + frames) into the branch's memory. With `velocity` also runs the head, for tests.
  void prefill(int branch, int frames, int start, const float* x, const float* y, float* velocity = nullptr);
  void denoise(int branch, int frames, int start, const Arrays& arrays);

  Memory& memory(int branch) { return memory_.at(static_cast<size_t>(branch)); }
  const Memory& memory(int branch) const { return memory_.at(static_cast<size_t>(branch)); }
  const DreamZero& model() const { return *model_; }
  uint64_t forwards() const { return forwards_; }
  void set_tap(const Tap* tap) { tap_ = tap; }
  /// Makes the programs of these passes now and room for them, so that running them allocates nothing.
  void prepare(DreamZero::Pass pass, int frames, int start);
  ContextView context(int branch) const;

 private:
  void run(const DitProgram& p, int branch, const Arrays& arrays, const MemoryView& memory);
  ContextView::Group group(int64_t rows);
  float* workspace(const Program& program);

  std::shared_ptr<const DreamZero> model_;
  std::vector<Memory> memory_;
  std::vector<std::shared_ptr<float>> context_;  // K and V of every group, [layers, rows, inner] each
  std::vector<ContextView::Group> groups_;       // [branches, groups]
  std::shared_ptr<float> workspace_;
  int64_t workspace_floats_ = 0;
  uint64_t forwards_ = 0;
  const Tap* tap_ = nullptr;
};

}  // namespace wam
