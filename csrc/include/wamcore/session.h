#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "wamcore/model.h"
#include "wamcore/operation.h"
#include "wamcore/policy.h"
#include "wamcore/trace.h"

namespace wam {

/// How much of the future is imagined beside the actions. Actions always are.
struct Imagine {
  int frames = -1;          // leading latent frames that are denoised; the others stay noise. -1: all, 0: none
  double stop_sigma = 0.0;  // the video stops at this noise level; 0: goes to the end
};

/// What may differ from the checkpoint's own sampling. Unset: as the checkpoint says.
struct SampleOptions {
  std::optional<int> steps;                    // flow steps
  std::optional<double> guidance;              // of the video; 1 runs no unconditional branch
  std::optional<double> shift;                 // of the schedule
  std::optional<std::string> solver;           // "unipc" or "euler"
  std::optional<std::vector<bool>> step_mask;  // which steps run the model; empty: all
  std::optional<bool> dynamic_skip;            // skip by similarity instead
  std::optional<bool> decoupled;               // video ends at video_final_noise
  std::optional<double> video_final_noise;
  std::optional<uint64_t> seed;  // of the initial noise; a reset starts its sequence again
  Imagine imagine;
  /// Nobody asks for the imagined frames: passes that only they need are not run, which changes no action, and
  /// predicted_latents() and decode() throw.
  bool actions_only = false;
  /// The observed frames and the first noisy block in one pass of the model instead of two. Unset: where the weights'
  /// reading bounds a pass, which saves a whole one; elsewhere the two passes do a little less.
  std::optional<bool> fuse_observation;
  bool fixed_noise = false;               // the same noise for every chunk, as DreamZero's release has it
  std::optional<double> prefix_strength;  // of extend()'s pull; unset: 5, or 10 from 10 flow steps on
  /// extend() gives the frozen rows clean, for checkpoints that were trained so (unset: all of them); false: it pulls.
  std::optional<bool> trained_prefix;
  /// Control ticks of an observation's frames, when the robot replans at another stride than the checkpoint names.
  std::optional<std::vector<int>> frame_offsets;
};

/// Initial noise given from outside, so that a run can be compared with another implementation.
struct Noise {
  std::vector<float> video;   // [channels, frames, height, width]
  std::vector<float> action;  // [horizon, action_dim of the model]
};

/// One robot's stream: prompt, memory, noise. Everything that changes. One thread at a time. When a device fails in the
/// middle of a chunk the session is closed: every later call that needs its memory throws DeviceError with the cause.
class WAMCORE_API Session : public Policy {
 public:
  /// Throws ConfigError.
  explicit Session(std::shared_ptr<const Model> model, const SampleOptions& options = {});
  ~Session() override;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// The instruction. A changed one starts a new context at the next infer(); the chunk in execution goes on until
  /// then. From any thread: it waits for the chunk that is being inferred. Throws InputError, e.g. when it is empty.
  void set_prompt(const std::string& instruction);
  /// Token ids, at most the model's text length; `negative` for guidance, needed unless guidance is 1.
  void set_prompt_tokens(const std::vector<int64_t>& ids, const std::vector<int64_t>& negative = {});

  /// One chunk of absolute joint targets. Throws InputError and ShapeError on a bad observation; the session then is as
  /// it was before the call.
  void infer(const Observation& obs, ActionChunk& out) override;
  ActionChunk infer(const Observation& obs, const Noise* noise = nullptr, const float* latents = nullptr);
  /// As infer(), with the actions guided toward `plan` while they are sampled: its rows are taken relative to the new
  /// state where the model predicts relative actions. A checkpoint whose `trained_prefix_rows` says that it was trained
  /// for it gets the frozen rows (at most that many) clean, with timestep 0, and nothing pulls, unless
  /// SampleOptions::trained_prefix says otherwise. Throws InputError when
  /// rows are missing or not finite.
  void extend(const Observation& obs, const Continuation& plan, ActionChunk& out) override;
  ActionChunk extend(const Observation& obs, const Continuation& plan, const Noise* noise);
  Continuity continuity() const noexcept override;
  double dt() const override;
  int horizon() const override;
  int dof() const override;
  std::vector<int> frame_offsets() const override;
  uint32_t epoch() const noexcept override;

  /// Forgets all frames: the next infer() starts a new context, and chunks made before are void. From any thread.
  void reset();

  /// The latents of the last chunk, [channels, frames, height, width]: the observed first frame when the chunk started
  /// a context, then the imagined ones.
  const Tensor& predicted_latents() const;
  /// Leading frames of predicted_latents() that were observed.
  int observed_frames() const;
  /// The imagined frames of the last chunk as pictures, uint8 [frames, height, width, 3]. Only here are images decoded.
  Tensor decode();

  const Model& model() const;
  const Trace& trace() const;  // of the last chunk; Stage::text and Counter::text_encodes since the session was made
  /// What has computed so far and how often: the model's operations for all of its sessions, and the resizing of
  /// pictures, which is this session's and always on the CPU.
  std::vector<OperationReport> operations() const;
  /// From here on, operations of the model are timed, for all of its sessions, or no longer. A measurement: it starts
  /// from nothing and slows them down a little. Throws DeviceError where the device cannot.
  void time_operations(bool on);
  std::vector<OperationTime> operation_times() const;  // the longest first; of a device that cannot, none
  int context_start() const;                           // latent frame at which the next chunk starts
  const std::vector<int>& steps_run() const;           // of the last chunk
  /// Keys and values of a layer's memory in order, [2, rows, heads * head_dim]; branch 1 is unconditional.
  Tensor memory(int layer, int branch = 0) const;

  class State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace wam
