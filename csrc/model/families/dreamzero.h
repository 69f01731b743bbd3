#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "backend/backend.h"
#include "model/families/dreamzero_config.h"
#include "model/planner.h"
#include "wamcore/export.h"

namespace wam {

/// A program of one pass with the buffers it wants bound; kNone where the pass has no such array.
struct DitProgram {
  std::unique_ptr<Program> program;
  size_t buffers = 0;
  BufferId x = kNone;                       // [channels, frames * height * width]
  BufferId y = kNone;                       // [conditioning channels, frames * height * width]
  BufferId clean = kNone, clean_y = kNone;  // observe_denoise: the same of the observed frames
  BufferId velocity = kNone;                // [out channels, frames * height * width]
  BufferId timesteps = kNone;        // prefill: [1]; denoise: [frames + 1], the action's last, after 0 if observing
  BufferId action = kNone;           // [actions, action_dim]
  BufferId action_velocity = kNone;  // [actions, action_dim]
  BufferId state = kNone;            // [states, max_state_dim]
};

/// The DreamZero transformer on one backend: weights and the programs of its passes. Const after loading, shared by
/// sessions.
class WAMCORE_API DreamZero {
 public:
  struct Grid2 {
    int64_t height = 0, width = 0;  // latent positions
  };
  enum class Pass : uint8_t {
    prefill,       // clean frames into memory, K/V only
    prefill_head,  // the same, and the velocity of the clean frames: for tests
    denoise,       // noisy frames with action and state registers
    // Both in one: the observed frames before `start` (a block, or the one frame of a new context) go into memory, and
    // the noisy ones already see them there. Row by row what two passes compute.
    observe_denoise,
  };
  enum ContextGroup { kText = 0, kImage = 1 };

  /// `prefix` goes before every checkpoint key. Throws ConfigError when grid and frame_seqlen disagree.
  DreamZero(DitConfig config, Grid2 grid, std::string prefix);

  /// Registers every weight of every pass; `weights()` is complete afterwards.
  const WeightTable& weights() const { return table_; }
  void load(std::shared_ptr<Backend> backend, const WeightSource& source, Precision wanted = Precision::automatic);
  Precision precision() const { return packed_->precision(); }  // of the loaded weights

  /// Program of a pass over `frames` latent frames that start at frame `start` of the context. Made on first use.
  const DitProgram& program(Pass pass, int frames, int start) const;
  /// Observed frames of such a pass.
  static int observed_before(int frames, int start) { return frames < start ? frames : start; }
  const Program& text_context() const { return *text_; }    // external 0: [text_len, text_dim]
  const Program& image_context() const { return *image_; }  // external 0: [clip_tokens, clip_dim]
  /// Any other plan of this model, say a training pass or a single layer.
  std::unique_ptr<Program> compile(Plan plan) const { return backend_->compile(std::move(plan), packed_); }

  // The passes as layouts, and the plans they become.
  Layout layout(Pass pass, int frames, int start) const;
  /// Teacher forcing over clean and noisy copies of 1 + blocks * num_frame_per_block frames: the training mask.
  Layout training_layout(int blocks) const;

  const DitConfig& config() const { return config_; }
  Grid2 grid() const { return grid_; }
  Backend& backend() const { return *backend_; }
  const std::shared_ptr<Backend>& shared_backend() const { return backend_; }
  const Planner& planner() const { return planner_; }

 private:
  Coords video_coords(int frames, int start) const;
  Coords register_coords(int64_t count, int64_t first) const;
  Segment video_segment(const std::string& name, int frames, int start) const;
  Segment action_segment(const std::string& name, int64_t count, int64_t first) const;
  Segment state_segment(const std::string& name, int64_t count, int64_t first) const;

  DitConfig config_;
  Grid2 grid_;
  std::string prefix_;
  mutable WeightTable table_;  // grows only while plans are made first, in the constructor
  Planner planner_;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const ProgramWeights> packed_;
  std::unique_ptr<Program> text_, image_;
  mutable std::mutex mutex_;
  mutable std::map<std::tuple<Pass, int, int>, DitProgram> programs_;
};

}  // namespace wam
