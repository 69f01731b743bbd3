#pragma once

#include <memory>
#include <vector>

#include "flow/memory.h"
#include "model/families/dreamzero.h"

namespace wam {

/// Frames that the cameras saw, to be remembered before the next block is sampled.
struct ObservedFrames {
  int frames = 0, start = 0;  // latent frames [start, start + frames) of the context; frames 0: nothing new
  const float *x = nullptr, *y = nullptr;  // [channels, frames, height, width] each, y nullptr where there is none
};

/// One session's running state of a DreamZero transformer: context K/V and memory of each guidance branch, workspace.
class WAMCORE_API Denoiser {
 public:
  enum Branch { kConditional = 0, kUnconditional = 1 };
  /// What a denoise pass reads and writes; shapes as in DitProgram.
  struct Arrays {
    const float *x = nullptr, *y = nullptr, *timesteps = nullptr, *action = nullptr, *state = nullptr;
    const float *clean = nullptr, *clean_y = nullptr;  // of observed frames
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
  /// Both in one pass: the observed frames into memory, and a denoise pass that sees them. timesteps [1 + frames + 1].
  void observe_denoise(int branch, const ObservedFrames& observed, int frames, int start, Arrays arrays);
  /// Can it be one pass? It sees the whole memory, so nothing may have to be left out for the new frames' sake.
  bool fits_one_pass(const ObservedFrames& observed, int frames, int start) const;

  /// The program of a pass, for whoever runs whole chunks.
  ChunkPass pass(DreamZero::Pass pass, int frames, int start) const;
  /// Opens the memory of every branch for observed frames that a chunk remembers; the views of all branches are alike.
  MemoryView store(const ObservedFrames& observed);
  /// What a denoise pass of that many frames reads.
  MemoryView read(int frames) const;
  void count_forwards(int passes) { forwards_ += static_cast<uint64_t>(passes); }

  Memory& memory(int branch) { return memory_.at(static_cast<size_t>(branch)); }
  const Memory& memory(int branch) const { return memory_.at(static_cast<size_t>(branch)); }
  int branches() const { return static_cast<int>(memory_.size()); }
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
  int kept(int frames) const;

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
